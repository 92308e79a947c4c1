//! The folder in which everything that a node keeps lives.
//!
//! ```text
//! swarmd.json     version of this layout; says whose folder it is
//! lock            held while swarmd runs
//! swarm.json      membership: written last when the node joins, removed first when it has left
//! certificates/   identity (swarm_wire::NodeIdentity)
//! manager/        the Raft log, while the node is a manager
//! agent/          tasks
//! ```

mod keys;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    process::geteuid,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use swarm_wire::{IDENTITY_FILES, NodeIdentity, check_regular, read_regular, write_atomically};

use crate::config::STATE_DIR_DEFAULT;

/// Version of the layout above.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "swarmd.json";
const LOCK_FILE: &str = "lock";
const MANAGER_FOLDER: &str = "manager";
const MEMBERSHIP_FILE: &str = "swarm.json";
/// Says that the file above has to be there: a node that lost it must not pass for one that was in no swarm.
const WITNESS_FILE: &str = "member";
/// Largest of the files above: the addresses of some managers.
const JSON_BYTES_MAX: u64 = 1 << 20;

/// The state folder of a running swarmd.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
    /// Held while the membership is written.
    membership: Mutex<()>,
    /// Held while keys are read or written.
    keys: Mutex<keys::Keys>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Format {
    format: u32,
    program: String,
}

/// How this node belongs to its cluster, beside what its certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Membership {
    /// Where it listens while it is a manager.
    pub(crate) listen_addr: String,
    /// What it told the others: `IP:PORT`.
    pub(crate) advertise_addr: String,
    /// Address of overlay traffic; empty means that of the other traffic.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) data_path_addr: String,
    /// `HOST:PORT` of the managers that it knew last.
    #[serde(default)]
    pub(crate) managers: Vec<String>,
    /// Its id in Raft while it is a manager; none for the founder of the cluster, whose id follows from the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) raft_id: Option<u64>,
    /// Whether it has yet to begin its log: a manager whose log is gone must not begin another one under its id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) joining: bool,
    /// Whether it was removed: its manager must not take part any more, after a restart either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) removed: bool,
}

impl Membership {
    /// Checks what was read from the disk, before anything of it is used.
    fn check(&self) -> Result<()> {
        for (name, addr) in [("listen address", &self.listen_addr), ("advertised address", &self.advertise_addr)] {
            addr.parse::<SocketAddr>().with_context(|| format!("its {name} {addr:?} is no IP address with a port"))?;
        }
        Ok(())
    }

    /// The address at which other nodes reach this one's data plane; none if that is no address.
    pub(crate) fn data_ip(&self) -> Option<IpAddr> {
        let own = self.advertise_addr.parse().map(|addr: SocketAddr| addr.ip());
        self.data_path_addr.parse().or(own).ok()
    }

    /// The same with the port that was bound, where it was left to the system.
    pub(crate) fn at_port(self, bound: u16) -> Self {
        let at = |addr: String| match addr.parse::<SocketAddr>() {
            Ok(mut addr) if addr.port() == 0 => {
                addr.set_port(bound);
                addr.to_string()
            }
            _ => addr,
        };
        Self { listen_addr: at(self.listen_addr), advertise_addr: at(self.advertise_addr), ..self }
    }
}

impl StateDir {
    /// Opens and locks the folder, which is made if need be.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let named = || format!("the state folder {}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| match path {
            p if p == Path::new(STATE_DIR_DEFAULT) => {
                format!("cannot make {} (run swarmd as root, or choose another one with --state-dir)", named())
            }
            _ => format!("cannot make {}", named()),
        })?;
        // First: a folder of something else keeps its permissions.
        check_owner(path).with_context(named)?;
        keep_private(path, geteuid().as_raw()).with_context(named)?;
        let lock = lock(&path.join(LOCK_FILE)).with_context(named)?;
        let format = Format { format: FORMAT, program: concat!("swarmd ", env!("CARGO_PKG_VERSION")).to_owned() };
        write_json(&path.join(FORMAT_FILE), &format).with_context(named)?;
        Ok(Self { path: path.to_owned(), _lock: lock, membership: Mutex::default(), keys: Mutex::default() })
    }

    /// Folder of the manager's log; made if need be.
    pub(crate) fn manager(&self) -> Result<PathBuf> {
        let folder = self.path.join(MANAGER_FOLDER);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// Forgets the log of a manager: a worker has none, and a manager that comes back begins another one.
    pub(crate) fn forget_manager(&self) -> Result<()> {
        self.forget_keys();
        remove_folder(&self.path.join(MANAGER_FOLDER))
    }

    fn keys(&self) -> MutexGuard<'_, keys::Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Folder of the agent's tasks.
    pub(crate) fn agent(&self) -> PathBuf {
        self.path.join("agent")
    }

    /// Folder of the data plane that swarmd starts.
    pub(crate) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Folder of the `swarmd net` that swarmd starts.
    pub(crate) fn net(&self) -> PathBuf {
        self.path.join("net")
    }

    /// The file that says which place the node has in its swarm.
    pub(crate) fn membership_file(&self) -> PathBuf {
        self.path.join(MEMBERSHIP_FILE)
    }

    fn certificates(&self) -> PathBuf {
        self.path.join("certificates")
    }

    /// The cluster that this node belongs to, if it does.
    pub(crate) fn membership(&self) -> Result<Option<(Membership, NodeIdentity)>> {
        let (path, witness) = (self.membership_file(), self.path.join(WITNESS_FILE));
        // What is damaged is never taken for nothing.
        let way_out = || {
            format!(
                "this node belongs to a swarm and its state folder is damaged (put back the file from a copy, or, to give \
                 up all that the node has of the swarm, remove {} and {} and join anew)",
                path.display(),
                witness.display()
            )
        };
        let Some(membership) = read_json::<Membership>(&path).with_context(way_out)? else {
            if witness.exists() {
                bail!(
                    "{} is missing, although this node belongs to a swarm: put the file back, or, to give up all that the \
                     node has of the swarm, remove {} and join anew",
                    path.display(),
                    witness.display()
                );
            }
            return Ok(None);
        };
        membership.check().with_context(|| format!("{} is damaged", path.display())).with_context(way_out)?;
        self.bear_witness()?;
        let folder = self.certificates();
        let identity = self
            .load_identity()
            .and_then(|identity| {
                identity.with_context(|| format!("{}/{} is missing", folder.display(), IDENTITY_FILES[0]))
            })
            .with_context(way_out)?;
        Ok(Some((membership, identity)))
    }

    /// Makes the node a member from now on, also after a restart.
    pub(crate) fn save_membership(&self, membership: &Membership) -> Result<()> {
        let _writing = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        write_json(&self.membership_file(), membership)?;
        self.bear_witness()
    }

    /// Remembers apart that the node is a member.
    fn bear_witness(&self) -> Result<()> {
        let path = self.path.join(WITNESS_FILE);
        write_atomically(&path, &[], 0o600).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Keeps the managers that are known now. A node that has left stays out.
    pub(crate) fn save_managers(&self, managers: Vec<String>) -> Result<()> {
        let _writing = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.membership_file();
        match read_json::<Membership>(&path)? {
            Some(membership) => write_json(&path, &Membership { managers, ..membership }),
            None => Ok(()),
        }
    }

    /// Keeps that the node was removed.
    pub(crate) fn save_removed(&self) -> Result<()> {
        let _writing = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.membership_file();
        match read_json::<Membership>(&path)? {
            Some(membership) => write_json(&path, &Membership { removed: true, ..membership }),
            None => Ok(()),
        }
    }

    /// Forgets the cluster: first that the node is a member, then everything else.
    pub(crate) fn wipe(&self) -> Result<()> {
        let _writing = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        // The node is out once the second of them is gone; the first without it would be taken for damage.
        for file in [WITNESS_FILE, MEMBERSHIP_FILE] {
            let path = self.path.join(file);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        self.forget_keys();
        for folder in [self.certificates(), self.path.join(MANAGER_FOLDER), self.agent()] {
            remove_folder(&folder)?;
        }
        Ok(())
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Refuses folders of other programs and of newer versions of this one.
fn check_owner(path: &Path) -> Result<()> {
    match read_json::<Format>(&path.join(FORMAT_FILE))? {
        Some(found) if found.format > FORMAT => bail!(
            "it was written by {}, a newer version than this one ({}), in a format that this one cannot read",
            found.program,
            env!("CARGO_PKG_VERSION")
        ),
        Some(_) => Ok(()),
        None => {
            let foreign = fs::read_dir(path)?.find_map(|entry| match entry {
                Ok(entry) if entry.file_name() == LOCK_FILE => None,
                // A file system of its own comes with this one.
                Ok(entry) if entry.file_name() == "lost+found" => None,
                other => Some(other.map(|e| e.file_name())),
            });
            match foreign.transpose()? {
                None => Ok(()),
                Some(name) => bail!(
                    "it holds {} and {} is missing: put the file back if this is the state folder of a node, or choose an \
                     empty folder with --state-dir",
                    name.display(),
                    path.join(FORMAT_FILE).display()
                ),
            }
        }
    }
}

/// Takes away what others than its owner, `own_uid`, may do in the folder: it holds keys, and files that are written.
fn keep_private(path: &Path, own_uid: u32) -> Result<()> {
    let folder = File::open(path).context("it cannot be opened")?;
    let found = folder.metadata()?;
    let mode = found.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if found.uid() != own_uid {
        bail!(
            "others may enter it (its mode is {mode:04o}) and it belongs to user {}, not to user {own_uid}, who runs \
             swarmd: make it private with chown {own_uid} and chmod 700, or choose another folder with --state-dir",
            found.uid()
        );
    }
    folder.set_permissions(fs::Permissions::from_mode(0o700)).context("it cannot be made private (chmod 700)")?;
    tracing::warn!("others could enter the state folder {}: its mode was {mode:04o} and is 0700 now", path.display());
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    // Through a link, the process id would overwrite a file somewhere else.
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_link);
    let mut file = match options.open(path) {
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            bail!("{} is a symbolic link, which swarmd never makes: find out who did, and remove it", path.display())
        }
        other => other.with_context(|| format!("cannot open {}", path.display()))?,
    };
    check_regular(path).with_context(|| format!("cannot use {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            bail!("another swarmd uses it (process {pid}); stop that one, or choose another folder with --state-dir")
        }
        Err(e) => Err(e).context("it cannot be locked"),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match read_regular(path, JSON_BYTES_MAX) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    write_atomically(path, &bytes, 0o600).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
