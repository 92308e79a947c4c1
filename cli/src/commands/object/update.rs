//! `secret update` and the like

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use swarm_docker_api::view::{ObjectSpecView, ObjectView};

use super::Kind;
use crate::{
    client::{ClientError, OVERTAKEN_MAX, Query, read, segment},
    context::Context,
    spec_flags::parse_label,
};

/// Changes the labels of an object.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").multiple(true).required(true))]
pub(crate) struct Update {
    /// Name or id
    #[arg(value_name = "NAME")]
    name: String,
    /// Add or change a label; can be repeated
    #[arg(long, group = "change", value_name = "KEY=VALUE", value_parser = parse_label)]
    label_add: Vec<(String, String)>,
    /// Remove a label; can be repeated
    #[arg(long, group = "change", value_name = "KEY")]
    label_rm: Vec<String>,
}

impl Update {
    /// Makes the change; if somebody else changed the object meanwhile, on what that left.
    pub(crate) async fn run(self, context: &mut Context, kind: Kind) -> anyhow::Result<()> {
        let mut overtaken = 0;
        loop {
            match self.try_once(context, kind).await {
                Err(error) if overtaken < OVERTAKEN_MAX && is_stale(&error) => overtaken += 1,
                result => break result?,
            }
        }
        Ok(context.out.line(&self.name)?)
    }

    async fn try_once(&self, context: &Context, kind: Kind) -> anyhow::Result<()> {
        let path = format!("{}/{}", kind.path, segment(&self.name));
        let bytes = match context.client.get_bytes(&path, Query::new()).await {
            Err(error) if error.is_not_found() => bail!("no such {}: {}", kind.name, self.name),
            result => result?,
        };
        let shown: ObjectView<ObjectSpecView> = read(&path, &bytes)?;
        let mut object: Value = read(&path, &bytes)?;
        // The spec as it came, so that what this program does not know survives.
        let spec = object.get_mut("Spec").and_then(Value::as_object_mut).context("swarmd shows no spec of it")?;
        spec.insert("Labels".to_owned(), Value::Object(self.change(kind, &shown)?));
        let path = format!("{}/{}/update", kind.path, segment(&shown.id));
        context.client.post(&path, Query::new().with("version", shown.version.index), spec, None).await?;
        Ok(())
    }

    fn change(&self, kind: Kind, shown: &ObjectView<ObjectSpecView>) -> anyhow::Result<Map<String, Value>> {
        let mut labels = shown.spec.labels.clone();
        labels.extend(self.label_add.iter().cloned());
        for key in &self.label_rm {
            if labels.remove(key).is_none() {
                bail!("the {} has no label '{key}'", kind.name);
            }
        }
        Ok(labels.into_iter().map(|(key, value)| (key, value.into())).collect())
    }
}

fn is_stale(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::is_stale)
}
