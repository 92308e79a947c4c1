//! `network create`

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use swarm_docker_api::view::{ConfigReference, CreateNetworkResponse, IpamConfigView, IpamView, NetworkRequest};
use swarm_model::Labels;

use super::NETWORKS;
use crate::{
    client::{Query, read},
    context::Context,
    spec_flags::parse_label,
};

/// Makes a network.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Create {
    /// Name
    #[arg(value_name = "NAME")]
    name: String,
    /// Driver: overlay for a network across the nodes; others belong to this node's engine
    #[arg(short, long, value_name = "DRIVER", default_value = "overlay")]
    driver: String,
    /// Let containers that are no tasks be attached
    #[arg(long)]
    attachable: bool,
    /// Let its containers reach nothing but each other
    #[arg(long)]
    internal: bool,
    /// Subnet in CIDR form, one of each address family; can be repeated
    #[arg(long, value_name = "CIDR", help_heading = "Addresses")]
    subnet: Vec<IpNet>,
    /// Address of the bridge in a subnet [default: the first one]; can be repeated
    #[arg(long, value_name = "IP", help_heading = "Addresses")]
    gateway: Vec<IpAddr>,
    /// Part of a subnet that containers get their addresses from, in CIDR form; can be repeated
    #[arg(long, value_name = "CIDR", help_heading = "Addresses")]
    ip_range: Vec<IpNet>,
    /// Address that no container gets; can be repeated
    #[arg(long, value_name = "NAME=IP", value_parser = parse_address, help_heading = "Addresses")]
    aux_address: Vec<(String, IpAddr)>,
    /// IPv4 addresses [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Addresses")]
    ipv4: Option<bool>,
    /// IPv6 addresses, of a subnet of fd00::/8 if none is given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Addresses")]
    ipv6: Option<bool>,
    /// Driver that chooses addresses
    #[arg(long, value_name = "DRIVER", default_value = "default", help_heading = "Addresses")]
    ipam_driver: String,
    /// Option of the driver that chooses addresses; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label, help_heading = "Addresses")]
    ipam_opt: Vec<(String, String)>,
    /// Option of the driver; can be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_label)]
    opt: Vec<(String, String)>,
    /// Label; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Scope: swarm or local [default: the one that fits the driver]
    #[arg(long, value_name = "SCOPE", default_value = "", hide_default_value = true)]
    scope: String,
    /// Make a configuration for networks of this node
    #[arg(long)]
    config_only: bool,
    /// Network of this node whose configuration it takes
    #[arg(long, value_name = "NETWORK")]
    config_from: Option<String>,
    // Published ports need no network: the flag is there to say so.
    #[arg(long, hide = true)]
    ingress: bool,
}

impl Create {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let path = format!("{NETWORKS}/create");
        let answer = context.client.post(&path, Query::new(), &self.request()?, None).await?;
        let created: CreateNetworkResponse = read(&path, &answer)?;
        if !created.warning.is_empty() {
            context.out.note(&format!("Warning: {}", created.warning));
        }
        Ok(context.out.line(&created.id)?)
    }

    fn request(self) -> anyhow::Result<NetworkRequest> {
        let config = self.configs()?;
        let options: Labels = self.ipam_opt.into_iter().collect();
        Ok(NetworkRequest {
            name: self.name,
            driver: self.driver,
            scope: self.scope,
            enable_ipv4: self.ipv4,
            enable_ipv6: self.ipv6,
            ipam: Some(IpamView { driver: self.ipam_driver, options: Some(options), config }),
            internal: self.internal,
            attachable: self.attachable,
            ingress: self.ingress,
            config_only: self.config_only,
            config_from: self.config_from.map(|network| ConfigReference { network }),
            options: self.opt.into_iter().collect(),
            labels: self.label.into_iter().collect(),
        })
    }

    /// The subnets, each with what lies in it.
    fn configs(&self) -> anyhow::Result<Vec<IpamConfigView>> {
        let subnet = |range: &IpNet| IpamConfigView { subnet: range.to_string(), ..IpamConfigView::default() };
        let mut configs: Vec<IpamConfigView> = self.subnet.iter().map(subnet).collect();
        let place = |flag: &str, text: String, is_in: &dyn Fn(&IpNet) -> bool| {
            let place = self.subnet.iter().position(is_in);
            place.with_context(|| format!("--{flag} {text} lies in no subnet: name its subnet with --subnet"))
        };
        for gateway in &self.gateway {
            let at = place("gateway", gateway.to_string(), &|subnet| subnet.contains(gateway))?;
            if !configs[at].gateway.is_empty() {
                bail!(
                    "--gateway {gateway}: the subnet {} has the gateway {} already",
                    configs[at].subnet,
                    configs[at].gateway
                );
            }
            configs[at].gateway = gateway.to_string();
        }
        for range in &self.ip_range {
            let at = place("ip-range", range.to_string(), &|subnet| subnet.contains(range))?;
            if !configs[at].ip_range.is_empty() {
                bail!(
                    "--ip-range {range}: the subnet {} has the range {} already",
                    configs[at].subnet,
                    configs[at].ip_range
                );
            }
            configs[at].ip_range = range.to_string();
        }
        for (name, addr) in &self.aux_address {
            let at = place("aux-address", format!("{name}={addr}"), &|subnet| subnet.contains(addr))?;
            configs[at].aux_addresses.insert(name.clone(), addr.to_string());
        }
        Ok(configs)
    }
}

/// Reads `NAME=IP`.
fn parse_address(text: &str) -> Result<(String, IpAddr), String> {
    let (name, addr) = text.split_once('=').ok_or_else(|| format!("'{text}' has no address; write NAME=IP"))?;
    let addr = addr.parse().map_err(|_| format!("'{addr}' in '{text}' is not an IP address"))?;
    Ok((name.to_owned(), addr))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn request(line: &[&str]) -> Result<Value, String> {
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        let request = line.create.request().map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(request).expect("JSON"))
    }

    #[test]
    fn what_lies_in_a_subnet_is_sent_with_it() {
        let line =
            ["--subnet", "10.7.0.0/24", "--subnet", "fd12::/64", "--gateway", "fd12::9", "--gateway", "10.7.0.9"];
        let line = [&line[..], &["--ip-range", "10.7.0.128/25", "--aux-address", "nas=10.7.0.200", "net"]].concat();
        let sent = request(&line).expect("a network");
        assert_eq!((&sent["Name"], &sent["Driver"], &sent["Scope"]), (&json!("net"), &json!("overlay"), &json!("")));
        assert_eq!(
            sent["IPAM"],
            json!({"Driver": "default", "Options": {}, "Config": [
                {"Subnet": "10.7.0.0/24", "Gateway": "10.7.0.9", "IPRange": "10.7.0.128/25",
                    "AuxiliaryAddresses": {"nas": "10.7.0.200"}},
                {"Subnet": "fd12::/64", "Gateway": "fd12::9"}]})
        );
        assert_eq!(sent.get("EnableIPv6"), None);
    }

    #[test]
    fn all_else_is_sent_as_it_is() {
        let line =
            ["-d", "macvlan", "--attachable", "--internal", "--ipv6", "--ipv4=false", "--ingress", "--config-only"];
        let line =
            [&line[..], &["--scope", "swarm", "--config-from", "c", "-o", "encrypted", "--label", "a=b", "n"]].concat();
        let sent = request(&line).expect("a network");
        for (field, value) in [
            ("Driver", json!("macvlan")),
            ("Attachable", json!(true)),
            ("Internal", json!(true)),
            ("EnableIPv6", json!(true)),
            ("EnableIPv4", json!(false)),
            ("Ingress", json!(true)),
            ("ConfigOnly", json!(true)),
            ("ConfigFrom", json!({"Network": "c"})),
            ("Scope", json!("swarm")),
            ("Options", json!({"encrypted": ""})),
            ("Labels", json!({"a": "b"})),
        ] {
            assert_eq!(sent[field], value, "{field}");
        }
    }

    #[test]
    fn what_lies_nowhere_is_refused() {
        let subnet = ["--subnet", "10.7.0.0/24", "n"];
        for (line, part) in [
            (&["--gateway", "10.8.0.1"][..], "--gateway 10.8.0.1 lies in no subnet"),
            (&["--ip-range", "10.8.0.0/25"], "--ip-range 10.8.0.0/25 lies in no subnet"),
            (&["--aux-address", "a=10.8.0.1"], "--aux-address a=10.8.0.1 lies in no subnet"),
            (&["--gateway", "10.7.0.1", "--gateway", "10.7.0.2"], "has the gateway 10.7.0.1 already"),
            (&["--ip-range", "10.7.0.0/25", "--ip-range", "10.7.0.0/26"], "has the range 10.7.0.0/25 already"),
            (&["--aux-address", "a"], "'a' has no address"),
            (&["--aux-address", "a=b"], "'b' in 'a=b' is not an IP address"),
        ] {
            let error = request(&[line, &subnet].concat()).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_address_is_read_or_refused(text in "\\PC{0,20}|[a-z]{0,3}=[0-9.:a-f]{0,12}") {
            if let Ok((name, addr)) = parse_address(&text) {
                prop_assert_eq!(parse_address(&format!("{name}={addr}")), Ok((name, addr)));
            }
        }
    }
}
