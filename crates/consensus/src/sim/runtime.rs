//! openraft's runtime with all that differs from run to run taken out of tokio's: its randomness is the life's, and
//! those that watch a value wake in the order in which they began to wait.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use openraft::{
    AsyncRuntime,
    async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender},
    base::{OptionalSend, OptionalSync},
    impls::TokioRuntime,
};
use rand::{SeedableRng, rngs::SmallRng};
use tokio::sync::{Notify, watch};

use super::{life, owned};

/// The runtime of simulated managers, and of all others where the feature is on.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = InOrder;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        crate::rt::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> SmallRng {
        SmallRng::seed_from_u64(life().map_or_else(rand::random, |life| life.random()))
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(owned(future))
    }
}

/// tokio's watch spreads those that wait over several lists and picks one at random; here there is one list.
pub(crate) struct InOrder;

/// Notifies when it is dropped as well: those that wait have to learn that nothing will come.
struct Bell(Arc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

/// Sends values. Fields drop in their order: the value's own sender goes before the bell rings.
pub(crate) struct Sender<T> {
    value: watch::Sender<T>,
    bell: Bell,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), bell: Bell(Arc::clone(&self.bell.0)) }
    }
}

/// Watches values.
pub(crate) struct Receiver<T> {
    value: watch::Receiver<T>,
    bell: Arc<Notify>,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl Watch for InOrder {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = watch::channel(init);
        let bell = Arc::new(Notify::new());
        (Sender { value: sender, bell: Bell(Arc::clone(&bell)) }, Receiver { value: receiver, bell })
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<InOrder, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        let sent = self.value.send(value).map_err(|error| SendError(error.0));
        self.bell.0.notify_waiters();
        sent
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let modified = self.value.send_if_modified(modify);
        if modified {
            self.bell.0.notify_waiters();
        }
        modified
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.value.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver { value: self.value.subscribe(), bell: Arc::clone(&self.bell.0) }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<InOrder, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        let bell = Arc::clone(&self.bell);
        loop {
            let mut rings = pin!(bell.notified());
            // From here on no ring is missed.
            rings.as_mut().enable();
            if let Some(seen) = self.value.changed().now_or_never() {
                return seen.map_err(|_| RecvError(()));
            }
            rings.await;
        }
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.value.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.value.borrow_and_update()
    }
}
