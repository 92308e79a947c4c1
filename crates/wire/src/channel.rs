//! Framed streams: messages of one type each way over any byte stream.
//!
//! A frame is its length and a correlation id (two big-endian `u32`), then one message in named MessagePack; the kind
//! is the message's enum variant. The correlation id pairs answers with requests where a stream carries several at
//! once, and is 0 elsewhere.

use std::{io, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// Largest message: a batch of assignments with large specs fits, a hostile length does not exhaust memory.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// Memory set aside for a frame before its bytes have arrived.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// Splits a byte stream into a sender of `Out` and a receiver of `In`.
pub fn channel<S, Out, In>(stream: S) -> (Sender<WriteHalf<S>, Out>, Receiver<ReadHalf<S>, In>)
where
    S: AsyncRead + AsyncWrite,
    Out: Serialize,
    In: DeserializeOwned,
{
    let (read, write) = tokio::io::split(stream);
    (Sender { stream: write, expected_bytes: 0, message: PhantomData }, Receiver { stream: read, message: PhantomData })
}

/// The sending half.
#[derive(Debug)]
pub struct Sender<W, T> {
    stream: W,
    /// Length of the last frame: the next one is about as long, and need not be moved while it grows.
    expected_bytes: usize,
    message: PhantomData<fn(T)>,
}

impl<W: AsyncWrite + Unpin, T: Serialize> Sender<W, T> {
    /// Sends one message and flushes.
    ///
    /// # Errors
    /// The stream's, and `InvalidInput` for a message over [`FRAME_BYTES_MAX`]. The stream is of no more use after one.
    pub async fn send(&mut self, message: &T) -> io::Result<()> {
        self.send_to(0, message).await
    }

    /// The same with a correlation id.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send_to(&mut self, correlation: u32, message: &T) -> io::Result<()> {
        let mut frame = Vec::with_capacity(self.expected_bytes.clamp(8, READ_AHEAD_BYTES));
        frame.extend([0; 8]);
        rmp_serde::encode::write_named(&mut frame, message).map_err(io::Error::other)?;
        self.expected_bytes = frame.len();
        let len = frame.len() - 8;
        if len > FRAME_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a message of {len} bytes is over the limit of {FRAME_BYTES_MAX}"),
            ));
        }
        frame[..4].copy_from_slice(&(len as u32).to_be_bytes());
        frame[4..8].copy_from_slice(&correlation.to_be_bytes());
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// Ends the stream in this direction.
    ///
    /// # Errors
    /// The stream's.
    pub async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<R, T> {
    stream: R,
    message: PhantomData<fn() -> T>,
}

impl<R: AsyncRead + Unpin, T: DeserializeOwned> Receiver<R, T> {
    /// The next message, or none when the peer closed the stream between two frames.
    /// Not cancel-safe: a receive that was dropped half-way leaves the stream of no use.
    ///
    /// # Errors
    /// The stream's; `InvalidData` for a frame that is too large or is no message; `UnexpectedEof` inside a frame.
    pub async fn recv(&mut self) -> io::Result<Option<T>> {
        Ok(self.recv_from().await?.map(|(_, message)| message))
    }

    /// The same with its correlation id.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv_from(&mut self) -> io::Result<Option<(u32, T)>> {
        let mut head = [0; 8];
        if self.stream.read(&mut head[..1]).await.map_err(cut_off)? == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut head[1..]).await.map_err(cut_off)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame of {len} bytes is over the limit of {FRAME_BYTES_MAX}"),
            ));
        }
        let mut frame = Vec::with_capacity(len.min(READ_AHEAD_BYTES));
        (&mut self.stream).take(len as u64).read_to_end(&mut frame).await.map_err(cut_off)?;
        if frame.len() < len {
            return Err(cut_off(io::ErrorKind::UnexpectedEof.into()));
        }
        let message = rmp_serde::from_slice(&frame)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("no message: {e}")))?;
        Ok(Some((u32::from_be_bytes([c0, c1, c2, c3]), message)))
    }
}

/// Says in plain words that a stream ended too early: TLS talks of a missing `close_notify`, which tells nobody that
/// the peer was killed.
fn cut_off(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the peer ended without a good-bye"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;
    use crate::agent::{ToAgent, ToManager};

    #[tokio::test]
    async fn messages_arrive_in_order_and_the_end_is_seen() {
        let (a, b) = duplex(16);
        let (mut send, _keep) = channel::<_, ToManager, ToAgent>(a);
        let (_keep_too, mut recv) = channel::<_, ToAgent, ToManager>(b);
        let sent = async {
            send.send(&ToManager::Heartbeat).await.unwrap();
            send.send_to(7, &ToManager::Logs { subscription: 3 }).await.unwrap();
            send.close().await.unwrap();
        };
        let received = async {
            assert_eq!(recv.recv().await.unwrap(), Some(ToManager::Heartbeat));
            assert_eq!(recv.recv_from().await.unwrap(), Some((7, ToManager::Logs { subscription: 3 })));
            assert_eq!(recv.recv().await.unwrap(), None);
        };
        tokio::join!(sent, received);
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
        let (mut a, b) = duplex(64);
        a.write_all(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).await.unwrap();
        a.write_all(&[0; 4]).await.unwrap();
        let (_send, mut recv) = channel::<_, ToAgent, ToManager>(b);
        assert_eq!(recv.recv().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_says_so_in_plain_words() {
        for cut in [[0, 0, 0, 9].as_slice(), &[0, 0, 0, 9, 0, 0, 0, 0, 1]] {
            let (mut a, b) = duplex(64);
            a.write_all(cut).await.unwrap();
            drop(a);
            let (_send, mut recv) = channel::<_, ToAgent, ToManager>(b);
            let error = recv.recv().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(error.to_string(), "the peer ended without a good-bye");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body: Vec<u8>, honest: bool) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut a, b) = duplex(64 << 10);
                if honest {
                    a.write_all(&(body.len() as u32).to_be_bytes()).await.unwrap();
                    a.write_all(&[0; 4]).await.unwrap();
                }
                a.write_all(&body).await.unwrap();
                a.shutdown().await.unwrap();
                let (_send, mut recv) = channel::<_, ToAgent, ToManager>(b);
                while let Ok(Some(_)) = recv.recv().await {}
            });
        }
    }
}
