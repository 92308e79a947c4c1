//! Decoders meet bytes that nobody wrote.

use std::io::Cursor;

use openraft::EntryPayload;
use proptest::prelude::*;
use swarm_core::{ENTRY_VERSION, Entry, Object, Op, State, Tx};
use swarm_model::Timestamp;

use super::{admit, key};
use crate::{
    history::Past,
    records::{Head, RowError, decode_row, encode_row},
    seal::{Kind, Seal},
    snapshot::{ReadError, Reader, write},
    types::{Command, LeaderId, LogEntry, LogId, SnapshotMeta},
};

const STORE: [u8; 16] = [3; 16];

fn seal() -> Seal {
    Seal::new(&key(), STORE)
}

fn entry(v: u16) -> LogEntry {
    let command = Command::encode(Entry { v, at: Timestamp(5), txs: admit(9) }).unwrap();
    let log_id = LogId { leader_id: LeaderId { term: 2, node_id: 1 }, index: 17 };
    LogEntry { log_id, payload: EntryPayload::Normal(command) }
}

fn state(nodes: u128) -> State {
    let mut state = State::default();
    for number in 0..nodes {
        let entry = Entry { v: ENTRY_VERSION, at: Timestamp(1), txs: admit(number) };
        swarm_core::apply(&mut state, number as u64 + 1, &entry);
    }
    state
}

fn snapshot(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, &seal(), &Head::new(&SnapshotMeta::default(), &Past::default()), state).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Option<Vec<Object>> {
    let (_, _, mut reader) = Reader::open(Cursor::new(bytes), &seal(), ENTRY_VERSION).ok()?;
    let mut objects = Vec::new();
    while let Some(object) = reader.object().ok()? {
        objects.push(object);
    }
    Some(objects)
}

#[test]
fn a_snapshot_of_several_frames_comes_back() {
    let state = state(5000);
    let bytes = snapshot(&state);
    assert!(bytes.len() > 600_000, "{} bytes are not several frames", bytes.len());
    let objects = read(&bytes).unwrap();
    assert_eq!(objects, state.export().collect::<Vec<_>>());
    let needle = rmp_serde::to_vec_named(&objects[1]).unwrap();
    assert!(!bytes.windows(needle.len()).any(|window| window == needle), "the file is sealed");
}

/// Objects behind the head may be of kinds that this program does not know: they must not be taken for damage.
#[test]
fn a_snapshot_of_a_newer_level_is_refused_by_its_head() {
    let mut state = state(3);
    let raise = vec![Tx::new(vec![Op::RaiseFeatureLevel { level: ENTRY_VERSION }])];
    swarm_core::apply(&mut state, 9, &Entry { v: ENTRY_VERSION, at: Timestamp(1), txs: raise });
    let bytes = snapshot(&state);
    let Ok((_, _, mut reader)) = Reader::open(Cursor::new(&bytes), &seal(), ENTRY_VERSION - 1) else {
        panic!("its head is readable")
    };
    let Err(ReadError::Newer(detail)) = reader.object() else { panic!("it was understood") };
    assert_eq!(detail, "the swarm uses feature level 2, this swarmd knows levels up to 1; upgrade it");
    assert_eq!(read(&bytes).expect("this program knows its level").len(), 4);
}

#[test]
fn an_entry_of_another_version_is_not_understood() {
    assert!(decode_row(17, &encode_row(&entry(ENTRY_VERSION)).unwrap()).is_ok());
    for v in [0, ENTRY_VERSION + 1, u16::MAX] {
        let row = encode_row(&entry(v)).unwrap();
        let Err(RowError::Newer(detail)) = decode_row(17, &row) else { panic!("version {v} was understood") };
        assert!(detail.contains(&format!("version {v}")), "{detail}");
    }
    // Also when the rest of it is beyond us.
    #[derive(serde::Serialize)]
    struct Future {
        v: u16,
        changes: Vec<[f64; 2]>,
    }
    let future = rmp_serde::to_vec_named(&Future { v: ENTRY_VERSION + 1, changes: vec![[0.5; 2]] }).unwrap();
    let mut row = encode_row(&entry(ENTRY_VERSION)).unwrap();
    row.truncate(17);
    row.extend(future);
    assert!(matches!(decode_row(17, &row), Err(RowError::Newer(_))));
}

#[test]
fn managers_of_other_versions_are_understood() {
    use crate::{
        Status,
        message::{Answer, Hello, RAFT_PROTOCOL, Request},
    };

    #[derive(serde::Serialize)]
    struct LaterHello {
        protocol: u16,
        to: u64,
        level: u16,
    }
    #[derive(serde::Serialize)]
    enum Later {
        Hello(LaterHello),
        HandOver { to: Option<u64>, reason: &'static str },
    }
    for (later, now) in [
        (
            Later::Hello(LaterHello { protocol: RAFT_PROTOCOL, to: 7, level: 2 }),
            Request::Hello(Hello { protocol: RAFT_PROTOCOL, to: 7, by: None, from: None }),
        ),
        (Later::HandOver { to: Some(3), reason: "maintenance" }, Request::HandOver { to: Some(3) }),
    ] {
        assert_eq!(rmp_serde::from_slice::<Request>(&rmp_serde::to_vec_named(&later).unwrap()).unwrap(), now);
    }

    /// A status before managers told of their disks and clocks.
    #[derive(serde::Serialize)]
    struct EarlierStatus {
        raft_id: u64,
        term: u64,
        leader: Option<u64>,
        last_log_index: Option<u64>,
        applied_index: Option<u64>,
        snapshot_index: Option<u64>,
        purged_index: Option<u64>,
        joint: bool,
        members: Vec<u64>,
    }
    #[derive(serde::Serialize)]
    enum Earlier {
        Status(EarlierStatus),
    }
    let status = EarlierStatus {
        raft_id: 1,
        term: 2,
        leader: Some(1),
        last_log_index: Some(9),
        applied_index: Some(9),
        snapshot_index: None,
        purged_index: None,
        joint: false,
        members: Vec::new(),
    };
    let bytes = rmp_serde::to_vec_named(&Earlier::Status(status)).unwrap();
    let Answer::Status(status) = rmp_serde::from_slice(&bytes).unwrap() else { panic!("no status") };
    assert!(matches!(*status, Status { applied_index: Some(9), feature_level: 1, local: None, .. }));
}

proptest! {
    #[test]
    fn random_rows_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), index: u64) {
        prop_assert!(seal().open(Kind::Row, index, &bytes).is_err());
        // Even with the seal broken.
        let _ = decode_row(index, &bytes);
    }

    #[test]
    fn damaged_rows_do_no_harm(at in 0..100_usize, flip in 1..=255_u8) {
        let mut row = encode_row(&entry(ENTRY_VERSION)).unwrap();
        let at = at % row.len();
        row[at] ^= flip;
        let _ = decode_row(17, &row);
    }

    #[test]
    fn a_sealed_value_opens_only_where_it_was_sealed(
        plain in proptest::collection::vec(any::<u8>(), 0..100), index: u64, other: u64, at: usize, flip in 1..=255_u8,
    ) {
        let sealed = seal().seal(Kind::Row, index, &plain).unwrap();
        prop_assert_eq!(seal().open(Kind::Row, index, &sealed).unwrap(), plain);
        prop_assert_eq!(seal().open(Kind::Row, other, &sealed).is_ok(), other == index);
        prop_assert!(seal().open(Kind::Vote, index, &sealed).is_err());
        prop_assert!(Seal::new(&key(), [4; 16]).open(Kind::Row, index, &sealed).is_err());
        prop_assert!(seal().scoped([1; 16]).open(Kind::Row, index, &sealed).is_err());
        let mut damaged = sealed.clone();
        let at = at % damaged.len();
        damaged[at] ^= flip;
        prop_assert!(seal().open(Kind::Row, index, &damaged).is_err());
        prop_assert!(seal().open(Kind::Row, index, &sealed[..at]).is_err());
    }

    #[test]
    fn random_snapshots_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), magic: bool) {
        let bytes = if magic { [b"swrsnap1".as_slice(), &bytes].concat() } else { bytes };
        prop_assert!(read(&bytes).is_none());
    }

    #[test]
    fn damaged_snapshots_are_refused(at: usize, flip in 1..=255_u8, cut: bool) {
        let mut bytes = snapshot(&state(3));
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= flip;
        }
        prop_assert!(read(&bytes).is_none());
    }
}

/// What is put together from parts is what the whole would be: however many transactions there are, and whatever version.
#[test]
fn an_entry_of_encoded_transactions_is_encoded_as_one() {
    for count in [0, 1, 2, 15, 16, 17, 255, 256, 1024] {
        let txs: Vec<Tx> = (0..count).flat_map(admit).collect();
        let entry = Entry { v: ENTRY_VERSION, at: Timestamp(5 << 40), txs };
        let whole = rmp_serde::to_vec_named(&entry).unwrap();
        let command = Command::encode(entry.clone()).unwrap();
        assert_eq!(command.bytes(), whole, "{count} transactions");
        assert_eq!(Command::decode(command.bytes()).unwrap().entry(), &entry);
    }
}
