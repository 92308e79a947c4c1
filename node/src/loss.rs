//! Says in the log that this node has no session with a manager, as long as that lasts, and that it has one again.

use std::{fmt, time::Duration};

use swarm_agent::SessionState;
use swarm_docker_api::view::Time;
use swarm_model::Timestamp;
use swarm_wire::clock;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::reminder::{PERIOD, Reminder};

/// A session that is back so soon was not lost: another leader is found in about a second.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// What is to be said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// There is no session.
    Lost {
        /// When there was one last, or when the node began to look for one.
        since: Timestamp,
        /// How long ago that was.
        ago: Duration,
        /// The managers that are tried.
        managers: Vec<String>,
        /// What the last attempt came to.
        reason: String,
    },
    /// There is one again, after so long.
    Back(Duration),
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { since, ago, managers, reason } => {
                let (since, secs, managers) = (Time(*since), ago.as_secs(), managers.join(", "));
                write!(
                    f,
                    "this node has had no session with a manager since {since} ({secs} s); its containers run on. It goes \
                     on to try {managers}",
                )?;
                if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
            }
            Self::Back(lasted) => {
                write!(f, "this node has a session with a manager again, after {} s without one", lasted.as_secs())
            }
        }
    }
}

impl News {
    /// Says it in the log.
    pub(crate) fn log(self) {
        match self {
            Self::Lost { .. } => tracing::warn!("{self}"),
            Self::Back(_) => tracing::info!("{self}"),
        }
    }
}

/// Follows the session until its agent ends. `managers` are those that are known.
pub(crate) async fn follow(
    mut session: watch::Receiver<SessionState>,
    managers: watch::Receiver<Vec<String>>,
    mut say: impl FnMut(News),
) {
    let mut reminder = Reminder::new(PERIOD);
    let mut lost: Option<(Instant, Timestamp)> = None;
    loop {
        let state = session.borrow_and_update().clone();
        let reason = match state {
            SessionState::Connecting { reason } => {
                lost.get_or_insert_with(|| (Instant::now(), clock::now()));
                reason
            }
            SessionState::Open => {
                if let Some((at, _)) = lost.take().filter(|_| reminder.over()) {
                    say(News::Back(at.elapsed()));
                }
                String::new()
            }
            // Said elsewhere, with what to do.
            SessionState::Removed { .. } => {
                (lost, _) = (None, reminder.over());
                String::new()
            }
        };
        let due = lost.map(|(at, _)| reminder.due().unwrap_or(at + LOST_AFTER));
        tokio::select! {
            changed = session.changed() => if changed.is_err() { return },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some((at, since)) = lost && reminder.happened().is_some() {
                    say(News::Lost { since, ago: at.elapsed(), managers: managers.borrow().clone(), reason });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::sleep;

    use super::*;

    struct Watched {
        session: watch::Sender<SessionState>,
        said: Arc<Mutex<Vec<News>>>,
        _managers: watch::Sender<Vec<String>>,
    }

    impl Watched {
        fn new() -> Self {
            let session = watch::Sender::new(SessionState::Open);
            let managers = watch::Sender::new(vec!["a:2377".to_owned(), "b:2377".to_owned()]);
            let said = Arc::new(Mutex::new(Vec::new()));
            let kept = said.clone();
            let say = move |news| kept.lock().unwrap().push(news);
            tokio::spawn(follow(session.subscribe(), managers.subscribe(), say));
            Self { session, said, _managers: managers }
        }

        /// An attempt fails every 100 ms.
        async fn fails_for(&self, secs: u64) {
            for n in 0..10 * secs {
                self.session.send_replace(SessionState::Connecting { reason: format!("attempt {n}") });
                sleep(Duration::from_millis(100)).await;
            }
        }

        fn said(&self) -> Vec<News> {
            std::mem::take(&mut self.said.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_is_said_once_at_its_beginning_then_once_a_minute_and_its_end_once() {
        let watched = Watched::new();
        watched.fails_for(600).await;
        let said = watched.said();
        let ago: Vec<_> =
            said.iter().map(|news| if let News::Lost { ago, .. } = news { ago.as_secs() } else { 0 }).collect();
        assert_eq!(ago, [3, 63, 123, 183, 243, 303, 363, 423, 483, 543]);
        let text = said[0].to_string();
        for part in ["since 20", "a:2377, b:2377", "attempt "] {
            assert!(text.contains(part), "{text}");
        }
        watched.session.send_replace(SessionState::Open);
        sleep(Duration::from_secs(300)).await;
        assert_eq!(watched.said(), [News::Back(Duration::from_secs(600))]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_attempt_that_hangs_is_said_as_well() {
        let watched = Watched::new();
        watched.session.send_replace(SessionState::Connecting { reason: "the stream broke".into() });
        sleep(Duration::from_secs(130)).await;
        assert_eq!(watched.said().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn another_leader_is_no_loss() {
        let watched = Watched::new();
        for _ in 0..20 {
            watched.fails_for(2).await;
            watched.session.send_replace(SessionState::Open);
            sleep(Duration::from_secs(1)).await;
        }
        watched.session.send_replace(SessionState::Removed { reason: "removed".into() });
        sleep(Duration::from_secs(600)).await;
        assert_eq!(watched.said(), []);
    }
}
