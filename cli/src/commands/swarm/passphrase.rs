//! The passphrase of a backup: from a file, from standard input, or asked for. Never a flag: others would see it.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, IsTerminal, Read, Write, stdin},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use swarm_docker_api::PASSPHRASE_BYTES_MAX;
use swarm_model::Redacted;

/// Where the passphrase comes from.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PassphraseFlag {
    /// File with the passphrase, - for standard input; without it the passphrase is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseFlag {
    /// The passphrase; a new one is asked for twice.
    pub(super) fn read(&self, new: bool) -> anyhow::Result<Redacted> {
        let Some(path) = &self.passphrase_file else {
            if !stdin().is_terminal() {
                bail!("there is no terminal to ask for the passphrase: give it with --passphrase-file");
            }
            let passphrase = ask("Passphrase of the backup: ")?;
            if new && ask("The same again: ")? != passphrase {
                bail!("the two passphrases differ");
            }
            return Ok(passphrase);
        };
        let mut text = String::new();
        let limit = PASSPHRASE_BYTES_MAX as u64 + 2;
        let read = match path.to_str() {
            Some("-") => stdin().take(limit).read_to_string(&mut text),
            _ => File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text)),
        };
        read.with_context(|| format!("cannot read the passphrase from {}", path.display()))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            bail!("{} holds no passphrase", path.display());
        }
        Ok(Redacted::new(text))
    }
}

/// Asks on the terminal, without showing what is typed.
fn ask(prompt: &str) -> anyhow::Result<Redacted> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").context("cannot use the terminal")?;
    terminal.write_all(prompt.as_bytes())?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    terminal.write_all(b"\n")?;
    read?;
    Ok(Redacted::new(line.trim_end_matches(['\n', '\r'])))
}
