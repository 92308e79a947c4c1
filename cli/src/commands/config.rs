//! `swarmctl config …`

use clap::Subcommand;
use swarm_docker_api::view::{ConfigSpecView, ObjectSpecView, ObjectView};
use swarm_model::CONFIG_BYTES_LIMIT;

use super::object::{Create, Inspect, Kind, Ls, Rm, Update, page};
use crate::context::Context;

const CONFIG: Kind = Kind { name: "config", path: "/configs", bytes_limit: CONFIG_BYTES_LIMIT };

const CREATE: &str = "\
Examples:
  swarmctl config create nginx.conf ./nginx.conf
  swarmctl config create --label tier=web --template-driver golang site.conf -";
const INSPECT: &str = "\
Examples:
  swarmctl config inspect --pretty nginx.conf
  swarmctl config inspect --format '{{json .Spec.Labels}}' nginx.conf";
const LS: &str = "\
Examples:
  swarmctl config ls
  swarmctl config ls --filter label=tier=web --format '{{.Name}} {{.Services}}'
  swarmctl config ls -q --filter name=nginx

Filters: id, name (both match beginnings), label";
const RM: &str = "\
Examples:
  swarmctl config rm nginx.conf site.conf

A config that a service uses stays: take it from the service first.";
const UPDATE: &str = "\
Examples:
  swarmctl config update --label-add tier=web --label-rm old nginx.conf

The data of a config stays as it is: make another config, and let the services use that one.";

/// Manage configs.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    #[command(about = "Make a config of a file, or of standard input", after_help = CREATE)]
    Create(Create),
    #[command(about = "Show configs in full", after_help = INSPECT)]
    Inspect(Inspect),
    #[command(about = "List configs, and the services that use them", visible_alias = "list", after_help = LS)]
    Ls(Ls),
    #[command(about = "Remove configs that no service uses", visible_alias = "remove", after_help = RM)]
    Rm(Rm),
    #[command(about = "Change the labels of a config", after_help = UPDATE)]
    Update(Update),
}

impl ConfigCommand {
    pub(crate) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => command.run(context, CONFIG).await,
            Self::Inspect(command) => command.run(context, CONFIG, pretty).await,
            Self::Ls(command) => command.run(context, CONFIG).await,
            Self::Rm(command) => command.run(context, CONFIG).await,
            Self::Update(command) => command.run(context, CONFIG).await,
        }
    }
}

fn pretty(config: &ObjectView<ConfigSpecView>) -> String {
    let spec = &config.spec;
    let mut page = page(config, &ObjectSpecView { name: spec.name.clone(), labels: spec.labels.clone() });
    if let Some(templating) = &spec.templating {
        page.field("Templating", &templating.name);
    }
    page.title("Data");
    let text = spec.text();
    page.text() + &text + if text.ends_with('\n') { "" } else { "\n" }
}
