//! `swarmctl secret …`

use anyhow::bail;
use clap::Subcommand;
use swarm_docker_api::view::{ObjectSpecView, ObjectView, SecretSpecView};
use swarm_model::SECRET_BYTES_LIMIT;

use super::object::{Create, Inspect, Kind, Ls, Rm, Update, page};
use crate::context::Context;

const SECRET: Kind = Kind { name: "secret", path: "/secrets", bytes_limit: SECRET_BYTES_LIMIT };

const CREATE: &str = "\
Examples:
  swarmctl secret create tls.key server.key
  pass show db | swarmctl secret create --label tier=db db-password -";
const INSPECT: &str = "\
Examples:
  swarmctl secret inspect --pretty tls.key
  swarmctl secret inspect --format '{{json .Spec.Labels}}' tls.key

The data is never shown.";
const LS: &str = "\
Examples:
  swarmctl secret ls
  swarmctl secret ls --filter label=tier=db --format '{{.Name}} {{.Services}}'
  swarmctl secret ls -q --filter name=tls

Filters: id, name (both match beginnings), names (the whole name), label";
const RM: &str = "\
Examples:
  swarmctl secret rm tls.key db-password

A secret that a service uses stays: take it from the service first.";
const UPDATE: &str = "\
Examples:
  swarmctl secret update --label-add tier=web --label-rm old tls.key

The data of a secret stays as it is: make another secret, and let the services use that one.";

/// Manage secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    #[command(about = "Make a secret of a file, or of standard input", after_help = CREATE)]
    Create(CreateSecret),
    #[command(about = "Show secrets in full, without their data", after_help = INSPECT)]
    Inspect(Inspect),
    #[command(about = "List secrets, and the services that use them", visible_alias = "list", after_help = LS)]
    Ls(Ls),
    #[command(about = "Remove secrets that no service uses", visible_alias = "remove", after_help = RM)]
    Rm(Rm),
    #[command(about = "Change the labels of a secret", after_help = UPDATE)]
    Update(Update),
}

/// Makes a secret.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CreateSecret {
    #[command(flatten)]
    create: Create,
    // Not supported: the flag is there to say so.
    #[arg(short, long, hide = true, value_name = "DRIVER")]
    driver: Option<String>,
}

impl SecretCommand {
    pub(crate) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => {
                if let Some(driver) = command.driver {
                    bail!("--driver {driver}: secret drivers are not supported, the managers keep the data");
                }
                command.create.run(context, SECRET).await
            }
            Self::Inspect(command) => command.run(context, SECRET, pretty).await,
            Self::Ls(command) => command.run(context, SECRET).await,
            Self::Rm(command) => command.run(context, SECRET).await,
            Self::Update(command) => command.run(context, SECRET).await,
        }
    }
}

fn pretty(secret: &ObjectView<SecretSpecView>) -> String {
    let SecretSpecView { name, labels, templating, .. } = secret.spec.clone();
    let mut page = page(secret, &ObjectSpecView { name, labels });
    if let Some(templating) = templating {
        page.field("Templating", templating.name);
    }
    page.text()
}
