//! Tests that only heads of answers are changed, and all that are to be.

use std::{cell::Cell, task::Waker};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// A stream that shows its bytes in pieces.
struct Pieces(VecDeque<Vec<u8>>);

impl Pieces {
    /// Cuts bytes at these places.
    fn of(bytes: &[u8], cuts: &[Index]) -> Self {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        Self(cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).filter(|piece| !piece.is_empty()).collect())
    }
}

impl AsyncRead for Pieces {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let pieces = &mut self.get_mut().0;
        if let Some(mut piece) = pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(target.remaining()));
            target.put_slice(&piece);
            if !rest.is_empty() {
                pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// All bytes of a reader, read into targets of this size.
fn all(mut reader: impl AsyncRead + Unpin, size: usize) -> Vec<u8> {
    let mut found = Vec::new();
    loop {
        let mut memory = vec![0; size];
        let mut target = ReadBuf::new(&mut memory);
        let read = Pin::new(&mut reader).poll_read(&mut Context::from_waker(Waker::noop()), &mut target);
        assert!(matches!(read, Poll::Ready(Ok(()))));
        if target.filled().is_empty() {
            return found;
        }
        found.extend_from_slice(target.filled());
    }
}

fn ask(http: &mut Http, questions: &[u8], cuts: &[Index], size: usize) {
    let mut reader = Pieces::of(questions, cuts);
    assert_eq!(all(Questions { reader: &mut reader, http }, size), questions);
}

fn answer(http: &mut Http, answers: &[u8], cuts: &[Index], size: usize, is_draining: bool) -> Vec<u8> {
    let mut reader = Pieces::of(answers, cuts);
    all(Answers { reader: &mut reader, http, is_draining: || is_draining }, size)
}

/// The answers as the client gets them when it has asked this.
fn seen(questions: &str, answers: &str) -> String {
    let mut http = Http::default();
    ask(&mut http, questions.as_bytes(), &[], 1 << 16);
    String::from_utf8(answer(&mut http, answers.as_bytes(), &[], 1 << 16, true)).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn an_answer_asks_the_client_to_close() {
    let answers = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(seen(GET, answers), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    let interim = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n{answers}");
    let expected = interim.replace("Length: 2\r\n", "Length: 2\r\nConnection: close\r\n");
    assert_eq!(seen("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", &interim), expected);
    // The end of the stream ends the body.
    assert_eq!(seen(GET, "HTTP/1.1 200 OK\r\n\r\nhi"), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi");
}

#[test]
fn answers_that_cannot_be_followed_pass_as_they_are() {
    let plain = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let switching = format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n{plain}");
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(40_000));
    for (questions, answers) in [
        // Without a question, after an upgrade, in another protocol, and with a begin that is not complete.
        ("", plain),
        (GET, &switching),
        (GET, "220 mail.example.com ESMTP\r\n"),
        (GET, "HTTP/1.1 200 OK\r\nContent-Le"),
        (GET, &long),
        // Ends that are in doubt.
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello"),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"),
        // A tunnel, an older client, and an answer that closes already.
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", plain),
        (GET, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nconnection: foo, Close\r\n\r\n"),
    ] {
        assert_eq!(seen(questions, answers), answers);
    }
}

#[test]
fn a_client_that_asks_much_at_once_is_remembered_in_bounded_memory() {
    let mut http = Http::default();
    ask(&mut http, GET.repeat(2 * QUESTIONS_MAX).as_bytes(), &[], 1 << 16);
    assert_eq!(http.waiting.len(), QUESTIONS_MAX);
}

#[test]
fn a_client_is_asked_from_the_moment_on_that_the_task_drains() {
    let (mut http, heads) = (Http::default(), Cell::new(0));
    ask(&mut http, GET.repeat(3).as_bytes(), &[], 100);
    let is_draining = || heads.replace(heads.get() + 1) > 0;
    let mut reader = Pieces::of("HTTP/1.1 204 No Content\r\n\r\n".repeat(3).as_bytes(), &[]);
    let found = all(Answers { reader: &mut reader, http: &mut http, is_draining }, 100);
    let asked = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".repeat(2);
    assert_eq!(String::from_utf8(found).unwrap(), format!("HTTP/1.1 204 No Content\r\n\r\n{asked}"));
}

/// A question and its answer: the question, the answer's head without its end, and the rest of the answer.
type Exchange = (String, String, Vec<u8>);

/// A body that looks like messages, or like chunks, or like nothing.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    prop_oneof![vec(any::<u8>(), 0..80), (0..text.len()).prop_map(|len| text[..len].to_vec())]
}

/// A body and the field that says where it ends.
fn framed(body: &[u8], sizes: &[usize]) -> (String, Vec<u8>) {
    if sizes.is_empty() {
        return (format!("Content-Length: {}\r\n", body.len()), body.to_vec());
    }
    let mut chunks = Vec::new();
    let mut rest = body;
    for size in sizes.iter().copied().cycle() {
        let (chunk, left) = rest.split_at(size.min(rest.len()));
        if chunk.is_empty() {
            break;
        }
        chunks.extend_from_slice(format!("{:X};name=\"value\"\r\n", chunk.len()).as_bytes());
        chunks.extend([chunk, b"\r\n"].concat());
        rest = left;
    }
    chunks.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
    ("Transfer-Encoding: gzip, chunked\r\n".to_owned(), chunks)
}

fn any_exchange() -> impl Strategy<Value = Exchange> {
    let method = prop_oneof![Just("GET"), Just("HEAD"), Just("POST")];
    let code = prop_oneof![3 => Just(200), 1 => Just(204), 1 => Just(304), 1 => Just(500)];
    let sizes = || vec(1..30_usize, 0..3);
    (method, code, any_body(), sizes(), any_body(), sizes()).prop_map(|(method, code, asked, some, told, other)| {
        let (field, body) = framed(&asked, &some);
        let question = match method {
            "POST" => format!("POST /x HTTP/1.1\r\n{field}\r\n{}", String::from_utf8_lossy(&body)),
            method => format!("{method} /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        };
        let (field, body) = framed(&told, &other);
        let has_body = method != "HEAD" && code != 204 && code != 304;
        (question, format!("HTTP/1.1 {code} Reason\r\n{field}"), if has_body { body } else { Vec::new() })
    })
}

proptest! {
    #[test]
    fn each_answer_asks_to_close_and_nothing_else_is_changed(
        exchanges in vec(any_exchange(), 1..6),
        cuts in vec(any::<Index>(), 0..12),
        size in 1..200_usize,
    ) {
        // A question with a body of any bytes would be another text.
        let exchanges: Vec<_> = exchanges.into_iter().filter(|(question, ..)| !question.contains('\u{fffd}')).collect();
        let questions: String = exchanges.iter().map(|(question, ..)| question.as_str()).collect();
        let join = |close: &str| -> Vec<u8> {
            let parts = exchanges.iter().map(|(_, head, rest)| [format!("{head}{close}\r\n").as_bytes(), rest].concat());
            parts.collect::<Vec<_>>().concat()
        };
        for (is_draining, expected) in [(true, join("Connection: close\r\n")), (false, join(""))] {
            let mut http = Http::default();
            ask(&mut http, questions.as_bytes(), &cuts, size);
            prop_assert_eq!(http.waiting.len(), exchanges.len());
            let found = answer(&mut http, &join(""), &cuts, size, is_draining);
            prop_assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected));
        }
    }

    #[test]
    fn any_bytes_pass_but_for_the_field_that_is_added(
        exchanges in vec(any_exchange(), 0..4),
        damage in vec((any::<Index>(), any::<u8>()), 0..4),
        cuts in vec(any::<Index>(), 0..12),
        size in 1..200_usize,
    ) {
        let mut questions: Vec<u8> = exchanges.iter().flat_map(|(question, ..)| question.bytes()).collect();
        let mut answers: Vec<u8> =
            exchanges.iter().flat_map(|(_, head, rest)| [head.as_bytes(), b"\r\n", rest].concat()).collect();
        for (at, byte) in damage {
            for bytes in [&mut questions, &mut answers] {
                if let Some(place) = (!bytes.is_empty()).then(|| at.index(bytes.len())) {
                    bytes[place] = byte;
                }
            }
        }
        let mut http = Http::default();
        ask(&mut http, &questions, &cuts, size);
        let mut found = answer(&mut http, &answers, &cuts, size, true);
        while let Some(at) = found.windows(CLOSE.len()).position(|bytes| bytes == CLOSE) {
            found.drain(at..at + CLOSE.len());
        }
        prop_assert_eq!(found, answers);
    }
}
