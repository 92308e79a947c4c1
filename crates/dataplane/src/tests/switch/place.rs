//! Hosts on one LAN, each with a container in an encrypted network.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt::RcvBufForce};
use rustix::net::{
    RecvFlags, recv,
    sockopt::{Timeout, set_socket_timeout},
};
use swarm_model::{ClusterId, NodeId, NodeRole, ObjectId, ServiceId, TaskId};
use swarm_net::{
    mac_of,
    protocol::{Caller, DATA_PORT, FromNet, LocalNetwork, NET_PROTOCOL, ToNet},
    testing::Netns,
};
use swarm_wire::{
    Ca,
    agent::Shared,
    channel, clock,
    endpoints::{NodeRecord, Record, TableVersion},
    networks::{
        Member, MemberChange, NetworkEndpointRecord, NetworkEndpointState, NetworkNodeRecord, NetworkRecord,
        NetworkUpdate, Subnet,
    },
    new_key_and_csr,
};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::super::host::{Swarmd, Table};
use crate::{
    Control, Holding, Options,
    protocol::{Configuration, Identity, SwitchStats, ToData},
    testing::{eventually, until, wanted},
};

pub(super) const PORT: u16 = 8080;
const NETWORK: ObjectId = ObjectId(0x77);
const VNI: u32 = 4097;
const LINKS_PORT: u16 = 7946;
const HOUR_NS: i64 = 3_600_000_000_000;
const MTU: u32 = 1500;
/// Memory for packets that are captured while nobody reads.
const RECEIVED_BYTES: usize = 64 << 20;
/// The longest packet that is captured.
const PACKET_BYTES_MAX: usize = 128 << 10;

fn subnets() -> Vec<Subnet> {
    let subnet =
        |range: &str, gateway: &str| Subnet { range: range.parse().unwrap(), gateway: gateway.parse().unwrap() };
    vec![subnet("10.77.0.0/24", "10.77.0.1"), subnet("fd77::/64", "fd77::1")]
}

/// A container in the network.
pub(super) struct Container {
    pub(super) netns: Netns,
    pub(super) v4: IpAddr,
    pub(super) v6: IpAddr,
    mac: String,
    socket: UdpSocket,
}

impl Container {
    fn new(host: &Netns, last: u8) -> Self {
        let (netns, v4, v6) = (Netns::new(), [10, 77, 0, last].into(), format!("fd77::{last:x}").parse().unwrap());
        let mac = mac_of(&[v4, v6]).unwrap().map(|byte| format!("{byte:02x}")).join(":");
        host.pair("veth0", &netns, "eth0");
        host.run(&format!("ip link set veth0 mtu {MTU} master sw{VNI} up"));
        netns.run(&format!(
            "ip link set eth0 address {mac} mtu {MTU} up
             ip addr add {v4}/24 dev eth0
             ip addr add {v6}/64 dev eth0 nodad"
        ));
        let socket = netns.within(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
        socket.set_nonblocking(true).unwrap();
        Self { netns, v4, v6, mac, socket }
    }

    /// Connects, once there is a way.
    pub(super) async fn connect(&self, addr: IpAddr) -> TcpStream {
        let addr = SocketAddr::new(addr, PORT);
        let connect = || TcpStream::connect_timeout(&addr, Duration::from_secs(1));
        eventually(async || self.netns.within(connect)).await
    }

    pub(super) fn send(&self, bytes: &[u8], other: &Self) {
        // A neighbour that is asked for takes a while to be known.
        let _ = self.socket.send_to(bytes, (other.v4, PORT));
    }

    /// Sends datagrams until one comes.
    pub(super) async fn datagram(&self, other: &Self) {
        until(|| {
            self.send(b"?", other);
            !other.datagrams().is_empty()
        })
        .await;
    }

    /// The datagrams that have come.
    pub(super) fn datagrams(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 100];
        std::iter::from_fn(|| self.socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())).collect()
    }

    /// Takes the addresses of another container.
    pub(super) fn pose_as(&self, other: &Self) {
        self.netns.run(&format!(
            "ip link set eth0 address {}
             ip addr del {}/24 dev eth0
             ip addr add {}/24 dev eth0",
            other.mac, self.v4, other.v4
        ));
    }
}

/// A host: a node with a container.
pub(super) struct Host {
    id: u8,
    pub(super) netns: Netns,
    pub(super) container: Container,
    folder: tempfile::TempDir,
    net: Option<(CancellationToken, thread::JoinHandle<anyhow::Result<()>>)>,
    data: Option<(CancellationToken, thread::JoinHandle<anyhow::Result<()>>)>,
    identity: Identity,
    to_data: Option<Swarmd>,
    to_net: Option<UnixStream>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end_data();
        self.end_net();
    }
}

impl Host {
    async fn start(id: u8, lan: &Netns, ca: &Ca) -> Self {
        let netns = Netns::new();
        netns.run(&format!(
            "ip link add sw{VNI} type bridge
             ip link set sw{VNI} mtu {MTU} up
             ip addr add 10.77.0.1/24 dev sw{VNI}
             ip addr add fd77::1/64 dev sw{VNI} nodad"
        ));
        lan.pair(&format!("h{id}"), &netns, "lan0");
        lan.run(&format!("ip link set h{id} master lan up"));
        netns.run(&format!(
            "ip addr add 192.0.2.{id}/24 dev lan0
             ip link set lan0 up"
        ));
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let (key, csr) = new_key_and_csr().unwrap();
        let node = NodeId(id.into());
        let issued = ca.issue(&csr, node, NodeRole::Worker, ClusterId(9), HOUR_NS, clock::now()).unwrap();
        let identity = Identity { certificate: issued.cert_pem, key, trusted: ca.cert_pem().to_owned() };
        let container = Container::new(&netns, 10 + id);
        let (net, data, to_data, to_net) = (None, None, None, None);
        let mut host = Self { id, netns, container, folder, net, data, identity, to_data, to_net };
        host.begin_net().await;
        host.begin_data(false).await;
        host
    }

    fn addr(&self) -> IpAddr {
        [192, 0, 2, self.id].into()
    }

    fn node(&self) -> NodeId {
        NodeId(self.id.into())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) async fn begin_net(&mut self) {
        let cancel = CancellationToken::new();
        let (socket, leave) = (self.path("net.sock"), CancellationToken::new());
        let options = swarm_net::Options { socket, cancel: cancel.clone(), leave, on_ready: Box::new(|| {}) };
        self.net = Some((cancel, self.netns.spawn(swarm_net::run(options))));
        let path = self.path("net.sock");
        let stream = eventually(async || UnixStream::connect(&path).await).await;
        let second = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned().unwrap();
        let (mut sender, mut receiver) = channel::<_, ToNet, FromNet>(stream);
        assert!(matches!(receiver.recv().await, Ok(Some(FromNet::Hello { .. }))));
        let local = LocalNetwork {
            id: NETWORK,
            vni: VNI,
            data_port: DATA_PORT,
            bridge: format!("sw{VNI}"),
            mtu: MTU,
            subnets: subnets(),
            has_device: true,
            encrypted: true,
        };
        let configuration = swarm_net::protocol::Configuration {
            node: self.node(),
            cluster: "c1".to_owned(),
            data_addr: self.addr(),
            sandboxes: self.folder.path().to_owned(),
        };
        for message in [
            ToNet::Hello { protocol: NET_PROTOCOL, caller: Caller::Swarmd },
            ToNet::Configure(configuration),
            ToNet::PutNetwork(local),
            ToNet::Complete,
        ] {
            sender.send(&message).await.unwrap();
        }
        self.to_net = Some(UnixStream::from_std(second.into()).unwrap());
    }

    /// Ends `swarmd net`. The device stays.
    pub(super) fn end_net(&mut self) {
        self.to_net = None;
        if let Some((cancel, thread)) = self.net.take() {
            cancel.cancel();
            thread.join().unwrap().unwrap();
        }
    }

    /// Begins a data plane, which takes over from the one before if it is an heir.
    pub(super) async fn begin_data(&mut self, is_heir: bool) {
        let stop = CancellationToken::new();
        let options = Options {
            control: Control::Path(self.path("data.sock")),
            is_heir,
            holding: Holding::default(),
            shows_clients: false,
            stop: stop.clone(),
            descriptors_max: None,
            on_ready: Box::new(|| {}),
        };
        let before = self.data.replace((stop, self.netns.spawn(crate::run(options))));
        if let Some((_, thread)) = before {
            until(|| thread.is_finished()).await;
            thread.join().unwrap().unwrap();
        }
        self.to_data = Some(Swarmd::greet(&self.path("data.sock")).await.0);
    }

    pub(super) fn end_data(&mut self) {
        self.to_data = None;
        if let Some((stop, thread)) = self.data.take() {
            stop.cancel();
            thread.join().unwrap().unwrap();
        }
    }

    async fn say(&mut self, message: ToData) {
        self.to_data.as_mut().unwrap().say(message).await;
    }

    /// Tells the data plane everything.
    async fn tell(&mut self, table: &mut Table, members: &[MemberChange]) {
        self.say(ToData::Configure(Configuration {
            node: self.node(),
            ingress: Vec::new(),
            data_addr: SocketAddr::new(self.addr(), LINKS_PORT),
            net_socket: Some(self.path("net.sock")),
        }))
        .await;
        self.say(ToData::Identity(self.identity.clone())).await;
        self.to_data.as_mut().unwrap().apply(table).await;
        self.say(ToData::PutNetwork(NetworkRecord {
            id: NETWORK,
            name: "net".to_owned(),
            vni: VNI,
            subnets: subnets(),
            mtu: None,
            internal: false,
            encrypted: true,
        }))
        .await;
        for update in NetworkUpdate::batches(NETWORK, true, TableVersion::default(), members) {
            self.say(ToData::Members(update)).await;
        }
    }

    pub(super) async fn stats(&mut self) -> SwitchStats {
        self.to_data.as_mut().unwrap().stats().await.switch
    }

    /// Waits until the warnings of the data plane are as wanted.
    pub(super) async fn warned(&mut self, wanted: impl FnMut(&[String]) -> bool) {
        self.to_data.as_mut().unwrap().warned(wanted).await;
    }

    pub(super) async fn leave_network(&mut self) {
        self.say(ToData::RemoveNetwork(NETWORK)).await;
    }

    /// Sends bytes to another host on the LAN as they are.
    pub(super) fn send_in_clear(&self, other: &Self, bytes: &[u8]) {
        self.netns.within(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            socket.send_to(bytes, (other.addr(), 9)).unwrap();
        });
    }
}

/// The bytes that were captured.
#[derive(Default)]
pub(super) struct Capture {
    seen: Arc<Mutex<Vec<u8>>>,
    has_ended: Arc<AtomicBool>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

impl Capture {
    /// All bytes, once these are among them.
    pub(super) async fn until_seen(&self, bytes: &[u8]) -> Vec<u8> {
        eventually(async || {
            let seen = self.seen.lock().unwrap().clone();
            wanted(seen, |seen| seen.windows(bytes.len()).any(|part| part == bytes)).map_err(|seen| seen.len())
        })
        .await
    }
}

/// Hosts on one LAN.
pub(super) struct Cluster {
    pub(super) hosts: Vec<Host>,
    lan: Netns,
}

impl Cluster {
    pub(super) async fn start(hosts: u8) -> Self {
        let lan = Netns::new();
        lan.run("ip link add lan type bridge\nip link set lan up");
        let ca = Ca::create().unwrap();
        let mut cluster = Self { hosts: Vec::new(), lan };
        for id in 1..=hosts {
            cluster.hosts.push(Host::start(id, &cluster.lan, &ca).await);
        }
        cluster.tell().await;
        cluster
    }

    /// Captures the packets on the LAN, which no container is on.
    pub(super) fn capture(&self) -> Capture {
        let capture = Capture::default();
        let (seen, ended) = (Arc::clone(&capture.seen), Arc::clone(&capture.has_ended));
        let raw = self.lan.within(|| {
            let (family, kind, protocol) = (AddressFamily::Packet, SockType::Raw, SockProtocol::EthAll);
            let raw = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
            setsockopt(&raw, RcvBufForce, &RECEIVED_BYTES).unwrap();
            raw
        });
        set_socket_timeout(&raw, Timeout::Recv, Some(Duration::from_millis(100))).unwrap();
        thread::spawn(move || {
            let mut buffer = vec![0; PACKET_BYTES_MAX];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((len, _)) = recv(&raw, &mut buffer[..], RecvFlags::empty()) {
                    seen.lock().unwrap().extend_from_slice(&buffer[..len]);
                }
            }
        });
        capture
    }

    /// Tells all data planes of all nodes and containers.
    pub(super) async fn tell(&mut self) {
        let mut table = Table::default();
        let mut members = Vec::new();
        for host in &self.hosts {
            let (id, data_addr) = (host.node(), host.addr());
            table.put(Record::Node(NodeRecord { id, data_addr: SocketAddr::new(data_addr, LINKS_PORT) }));
            members.push(Member::Node(NetworkNodeRecord { id, data_addr, engine: format!("engine{}", host.id) }));
            members.push(Member::Endpoint(NetworkEndpointRecord {
                task: TaskId(host.id.into()),
                service: Some(ServiceId(7)),
                node: id,
                addrs: vec![host.container.v4, host.container.v6],
                names: Vec::new(),
                state: NetworkEndpointState::In,
            }));
        }
        let members: Vec<_> = members.iter().map(|member| MemberChange::Put(Shared::new(member).unwrap())).collect();
        for host in &mut self.hosts {
            host.tell(&mut table, &members).await;
        }
    }
}
