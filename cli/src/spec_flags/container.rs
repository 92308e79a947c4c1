//! What a task's container looks like.

use std::path::PathBuf;

use anyhow::Context;
use swarm_model::{ContainerSpec, DnsConfig, LogDriver, Mount, Ulimit};

use super::{
    env::{self, Lookup},
    health::HealthFlags,
    key_value::{Pair, map, parse_label, parse_pair},
    mount::parse_mount,
};
use crate::units::parse_duration;

/// Flags of the container.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Container")]
pub(super) struct ContainerFlags {
    /// Environment variable, NAME=VALUE, or NAME to pass it on from here; can be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// File of environment variables, one a line; can be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
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
    #[arg(long)]
    read_only: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run an init process that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time between that signal and SIGKILL [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
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
    /// The container of an image with arguments.
    ///
    /// # Errors
    /// An environment file that cannot be read, or an entrypoint with an open quote.
    pub(super) fn container(&self, image: &str, args: &[String], lookup: Lookup<'_>) -> anyhow::Result<ContainerSpec> {
        let command = match &self.entrypoint {
            Some(text) => {
                shlex::split(text).with_context(|| format!("--entrypoint '{text}' has a quote that is not closed"))?
            }
            None => Vec::new(),
        };
        let dns = DnsConfig {
            nameservers: self.dns.iter().map(ToString::to_string).collect(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        };
        Ok(ContainerSpec {
            image: super::with_tag(image),
            labels: map(&self.container_label),
            command,
            args: args.to_vec(),
            hostname: self.hostname.clone().unwrap_or_default(),
            env: env::environment(&self.env_file, &self.env, lookup)?,
            dir: self.workdir.clone().unwrap_or_default(),
            user: self.user.clone().unwrap_or_default(),
            groups: self.group.clone(),
            init: self.init.then_some(true),
            stop_signal: self.stop_signal.clone().unwrap_or_default(),
            tty: self.tty,
            read_only: self.read_only,
            mounts: self.mount.clone(),
            stop_grace_period_ns: self.stop_grace_period,
            healthcheck: self.health.config(),
            hosts: self.hosts.clone(),
            dns_config: (dns != DnsConfig::default()).then_some(dns),
            sysctls: map(&self.sysctl),
            capability_add: self.cap_add.clone(),
            capability_drop: self.cap_drop.clone(),
            ulimits: self.ulimit.clone(),
            oom_score_adj: self.oom_score_adj.unwrap_or(0),
            ..ContainerSpec::default()
        })
    }

    /// The logging driver, if a flag is set.
    pub(super) fn log_driver(&self) -> Option<LogDriver> {
        let driver = LogDriver { name: self.log_driver.clone().unwrap_or_default(), options: map(&self.log_opt) };
        (driver != LogDriver::default()).then_some(driver)
    }
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
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

/// Upper case with the prefix that the API wants.
fn parse_capability(text: &str) -> Result<String, String> {
    let name = text.to_ascii_uppercase();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("'{text}' is not a capability, for example NET_ADMIN"));
    }
    Ok(if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") })
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
            let _ = (parse_host(&text), parse_ulimit(&text), parse_capability(&text));
        }
    }
}
