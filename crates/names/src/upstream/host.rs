//! The resolvers of the host, by its files.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use resolv_conf::ScopedIp;
use tokio::time::Instant;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// The files are looked at no more often.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The stubs of systemd-resolved, which speak for the resolvers that its own file names.
const STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Follows the files that name the resolvers of the host.
#[derive(Debug)]
pub(super) struct HostResolvers {
    resolv_conf: PathBuf,
    resolved_conf: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    looked: Option<Instant>,
    stamps: Option<[Stamp; 2]>,
    addrs: Vec<IpAddr>,
}

/// A file's state; another one tells of a change. None for a file that is not there.
type Stamp = Option<(u64, u64, i64, i64)>;

impl HostResolvers {
    pub(super) fn new(resolv_conf: PathBuf, resolved_conf: PathBuf) -> Self {
        Self { resolv_conf, resolved_conf, seen: Mutex::default() }
    }

    /// The addresses of the resolvers, as the files had them a second ago at the most.
    pub(super) fn addrs(&self) -> Vec<IpAddr> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked.is_none_or(|looked| looked.elapsed() >= LOOK_PAUSE) {
            let stamps = [stamp(&self.resolv_conf), stamp(&self.resolved_conf)];
            if seen.stamps != Some(stamps) {
                seen.addrs = self.read();
                seen.stamps = Some(stamps);
            }
            seen.looked = Some(Instant::now());
        }
        seen.addrs.clone()
    }

    fn read(&self) -> Vec<IpAddr> {
        let addrs = addrs_in(&self.resolv_conf);
        if !addrs.iter().all(|addr| STUBS.contains(addr)) {
            return addrs;
        }
        let behind = addrs_in(&self.resolved_conf);
        if behind.is_empty() { addrs } else { behind }
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

/// The addresses that a file names. Lines that are no part of the format are passed over, as the C library does. So are
/// addresses of a link, which mean nothing without its number.
fn addrs_in(path: &Path) -> Vec<IpAddr> {
    let is_small = fs::metadata(path).is_ok_and(|file| file.len() <= FILE_BYTES_MAX);
    let Some(text) = is_small.then(|| fs::read(path).ok()).flatten() else {
        tracing::warn!("cannot read the host's resolvers from {}", path.display());
        return vec![];
    };
    let (config, _) = resolv_conf::Config::parse_with_errors(&text);
    let addr = |server: &ScopedIp| match server {
        ScopedIp::V4(addr) => Some(IpAddr::V4(*addr)),
        ScopedIp::V6(addr, None) => Some(IpAddr::V6(*addr)),
        ScopedIp::V6(_, Some(_)) => None,
    };
    config.nameservers.iter().filter_map(addr).collect()
}
