//! The ids of secrets, configs and networks that flags name.

use swarm_docker_api::view::{NetworkView, ObjectSpecView, ObjectView, SWARM_SCOPE};
use swarm_model::{ObjectKind, REFERENCES};

use crate::{
    client::{Client, Query, segment},
    error::Hinted,
    filters,
    spec_flags::ObjectIds,
};

/// Looks objects up by their whole names, all secrets and all configs at once. A network can also be named by its id.
///
/// # Errors
/// An object is not there, or swarmd does not answer.
pub(super) async fn find(client: &Client, names: &[(ObjectKind, &str)]) -> anyhow::Result<ObjectIds> {
    let mut ids = ObjectIds::default();
    for kind in REFERENCES.iter().map(|list| list.kind) {
        let names: Vec<&str> = names.iter().filter(|(of, _)| *of == kind).map(|(_, name)| *name).collect();
        if names.is_empty() {
            continue;
        }
        // The filter matches beginnings of names.
        let filters: Vec<_> = names.iter().map(|name| ("name".to_owned(), (*name).to_owned())).collect();
        let query = Query::new().with_some("filters", filters::to_json(&filters));
        let found: Vec<ObjectView<ObjectSpecView>> = client.get(&format!("/{kind}s"), query).await?;
        for name in names {
            match found.iter().find(|object| object.spec.name == name) {
                Some(object) => ids.insert(kind, name, &object.id),
                None => return Err(unknown(kind, name).into()),
            }
        }
    }
    for (kind, name) in names.iter().filter(|(kind, _)| *kind == ObjectKind::Network) {
        // The scope also finds the networks that every engine has, as services name them.
        let query = Query::new().with("scope", SWARM_SCOPE);
        match client.get::<NetworkView>(&format!("/networks/{}", segment(name)), query).await {
            Ok(network) => ids.insert(*kind, name, &network.id),
            Err(error) if error.is_not_found() => return Err(unknown(*kind, name).into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ids)
}

fn unknown(kind: ObjectKind, name: &str) -> Hinted {
    Hinted { message: format!("{kind} not found: {name}"), hint: format!("`swarmctl {kind} ls` lists all {kind}s.") }
}
