use hickory_proto::rr::rdata::TXT;
use proptest::{collection::vec, prelude::*};

use super::*;

fn question(name: &str, record_type: RecordType) -> op::Query {
    op::Query::query(Name::from_ascii(name).unwrap(), record_type)
}

fn message(name: &str, record_type: RecordType, payload_bytes: Option<u16>) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(question(name, record_type));
    if let Some(payload_bytes) = payload_bytes {
        let mut edns = Edns::new();
        edns.set_max_payload(payload_bytes);
        message.set_edns(edns);
    }
    message
}

fn query(message: &Message, transport: Transport) -> Query {
    match read(&message.to_vec().unwrap(), transport) {
        Received::Query(query) => *query,
        other => panic!("{other:?}"),
    }
}

/// The code of the answer to a message that is no query for the table.
fn code(bytes: &[u8]) -> Option<ResponseCode> {
    match read(bytes, Transport::Udp) {
        Received::Answered(answer) => {
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!((answer.id, answer.message_type), (77, MessageType::Response));
            Some(answer.response_code)
        }
        Received::Nothing => None,
        Received::Query(query) => panic!("{query:?}"),
    }
}

fn addrs(count: u16) -> Vec<IpAddr> {
    (0..count).map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8])).collect()
}

#[test]
fn a_question_is_known_by_type_and_lower_case() {
    let read = |name: &str, record_type| query(&message(name, record_type, None), Transport::Udp);
    assert_eq!(read("Web.Front.", RecordType::A).question(), Question { name: "web.front", kind: Kind::A });
    assert_eq!(read("web.", RecordType::AAAA).question().kind, Kind::Aaaa);
    assert_eq!(read("web.", RecordType::ANY).question().kind, Kind::Any);
    assert_eq!(read("web.", RecordType::Unknown(4711)).question().kind, Kind::Other);
    let ptr = |name: &str| read(name, RecordType::PTR).question().kind;
    assert_eq!(ptr("5.0.1.10.in-addr.ARPA."), Kind::Ptr("10.1.0.5".parse().unwrap()));
    assert_eq!(ptr(&format!("1.{}d.f.ip6.arpa.", "0.".repeat(29))), Kind::Ptr("fd00::1".parse().unwrap()));
    assert_eq!(ptr("1.10.in-addr.arpa."), Kind::Other);
    assert_eq!(ptr("web."), Kind::Other);
    // A dot within a label is no dot between labels.
    let dotted = Name::from_labels([&b"web.front"[..]]).unwrap();
    let mut message = message("x.", RecordType::A, None);
    message.queries[0].name = dotted;
    assert_eq!(query(&message, Transport::Udp).question().name, "");
}

#[test]
fn unusual_messages_get_an_error_or_nothing() {
    let plain = message("web.", RecordType::A, None);
    assert_eq!(code(&plain.clone().into_response().to_vec().unwrap()), None);
    assert_eq!(code(&plain.to_vec().unwrap()[..11]), None);
    assert_eq!(code(&plain.to_vec().unwrap()[..14]), Some(ResponseCode::FormErr));

    let mut several = plain.clone();
    several.add_query(question("db.", RecordType::A));
    assert_eq!(code(&several.to_vec().unwrap()), Some(ResponseCode::FormErr));

    let mut none = plain.clone();
    none.queries.clear();
    assert_eq!(code(&none.to_vec().unwrap()), Some(ResponseCode::FormErr));

    let mut update = plain.clone();
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update.to_vec().unwrap()), Some(ResponseCode::NotImp));

    let mut chaos = plain;
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(code(&chaos.to_vec().unwrap()), Some(ResponseCode::Refused));

    assert_eq!(code(&message("web.", RecordType::AXFR, None).to_vec().unwrap()), Some(ResponseCode::Refused));

    let mut newer = message("web.", RecordType::A, Some(1232));
    newer.edns.as_mut().unwrap().set_version(1);
    assert_eq!(code(&newer.to_vec().unwrap()).map(u16::from), Some(u16::from(ResponseCode::BADVERS)));

    let long = [message("web.", RecordType::A, None).to_vec().unwrap(), vec![0; QUERY_BYTES_MAX]].concat();
    assert_eq!(code(&long), Some(ResponseCode::FormErr));
}

#[test]
fn an_answer_keeps_the_question_and_tells_addresses() {
    let query = query(&message("WeB.", RecordType::ANY, None), Transport::Udp);
    let addrs: Vec<IpAddr> = vec!["10.1.0.5".parse().unwrap(), "fd00::1".parse().unwrap()];
    let answer = Message::from_vec(&query.addrs(&addrs, 5)).unwrap();
    assert_eq!(answer.id, 77);
    assert!(answer.authoritative && answer.recursion_available && answer.recursion_desired && !answer.truncation);
    assert!(answer.queries[0].name.eq_case(&Name::from_ascii("WeB.").unwrap()));
    assert!(answer.answers.iter().all(|record| record.ttl == 5 && record.name == answer.queries[0].name));
    let told: Vec<_> = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    assert_eq!(told, addrs);
    assert!(answer.edns.is_none());

    assert_eq!(Message::from_vec(&query.missing()).unwrap().response_code, ResponseCode::NXDomain);
    let refused = Message::from_vec(&query.error(ResponseCode::ServFail)).unwrap();
    assert_eq!(refused.response_code, ResponseCode::ServFail);
}

#[test]
fn an_address_has_a_name() {
    let query = query(&message("5.0.1.10.in-addr.arpa.", RecordType::PTR, None), Transport::Udp);
    let answer = Message::from_vec(&query.name("web.1.x.front", 0)).unwrap();
    assert_eq!(answer.answers[0].data, RData::PTR(PTR(Name::from_ascii("web.1.x.front.").unwrap())));
    let too_long = Message::from_vec(&query.name(&"x".repeat(64), 0)).unwrap();
    assert_eq!(too_long.response_code, ResponseCode::NXDomain);
}

#[test]
fn the_answer_to_many_tasks_is_cut_on_udp_and_whole_on_tcp() {
    let asked = message("tasks.web.", RecordType::A, None);
    let cut = Message::from_vec(&query(&asked, Transport::Udp).addrs(&addrs(200), 0)).unwrap();
    assert!(cut.truncation && !cut.answers.is_empty());
    let whole = Message::from_vec(&query(&asked, Transport::Tcp).addrs(&addrs(200), 0)).unwrap();
    assert!(!whole.truncation);
    assert_eq!(whole.answers.len(), 200);
    // More than any message holds.
    let most = Message::from_vec(&query(&asked, Transport::Tcp).addrs(&addrs(10_000), 0)).unwrap();
    assert!(!most.truncation && most.answers.len() > 4000);
}

#[test]
fn the_client_says_how_much_it_takes_on_udp() {
    for (payload_bytes, most) in [(None, 512), (Some(0), 512), (Some(600), 600), (Some(u16::MAX), 4096)] {
        let query = query(&message("tasks.web.", RecordType::A, payload_bytes), Transport::Udp);
        let length = query.addrs(&addrs(1000), 0).len();
        assert!((most - 15..=most).contains(&length), "{payload_bytes:?}: {length}");
    }
}

#[test]
fn a_forwarded_query_carries_the_question_and_no_options() {
    let mut asked = message("Example.com.", RecordType::MX, Some(4096));
    asked.edns.as_mut().unwrap().set_dnssec_ok(true);
    let forwarded = query(&asked, Transport::Udp).forwarded(5).unwrap();
    let forwarded = Message::from_vec(&forwarded).unwrap();
    assert_eq!((forwarded.id, &forwarded.queries), (5, &asked.queries));
    assert!(forwarded.recursion_desired);
    let edns = forwarded.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (FORWARDED_BYTES_MAX, true));
    let plain = query(&message("example.com.", RecordType::MX, None), Transport::Udp).forwarded(5).unwrap();
    assert!(Message::from_vec(&plain).unwrap().edns.is_none());
}

fn reply(asked: &Message, records: usize) -> Message {
    let mut reply = asked.clone().into_response();
    reply.metadata.id = 5;
    for _ in 0..records {
        let data = RData::TXT(TXT::new(vec!["x".repeat(60)]));
        reply.add_answer(Record::from_rdata(asked.queries[0].name.clone(), 60, data));
    }
    reply
}

#[test]
fn a_reply_counts_with_the_id_and_question_of_the_query() {
    let asked = message("example.com.", RecordType::TXT, None);
    let query = query(&asked, Transport::Udp);
    let right = reply(&asked, 1);
    let read = |message: &Message| Reply::read(message.to_vec().unwrap(), &query, 5);

    let passed = Message::from_vec(&query.pass_on(read(&right).unwrap())).unwrap();
    assert_eq!((passed.id, &passed.answers), (77, &right.answers));

    let mut other = right.clone();
    other.metadata.id = 6;
    assert!(matches!(read(&other), Err(BadReply::OtherId)));
    let mut other = right.clone();
    other.metadata.message_type = MessageType::Query;
    assert!(matches!(read(&other), Err(BadReply::OtherId)));
    let mut other = right.clone();
    other.queries[0] = question("example.org.", RecordType::TXT);
    assert!(matches!(read(&other), Err(BadReply::OtherQuestion)));
    let mut other = right.clone();
    other.queries.clear();
    assert!(matches!(read(&other), Err(BadReply::OtherQuestion)));

    let mut bytes = right.to_vec().unwrap();
    bytes.truncate(bytes.len() - 1);
    assert!(matches!(Reply::read(bytes, &query, 5), Err(BadReply::Malformed(_))));
}

#[test]
fn a_reply_that_the_client_cannot_take_is_cut() {
    let asked = message("example.com.", RecordType::TXT, None);
    let long = reply(&asked, 20).to_vec().unwrap();
    let udp = query(&asked, Transport::Udp);
    let cut = Message::from_vec(&udp.pass_on(Reply::read(long.clone(), &udp, 5).unwrap())).unwrap();
    assert!(cut.truncation && cut.answers.is_empty() && cut.id == 77);
    let tcp = query(&asked, Transport::Tcp);
    let whole = Message::from_vec(&tcp.pass_on(Reply::read(long, &tcp, 5).unwrap())).unwrap();
    assert_eq!(whole.answers.len(), 20);

    let mut truncated = reply(&asked, 1);
    truncated.metadata.truncation = true;
    let truncated = Reply::read(truncated.to_vec().unwrap(), &udp, 5).unwrap();
    assert!(truncated.is_truncated);
    assert!(Message::from_vec(&udp.pass_on(truncated)).unwrap().truncation);
}

fn some_transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)]
}

/// Messages that are nearly right: some bytes of a good one are others, or missing.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(move |(changes, end, is_cut)| {
        let mut bytes = good.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

fn foreign_query() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..600),
        damaged(message("tasks.web.front.", RecordType::A, Some(1232)).to_vec().unwrap()),
        damaged(message("5.0.1.10.in-addr.arpa.", RecordType::PTR, None).to_vec().unwrap()),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_a_query_or_none(bytes in foreign_query(), transport in some_transport()) {
        match read(&bytes, transport) {
            Received::Query(query) => {
                let answers = [
                    query.addrs(&addrs(100), 0),
                    query.name("web.1.x.front", 5),
                    query.missing(),
                    query.error(ResponseCode::ServFail),
                ];
                for answer in answers {
                    prop_assert!(answer.len() <= usize::from(query.bytes_max()));
                    let answer = Message::from_vec(&answer).unwrap();
                    prop_assert_eq!(&answer.id.to_be_bytes()[..], &bytes[..2]);
                    prop_assert_eq!(&answer.queries[0], &query.question);
                }
                let forwarded = Message::from_vec(&query.forwarded(9).unwrap()).unwrap();
                prop_assert_eq!(&forwarded.queries[0], &query.question);
            }
            Received::Answered(answer) => {
                let answer = Message::from_vec(&answer).unwrap();
                prop_assert_eq!(&answer.id.to_be_bytes()[..], &bytes[..2]);
                prop_assert_ne!(answer.response_code, ResponseCode::NoError);
            }
            Received::Nothing => prop_assert!(bytes.len() < HEADER_BYTES || bytes[2] & 0x80 != 0),
        }
    }

    #[test]
    fn an_answer_has_as_many_addresses_as_the_client_takes(
        count in 0..400_u16,
        label_bytes in 1..63_usize,
        payload_bytes in prop::option::of(any::<u16>()),
        transport in some_transport(),
    ) {
        let name = format!("tasks.{0}.{0}.", "x".repeat(label_bytes));
        let query = query(&message(&name, RecordType::A, payload_bytes), transport);
        let bytes = query.addrs(&addrs(count), 0);
        let answer = Message::from_vec(&bytes).unwrap();
        prop_assert!(bytes.len() <= usize::from(query.bytes_max()));
        prop_assert_eq!(answer.edns.is_some(), payload_bytes.is_some());
        prop_assert_eq!(answer.truncation, answer.answers.len() < usize::from(count));
        // Another address would not fit.
        prop_assert!(!answer.truncation || bytes.len() + 16 > usize::from(query.bytes_max()));
    }

    #[test]
    fn any_bytes_are_a_reply_or_none(
        bytes in prop_oneof![
            vec(any::<u8>(), 0..600),
            damaged(reply(&message("example.com.", RecordType::TXT, None), 3).to_vec().unwrap()),
        ],
        transport in some_transport(),
    ) {
        let query = query(&message("example.com.", RecordType::TXT, None), transport);
        if let Ok(reply) = Reply::read(bytes.clone(), &query, 5) {
            let passed = query.pass_on(reply);
            prop_assert!(passed.len() <= bytes.len().max(HEADER_BYTES + 17));
            prop_assert!(passed.len() <= usize::from(query.bytes_max()));
            prop_assert_eq!(&passed[..2], &77_u16.to_be_bytes()[..]);
        }
    }
}
