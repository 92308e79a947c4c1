//! The LAN: a bridge in a namespace of its own, and a cable from there to each host.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::host::Host;
use crate::process;

/// Namespace of the bridge.
const LAN: &str = "swarmd-lan";
/// The bridge's own address, which hosts take for their way out: there is none, but an engine wants a route.
const GATEWAY: &str = "10.77.0.1";
/// Length of the network's prefix.
const PREFIX: u8 = 24;

/// Makes bridge, namespaces and cables that are missing.
pub(super) fn ensure(hosts: &[Host]) -> Result<()> {
    if !exists(LAN) {
        ip(&["netns", "add", LAN])?;
        ip(&["-n", LAN, "link", "set", "lo", "up"])?;
        ip(&["-n", LAN, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", LAN, "addr", "add", &format!("{GATEWAY}/{PREFIX}"), "dev", "br0"])?;
        ip(&["-n", LAN, "link", "set", "br0", "up"])?;
    }
    for host in hosts.iter().filter(|host| !exists(&host.namespace())) {
        let (name, port) = (host.namespace(), port(host));
        ip(&["netns", "add", &name])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        ip(&["-n", &name, "link", "add", "lan0", "type", "veth", "peer", "name", &port, "netns", LAN])?;
        ip(&["-n", &name, "addr", "add", &format!("{}/{PREFIX}", host.ip()), "dev", "lan0"])?;
        ip(&["-n", &name, "link", "set", "lan0", "up"])?;
        ip(&["-n", &name, "route", "add", "default", "via", GATEWAY])?;
        ip(&["-n", LAN, "link", "set", &port, "master", "br0", "up"])?;
    }
    Ok(())
}

/// Pulls a host's cable.
pub(super) fn cut(host: &Host) -> Result<()> {
    ip(&["-n", LAN, "link", "set", &port(host), "down"])
}

/// Plugs it in again.
pub(super) fn heal(host: &Host) -> Result<()> {
    ip(&["-n", LAN, "link", "set", &port(host), "up"])
}

/// Removes namespaces of hosts, and the LAN.
pub(super) fn remove(hosts: &[Host]) -> Result<()> {
    let names = hosts.iter().map(Host::namespace).chain([LAN.to_owned()]);
    names.filter(|name| exists(name)).try_for_each(|name| ip(&["netns", "delete", &name]))
}

/// Lets this thread use the LAN's network from now on, as a machine beside the hosts.
pub(super) fn enter() -> Result<()> {
    let path = namespace_file(LAN);
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter {path}"))
}

/// The file of a network namespace.
pub(super) fn namespace_file(name: &str) -> String {
    format!("/run/netns/{name}")
}

fn exists(name: &str) -> bool {
    Path::new(&namespace_file(name)).exists()
}

/// The bridge's end of a host's cable.
fn port(host: &Host) -> String {
    format!("h{}", host.number())
}

fn ip(arguments: &[&str]) -> Result<()> {
    process::output(Command::new("ip").args(arguments)).map(drop)
}
