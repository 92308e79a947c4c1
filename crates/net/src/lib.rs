//! The process `swarmd net`: bridges, devices, tables and sockets of networks.
//!
//! It has the rights to change the network of this host and of its containers, and reads from no network socket. It
//! does what swarmd says over a Unix socket ([`protocol`]), and puts back what somebody else removes, also while swarmd
//! is away.

mod claim;
mod client;
mod conntrack;
mod containers;
mod control;
pub mod descriptors;
mod finder;
mod host;
mod keeper;
mod links;
pub mod netlink;
pub mod nft;
mod peers;
mod probe;
pub mod process;
pub mod protocol;
pub mod readable;
mod reports;
mod routes;
pub mod socket;
mod space;
mod state;
mod table;
mod tap;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use client::{ResolverSockets, resolver_sockets, switch_queue};
pub use peers::{Mac, mac_of};
pub use process::{Options, run};

#[cfg(test)]
mod tests;
