//! Running other programs.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::{self, Look};

/// A command line as a person would type it, without the folder of the program.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    std::iter::once(program.file_name().unwrap_or(program.as_os_str()))
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
            if !word.is_empty() && word.chars().all(plain) { word.into_owned() } else { format!("'{word}'") }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs it with our own input and output; fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", line(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Like [`run`], but ends it after `limit`.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let text = line(command);
    let mut child = command.spawn().with_context(|| format!("cannot run {text}"))?;
    let status = wait_for(&mut child, &text, limit)?;
    if !status.success() {
        bail!("{text} failed: {status}");
    }
    Ok(())
}

/// Runs it and returns its standard output; its standard error is part of the failure.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}: {}", line(command), output.status, said.trim());
    }
    Ok(output.stdout)
}

fn wait_for(child: &mut Child, text: &str, limit: Duration) -> Result<std::process::ExitStatus> {
    // No progress of ours: the program shows its own.
    let start = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {text}"))? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            child.kill().and_then(|()| child.wait()).with_context(|| format!("cannot end {text}"))?;
            bail!("{text} did not end within {} s", limit.as_secs());
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Sends SIGTERM and waits until the process is gone; false if it was not within `limit`.
pub(crate) fn terminate(child: &mut Child, what: &str, limit: Duration) -> Result<bool> {
    if child.try_wait()?.is_some() {
        return Ok(true);
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM)
        .with_context(|| format!("cannot send SIGTERM to {what}"))?;
    let gone = wait::until(what, limit, || {
        Ok(match child.try_wait()? {
            Some(_) => Look::Done(()),
            None => Look::NotYet("still running".to_owned()),
        })
    });
    Ok(gone.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_a_shell_would_split() {
        let mut command = Command::new("/usr/bin/swarmctl");
        command.args(["service", "create", "--env", "TASK={{.Task.Name}}", "a b", ""]);
        assert_eq!(line(&command), "swarmctl service create --env 'TASK={{.Task.Name}}' 'a b' ''");
    }

    #[test]
    fn failure_carries_what_the_program_said() {
        let error = output(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let error = run_within(Command::new("sleep").arg("1000"), Duration::ZERO).unwrap_err().to_string();
        assert_eq!(error, "sleep 1000 did not end within 0 s");
    }
}
