//! Messages to and from the kernel over netlink: the framing, and the attributes that nfnetlink messages are made of.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use netlink_packet_core::NetlinkSerializable;
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{setsockopt, sockopt};
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
const REQUEST: u16 = 0x1;
/// The kernel is to answer.
const ACK: u16 = 0x4;
/// The kernel is to list.
const DUMP: u16 = 0x300;
/// An object of the same name is to be replaced.
pub const REPLACE: u16 = 0x100;
/// No object of the same name may be there.
pub const EXCLUSIVE: u16 = 0x200;
/// The object is made when it is not there.
pub const CREATE: u16 = 0x400;
/// The object comes behind the others.
pub const APPEND: u16 = 0x800;

/// Kinds of messages of the protocol itself.
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
/// A list changed while it was read.
const LIST_CHANGED: u16 = 0x10;
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
/// Requests that are sent in one piece: their answers fit into the socket's memory.
const REQUESTS_AT_ONCE: usize = 64;
/// The socket's memory: the table of a container with some thousand services is one piece of some megabytes.
const SEND_BYTES: usize = 16 << 20;
/// The same for events and for errors, which come while nobody reads.
const RECEIVED_BYTES: usize = 4 << 20;
/// How often a list is asked for that changes while it is read.
const LIST_TRIES: usize = 5;

/// A request under construction.
#[derive(Clone, Debug)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A message with the fixed part that its kind has.
    #[must_use]
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        Self { kind, flags, body: fixed.to_vec() }
    }

    /// A message of rtnetlink.
    #[must_use]
    pub fn route(message: &RouteNetlinkMessage, flags: u16) -> Self {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        Self { kind: message.message_type(), flags, body }
    }

    /// With another attribute.
    #[must_use]
    pub fn with(mut self, attribute: &[u8]) -> Self {
        self.body.extend_from_slice(attribute);
        self
    }

    /// Asks the kernel for an answer.
    #[must_use]
    pub fn asking(mut self) -> Self {
        self.flags |= ACK;
        self
    }

    fn write(&self, number: u32, more_flags: u16, target: &mut Vec<u8>) {
        let len = (HEADER_BYTES + self.body.len()) as u32;
        target.extend_from_slice(&len.to_ne_bytes());
        target.extend_from_slice(&self.kind.to_ne_bytes());
        target.extend_from_slice(&(self.flags | more_flags | REQUEST).to_ne_bytes());
        target.extend_from_slice(&number.to_ne_bytes());
        // The kernel fills in the sender.
        target.extend_from_slice(&[0; 4]);
        target.extend_from_slice(&self.body);
        target.resize(target.len().next_multiple_of(4), 0);
    }
}

/// An attribute with these bytes.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = (ATTRIBUTE_HEADER_BYTES + value.len()) as u16;
    let mut bytes = Vec::with_capacity(usize::from(len).next_multiple_of(4));
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds others.
#[must_use]
pub fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}

/// A text, which ends with a zero.
#[must_use]
pub fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// A number in the order of bytes of nfnetlink.
#[must_use]
pub fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard<'a> {
    /// Its kind.
    pub kind: u16,
    flags: u16,
    /// The number of the request that it answers.
    pub number: u32,
    /// The part after the header.
    pub body: &'a [u8],
}

impl Heard<'_> {
    /// The outcome that an answer tells; none for other messages.
    #[must_use]
    pub fn outcome(&self) -> Option<io::Result<()>> {
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

/// The messages in what was read. A message that is cut off or malformed ends them.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Heard<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let flags = u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?);
        let number = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
        let body = bytes.get(HEADER_BYTES..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Heard { kind, flags, number, body })
    })
}

/// The attributes in the rest of a message. An attribute that is cut off or malformed ends them.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & !KIND_FLAGS;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
#[must_use]
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The attribute at the end of a path of nested attributes.
#[must_use]
pub fn find_in<'a>(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| find(bytes, *kind))
}

/// The part of the kernel that is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Links, addresses, neighbours and routes.
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

/// A socket to the kernel, of the network namespace that it was opened in, wherever it is used.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// The number of the last request.
    number: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Socket {
    /// Opens a socket for requests.
    ///
    /// # Errors
    /// The kernel's: it does not have this part, or the process has no descriptors left.
    pub fn open(part: Part) -> io::Result<Self> {
        Self::bound(part, SocketFlags::CLOEXEC, 0)
    }

    /// Opens a socket that hears the events of these groups, a bit for each. It does not block.
    ///
    /// # Errors
    /// As [`Socket::open`].
    pub fn hearing(part: Part, groups: u32) -> io::Result<Self> {
        Self::bound(part, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, groups)
    }

    fn bound(part: Part, flags: SocketFlags, groups: u32) -> io::Result<Self> {
        let protocol: Option<Protocol> = match part {
            Part::Route => None,
            Part::Netfilter => Some(NETFILTER),
        };
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_MAX))?;
        // Without the right to it the usual sizes hold, which are enough for small networks.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &SEND_BYTES);
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVED_BYTES);
        Ok(Self { socket, buffer: Vec::new(), number: 0 })
    }

    /// Frees the memory for messages until the next one: for sockets of which there are many, seldom used.
    pub fn rest(&mut self) {
        self.buffer = Vec::new();
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sendto(&self.socket, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    /// The next messages.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` when a socket for events has none; `TimedOut` when one for requests gets no answer.
    pub fn hear(&mut self) -> io::Result<impl Iterator<Item = Heard<'_>>> {
        self.buffer.resize(RECEIVE_BYTES, 0);
        let len = loop {
            match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => break len,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        };
        Ok(messages(self.buffer.get(..len).unwrap_or_default()))
    }

    /// Sends requests, each of which the kernel does or refuses by itself. Returns the outcome of each.
    ///
    /// # Errors
    /// The socket's.
    pub fn request(&mut self, requests: &[Message]) -> io::Result<Vec<io::Result<()>>> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for some in requests.chunks(REQUESTS_AT_ONCE) {
            let mut bytes = Vec::new();
            let first = self.number.wrapping_add(1);
            for message in some {
                self.number = self.number.wrapping_add(1);
                message.write(self.number, ACK, &mut bytes);
            }
            self.send(&bytes)?;
            let mut found: Vec<Option<io::Result<()>>> = some.iter().map(|_| None).collect();
            while found.iter().any(Option::is_none) {
                for heard in self.hear()? {
                    let place = heard.number.wrapping_sub(first) as usize;
                    if let (Some(place), Some(outcome)) = (found.get_mut(place), heard.outcome()) {
                        *place = Some(outcome);
                    }
                }
            }
            outcomes.extend(found.into_iter().flatten());
        }
        Ok(outcomes)
    }

    /// Sends one request.
    ///
    /// # Errors
    /// The socket's, or the kernel's refusal.
    pub fn request_one(&mut self, request: Message) -> io::Result<()> {
        self.request(&[request])?.into_iter().next().unwrap_or(Ok(()))
    }

    /// Sends messages in one piece, which the kernel does or refuses as a whole. One of them has to ask for an answer.
    ///
    /// # Errors
    /// The socket's, or the kernel's first refusal.
    pub fn whole(&mut self, messages: &[Message]) -> io::Result<()> {
        let mut bytes = Vec::new();
        let first = self.number.wrapping_add(1);
        for message in messages {
            self.number = self.number.wrapping_add(1);
            message.write(self.number, 0, &mut bytes);
        }
        let last_asking = messages.iter().rposition(|message| message.flags & ACK != 0);
        self.send(&bytes)?;
        loop {
            for heard in self.hear()? {
                let place = heard.number.wrapping_sub(first) as usize;
                match heard.outcome() {
                    // An answer to an earlier piece that was refused more than once.
                    _ if place >= messages.len() => {}
                    Some(Ok(())) if Some(place) == last_asking => return Ok(()),
                    Some(outcome) => outcome?,
                    None => {}
                }
            }
        }
    }

    /// Asks for a list. Returns the body of each entry.
    ///
    /// # Errors
    /// The socket's or the kernel's.
    pub fn list(&mut self, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        let mut entries = Vec::new();
        for _ in 0..LIST_TRIES {
            entries.clear();
            if self.list_once(message, &mut entries)? {
                break;
            }
        }
        Ok(entries)
    }

    /// Returns whether the list stayed the same while it was read.
    fn list_once(&mut self, message: &Message, entries: &mut Vec<Vec<u8>>) -> io::Result<bool> {
        let mut bytes = Vec::new();
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        message.write(number, DUMP, &mut bytes);
        self.send(&bytes)?;
        let mut is_same = true;
        loop {
            for heard in self.hear()? {
                if heard.number != number {
                    continue;
                }
                is_same &= heard.flags & LIST_CHANGED == 0;
                if heard.kind == KIND_DONE {
                    return Ok(is_same);
                }
                match heard.outcome() {
                    Some(outcome) => return outcome.map(|()| is_same),
                    None => entries.push(heard.body.to_vec()),
                }
            }
        }
    }

    /// Asks for one object. Returns its body.
    ///
    /// # Errors
    /// The socket's, or the kernel's refusal.
    pub fn get(&mut self, message: &Message) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        message.write(number, 0, &mut bytes);
        self.send(&bytes)?;
        loop {
            for heard in self.hear()? {
                if heard.number == number {
                    return match heard.outcome() {
                        Some(outcome) => outcome.map(|()| Vec::new()),
                        None => Ok(heard.body.to_vec()),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
