//! `service update`

use swarm_model::Redacted;

use super::{
    super::check_version::CheckVersion,
    change::{Changed, Current, tasks_of},
    object_ids,
    registry_flags::{RegistryFlags, environment},
    wait::WaitFlags,
};
use crate::{
    client::Query,
    context::Context,
    error::Hinted,
    progress::{Outcome, last_failure},
    spec_flags::{ChangeFlags, Draft, ObjectIds},
    tasks::with_name,
};

const EXAMPLES: &str = "\
Examples:
  A new image, two tasks at a time, ten seconds apart:
    swarmctl service update --image example/api:3 --update-parallelism 2 --update-delay 10s api

  Another environment and another port:
    swarmctl service update --env-add LEVEL=debug --env-rm TRACE --publish-rm 80 \\
      --publish-add published=8081,target=80,mode=host web

  Another secret in the place of the one before:
    swarmctl service update --secret-rm db-password-1 \\
      --secret-add source=db-password-2,target=db-password web

  Another network in the place of the one before:
    swarmctl service update --network-rm front --network-add name=edge,alias=www web

  Replace all tasks, or go back to what the service was before:
    swarmctl service update --force web
    swarmctl service update --rollback web

  Try an update again that was paused:
    swarmctl service update --force web

What no flag names stays as it is. The defaults are those of a service that has no such policy yet.";

/// Change a service and wait until its tasks are replaced
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Update {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Go back to what the service was before its last update
    #[arg(long)]
    rollback: bool,
    #[command(flatten)]
    check: CheckVersion,
    #[command(flatten)]
    change: ChangeFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    wait: WaitFlags,
}

impl Update {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        if self.rollback && (self.change != ChangeFlags::default() || self.registry != RegistryFlags::default()) {
            return Err(Hinted {
                message: "--rollback goes with --detach, --quiet, --timeout and --check-version only: it brings back a whole spec"
                    .to_owned(),
                hint: "Roll back first, then change what should be different.".to_owned(),
            }
            .into());
        }
        let deadline = self.wait.deadline();
        let current = Current::read_at(context, &self.service, self.check).await?;
        let changed = match self.rollback {
            true => current.roll_back(context, None).await?,
            false => {
                let ids = object_ids::find(&context.client, &self.change.objects()).await?;
                let (draft, auth) = draft(context, &current, &self.change, &ids, &self.registry).await?;
                // Without new credentials the nodes go on with those of the spec.
                let query = match auth {
                    Some(_) => Query::new(),
                    None => Query::new().with("registryAuthFrom", "spec"),
                };
                let redo = |current: &Current| {
                    let mut draft = Draft::of(current.spec.clone());
                    self.change.apply(&mut draft, &environment, &ids)?;
                    Ok(draft.spec().clone())
                };
                current.write(context, query, draft.spec().clone(), auth.as_ref(), Some(&redo)).await?
            }
        };
        context.out.line(&self.service)?;
        match self.wait.wait(context, &changed.id, deadline, changed.before.clone()).await? {
            Outcome::RolledBack(said) if !self.rollback => Err(self.rolled_back(context, &changed, &said).await.into()),
            _ => Ok(()),
        }
    }

    /// What there is to say when the service is again what it was. `said` is what the rollback said when it began: it
    /// knows of tasks that did not fail, but came too late.
    async fn rolled_back(&self, context: &Context, changed: &Changed, said: &str) -> Hinted {
        let name = &self.service;
        let tasks = tasks_of(context, &changed.id).await.unwrap_or_default();
        let why = match (last_failure(&tasks, &changed.before.ended, name), said.strip_prefix("update rolled back")) {
            (Some(failure), _) => format!(": {failure}"),
            (None, Some(why)) => with_name(why, &tasks, name),
            (None, None) => String::new(),
        };
        Hinted {
            message: format!("the update of service {name} was rolled back{why}"),
            hint: format!("The service runs as before. See: swarmctl service history {name}"),
        }
    }
}

/// The spec of a service as the flags change it, and the credentials that go with it. `ids` has those of the objects that the
/// flags name.
///
/// # Errors
/// Flags that do not fit the service, or credentials that are not there.
pub(super) async fn draft(
    context: &mut Context,
    current: &Current,
    change: &ChangeFlags,
    ids: &ObjectIds,
    registry: &RegistryFlags,
) -> anyhow::Result<(Draft, Option<Redacted>)> {
    let mut draft = Draft::of(current.spec.clone());
    change.apply(&mut draft, &environment, ids)?;
    for note in draft.notes() {
        context.out.note(&format!("Warning: {note}"));
    }
    let auth = registry.credentials(&draft)?;
    if change.image().is_some() {
        registry.pin_image(context, &mut draft, auth.as_ref()).await;
    }
    Ok((draft, auth))
}
