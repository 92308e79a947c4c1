//! Network namespaces as hosts and containers, and swarmd, which says how things are to be.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use swarm_model::{NodeId, ObjectId};
use swarm_wire::{Receiver, Sender, channel, networks::Subnet};
use tokio::{
    io::{ReadHalf, WriteHalf},
    net::UnixStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub(super) use crate::testing::{Netns, is_skipped};
use crate::{
    Options, mac_of,
    process::run_without,
    protocol::{Caller, Configuration, FromNet, LocalContainer, LocalNetwork, NET_PROTOCOL, ToNet},
};

/// Longest wait for anything: machines may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The network of most tests.
pub(super) const NETWORK: ObjectId = ObjectId(0x77);
pub(super) const VNI: u32 = 4097;
pub(super) const BRIDGE: &str = "sw4097";
pub(super) const DEVICE: &str = "vx4097";
pub(super) const MTU: u32 = 1450;
pub(super) const PORT: u16 = 8080;

/// Waits for what has to come.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it should have come long ago")
}

/// Waits until a condition holds.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A host: `swarmd net` runs in its namespace.
pub(super) struct Host {
    pub(super) netns: Netns,
    pub(super) addr: IpAddr,
    folder: tempfile::TempDir,
    without: BTreeSet<String>,
    cancel: CancellationToken,
    thread: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Begins `swarmd net` in a namespace.
fn start(
    netns: &Netns,
    socket: PathBuf,
    without: BTreeSet<String>,
    cancel: CancellationToken,
) -> thread::JoinHandle<anyhow::Result<()>> {
    let options = Options { socket, cancel, leave: CancellationToken::new(), on_ready: Box::new(|| {}) };
    netns.spawn(run_without(options, without))
}

impl Host {
    /// A host with the bridge of the network, as an engine makes it.
    pub(super) async fn new(addr: &str) -> Self {
        let netns = Netns::new();
        netns.run(&format!(
            "ip link add {BRIDGE} type bridge
             ip link set {BRIDGE} mtu {MTU} up
             ip addr add 10.77.0.1/24 dev {BRIDGE}
             ip addr add fd77::1/64 dev {BRIDGE} nodad"
        ));
        Self::in_netns(netns, addr).await
    }

    pub(super) async fn in_netns(netns: Netns, addr: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(folder.path().join("netns")).unwrap();
        let (without, cancel) = (BTreeSet::new(), CancellationToken::new());
        let mut host = Self { netns, addr: ip(addr), folder, without, cancel, thread: None };
        host.begin().await;
        host
    }

    async fn begin(&mut self) {
        self.cancel = CancellationToken::new();
        self.thread = Some(start(&self.netns, self.socket(), self.without.clone(), self.cancel.clone()));
        until(|| std::os::unix::net::UnixStream::connect(self.socket()).is_ok()).await;
    }

    /// Ends `swarmd net`; its devices and tables stay.
    pub(super) async fn end(&mut self) {
        self.cancel.cancel();
        let thread = self.thread.take().unwrap();
        until(|| thread.is_finished()).await;
        thread.join().unwrap().unwrap();
    }

    pub(super) async fn start_again(&mut self) {
        self.end().await;
        self.begin().await;
    }

    /// The process ends, and another one is told that the node is in no network.
    pub(super) async fn start_again_without_networks(&mut self) -> Swarmd {
        self.start_again().await;
        let mut swarmd = Swarmd::connect(&self.socket()).await;
        swarmd.say(ToNet::Configure(self.configuration("c1"))).await;
        swarmd.say(ToNet::Complete).await;
        swarmd
    }

    /// The same on a kernel without a part.
    pub(super) async fn start_again_without(&mut self, part: &str) {
        self.end().await;
        self.without = [part.to_owned()].into();
        self.begin().await;
    }

    /// Waits until `swarmd net` has ended by itself.
    pub(super) async fn has_ended(&mut self) {
        let thread = self.thread.take().unwrap();
        until(|| thread.is_finished()).await;
        thread.join().unwrap().unwrap();
    }

    /// Another `swarmd net` in the namespace of this one.
    pub(super) async fn neighbour(&self, addr: &str) -> Self {
        Self::in_netns(self.netns.again(), addr).await
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(super) fn sandboxes(&self) -> PathBuf {
        self.folder.path().join("netns")
    }

    pub(super) fn configuration(&self, cluster: &str) -> Configuration {
        Configuration {
            node: NodeId(1),
            cluster: cluster.to_owned(),
            data_addr: self.addr,
            sandboxes: self.sandboxes(),
        }
    }

    /// Connects as swarmd, and says the configuration and the network.
    pub(super) async fn swarmd(&self) -> Swarmd {
        let mut swarmd = Swarmd::connect(&self.socket()).await;
        swarmd.say(ToNet::Configure(self.configuration("c1"))).await;
        swarmd.say(ToNet::PutNetwork(network())).await;
        swarmd
    }

    /// A container with this last part of its addresses, as an engine makes it.
    pub(super) fn container(&self, last: u8) -> Container {
        let (netns, v4, v6) = (Netns::new(), ip(&format!("10.77.0.{last}")), ip(&format!("fd77::{last:x}")));
        let mac = mac_of(&[v4, v6]).unwrap().map(|byte| format!("{byte:02x}")).join(":");
        let end = format!("veth{last}");
        self.netns.pair(&end, &netns, "eth0");
        self.netns.run(&format!("ip link set {end} mtu {MTU} master {BRIDGE} up"));
        netns.run(&format!(
            "ip link set eth0 address {mac} mtu {MTU} up
             ip addr add {v4}/24 dev eth0
             ip addr add {v6}/64 dev eth0 nodad
             ip route add default via 10.77.0.1"
        ));
        let sandbox = self.sandboxes().join(format!("c{last}"));
        Container { id: format!("c{last}"), netns, v4, v6, end, sandbox }
    }
}

/// The network of most tests.
pub(super) fn network() -> LocalNetwork {
    let subnet = |range: &str, gateway: &str| Subnet { range: range.parse().unwrap(), gateway: ip(gateway) };
    LocalNetwork {
        data_port: crate::protocol::DATA_PORT,
        id: NETWORK,
        vni: VNI,
        bridge: BRIDGE.to_owned(),
        mtu: MTU,
        subnets: vec![subnet("10.77.0.0/24", "10.77.0.1"), subnet("fd77::/64", "fd77::1")],
        has_device: true,
        encrypted: false,
    }
}

/// A container.
pub(super) struct Container {
    pub(super) id: String,
    pub(super) netns: Netns,
    pub(super) v4: IpAddr,
    pub(super) v6: IpAddr,
    /// The name of its end on the host.
    pub(super) end: String,
    sandbox: PathBuf,
}

impl Container {
    /// Shows its namespace in the engine's folder.
    pub(super) fn show(&self) -> PathBuf {
        symlink(self.netns.path(), &self.sandbox).unwrap();
        self.sandbox.clone()
    }

    /// Unmounts its namespace, as the engine does: the file stays for a while.
    pub(super) fn unmount(&self) {
        let empty = self.sandbox.with_extension("empty");
        File::create(&empty).unwrap();
        fs::rename(&empty, &self.sandbox).unwrap();
    }

    /// The name of its file from now on.
    pub(super) fn rename(&mut self, name: &str) {
        self.sandbox.set_file_name(name);
    }

    /// The same, where it is shown already.
    pub(super) fn show_again(&self) -> PathBuf {
        self.sandbox.clone()
    }

    pub(super) fn hide(&self) {
        fs::remove_file(&self.sandbox).unwrap();
    }

    pub(super) fn record(&self, sandbox: Option<PathBuf>) -> LocalContainer {
        LocalContainer { id: self.id.clone(), addrs: vec![(NETWORK, self.v4), (NETWORK, self.v6)], sandbox }
    }

    pub(super) fn peer(&self, host: &Host) -> ToNet {
        ToNet::PutPeer { network: NETWORK, addrs: vec![self.v4, self.v6], at: host.addr }
    }

    /// Answers each connection and each datagram with its id, at all its addresses.
    pub(super) fn serve(&self) {
        // A socket at this address takes connections over IPv4 too.
        let any = SocketAddr::new(ip("::"), PORT);
        let (tcp, udp) = self.netns.within(|| (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap()));
        let (id, other) = (self.id.clone(), self.id.clone());
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let id = id.clone();
                thread::spawn(move || {
                    let _ = stream.write_all(id.as_bytes());
                    // Until the client ends it.
                    let _ = stream.read(&mut [0]);
                });
            }
        });
        thread::spawn(move || {
            while let Ok((_, from)) = udp.recv_from(&mut [0; 100]) {
                let _ = udp.send_to(other.as_bytes(), from);
            }
        });
    }

    /// Connects; the id of the container that answers, and the connection.
    pub(super) fn connect(&self, to: IpAddr) -> io::Result<(String, TcpStream)> {
        self.netns.within(|| {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), Duration::from_secs(1))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut id = [0; 100];
            let len = stream.read(&mut id)?;
            Ok((String::from_utf8_lossy(&id[..len]).into_owned(), stream))
        })
    }

    /// The ids of the containers that answer a number of connections.
    pub(super) fn answering(&self, to: IpAddr, connections: usize) -> BTreeSet<String> {
        (0..connections).map(|_| self.connect(to).unwrap().0).collect()
    }

    /// Sends datagrams from one port until one is answered.
    pub(super) fn ask(&self, socket: &UdpSocket, to: IpAddr) -> String {
        loop {
            let mut id = [0; 100];
            socket.send_to(b"?", SocketAddr::new(to, PORT)).unwrap();
            if let Ok((len, _)) = socket.recv_from(&mut id) {
                return String::from_utf8_lossy(&id[..len]).into_owned();
            }
        }
    }

    pub(super) fn udp(&self) -> UdpSocket {
        self.netns.within(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket
        })
    }

    /// Waits until a connection is made. New links take a moment until frames pass.
    pub(super) async fn reaches(&self, to: IpAddr) -> String {
        let mut id = None;
        until(|| {
            id = self.connect(to).ok();
            id.is_some()
        })
        .await;
        id.unwrap().0
    }

    pub(super) fn has_table(&self) -> bool {
        self.netns.within(|| crate::nft::Tables::open().unwrap().has(crate::nft::Family::Ip, "swarmd").unwrap())
    }
}

/// A connection of swarmd.
pub(super) struct Swarmd {
    sender: Sender<WriteHalf<UnixStream>, ToNet>,
    receiver: Receiver<ReadHalf<UnixStream>, FromNet>,
    syncs: u64,
    /// The warnings that were said last.
    pub(super) warnings: Vec<String>,
}

impl Swarmd {
    pub(super) async fn connect(socket: &Path) -> Self {
        let (sender, receiver) = channel(UnixStream::connect(socket).await.unwrap());
        let mut swarmd = Self { sender, receiver, syncs: 0, warnings: Vec::new() };
        assert!(matches!(swarmd.hear().await, Some(FromNet::Hello { protocol: NET_PROTOCOL, .. })));
        swarmd.say(ToNet::Hello { protocol: NET_PROTOCOL, caller: Caller::Swarmd }).await;
        swarmd
    }

    pub(super) async fn say(&mut self, message: ToNet) {
        self.sender.send(&message).await.unwrap();
    }

    /// The next message; none when the connection was closed.
    pub(super) async fn hear(&mut self) -> Option<FromNet> {
        let message = soon(self.receiver.recv()).await.ok().flatten();
        if let Some(FromNet::Warnings(warnings)) = &message {
            self.warnings = warnings.iter().map(|warning| warning.text.clone()).collect();
        }
        message
    }

    /// Hears until a message is the one that is looked for.
    pub(super) async fn hear_of<T>(&mut self, mut pick: impl FnMut(FromNet) -> Option<T>) -> T {
        loop {
            let message = self.hear().await.expect("swarmd net closed the connection");
            if let Some(found) = pick(message) {
                return found;
            }
        }
    }

    /// Waits until the kernel has what was said.
    pub(super) async fn sync(&mut self) {
        self.syncs += 1;
        let number = self.syncs;
        self.say(ToNet::Sync(number)).await;
        self.hear_of(|message| match message {
            FromNet::NotReady { container, reason } => panic!("{container}: {reason}"),
            message => (message == FromNet::Synced(number)).then_some(()),
        })
        .await;
    }

    /// The same where containers have no tables.
    pub(super) async fn sync_without_tables(&mut self) {
        self.say(ToNet::Sync(0)).await;
        self.hear_of(|message| (message == FromNet::Synced(0)).then_some(())).await;
    }

    /// Waits until a container's tables are loaded.
    pub(super) async fn ready(&mut self, container: &Container) {
        let id = container.id.clone();
        self.hear_of(|message| match message {
            FromNet::NotReady { container, reason } if container == id => panic!("{reason}"),
            message => (message == FromNet::Ready { container: id.clone() }).then_some(()),
        })
        .await;
    }

    /// Waits until the warnings are as wanted.
    pub(super) async fn warned(&mut self, mut wanted: impl FnMut(&[String]) -> bool) {
        while !wanted(&self.warnings) {
            self.hear().await.expect("swarmd net closed the connection");
        }
    }
}
