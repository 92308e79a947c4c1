//! Finds the network namespaces of containers: the engine shows each as a file of a folder, before the container's
//! first instruction.
//!
//! A new file is empty for a moment, then the namespace is mounted on it, then its links get their addresses. By these
//! the namespace is told. The engine itself cannot be asked: it answers only after the start.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use imbl::OrdMap;
use rustix::fs::inotify;
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    links,
    netlink::{Part, Socket},
    readable::Readable,
    space::{Space, SpaceId},
    state::Wanted,
};

/// Groups of events: addresses of IPv4 and of IPv6.
const GROUPS: u32 = 1 << 4 | 1 << 8;
/// Pause between two looks for a folder that is not there: the engine makes it with its first container.
const FOLDER_PERIOD: Duration = Duration::from_millis(100);
/// Pause between two looks whether the namespace is mounted, which the engine does right after it made the file.
const MOUNT_PERIOD: Duration = Duration::from_millis(2);
/// Longest time until it is mounted, and from one address to the next.
const MOUNT_MAX: Duration = Duration::from_secs(10);
const ADDRESSES_MAX: Duration = Duration::from_secs(30);
const EVENT_BYTES: usize = 4096;
/// Namespaces that are entered at a time: each takes a thread.
const ENTERING_MAX: usize = 16;

/// A namespace with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundSpace {
    pub(crate) id: SpaceId,
    pub(crate) addrs: Arc<BTreeSet<IpAddr>>,
}

/// The namespaces that were found, by their paths.
pub(crate) type Found = OrdMap<PathBuf, FoundSpace>;

/// Tells of the namespaces of the folder that swarmd names, until it is dropped.
pub(crate) async fn find(mut wanted: watch::Receiver<Wanted>, found: watch::Sender<Found>) {
    let found = Arc::new(found);
    loop {
        let configuration = wanted.borrow_and_update().state.configuration.clone();
        let finding = async {
            match &configuration {
                Some(configuration) => watch_folder(&configuration.sandboxes, &found).await,
                None => std::future::pending().await,
            }
        };
        let is_other_folder = async {
            loop {
                if wanted.changed().await.is_err() {
                    return false;
                }
                let now = &wanted.borrow_and_update().state.configuration;
                if now.as_ref().map(|c| &c.sandboxes) != configuration.as_ref().map(|c| &c.sandboxes) {
                    return true;
                }
            }
        };
        tokio::select! {
            () = finding => {}
            goes_on = is_other_folder => {
                if !goes_on {
                    return;
                }
                found.send_replace(Found::new());
            }
        }
    }
}

/// Until the folder is gone.
async fn watch_folder(folder: &Path, found: &Arc<watch::Sender<Found>>) {
    let (events, readable) = loop {
        match open_watch(folder) {
            Ok(events) => break events,
            Err(_) => sleep(FOLDER_PERIOD).await,
        }
    };
    let entering = Arc::new(Semaphore::new(ENTERING_MAX));
    let mut scouts: BTreeMap<PathBuf, AbortOnDropHandle<()>> = BTreeMap::new();
    while let Ok(files) = list(folder) {
        scouts.retain(|path, _| files.contains(path));
        found.send_if_modified(|found| {
            let gone: Vec<_> = found.keys().filter(|path| !files.contains(*path)).cloned().collect();
            gone.iter().for_each(|path| drop(found.remove(path)));
            !gone.is_empty()
        });
        for path in files {
            let (found, entering) = (Arc::clone(found), Arc::clone(&entering));
            scouts.entry(path).or_insert_with_key(|path| {
                let path = path.clone();
                AbortOnDropHandle::new(tokio::spawn(async move {
                    if let Err(e) = scout(&path, &found, &entering).await {
                        tracing::debug!("{} is no container's: {e}", path.display());
                    }
                }))
            });
        }
        if readable.read(|| drain(&events)).await.is_err() {
            break;
        }
    }
    found.send_replace(Found::new());
}

fn open_watch(folder: &Path) -> io::Result<(OwnedFd, Readable)> {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let kinds = inotify::WatchFlags::CREATE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::MOVED_FROM
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::DELETE_SELF
        | inotify::WatchFlags::MOVE_SELF;
    inotify::add_watch(&events, folder, kinds)?;
    let readable = Readable::of(&events)?;
    Ok((events, readable))
}

/// Takes all events, or fails with `WouldBlock` when there is none. What they are about is seen in the folder.
fn drain(events: &OwnedFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
    let mut reader = inotify::Reader::new(events, &mut buffer);
    reader.next()?;
    while reader.next().is_ok() {}
    Ok(())
}

fn list(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// Tells the addresses of a namespace, until no more come.
async fn scout(path: &Path, found: &watch::Sender<Found>, entering: &Semaphore) -> io::Result<()> {
    // The host's own, which containers of the network `host` share.
    if path.file_name() == Some(OsStr::new("default")) {
        return Ok(());
    }
    let mounted = async {
        loop {
            match Space::open(path)? {
                Some(space) => return Ok::<_, io::Error>(space),
                None => sleep(MOUNT_PERIOD).await,
            }
        }
    };
    let space = timeout(MOUNT_MAX, mounted).await??;
    let id = space.id();
    let permit = entering.acquire().await.map_err(io::Error::other)?;
    let (mut events, mut socket) = spawn_blocking(move || {
        space.within(|| Ok((Socket::hearing(Part::Route, GROUPS)?, Socket::open(Part::Route)?)))
    })
    .await??;
    drop(permit);
    let readable = Readable::of(&events)?;
    loop {
        let addrs: BTreeSet<_> = links::addresses(&mut socket)?.into_iter().map(|(_, net)| net.addr()).collect();
        let space = FoundSpace { id, addrs: Arc::new(addrs) };
        found.send_if_modified(|found| found.insert(path.to_owned(), space.clone()) != Some(space));
        match timeout(ADDRESSES_MAX, readable.read(|| events.hear().map(drop))).await {
            Err(_) => return Ok(()),
            // More events than the socket holds are events as well.
            Ok(_) => while events.hear().is_ok() {},
        }
    }
}
