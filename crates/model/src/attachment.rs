//! Attachments: containers that are no tasks, in networks of the cluster.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Invalid, NetworkAddr, NodeId, ObjectId, TaskId};

/// A container that is no task, in a network of the cluster. A container in two networks has two attachments.
///
/// The node that has the container asks for the attachment, and takes it back. A stopped container has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Id. The records of a network name tasks and attachments alike.
    pub id: TaskId,
    /// The node of the container.
    pub node: NodeId,
    /// The network.
    pub network: ObjectId,
    /// Its addresses: one of each address family of the network.
    pub addrs: Arc<[IpAddr]>,
    /// The names of the container in the network: its name and its aliases. None before the container is there.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub names: Arc<[String]>,
    /// Whether the container runs: then its names stand for its addresses.
    #[serde(default)]
    pub is_running: bool,
}

impl Attachment {
    /// Most names of a container in a network.
    pub const NAMES_MAX: usize = 64;
    /// Longest name, in bytes: as long as a name of the DNS.
    pub const NAME_BYTES_MAX: usize = 253;

    /// Its addresses, as addresses of its network.
    pub fn network_addrs(&self) -> Vec<NetworkAddr> {
        self.addrs.iter().map(|addr| NetworkAddr { network: self.network, addr: *addr }).collect()
    }

    /// Checks the names of a container.
    ///
    /// # Errors
    /// There are too many, or one is empty, too long or has a character that no name of a host has.
    pub fn validate_names(names: &[String]) -> Result<(), Invalid> {
        if names.len() > Self::NAMES_MAX {
            let (count, max) = (names.len(), Self::NAMES_MAX);
            return Err(Invalid(format!("a container has at most {max} names in a network: these are {count}")));
        }
        let is_fit = |name: &&String| {
            !name.is_empty()
                && name.len() <= Self::NAME_BYTES_MAX
                && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        };
        match names.iter().find(|name| !is_fit(name)) {
            Some(name) => Err(Invalid(format!(
                "{name:?} is no name of a container: a name has 1 to {} letters, digits and signs",
                Self::NAME_BYTES_MAX
            ))),
            None => Ok(()),
        }
    }
}
