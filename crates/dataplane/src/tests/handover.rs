//! The hand-over from a process to the next one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use swarm_wire::{channel, endpoints::EndpointState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket, UnixStream},
};

use super::host::{Host, OWN, PORT, Swarmd, TARGET, Table, Task, fresh_addr, serving_ports, tcp, udp};
use crate::{
    protocol::FromData,
    testing::{eventually, soon, until, wanted},
};

async fn host(task: &Task) -> (Host, Swarmd, Table) {
    let (host, swarmd, table) = serving_ports(&[task], vec![tcp(PORT), udp(PORT)]).await;
    drop(host.client().await);
    (host, swarmd, table)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_lost_by_it() {
    let task = Task::start(1).await;
    let (mut host, ..) = host(&task).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let addr = SocketAddr::new(host.addr, PORT);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = TcpStream::connect(addr).await.unwrap();
                    soon(client.read_exact(&mut [0; 4])).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let next = host.take_over().await;
        let before = done.load(Ordering::Relaxed);
        soon(&mut host.process).await.unwrap().unwrap();
        until(|| done.load(Ordering::Relaxed) >= before + 20).await;
        host = next;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        soon(client).await.unwrap();
    }
    assert!(host.path().exists());
}

#[tokio::test]
async fn open_connections_stay_with_the_old_process_and_keep_a_task_from_being_drained() {
    let task = Task::start(1).await;
    let (mut first, mut swarmd, mut table) = host(&task).await;
    let (_, mut open) = first.named().await;
    let second = first.take_over().await;
    while swarmd.hear().await.is_some() {}
    let (mut swarmd, known) = second.greet().await;
    assert_eq!(known, Some(table.version()));
    assert_eq!(second.named().await.0, "t001");
    table.endpoint(task.id, OWN, EndpointState::Draining);
    let heard = swarmd.apply(&mut table).await;
    assert!(!heard.contains(&FromData::Drained(task.id)), "{heard:?}");
    open.write_all(b"still").await.unwrap();
    let mut echo = [0; 5];
    soon(open.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"still");
    drop(open);
    soon(&mut first.process).await.unwrap().unwrap();
    swarmd.hear_of(|message| (*message == FromData::Drained(task.id)).then_some(())).await;
    assert!(second.path().exists());
}

#[tokio::test]
async fn an_answer_to_a_datagram_of_before_still_arrives() {
    let task = Task::start(1).await;
    let (first, ..) = host(&task).await;
    let server = UdpSocket::bind((task.addr, TARGET)).await.unwrap();
    let client = UdpSocket::bind((fresh_addr(), 0)).await.unwrap();
    client.connect((first.addr, PORT)).await.unwrap();
    let mut datagram = [0; 16];
    let (len, flow) = eventually(async || {
        client.send(b"question").await.map_err(|e| e.to_string())?;
        server.try_recv_from(&mut datagram).map_err(|e| e.to_string())
    })
    .await;
    assert_eq!(&datagram[..len], b"question");
    let _second = first.take_over().await;
    server.send_to(b"answer", flow).await.unwrap();
    let len = soon(client.recv(&mut datagram)).await.unwrap();
    assert_eq!(&datagram[..len], b"answer");
    // The next question is the next process's.
    client.send(b"again").await.unwrap();
    // Questions that the client repeated at the beginning come first.
    eventually(async || wanted(server.recv_from(&mut datagram).await.unwrap().1, |other| *other != flow)).await;
}

#[tokio::test]
async fn without_a_process_before_it_starts_as_usual() {
    let task = Task::start(1).await;
    let (first, ..) = host(&task).await;
    first.process.abort();
    until(|| !first.path().exists()).await;
    let second = first.start_as_heir();
    until(|| second.path().exists()).await;
    let (_, known) = second.greet().await;
    assert_eq!(known, None);
}

#[derive(Debug, Serialize, Deserialize)]
enum Later {
    TakeOver { protocol: u16 },
    Refused { reason: String },
}

#[tokio::test]
async fn a_process_of_another_version_gets_nothing_and_the_old_one_goes_on() {
    let task = Task::start(1).await;
    let (host, ..) = host(&task).await;
    for garbage in [false, true] {
        let mut stream = UnixStream::connect(host.path().with_extension("take-over")).await.unwrap();
        if garbage {
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            soon(stream.read(&mut [0; 1])).await.unwrap_or(0);
            continue;
        }
        let (mut sender, mut receiver) = channel::<_, Later, Later>(stream);
        sender.send(&Later::TakeOver { protocol: 99 }).await.unwrap();
        match soon(receiver.recv()).await.unwrap() {
            Some(Later::Refused { reason }) => {
                assert!(reason.ends_with("not version 99"), "{reason}")
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(host.named().await.0, "t001");
    assert!(!host.process.is_finished());
}
