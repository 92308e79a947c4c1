//! A snapshot on its way to another manager, on a connection of its own: entries and heartbeats never wait for it.
//!
//! The receiver takes it whole before openraft hears of it: a connection that breaks half-way must not touch a state
//! machine.

use std::{io, time::Duration};

use openraft::{BasicNode, storage::Snapshot};
use swarm_core::Object;
use swarm_wire::{Receiver, channel};
use tokio::{
    io::AsyncRead,
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout},
};

use crate::{
    line::{DIAL_TIMEOUT, Dialer},
    message::{Answer, Blob, Hello, RAFT_PROTOCOL, Request},
    records::{Ballot, Head, Tail},
    snapshot::Content,
    types::{LeaderId, SnapshotMeta, Vote},
};

/// Objects are sent when they are this much: large enough that a part's own cost is nothing, small beside the limit of
/// a frame.
const PART_BYTES: usize = 512 * 1024;
/// Parts that are read ahead of the network.
const PARTS_AHEAD: usize = 4;
/// Longest pause in which a snapshot makes no step.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the receiver to write the snapshot to its disk: a gigabyte on a slow one.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of the largest snapshot that is taken: four times what a million tasks need, and what a manager's memory must
/// hold besides its state.
const SNAPSHOT_BYTES_MAX: usize = 4 << 30;

/// Sends a snapshot. Returns the vote of the manager that took it.
pub(crate) async fn send(
    dialer: &dyn Dialer,
    to: u64,
    addr: &str,
    vote: Vote,
    snapshot: Snapshot<LeaderId, u64, BasicNode, Content>,
) -> Result<Vote, String> {
    let began = Instant::now();
    let slow = |_| "it does not take the snapshot in time".to_owned();
    let stream = timeout(DIAL_TIMEOUT, dialer.dial(addr)).await.map_err(|_| "it does not answer".to_owned())?;
    let stream = stream.map_err(|error| error.to_string())?;
    let (mut sender, mut receiver) = channel::<_, Request, Answer>(stream);
    let head = Head::from(&snapshot.meta);
    let (parts, mut read) = mpsc::channel(PARTS_AHEAD);
    let reading = spawn_blocking(move || read_parts(snapshot.snapshot, &parts));
    let write = async {
        for request in
            [Request::Hello(Hello { protocol: RAFT_PROTOCOL, to }), Request::Snapshot { vote: vote.into(), head }]
        {
            timeout(STEP_TIMEOUT, sender.send(&request)).await.map_err(slow)?.map_err(|error| error.to_string())?;
        }
        while let Some(part) = read.recv().await {
            let sent = timeout(STEP_TIMEOUT, sender.send(&Request::SnapshotPart(Blob(part)))).await;
            sent.map_err(slow)?.map_err(|error| error.to_string())?;
        }
        let objects = reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let end = Request::SnapshotEnd(Tail { objects });
        timeout(STEP_TIMEOUT, sender.send_to(1, &end)).await.map_err(slow)?.map_err(|error| error.to_string())?;
        Ok(objects)
    };
    let answer = async {
        let answer = receiver.recv().await.map_err(|error| error.to_string())?;
        answer.ok_or_else(|| "it closed the connection".to_owned())
    };
    tokio::pin!(answer);
    // An answer before the end is a refusal.
    let answer = tokio::select! {
        written = write => match written {
            Ok(objects) => {
                let answer = timeout(INSTALL_TIMEOUT, answer).await.map_err(slow)?;
                tracing::info!(addr, objects, took_ms = began.elapsed().as_millis() as u64, "a snapshot was sent");
                answer?
            }
            Err(problem) => return Err::<Vote, String>(problem),
        },
        early = &mut answer => early?,
    };
    match answer {
        Answer::Installed { vote } => Ok(vote.into()),
        Answer::Refused(reason) => Err(reason),
        other => Err(format!("it answers {other:?}")),
    }
}

/// Reads the objects and cuts them into parts. Returns how many there were.
fn read_parts(content: Content, parts: &mpsc::Sender<Vec<u8>>) -> io::Result<u64> {
    let mut part = Vec::with_capacity(PART_BYTES);
    let mut objects = 0;
    for object in content.objects {
        rmp_serde::encode::write_named(&mut part, &object?).map_err(io::Error::other)?;
        objects += 1;
        // A receiver that is gone is noticed by the sender.
        if part.len() >= PART_BYTES && parts.blocking_send(std::mem::take(&mut part)).is_err() {
            return Ok(objects);
        }
    }
    if !part.is_empty() {
        let _ = parts.blocking_send(part);
    }
    Ok(objects)
}

/// A snapshot that has arrived.
pub(crate) struct Arrived {
    pub vote: Vote,
    pub snapshot: Snapshot<LeaderId, u64, BasicNode, Content>,
    /// What the answer must carry.
    pub correlation: u32,
}

/// Takes a snapshot whose head has come.
pub(crate) async fn receive<R: AsyncRead + Unpin>(
    vote: Ballot,
    head: Head,
    receiver: &mut Receiver<R, Request>,
) -> Result<Arrived, String> {
    let meta = SnapshotMeta::try_from(head)?;
    let mut objects: Vec<Object> = Vec::new();
    let mut bytes = 0;
    loop {
        let next = timeout(STEP_TIMEOUT, receiver.recv_from()).await;
        let next = next.map_err(|_| "the snapshot does not go on".to_owned())?.map_err(|error| error.to_string())?;
        match next {
            Some((_, Request::SnapshotPart(part))) => {
                bytes += part.0.len();
                if bytes > SNAPSHOT_BYTES_MAX {
                    return Err(format!("the snapshot has more than {SNAPSHOT_BYTES_MAX} bytes"));
                }
                objects.extend(decode(&part.0)?);
            }
            Some((correlation, Request::SnapshotEnd(Tail { objects: count }))) => {
                if count != objects.len() as u64 {
                    return Err(format!("the snapshot has {} objects, its end says {count}", objects.len()));
                }
                let content = Content { objects: Box::new(objects.into_iter().map(Ok)), store: None };
                let snapshot = Snapshot { meta, snapshot: content };
                return Ok(Arrived { vote: vote.into(), snapshot, correlation });
            }
            Some(_) => return Err("something else came in the middle of a snapshot".into()),
            None => return Err("the snapshot broke off".into()),
        }
    }
}

fn decode(part: &[u8]) -> Result<Vec<Object>, String> {
    let mut part = io::Cursor::new(part);
    let mut objects = Vec::new();
    while part.position() < part.get_ref().len() as u64 {
        objects.push(rmp_serde::from_read(&mut part).map_err(|error| format!("no object of a snapshot: {error}"))?);
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_part_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
