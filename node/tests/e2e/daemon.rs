//! One swarmd process.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    http::{self, Answer},
    wait::until,
};

/// The managers' port of all nodes here: each has an address of its own. Not Swarm's own port, which a swarm of this
/// machine may hold at all addresses.
pub const PORT: u16 = 12_377;
/// Lines of a log that a failure shows.
const LOG_LINES: usize = 40;

/// A folder in memory for the files of secrets. Each node makes a folder of its own in it.
pub const SECRETS_DIR: &str = "/dev/shm/swarmd-e2e";

/// A daemon with folders, a name and a loopback address of its own.
pub struct Daemon {
    pub name: String,
    pub ip: Ipv4Addr,
    folder: PathBuf,
    engine: String,
    /// How far its clock is off from the next start on, in libfaketime's words (`+365d`).
    pub clock: Option<String>,
    process: Option<Child>,
    /// Where the log of the present run begins.
    log_start: usize,
}

impl Daemon {
    /// A daemon that does not run yet. `engine` is what `--engine` takes.
    pub fn new(folder: &Path, name: &str, engine: &str) -> Self {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        Self {
            name: name.to_owned(),
            ip: free_address(),
            folder,
            engine: engine.to_owned(),
            clock: None,
            process: None,
            log_start: 0,
        }
    }

    /// A machine that was cloned while it was off: the state folder is a copy of this one's, but the copy has a name and
    /// an address of its own.
    pub fn clone_machine(&self, folder: &Path) -> Self {
        let clone = Self::new(folder, &format!("{}-clone", self.name), &self.engine);
        copy_folder(&self.state_dir(), &clone.state_dir());
        let path = clone.state_dir().join("swarm.json");
        let membership = fs::read_to_string(&path).expect("a membership");
        fs::write(&path, membership.replace(&self.ip.to_string(), &clone.ip.to_string())).expect("a membership");
        clone
    }

    /// Where other nodes reach it.
    pub fn addr(&self) -> String {
        format!("{}:{PORT}", self.ip)
    }

    /// Its state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("swarmd.sock")
    }

    /// Starts it, and does not wait for anything.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        self.log_start = self.log().len();
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmd"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SWARMD_")) {
            command.env_remove(name);
        }
        if let Some(clock) = &self.clock {
            command
                .env("LD_PRELOAD", faketime().expect("libfaketime"))
                .env("FAKETIME", clock)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("NO_FAKE_STAT", "1");
        }
        command
            .args(["--config", "/dev/null", "--hostname", &self.name, "--engine", &self.engine])
            .args(["--listen-addr", &self.addr(), "--advertise-addr", &self.addr(), "--resources", "cpu=4,memory=4g"])
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket())
            .args(["--secrets-dir", SECRETS_DIR])
            .arg("--sandboxes-dir")
            .arg(sandboxes(&self.engine))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        self.process = Some(command.spawn().expect("swarmd starts"));
    }

    /// Starts it and waits until its API answers.
    pub fn start(&mut self) {
        self.spawn();
        until(&format!("the API of {} answers", self.name), || {
            if let Some(status) = self.process.as_mut().and_then(|p| p.try_wait().expect("our child")) {
                panic!("{} ended at its start with {status}:\n{}", self.name, self.log_tail());
            }
            self.call("GET", "/_ping", None).map(drop)
        });
    }

    /// Starts it and waits until it gives up, with exit code 1. Returns what it wrote to its log.
    pub fn fails(&mut self) -> String {
        self.spawn();
        self.ends_by_itself()
    }

    /// Waits until it gives up, with exit code 1. Returns what it wrote to its log since its start.
    pub fn ends_by_itself(&mut self) -> String {
        let mut process = self.process.take().expect("a running daemon");
        let status = until(&format!("{} gives up", self.name), || {
            process.try_wait().expect("our child").ok_or_else(|| "it runs".to_owned())
        });
        let log = self.log().split_off(self.log_start);
        assert_eq!(status.code(), Some(1), "{log}");
        log
    }

    /// Whether it has given up.
    pub fn ended(&mut self) -> bool {
        let process = self.process.as_mut().expect("it was started");
        process.try_wait().expect("our child").is_some()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("a running daemon");
        process.kill().and_then(|()| process.wait()).expect("it is our child");
    }

    /// Stops it in order.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut process = self.process.take().expect("a running daemon");
        until(&format!("{} ends after SIGTERM", self.name), || match process.try_wait().expect("our child") {
            Some(status) => Ok(status),
            None => Err("it runs".to_owned()),
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a running daemon");
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("a running daemon"))
    }

    /// Sends a request; an error says that there was no answer.
    pub fn send(&self, method: &str, target: &str, body: Option<&Value>) -> std::io::Result<Answer> {
        http::send(&self.socket(), method, target, body)
    }

    /// Sends a request that has to succeed; an error says why it did not.
    pub fn call(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Value, String> {
        match self.send(method, target, body) {
            Ok(answer) if answer.is_ok() => Ok(answer.json()),
            Ok(answer) => Err(format!("{method} {target}: {} {}", answer.status, answer.message())),
            Err(error) => Err(format!("{method} {target}: {error}")),
        }
    }

    /// Reads something that has to be there.
    #[track_caller]
    pub fn get(&self, target: &str) -> Value {
        self.call("GET", target, None).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// Sends a request that is refused; returns the message.
    #[track_caller]
    pub fn refused(&self, status: u16, method: &str, target: &str, body: Option<&Value>) -> String {
        let answer = self.send(method, target, body).unwrap_or_else(|e| panic!("{method} {target}: {e}"));
        let shown: String = body.map(Value::to_string).unwrap_or_default().chars().take(1000).collect();
        assert_eq!(answer.status, status, "{method} {target} {shown}: {}", answer.message());
        let message = answer.json()["message"].as_str().expect("an error has a message").to_owned();
        assert!(!message.is_empty(), "{method} {target}: an empty message");
        message
    }

    /// Its id in the swarm.
    pub fn id(&self) -> String {
        self.swarm_info()["NodeID"].as_str().unwrap_or_default().to_owned()
    }

    /// What it says of its membership.
    pub fn swarm_info(&self) -> Value {
        self.get("/info")["Swarm"].clone()
    }

    /// All that it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("swarmd.log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill().and_then(|()| process.wait());
        }
        if std::thread::panicking() {
            eprintln!("---- the end of the log of {}:\n{}", self.name, self.log_tail());
        }
    }
}

/// The library that gives a program another clock, if it is there.
pub fn faketime() -> Option<PathBuf> {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let at = |folder| PathBuf::from(format!("/usr/lib/{folder}/faketime/libfaketimeMT.so.1"));
    folders.into_iter().map(at).find(|path| path.exists())
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    fs::set_permissions(to, fs::metadata(from).expect("a folder").permissions()).expect("its mode");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("a copy");
        }
    }
}

/// An address that no other test has, in this process or, as far as process ids tell, in another one.
fn free_address() -> Ipv4Addr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let process = std::process::id();
    // 127.0.x.x is what people use.
    let (high, low) = (16 + (process / 250) % 200, process % 250);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    assert!(number < 250, "no address is left");
    Ipv4Addr::new(127, high as u8, low as u8, 1 + number)
}

/// The folder where an engine shows the network namespaces of its containers: engines of tests have their `--exec-root` beside
/// their socket.
fn sandboxes(engine: &str) -> PathBuf {
    let folder = Path::new(engine.trim_start_matches("unix://")).parent().unwrap_or(Path::new("/"));
    let beside = folder.join("exec/netns");
    if beside.parent().is_some_and(Path::exists) { beside } else { "/run/docker/netns".into() }
}
