//! `swarm backup`

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use swarm_docker_api::check_passphrase;

use super::passphrase::PassphraseFlag;
use crate::{
    client::{Client, Received},
    context::Context,
    error::Hinted,
};

const EXAMPLES: &str = "\
Examples:
  swarmctl swarm backup /backup/swarm-$(date +%F)
  swarmctl swarm backup --passphrase-file /root/backup.pass --force /backup/swarm";

/// Write the whole swarm to a sealed file: services, tokens, keys, but no volumes and no images
///
/// The file is what `swarmctl swarm restore` needs on a new machine when all managers are lost. It is sealed with a
/// passphrase: without it the file is of no use to anybody, so keep the two apart.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Backup {
    /// Where to write it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseFlag,
    /// Replace the file if it is there
    #[arg(short, long)]
    force: bool,
}

impl Backup {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        if !self.force && fs::symlink_metadata(&self.file).is_ok() {
            return Err(Hinted {
                message: format!("{} exists already", self.file.display()),
                hint: "Choose another name, or replace it with --force.".to_owned(),
            }
            .into());
        }
        let passphrase = self.passphrase.read(true)?;
        check_passphrase(&passphrase)?;
        // It gets its name when it is whole: half a backup never looks like one.
        let mut temporary = self.file.clone().into_os_string();
        temporary.push(format!(".{}.part", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let written = write(&context.client, &passphrase, &temporary, &self.file, self.force).await;
        if written.is_err() {
            drop(fs::remove_file(&temporary));
        }
        let Received { revision, bytes } = written?;
        Ok(context.out.line(&format!("{}: the swarm at revision {revision}, {bytes} bytes.", self.file.display()))?)
    }
}

async fn write(
    client: &Client,
    passphrase: &swarm_model::Redacted,
    temporary: &Path,
    path: &Path,
    force: bool,
) -> anyhow::Result<Received> {
    let named = |path: &Path| format!("cannot write {}", path.display());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary);
    let mut file = file.with_context(|| named(temporary))?;
    let received = client.backup(passphrase, &mut file).await?;
    let placed = file.sync_all().and_then(|()| match force {
        true => fs::rename(temporary, path),
        // Fails if the name was taken meanwhile.
        false => fs::hard_link(temporary, path).and_then(|()| fs::remove_file(temporary)),
    });
    placed.and_then(|()| sync_folder(path)).with_context(|| named(path))?;
    Ok(received)
}

/// Makes the file's name durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
