//! The node's table of nftables: packets that are for one of our sockets get a mark.
//!
//! In the words of `nft`:
//! ```text
//! table inet swarmd-<node> {
//!   chain replies {
//!     type filter hook prerouting priority mangle; policy accept;
//!     meta mark 0 socket transparent 1 meta mark set 0x5357
//!   }
//! }
//! ```
//! Packets with a mark of somebody else are left alone.

use std::io;

use swarm_model::NodeId;
use swarm_net::nft::{Batch, Hook, Scope, Tables, expression};

use super::MARK;

/// Tables of nodes begin with this.
const PREFIX: &str = "swarmd-";
/// Characters of a node's id in the name of its table.
const ID_CHARACTERS: usize = 12;
const CHAIN: &str = "replies";
/// The hook `prerouting`, and the place `mangle` among its chains.
const BEFORE_ROUTING: Hook = Hook { kind: "filter", hook: 0, priority: -150 };

/// The table of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table(String);

impl Table {
    /// Of this node.
    pub(super) fn of(node: NodeId) -> Self {
        Self(PREFIX.chars().chain(node.to_string().chars().take(ID_CHARACTERS)).collect())
    }

    /// Makes it, or makes it anew, at one moment.
    ///
    /// # Errors
    /// The kernel's: it has no nftables, lacks a part, or does not permit it.
    pub(super) fn install(&self) -> io::Result<()> {
        let mut batch = Batch::new(Scope::Both, &self.0);
        batch.remove_table();
        batch.add_table();
        batch.add_chain(CHAIN, Some(BEFORE_ROUTING));
        // Leave packets with a mark, leave packets that are for no transparent socket, mark the others.
        batch.add_rule(
            CHAIN,
            &[
                expression::mark(),
                expression::is(&[0; 4]),
                expression::transparent(),
                expression::is(&[1]),
                expression::value(&MARK.to_ne_bytes()),
                expression::set_mark(),
            ],
        );
        Tables::open()?.change_now(batch.into_messages())
    }

    /// Removes it, if it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn remove(&self) -> io::Result<()> {
        let mut batch = Batch::new(Scope::Both, &self.0);
        batch.remove_table();
        Tables::open()?.change_now(batch.into_messages())
    }

    /// The rules that it has, as the kernel tells them: the same after each [`Table::install`].
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn rules(&self) -> io::Result<Vec<u8>> {
        Tables::open()?.rules(Scope::Both, &self.0)
    }
}

/// Whether any node of this host has its table.
///
/// # Errors
/// The kernel's.
pub(super) fn has_tables() -> io::Result<bool> {
    Ok(Tables::open()?.names(Scope::Both)?.iter().any(|name| is_name(name)))
}

/// Whether a table with this name is that of a node.
fn is_name(name: &str) -> bool {
    let id = name.strip_prefix(PREFIX);
    id.is_some_and(|id| id.len() == ID_CHARACTERS && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests;
