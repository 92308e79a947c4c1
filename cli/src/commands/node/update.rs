//! `node update`

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use swarm_docker_api::view::NodeView;
use swarm_model::{Availability, NodeRole};

use super::{drain::How, resolve};
use crate::{
    choice::{AVAILABILITIES, ROLES, choice},
    client::{ClientError, OVERTAKEN_MAX, Query, read, segment},
    context::Context,
    spec_flags::parse_label,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl node update --availability active worker1
  swarmctl node update --label-add zone=east --label-rm rack worker1
  swarmctl node update --role manager worker1";

/// Change a node: availability, role, labels
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("change").multiple(true).required(true))]
pub(crate) struct Update {
    /// Host name or id, or 'self'
    #[arg(value_name = "NODE")]
    node: String,
    /// Whether the node takes tasks
    #[arg(long, group = "change", value_name = "AVAILABILITY", value_parser = choice::<Availability>(AVAILABILITIES))]
    availability: Option<Availability>,
    /// Role
    #[arg(long, group = "change", value_name = "ROLE", value_parser = choice::<NodeRole>(ROLES))]
    role: Option<NodeRole>,
    /// Add or change a label; can be repeated
    #[arg(long, group = "change", value_name = "KEY=VALUE", value_parser = parse_label)]
    label_add: Vec<(String, String)>,
    /// Remove a label; can be repeated
    #[arg(long, group = "change", value_name = "KEY")]
    label_rm: Vec<String>,
    /// Whether a drain keeps to policies; none leaves that to the node's label.
    #[arg(skip)]
    drain: Option<How>,
}

impl Update {
    /// A drain and nothing else.
    pub(super) fn drain(node: String, how: How) -> Self {
        let availability = Some(Availability::Drain);
        Self { node, availability, role: None, label_add: Vec::new(), label_rm: Vec::new(), drain: Some(how) }
    }

    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        self.send(context).await?;
        Ok(context.out.line(&self.node)?)
    }

    /// Makes the change. Returns the node's id.
    ///
    /// # Errors
    /// There is no such node, or swarmd does not take the change.
    pub(super) async fn send(&self, context: &Context) -> anyhow::Result<String> {
        let id = resolve(&context.client, &self.node).await?;
        // Labels go together with the changes of others.
        let again = self.availability.is_none() && self.role.is_none();
        let change = |spec: &mut Map<String, Value>| self.change(spec).map(|()| true);
        let (id, _) = change_spec(context, &id, &self.node, again, self.drain, change).await?;
        Ok(id)
    }

    /// Looks for the node, and changes nothing.
    ///
    /// # Errors
    /// There is no such node, or swarmd does not answer.
    pub(super) async fn find(&self, context: &Context) -> anyhow::Result<()> {
        let id = resolve(&context.client, &self.node).await?;
        change_spec(context, &id, &self.node, false, None, |_| Ok(false)).await.map(drop)
    }

    /// Changes the spec as it came, so that what this program does not know survives.
    fn change(&self, spec: &mut Map<String, Value>) -> anyhow::Result<()> {
        if let Some(availability) = self.availability {
            spec.insert("Availability".to_owned(), availability.as_str().into());
        }
        if let Some(role) = self.role {
            spec.insert("Role".to_owned(), role.as_str().into());
        }
        if !matches!(spec.get("Labels"), Some(Value::Object(_))) {
            spec.insert("Labels".to_owned(), Value::Object(Map::new()));
        }
        let labels = spec.get_mut("Labels").and_then(Value::as_object_mut).context("labels were just put there")?;
        for (key, value) in &self.label_add {
            labels.insert(key.clone(), value.as_str().into());
        }
        for key in &self.label_rm {
            if labels.remove(key).is_none() {
                bail!("the node has no label '{key}'");
            }
        }
        Ok(())
    }
}

/// Reads the spec of a node, changes it, and writes it back unless the change says that there is none. Returns the
/// node's id, and whether there was a change. If somebody else changed the node meanwhile, the change is made `again` on
/// what that left.
async fn change_spec(
    context: &Context,
    id: &str,
    name: &str,
    again: bool,
    drain: Option<How>,
    change: impl Fn(&mut Map<String, Value>) -> anyhow::Result<bool>,
) -> anyhow::Result<(String, bool)> {
    let mut overtaken = 0;
    loop {
        match try_to_change(context, id, name, drain, &change).await {
            Err(error) if again && overtaken < OVERTAKEN_MAX && is_stale(&error) => overtaken += 1,
            result => return result,
        }
    }
}

fn is_stale(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::is_stale)
}

async fn try_to_change(
    context: &Context,
    id: &str,
    name: &str,
    drain: Option<How>,
    change: impl Fn(&mut Map<String, Value>) -> anyhow::Result<bool>,
) -> anyhow::Result<(String, bool)> {
    let path = format!("/nodes/{}", segment(id));
    let bytes = match context.client.get_bytes(&path, Query::new()).await {
        Err(error) if error.is_not_found() => bail!("no such node: {name}"),
        result => result?,
    };
    let node: NodeView = read(&path, &bytes)?;
    let mut object: Value = read(&path, &bytes)?;
    let spec = object.get_mut("Spec").and_then(Value::as_object_mut).context("swarmd shows no spec of this node")?;
    if !change(spec)? {
        return Ok((node.id, false));
    }
    let path = format!("/nodes/{}/update", segment(&node.id));
    let query = Query::new().with("version", node.version.index);
    let query = match drain {
        Some(how) => how.add_to(query),
        None => query,
    };
    context.client.post(&path, query, spec, None).await?;
    Ok((node.id, true))
}

/// Sets the role of a node. Returns whether that was a change.
pub(super) async fn set_role(context: &Context, id: &str, name: &str, role: NodeRole) -> anyhow::Result<bool> {
    change_spec(context, id, name, false, None, |spec| {
        let is_new = spec.get("Role").and_then(Value::as_str) != Some(role.as_str());
        spec.insert("Role".to_owned(), role.as_str().into());
        Ok(is_new)
    })
    .await
    .map(|(_, is_new)| is_new)
}
