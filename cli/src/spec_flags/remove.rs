//! The flags of `service update` that take something out of a list.

use serde_json::Value;
use swarm_model::{ObjectKind, PlacementPreference, PortConfig, PortProtocol, PublishMode};

use super::{
    common::PORTS,
    container::{DNS, DNS_OPTIONS, DNS_SEARCH, ENV, GROUPS, HOSTS, LABELS, MOUNTS, SYSCTLS, ULIMITS},
    csv,
    draft::Draft,
    env, network,
    objects::{self, ObjectIds},
    placement::{CONSTRAINTS, PREFERENCES, is_same_constraint, parse_preference},
    port::parse_ports,
    resources::{GENERIC, generic_kind},
};

/// What is to go. All of these can be repeated.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Removing (each can be repeated)")]
pub(super) struct RemoveFlags {
    /// Remove a label of the service
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Remove a published port by its target port; ports of both modes, if no mode is given
    #[arg(long, value_name = "TARGET[/PROTOCOL]", value_parser = parse_port)]
    publish_rm: Vec<PortMatch>,
    /// Remove a constraint
    #[arg(long, value_name = "EXPRESSION")]
    constraint_rm: Vec<String>,
    /// Remove a placement preference
    #[arg(long, value_name = "spread=LABEL", value_parser = parse_preference)]
    placement_pref_rm: Vec<PlacementPreference>,
    /// Remove a counted resource
    #[arg(long, value_name = "KIND")]
    generic_resource_rm: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "NAME")]
    env_rm: Vec<String>,
    /// Remove a label of the containers
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    /// Remove an additional group
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
    /// Remove a mount by its target
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Remove a name from /etc/hosts, from all addresses if none is given
    #[arg(long, value_name = "NAME[:IP]")]
    host_rm: Vec<String>,
    /// Remove a DNS server
    #[arg(long, value_name = "IP")]
    dns_rm: Vec<String>,
    /// Remove a DNS option
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
    /// Remove a DNS search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Remove a kernel parameter
    #[arg(long, value_name = "KEY")]
    sysctl_rm: Vec<String>,
    /// Remove a limit of processes
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
    /// Remove a secret by its name, or by its target
    #[arg(long, value_name = "SECRET")]
    secret_rm: Vec<String>,
    /// Remove a config by its name, or by its target
    #[arg(long, value_name = "CONFIG")]
    config_rm: Vec<String>,
    /// Remove a network
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
}

impl RemoveFlags {
    /// The networks that are to go.
    pub(super) fn networks(&self) -> impl Iterator<Item = (ObjectKind, &str)> {
        self.network_rm.iter().map(|name| (ObjectKind::Network, name.as_str()))
    }

    /// Takes it out. What is not there is noted. `ids` has those of the networks.
    ///
    /// # Errors
    /// A network whose id is not there.
    pub(super) fn apply(&self, draft: &mut Draft, ids: &ObjectIds) -> anyhow::Result<()> {
        for (path, flag, keys) in [
            ("Labels", "--label-rm", &self.label_rm),
            (LABELS, "--container-label-rm", &self.container_label_rm),
            (SYSCTLS, "--sysctl-rm", &self.sysctl_rm),
        ] {
            for key in keys {
                draft.discard_key(path, &format!("{flag} {key}"), key);
            }
        }
        for (path, flag, texts) in [
            (GROUPS, "--group-rm", &self.group_rm),
            (DNS, "--dns-rm", &self.dns_rm),
            (DNS_OPTIONS, "--dns-option-rm", &self.dns_option_rm),
            (DNS_SEARCH, "--dns-search-rm", &self.dns_search_rm),
        ] {
            for text in texts {
                draft.discard(path, &format!("{flag} {text}"), |item| item == text.as_str());
            }
        }
        for (path, flag, field, names) in
            [(MOUNTS, "--mount-rm", "Target", &self.mount_rm), (ULIMITS, "--ulimit-rm", "Name", &self.ulimit_rm)]
        {
            for name in names {
                let is_it = |item: &Value| item.get(field).is_some_and(|text| text == name.as_str());
                draft.discard(path, &format!("{flag} {name}"), is_it);
            }
        }
        for text in &self.constraint_rm {
            let constraint = Value::from(text.as_str());
            let is_it = |item: &Value| is_same_constraint(item, &constraint);
            draft.discard(CONSTRAINTS, &format!("--constraint-rm {text}"), is_it);
        }
        for label in self.placement_pref_rm.iter().filter_map(|preference| preference.spread.as_ref()) {
            let label = label.spread_descriptor.as_str();
            let is_it = |item: &Value| item.pointer("/Spread/SpreadDescriptor").is_some_and(|text| text == label);
            draft.discard(PREFERENCES, &format!("--placement-pref-rm spread={label}"), is_it);
        }
        for kind in &self.generic_resource_rm {
            let is_it = |item: &Value| generic_kind(item) == Some(kind);
            draft.discard(GENERIC, &format!("--generic-resource-rm {kind}"), is_it);
        }
        for name in &self.env_rm {
            let is_it = |item: &Value| item.as_str().map(env::name) == Some(name);
            draft.discard(ENV, &format!("--env-rm {name}"), is_it);
        }
        for port in &self.publish_rm {
            draft.discard(PORTS, &format!("--publish-rm {}", port.text), |item| port.matches(item));
        }
        for host in &self.host_rm {
            remove_host(draft, host);
        }
        for (kind, names) in [(ObjectKind::Secret, &self.secret_rm), (ObjectKind::Config, &self.config_rm)] {
            for name in names {
                objects::discard(draft, kind, name);
            }
        }
        self.network_rm.iter().try_for_each(|name| network::discard(draft, name, ids))
    }
}

/// Takes a name out of the lines `IP name [name…]`; a line without names goes too.
fn remove_host(draft: &mut Draft, host: &str) {
    let (name, wanted_ip) = match host.split_once(':') {
        Some((name, ip)) => (name, Some(ip.trim_matches(['[', ']']))),
        None => (host, None),
    };
    let before = draft.list(HOSTS);
    let without = |line: &Value| {
        let Some((ip, names)) = line.as_str().and_then(|line| line.split_once(' ')) else { return Some(line.clone()) };
        let mut names: Vec<&str> = names.split_whitespace().collect();
        let count = names.len();
        names.retain(|other| *other != name || wanted_ip.is_some_and(|wanted| wanted != ip));
        match names.len() {
            0 => None,
            left if left == count => Some(line.clone()),
            _ => Some(format!("{ip} {}", names.join(" ")).into()),
        }
    };
    let after: Vec<Value> = before.iter().filter_map(without).collect();
    if after == before {
        draft.note_missing(&format!("--host-rm {host}"));
    } else {
        draft.put(HOSTS, after);
    }
}

/// Which published ports go.
#[derive(Clone, Debug, PartialEq)]
struct PortMatch {
    text: String,
    targets: Vec<(u16, PortProtocol)>,
    /// A port that was given with the target must fit too.
    published: Vec<u16>,
    mode: Option<PublishMode>,
}

impl PortMatch {
    fn matches(&self, port: &Value) -> bool {
        let Ok(port) = serde_json::from_value::<PortConfig>(port.clone()) else { return false };
        self.targets.contains(&(port.target_port, port.protocol))
            && (self.published.is_empty() || self.published.contains(&port.published_port))
            && self.mode.is_none_or(|mode| mode == port.publish_mode)
    }
}

/// Reads the notations of `--publish`.
fn parse_port(text: &str) -> Result<PortMatch, String> {
    let ports = parse_ports(text)?;
    let says_mode = text.contains('=') && csv::pairs(text)?.iter().any(|(key, _)| key == "mode");
    Ok(PortMatch {
        text: text.to_owned(),
        targets: ports.iter().map(|port| (port.target_port, port.protocol)).collect(),
        published: ports.iter().map(|port| port.published_port).filter(|port| *port > 0).collect(),
        mode: ports.first().filter(|_| says_mode).map(|port| port.publish_mode),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::spec_flags::testing::{change, edited};

    fn container(container: Value) -> Value {
        json!({"TaskTemplate": {"ContainerSpec": container}})
    }

    /// `before`, a line, and what it leaves.
    fn check(before: Value, line: &[&str], after: Value) {
        assert_eq!(edited(before, line), Ok(after), "{line:?}");
    }

    #[test]
    fn each_list_has_its_key() {
        for (field, before, rm, add, after) in [
            ("Env", json!(["A=1", "B", "C=3"]), ["--env-rm", "B"], ["--env-add", "A=2"], json!(["A=2", "C=3"])),
            (
                "Labels",
                json!({"a": "1", "b.c/d": ""}),
                ["--container-label-rm", "b.c/d"],
                ["--container-label-add", "e=f"],
                json!({"a": "1", "e": "f"}),
            ),
            ("Groups", json!(["1", "2"]), ["--group-rm", "1"], ["--group-add", "2"], json!(["2"])),
            ("Sysctls", json!({"a": "1"}), ["--sysctl-rm", "a"], ["--sysctl-add", "b=2"], json!({"b": "2"})),
            (
                "Ulimits",
                json!([{"Name": "nofile", "Soft": 1, "Hard": 1}, {"Name": "core"}]),
                ["--ulimit-rm", "core"],
                ["--ulimit-add", "nofile=5"],
                json!([{"Name": "nofile", "Soft": 5, "Hard": 5}]),
            ),
            (
                "Mounts",
                json!([{"Type": "npipe", "Target": "/a"}, {"Target": "/b"}, {"Target": "/c", "X": 1}]),
                ["--mount-rm", "/a"],
                ["--mount-add", "target=/b,source=v"],
                json!([{"Type": "volume", "Source": "v", "Target": "/b"}, {"Target": "/c", "X": 1}]),
            ),
            (
                "Hosts",
                json!(["10.0.0.1 db", "10.0.0.2 db web", "10.0.0.3 x"]),
                ["--host-rm", "db"],
                ["--host-add", "y:10.0.0.4"],
                json!(["10.0.0.2 web", "10.0.0.3 x", "10.0.0.4 y"]),
            ),
            (
                "Hosts",
                json!(["10.0.0.1 db", "10.0.0.2 db"]),
                ["--host-rm", "db:10.0.0.1"],
                ["--host-add", "db:10.0.0.2"],
                json!(["10.0.0.2 db"]),
            ),
            (
                "Secrets",
                json!([{"SecretID": "1", "SecretName": "old"}, {"SecretID": "2", "SecretName": "b", "X": 1}]),
                ["--secret-rm", "old"],
                ["--secret-add", "source=new,target=old"],
                json!([{"SecretID": "2", "SecretName": "b", "X": 1},
                    {"File": {"Name": "old", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "id-of-secret-new",
                        "SecretName": "new"}]),
            ),
            // The name counts before the target.
            (
                "Configs",
                json!([{"ConfigName": "a", "File": {"Name": "b"}}, {"ConfigName": "b", "File": {"Name": "/c"}}]),
                ["--config-rm", "b"],
                ["--group-rm", "none"],
                json!([{"ConfigName": "a", "File": {"Name": "b"}}]),
            ),
        ] {
            check(container(json!({field: before})), &[&rm[..], &add].concat(), container(json!({field: after})));
        }
        check(
            container(json!({"DNSConfig": {"Nameservers": ["1.1.1.1"], "Search": ["a", "b"], "Options": ["x"]}})),
            &["--dns-rm", "1.1.1.1", "--dns-search-rm", "a", "--dns-option-rm", "x", "--dns-option-add", "y"],
            container(json!({"DNSConfig": {"Search": ["b"], "Options": ["y"]}})),
        );
    }

    #[test]
    fn lists_outside_the_container() {
        check(
            json!({"Labels": {"a": "1"}, "TaskTemplate": {
                "Placement": {"Constraints": ["node.role == worker"],
                    "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.dc"}}], "Platforms": [{"OS": "x"}]},
                "Resources": {"Reservations": {"GenericResources": [
                    {"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}},
                    {"NamedResourceSpec": {"Kind": "disk", "Value": "sda"}}]}}}}),
            &[
                "--label-rm",
                "a",
                "--label-add",
                "b=",
                "--constraint-rm",
                "node.role==worker",
                "--constraint-add",
                "node.labels.a!=b",
                "--placement-pref-rm",
                "spread=node.labels.dc",
                "--placement-pref-add",
                "spread=node.labels.rack",
                "--generic-resource-rm",
                "disk",
                "--generic-resource-add",
                "gpu=2",
            ],
            json!({"Labels": {"b": ""}, "TaskTemplate": {
                "Placement": {"Constraints": ["node.labels.a!=b"],
                    "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.rack"}}], "Platforms": [{"OS": "x"}]},
                "Resources": {"Reservations": {"GenericResources": [
                    {"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]}}}}),
        );
    }

    #[test]
    fn ports_go_by_their_target() {
        let port = |published, target, protocol: &str, mode: &str| json!({"Protocol": protocol, "TargetPort": target, "PublishedPort": published, "PublishMode": mode});
        let all = [port(8080, 80, "tcp", "ingress"), port(8081, 80, "tcp", "host"), port(53, 53, "udp", "host")];
        let with = |left: &[usize]| {
            let ports: Vec<&Value> = left.iter().map(|i| &all[*i]).collect();
            if ports.is_empty() { json!({"EndpointSpec": {}}) } else { json!({"EndpointSpec": {"Ports": ports}}) }
        };
        for (line, left) in [
            (&["80"][..], &[2][..]),
            (&["53/udp"], &[0, 1]),
            (&["53"], &[0, 1, 2]),
            (&["8081:80"], &[0, 2]),
            (&["target=80,mode=host"], &[0, 2]),
            (&["80", "53/udp"], &[]),
        ] {
            let line: Vec<&str> = line.iter().flat_map(|port| ["--publish-rm", port]).collect();
            check(with(&[0, 1, 2]), &line, with(left));
        }
        check(with(&[0, 1]), &["--publish-add", "published=53,target=53,protocol=udp,mode=host"], with(&[0, 1, 2]));
        check(with(&[0]), &["--publish-add", "8080:80"], with(&[0]));
        check(with(&[0]), &["--publish-rm", "80", "--publish-add", "published=8081,target=80,mode=host"], with(&[1]));
    }

    #[test]
    fn what_is_not_there_is_noted() {
        let line = ["--env-rm", "NO", "--host-rm", "db:1.1.1.1", "--publish-rm", "80", "--label-rm", "x"];
        let draft = change(json!({"A": 1}), &line).unwrap();
        assert_eq!(draft.spec(), &json!({"A": 1}));
        let flags = ["--label-rm x", "--env-rm NO", "--publish-rm 80", "--host-rm db:1.1.1.1"];
        assert_eq!(draft.notes(), flags.map(|flag| format!("{flag}: the service has none")));
    }

    proptest! {
        #[test]
        fn any_text_names_a_port_or_is_refused(text in "\\PC{0,20}|[0-9:/-]{0,16}|(target|mode)=[0-9a-z,=]{0,16}") {
            let _ = parse_port(&text);
        }

        #[test]
        fn any_host_is_removed_or_noted(host in "\\PC{0,20}|[a-z:.0-9]{0,9}", lines in proptest::collection::vec("\\PC{0,20}", 0..3)) {
            let mut draft = Draft::of(json!({"TaskTemplate": {"ContainerSpec": {"Hosts": lines}}}));
            remove_host(&mut draft, &host);
        }
    }
}
