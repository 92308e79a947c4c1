//! `service create`

use swarm_docker_api::view::CreateServiceResponse;
use swarm_model::Redacted;

use super::{
    super::check_version::CheckVersion,
    object_ids,
    registry_flags::{RegistryFlags, environment},
    wait::WaitFlags,
};
use crate::{
    client::{Query, read},
    context::Context,
    progress::Before,
    spec_flags::{CreateFlags, Draft},
};

const EXAMPLES: &str = "\
Examples:
  Three tasks, each with a port of its node:
    swarmctl service create --name web --replicas 3 --publish target=80,mode=host nginx:1

  Limits, a health check, and updates that start the new task first:
    swarmctl service create --name api --limit-memory 256m --limit-cpu 0.5 \\
      --health-cmd 'wget -q -O- localhost/health' --update-order start-first example/api:2

  One task on each worker, without waiting:
    swarmctl service create -d --name agent --mode global --constraint node.role==worker example/agent

  In two networks of the swarm, one of which finds it as www too:
    swarmctl service create --name web --network name=front,alias=www --network back nginx:1

  A secret and a config, as the files /run/secrets/db-password and /etc/nginx/nginx.conf:
    swarmctl service create --name web --secret db-password \\
      --config source=nginx.conf,target=/etc/nginx/nginx.conf,mode=0440 nginx:1

  Give up after a minute:
    swarmctl service create --name slow --timeout 1m busybox sleep 3600

  A job: ten tasks that run to their end, three at a time; --mode global-job for one on each node:
    swarmctl service create --name resize --mode replicated-job --replicas 10 --max-concurrent 3 example/resize:1";

/// Create a service and wait until its tasks run
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "swarmctl service create [OPTIONS] IMAGE [COMMAND] [ARG...]"
)]
pub(crate) struct Create {
    #[command(flatten)]
    service: CreateFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    check: CheckVersion,
    #[command(flatten)]
    wait: WaitFlags,
}

impl Create {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let deadline = self.wait.deadline();
        let (draft, auth) = draft(context, &self.service, &self.registry).await?;
        self.check.check(context).await?;
        let auth = auth.as_ref().map(Redacted::expose);
        let answer = context.client.post("/services/create", Query::new(), draft.spec(), auth).await?;
        let created: CreateServiceResponse = read("/services/create", &answer)?;
        for warning in created.warnings.iter().flatten() {
            context.out.note(&format!("Warning: {warning}"));
        }
        context.out.line(&created.id)?;
        self.wait.wait(context, &created.id, deadline, Before::default()).await.map(drop)
    }
}

/// The spec of a new service, its image pinned, and the credentials that go with it.
///
/// # Errors
/// Flags that do not fit each other, or objects or credentials that are not there.
pub(super) async fn draft(
    context: &mut Context,
    service: &CreateFlags,
    registry: &RegistryFlags,
) -> anyhow::Result<(Draft, Option<Redacted>)> {
    let ids = object_ids::find(&context.client, &service.objects()).await?;
    let mut draft = service.spec(&environment, &ids)?;
    let auth = registry.credentials(&draft)?;
    registry.pin_image(context, &mut draft, auth.as_ref()).await;
    Ok((draft, auth))
}
