//! Measures what links cost: forwards TCP connections through two hops, a link between them, in one process.
//!
//! `link hops LISTEN TARGET` forwards, `link source LISTEN` sends to whoever connects, `link load ADDR STREAMS SECONDS`
//! reads from there; `link echo LISTEN` and `link ask ADDR STREAMS SECONDS` send 100 bytes back and forth.
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use bytes::Bytes;
use swarm_dataplane::link::{CHUNK_BYTES_MAX, Incoming, LinkReader, LinkStream, LinkWriter, Links, OpenRequest};
use swarm_model::{ClusterId, NodeId, NodeRole, PortProtocol, TaskId};
use swarm_wire::{Ca, NodeIdentity, clock, endpoints::PublishedPort, new_key_and_csr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc::Receiver,
};

/// Bytes of a read or write of bulk data.
const BLOCK_BYTES: usize = 64 << 10;
/// Bytes of a message that goes back and forth.
const MESSAGE_BYTES: usize = 100;
/// How long a certificate is valid: a day.
const LIFE_NS: i64 = 86_400_000_000_000;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["hops", listen, target] => hops(listen, target.parse()?).await,
        ["source", listen] => {
            serve(listen, |mut tcp| async move {
                let block = vec![7; BLOCK_BYTES];
                loop {
                    tcp.write_all(&block).await?;
                }
            })
            .await
        }
        ["echo", listen] => {
            serve(listen, |mut tcp| async move {
                let mut bytes = [0; MESSAGE_BYTES];
                loop {
                    tcp.read_exact(&mut bytes).await?;
                    tcp.write_all(&bytes).await?;
                }
            })
            .await
        }
        ["load", addr, streams, seconds] => load(addr, streams.parse()?, seconds.parse()?, false).await,
        ["ask", addr, streams, seconds] => load(addr, streams.parse()?, seconds.parse()?, true).await,
        _ => bail!("link hops LISTEN TARGET | source LISTEN | echo LISTEN | load|ask ADDR STREAMS SECONDS"),
    }
}

async fn serve<F>(listen: &str, serve: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        tokio::spawn(serve(tcp));
    }
}

async fn load(addr: &str, streams: usize, seconds: u64, is_asking: bool) -> Result<()> {
    let done = Arc::new(AtomicU64::new(0));
    for _ in 0..streams {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        tokio::spawn(one(tcp, is_asking, Arc::clone(&done)));
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let done = done.load(Ordering::Relaxed) as f64 / seconds as f64;
    match is_asking {
        true => println!("{done:.0} round trips/s"),
        false => println!("{:.2} Gbit/s, {:.3} GB/s", done * 8e-9, done * 1e-9),
    }
    Ok(())
}

async fn one(mut tcp: TcpStream, is_asking: bool, done: Arc<AtomicU64>) -> io::Result<()> {
    let mut bytes = vec![0; if is_asking { MESSAGE_BYTES } else { BLOCK_BYTES }];
    loop {
        let more = if is_asking {
            tcp.write_all(&bytes).await?;
            tcp.read_exact(&mut bytes).await?;
            1
        } else {
            tcp.read(&mut bytes).await? as u64
        };
        done.fetch_add(more, Ordering::Relaxed);
    }
}

fn links(ca: &Ca, node: u128) -> Result<(Links, Receiver<Incoming>)> {
    let (key, csr) = new_key_and_csr()?;
    let issued = ca.issue(&csr, NodeId(node), NodeRole::Worker, ClusterId(1), LIFE_NS, clock::now())?;
    let (links, incoming) = Links::new();
    links.set_identity(NodeIdentity::new(issued.cert_pem, key, ca.cert_pem())?)?;
    Ok((links, incoming))
}

async fn hops(listen: &str, target: SocketAddr) -> Result<()> {
    let ca = Ca::create()?;
    let ((near, _), (far, mut incoming)) = (links(&ca, 1)?, links(&ca, 2)?);
    let data = TcpListener::bind("127.0.0.1:0").await?;
    let data_addr = data.local_addr()?;
    near.set_peers([(NodeId(2), data_addr)].into());
    far.set_peers([(NodeId(1), data_addr)].into());
    far.listen(data);
    tokio::spawn(async move {
        while let Some(incoming) = incoming.recv().await {
            tokio::spawn(async move {
                match TcpStream::connect(target).await {
                    Ok(tcp) => forward(tcp, incoming.accept()).await,
                    Err(e) => {
                        incoming.refuse(e.to_string());
                        Ok(())
                    }
                }
            });
        }
    });
    serve(listen, |tcp| {
        let near = near.clone();
        async move {
            let request = OpenRequest {
                task: TaskId(1),
                port: PublishedPort { protocol: PortProtocol::Tcp, published: 1, target: 1 },
                client: tcp.peer_addr()?,
                asked: tcp.local_addr()?,
            };
            let stream = near.open(NodeId(2), request).await.map_err(io::Error::other)?;
            forward(tcp, stream).await
        }
    })
    .await
}

async fn forward(mut tcp: TcpStream, mut stream: LinkStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let (from, to) = tcp.split();
    let (reader, writer) = stream.split();
    tokio::try_join!(inwards(from, writer), outwards(reader, to)).map(drop)
}

/// Socket to link.
async fn inwards(mut from: ReadHalf<'_>, mut to: LinkWriter<'_>) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut bytes = Vec::with_capacity(CHUNK_BYTES_MAX);
        if from.read_buf(&mut bytes).await? == 0 {
            return to.shutdown().await;
        }
        let mut piece = Bytes::from(bytes);
        while !piece.is_empty() {
            poll_fn(|cx| to.poll_send(cx, &mut piece)).await?;
        }
    }
}

/// Link to socket.
async fn outwards(mut from: LinkReader<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    loop {
        let bytes = poll_fn(|cx| from.poll_take(cx)).await?;
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&bytes).await?;
    }
}
