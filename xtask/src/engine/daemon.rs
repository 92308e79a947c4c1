//! `dockerd` started by hand, where no service manager does it. It has folders of its own, so that it neither sees nor
//! touches what an engine of this machine keeps, and it stays when we end: the next run finds it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::install;
use crate::ui;
use crate::wait::{self, Look};

/// Images and containers.
const DATA_DIR: &str = "/var/lib/swarmd-demo";
/// Socket, pid files, the engine's own run-time state.
const RUN_DIR: &str = "/run/swarmd-demo";
/// It needs half a second; a machine under load, or its first start, needs more.
const START_LIMIT: Duration = Duration::from_secs(90);
/// It stops its containers first, with up to 10 s of grace.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Lines of its log that a failed start shows.
const LOG_LINES: usize = 15;

/// Where it listens.
pub(super) fn socket() -> PathBuf {
    Path::new(RUN_DIR).join("docker.sock")
}

/// How to end it.
pub(super) fn stop_hint() -> Option<String> {
    running(&pid_file(), "dockerd").map(|pid| format!("kill {}", pid.as_raw_nonzero()))
}

fn pid_file() -> PathBuf {
    Path::new(RUN_DIR).join("docker.pid")
}

/// Starts it and waits until it answers.
pub(super) fn start(answers: &dyn Fn() -> Result<()>) -> Result<()> {
    let dockerd = install::dockerd().context("dockerd is not installed")?;
    for folder in [DATA_DIR, RUN_DIR] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {folder}"))?;
    }
    // Two runs at the same time start one engine. The lock ends with this function.
    let lock = Path::new(RUN_DIR).join("lock");
    let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
    lock.lock().context("cannot lock the engine's folder")?;
    if answers().is_ok() {
        return Ok(());
    }
    clear_remains()?;
    let log_path = Path::new(RUN_DIR).join("dockerd.log");
    let log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut command = Command::new(dockerd);
    command
        .args(["--data-root", DATA_DIR, "--exec-root", &format!("{RUN_DIR}/exec"), "--log-level", "warn"])
        .arg("--pidfile")
        .arg(pid_file())
        .arg("--host")
        .arg(format!("unix://{}", socket().display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot write the engine's log")?)
        .stderr(log)
        // Ctrl-C and the end of the terminal are not for it.
        .process_group(0);
    ui::say(&format!("Starting a Docker Engine in {DATA_DIR}."));
    ui::command(&crate::process::line(&command));
    let mut child = command.spawn().context("cannot start dockerd")?;
    let mut ended = None;
    let started = wait::until("the Docker Engine answers", START_LIMIT, || {
        if answers().is_ok() {
            return Ok(Look::Done(()));
        }
        ended = child.try_wait()?;
        Ok(if ended.is_some() { Look::Done(()) } else { Look::NotYet("no answer yet".to_owned()) })
    });
    if started.is_ok() && ended.is_none() {
        return Ok(());
    }
    let log = fs::read_to_string(&log_path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    match (started, ended) {
        (_, Some(status)) => bail!("dockerd ended at its start ({status}); the end of {}:\n{tail}", log_path.display()),
        (Err(error), None) => {
            drop(child.kill());
            Err(error.context(format!("dockerd does not come up; the end of {}:\n{tail}", log_path.display())))
        }
        (Ok(()), None) => Ok(()),
    }
}

/// What an engine that was killed leaves behind keeps the next one from starting: itself when it hangs, its containerd,
/// and a `containerd.pid` whose process is another one now, for which dockerd would wait a minute and give up.
fn clear_remains() -> Result<()> {
    for (file, program) in
        [(pid_file(), "dockerd"), (Path::new(RUN_DIR).join("exec/containerd/containerd.pid"), "containerd")]
    {
        if let Some(pid) = running(&file, program) {
            ui::say(&format!("Ending a {program} that does not answer (pid {}).", pid.as_raw_nonzero()));
            end(pid, program, &file)?;
        }
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn end(pid: Pid, program: &str, file: &Path) -> Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        // A failure means that it is gone by now; the wait finds out.
        let _ = kill_process(pid, signal);
        let gone = wait::until(&format!("the old {program} ends"), STOP_LIMIT, || {
            Ok(match running(file, program) {
                None => Look::Done(()),
                Some(_) => Look::NotYet("still running".to_owned()),
            })
        });
        if gone.is_ok() {
            return Ok(());
        }
    }
    bail!("the old {program} (pid {}) does not end; look at it by hand", pid.as_raw_nonzero())
}

/// The process in a pid file, if it is alive and still that program, started with our folders.
fn running(file: &Path, program: &str) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command);
    let ours = command.split('\0').next().is_some_and(|word| word.ends_with(program)) && command.contains(RUN_DIR);
    ours.then(|| Pid::from_raw(pid)).flatten()
}
