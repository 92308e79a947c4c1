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
    time::{Instant, timeout},
};

use crate::{
    line::{DIAL_TIMEOUT, Dialer},
    message::{Answer, Blob, Request},
    records::{Ballot, Head, Tail},
    rt,
    snapshot::Content,
    twin::Own,
    types::{LeaderId, Vote},
};

/// Objects are sent when they are this much: large enough that a part's own cost is nothing, small beside the limit of
/// a frame.
const PART_BYTES: usize = 512 * 1024;
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
    own: &Own,
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
    let head = Head::new(&snapshot.meta, &snapshot.snapshot.past);
    let write = async {
        for request in [own.hello(to), Request::Snapshot { vote: vote.into(), head }] {
            timeout(STEP_TIMEOUT, sender.send(&request)).await.map_err(slow)?.map_err(|error| error.to_string())?;
        }
        let (mut content, mut objects) = (snapshot.snapshot, 0);
        let mut part;
        (content, part) = read_part(content).await?;
        while part.objects > 0 {
            objects += part.objects;
            let request = Request::SnapshotPart(Blob(part.bytes));
            // The next one is read while this one is on its way.
            let (sent, next) = tokio::join!(timeout(STEP_TIMEOUT, sender.send(&request)), read_part(content));
            sent.map_err(slow)?.map_err(|error| error.to_string())?;
            (content, part) = next?;
        }
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
        biased;
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
        Answer::Twin { addr } => {
            own.is_twin(addr.clone());
            Err(format!("another run of this manager takes part, at {addr}"))
        }
        other => Err(format!("it answers {other:?}")),
    }
}

/// Some objects of a snapshot, encoded.
struct Part {
    bytes: Vec<u8>,
    objects: u64,
}

/// Reads the next part; the one after the last has no objects.
async fn read_part(mut content: Content) -> Result<(Content, Part), String> {
    let read = rt::blocking(move || {
        let mut part = Part { bytes: Vec::with_capacity(PART_BYTES), objects: 0 };
        while part.bytes.len() < PART_BYTES
            && let Some(object) = content.objects.next()
        {
            rmp_serde::encode::write_named(&mut part.bytes, &object?).map_err(io::Error::other)?;
            part.objects += 1;
        }
        io::Result::Ok((content, part))
    });
    read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// A snapshot that has arrived.
pub(crate) struct Arrived {
    pub vote: Vote,
    pub snapshot: Snapshot<LeaderId, u64, BasicNode, Content>,
    /// What the answer must carry.
    pub correlation: u32,
}

/// Takes a snapshot whose head has come. Of a state whose feature level is above `known` nothing but the head is read:
/// who installs it stops, and says why.
pub(crate) async fn receive<R: AsyncRead + Unpin>(
    vote: Ballot,
    head: Head,
    known: u16,
    receiver: &mut Receiver<R, Request>,
) -> Result<Arrived, String> {
    let (meta, past) = head.into_parts()?;
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
                if !objects.first().is_some_and(|first| is_newer(first, known)) {
                    objects.extend(decode(&part.0, known)?);
                }
            }
            Some((correlation, Request::SnapshotEnd(Tail { objects: count }))) => {
                let is_whole = !objects.first().is_some_and(|first| is_newer(first, known));
                if is_whole && count != objects.len() as u64 {
                    return Err(format!("the snapshot has {} objects, its end says {count}", objects.len()));
                }
                let content = Content { past, objects: Box::new(objects.into_iter().map(Ok)), store: None };
                let snapshot = Snapshot { meta, snapshot: content };
                return Ok(Arrived { vote: vote.into(), snapshot, correlation });
            }
            Some(_) => return Err("something else came in the middle of a snapshot".into()),
            None => return Err("the snapshot broke off".into()),
        }
    }
}

/// The objects of a part, up to the head of a state whose feature level is not known here.
fn decode(part: &[u8], known: u16) -> Result<Vec<Object>, String> {
    let mut part = io::Cursor::new(part);
    let mut objects = Vec::new();
    while part.position() < part.get_ref().len() as u64 {
        objects.push(rmp_serde::from_read(&mut part).map_err(|error| format!("no object of a snapshot: {error}"))?);
        if objects.last().is_some_and(|last| is_newer(last, known)) {
            break;
        }
    }
    Ok(objects)
}

fn is_newer(object: &Object, known: u16) -> bool {
    matches!(object, Object::Head { feature_level, .. } if *feature_level > known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_read_behind_the_head_of_a_newer_state() {
        let head = |feature_level| Object::Head { revision: 1, time: swarm_model::Timestamp(1), feature_level };
        for (level, objects) in [(2, None), (3, Some(1))] {
            let mut part = rmp_serde::to_vec_named(&head(level)).expect("it can be written");
            part.extend(rmp_serde::to_vec_named(&[("Balloon", 99)]).expect("it can be written"));
            assert_eq!(decode(&part, 2).ok().map(|objects| objects.len()), objects, "{level}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_part_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes, 2);
        }
    }
}
