//! `secret inspect` and the like

use serde::de::DeserializeOwned;
use swarm_docker_api::view::{ObjectSpecView, ObjectView};

use super::Kind;
use crate::{
    client::Query,
    context::Context,
    inspect::{self, InspectFlags, inspect},
    pretty::Page,
};

/// Shows objects in full.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Inspect {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    flags: InspectFlags,
}

impl Inspect {
    /// Shows them; `pretty` writes one for people.
    pub(crate) async fn run<T: DeserializeOwned + 'static>(
        self,
        context: &mut Context,
        kind: Kind,
        pretty: fn(&T) -> String,
    ) -> anyhow::Result<()> {
        // For people only: without it the answer is the one that Docker's CLI gets.
        let query = Query::new().with_some("services", self.flags.pretty.then_some(true));
        let kind = inspect::Kind { path: kind.path, name: kind.name, query, pretty: Box::new(pretty) };
        inspect(context, kind, &self.names, &self.flags).await
    }
}

/// The beginning of a page: what all kinds have.
pub(crate) fn page<S>(object: &ObjectView<S>, spec: &ObjectSpecView) -> Page {
    let mut page = Page::default();
    page.field("ID", &object.id);
    page.field("Name", &spec.name);
    page.map("Labels", &spec.labels);
    page.field("Created at", object.created_at);
    page.field("Updated at", object.updated_at);
    if let Some(services) = object.services.as_ref().filter(|services| !services.is_empty()) {
        page.field("Services", services.join(", "));
    }
    page
}
