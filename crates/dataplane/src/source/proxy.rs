//! The PROXY protocol, versions 1 and 2: a header before the first byte of a connection that says who its client is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection of the proxy itself.
const LOCAL: u8 = 0x20;
/// Version 2, a connection of somebody else.
const PROXY: u8 = 0x21;
const TCP_IPV4: u8 = 0x11;
const TCP_IPV6: u8 = 0x21;
/// Signature, version, family and length of version 2.
const FIXED_BYTES: usize = 16;
const START_V1: &[u8] = b"PROXY ";
/// Longest header of version 1, as the protocol has it.
const V1_BYTES_MAX: usize = 107;
/// Longest header that is read. Proxies add some hundred bytes to the addresses.
const HEADER_BYTES_MAX: usize = 4 << 10;
/// How long a proxy may take to send its header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(3);

/// The two ends of a connection, as its client has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The client.
    pub(crate) client: SocketAddr,
    /// The address that it connected to.
    pub(crate) asked: SocketAddr,
}

impl Ends {
    /// Both as addresses of one family: IPv4 where both are, else IPv6.
    fn unified(self) -> Unified {
        match (self.client.ip().to_canonical(), self.asked.ip().to_canonical()) {
            (IpAddr::V4(client), IpAddr::V4(asked)) => Unified::V4(client, asked),
            (client, asked) => Unified::V6(v6(client), v6(asked)),
        }
    }

    /// The header of version 1.
    pub(super) fn to_v1(self) -> Vec<u8> {
        let (client_port, asked_port) = (self.client.port(), self.asked.port());
        let text = match self.unified() {
            Unified::V4(client, asked) => format!("PROXY TCP4 {client} {asked} {client_port} {asked_port}\r\n"),
            Unified::V6(client, asked) => format!("PROXY TCP6 {client} {asked} {client_port} {asked_port}\r\n"),
        };
        text.into_bytes()
    }

    /// The header of version 2.
    pub(super) fn to_v2(self) -> Vec<u8> {
        let (family, addrs) = match self.unified() {
            Unified::V4(client, asked) => (TCP_IPV4, [client.octets(), asked.octets()].concat()),
            Unified::V6(client, asked) => (TCP_IPV6, [client.octets(), asked.octets()].concat()),
        };
        let ports = [self.client.port().to_be_bytes(), self.asked.port().to_be_bytes()].concat();
        let len = (addrs.len() + ports.len()) as u16;
        [&SIGNATURE[..], &[PROXY, family], &len.to_be_bytes(), &addrs, &ports].concat()
    }
}

enum Unified {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn v6(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}

/// Reads the header of a connection, and nothing after it. None when the header names no client: the proxy connects for
/// itself, or the client has no address of IP.
///
/// # Errors
/// The stream's; `InvalidData` for bytes that are no header, or one over the limit; `TimedOut` when it does not come.
pub(crate) async fn accept(stream: &mut TcpStream) -> io::Result<Option<Ends>> {
    let reading = async {
        let mut header = Vec::new();
        let mut seen = vec![0; HEADER_BYTES_MAX];
        loop {
            // All that was seen before belongs to the header, so that only bytes that are new are looked at.
            let n = stream.peek(&mut seen).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let before = header.len();
            header.extend_from_slice(seen.get(..n).unwrap_or_default());
            let len = length(&header)?;
            header.truncate(len.unwrap_or(header.len()));
            // The bytes are there already: this takes them off the stream.
            let known = seen.get_mut(..header.len() - before).unwrap_or_default();
            stream.read_exact(known).await?;
            if len == Some(header.len()) {
                return decode(&header);
            }
        }
    };
    timeout(HEADER_TIMEOUT, reading)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no PROXY header came"))?
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The length of the header that bytes begin with; none while too few are there.
fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let is_start = |of: &[u8]| bytes.iter().zip(of).all(|(byte, expected)| byte == expected);
    if is_start(START_V1) {
        let found = bytes.iter().take(V1_BYTES_MAX).position(|byte| *byte == b'\n').map(|at| at + 1);
        return match found {
            None if bytes.len() >= V1_BYTES_MAX => Err(invalid(format!("a PROXY header over {V1_BYTES_MAX} bytes"))),
            found => Ok(found),
        };
    }
    if !is_start(&SIGNATURE) {
        return Err(invalid("no PROXY header, which the address of this client requires".to_owned()));
    }
    let Some([high, low]) = bytes.get(FIXED_BYTES - 2..FIXED_BYTES) else { return Ok(None) };
    match FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low])) {
        len if len > HEADER_BYTES_MAX => {
            Err(invalid(format!("a PROXY header of {len} bytes is over the limit of {HEADER_BYTES_MAX}")))
        }
        len => Ok((bytes.len() >= len).then_some(len)),
    }
}

/// Reads a header of either version that is complete.
fn decode(header: &[u8]) -> io::Result<Option<Ends>> {
    if header.starts_with(START_V1) {
        let text = std::str::from_utf8(header).ok().and_then(|text| text.strip_suffix("\r\n"));
        return text.and_then(decode_v1).ok_or_else(|| invalid("a PROXY header of version 1 that is wrong".to_owned()));
    }
    let (fixed, rest) = header.split_at_checked(FIXED_BYTES).unwrap_or((header, &[]));
    match (fixed.get(SIGNATURE.len()), fixed.get(SIGNATURE.len() + 1)) {
        (Some(&LOCAL), _) => Ok(None),
        (Some(&PROXY), Some(&TCP_IPV4)) => ends::<4>(rest).map(Some),
        (Some(&PROXY), Some(&TCP_IPV6)) => ends::<16>(rest).map(Some),
        (Some(&PROXY), Some(_)) => Ok(None),
        (version, _) => Err(invalid(format!("a PROXY header of version and command {version:02x?}"))),
    }
}

/// The line of version 1, without its end. The inner value is none for a client that the proxy does not name.
fn decode_v1(line: &str) -> Option<Option<Ends>> {
    let mut words = line.split(' ').skip(1);
    let is_v4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        "UNKNOWN" => return Some(None),
        _ => return None,
    };
    let mut addr = || words.next()?.parse::<IpAddr>().ok().filter(|addr| addr.is_ipv4() == is_v4);
    let (client, asked) = (addr()?, addr()?);
    let mut port = || words.next()?.parse::<u16>().ok();
    let (client, asked) = (SocketAddr::new(client, port()?), SocketAddr::new(asked, port()?));
    words.next().is_none().then_some(Some(Ends { client, asked }))
}

/// The addresses of version 2, each of so many bytes, and the ports.
fn ends<const N: usize>(bytes: &[u8]) -> io::Result<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let mut rest = bytes;
    let mut take = |len: usize| {
        let (taken, left) = rest.split_at_checked(len)?;
        rest = left;
        Some(taken)
    };
    let mut read = || {
        let mut addr = || <[u8; N]>::try_from(take(N)?).ok().map(IpAddr::from);
        let (client, asked) = (addr()?, addr()?);
        let mut port = || <[u8; 2]>::try_from(take(2)?).ok().map(u16::from_be_bytes);
        Some(Ends { client: SocketAddr::new(client, port()?), asked: SocketAddr::new(asked, port()?) })
    };
    read().ok_or_else(|| invalid("a PROXY header that is too short for its addresses".to_owned()))
}

#[cfg(test)]
mod tests;
