//! The names of this machine's users, by their numbers.

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use nix::unistd::{Uid, User};
use swarm_model::Principal;
use tokio::{
    sync::{Mutex, oneshot},
    time::{Instant, timeout},
};

/// The time for which a name is remembered: users are seldom renamed, and a client may make a connection for each call.
const FRESH: Duration = Duration::from_secs(60);
/// Longest wait for a name. It comes from a file, or from a directory service, which may not answer: the number will do.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
/// Numbers that are remembered: more users than have access to a socket. A hundred bytes each.
const KNOWN_MAX: usize = 1024;

/// The users that have called.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// Held while a name is looked up, so that a directory service that hangs costs one thread a minute and number.
    known: Mutex<BTreeMap<u32, Known>>,
}

/// The name of a user, if there is one, and until when that is believed.
type Known = (Option<Arc<str>>, Instant);

impl Users {
    /// The user with this number; without a name if the machine does not say it in time.
    pub(crate) async fn principal(&self, uid: u32) -> Principal {
        Principal::user(uid, self.name(uid).await.as_deref())
    }

    async fn name(&self, uid: u32) -> Option<Arc<str>> {
        let mut known = self.known.lock().await;
        if let Some((name, until)) = known.get(&uid)
            && *until > Instant::now()
        {
            return name.clone();
        }
        let name = look_up(uid).await;
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(uid, (name.clone(), Instant::now() + FRESH));
        name
    }
}

async fn look_up(uid: u32) -> Option<Arc<str>> {
    let (told, name) = oneshot::channel();
    // A thread of its own: swarmd could not end while one of the runtime's hangs.
    let begun = thread::Builder::new().name("user-name".to_owned()).spawn(move || {
        let _ = told.send(User::from_uid(Uid::from_raw(uid)));
    });
    let problem = match (begun, timeout(LOOKUP_TIMEOUT, name).await) {
        (Ok(_), Ok(Ok(Ok(user)))) => return user.map(|user| user.name.into()),
        (Err(e), _) => e.to_string(),
        (_, Ok(Ok(Err(e)))) => e.to_string(),
        (_, Err(_) | Ok(Err(_))) => format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs()),
    };
    tracing::warn!(uid, "the name of a user is not known: {problem}");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_number_has_the_name_that_the_machine_gives_it() {
        let users = Users::default();
        assert_eq!(users.principal(0).await.to_string(), "user root (0)");
        let own = Uid::effective();
        let name = User::from_uid(own).unwrap().map(|user| user.name);
        assert_eq!(users.principal(own.as_raw()).await, Principal::user(own.as_raw(), name.as_deref()));
        // No machine gives this one away: it stands for none.
        assert_eq!(users.principal(u32::MAX - 1).await.to_string(), format!("user {}", u32::MAX - 1));
        for uid in 0..KNOWN_MAX as u32 + 10 {
            users.known.lock().await.insert(uid + 1, (None, Instant::now() + FRESH));
        }
        users.principal(u32::MAX - 2).await;
        assert_eq!(users.known.lock().await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_again_after_a_while() {
        let users = Users::default();
        users.known.lock().await.insert(0, (Some("other".into()), Instant::now() + FRESH));
        assert_eq!(users.principal(0).await.name(), "other");
        tokio::time::advance(FRESH).await;
        // The answer comes from a thread: time must not run ahead of it.
        tokio::time::resume();
        assert_eq!(users.principal(0).await.name(), "root");
    }
}
