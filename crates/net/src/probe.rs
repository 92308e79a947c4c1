//! Which parts of the kernel this process can use: each is tried.

use std::{collections::BTreeSet, fs::File, io, net::Ipv4Addr, os::fd::AsFd, thread};

use nix::sched::{CloneFlags, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    host,
    links::{self, Change, Vxlan},
    netlink::{Part, Socket},
    protocol::Abilities,
    table::{Loaded, Table},
    tap,
};

/// Names parts of the kernel, separated by commas, that are to be taken as missing: `vxlan`, `tun`, `nft`, `setns`.
const WITHOUT: &str = "SWARMD_WITHOUT";
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
/// The name and the number of the device that is tried. Its port is no VXLAN's.
const PROBE: &str = "vxprobe";
const PROBE_TAP: &str = "vtprobe";
const PROBE_VXLAN: Vxlan = Vxlan { id: 0xff_ffff, port: 65_000, local: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST) };

/// The parts that the environment says are missing.
pub(crate) fn without_from_environment() -> BTreeSet<String> {
    let named = std::env::var(WITHOUT).unwrap_or_default();
    named.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Tries each part, in a namespace of its own if that can be made. It waits: not for threads of an async runtime.
pub(crate) fn probe(without: &BTreeSet<String>) -> Abilities {
    let try_part = |name: &str, part: fn() -> io::Result<()>, describe: fn(&io::Error) -> String| {
        if without.contains(name) {
            return Err(format!("{WITHOUT} says that there is no {name}"));
        }
        apart(part).map_err(|e| describe(&e))
    };
    let names = |e: &io::Error| format!("no service VIPs on this node: names resolve to task addresses ({e})");
    Abilities {
        vxlan: try_part("vxlan", try_vxlan, host::describe),
        tun: try_part("tun", try_tun, host::describe_tap),
        nft: try_part("nft", try_nft, names),
        setns: try_part("setns", try_setns, |e| {
            format!("no service VIPs on this node: names resolve to task addresses (setns needs CAP_SYS_ADMIN: {e})")
        }),
    }
}

/// On a thread of its own, in a namespace of its own where the process may make one.
fn apart(act: fn() -> io::Result<()>) -> io::Result<()> {
    let thread = thread::Builder::new().name("probe".to_owned()).spawn(move || {
        if let Err(e) = unshare(CloneFlags::CLONE_NEWNET) {
            tracing::debug!("parts of the kernel are tried in the host's namespace: {e}");
        }
        act()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
}

fn try_vxlan() -> io::Result<()> {
    let mut socket = Socket::open(Part::Route)?;
    Change::default().name(PROBE).make_vxlan(&mut socket, PROBE_VXLAN)?;
    let made = links::links(&mut socket)?.into_iter().find(|link| link.name == PROBE);
    made.map_or(Ok(()), |link| links::remove(&mut socket, link.index))
}

fn try_tun() -> io::Result<()> {
    tap::open(PROBE_TAP, false).map(drop)
}

/// Loads tables like those of containers.
fn try_nft() -> io::Result<()> {
    let mut loaded = Loaded::open()?;
    loaded.load(&Table::sample())?;
    loaded.remove()
}

fn try_setns() -> io::Result<()> {
    let own = File::open(OWN_NAMESPACE)?;
    Ok(move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_named_is_missing() {
        let all = ["vxlan", "tun", "nft", "setns"].map(str::to_owned);
        let abilities = probe(&all.into());
        for (part, name) in
            [(abilities.vxlan, "vxlan"), (abilities.tun, "tun"), (abilities.nft, "nft"), (abilities.setns, "setns")]
        {
            assert!(part.unwrap_err().contains(name));
        }
    }

    #[test]
    fn root_can_use_namespaces_and_tables() {
        if rustix::process::geteuid().is_root() {
            let abilities = probe(&BTreeSet::new());
            assert_eq!((abilities.vxlan, abilities.nft, abilities.setns), (Ok(()), Ok(()), Ok(())));
            assert_eq!(abilities.tun.is_ok(), std::path::Path::new("/dev/net/tun").exists());
        }
    }
}
