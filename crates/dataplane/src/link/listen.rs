//! Takes connections of other nodes on the data port.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::sleep,
};

use super::{complaints::Offence, driver, hub::Hub};

/// Handshakes that are open at once. When one more comes the oldest is given up: a node needs some milliseconds, so that
/// only a flood of thousands a second could push it out, and a flood of half-open ones cannot keep it out.
pub(super) const HANDSHAKES_MAX: usize = 256;
/// Pause after the socket could not accept, most often for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener that is served now.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Serving>>);

/// Ends with its owner.
struct Serving(AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Slot {
    /// Serves a listener instead of an earlier one.
    pub(super) fn start(&self, hub: &Arc<Hub>, listener: TcpListener) {
        let serving = Serving(tokio::spawn(serve(Arc::downgrade(hub), listener)).abort_handle());
        self.set(Some(serving));
    }

    /// Serves none.
    pub(super) fn stop(&self) {
        self.set(None);
    }

    fn set(&self, serving: Option<Serving>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = serving;
    }
}

async fn serve(hub: Weak<Hub>, listener: TcpListener) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = listener.accept().await;
        let Some(hub) = hub.upgrade() else { return };
        match accepted {
            Ok((tcp, addr)) => {
                if open.len() >= HANDSHAKES_MAX {
                    open.retain(|handshake| !handshake.is_finished());
                }
                if open.len() >= HANDSHAKES_MAX
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                    let problem = format!("{HANDSHAKES_MAX} handshakes are open, the oldest is given up");
                    hub.complaints.add(Offence::Flood, &addr, &problem);
                }
                open.push_back(tokio::spawn(shake_hands(Arc::downgrade(&hub), tcp, addr)).abort_handle());
            }
            Err(e) => {
                hub.complaints.add(Offence::Handshake, &"the data port", &format!("it cannot accept: {e}"));
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn shake_hands(hub: Weak<Hub>, tcp: TcpStream, addr: SocketAddr) {
    // Without an identity nobody can be told anything.
    let Some(current) = hub.upgrade().and_then(|hub| hub.current()) else { return };
    let accepted = current.tls.accept(tcp).await;
    let Some(hub) = hub.upgrade() else { return };
    match accepted {
        Ok(connection) => {
            if let Err((connection, reason)) = hub.admit(connection, &current, false) {
                hub.complaints.add(Offence::Node, &addr, &reason);
                drop(hub);
                driver::turn_away(connection.stream, &reason).await;
            }
        }
        Err(e) => hub.complain(addr, &e),
    }
}
