//! A walk through SQLite's write-ahead file before SQLite opens it.
//!
//! SQLite takes the first bad frame for the torn end of the last write, and forgets what follows. With `synchronous =
//! FULL` only the last transaction can be torn: each is synced before the next one begins. So a bad frame that a later
//! transaction follows is damage.
//!
//! The file is a header and frames. A frame is a page of the database with a header, and a frame that ends a transaction
//! says so. A frame is good when it has the salt of the file's header, and its checksum follows from the checksum that
//! stands in the frame before it. After a checkpoint SQLite writes from the start again with another salt: what is left
//! of the frames before then has the old one, and counts as nothing.

use std::io::{self, Read};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The magic number; its last bit says whether words are summed up as big-endian ones.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// What the walk finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing stands behind the last transaction.
    Whole,
    /// What stands behind this byte is no whole transaction.
    TornAt(u64),
    /// A transaction is damaged that was synced; the text says where.
    Damaged(String),
}

/// A checksum.
type Sum = (u32, u32);

/// Walks; holds one page at a time.
pub(super) fn walk(mut file: impl Read) -> io::Result<Verdict> {
    let mut header = [0; HEADER_BYTES];
    let length = read_up_to(&mut file, &mut header)?;
    let header = (length == HEADER_BYTES).then(|| Header::parse(&header)).flatten();
    let Some(header) = header else {
        // The header is synced before the first frame is written.
        let longer = length == HEADER_BYTES && read_up_to(&mut file, &mut [0])? > 0;
        return Ok(match length {
            _ if longer => Verdict::Damaged("its header is not what was written".into()),
            0 => Verdict::Whole,
            _ => Verdict::TornAt(0),
        });
    };
    let frame_bytes = FRAME_HEADER_BYTES + header.page_bytes;
    let mut frame = vec![0; frame_bytes];
    let mut walk = Walk { end: HEADER_BYTES as u64, bad: None, ended_behind: false };
    let (mut number, mut before) = (0, header.sum);
    loop {
        let length = read_up_to(&mut file, &mut frame)?;
        if length < frame_bytes {
            let rest = length > 0 || walk.end < HEADER_BYTES as u64 + number * frame_bytes as u64;
            return Ok(if rest { Verdict::TornAt(walk.end) } else { Verdict::Whole });
        }
        number += 1;
        let good = header.is_good(&frame, before);
        before = word_pair(&frame[16..]);
        let ends = good && word(&frame[4..]) != 0;
        match (good, walk.bad) {
            (true, None) if ends => walk.end = HEADER_BYTES as u64 + number * frame_bytes as u64,
            (true, None) => {}
            (true, Some(bad)) if walk.ended_behind => {
                let at = HEADER_BYTES as u64 + (bad - 1) * frame_bytes as u64;
                return Ok(Verdict::Damaged(format!(
                    "frame {bad}, at byte {at}, is not what was written, and later writes follow it"
                )));
            }
            (true, Some(_)) => walk.ended_behind |= ends,
            (false, None) => walk.bad = Some(number),
            (false, Some(_)) => {}
        }
    }
}

/// How far a walk has come.
struct Walk {
    /// Byte after the last transaction before the first bad frame.
    end: u64,
    /// Number of the first bad frame.
    bad: Option<u64>,
    /// A transaction ends behind it.
    ended_behind: bool,
}

struct Header {
    big_endian: bool,
    page_bytes: usize,
    salt: [u8; 8],
    sum: Sum,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let magic = word(bytes);
        let big_endian = magic & 1 == 1;
        let page_bytes = word(&bytes[8..]) as usize;
        let sum = word_pair(&bytes[24..]);
        let known = magic & !1 == MAGIC && word(&bytes[4..]) == VERSION;
        let possible = page_bytes.is_power_of_two() && (512..=65_536).contains(&page_bytes);
        let good = known && possible && add(big_endian, (0, 0), &bytes[..24]) == sum;
        good.then(|| Self { big_endian, page_bytes, salt: bytes[16..24].try_into().unwrap_or_default(), sum })
    }

    fn is_good(&self, frame: &[u8], before: Sum) -> bool {
        frame[8..16] == self.salt && {
            let sum = add(self.big_endian, before, &frame[..8]);
            add(self.big_endian, sum, &frame[FRAME_HEADER_BYTES..]) == word_pair(&frame[16..])
        }
    }
}

/// SQLite's checksum: of pairs of words.
fn add(big_endian: bool, (mut first, mut second): Sum, bytes: &[u8]) -> Sum {
    let word = |bytes: [u8; 4]| if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    let (pairs, _) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in pairs {
        first = first.wrapping_add(word([a, b, c, d])).wrapping_add(second);
        second = second.wrapping_add(word([e, f, g, h])).wrapping_add(first);
    }
    (first, second)
}

/// The first four bytes; numbers in the file are big-endian.
fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn word_pair(bytes: &[u8]) -> Sum {
    (word(bytes), word(&bytes[4..]))
}

/// Fills the buffer, or what of it the file has.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::OnceLock};

    use proptest::prelude::*;
    use rusqlite::{Connection, params};

    use super::*;

    /// A page that is small, so that there are many frames.
    const PAGE_BYTES: usize = 512;
    const TRANSACTIONS: usize = 24;

    fn walked(bytes: &[u8]) -> Verdict {
        walk(bytes).unwrap()
    }

    /// A database in a folder, with its write-ahead file.
    fn database(folder: &Path) -> Connection {
        let connection = Connection::open(folder.join("a.db")).unwrap();
        connection.pragma_update(None, "page_size", PAGE_BYTES as u32).unwrap();
        let sql =
            "PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL; CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)";
        connection.execute_batch(sql).unwrap();
        connection
    }

    /// Transactions of very different sizes. Returns the file after each, from an empty one on.
    fn written() -> &'static [Vec<u8>] {
        static WRITTEN: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        WRITTEN.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let connection = database(folder.path());
            let file = || fs::read(folder.path().join("a.db-wal")).unwrap();
            let mut files = vec![file()];
            for number in 0..TRANSACTIONS {
                let bytes = vec![7u8; (number * 37) % 11 * 200];
                connection.execute("INSERT INTO t VALUES (?1, ?2)", params![number as i64, bytes]).unwrap();
                files.push(file());
            }
            files
        })
    }

    fn end(transactions: usize) -> u64 {
        written()[transactions].len() as u64
    }

    /// Transactions that end at this byte or before it.
    fn whole_before(byte: usize) -> usize {
        written().iter().rposition(|file| file.len() <= byte).unwrap_or(0)
    }

    proptest! {
        #[test]
        fn bytes_that_nobody_wrote_are_no_reason_to_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            walked(&bytes);
            let mut behind_a_header = written()[0][..HEADER_BYTES].to_vec();
            behind_a_header.extend(bytes);
            prop_assert!(matches!(walked(&behind_a_header), Verdict::Whole | Verdict::TornAt(32)));
        }

        #[test]
        fn what_is_cut_off_is_torn(at in HEADER_BYTES + 1..written()[TRANSACTIONS].len()) {
            let whole = whole_before(at);
            let expected = match written().iter().any(|file| file.len() == at) {
                true => Verdict::Whole,
                false if at < written()[0].len() => Verdict::TornAt(HEADER_BYTES as u64),
                false => Verdict::TornAt(end(whole)),
            };
            prop_assert_eq!(walked(&written()[TRANSACTIONS][..at]), expected);
        }

        #[test]
        fn what_changes_before_the_last_transactions_is_damage(
            at in 0..written()[TRANSACTIONS].len(), bit in 0..8u8, length in prop::sample::select(vec![1, 4, 512, 4096]),
        ) {
            let mut bytes = written()[TRANSACTIONS].clone();
            let until = (at + length).min(bytes.len());
            bytes[at..until].iter_mut().for_each(|byte| *byte ^= 1 << bit);
            let (first, last) = (whole_before(at), whole_before(until));
            match walked(&bytes) {
                Verdict::Damaged(text) if at < HEADER_BYTES => prop_assert!(text.contains("header"), "{}", text),
                Verdict::Damaged(_) => prop_assert!(first + 1 < TRANSACTIONS, "only the last one is bad"),
                // A bad frame that ends a transaction joins it to the next one.
                Verdict::TornAt(byte) => {
                    prop_assert!(at >= HEADER_BYTES && last + 4 > TRANSACTIONS, "{} of {}", last, TRANSACTIONS);
                    prop_assert_eq!(byte, end(first));
                }
                Verdict::Whole => prop_assert!(false, "nothing was noticed"),
            }
        }
    }

    #[test]
    fn a_header_that_is_torn_is_no_damage() {
        let header = &written()[0][..HEADER_BYTES];
        assert_eq!(walked(&[]), Verdict::Whole);
        assert_eq!(walked(header), Verdict::Whole);
        assert_eq!(walked(&header[..31]), Verdict::TornAt(0));
        assert_eq!(walked(&[0; HEADER_BYTES]), Verdict::TornAt(0));
        assert!(matches!(walked(&[0; HEADER_BYTES + 1]), Verdict::Damaged(_)));
    }

    #[test]
    fn what_is_left_from_before_a_checkpoint_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let connection = database(folder.path());
        for number in 0..20 {
            connection.execute("INSERT INTO t VALUES (?1, zeroblob(900))", params![number]).unwrap();
        }
        let before = fs::read(folder.path().join("a.db-wal")).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        connection.execute("INSERT INTO t VALUES (100, 'a')", []).unwrap();
        let after = fs::read(folder.path().join("a.db-wal")).unwrap();
        assert_eq!(before.len(), after.len());
        assert_ne!(before[16..24], after[16..24], "there is a new salt");
        let Verdict::TornAt(end) = walked(&after) else { panic!("{:?}", walked(&after)) };
        assert!(end < 10_000, "{end}");
        assert_eq!(walked(&after[..end as usize]), Verdict::Whole);
    }

    #[test]
    fn both_orders_of_bytes_are_known() {
        let mut bytes = written()[TRANSACTIONS].clone();
        assert_eq!(walked(&bytes), Verdict::Whole);
        let big_endian = word(&bytes) & 1 == 0;
        bytes[3] ^= 1;
        let put = |at: &mut [u8], sum: Sum| {
            at[..4].copy_from_slice(&sum.0.to_be_bytes());
            at[4..8].copy_from_slice(&sum.1.to_be_bytes());
        };
        let (header, frames) = bytes.split_at_mut(HEADER_BYTES);
        let mut sum = add(big_endian, (0, 0), &header[..24]);
        put(&mut header[24..], sum);
        for frame in frames.chunks_mut(FRAME_HEADER_BYTES + PAGE_BYTES) {
            sum = add(big_endian, add(big_endian, sum, &frame[..8]), &frame[FRAME_HEADER_BYTES..]);
            put(&mut frame[16..], sum);
        }
        assert_eq!(walked(&bytes), Verdict::Whole);
        bytes[600] ^= 1;
        assert!(matches!(walked(&bytes), Verdict::Damaged(_)));
    }
}
