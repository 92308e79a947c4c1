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

use super::{
    MARK,
    netlink::{ACK, APPEND, CREATE, DUMP, Message, Part, attribute, attributes, find, list, nested, request, text},
};

/// Tables of nodes begin with this.
const PREFIX: &str = "swarmd-";
/// Characters of a node's id in the name of its table.
const ID_CHARACTERS: usize = 12;
const CHAIN: &str = "replies";

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
/// IPv4 and IPv6 alike.
const FAMILY_INET: u8 = 1;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const PREROUTING: u32 = 0;
const PRIORITY_MANGLE: i32 = -150;
const POLICY_ACCEPT: u32 = 1;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const REGISTER: u32 = 1;
const META_MARK: u32 = 3;
const SOCKET_TRANSPARENT: u32 = 0;
const EQUAL: u32 = 0;

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
        let name = text(TABLE_NAME, &self.0);
        let chain = message(NEW_CHAIN, CREATE | ACK)
            .with(&text(CHAIN_TABLE, &self.0))
            .with(&text(CHAIN_NAME, CHAIN))
            .with(&nested(
                CHAIN_HOOK,
                &[number(HOOK_NUMBER, PREROUTING), attribute(HOOK_PRIORITY, &PRIORITY_MANGLE.to_be_bytes())],
            ))
            .with(&number(CHAIN_POLICY, POLICY_ACCEPT))
            .with(&text(CHAIN_TYPE, "filter"));
        let rule = message(NEW_RULE, CREATE | APPEND | ACK)
            .with(&text(RULE_TABLE, &self.0))
            .with(&text(RULE_CHAIN, CHAIN))
            .with(&nested(RULE_EXPRESSIONS, &expressions()));
        batch(&[
            message(NEW_TABLE, CREATE | ACK).with(&name),
            message(DELETE_TABLE, ACK).with(&name),
            message(NEW_TABLE, CREATE | ACK).with(&name),
            chain,
            rule,
        ])
    }

    /// Removes it, if it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn remove(&self) -> io::Result<()> {
        let name = text(TABLE_NAME, &self.0);
        batch(&[message(NEW_TABLE, CREATE | ACK).with(&name), message(DELETE_TABLE, ACK).with(&name)])
    }

    /// The rules that it has, as the kernel tells them: the same after each [`Table::install`].
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn rules(&self) -> io::Result<Vec<u8>> {
        let mut rules = Vec::new();
        let asked = message(GET_RULE, DUMP).with(&text(RULE_TABLE, &self.0));
        let listed = list(Part::Netfilter, &asked, |body| {
            let body = body.get(GENERIC_BYTES..).unwrap_or_default();
            if find(body, RULE_TABLE).is_some_and(|name| is_text(name, &self.0)) {
                let kept = attributes(body).filter(|(kind, _)| matches!(*kind, RULE_CHAIN | RULE_EXPRESSIONS));
                kept.for_each(|(_, value)| rules.extend_from_slice(value));
            }
        });
        match listed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map(|()| rules),
        }
    }
}

/// Whether any node of this host has its table.
///
/// # Errors
/// The kernel's.
pub(super) fn has_tables() -> io::Result<bool> {
    let mut is_there = false;
    list(Part::Netfilter, &message(GET_TABLE, DUMP), |body| {
        let name = find(body.get(GENERIC_BYTES..).unwrap_or_default(), TABLE_NAME);
        is_there |= name.is_some_and(is_name);
    })?;
    Ok(is_there)
}

/// Whether a table with this name, with the zero at its end, is that of a node.
fn is_name(name: &[u8]) -> bool {
    let id = name.strip_suffix(&[0]).unwrap_or(name).strip_prefix(PREFIX.as_bytes());
    id.is_some_and(|id| id.len() == ID_CHARACTERS && id.iter().all(u8::is_ascii_alphanumeric))
}

fn is_text(found: &[u8], wanted: &str) -> bool {
    found.strip_suffix(&[0]).unwrap_or(found) == wanted.as_bytes()
}

/// Length of the part that all messages begin with.
const GENERIC_BYTES: usize = 4;

fn message(kind: u16, flags: u16) -> Message {
    Message::new(kind, flags, &[FAMILY_INET, 0, 0, 0])
}

/// All of these, or none.
fn batch(messages: &[Message]) -> io::Result<()> {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    let mark = |kind| Message::new(kind, 0, &[0, 0, high, low]);
    let all: Vec<_> = [&[mark(BATCH_BEGIN)], messages, &[mark(BATCH_END)]].concat();
    request(Part::Netfilter, &all)
}

/// A number, in the order that nftables has numbers in.
fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)])
}

/// The expressions of the rule: leave packets with a mark, leave packets that are for no transparent socket, mark the others.
fn expressions() -> Vec<Vec<u8>> {
    let value = |kind, bytes: &[u8]| nested(kind, &[attribute(1, bytes)]);
    let is = |bytes: &[u8]| expression("cmp", &[number(1, REGISTER), number(2, EQUAL), value(3, bytes)]);
    vec![
        expression("meta", &[number(1, REGISTER), number(2, META_MARK)]),
        is(&[0; 4]),
        expression("socket", &[number(1, SOCKET_TRANSPARENT), number(2, REGISTER)]),
        is(&[1]),
        expression("immediate", &[number(1, REGISTER), value(2, &MARK.to_ne_bytes())]),
        expression("meta", &[number(2, META_MARK), number(3, REGISTER)]),
    ]
}

#[cfg(test)]
mod tests;
