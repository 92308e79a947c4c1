//! Messages of DNS: queries of containers, answers to them, and answers of other resolvers.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use hickory_proto::{
    ProtoError,
    op::{self, Edns, Header, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::PTR},
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder, DecodeError},
};
use thiserror::Error;

use crate::table::{Kind, Question};

/// Largest query, in bytes: a name, a type and a few options.
pub(crate) const QUERY_BYTES_MAX: usize = 4096;
/// Bytes of a UDP answer that each client takes.
const UDP_BYTES_MIN: u16 = 512;
/// Largest UDP answer, in bytes, whatever the client offers to take.
const UDP_BYTES_MAX: u16 = 4096;
/// Largest UDP answer that is asked of another resolver, in bytes: it fits a packet on any path.
const FORWARDED_BYTES_MAX: u16 = 1232;
/// Bytes of a header.
const HEADER_BYTES: usize = 12;
/// In place of a name: the name lies where the question begins.
const QUESTION_POINTER: u16 = 0xC000 | HEADER_BYTES as u16;
/// Bytes of a record without its data, its name being a pointer to the question.
const RECORD_BYTES: usize = 12;
/// Bytes of the record of EDNS, without options.
const EDNS_BYTES: usize = 11;

/// The way that a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A message that came from a container.
#[derive(Debug)]
pub(crate) enum Received {
    Query(Box<Query>),
    /// The message is an unusual one: this is the answer.
    Answered(Vec<u8>),
    /// There is nobody to answer.
    Nothing,
}

/// A query.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    metadata: Metadata,
    question: op::Query,
    /// The name in lower case, without the dot at its end; empty for a name that no network can have.
    name: String,
    kind: Kind,
    edns: Option<ClientEdns>,
    transport: Transport,
}

/// The part of a client's EDNS that counts here.
#[derive(Clone, Copy, Debug)]
struct ClientEdns {
    payload_bytes: u16,
    dnssec_ok: bool,
}

/// Reads a message of a container.
pub(crate) fn read(bytes: &[u8], transport: Transport) -> Received {
    let mut decoder = BinDecoder::new(bytes);
    let Ok(header) = Header::read(&mut decoder) else { return Received::Nothing };
    // An answer to an answer could go back and forth for ever.
    if header.message_type == MessageType::Response {
        return Received::Nothing;
    }
    let refused = |code| Received::Answered(error(&header.metadata, code));
    if header.op_code != OpCode::Query {
        return refused(ResponseCode::NotImp);
    }
    let counts = header.counts;
    if bytes.len() > QUERY_BYTES_MAX || counts.queries != 1 || counts.answers != 0 || counts.authorities != 0 {
        return refused(ResponseCode::FormErr);
    }
    let rest = op::Query::read(&mut decoder).and_then(|question| {
        let additionals = usize::from(counts.additionals);
        Ok((question, Message::read_records(&mut decoder, additionals, true, header.op_code)?.1))
    });
    let Ok((question, edns)) = rest else { return refused(ResponseCode::FormErr) };
    let query = Query {
        metadata: header.metadata,
        name: text(&question.name),
        kind: kind(&question),
        edns: edns
            .as_ref()
            .map(|edns| ClientEdns { payload_bytes: edns.max_payload(), dnssec_ok: edns.flags().dnssec_ok }),
        question,
        transport,
    };
    if edns.is_some_and(|edns| edns.version() > 0) {
        return Received::Answered(query.error(ResponseCode::BADVERS));
    }
    let is_transfer = matches!(query.question.query_type, RecordType::AXFR | RecordType::IXFR);
    if query.question.query_class != DNSClass::IN || is_transfer {
        return Received::Answered(query.error(ResponseCode::Refused));
    }
    Received::Query(Box::new(query))
}

/// The answer to a message of which nothing but the header is known.
fn error(metadata: &Metadata, code: ResponseCode) -> Vec<u8> {
    let mut header =
        Header { metadata: Metadata::response_from_request(metadata), counts: op::HeaderCounts::default() };
    header.metadata.response_code = code;
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    let encoded = header.emit(&mut BinEncoder::new(&mut bytes));
    debug_assert!(encoded.is_ok(), "a header always fits");
    bytes
}

/// The text of a name; empty for a name that holds other characters than those of names of networks.
fn text(name: &Name) -> String {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
            return String::new();
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    text
}

fn kind(question: &op::Query) -> Kind {
    match question.query_type {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::ANY => Kind::Any,
        // A name of part of an address is a zone.
        RecordType::PTR => match question.name.parse_arpa_name() {
            Ok(range) if range.prefix_len() == range.max_prefix_len() => Kind::Ptr(range.addr()),
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

impl Query {
    /// The question, as the table knows it.
    pub(crate) fn question(&self) -> Question<'_> {
        Question { name: &self.name, kind: self.kind }
    }

    /// An answer with addresses: as many as the client takes. With others left out, a client on UDP is told to ask
    /// again on TCP.
    pub(crate) fn addrs(&self, addrs: &[IpAddr], ttl_s: u32) -> Vec<u8> {
        let mut message = self.response(ResponseCode::NoError);
        message.metadata.authoritative = true;
        let mut room = self.room();
        let mut records = Vec::new();
        for addr in addrs {
            let record = AddrRecord { addr: *addr, ttl_s };
            let Some(left) = room.checked_sub(record.bytes()) else {
                message.metadata.truncation = self.transport == Transport::Udp;
                break;
            };
            room = left;
            records.push(record);
        }
        self.encode(&message, &records)
    }

    /// An answer with the name of an address.
    pub(crate) fn name(&self, name: &str, ttl_s: u32) -> Vec<u8> {
        // Names that the records hold are checked by nobody: one that DNS cannot carry is not told.
        let Some(mut name) = Name::from_ascii(name).ok() else { return self.error(ResponseCode::NXDomain) };
        name.set_fqdn(true);
        let mut message = self.response(ResponseCode::NoError);
        message.metadata.authoritative = true;
        let record = Record::from_rdata(self.question.name.clone(), ttl_s, RData::PTR(PTR(name)));
        self.encode(&message, &[record])
    }

    /// An answer that there is no such name.
    pub(crate) fn missing(&self) -> Vec<u8> {
        let mut message = self.response(ResponseCode::NXDomain);
        message.metadata.authoritative = true;
        self.encode::<Record>(&message, &[])
    }

    /// An answer without records.
    pub(crate) fn error(&self, code: ResponseCode) -> Vec<u8> {
        self.encode::<Record>(&self.response(code), &[])
    }

    /// The same question for another resolver, under another id. Options of the client's EDNS stay here.
    pub(crate) fn forwarded(&self, id: u16) -> Result<Vec<u8>, ProtoError> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.metadata.recursion_desired;
        message.metadata.checking_disabled = self.metadata.checking_disabled;
        message.metadata.authentic_data = self.metadata.authentic_data;
        message.add_query(self.question.clone());
        if let Some(client) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(client.payload_bytes.clamp(UDP_BYTES_MIN, FORWARDED_BYTES_MAX));
            edns.set_dnssec_ok(client.dnssec_ok);
            message.set_edns(edns);
        }
        message.to_vec()
    }

    /// Another resolver's answer to this query, for the client.
    pub(crate) fn pass_on(&self, reply: Reply) -> Vec<u8> {
        let mut bytes = reply.bytes;
        if reply.is_truncated || bytes.len() > usize::from(self.bytes_max()) {
            let mut message = self.response(reply.code);
            message.metadata.truncation = true;
            return self.encode::<Record>(&message, &[]);
        }
        if let Some(id) = bytes.first_chunk_mut() {
            *id = self.metadata.id.to_be_bytes();
        }
        bytes
    }

    fn response(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.question.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES_MAX);
            message.set_edns(edns);
        }
        message
    }

    /// Largest answer to this query, in bytes.
    fn bytes_max(&self) -> u16 {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, Some(edns)) => edns.payload_bytes.clamp(UDP_BYTES_MIN, UDP_BYTES_MAX),
            (Transport::Udp, None) => UDP_BYTES_MIN,
        }
    }

    /// Bytes of the largest answer that are left for records.
    fn room(&self) -> usize {
        // The length counts a byte before each label; a zero, the type and the class follow.
        let question_bytes = self.question.name.len() + 1 + 4;
        let edns_bytes = if self.edns.is_some() { EDNS_BYTES } else { 0 };
        usize::from(self.bytes_max()).saturating_sub(HEADER_BYTES + question_bytes + edns_bytes)
    }

    fn encode<R: BinEncodable>(&self, message: &Message, records: &[R]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(self.bytes_max());
        let mut nothing = std::iter::empty::<&Record>();
        let encoded = op::emit_message_parts(
            &message.metadata,
            &mut message.queries.iter(),
            &mut records.iter(),
            &mut nothing.clone(),
            &mut nothing,
            message.edns.as_ref(),
            None,
            &mut encoder,
        );
        match encoded {
            Ok(_) => bytes,
            Err(e) => {
                tracing::debug!("cannot write the answer to {}: {e}", self.question);
                error(&self.metadata, ResponseCode::ServFail)
            }
        }
    }
}

/// An address of the name in the question. The library's record would carry the whole name from the 121st on.
struct AddrRecord {
    addr: IpAddr,
    ttl_s: u32,
}

impl AddrRecord {
    fn bytes(&self) -> usize {
        RECORD_BYTES + if self.addr.is_ipv4() { 4 } else { 16 }
    }
}

impl BinEncodable for AddrRecord {
    fn emit(&self, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        encoder.emit_u16(QUESTION_POINTER)?;
        let record_type = if self.addr.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        record_type.emit(encoder)?;
        DNSClass::IN.emit(encoder)?;
        encoder.emit_u32(self.ttl_s)?;
        match self.addr {
            IpAddr::V4(addr) => {
                encoder.emit_u16(4)?;
                encoder.emit_vec(&addr.octets())
            }
            IpAddr::V6(addr) => {
                encoder.emit_u16(16)?;
                encoder.emit_vec(&addr.octets())
            }
        }
    }
}

/// Another resolver's answer.
#[derive(Debug)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    /// Whether more is to be had on TCP.
    pub(crate) is_truncated: bool,
    pub(crate) code: ResponseCode,
}

/// A message that is no answer to the query.
#[derive(Debug, Error)]
pub(crate) enum BadReply {
    #[error("the message is not one of DNS: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the message has the id of another query")]
    OtherId,
    #[error("the message has another question")]
    OtherQuestion,
}

impl Reply {
    /// Checks a message that came for a query which was forwarded under an id. The records' data is left to the client;
    /// all else is read once, so that each name and length lies within the message.
    pub(crate) fn read(mut bytes: Vec<u8>, query: &Query, id: u16) -> Result<Self, BadReply> {
        let mut decoder = BinDecoder::new(&bytes);
        let header = Header::read(&mut decoder)?;
        if header.id != id || header.message_type != MessageType::Response || header.op_code != OpCode::Query {
            return Err(BadReply::OtherId);
        }
        if header.counts.queries != 1 || op::Query::read(&mut decoder)? != query.question {
            return Err(BadReply::OtherQuestion);
        }
        if !header.truncation {
            let counts = [header.counts.answers, header.counts.authorities, header.counts.additionals];
            for _ in 0..counts.into_iter().map(usize::from).sum() {
                skip_record(&mut decoder)?;
            }
        }
        let end = decoder.index();
        if !header.truncation {
            bytes.truncate(end);
        }
        Ok(Self { bytes, is_truncated: header.truncation, code: header.response_code })
    }
}

fn skip_record(decoder: &mut BinDecoder<'_>) -> Result<(), DecodeError> {
    Name::read(decoder)?;
    // Type, class, time to live.
    decoder.read_slice(8)?;
    let data_bytes = decoder.read_u16()?.unverified(/* the next call checks it */);
    decoder.read_slice(usize::from(data_bytes))?;
    Ok(())
}

/// A message as it goes over TCP: with its length in front. Returns nothing for a message that is too long.
pub(crate) fn framed(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(bytes.len()).ok()?;
    Some([length.to_be_bytes().as_slice(), bytes].concat())
}
