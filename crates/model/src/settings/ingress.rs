//! The settings of a service for its ingress ports: labels that begin with `swarmd.ingress.`.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Reason;
use crate::IngressSource;

/// How connections to the ingress ports of a service find their tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// `swarmd.ingress.source=client|node|proxy`: the address that tasks see.
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

    /// Takes the setting of this key, which is without `swarmd.ingress.`.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), Reason> {
        match (key, value) {
            ("source", "client") => self.source = IngressSource::Client,
            ("source", "node") => self.source = IngressSource::Node,
            ("source", "proxy") => self.source = IngressSource::Proxy,
            ("source", _) => return Err(Reason::Value("client, node or proxy".into())),
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
