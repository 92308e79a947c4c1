use std::io;
use std::net::TcpListener;

use super::*;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhello 1\n";

/// A server that answers the requests of each connection with these bytes, and closes it after the last.
fn serve(connections: Vec<Vec<&'static [u8]>>) -> (SocketAddr, thread::JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        for answers in connections {
            let mut stream = BufReader::new(listener.accept()?.0);
            for answer in answers {
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    stream.read_line(&mut line)?;
                }
                stream.get_mut().write_all(answer)?;
            }
        }
        Ok(())
    });
    (address, server)
}

#[test]
fn a_request_is_repeated_only_where_a_kept_connection_was_closed_before_the_answer() {
    let (address, server) = serve(vec![vec![ANSWER, ANSWER], vec![ANSWER, b"HTTP/1.1 2"], vec![b""]]);
    let clients = Clients::default();
    let mut kept = None;
    let mut ask = || clients.ask_kept(address, &mut kept);
    assert!(ask().is_ok() && ask().is_ok(), "both on one connection");
    assert!(ask().is_ok(), "the first connection is closed: once more on another");
    assert_eq!(clients.repeated.load(Ordering::SeqCst), 1);
    assert!(ask().is_err(), "the answer had begun");
    assert!(ask().is_err(), "the connection was new");
    assert_eq!(clients.repeated.load(Ordering::SeqCst), 1);
    server.join().unwrap().unwrap();
}

#[test]
fn an_answer_that_is_none_of_the_service_is_a_failure() {
    for answer in [&b"HTTP/1.1 503 No\r\nContent-Length: 8\r\n\r\nhello 1\n"[..], b"HTTP/1.1 200 OK\r\n\r\n", b""] {
        let (address, server) = serve(vec![vec![answer]]);
        assert!(ask_once(address).is_err());
        server.join().unwrap().unwrap();
    }
}
