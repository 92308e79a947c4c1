//! Tests of the streams of a link without a socket.

use std::{future::poll_fn, pin::pin, task::Waker as StdWaker};

use proptest::prelude::*;
use swarm_model::{PortProtocol, TaskId};
use swarm_wire::endpoints::PublishedPort;

use super::{
    flow::{WINDOW_BYTES_MAX, WINDOW_BYTES_MIN},
    *,
};
use crate::link::frame::encode_request;

fn content() -> Bytes {
    let request = OpenRequest {
        task: TaskId(7),
        port: PublishedPort { protocol: PortProtocol::Tcp, published: 9000, target: 80 },
        client: ([192, 0, 2, 1], 40_000).into(),
        asked: ([10, 0, 0, 1], 9000).into(),
    };
    encode_request(&request).unwrap()
}

/// Polls once.
fn poll<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    let mut future = pin!(poll_fn(poll));
    Future::poll(future.as_mut(), &mut Context::from_waker(StdWaker::noop()))
}

/// Two ends of a link, with a wire of any length between them.
struct Ends {
    links: [Link; 2],
    decoders: [Decoder; 2],
}

impl Ends {
    fn new() -> Self {
        let links = [Link::new(NodeId(2), true), Link::new(NodeId(1), false)];
        Self { links, decoders: Default::default() }
    }

    /// Carries all that one end has to send to the other one.
    fn carry(&mut self, from: usize) -> Arrived {
        let mut bytes = Vec::new();
        let mut batch = VecDeque::new();
        loop {
            self.links[from].take_batch(&mut batch);
            if batch.is_empty() {
                break;
            }
            batch.drain(..).for_each(|frame: Frame| bytes.extend(frame.parts().concat()));
        }
        // TLS hands out a record at a time.
        let mut arrived = Arrived::default();
        for record in bytes.chunks(16 << 10) {
            let now = self.links[1 - from].receive(&mut self.decoders[1 - from], record).unwrap();
            arrived.wanted.extend(now.wanted);
        }
        arrived
    }

    /// An open stream.
    fn open(&mut self) -> u32 {
        let id = self.links[0].want(content()).unwrap();
        assert_eq!(self.carry(0).wanted.len(), 1);
        self.links[1].answer(id, Ok(()));
        self.carry(1);
        assert_eq!(poll(|cx| self.links[0].poll_answer(id, cx)), Poll::Ready(Answer::Accepted));
        id
    }

    /// Sends as much as goes; how much.
    fn send(&self, id: u32, wanted: usize) -> usize {
        let mut sent = 0;
        while let Poll::Ready(room) = poll(|cx| self.links[0].poll_room(id, wanted, cx)) {
            let room = room.unwrap();
            self.links[0].send(id, vec![0; room].into());
            sent += room;
        }
        sent
    }

    /// Reads one piece.
    fn read(&self, id: u32) -> Option<usize> {
        match poll(|cx| self.links[1].poll_receive(id, cx)) {
            Poll::Ready(piece) => Some(piece.unwrap().len()),
            Poll::Pending => None,
        }
    }
}

#[tokio::test]
async fn an_idle_stream_costs_some_hundred_bytes() {
    let entry = size_of::<Stream>() + size_of::<u32>();
    let all = entry + size_of::<crate::link::LinkStream>();
    assert!(all <= 320, "{all} bytes");
}

#[tokio::test]
async fn the_window_grows_for_a_reader_that_keeps_up_and_only_for_it() {
    let mut ends = Ends::new();
    let (fast, slow) = (ends.open(), ends.open());
    let mut most = [0; 2];
    for _ in 0..20 {
        for (at, id) in [fast, slow].into_iter().enumerate() {
            let mut in_flight = 0;
            // Nobody waits for room in the queue: what is queued is carried at once.
            loop {
                let sent = ends.send(id, usize::MAX);
                ends.carry(0);
                in_flight += sent;
                if sent == 0 {
                    break;
                }
            }
            most[at] = most[at].max(in_flight);
        }
        while ends.read(fast).is_some() {}
        ends.read(slow);
        ends.carry(1);
    }
    assert_eq!(most, [WINDOW_BYTES_MAX as usize, WINDOW_BYTES_MIN as usize]);
}

#[tokio::test]
async fn tiny_frames_cost_little_memory() {
    let mut ends = Ends::new();
    let id = ends.open();
    for _ in 0..WINDOW_BYTES_MIN {
        ends.links[0].send(id, Bytes::from_static(b"x"));
        ends.carry(0);
    }
    let mut pieces = 0;
    while ends.read(id).is_some() {
        pieces += 1;
    }
    assert!(pieces <= 20, "{pieces} pieces");
}

#[tokio::test]
async fn bytes_that_wait_to_be_sent_are_bounded() {
    let mut ends = Ends::new();
    let ids: Vec<_> = (0..50).map(|_| ends.open()).collect();
    let sent: usize = ids.iter().map(|id| ends.send(*id, usize::MAX)).sum();
    assert!(sent <= LINK_QUEUE_BYTES_MAX + FRAME_DATA_MAX, "{sent} bytes");
    // A stream that found no room gets some once the queue is empty.
    ends.carry(0);
    assert!(ends.send(ids[49], 10) > 0);
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Answer(usize, bool),
    Send(usize, usize),
    Finish(usize, bool),
    Read(usize, bool),
    Leave(usize, bool),
    Carry(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let at = 0_usize..8;
    prop_oneof![
        Just(Step::Open),
        (at.clone(), any::<bool>()).prop_map(|(at, yes)| Step::Answer(at, yes)),
        (at.clone(), 1_usize..200_000).prop_map(|(at, bytes)| Step::Send(at, bytes)),
        (at.clone(), any::<bool>()).prop_map(|(at, here)| Step::Finish(at, here)),
        (at.clone(), any::<bool>()).prop_map(|(at, here)| Step::Read(at, here)),
        (at, any::<bool>()).prop_map(|(at, here)| Step::Leave(at, here)),
        any::<bool>().prop_map(Step::Carry),
    ]
}

proptest! {
    /// Two ends that keep the rules never accuse each other, in any order of events, and nothing is left over.
    #[test]
    fn ends_that_keep_the_rules_agree(steps in proptest::collection::vec(any_step(), 0..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let mut ends = Ends::new();
        let mut ids = Vec::new();
        for step in steps {
            let id = |at: usize| ids.get(at % ids.len().max(1)).copied().unwrap_or(1);
            match step {
                Step::Open => ids.push(ends.links[0].want(content()).unwrap()),
                Step::Answer(at, yes) => ends.links[1].answer(id(at), if yes { Ok(()) } else { Err("no") }),
                Step::Send(at, bytes) => {
                    if let Poll::Ready(Ok(room)) = poll(|cx| ends.links[0].poll_room(id(at), bytes, cx)) {
                        ends.links[0].send(id(at), vec![0; room].into());
                    }
                }
                Step::Finish(at, here) => drop(ends.links[usize::from(here)].finish(id(at))),
                Step::Read(at, here) => {
                    let _ = poll(|cx| ends.links[usize::from(here)].poll_receive(id(at), cx));
                }
                Step::Leave(at, here) => ends.links[usize::from(here)].leave(id(at)),
                Step::Carry(here) => drop(ends.carry(usize::from(here))),
            }
        }
        for id in ids {
            ends.links[0].leave(id);
            ends.carry(0);
            ends.links[1].leave(id);
        }
        ends.carry(1);
        for link in &ends.links {
            let shared = link.lock();
            prop_assert!(shared.streams.is_empty() && shared.queue.is_empty() && shared.urgent.is_empty());
            prop_assert_eq!(
                (shared.opened, shared.opened_by_peer, shared.unanswered, shared.queue_bytes),
                (0, 0, 0, 0)
            );
        }
    }
}
