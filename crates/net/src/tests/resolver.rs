use std::{io::ErrorKind, net::SocketAddr, os::fd::AsFd};

use rustix::net::sockopt::socket_cookie;
use tokio::net::UdpSocket;

use super::place::*;
use crate::{ResolverSockets, protocol::ToNet, resolver_sockets};

fn dns() -> SocketAddr {
    SocketAddr::new(ip("127.0.0.11"), 53)
}

/// Whether a question of a container comes to these sockets, and the answer back.
async fn is_asked(container: &Container, sockets: &ResolverSockets) -> bool {
    let udp = UdpSocket::from_std(sockets.udp.try_clone().unwrap()).unwrap();
    let asking = container.netns.within(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(dns()).unwrap();
        let _ = socket.send(b"who?");
        socket
    });
    let mut question = [0; 10];
    let Ok(Ok((_, from))) = tokio::time::timeout(std::time::Duration::from_secs(1), udp.recv_from(&mut question)).await
    else {
        return false;
    };
    udp.send_to(b"me", from).await.unwrap();
    asking.set_read_timeout(Some(PATIENCE)).unwrap();
    let len = asking.recv(&mut question).unwrap();
    question[..len] == *b"me"
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_asked_at_the_sockets_in_the_container() {
    if is_skipped() {
        return;
    }
    let mut host = Host::new("192.0.2.1").await;
    let client = host.container(10);
    let mut swarmd = host.swarmd().await;
    swarmd.say(ToNet::PutContainer(client.record(Some(client.show())))).await;
    let mut sockets = resolver_sockets(&host.socket(), &client.id).await.unwrap();
    assert!(is_asked(&client, &sockets).await);
    // By TCP as well.
    let listener = tokio::net::TcpListener::from_std(sockets.tcp.try_clone().unwrap()).unwrap();
    let connecting = client.netns.within(|| std::net::TcpStream::connect_timeout(&dns(), PATIENCE));
    connecting.unwrap();
    soon(listener.accept()).await.unwrap();

    // They go on when the process is another one, until the caller asks again.
    host.start_again().await;
    soon(sockets.ended()).await;
    let mut swarmd = host.swarmd().await;
    swarmd.say(ToNet::PutContainer(client.record(Some(client.show_again())))).await;
    swarmd.sync().await;
    assert!(is_asked(&client, &sockets).await);
    let mut next = resolver_sockets(&host.socket(), &client.id).await.unwrap();
    assert_ne!(socket_cookie(next.udp.as_fd()).unwrap(), socket_cookie(sockets.udp.as_fd()).unwrap());
    assert!(is_asked(&client, &next).await);
    drop(sockets);
    assert!(is_asked(&client, &next).await);

    // With the container's namespace they end.
    client.hide();
    soon(next.ended()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_are_dropped_leave_the_engines_own_resolver() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let client = host.container(10);
    let mut swarmd = host.swarmd().await;
    // The caller may come before swarmd has said anything.
    let asking = tokio::spawn({
        let (socket, id) = (host.socket(), client.id.clone());
        async move { resolver_sockets(&socket, &id).await }
    });
    swarmd.say(ToNet::PutContainer(client.record(Some(client.show())))).await;
    let sockets = soon(asking).await.unwrap().unwrap();
    assert!(is_asked(&client, &sockets).await);
    drop(sockets);
    let engine = client.netns.within(|| std::net::UdpSocket::bind(dns()).unwrap());
    engine.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let asks = || {
        client.netns.within(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            let _ = socket.send_to(b"who?", dns());
        });
        engine.recv(&mut [0; 10]).is_ok()
    };
    until(asks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_for_a_container_that_does_not_come_is_told_so() {
    if is_skipped() {
        return;
    }
    let host = Host::new("192.0.2.1").await;
    let error = soon(resolver_sockets(&host.socket(), "nobody")).await.unwrap_err();
    assert!(error.to_string().contains("no container nobody is known on this node"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Other);
}
