//! Network namespaces of containers: told apart, entered.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Component, Path, PathBuf},
    thread,
};

use rustix::{
    fs::fstatfs,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// The file system of namespaces ("nsfs").
const NAMESPACES: u64 = 0x6e73_6673;
/// The namespace of this host.
const OWN: &str = "/proc/thread-self/ns/net";

/// Tells namespaces apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SpaceId {
    device: u64,
    inode: u64,
}

impl SpaceId {
    /// Of the namespace, or of any other file, at this path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::metadata(path)?))
    }

    fn of(found: &fs::Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

/// A network namespace. It stays while this value does, also when its container has ended.
#[derive(Debug)]
pub(crate) struct Space {
    file: File,
    id: SpaceId,
    path: PathBuf,
}

impl Space {
    /// The namespace at a path; none when there is another file, on which the namespace may be mounted soon.
    ///
    /// # Errors
    /// The file's. The host's namespace is refused: what is meant for a container would change the host.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        if u64::try_from(fstatfs(&file)?.f_type).ok() != Some(NAMESPACES) {
            return Ok(None);
        }
        let id = SpaceId::of(&file.metadata()?);
        if id == SpaceId::at(Path::new(OWN))? {
            let text = format!("{} is this host's own network namespace, and no container's", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(Some(Self { file, id, path: path.to_owned() }))
    }

    pub(crate) fn id(&self) -> SpaceId {
        self.id
    }

    /// Whether its path still leads to it. When a container is started again it has another namespace.
    pub(crate) fn is_current(&self) -> bool {
        SpaceId::at(&self.path).is_ok_and(|id| id == self.id)
    }

    /// Does something in the namespace, on a thread that ends with it. It waits: not for threads of an async runtime.
    ///
    /// # Errors
    /// The thread cannot be made, or may not enter the namespace; else those of `act`.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let entered = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, entered)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
        })
    }
}

/// Checks the path of a namespace that swarmd named: a file of the folder of sandboxes, or `/proc/<pid>/ns/net`.
///
/// # Errors
/// The path is another one.
pub(crate) fn check_path(path: &Path, folder: &Path) -> io::Result<()> {
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let is_plain = path.is_absolute() && path.components().all(is_plain);
    // `/var/run` is the same as `/run`.
    let is_folder = |parent: &Path| {
        parent == folder || SpaceId::at(parent).is_ok_and(|id| SpaceId::at(folder).is_ok_and(|folder| folder == id))
    };
    let in_folder = path.parent().is_some_and(is_folder);
    let process = path.strip_prefix("/proc").ok().and_then(|rest| rest.to_str()?.strip_suffix("/ns/net"));
    let in_proc = process.is_some_and(|process| process.parse::<u32>().is_ok());
    if is_plain && (in_folder || in_proc) {
        return Ok(());
    }
    let text = format!(
        "{} is no network namespace of a container: it must be a file of {}, or /proc/<pid>/ns/net",
        path.display(),
        folder.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

#[cfg(test)]
mod tests;
