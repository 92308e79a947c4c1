//! Two managers with one state folder, as a virtual machine and its clone have.
//!
//! They have one vote between them, and would give it twice. So each start of a manager has a number, its run, which is
//! said in the first message of a connection. Before a manager lets a run that it does not know take part, it asks at the
//! address under which the swarm knows that manager. If another run answers there, both are alive. Which of the two is
//! right cannot be told from here: the swarm goes on with the one that it reaches, and the other one is told, and stops.
//!
//! A manager that was started anew, or moved to another address, is never taken for two: its former run does not answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    Consensus,
    consensus::WeakConsensus,
    line::{DIAL_TIMEOUT, Kind, Line},
    message::{Answer, Hello, RAFT_PROTOCOL, Request},
};

/// People are told of two managers with one folder for so long after the second one was last noticed: it stops then, and
/// comes again when it is started again.
const TOLD: Duration = Duration::from_secs(600);

/// Which start of which manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The manager.
    pub raft_id: u64,
    /// A random number.
    pub run: u64,
}

/// The run and the address of this manager, and whether another manager has answered that a second one runs with its
/// state folder.
#[derive(Debug)]
pub(crate) struct Own {
    run: Run,
    /// `host:port` under which others reach it.
    addr: String,
    /// `host:port` of the second one.
    twin: watch::Sender<Option<String>>,
}

impl Own {
    pub(crate) fn new(raft_id: u64, run: u64, addr: &str) -> Arc<Self> {
        Arc::new(Self { run: Run { raft_id, run }, addr: addr.to_owned(), twin: watch::Sender::new(None) })
    }

    /// The first message of a connection to this manager.
    pub(crate) fn hello(&self, to: u64) -> Request {
        let (by, from) = (Some(self.run), Some(self.addr.clone()));
        Request::Hello(Hello { protocol: RAFT_PROTOCOL, to, by, from })
    }

    /// Another run of this manager answers at this address.
    pub(crate) fn is_twin(&self, addr: String) {
        self.twin.send_if_modified(|twin| twin.replace(addr).is_none());
    }
}

/// The runs of the other managers.
#[derive(Debug, Default)]
pub(crate) struct Runs(Mutex<BTreeMap<u64, Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The run that takes part.
    run: Option<u64>,
    twin: Option<Twin>,
}

/// A run that was refused.
#[derive(Debug)]
struct Twin {
    run: u64,
    from: String,
    addr: String,
    last: Instant,
}

impl Twin {
    fn word(&self) -> String {
        let Self { from, addr, .. } = self;
        format!(
            "two machines run with the state folder of the manager at {addr}, as after a virtual machine was cloned: that \
             one, and one at {from}; the swarm goes on with the one at {addr}, on the other one use \
             `swarm leave --force`, and join it anew"
        )
    }
}

impl Runs {
    /// The run of a manager that takes part.
    fn admitted(&self, raft_id: u64) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&raft_id)?.run
    }

    fn with<T>(&self, raft_id: u64, act: impl FnOnce(&mut Known) -> T) -> T {
        act(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(raft_id).or_default())
    }

    /// A sentence for people about each manager of which a second one was refused lately.
    pub(crate) fn words(&self) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let twins = known.values().filter_map(|known| known.twin.as_ref());
        twins.filter(|twin| twin.last.elapsed() < TOLD).map(Twin::word).collect()
    }
}

impl Consensus {
    /// Whether this run of a manager may take part; `from` is the machine that it is on.
    ///
    /// # Errors
    /// Another one answers at this address.
    pub(crate) async fn admit_run(&self, by: Run, from: &str) -> Result<(), String> {
        if self.runs().admitted(by.raft_id) == Some(by.run) {
            return Ok(());
        }
        let status = self.status();
        // A manager that is no member has no vote.
        let Some(member) = status.members.iter().find(|member| member.raft_id == by.raft_id) else { return Ok(()) };
        let answers = match by.raft_id == self.raft_id() {
            true => Some(self.own().run.run),
            false => self.run_at(by.raft_id, member.addr.clone()).await,
        };
        let (addr, run) = (member.addr.clone(), by.run);
        let twin = self.runs().with(by.raft_id, |known| match answers {
            Some(other) if other != run => {
                let is_news = known.twin.as_ref().is_none_or(|twin| twin.run != run);
                let twin = known.twin.insert(Twin { run, from: from.to_owned(), addr, last: Instant::now() });
                Some((twin.addr.clone(), is_news.then(|| twin.word())))
            }
            _ => {
                known.run = Some(run);
                None
            }
        });
        let Some((addr, news)) = twin else { return Ok(()) };
        if let Some(word) = news {
            tracing::warn!("{word}");
        }
        Err(addr)
    }

    /// The run that answers at an address. It is asked on a new connection: an older one may lead to a run that has ended.
    async fn run_at(&self, raft_id: u64, addr: String) -> Option<u64> {
        let line = Line::new(self.network().dialer(), Arc::clone(self.own()), Kind::Ask, raft_id, addr);
        match timeout(DIAL_TIMEOUT, line.send(Request::Run, DIAL_TIMEOUT)).await {
            Ok(Ok(Answer::Run(run))) => Some(run),
            _ => None,
        }
    }

    /// The number of this start.
    pub(crate) fn own_run(&self) -> u64 {
        self.own().run.run
    }
}

/// Stops this manager once another manager has answered that a second one runs with its state folder.
pub(crate) async fn watch(consensus: WeakConsensus, own: Arc<Own>) {
    let mut twin = own.twin.subscribe();
    drop(own);
    let Ok(Some(addr)) = twin.wait_for(Option::is_some).await.map(|addr| addr.clone()) else { return };
    let Some(consensus) = consensus.upgrade() else { return };
    let reason = format!(
        "another machine runs with a copy of this manager's state folder and answers at {addr}, as after a virtual machine \
         was cloned. The swarm goes on with that one. If this is the clone: `swarm leave --force` here, and join it anew. \
         If the other one is the clone: stop swarmd there, and restart swarmd here"
    );
    consensus.stop_different(reason).await;
}
