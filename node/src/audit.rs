//! The audit log: one line of JSON for each change that was asked for on this node.
//!
//! A change is answered when its line is written, and waits [`WAIT_MAX`] for it at most. The line comes after the change,
//! so that a disk that fails undoes nothing and refuses nothing: it is said in the log, in the header of each answer and in
//! `/info` that lines are missing, and once the file can be written again, a line in it says how many.

mod file;
pub(crate) mod record;

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;
use swarm_docker_api::view::Time;
use swarm_wire::clock;
use tokio::{sync::oneshot, time::timeout};

use self::file::AuditFile;

/// Longest wait of a call for its line. A healthy disk takes microseconds, for nothing is synced.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Lines that wait for the disk; more are lost. A line has a kilobyte at most, mostly a quarter of that.
const WAITING_MAX: usize = 1024;

/// The audit log. Clones are handles of the same file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    lines: SyncSender<Order>,
    shared: Arc<Shared>,
}

/// An order for the thread that writes. The other end of `done` hears when the order is done.
struct Order {
    /// The line; none to write nothing. A caller that waits for such an order waits for all orders before it.
    line: Option<Vec<u8>>,
    done: oneshot::Sender<()>,
}

/// The state of the file.
#[derive(Debug)]
struct Shared {
    name: String,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// Why lines are not where they should be.
    problem: Option<String>,
    /// Lines that are missing since the last one that was written.
    lost: u64,
    /// Whether a call has waited for its line in vain, and no line was done with since.
    is_slow: bool,
}

/// The line that says that others are missing.
#[derive(Serialize)]
struct Gap<'a> {
    at: Time,
    lost: u64,
    why: &'a str,
}

impl Audit {
    /// Opens the file; without one nothing is written.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = AuditFile::open(path).with_context(|| {
            format!("cannot open the audit log {} (name another file with --audit-log)", path.display())
        })?;
        Self::start(file, path)
    }

    fn start(mut file: AuditFile, path: &Path) -> Result<Self> {
        let shared = Arc::new(Shared { name: path.display().to_string(), trouble: Mutex::default() });
        let (lines, orders) = sync_channel::<Order>(WAITING_MAX);
        let known = shared.clone();
        thread::Builder::new().name("audit-log".to_owned()).spawn(move || {
            for Order { line, done } in orders {
                if let Some(line) = line {
                    known.write(&mut file, &line);
                }
                // The caller may have stopped waiting.
                let _ = done.send(());
            }
        })?;
        Ok(Self(Some(Arc::new(Inner { lines, shared }))))
    }

    /// Whether there is a file.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes a line, and waits until it is written or known to be missing; does not wait for a disk that hangs already.
    pub(crate) async fn write(&self, line: &impl Serialize) {
        let Some(inner) = &self.0 else { return };
        let is_slow = inner.shared.trouble().is_slow;
        let Some(done) = inner.send(line) else { return };
        if !is_slow && timeout(WAIT_MAX, done).await.is_err() {
            let mut trouble = inner.shared.trouble();
            trouble.is_slow = true;
            trouble.say(&inner.shared.name, "the disk does not answer");
        }
    }

    /// Has a line written, whenever that is.
    pub(crate) fn put(&self, line: &impl Serialize) {
        if let Some(inner) = &self.0 {
            drop(inner.send(line));
        }
    }

    /// Why changes are not in the file, for people.
    pub(crate) fn problem(&self) -> Option<String> {
        let shared = &self.0.as_ref()?.shared;
        let trouble = shared.trouble();
        let problem = trouble.problem.as_ref()?;
        Some(match trouble.lost {
            0 => format!("the audit log {}: {problem}", shared.name),
            lost => format!("the audit log {} lacks {lost} changes: {problem}", shared.name),
        })
    }

    /// Waits until all lines are written, [`WAIT_MAX`] at most.
    pub(crate) async fn flush(&self) {
        let Some(inner) = &self.0 else { return };
        let (done, written) = oneshot::channel();
        if inner.lines.try_send(Order { line: None, done }).is_ok() {
            let _ = timeout(WAIT_MAX, written).await;
        }
    }
}

impl Inner {
    fn send(&self, line: &impl Serialize) -> Option<oneshot::Receiver<()>> {
        let sent = to_line(line).and_then(|line| {
            let (done, written) = oneshot::channel();
            self.lines.try_send(Order { line: Some(line), done }).map(|()| written).map_err(|e| match e {
                TrySendError::Full(_) => io::Error::other(format!("{WAITING_MAX} lines wait for the disk")),
                TrySendError::Disconnected(_) => io::Error::other("the thread that writes it has ended"),
            })
        });
        sent.map_err(|e| self.shared.trouble().lose(&self.shared.name, &e)).ok()
    }
}

impl Shared {
    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line where the file is expected, and what was missing before it.
    fn write(&self, file: &mut AuditFile, line: &[u8]) {
        let followed = file.follow();
        let (lost, why) = {
            let trouble = self.trouble();
            (trouble.lost, trouble.problem.clone().unwrap_or_default())
        };
        let written = match lost {
            0 => Ok(()),
            lost => to_line(&Gap { at: Time(clock::now()), lost, why: &why }).and_then(|gap| file.append(&gap)),
        };
        if written.is_ok() {
            // More lines may have been lost since.
            self.trouble().lost -= lost;
        }
        let written = written.and_then(|()| file.append(line));
        let mut trouble = self.trouble();
        trouble.is_slow = false;
        match (written, followed) {
            (Err(e), _) => trouble.lose(&self.name, &e),
            (Ok(()), Err(e)) => {
                let text =
                    format!("it was moved away, and a new one cannot be made ({e}): lines go into the one moved");
                trouble.say(&self.name, &text);
            }
            (Ok(()), Ok(())) => trouble.end(&self.name, lost),
        }
    }
}

impl Trouble {
    fn lose(&mut self, name: &str, error: &io::Error) {
        self.lost += 1;
        self.say(name, &error.to_string());
    }

    /// Says what is wrong, once while it lasts.
    fn say(&mut self, name: &str, problem: &str) {
        if self.problem.is_none() {
            tracing::error!("the audit log {name} is not as it should be: {problem}. Changes are made all the same");
        }
        self.problem = Some(problem.to_owned());
    }

    fn end(&mut self, name: &str, lost: u64) {
        if self.lost == 0 && self.problem.take().is_some() {
            tracing::info!(lost, "the audit log {name} is written again");
        }
    }
}

fn to_line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use serde_json::{Value, json};

    use super::*;

    fn lines(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn path() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        (folder, path)
    }

    #[tokio::test]
    async fn a_line_is_there_when_its_call_is_answered() {
        let (_folder, path) = path();
        let audit = Audit::open(Some(&path)).unwrap();
        for n in 0..3 {
            audit.write(&json!({"n": n, "text": "a\nb"})).await;
            assert_eq!(lines(&path).len(), n + 1);
        }
        audit.put(&json!("last"));
        audit.flush().await;
        assert_eq!(lines(&path)[3], "last");
        assert_eq!(audit.problem(), None);
        // Without a file nothing is asked for.
        let off = Audit::open(None).unwrap();
        off.write(&json!(1)).await;
        off.flush().await;
        assert!(!off.is_on() && audit.is_on());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_named() {
        let (folder, _) = path();
        let text = format!("{:#}", Audit::open(Some(&folder.path().join("no/audit.log"))).unwrap_err());
        assert!(text.contains("/no/audit.log (name another file") && text.contains("No such file"), "{text}");
    }

    #[tokio::test]
    async fn what_is_missing_is_said_until_it_can_be_written() {
        let (_folder, path) = path();
        let mut file = AuditFile::open(&path).unwrap();
        file.break_for_test();
        let audit = Audit::start(file, &path).unwrap();
        for lost in 1..3 {
            audit.write(&json!(lost)).await;
            audit.flush().await;
            let problem = audit.problem().unwrap();
            assert!(problem.contains(&format!("audit.log lacks {lost} changes: Bad file descriptor")), "{problem}");
        }
        assert_eq!(lines(&path), Vec::<Value>::new());
        // A new file at its place is one that can be written.
        fs::rename(&path, path.with_extension("old")).unwrap();
        audit.write(&json!("written")).await;
        audit.flush().await;
        assert_eq!(audit.problem(), None);
        let found = lines(&path);
        assert_eq!((&found[0]["lost"], &found[1]), (&json!(2), &json!("written")));
        assert!(found[0]["why"].as_str().unwrap().contains("Bad file descriptor"), "{found:?}");
        audit.write(&json!("next")).await;
        assert_eq!(lines(&path)[2], "next");
    }

    #[tokio::test]
    async fn lines_that_cannot_wait_are_counted() {
        let (_folder, path) = path();
        let shared = Arc::new(Shared { name: "x".into(), trouble: Mutex::default() });
        // No thread takes the orders, as while a disk hangs.
        let (lines, _orders) = sync_channel(2);
        let audit = Audit(Some(Arc::new(Inner { lines, shared: shared.clone() })));
        (0..5).for_each(|n| audit.put(&json!(n)));
        let problem = audit.problem().unwrap();
        assert!(problem.contains("x lacks 3 changes") && problem.contains("wait for the disk"), "{problem}");
        // A call does not wait for a file that is known to be in trouble.
        audit.write(&json!(5)).await;
        let mut file = AuditFile::open(&path).unwrap();
        shared.write(&mut file, b"\"now\"\n");
        assert_eq!(self::lines(&path)[0]["lost"], 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_holds_a_call_up_for_a_moment() {
        let shared = Arc::new(Shared { name: "x".into(), trouble: Mutex::default() });
        let (lines, _orders) = sync_channel(2);
        let audit = Audit(Some(Arc::new(Inner { lines, shared })));
        let begin = tokio::time::Instant::now();
        audit.write(&json!(1)).await;
        assert_eq!(begin.elapsed(), WAIT_MAX);
        assert_eq!(audit.problem().unwrap(), "the audit log x: the disk does not answer");
        audit.write(&json!(2)).await;
        assert_eq!(begin.elapsed(), WAIT_MAX);
    }
}
