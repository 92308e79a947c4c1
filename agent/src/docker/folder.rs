//! The folder of a node with the files of its tasks: `FOLDER/NODE/TASK/NUMBER`, all of it closed to everybody else. The
//! container engine mounts each file into its container.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::{
    fs::FsWord,
    process::{getegid, geteuid},
};
use swarm_model::{NodeId, TaskId};

use super::files::TaskFile;
use crate::executor::EngineError;

/// The numbers of file systems that are in memory only, as `statfs` gives them.
const TMPFS_MAGIC: FsWord = 0x0102_1994;
const RAMFS_MAGIC: FsWord = 0x8584_58f6;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    /// The folder of all nodes.
    root: PathBuf,
    node: PathBuf,
}

impl Folder {
    pub(super) fn new(root: &Path, node: NodeId) -> Self {
        Self { root: root.to_owned(), node: root.join(node.to_string()) }
    }

    /// The path of a file of a task. `number` is the place of the file in the spec.
    pub(super) fn file(&self, task: TaskId, number: usize) -> PathBuf {
        self.node.join(task.to_string()).join(number.to_string())
    }

    /// Puts the files of a task in their place. A file that is there stays as it is: its secret or config never changes.
    pub(super) fn put(&self, task: TaskId, files: &[TaskFile]) -> Result<(), EngineError> {
        let failed =
            |error| EngineError::Temporary(format!("the files of the task, in {}: {error}", self.node.display()));
        if !self.root.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed)?;
        }
        if !self.is_safe().map_err(failed)? {
            return Err(EngineError::Fatal(format!(
                "other users can change what is in {}: give swarmd on this node a folder with --secrets-dir that belongs to \
                 root or to its own user, and that nobody else may write to",
                self.root.display()
            )));
        }
        self.make_own(&self.node)?;
        if let Some(file) = files.iter().find(|file| file.is_secret)
            && !is_in_memory(&self.node).map_err(failed)?
        {
            return Err(EngineError::Fatal(format!(
                "{}: secrets are kept in memory only, and {} is no memory file system; give swarmd on this node a folder \
                 on one with --secrets-dir, such as /run/swarmd/secrets or /dev/shm/swarmd",
                file.of,
                self.root.display()
            )));
        }
        let folder = self.node.join(task.to_string());
        self.make_own(&folder)?;
        for (number, file) in files.iter().enumerate() {
            let path = self.file(task, number);
            if !path.try_exists().map_err(failed)? {
                write(&path, file)?;
            }
        }
        Ok(())
    }

    /// Whether nobody else can put another folder in the place of the node's. Where all may write, as in `/dev/shm`, the
    /// sticky bit keeps them from that.
    fn is_safe(&self) -> io::Result<bool> {
        let is_trusted = |uid: u32| uid == 0 || uid == geteuid().as_raw();
        let (link, folder) = (fs::symlink_metadata(&self.root)?, fs::metadata(&self.root)?);
        let may_be_written = folder.mode() & 0o022 != 0 && folder.mode() & 0o1000 == 0;
        Ok(is_trusted(link.uid()) && is_trusted(folder.uid()) && !may_be_written)
    }

    /// Makes a folder that only this program may look into, or takes one that it made.
    fn make_own(&self, path: &Path) -> Result<(), EngineError> {
        let failed = |error| EngineError::Temporary(format!("folder {}: {error}", path.display()));
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        // Not through a link: in a folder that all may write to, somebody else may have made it.
        let found = fs::symlink_metadata(path).map_err(failed)?;
        if !found.is_dir() || found.uid() != geteuid().as_raw() {
            return Err(EngineError::Fatal(format!(
                "{} is not a folder that belongs to swarmd: remove it, or give swarmd another folder with --secrets-dir",
                path.display()
            )));
        }
        if found.mode() & 0o777 != 0o700 {
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes the files of a task.
    pub(super) fn drop_files(&self, task: TaskId) {
        remove(&self.node.join(task.to_string()));
    }

    /// Removes the files of all tasks but these; with the last one, the folder.
    pub(super) fn keep(&self, tasks: &[TaskId]) {
        let found = match fs::read_dir(&self.node) {
            Ok(found) => found.flatten(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return warn_left(&self.node, &error),
        };
        for entry in found {
            let task = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if task.is_none_or(|task: TaskId| !tasks.contains(&task)) {
                remove(&entry.path());
            }
        }
        if tasks.is_empty() {
            remove(&self.node);
            // Not that of other nodes.
            let _ = fs::remove_dir(&self.root);
        }
    }
}

fn is_in_memory(path: &Path) -> io::Result<bool> {
    let kind = rustix::fs::statfs(path)?.f_type;
    Ok([TMPFS_MAGIC, RAMFS_MAGIC].contains(&kind))
}

/// Writes a file under another name, so that one that is there is whole.
fn write(path: &Path, file: &TaskFile) -> Result<(), EngineError> {
    let failed = |error| EngineError::Temporary(format!("{}: {error}", path.display()));
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    open.write_all(file.data.expose()).map_err(failed)?;
    // In this order: who has given a file away may not change its mode.
    open.set_permissions(Permissions::from_mode(file.mode)).map_err(failed)?;
    if (file.uid, file.gid) != (geteuid().as_raw(), getegid().as_raw())
        && let Err(error) = fchown(&open, Some(file.uid), Some(file.gid))
    {
        let _ = fs::remove_file(&new);
        return Err(match error.kind() {
            io::ErrorKind::PermissionDenied => EngineError::Fatal(format!(
                "the file of {} is to belong to user {} and group {}, and swarmd on this node may not give files away: it \
                 runs without the capability CAP_CHOWN",
                file.of, file.uid, file.gid
            )),
            _ => failed(error),
        });
    }
    fs::rename(&new, path).map_err(failed)
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => warn_left(path, &error),
        _ => {}
    }
}

fn warn_left(path: &Path, error: &io::Error) {
    tracing::warn!(path = %path.display(), %error, "files of tasks that need them no more are left: remove them by hand");
}

#[cfg(test)]
mod tests;
