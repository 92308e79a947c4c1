//! The settings of a service for its ingress ports: labels that begin with `swarmd.ingress.`.

use std::{net::IpAddr, num::NonZeroU32};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Reason;
use crate::IngressSource;

/// How connections to the ingress ports of a service find their tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// `swarmd.ingress.source=client|node|proxy|proxy-v1`: the address that tasks see.
    #[serde(skip_serializing_if = "is_default")]
    pub source: IngressSource,
    /// `swarmd.ingress.mode=cluster|local` and `swarmd.ingress.prefer=any|local`: the tasks that a node forwards to.
    #[serde(skip_serializing_if = "is_default")]
    pub choice: IngressChoice,
    /// `swarmd.ingress.affinity=none|client`: whether a client address keeps its task while the task is there.
    #[serde(skip_serializing_if = "is_default")]
    pub has_affinity: bool,
    /// `swarmd.ingress.connections-max=100`: connections at a time, at each node.
    #[serde(skip_serializing_if = "is_default")]
    pub connections_max: Option<NonZeroU32>,
    /// `swarmd.ingress.rate-max=10`: connections a second of each client address, at each node.
    #[serde(skip_serializing_if = "is_default")]
    pub rate_max: Option<NonZeroU32>,
    /// `swarmd.ingress.accept-proxy=10.0.0.0/8,…`: peers in these networks are proxies, and begin each TCP connection with
    /// a header of the PROXY protocol that names the client.
    #[serde(skip_serializing_if = "is_default")]
    pub proxies: Vec<IpNet>,
    /// `swarmd.ingress.protocol=tcp|http`: whether TCP connections are followed as HTTP/1.1, so that the answers of a task that
    /// is to stop ask the client to close the connection.
    #[serde(skip_serializing_if = "is_default")]
    pub is_http: bool,
}

/// The tasks that a node forwards connections to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IngressChoice {
    /// All tasks of the service.
    #[default]
    Any,
    /// The node's own tasks; without one, all tasks.
    PreferLocal,
    /// The node's own tasks; without one, the node does not listen.
    OnlyLocal,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Ingress {
    /// Whether everything is as for a service that says nothing.
    pub fn is_default(&self) -> bool {
        is_default(self)
    }

    /// Whether connections of this address begin with a header of the PROXY protocol.
    pub fn is_proxy(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.proxies.iter().any(|network| network.contains(&addr))
    }

    /// Takes the setting of this key, which is without `swarmd.ingress.`.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), Reason> {
        match (key, value) {
            ("source", "client") => self.source = IngressSource::Client,
            ("source", "node") => self.source = IngressSource::Node,
            ("source", "proxy") => self.source = IngressSource::Proxy,
            ("source", "proxy-v1") => self.source = IngressSource::ProxyV1,
            ("source", _) => return Err(Reason::Value("client, node, proxy or proxy-v1".into())),
            ("mode", "cluster") | ("prefer", "any") => {}
            ("mode", "local") => self.choice = IngressChoice::OnlyLocal,
            ("mode", _) => return Err(Reason::Value("cluster or local".into())),
            // The labels come in the order of their keys: `mode` was before this.
            ("prefer", "local") if self.choice == IngressChoice::OnlyLocal => {
                return Err(Reason::Value("left out: with swarmd.ingress.mode=local there is no other choice".into()));
            }
            ("prefer", "local") => self.choice = IngressChoice::PreferLocal,
            ("prefer", _) => return Err(Reason::Value("any or local".into())),
            ("affinity", "client") => self.has_affinity = true,
            ("affinity", "none") => self.has_affinity = false,
            ("affinity", _) => return Err(Reason::Value("client or none".into())),
            ("connections-max", _) => self.connections_max = Some(number(value)?),
            ("accept-proxy", _) => self.proxies = value.split(',').map(network).collect::<Result<_, _>>()?,
            ("protocol", "tcp") => self.is_http = false,
            ("protocol", "http") => self.is_http = true,
            ("protocol", _) => return Err(Reason::Value("tcp or http".into())),
            ("rate-max", _) => self.rate_max = Some(number(value)?),
            _ => return Err(Reason::Unknown),
        }
        Ok(())
    }
}

fn number(value: &str) -> Result<NonZeroU32, Reason> {
    let number = value.parse().ok().filter(|_| value.bytes().all(|b| b.is_ascii_digit()));
    number.ok_or_else(|| Reason::Value(format!("a number from 1 to {}", u32::MAX)))
}

fn network(text: &str) -> Result<IpNet, Reason> {
    let text = text.trim();
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| Reason::Value(format!("a list of networks such as 10.0.0.0/8, and '{text}' is none")))
}
