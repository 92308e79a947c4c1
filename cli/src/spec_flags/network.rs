//! `--network`

use serde_json::Value;
use swarm_model::{NetworkAttachment, ObjectKind};

use super::{csv, draft::Draft, objects::ObjectIds};

/// The place of the networks in a spec.
const NETWORKS: &str = "TaskTemplate/Networks";

/// The networks that tasks join.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub(super) struct NetworkFlags {
    /// Network: NAME, or name=,alias=; can be repeated
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    network: Vec<NetworkAttachment>,
}

impl NetworkFlags {
    /// The names of the networks.
    pub(super) fn names(&self) -> impl Iterator<Item = (ObjectKind, &str)> {
        self.network.iter().map(|network| (ObjectKind::Network, network.target.as_str()))
    }

    /// Adds the networks to a spec. One that is there already is replaced.
    ///
    /// # Errors
    /// A network whose id is not there.
    pub(super) fn apply(&self, draft: &mut Draft, ids: &ObjectIds) -> anyhow::Result<()> {
        let by_id = |network: &NetworkAttachment| {
            let target = ids.get(ObjectKind::Network, &network.target)?.to_owned();
            Ok(NetworkAttachment { target, ..network.clone() })
        };
        let networks = self.network.iter().map(by_id).collect::<anyhow::Result<Vec<_>>>()?;
        draft.merge(NETWORKS, networks, |a, b| a.get("Target") == b.get("Target"));
        Ok(())
    }
}

/// Takes a network out of a spec.
///
/// # Errors
/// Its id is not there.
pub(super) fn discard(draft: &mut Draft, name: &str, ids: &ObjectIds) -> anyhow::Result<()> {
    let id = ids.get(ObjectKind::Network, name)?;
    let is_it = |item: &Value| item.get("Target").is_some_and(|target| target == id);
    draft.discard(NETWORKS, &format!("--network-rm {name}"), is_it);
    Ok(())
}

/// Reads `NAME`, or `name=NAME,alias=ALIAS,driver-opt=KEY=VALUE`.
fn parse_network(text: &str) -> Result<NetworkAttachment, String> {
    let mut network = NetworkAttachment::default();
    if text.contains('=') {
        for (key, value) in csv::pairs(text)? {
            let value = value.filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| format!("'{key}' in '{text}' needs a value"))?;
            match key.as_str() {
                "name" => network.target = value,
                "alias" => network.aliases.push(value),
                "driver-opt" => {
                    let option = value.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
                    let (key, value) =
                        option.ok_or_else(|| format!("driver-opt '{value}' in '{text}' needs KEY=VALUE"))?;
                    network.driver_opts.insert(key, value);
                }
                _ => return Err(format!("unknown key '{key}' in '{text}'; there are name, alias, driver-opt")),
            }
        }
    } else {
        text.clone_into(&mut network.target);
    }
    if network.target.is_empty() { Err(format!("'{text}' has no name")) } else { Ok(network) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::spec_flags::testing::{edited, spec};

    #[test]
    fn networks_have_ids_and_aliases() {
        let line = ["--network", "front", "--network", "name=back,alias=db,alias=sql,driver-opt=a=b=c", "x"];
        let networks = json!(spec(&line).expect("a spec").task_template.networks);
        let back = json!({"Target": "id-of-network-back", "Aliases": ["db", "sql"], "DriverOpts": {"a": "b=c"}});
        assert_eq!(networks, json!([{"Target": "id-of-network-front"}, back]));
        for (text, part) in [
            ("alias=a", "has no name"),
            ("name=", "'name' in 'name=' needs a value"),
            ("name=a,colour=red", "unknown key 'colour'"),
            ("name=a,driver-opt=b", "needs KEY=VALUE"),
        ] {
            assert!(parse_network(text).is_err_and(|error| error.contains(part)), "{text}");
        }
    }

    #[test]
    fn networks_come_and_go() {
        let with = |networks: Value| json!({"TaskTemplate": {"Networks": networks}});
        let (a, b) = (json!({"Target": "id-of-network-a", "X": 1}), json!({"Target": "id-of-network-b"}));
        let line = ["--network-rm", "a", "--network-add", "name=b,alias=c", "--network-rm", "nope"];
        let changed = with(json!([{"Target": "id-of-network-b", "Aliases": ["c"]}]));
        assert_eq!(edited(with(json!([a, b])), &line), Ok(changed));
        assert_eq!(edited(with(json!([a])), &["--network-add", "b"]), Ok(with(json!([a, b]))));
        assert_eq!(edited(with(json!([a])), &["--network-rm", "a"]), Ok(json!({"TaskTemplate": {}})));
    }

    proptest! {
        #[test]
        fn any_network_is_read_or_refused(text in "\\PC{0,20}|(name|alias|driver-opt)=[a-z=,\"]{0,12}") {
            if let Ok(network) = parse_network(&text) {
                prop_assert!(!network.target.is_empty());
            }
        }
    }
}
