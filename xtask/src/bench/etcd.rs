//! etcd beside us, where the distribution's is installed: members on loopback addresses, logs on the same disk, spoken
//! to by the same client through its JSON gateway.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::host;
use crate::clients::{Trouble, Writer};
use crate::connection::{Connection, post};
use crate::http::{self, Address};
use crate::wait::{self, Look};
use crate::{process, ui};

const PROGRAM: &str = "etcd";
/// A cluster forms in about two seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A question to a member.
const STATUS: &str = "/v3/maintenance/status";

/// A cluster with etcd's defaults. Ends when it is dropped.
pub(super) struct Etcd {
    members: Vec<Member>,
    folder: TempDir,
    version: String,
}

struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Child>,
}

impl Etcd {
    /// Starts so many members and waits for their leader; `None`, and a word about it, where there is no etcd.
    pub(super) fn start(count: u8) -> Result<Option<Self>> {
        let Ok(version) = process::output(Command::new(PROGRAM).arg("--version")) else {
            ui::warn("etcd is left out: it is not installed (Debian: apt-get install etcd-server)");
            return Ok(None);
        };
        let version = String::from_utf8_lossy(&version);
        let version = version.lines().next().and_then(|line| line.split(": ").nth(1)).unwrap_or("?").to_owned();
        let members = (1..=count)
            .map(|number| {
                let ip = Ipv4Addr::new(127, 0, 0, number);
                Ok(Member { client: free(ip)?, peer: free(ip)?, process: None })
            })
            .collect::<Result<_>>()?;
        let mut etcd = Self { members, folder: host::temporary()?, version };
        for member in 0..etcd.members.len() {
            etcd.spawn(member)?;
        }
        etcd.wait_whole()?;
        Ok(Some(etcd))
    }

    /// Its version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Where the JSON gateway of a member listens.
    pub(super) fn address(&self, member: usize) -> Address {
        Address::Tcp(self.members[member].client)
    }

    /// Starts a member, without waiting for it.
    pub(super) fn spawn(&mut self, member: usize) -> Result<()> {
        let url = |address: SocketAddr| format!("http://{address}");
        let cluster: Vec<String> =
            self.members.iter().enumerate().map(|(number, m)| format!("m{number}={}", url(m.peer))).collect();
        let log = self.folder.path().join(format!("m{member}.log"));
        let log = File::options().create(true).append(true).open(&log).context("cannot write etcd's log")?;
        let mut command = Command::new(PROGRAM);
        let Member { client, peer, .. } = self.members[member];
        command
            .args(["--name", &format!("m{member}"), "--data-dir"])
            .arg(self.data(member))
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new", "--logger", "zap"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot write etcd's log")?)
            .stderr(log)
            .process_group(0);
        ui::command(&process::line(&command));
        self.members[member].process = Some(command.spawn().context("cannot start etcd")?);
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, member: usize) -> Result<()> {
        let Some(mut process) = self.members[member].process.take() else { bail!("etcd m{member} is not running") };
        process.kill().and_then(|()| process.wait()).context("cannot kill etcd").map(drop)
    }

    /// Waits until every member follows the same leader. Returns its index.
    pub(super) fn wait_whole(&self) -> Result<usize> {
        wait::until("etcd's members have a leader", START_LIMIT, || {
            let status = |member: usize| -> Result<(String, String)> {
                let answer = http::call(&self.address(member), "POST", STATUS, Some(("application/json", b"{}")))?;
                let answer: Value = serde_json::from_slice(&answer)?;
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                Ok((text(&answer["header"]["member_id"]), text(&answer["leader"])))
            };
            let all: Vec<(String, String)> = (0..self.members.len()).map(status).collect::<Result<_>>()?;
            let leader = &all[0].1;
            let agreed = all.iter().all(|(_, said)| said == leader);
            let at = all.iter().position(|(member, _)| agreed && member == leader);
            Ok(at.map_or_else(|| Look::NotYet("they do not agree".to_owned()), Look::Done))
        })
    }

    fn data(&self, member: usize) -> PathBuf {
        self.folder.path().join(format!("m{member}"))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            // Its data goes as well: there is nothing to end in order.
            drop(process.kill().and_then(|()| process.wait()));
        }
    }
}

/// Puts a key of its own.
pub(super) struct KeyWriter {
    key: String,
    count: u64,
}

impl KeyWriter {
    /// The client with a number.
    pub(super) fn new(client: usize) -> Self {
        Self { key: format!("client-{client}"), count: 0 }
    }
}

impl Writer for KeyWriter {
    // A member without a leader keeps a write for seven seconds and then refuses it, also when there is a leader by then.
    const PATIENCE: Duration = Duration::from_millis(200);

    fn write(&mut self, connection: &mut Connection) -> Result<Instant, Trouble> {
        self.count += 1;
        let request = put(&self.key, self.count.to_string().as_bytes());
        let sent = Instant::now();
        connection.send(&request)?;
        Ok(sent)
    }
}

/// A request that writes a value.
pub(super) fn put(key: &str, value: &[u8]) -> Vec<u8> {
    let body = json!({ "key": BASE64.encode(key), "value": BASE64.encode(value) });
    post("/v3/kv/put", body.to_string().as_bytes())
}

/// A port that nobody has now.
fn free(ip: Ipv4Addr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0)).and_then(|listener| listener.local_addr());
    listener.with_context(|| format!("there is no free port at {ip}"))
}
