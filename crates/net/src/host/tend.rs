//! Keeps the links of this host as they are to be.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use ipnet::IpNet;
use swarm_model::ObjectId;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{DELETED_LINK, DELETED_NEIGHBOUR, Ends, Host, Kinds, NEW_LINK, NEW_NEIGHBOUR, ToCaller};
use crate::{
    netlink::{Part, Socket},
    readable::Readable,
    reports::{Keeper, Progress, Reports},
    state::Wanted,
};

/// Groups of events: links, and neighbours with forwarding entries.
const GROUPS: u32 = 1 | 1 << 2;
/// How often rights to devices are tried for, and a change that was refused is tried again.
const PERIOD: Duration = Duration::from_secs(1);
/// How often links are looked at without an event, and sizes of packets are checked.
const LOOK_PERIOD: Duration = Duration::from_secs(30);

/// Something that is asked of the host.
#[derive(Debug)]
pub(crate) enum Question {
    /// A route that a subnet overlaps.
    Overlap(IpNet, oneshot::Sender<io::Result<Option<String>>>),
    /// A queue of the TAP device of a network. The answer waits for the device.
    Queue(ObjectId, ToCaller),
    /// Devices that no network has are to be removed.
    RemoveStrays,
    /// Everything is to be removed, and nothing to be done after that.
    RemoveAll(oneshot::Sender<()>),
}

/// The channels of the host.
pub(crate) struct Tended {
    pub(crate) wanted: watch::Receiver<Wanted>,
    pub(crate) ends: watch::Receiver<Ends>,
    pub(crate) questions: mpsc::Receiver<Question>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) progress: Arc<Progress>,
    /// The devices that there can be.
    pub(crate) kinds: Kinds,
}

/// Keeps the links of the namespace that the calling thread is in, until it is dropped.
///
/// # Errors
/// The kernel's: netlink cannot be used at all.
pub(crate) async fn tend(mut tended: Tended) -> io::Result<()> {
    let mut events = Socket::hearing(Part::Route, GROUPS)?;
    let readable = Readable::of(&events)?;
    let mut host = Host::open(tended.kinds.clone())?;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_at: Option<Instant> = None;
    let mut sizes = BTreeMap::new();
    loop {
        tokio::select! {
            changed = tended.wanted.changed() => if changed.is_err() { return Ok(()) },
            changed = tended.ends.changed() => if changed.is_err() { return Ok(()) },
            question = tended.questions.recv() => match question {
                Some(Question::RemoveAll(done)) => {
                    let removed = spawn_blocking(move || host.remove_all()).await;
                    let _ = done.send(());
                    return removed.map_err(io::Error::other);
                }
                Some(question) => {
                    let state = tended.wanted.borrow().state.clone();
                    host = spawn_blocking(move || { answer(&mut host, question, &state); host }).await?;
                }
                None => return Ok(()),
            },
            heard = readable.read(|| hear(&mut events)) => match heard {
                Ok(heard) => heard.iter().for_each(|(kind, body)| host.note(*kind, body)),
                // There were more events than the socket holds.
                Err(_) => host.doubt_all(),
            },
            _ = ticks.tick() => {}
        }
        let wanted = tended.wanted.borrow_and_update().clone();
        let ends = tended.ends.borrow_and_update().clone();
        let is_due = looked_at.is_none_or(|at| at.elapsed() >= LOOK_PERIOD) || !sizes.is_empty();
        if is_due {
            looked_at = Some(Instant::now());
            host.doubt_links();
        }
        let revision = wanted.revision;
        let (warnings, new_sizes);
        (host, warnings, new_sizes) = spawn_blocking(move || {
            let warnings = host.settle(&wanted.state, &ends);
            let sizes = (is_due || host.has_other_peers()).then(|| host.check_sizes(&wanted.state));
            (host, warnings, sizes)
        })
        .await?;
        sizes = new_sizes.unwrap_or(sizes);
        tended.reports.warn(warnings.into_iter().chain(sizes.clone()).collect());
        tended.progress.reached(Keeper::Host, revision);
    }
}

fn answer(host: &mut Host, question: Question, state: &crate::state::State) {
    match question {
        Question::Overlap(subnet, answer) => drop(answer.send(host.overlap(subnet, state))),
        Question::Queue(network, caller) => host.wait_for_queue(network, caller),
        Question::RemoveStrays => {
            let removed =
                state.configuration.as_ref().map_or(Ok(()), |configuration| host.remove_strays(configuration));
            if let Err(e) = removed {
                tracing::warn!("cannot remove the devices that an earlier process left: {e}");
            }
        }
        Question::RemoveAll(done) => drop(done.send(())),
    }
}

/// The events that have come, as kinds and bodies.
fn hear(events: &mut Socket) -> io::Result<Vec<(u16, Vec<u8>)>> {
    let mut all = Vec::new();
    loop {
        match events.hear() {
            Ok(some) => {
                let is_of_use = |kind| matches!(kind, NEW_LINK | DELETED_LINK | NEW_NEIGHBOUR | DELETED_NEIGHBOUR);
                all.extend(some.filter(|event| is_of_use(event.kind)).map(|event| (event.kind, event.body.to_vec())));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && !all.is_empty() => return Ok(all),
            Err(e) => return Err(e),
        }
    }
}
