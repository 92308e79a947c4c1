//! The service as a whole.

use anyhow::bail;
use swarm_model::{
    EndpointMode, EndpointSpec, NetworkAttachment, PortConfig, ReplicatedJob, ServiceMode, ServiceSpec, TaskSpec,
};

use super::{
    container::ContainerFlags,
    csv,
    env::Lookup,
    key_value::{Pair, map, parse_label},
    placement::PlacementFlags,
    port::parse_ports,
    resources::ResourceFlags,
    restart::RestartFlags,
    rollout::{RollbackFlags, UpdateFlags},
};
use crate::choice::choice;

/// All that says what a service is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServiceFlags {
    /// Image, and the command with its arguments. All that follows the image belongs to the command
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG]")]
    image_and_args: Vec<String>,
    /// Name of the service [default: a random one]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What kind of service it is
    #[arg(long, default_value = "replicated", value_parser = ["replicated", "global", "replicated-job", "global-job"])]
    mode: String,
    /// Number of tasks [default: 1]
    #[arg(long, value_name = "N")]
    replicas: Option<u64>,
    /// Tasks of a job that run at the same time [default: --replicas]
    #[arg(long, value_name = "N")]
    max_concurrent: Option<u64>,
    /// Label of the service; can be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<Pair>,
    /// Publish a port: [PUBLISHED:]TARGET[/PROTOCOL], or target=,published=,protocol=,mode=host; can be repeated
    #[arg(short, long, value_name = "PORT", value_parser = |text: &str| parse_ports(text).map(Ports))]
    publish: Vec<Ports>,
    /// How other services find this one [default: vip]
    #[arg(long, value_name = "MODE", value_parser = choice::<EndpointMode>(&["vip", "dnsrr"]))]
    endpoint_mode: Option<EndpointMode>,
    /// Network: NAME, or name=,alias=,driver-opt=; can be repeated
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    network: Vec<NetworkAttachment>,
    /// Secret (not available yet)
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Config (not available yet)
    #[arg(long, value_name = "CONFIG")]
    config: Vec<String>,
    #[command(flatten)]
    placement: PlacementFlags,
    #[command(flatten)]
    restart: RestartFlags,
    #[command(flatten)]
    update: UpdateFlags,
    #[command(flatten)]
    rollback: RollbackFlags,
    #[command(flatten)]
    resources: ResourceFlags,
    #[command(flatten)]
    container: ContainerFlags,
}

/// The ports of one flag. A type of its own, since a flag that gives a list would be read as one value for each.
#[derive(Clone, Debug)]
struct Ports(Vec<PortConfig>);

impl ServiceFlags {
    /// The image as it was given.
    pub(crate) fn image(&self) -> &str {
        self.image_and_args.first().map_or("", String::as_str)
    }

    /// The spec that the flags describe.
    ///
    /// # Errors
    /// Flags that do not fit each other, or a file that cannot be read.
    pub(crate) fn spec(&self, lookup: Lookup<'_>) -> anyhow::Result<ServiceSpec> {
        for (flag, what, given) in [("--secret", "secrets", &self.secret), ("--config", "configs", &self.config)] {
            if let Some(name) = given.first() {
                bail!("{flag} {name}: {what} are not available yet");
            }
        }
        let mode = self.service_mode()?;
        let args = self.image_and_args.get(1..).unwrap_or_default();
        let endpoint = EndpointSpec {
            mode: self.endpoint_mode,
            ports: self.publish.iter().flat_map(|ports| ports.0.clone()).collect(),
            ..EndpointSpec::default()
        };
        Ok(ServiceSpec {
            name: self.name.clone().unwrap_or_default(),
            labels: map(&self.label),
            task_template: TaskSpec {
                container_spec: self.container.container(self.image(), args, lookup)?,
                resources: self.resources.resources(),
                restart_policy: self.restart.policy(),
                placement: self.placement.placement(),
                networks: self.network.clone(),
                log_driver: self.container.log_driver(),
                ..TaskSpec::default()
            },
            mode,
            update_config: self.update.config(),
            rollback_config: self.rollback.config(),
            endpoint_spec: (endpoint != EndpointSpec::default()).then_some(endpoint),
            ..ServiceSpec::default()
        })
    }

    fn service_mode(&self) -> anyhow::Result<ServiceMode> {
        let mode = self.mode.as_str();
        if mode.starts_with("global") {
            if self.replicas.is_some() {
                bail!("--replicas does not fit --mode {mode}: it runs one task on each node");
            }
            if self.placement.replicas_max_per_node.is_some() {
                bail!("--replicas-max-per-node does not fit --mode {mode}: it runs one task on each node");
            }
        }
        if mode != "replicated-job" && self.max_concurrent.is_some() {
            bail!("--max-concurrent does not fit --mode {mode}: only a replicated-job has it");
        }
        Ok(match mode {
            "global" => ServiceMode::Global,
            "global-job" => ServiceMode::GlobalJob,
            "replicated-job" => ServiceMode::ReplicatedJob(ReplicatedJob {
                max_concurrent: Some(self.max_concurrent.or(self.replicas).unwrap_or(1)),
                total_completions: Some(self.replicas.unwrap_or(1)),
            }),
            _ => ServiceMode::Replicated { replicas: self.replicas.unwrap_or(1) },
        })
    }
}

fn parse_network(text: &str) -> Result<NetworkAttachment, String> {
    if !text.contains('=') {
        return Ok(NetworkAttachment { target: text.to_owned(), ..NetworkAttachment::default() });
    }
    let mut network = NetworkAttachment::default();
    for (key, value) in csv::pairs(text)? {
        let value = value.unwrap_or_default();
        match key.as_str() {
            "name" => network.target = value,
            "alias" => network.aliases.push(value),
            "driver-opt" => {
                let (name, value) = parse_label(&value)?;
                network.driver_opts.insert(name, value);
            }
            _ => return Err(format!("unknown key '{key}' in '{text}'; there are name, alias, driver-opt")),
        }
    }
    if network.target.is_empty() { Err(format!("'{text}' has no name")) } else { Ok(network) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::spec_flags::testing::spec;

    #[test]
    fn a_plain_service_says_no_more_than_it_must() {
        assert_eq!(
            serde_json::to_value(spec(&["nginx"]).unwrap()).unwrap(),
            json!({"Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": "nginx:latest"}, "ForceUpdate": 0},
                "Mode": {"Replicated": {"Replicas": 1}}})
        );
    }

    #[test]
    fn all_after_the_image_belongs_to_the_command() {
        let spec = spec(&["--name", "web", "nginx:1", "--name", "x", "--", "-p"]).unwrap();
        assert_eq!(spec.name, "web");
        assert_eq!(spec.task_template.container_spec.args, ["--name", "x", "--", "-p"]);
    }

    #[test]
    fn modes() {
        let mode = |line: &[&str]| spec(line).map(|s| serde_json::to_value(s.mode).unwrap());
        assert_eq!(mode(&["--replicas", "0", "x"]), Ok(json!({"Replicated": {"Replicas": 0}})));
        assert_eq!(mode(&["--mode", "global", "x"]), Ok(json!({"Global": {}})));
        assert_eq!(
            mode(&["--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2", "x"]),
            Ok(json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}))
        );
        for line in [
            ["--mode", "global", "--replicas", "2", "x"],
            ["--mode", "global", "--replicas-max-per-node", "2", "x"],
            ["--mode", "replicated", "--max-concurrent", "2", "x"],
        ] {
            assert!(mode(&line).is_err_and(|e| e.contains(line[2]) && e.contains("does not fit")), "{line:?}");
        }
    }

    #[test]
    fn ports_and_networks() {
        let line = ["-p", "80-81:80-81", "-p", "target=9,mode=host", "--network", "name=n,alias=a,driver-opt=k=v", "x"];
        let spec = spec(&line).unwrap();
        assert_eq!(spec.ports().len(), 3);
        assert_eq!(
            serde_json::to_value(spec.task_template.networks).unwrap(),
            json!([{"Target": "n", "Aliases": ["a"], "DriverOpts": {"k": "v"}}])
        );
    }

    #[test]
    fn what_is_not_there_yet_says_so() {
        assert_eq!(spec(&["--secret", "s", "x"]), Err("--secret s: secrets are not available yet".into()));
        assert_eq!(spec(&["--config", "c", "x"]), Err("--config c: configs are not available yet".into()));
    }

    #[test]
    fn an_image_is_needed() {
        assert!(spec(&[]).is_err_and(|e| e.contains("IMAGE")));
    }

    proptest! {
        #[test]
        fn any_network_is_read_or_refused(text in "\\PC{0,20}|(name|alias|driver-opt)=[a-z=,\"]{0,12}") {
            let _ = parse_network(&text);
        }
    }
}
