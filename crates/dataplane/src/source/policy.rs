//! The policy rule and the route that bring marked packets to this host's sockets, whatever their destination is. The
//! nodes of a host share them.

use std::io;

use rustix::io::Errno;

use swarm_net::netlink::{CREATE, EXCLUSIVE, Message, Part, Socket, attribute};

use super::MARK;

/// The routing table, named like the mark.
const TABLE: u32 = 5357;
/// Place among the policy rules: after the table of local addresses (0), before those of VPN programs, which send
/// everything without a mark of theirs elsewhere and begin in the hundreds.
const PRIORITY: u32 = 57;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
/// The table's number is in an attribute.
const TABLE_ELSEWHERE: u8 = 0;
const TO_TABLE: u8 = 1;
const RULE_PRIORITY: u16 = 6;
const RULE_MARK: u16 = 10;
const RULE_TABLE: u16 = 15;
const RULE_MASK: u16 = 16;
const ROUTE_DEVICE: u16 = 4;
const ROUTE_TABLE: u16 = 15;
const BY_ADMINISTRATOR: u8 = 4;
const SCOPE_HOST: u8 = 254;
const TYPE_LOCAL: u8 = 2;
/// The number of the loopback device, in each network namespace.
const LOOPBACK: u32 = 1;

/// Puts the rule and the route where they are missing. Returns whether one was missing.
///
/// # Errors
/// The kernel's, of IPv4. A kernel without IPv6 has nothing to be put there.
pub(super) fn ensure() -> io::Result<bool> {
    let mut was_missing = false;
    let mut socket = Socket::open(Part::Route)?;
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        for message in [rule(NEW_RULE, CREATE | EXCLUSIVE, family), route(NEW_ROUTE, CREATE | EXCLUSIVE, family)] {
            match socket.request_one(message) {
                Ok(()) => was_missing = true,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) if family == FAMILY_IPV6 && Errno::from_io_error(&e) != Some(Errno::PERM) => {
                    tracing::trace!("no policy route for IPv6: {e}");
                }
                Err(e) => return Err(e),
            }
        }
    }
    Ok(was_missing)
}

/// Removes them, if they are there.
///
/// # Errors
/// The kernel's, of IPv4.
pub(super) fn remove() -> io::Result<()> {
    let mut socket = Socket::open(Part::Route)?;
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        for message in [rule(DELETE_RULE, 0, family), route(DELETE_ROUTE, 0, family)] {
            match socket.request_one(message) {
                Err(e) if family == FAMILY_IPV4 && !is_missing(&e) => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

fn rule(kind: u16, flags: u16, family: u8) -> Message {
    let fixed = [family, 0, 0, 0, TABLE_ELSEWHERE, 0, 0, TO_TABLE, 0, 0, 0, 0];
    Message::new(kind, flags, &fixed)
        .with(&number(RULE_PRIORITY, PRIORITY))
        .with(&number(RULE_MARK, MARK))
        .with(&number(RULE_MASK, u32::MAX))
        .with(&number(RULE_TABLE, TABLE))
}

fn route(kind: u16, flags: u16, family: u8) -> Message {
    let fixed = [family, 0, 0, 0, TABLE_ELSEWHERE, BY_ADMINISTRATOR, SCOPE_HOST, TYPE_LOCAL, 0, 0, 0, 0];
    Message::new(kind, flags, &fixed).with(&number(ROUTE_DEVICE, LOOPBACK)).with(&number(ROUTE_TABLE, TABLE))
}

/// A number, in the order of this machine.
fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_ne_bytes())
}
