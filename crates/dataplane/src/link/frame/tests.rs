//! Tests of the frames: what one side writes the other one reads, and no bytes make the decoder panic.

use proptest::{collection::vec, prelude::*};
use swarm_model::{PortProtocol, TaskId};
use swarm_wire::endpoints::PublishedPort;

use super::*;

fn request() -> OpenRequest {
    OpenRequest {
        task: TaskId(7),
        port: PublishedPort { protocol: PortProtocol::Tcp, published: 9000, target: 80 },
        client: ([192, 0, 2, 1], 40_000).into(),
        asked: ([10, 0, 0, 1], 9000).into(),
    }
}

/// Events without borrowed bytes, adjacent data of one stream as one.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Data(u32, Vec<u8>),
    Ethernet(u32, Vec<u8>),
    Other(Event<'static>),
}

fn keep(event: Event<'_>, seen: &mut Vec<Seen>) {
    let other = match event {
        Event::Data { stream, bytes, .. } => {
            match seen.last_mut() {
                Some(Seen::Data(same, all)) if *same == stream => all.extend_from_slice(bytes),
                _ => seen.push(Seen::Data(stream, bytes.to_vec())),
            }
            return;
        }
        Event::Ethernet { network, bytes, .. } => {
            match seen.last_mut() {
                Some(Seen::Ethernet(same, all)) if *same == network => all.extend_from_slice(bytes),
                _ => seen.push(Seen::Ethernet(network, bytes.to_vec())),
            }
            return;
        }
        Event::Ping => Event::Ping,
        Event::Pong => Event::Pong,
        Event::Open { stream, request } => Event::Open { stream, request },
        Event::Accept { stream } => Event::Accept { stream },
        Event::Refuse { stream, reason } => Event::Refuse { stream, reason },
        Event::Fin { stream } => Event::Fin { stream },
        Event::Reset { stream } => Event::Reset { stream },
        Event::Credit { stream, amount } => Event::Credit { stream, amount },
        Event::Leave => Event::Leave,
        Event::Close { reason } => Event::Close { reason },
    };
    seen.push(Seen::Other(other));
}

/// Reads bytes in pieces of these lengths, in turn.
fn read(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Seen>, FrameError> {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    let mut rest = bytes;
    for piece in pieces.iter().cycle() {
        let (mut now, later) = rest.split_at((*piece).clamp(1, rest.len().max(1)).min(rest.len()));
        rest = later;
        while let Some(event) = decoder.next(&mut now)? {
            keep(event, &mut seen);
        }
        assert!(now.is_empty(), "the decoder takes all that it gets");
        if rest.is_empty() {
            break;
        }
    }
    Ok(seen)
}

fn written(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::parts).flatten().copied().collect()
}

fn any_frame() -> impl Strategy<Value = (Frame, Seen)> {
    let stream = 1..u32::MAX;
    prop_oneof![
        Just((Frame::ping(), Seen::Other(Event::Ping))),
        Just((Frame::pong(), Seen::Other(Event::Pong))),
        Just((Frame::leave(), Seen::Other(Event::Leave))),
        stream.clone().prop_map(|stream| {
            let frame = Frame::open(stream, encode_request(&request()).unwrap());
            (frame, Seen::Other(Event::Open { stream, request: request() }))
        }),
        stream.clone().prop_map(|stream| (Frame::accept(stream), Seen::Other(Event::Accept { stream }))),
        (stream.clone(), "\\PC{0,40}").prop_map(|(stream, reason)| {
            (Frame::refuse(stream, &reason), Seen::Other(Event::Refuse { stream, reason }))
        }),
        (stream.clone(), vec(any::<u8>(), 1..2000))
            .prop_map(|(stream, bytes)| (Frame::data(stream, bytes.clone().into()), Seen::Data(stream, bytes))),
        stream.clone().prop_map(|stream| (Frame::fin(stream), Seen::Other(Event::Fin { stream }))),
        stream.clone().prop_map(|stream| (Frame::reset(stream), Seen::Other(Event::Reset { stream }))),
        (0_u32..4, vec(any::<u8>(), 1..2000)).prop_map(|(network, bytes)| {
            (Frame::ethernet(network, bytes.clone().into()), Seen::Ethernet(network, bytes))
        }),
        (stream, any::<u32>()).prop_map(|(stream, amount)| {
            (Frame::credit(stream, amount), Seen::Other(Event::Credit { stream, amount }))
        }),
        "\\PC{0,40}".prop_map(|reason| (Frame::close(&reason), Seen::Other(Event::Close { reason }))),
    ]
}

proptest! {
    #[test]
    fn frames_in_pieces_of_any_size_are_read_as_they_were_written(
        frames in vec(any_frame(), 0..20),
        pieces in vec(1_usize..600, 1..8),
    ) {
        let (frames, mut expected): (Vec<_>, Vec<_>) = frames.into_iter().unzip();
        let seen = read(&written(&frames), &pieces).unwrap();
        // Two data frames of one stream in a row are seen as one, and so are two frames of one network.
        let mut merged: Vec<Seen> = Vec::new();
        for one in expected.drain(..) {
            match (merged.last_mut(), one) {
                (Some(Seen::Data(a, all)), Seen::Data(b, more)) if *a == b => all.extend(more),
                (Some(Seen::Ethernet(a, all)), Seen::Ethernet(b, more)) if *a == b => all.extend(more),
                (_, one) => merged.push(one),
            }
        }
        prop_assert_eq!(seen, merged);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..400), pieces in vec(1_usize..40, 1..5)) {
        let _ = read(&bytes, &pieces);
    }

    #[test]
    fn any_content_behind_a_good_header_is_read_or_refused(
        kind in prop_oneof![0_u8..16, OPTIONAL_KINDS..OPTIONAL_KINDS + 4],
        stream in 0_u32..4,
        bytes in vec(any::<u8>(), 0..1100),
        pieces in vec(1_usize..600, 1..5),
    ) {
        let mut all = vec![kind, 0];
        all.extend((bytes.len() as u16).to_be_bytes());
        all.extend(stream.to_be_bytes());
        all.extend(&bytes);
        let (whole, in_pieces) = (read(&all, &[all.len()]), read(&all, &pieces));
        prop_assert_eq!(whole, in_pieces, "pieces make no difference");
    }

    #[test]
    fn requests_with_any_bytes_changed_are_read_or_refused(at in 0_usize..200, to: u8) {
        let mut bytes = written(&[Frame::open(1, encode_request(&request()).unwrap())]);
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = read(&bytes, &[bytes.len()]);
    }
}

#[test]
fn a_request_is_read_by_a_version_that_knows_fewer_fields() {
    #[derive(serde::Serialize)]
    struct Later {
        task: TaskId,
        port: PublishedPort,
        client: std::net::SocketAddr,
        asked: std::net::SocketAddr,
        colour: &'static str,
    }
    let OpenRequest { task, port, client, asked } = request();
    let bytes = rmp_serde::to_vec_named(&Later { task, port, client, asked, colour: "blue" }).unwrap();
    let seen = read(&written(&[Frame::open(1, bytes.into())]), &[10]).unwrap();
    assert_eq!(seen, [Seen::Other(Event::Open { stream: 1, request: request() })]);
}

#[test]
fn frames_of_later_kinds_are_skipped_and_unknown_ones_are_refused() {
    let mut bytes = vec![0x85, 0, 0, 3, 0, 0, 0, 9, 1, 2, 3, 0xff, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(written(&[Frame::fin(9)]));
    assert_eq!(read(&bytes, &[1]).unwrap(), [Seen::Other(Event::Fin { stream: 9 })]);
    assert_eq!(read(&[11, 0, 0, 0, 0, 0, 0, 1], &[8]), Err(FrameError::Kind(11)));
}

#[test]
fn lengths_and_streams_must_fit_the_kind() {
    for (bytes, error) in [
        ([DATA, 0, 0, 0, 0, 0, 0, 1], FrameError::Length { kind: DATA, bytes: 0 }),
        ([DATA, 0, 0xff, 0xff, 0, 0, 0, 1], FrameError::Length { kind: DATA, bytes: 0xffff }),
        ([OPEN, 0, 4, 1, 0, 0, 0, 1], FrameError::Length { kind: OPEN, bytes: 1025 }),
        ([CREDIT, 0, 0, 3, 0, 0, 0, 1], FrameError::Length { kind: CREDIT, bytes: 3 }),
        ([FIN, 0, 0, 1, 0, 0, 0, 1], FrameError::Length { kind: FIN, bytes: 1 }),
        ([DATA, 0, 0, 1, 0, 0, 0, 0], FrameError::Stream { kind: DATA, stream: 0 }),
        ([PING, 0, 0, 0, 0, 0, 0, 2], FrameError::Stream { kind: PING, stream: 2 }),
    ] {
        assert_eq!(read(&bytes, &[8]), Err(error));
    }
}

#[test]
fn a_long_reason_is_cut_off_between_characters() {
    let reason = "ä".repeat(400);
    let seen = read(&written(&[Frame::refuse(1, &reason)]), &[64]).unwrap();
    assert_eq!(seen, [Seen::Other(Event::Refuse { stream: 1, reason: "ä".repeat(256) })]);
}
