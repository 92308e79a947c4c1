//! Network namespaces: this process is the host, and two processes that sleep keep the container's and the client's.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{io::AsyncReadExt, net::TcpSocket, time::timeout};

use super::super::host::TARGET;
use crate::testing::{eventually, soon, until, wanted};

/// The host's addresses: towards the client, and towards the container.
pub(super) const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
pub(super) const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 1));
pub(super) const BRIDGE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 87, 0, 1));
pub(super) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
pub(super) const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 7));
pub(super) const TASK: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 87, 0, 2));
pub(super) const TASK_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd87, 0, 0, 0, 0, 0, 0, 2));

/// Set for the process of a test that is in its own namespaces.
const INSIDE: &str = "SWARM_TEST_NAMESPACE";

/// Runs a test in a network of its own. `name` is that of the test. Skips it where no network can be made.
pub(super) fn in_a_network<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Network) -> F) {
    let is_root = rustix::process::geteuid().is_root();
    let namespaces: &[&str] = if is_root { &["--net"] } else { &["--user", "--map-root-user", "--net"] };
    let needed: [&[&str]; 2] = [&["ip", "link", "add", "br0", "type", "bridge"], &["nft", "list", "tables"]];
    in_namespaces(name, namespaces, &needed, || async { test(Network::make().await).await });
}

/// Runs a test without rights.
pub(super) fn without_rights<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    in_namespaces(name, &["--user"], &[&["true"]], test);
}

/// Runs a test in namespaces of its own, and so in another process, which runs this test alone.
fn in_namespaces<F: Future<Output = ()>>(
    name: &str,
    namespaces: &[&str],
    needed: &[&[&str]],
    test: impl FnOnce() -> F,
) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(test());
    }
    let inside = |program: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(program).env(INSIDE, "1");
        command.output()
    };
    if !needed.iter().all(|program| inside(program).is_ok_and(|output| output.status.success())) {
        let text = format!("{name} is skipped: it needs `unshare`, `ip`, `nft`, and the right to make namespaces\n");
        let _ = std::io::stderr().write_all(text.as_bytes());
        return;
    }
    let program = std::env::current_exe().unwrap();
    let output = inside(&[program.to_str().unwrap(), name, "--exact", "--nocapture"]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "no test has the name {name}: {said}");
}

/// Runs a program; what it printed.
pub(super) fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A network namespace.
struct Space(Child);

impl Space {
    async fn make() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap();
        let space = Self(child);
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        until(|| fs::read_link(space.path()).is_ok_and(|other| other != own)).await;
        space
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Does something in it.
    fn within<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let file = fs::File::open(self.path()).unwrap();
        let thread = thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        });
        thread.join().unwrap()
    }

    /// Connects it with a device `eth0` that has these addresses; the other end is `outside`.
    fn connect(&self, outside: &str, addrs: [(IpAddr, IpAddr); 2]) {
        let pid = self.0.id().to_string();
        run(&["ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        run(&["ip", "link", "set", outside, "up"]);
        self.within(move || {
            run(&["ip", "link", "set", "lo", "up"]);
            run(&["ip", "link", "set", "eth0", "up"]);
            for (addr, gateway) in addrs {
                give("eth0", addr);
                run(&["ip", "route", "add", "default", "via", &gateway.to_string()]);
            }
        });
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gives a device an address, which is usable at once.
fn give(device: &str, addr: IpAddr) {
    if addr.is_ipv4() {
        run(&["ip", "addr", "add", &format!("{addr}/24"), "dev", device]);
    } else {
        run(&["ip", "addr", "add", &format!("{addr}/64"), "dev", device, "nodad"]);
    }
}

fn socket_for(addr: IpAddr) -> std::io::Result<TcpSocket> {
    if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

/// Waits until an address refuses a connection to a port that nobody listens on.
async fn until_refused(new: impl Fn() -> std::io::Result<TcpSocket>, addr: IpAddr) {
    let is_refused = |e: &std::io::Error| e.kind() == ErrorKind::ConnectionRefused;
    eventually(async || {
        let connecting = timeout(Duration::from_secs(1), new().unwrap().connect((addr, 1).into())).await;
        wanted(connecting, |connecting| matches!(connecting, Ok(Err(e)) if is_refused(e)))
    })
    .await
    .ok();
}

/// A host with a bridge, a container and a client.
pub(super) struct Network {
    container: Space,
    client: Space,
}

impl Network {
    async fn make() -> Self {
        let (container, client) = (Space::make().await, Space::make().await);
        run(&["ip", "link", "set", "lo", "up"]);
        run(&["ip", "link", "add", "br0", "type", "bridge"]);
        run(&["ip", "link", "set", "br0", "up"]);
        let bridge_v6 = "fd87::1".parse().unwrap();
        give("br0", BRIDGE);
        give("br0", bridge_v6);
        container.connect("c0", [(TASK, BRIDGE), (TASK_V6, bridge_v6)]);
        run(&["ip", "link", "set", "c0", "master", "br0"]);
        client.connect("e0", [(CLIENT, GATEWAY), (CLIENT_V6, GATEWAY_V6)]);
        give("e0", GATEWAY);
        give("e0", GATEWAY_V6);
        let network = Self { container, client };
        // New devices take a moment until frames pass, most of all for IPv6.
        for addr in [TASK, TASK_V6] {
            until_refused(|| socket_for(addr), addr).await;
        }
        for addr in [GATEWAY, GATEWAY_V6] {
            until_refused(|| network.client.within(move || socket_for(addr)), addr).await;
        }
        network
    }

    /// The container says to each connection who it is from.
    pub(super) fn serve(&self, addr: IpAddr) {
        let listener = self.container.within(move || TcpListener::bind((addr, TARGET)).unwrap());
        thread::spawn(move || {
            while let Ok((mut stream, from)) = listener.accept() {
                let _ = stream.write_all(from.to_string().as_bytes());
            }
        });
    }

    /// The container says to each connection which bytes came first.
    pub(super) fn serve_bytes(&self, addr: SocketAddr) {
        let listener = self.container.within(move || TcpListener::bind(addr).unwrap());
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut bytes = [0; 100];
                let len = stream.read(&mut bytes).unwrap();
                let _ = stream.write_all(format!("{:?}", &bytes[..len]).as_bytes());
            }
        });
    }

    /// The container answers each datagram with the address that it is from.
    pub(super) fn serve_datagrams(&self, addr: IpAddr) {
        let socket = self.container.within(move || UdpSocket::bind((addr, TARGET)).unwrap());
        thread::spawn(move || {
            while let Ok((_, from)) = socket.recv_from(&mut [0; 100]) {
                let _ = socket.send_to(from.to_string().as_bytes(), from);
            }
        });
    }

    /// The client connects, as soon as the port is open; its own address, and what it is told.
    pub(super) async fn ask(&self, addr: SocketAddr) -> (SocketAddr, String) {
        let mut stream = eventually(async || {
            // A socket stays in the namespace that it was made in.
            let connected = self.client.within(move || socket_for(addr.ip())).unwrap().connect(addr).await;
            connected.map_err(|e| {
                assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "{addr}: {e}");
                e
            })
        })
        .await;
        let mut said = String::new();
        soon(stream.read_to_string(&mut said)).await.unwrap_or_else(|e| panic!("{addr} said '{said}' and then: {e}"));
        (stream.local_addr().unwrap(), said)
    }

    /// The client sends a datagram, from another port each time; its own address, and what it is told within a second.
    pub(super) async fn ask_by_datagram(&self, addr: SocketAddr) -> (SocketAddr, String) {
        let socket = self.client.within(|| UdpSocket::bind((CLIENT, 0)).unwrap());
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        socket.connect(addr).await.unwrap();
        let mut said = [0; 100];
        let _ = socket.send(b"who").await;
        let received = timeout(Duration::from_secs(1), socket.recv(&mut said)).await;
        let len = received.ok().and_then(Result::ok).unwrap_or_default();
        (socket.local_addr().unwrap(), String::from_utf8_lossy(&said[..len]).into_owned())
    }
}
