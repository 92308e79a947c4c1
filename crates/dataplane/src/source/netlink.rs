//! Messages to and from the kernel: what rtnetlink and nfnetlink have in common.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{NETFILTER, SocketAddrNetlink},
        recv, sendto, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

/// Flags of a request. Not all kinds of messages know all of them.
pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// Kinds of messages of the protocol itself.
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's kind that are flags.
const KIND_FLAGS: u16 = 0xc000;
/// Length of the header of a message, and of an attribute.
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Longest message that is read: the kernel fills no more than 32 KB at a time.
const RECEIVE_BYTES: usize = 64 << 10;
/// Longest wait for an answer. The kernel answers while the request is sent; only a lost answer takes so long.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A request under construction.
#[derive(Clone)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A message with the fixed part that its kind has.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        Self { kind, flags, body: fixed.to_vec() }
    }

    /// With another attribute.
    pub(super) fn with(mut self, attribute: &[u8]) -> Self {
        self.body.extend_from_slice(attribute);
        self
    }

    fn write(&self, number: u32, target: &mut Vec<u8>) {
        let len = (HEADER_BYTES + self.body.len()) as u32;
        target.extend_from_slice(&len.to_ne_bytes());
        target.extend_from_slice(&self.kind.to_ne_bytes());
        target.extend_from_slice(&(self.flags | REQUEST).to_ne_bytes());
        target.extend_from_slice(&number.to_ne_bytes());
        // The kernel fills in who sent it.
        target.extend_from_slice(&[0; 4]);
        target.extend_from_slice(&self.body);
    }
}

/// An attribute with these bytes.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = (ATTRIBUTE_HEADER_BYTES + value.len()) as u16;
    let mut bytes = Vec::with_capacity(usize::from(len).next_multiple_of(4));
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds others.
pub(super) fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}

/// A text, which ends with a zero.
pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard<'a> {
    pub(super) kind: u16,
    /// Of the request that it answers.
    pub(super) number: u32,
    pub(super) body: &'a [u8],
}

impl Heard<'_> {
    /// The outcome that an answer tells; none for other messages.
    fn outcome(&self) -> Option<io::Result<()>> {
        if self.kind != KIND_ERROR {
            return None;
        }
        let code = self.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        Some(match code {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        })
    }
}

/// The messages in what was read. What is cut off or malformed ends them.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Heard<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let number = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
        let body = bytes.get(HEADER_BYTES..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Heard { kind, number, body })
    })
}

/// The attributes in the rest of a message. What is cut off or malformed ends them.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & !KIND_FLAGS;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The part of the kernel that is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Links, addresses, routes and policy rules.
    Route,
    /// nftables.
    Netfilter,
}

/// Requests, and their answers.
struct Conversation {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Conversation {
    fn begin(part: Part, sent: &[u8]) -> io::Result<Self> {
        let protocol: Option<Protocol> = match part {
            Part::Route => None,
            Part::Netfilter => Some(NETFILTER),
        };
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        let kernel = SocketAddrNetlink::new(0, 0);
        bind(&socket, &kernel)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_MAX))?;
        sendto(&socket, sent, SendFlags::empty(), &kernel)?;
        Ok(Self { socket, buffer: vec![0; RECEIVE_BYTES] })
    }

    fn hear(&mut self) -> io::Result<impl Iterator<Item = Heard<'_>>> {
        let len = loop {
            match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => break len,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
                Err(e) => return Err(e.into()),
            }
        };
        Ok(messages(self.buffer.get(..len).unwrap_or_default()))
    }
}

/// Sends messages in one piece, and waits until the last one was done.
///
/// # Errors
/// The kernel's, for the first message that it refused.
pub(super) fn request(part: Part, messages: &[Message]) -> io::Result<()> {
    let mut bytes = Vec::new();
    // The last one that asks for an answer.
    let mut last = 0;
    for (number, message) in (1..).zip(messages) {
        message.write(number, &mut bytes);
        if message.flags & ACK != 0 {
            last = number;
        }
    }
    let mut conversation = Conversation::begin(part, &bytes)?;
    loop {
        for heard in conversation.hear()? {
            match heard.outcome() {
                Some(Ok(())) if heard.number == last => return Ok(()),
                Some(outcome) => outcome?,
                None => {}
            }
        }
    }
}

/// Asks for a list, and calls `each` with the body of each entry.
///
/// # Errors
/// The kernel's.
pub(super) fn list(part: Part, message: &Message, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut bytes = Vec::new();
    message.write(1, &mut bytes);
    let mut conversation = Conversation::begin(part, &bytes)?;
    loop {
        for heard in conversation.hear()? {
            if heard.kind == KIND_DONE {
                return Ok(());
            }
            match heard.outcome() {
                Some(outcome) => return outcome,
                None => each(heard.body),
            }
        }
    }
}

#[cfg(test)]
mod tests;
