//! What a task's container looks like.

use anyhow::Context;
use serde_json::Value;
use swarm_model::{Mount, Ulimit};

use super::{
    capability::{self, parse_capability},
    draft::Draft,
    env::{self, Lookup},
    health::HealthFlags,
    key_value::{Pair, parse_label, parse_pair},
    mount::parse_mount,
};
use crate::units::parse_duration;

/// Where the variables are.
pub(super) const ENV: &str = "TaskTemplate/ContainerSpec/Env";
/// Where the labels of the containers are.
pub(super) const LABELS: &str = "TaskTemplate/ContainerSpec/Labels";
/// Where the groups are.
pub(super) const GROUPS: &str = "TaskTemplate/ContainerSpec/Groups";
/// Where the mounts are.
pub(super) const MOUNTS: &str = "TaskTemplate/ContainerSpec/Mounts";
/// Where the lines of `/etc/hosts` are.
pub(super) const HOSTS: &str = "TaskTemplate/ContainerSpec/Hosts";
/// Where the name servers are.
pub(super) const DNS: &str = "TaskTemplate/ContainerSpec/DNSConfig/Nameservers";
/// Where the options of the resolver are.
pub(super) const DNS_OPTIONS: &str = "TaskTemplate/ContainerSpec/DNSConfig/Options";
/// Where the search domains are.
pub(super) const DNS_SEARCH: &str = "TaskTemplate/ContainerSpec/DNSConfig/Search";
/// Where the kernel parameters are.
pub(super) const SYSCTLS: &str = "TaskTemplate/ContainerSpec/Sysctls";
/// Where the limits of processes are.
pub(super) const ULIMITS: &str = "TaskTemplate/ContainerSpec/Ulimits";
const LOG_DRIVER: &str = "TaskTemplate/LogDriver";

/// Flags of the container.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Container")]
pub(super) struct ContainerFlags {
    /// Environment variable, NAME=VALUE, or NAME to pass it on from here; can be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Label of the containers; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    container_label: Vec<Pair>,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User, or USER:GROUP
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Additional group; can be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Host name inside the container
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Mount, for example type=volume,source=data,target=/data; can be repeated
    #[arg(long, value_name = "MOUNT", value_parser = parse_mount)]
    mount: Vec<Mount>,
    /// Mount the root file system read-only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only: Option<bool>,
    /// Allocate a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,
    /// Run an init process that forwards signals and reaps processes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init: Option<bool>,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time between that signal and SIGKILL [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    stop_grace_period: Option<i64>,
    /// Extra line of /etc/hosts; can be repeated
    #[arg(long = "host", value_name = "NAME:IP", value_parser = parse_host)]
    hosts: Vec<String>,
    /// DNS server; can be repeated
    #[arg(long, value_name = "IP")]
    dns: Vec<std::net::IpAddr>,
    /// DNS option; can be repeated
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// DNS search domain; can be repeated
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Kernel parameter; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    sysctl: Vec<Pair>,
    /// Limit of processes, for example nofile=1024:2048; can be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_ulimit)]
    ulimit: Vec<Ulimit>,
    /// Add a capability; can be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = parse_capability)]
    cap_add: Vec<String>,
    /// Drop a capability; can be repeated
    #[arg(long, value_name = "CAPABILITY", value_parser = parse_capability)]
    cap_drop: Vec<String>,
    /// Adjustment of the out-of-memory score
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    oom_score_adj: Option<i64>,
    /// Logging driver
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Option of the logging driver; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    log_opt: Vec<Pair>,
    #[command(flatten)]
    health: HealthFlags,
}

impl ContainerFlags {
    /// Writes what is set; an empty text takes a setting away.
    ///
    /// # Errors
    /// A variable without a name, or an entrypoint with an open quote.
    pub(super) fn apply(&self, draft: &mut Draft, lookup: Lookup<'_>) -> anyhow::Result<()> {
        if let Some(entrypoint) = &self.entrypoint {
            draft.put(&container("Command"), words("--entrypoint", entrypoint)?);
        }
        let variables = env::variables(&[], &self.env, lookup)?;
        draft.merge(ENV, variables, is_same_variable);
        draft.merge_map(LABELS, &self.container_label);
        draft.put_some(&container("Dir"), self.workdir.as_ref());
        draft.put_some(&container("User"), self.user.as_ref());
        draft.merge(GROUPS, &self.group, PartialEq::eq);
        draft.put_some(&container("Hostname"), self.hostname.as_ref());
        draft.merge(MOUNTS, &self.mount, |a, b| a.get("Target") == b.get("Target"));
        draft.put_some(&container("ReadOnly"), self.read_only);
        draft.put_some(&container("TTY"), self.tty);
        // Without it the engine decides, so that a false is worth its place.
        draft.set_some(&container("Init"), self.init);
        draft.put_some(&container("StopSignal"), self.stop_signal.as_ref());
        draft.set_some(&container("StopGracePeriod"), self.stop_grace_period);
        draft.merge(HOSTS, &self.hosts, PartialEq::eq);
        draft.merge(DNS, &self.dns, PartialEq::eq);
        draft.merge(DNS_OPTIONS, &self.dns_option, PartialEq::eq);
        draft.merge(DNS_SEARCH, &self.dns_search, PartialEq::eq);
        draft.merge_map(SYSCTLS, &self.sysctl);
        draft.merge(ULIMITS, &self.ulimit, |a, b| a.get("Name") == b.get("Name"));
        capability::apply(draft, &self.cap_add, &self.cap_drop);
        draft.put_some(&container("OomScoreAdj"), self.oom_score_adj);
        if let Some(driver) = &self.log_driver {
            // The options of another driver would mean nothing to this one.
            draft.remove(LOG_DRIVER);
            draft.put(&format!("{LOG_DRIVER}/Name"), driver);
        }
        draft.merge_map(&format!("{LOG_DRIVER}/Options"), &self.log_opt);
        self.health.apply(draft);
        Ok(())
    }
}

/// The path of a field of the container.
pub(super) fn container(field: &str) -> String {
    format!("TaskTemplate/ContainerSpec/{field}")
}

/// Whether two variables have the same name.
pub(super) fn is_same_variable(a: &Value, b: &Value) -> bool {
    a.as_str().map(env::name) == b.as_str().map(env::name)
}

/// The words of a text, as a shell sees them.
///
/// # Errors
/// A quote that is not closed.
pub(super) fn words(flag: &str, text: &str) -> anyhow::Result<Vec<String>> {
    shlex::split(text).with_context(|| format!("{flag} '{text}' has a quote that is not closed"))
}

/// `NAME:IP` to the `IP name` of the API.
fn parse_host(text: &str) -> Result<String, String> {
    let bad = || format!("'{text}' is not NAME:IP, for example db:10.0.0.7");
    let (name, ip) = text.split_once(':').ok_or_else(bad)?;
    let ip: std::net::IpAddr = ip.trim_matches(['[', ']']).parse().map_err(|_| bad())?;
    if name.is_empty() { Err(bad()) } else { Ok(format!("{ip} {name}")) }
}

fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = || format!("'{text}' is not NAME=SOFT[:HARD], for example nofile=1024:2048");
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let soft: i64 = soft.parse().map_err(|_| bad())?;
    let hard: i64 = hard.parse().map_err(|_| bad())?;
    // -1 is unlimited.
    if name.is_empty() || soft < -1 || hard < -1 {
        return Err(bad());
    }
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!("the soft limit in '{text}' is above the hard one"));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft, ..Ulimit::default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::spec_flags::testing::spec;

    #[test]
    fn flags_of_the_container() {
        let line = "-e A=1 -e FROM_ENV --container-label a=b --entrypoint 'sh_-c' -w /w -u 1:2 --group 3 --hostname h \
                    --read-only -t --init --stop-signal SIGINT --stop-grace-period 2s --host db:10.0.0.7 --dns 1.1.1.1 \
                    --sysctl net.core.somaxconn=9 --ulimit nofile=1:2 --cap-add net_admin --cap-drop ALL \
                    --oom-score-adj -5 --log-driver json-file --log-opt max-size=1m img a -d --env";
        let line: Vec<&str> = line.split_whitespace().collect();
        let task = spec(&line).unwrap().task_template;
        assert_eq!(
            serde_json::to_value(&task.container_spec).unwrap(),
            json!({"Image": "img:latest", "Labels": {"a": "b"}, "Command": ["sh_-c"], "Args": ["a", "-d", "--env"],
                "Hostname": "h", "Env": ["A=1", "FROM_ENV=outside"], "Dir": "/w", "User": "1:2", "Groups": ["3"],
                "Init": true, "StopSignal": "SIGINT", "TTY": true, "ReadOnly": true,
                "StopGracePeriod": 2_000_000_000, "Hosts": ["10.0.0.7 db"], "DNSConfig": {"Nameservers": ["1.1.1.1"]},
                "Sysctls": {"net.core.somaxconn": "9"}, "CapabilityAdd": ["CAP_NET_ADMIN"],
                "CapabilityDrop": ["ALL"], "Ulimits": [{"Name": "nofile", "Hard": 2, "Soft": 1}], "OomScoreAdj": -5})
        );
        assert_eq!(
            serde_json::to_value(task.log_driver).unwrap(),
            json!({"Name": "json-file", "Options": {"max-size": "1m"}})
        );
    }

    #[test]
    fn wrong_values_are_named() {
        for (flag, value) in [
            ("--host", "db"),
            ("--host", "db:nowhere"),
            ("--dns", "dns.example"),
            ("--ulimit", "nofile"),
            ("--ulimit", "nofile=2:1"),
            ("--cap-add", "net admin"),
            ("--oom-score-adj", "5000"),
            ("--stop-grace-period", "1y"),
            ("--sysctl", "a"),
            ("--entrypoint", "sh 'x"),
        ] {
            assert!(spec(&[flag, value, "x"]).is_err_and(|e| e.contains(value)), "{flag} {value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}|[a-z]{0,3}[=:][0-9:.-]{0,9}") {
            let _ = (parse_host(&text), parse_ulimit(&text));
        }
    }
}
