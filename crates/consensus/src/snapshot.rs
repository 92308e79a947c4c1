//! The snapshot file: the state's objects in sealed frames.
//!
//! Layout: magic, the snapshot's random name, then frames of length (u32, little endian) and sealed bytes. The first
//! frame is the head (what the snapshot covers), the last one says how many objects there were, those between hold
//! objects in named MessagePack, one after the other. A frame is sealed with its number and the names of store and
//! snapshot: frames cannot be dropped, repeated, reordered or mixed. Writing and reading hold one frame at a time.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex, PoisonError},
};

use swarm_core::{Object, State};
use tokio::sync::watch;

use crate::{
    Error,
    disk::Disk,
    history::Past,
    level,
    records::{self, Head, Tail},
    seal::{Kind, RandomId, Seal, random_id},
    types::{LogId, SnapshotMeta},
};

/// Start of every snapshot file; the digit is the version of the layout.
const MAGIC: [u8; 8] = *b"swrsnap1";
/// A frame is sealed and written when it holds this much: large enough that sealing dominates, small beside any state.
const FRAME_BYTES: usize = 256 * 1024;
/// The longest frame that is read. A frame can exceed [`FRAME_BYTES`] by one object, and an object is never larger than
/// a few entries; a longer one can only be damage, and must not make us allocate what it asks for.
const FRAME_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Why a snapshot cannot be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It ends early.
    Short,
    /// A frame is not what was written.
    Damaged(String),
    /// It is of another layout.
    Unknown(String),
    /// The state in it uses a feature level that is not known here.
    Newer(String),
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Short,
            _ => Self::Io(error),
        }
    }
}

/// Writes a state as a snapshot.
pub(crate) fn write(out: &mut dyn Write, seal: &Seal, head: &Head, state: &State) -> io::Result<()> {
    let unsealed = |_| io::Error::other("sealing failed: the system gave no random bytes");
    let name = random_id().map_err(unsealed)?;
    let seal = seal.scoped(name);
    let mut number = 0;
    let mut frame = |out: &mut dyn Write, kind: Kind, plain: &[u8]| {
        let sealed = seal.seal(kind, number, plain).map_err(unsealed)?;
        let length = u32::try_from(sealed.len()).ok().filter(|length| *length <= FRAME_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("an object of the state is too large for a snapshot"))?;
        number += 1;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&sealed)
    };
    out.write_all(&MAGIC)?;
    out.write_all(&name)?;
    frame(out, Kind::SnapshotHead, &records::encode(head).map_err(io::Error::other)?)?;
    let mut objects = 0;
    let mut plain = Vec::with_capacity(FRAME_BYTES);
    for object in state.export() {
        rmp_serde::encode::write_named(&mut plain, &object).map_err(io::Error::other)?;
        objects += 1;
        if plain.len() >= FRAME_BYTES {
            frame(out, Kind::SnapshotBody, &plain)?;
            plain.clear();
        }
    }
    if !plain.is_empty() {
        frame(out, Kind::SnapshotBody, &plain)?;
    }
    frame(out, Kind::SnapshotEnd, &records::encode(&Tail { objects }).map_err(io::Error::other)?)
}

/// Reads a snapshot, object by object.
pub(crate) struct Reader<R> {
    source: R,
    seal: Seal,
    /// The newest feature level that this program knows.
    known: u16,
    number: u64,
    plain: io::Cursor<Vec<u8>>,
    objects: u64,
    over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the head. What comes behind it is read as far as this program knows the feature level of the state.
    pub(crate) fn open(mut source: R, seal: &Seal, known: u16) -> Result<(SnapshotMeta, Past, Self), ReadError> {
        let mut magic = [0; MAGIC.len()];
        source.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(ReadError::Unknown("it is not a snapshot, or one of another version of swarmd".into()));
        }
        let mut name = RandomId::default();
        source.read_exact(&mut name)?;
        let seal = seal.scoped(name);
        let mut reader = Self { source, seal, known, number: 0, plain: io::Cursor::default(), objects: 0, over: false };
        let sealed = reader.sealed()?;
        let head = reader.open_frame(Kind::SnapshotHead, &sealed).ok_or_else(|| reader.damaged())?;
        reader.number += 1;
        let head: Head = records::decode(&head).map_err(ReadError::Damaged)?;
        let (meta, past) = head.into_parts().map_err(ReadError::Damaged)?;
        Ok((meta, past, reader))
    }

    fn sealed(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut length = [0; 4];
        self.source.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > FRAME_BYTES_MAX {
            return Err(self.damaged());
        }
        let mut sealed = Vec::new();
        (&mut self.source).take(length.into()).read_to_end(&mut sealed)?;
        if sealed.len() < length as usize {
            return Err(ReadError::Short);
        }
        Ok(sealed)
    }

    fn open_frame(&self, kind: Kind, sealed: &[u8]) -> Option<Vec<u8>> {
        self.seal.open(kind, self.number, sealed).ok()
    }

    fn damaged(&self) -> ReadError {
        ReadError::Damaged(format!("frame {} is not what was written", self.number))
    }

    /// The next object, or none at the end.
    pub(crate) fn object(&mut self) -> Result<Option<Object>, ReadError> {
        loop {
            if self.over {
                return Ok(None);
            }
            if self.plain.position() < self.plain.get_ref().len() as u64 {
                let object = rmp_serde::from_read(&mut self.plain)
                    .map_err(|error| ReadError::Damaged(format!("object {}: {error}", self.objects)))?;
                // The head comes first: objects behind it that cannot be read are new ones, not damaged ones.
                if let Object::Head { feature_level, .. } = object {
                    level::check(feature_level, self.known).map_err(ReadError::Newer)?;
                }
                self.objects += 1;
                return Ok(Some(object));
            }
            let sealed = self.sealed()?;
            if let Some(plain) = self.open_frame(Kind::SnapshotBody, &sealed) {
                self.plain = io::Cursor::new(plain);
            } else {
                let end = self.open_frame(Kind::SnapshotEnd, &sealed).ok_or_else(|| self.damaged())?;
                let Tail { objects } = records::decode(&end).map_err(ReadError::Damaged)?;
                if objects != self.objects || self.source.read(&mut [0])? != 0 {
                    return Err(ReadError::Damaged("its end does not match what comes before it".into()));
                }
                self.over = true;
            }
            self.number += 1;
        }
    }
}

/// The content of a snapshot on its way into a state machine.
pub(crate) struct Content {
    /// How it came about.
    pub past: Past,
    /// The objects.
    pub objects: Box<dyn Iterator<Item = io::Result<Object>> + Send>,
    /// The store whose own snapshot file this is: there it need not be written again.
    pub store: Option<RandomId>,
}

impl Content {
    /// The state.
    pub(crate) fn into_state(mut self) -> io::Result<State> {
        let mut failed = None;
        let state = State::import(std::iter::from_fn(|| match self.objects.next()? {
            Ok(object) => Some(object),
            Err(error) => {
                failed = Some(error);
                None
            }
        }));
        failed.map_or(Ok(state), Err)
    }
}

/// What became of the snapshots so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Attempts that have ended.
    pub attempts: u64,
    /// Why the last one failed, if it did.
    pub failure: Option<String>,
}

/// The snapshot of one store.
pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    seal: Seal,
    feature_level: u16,
    /// What the stored snapshot covers. Held while one is written, so that an older one never replaces a newer one.
    stored: Mutex<Option<LogId>>,
    progress: watch::Sender<Progress>,
}

impl Snapshots {
    pub(crate) fn new(disk: Arc<dyn Disk>, seal: Seal, feature_level: u16) -> Arc<Self> {
        let progress = watch::Sender::new(Progress::default());
        Arc::new(Self { disk, seal, feature_level, stored: Mutex::new(None), progress })
    }

    /// Follows what becomes of the attempts.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Opens the stored snapshot. Blocks.
    pub(crate) fn open(self: &Arc<Self>) -> Result<Option<(SnapshotMeta, Content)>, Error> {
        let Some(source) = self.disk.read_snapshot().map_err(|error| self.explain(ReadError::Io(error)))? else {
            return Ok(None);
        };
        let (meta, past, mut reader) =
            Reader::open(source, &self.seal, self.feature_level).map_err(|error| self.explain(error))?;
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = meta.last_log_id;
        let snapshots = Arc::clone(self);
        let objects = Box::new(std::iter::from_fn(move || {
            reader.object().map_err(|error| snapshots.explain(error).into()).transpose()
        }));
        Ok(Some((meta, Content { past, objects, store: Some(self.seal.store()) })))
    }

    /// Whether this content is the stored snapshot of this store.
    pub(crate) fn owns(&self, content: &Content) -> bool {
        content.store == Some(self.seal.store())
    }

    /// Stores a state as the snapshot, unless there is one that covers more. Blocks.
    pub(crate) fn store(&self, meta: &SnapshotMeta, past: &Past, state: &State) -> Result<(), Error> {
        let result = (|| {
            let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
            if *stored > meta.last_log_id {
                return Ok(());
            }
            self.disk.write_snapshot(&mut |out| write(out, &self.seal, &Head::new(meta, past), state))?;
            *stored = meta.last_log_id;
            Ok(())
        })()
        .map_err(|error| Error::io(self.disk.snapshot_file(), error));
        self.progress.send_modify(|progress| {
            progress.attempts += 1;
            progress.failure = result.as_ref().err().map(ToString::to_string);
        });
        result
    }

    fn explain(&self, error: ReadError) -> Error {
        let file = self.disk.snapshot_file();
        match error {
            ReadError::Short => Error::corrupt(file, "it is cut short"),
            ReadError::Damaged(detail) => Error::corrupt(file, detail),
            ReadError::Unknown(detail) => Error::Foreign { file, detail },
            ReadError::Newer(detail) => Error::Newer { file, detail },
            ReadError::Io(error) => Error::io(file, error),
        }
    }
}
