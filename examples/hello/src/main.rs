//! A tiny web service for demos and tests: it links statically, so its image is one file.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | one line: version, task, node |
//! | `GET /health` | 200 `healthy`, or 503 `unhealthy` after `POST /unhealthy` |
//! | `POST /unhealthy`, `POST /healthy` | turns the health |
//! | `POST /crash` | none: the process ends with exit code 3 |
//! | `POST /hang` | `hanging`; from then on no request is answered, connections stay open |
//!
//! `hello check` asks the service on this host for its health and exits with 0 or 1: the image has no shell and no
//! curl, so a health check is `["CMD", "/hello", "check"]`.
//!
//! `hello ask NAME:PORT` asks another such service, prints its answer and exits with 0; with 1 if it gets none for ten seconds.
//!
//! Environment: `PORT` (8080), `HELLO_VERSION`, `TASK`, `NODE` (what `GET /` prints; a service sets the last two from
//! the templates `{{.Task.Name}}` and `{{.Node.Hostname}}`), `HELLO_MODE=broken` (prints why and exits with 1).
//!
//! SIGTERM and SIGINT end it at once, with the exit code that a shell shows for it (143, 130). A process that runs as PID 1 of a container is not ended by
//! signals that it has no handler for, so without one each stop would last its whole grace period.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program whose log is its standard output")]

mod request;
mod server;

use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The port when `PORT` is not set.
const PORT_DEFAULT: u16 = 8080;
/// How long `hello check` and `hello ask` wait for the answer; shorter than the usual timeout of a health check.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long `hello ask` goes on asking.
const ASK_MAX: Duration = Duration::from_secs(10);
/// Its pause between two questions.
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// The beginning of a good answer.
const OK: &str = "HTTP/1.1 200 ";

fn main() -> ExitCode {
    let port = match env::var("PORT").ok().map(|text| text.parse::<u16>().map_err(|_| text)) {
        None => PORT_DEFAULT,
        Some(Ok(port)) => port,
        Some(Err(text)) => return fail(&format!("PORT={text} is not a port number (0 to 65535)")),
    };
    let result = match env::args().nth(1).as_deref() {
        None => serve(port),
        Some("check") => check(port),
        Some("ask") => match env::args().nth(2) {
            Some(place) => ask(&place),
            None => Err("ask whom? `hello ask NAME:PORT`".to_owned()),
        },
        Some(other) => Err(format!("unknown command {other:?}: run `hello` to serve, `hello check` or `hello ask`")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("hello: {message}");
    ExitCode::FAILURE
}

fn variable(name: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

fn serve(port: u16) -> Result<(), String> {
    if env::var("HELLO_MODE").as_deref() == Ok("broken") {
        return Err("HELLO_MODE=broken: this version is broken on purpose".to_owned());
    }
    let greeting =
        format!("hello {} from task {} on node {}\n", variable("HELLO_VERSION"), variable("TASK"), variable("NODE"));
    let server = server::Server::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), greeting)
        .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| format!("cannot handle signals: {error}"))?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            std::process::exit(128 + signal);
        }
    });
    println!("listening on {}", server.address());
    server.run()
}

/// Asks the service on this host for its health.
fn check(port: u16) -> Result<(), String> {
    let at = format!("port {port}");
    let answer = get(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "/health");
    let answer = answer.map_err(|error| format!("{at} does not answer: {error}"))?;
    if !answer.starts_with(OK) {
        return Err(format!("{at} answers {:?}", answer.lines().next().unwrap_or_default()));
    }
    println!("healthy");
    Ok(())
}

/// Asks another service by name until it answers, and prints its greeting.
fn ask(place: &str) -> Result<(), String> {
    let start = Instant::now();
    loop {
        match ask_once(place) {
            Err(_) if start.elapsed() < ASK_MAX => std::thread::park_timeout(ASK_PAUSE),
            result => return result,
        }
    }
}

fn ask_once(place: &str) -> Result<(), String> {
    let failed = |error| format!("{place} does not answer: {error}");
    let address = place.to_socket_addrs().map_err(failed)?.next().ok_or_else(|| format!("{place} has no address"))?;
    let answer = get(address, "/").map_err(failed)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, greeting)) if head.starts_with(OK) => {
            print!("{greeting}");
            Ok(())
        }
        _ => Err(format!("{place} answers {:?}", answer.lines().next().unwrap_or_default())),
    }
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ASK_TIMEOUT)?;
    stream.set_read_timeout(Some(ASK_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(server::ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
