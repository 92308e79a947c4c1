//! A network of the cluster is a bridge network of the engine on each of its nodes. The name of the bridge follows from the
//! network.

use swarm_model::NetworkContent;

/// Bytes that VXLAN adds to a packet, over IPv4.
const OVERHEAD_BYTES: u32 = 50;
/// The largest packet of most networks below.
const UNDERLAY_MTU: u32 = 1500;

/// The name of the bridge of a network. Two clusters on one host have different ports, and so different bridges.
pub(crate) fn bridge(content: &NetworkContent) -> String {
    match content.data_port {
        NetworkContent::DATA_PORT_DEFAULT => format!("sw{}", content.vni),
        // 15 characters are the most that a device's name can have.
        port => format!("sw{}-{port:x}", content.vni),
    }
}

/// The largest packet of its containers, in bytes. Frames of an encrypted network travel in a stream of TCP, which takes any
/// size: its packets are as large as those to other hosts.
pub(crate) fn mtu(content: &NetworkContent) -> u32 {
    let overhead = if content.encrypted { 0 } else { OVERHEAD_BYTES };
    content.mtu.unwrap_or(UNDERLAY_MTU - overhead)
}
