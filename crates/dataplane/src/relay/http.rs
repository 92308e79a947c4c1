//! Follows HTTP/1.1 on a connection to a task, so that the answers of a task that is to stop ask the client to close the
//! connection. Only heads of answers are changed. A connection that cannot be followed passes as it is from there on: an
//! upgrade, another protocol, an answer without its question, or a message whose end is in doubt.

mod messages;

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use self::messages::{Framing, Gathered, Messages};

/// The field that is added to the head of an answer.
const CLOSE: &[u8] = b"Connection: close\r\n";
/// The begin of each answer that can be followed.
const ANSWER_START: &[u8] = b"HTTP/1.";
/// Questions without an answer that are remembered. A client that sends more is not followed.
const QUESTIONS_MAX: usize = 1024;
const SWITCHING_PROTOCOLS: u16 = 101;
const NO_CONTENT: u16 = 204;
const NOT_MODIFIED: u16 = 304;

/// The messages of a connection, both ways.
#[derive(Default)]
pub(super) struct Http {
    questions: Messages,
    answers: Messages,
    /// The questions that wait for an answer, the oldest first: whether its answer has no body (HEAD).
    waiting: VecDeque<bool>,
    /// Bytes of answers that are to be read before those of the task.
    ready: Vec<u8>,
}

impl Http {
    /// The client sent bytes, which pass as they are.
    fn asked(&mut self, mut bytes: &[u8]) {
        loop {
            bytes = bytes.get(self.questions.pass(bytes)..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            let (taken, gathered) = self.questions.gather(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            let followed = match gathered {
                Gathered::More => return,
                Gathered::TooLong(_) => None,
                Gathered::Head(head) => messages::question(&head).filter(|_| self.waiting.len() < QUESTIONS_MAX),
            };
            match followed {
                Some((is_head, framing)) => {
                    self.waiting.push_back(is_head);
                    self.questions.follow(framing);
                }
                None => self.questions.follow(Framing::Unknown),
            }
        }
    }

    /// The task sent bytes. Bytes that are to be sent on now are appended to `ready`.
    fn answered(&mut self, mut bytes: &[u8], is_draining: impl Fn() -> bool) {
        loop {
            let (passed, rest) = bytes.split_at_checked(self.answers.pass(bytes)).unwrap_or((bytes, &[]));
            self.ready.extend_from_slice(passed);
            if rest.is_empty() {
                return;
            }
            let (taken, gathered) = self.answers.gather(rest);
            bytes = rest.get(taken..).unwrap_or_default();
            match gathered {
                Gathered::More if self.answers.held().iter().zip(ANSWER_START).all(|(byte, start)| byte == start) => {
                    return;
                }
                Gathered::More => self.give_up(),
                Gathered::TooLong(head) => {
                    self.ready.extend(head);
                    self.answers.follow(Framing::Unknown);
                }
                Gathered::Head(head) => {
                    let (framing, may_close) = self.answer(&head).unwrap_or((Framing::Unknown, false));
                    let end = if head.ends_with(b"\r\n") { 2 } else { 1 };
                    let (fields, end) = head.split_at_checked(head.len().saturating_sub(end)).unwrap_or((&head, &[]));
                    let close = if may_close && is_draining() { CLOSE } else { b"" };
                    self.ready.extend([fields, close, end].into_iter().flatten());
                    self.answers.follow(framing);
                }
            }
        }
    }

    /// The end of an answer, and whether it can ask the client to close the connection. None when it cannot be followed.
    fn answer(&mut self, head: &[u8]) -> Option<(Framing, bool)> {
        let answer = messages::answer(head)?;
        match answer.code {
            SWITCHING_PROTOCOLS => None,
            100..200 => Some((Framing::Bytes(0), false)),
            code => {
                let has_no_body = self.waiting.pop_front()? || matches!(code, NO_CONTENT | NOT_MODIFIED);
                let framing = if has_no_body { Framing::Bytes(0) } else { answer.framing };
                Some((framing, answer.may_close))
            }
        }
    }

    /// Follows answers no more, and lets the bytes pass that were held.
    fn give_up(&mut self) {
        if let Gathered::TooLong(held) = self.answers.give_up() {
            self.ready.extend(held);
        }
    }
}

/// The client's side, which tells the questions.
pub(super) struct Questions<'a, R> {
    pub(super) reader: &'a mut R,
    pub(super) http: &'a mut Http,
}

impl<R: AsyncRead + Unpin> AsyncRead for Questions<'_, R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { reader, http } = self.get_mut();
        let before = target.filled().len();
        ready!(Pin::new(&mut **reader).poll_read(cx, target))?;
        http.asked(target.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

/// The task's side, whose answers are changed while `is_draining`.
pub(super) struct Answers<'a, R, F> {
    pub(super) reader: &'a mut R,
    pub(super) http: &'a mut Http,
    pub(super) is_draining: F,
}

impl<R: AsyncRead + Unpin, F: Fn() -> bool + Unpin> AsyncRead for Answers<'_, R, F> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { reader, http, is_draining } = self.get_mut();
        while http.ready.is_empty() {
            let before = target.filled().len();
            ready!(Pin::new(&mut **reader).poll_read(cx, target))?;
            let read = target.filled().get(before..).unwrap_or_default();
            if read.is_empty() {
                // The end: a head that is held will never be complete.
                http.give_up();
                break;
            }
            let passed = http.answers.pass(read);
            if passed < read.len() {
                let rest = read.get(passed..).unwrap_or_default().to_vec();
                target.set_filled(before + passed);
                http.answered(&rest, &*is_draining);
            }
            if target.filled().len() > before {
                break;
            }
        }
        let n = http.ready.len().min(target.remaining());
        target.put_slice(http.ready.get(..n).unwrap_or_default());
        http.ready.drain(..n);
        if http.ready.is_empty() {
            http.ready = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
