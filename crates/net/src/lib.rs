//! The process `swarmd net`: bridges, devices, tables and sockets of networks.

pub mod netlink;
pub mod nft;
pub mod protocol;
