//! swarmd, the node daemon: identity, role, the API socket.
//!
//! * [`config`] – settings; [`state_dir`] – what is kept.
//! * [`node`] – the node; [`membership`] – init, join, leave; [`member`] – what runs while it belongs to a cluster;
//!   [`role`] – promoted and demoted; [`autolock`] – locked and unlocked.
//! * [`socket`], [`api`], [`engine`] – the API on the Unix socket and the pass-through to the Docker Engine.
//! * [`users`], [`audit`] – who asks, and what is kept of it.
//! * [`data_plane`], [`net`] – the processes beside this one, for published ports and for networks; [`side`] – how they are
//!   started and found.
//! * [`listener`] (with [`places`]), [`connector`], [`certificate`] – the managers' port, the way to it, certificates.
//! * [`loss`], [`reminder`] – what the log says of trouble that lasts.
//! * [`memory`] – huge pages for a large state.

mod address;
mod api;
mod audit;
mod autolock;
mod bounded;
mod certificate;
mod config;
mod connector;
mod data_plane;
mod engine;
mod forward;
mod http;
mod listener;
mod loss;
mod member;
mod membership;
mod memory;
mod net;
mod node;
mod notify;
mod places;
mod random;
mod reminder;
mod role;
mod side;
mod socket;
mod state_dir;
#[cfg(test)]
mod testing;
mod users;

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    api::Api,
    config::{Cli, Command, Config, LogFormat},
    node::Node,
    socket::ApiSocket,
    state_dir::StateDir,
};

/// Managers keep many small shared values and copy them in bursts. With this one the core decides and applies 1.2 to 1.9
/// times as fast as with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "a daemon that does not start says why where it was started")]
fn main() -> ExitCode {
    memory::start_small();
    let run = || {
        let mut cli = Cli::parse();
        let command = cli.command.take();
        let config = Config::load(cli, |name| std::env::var(name).ok())?;
        start_log(&config);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        match command {
            Some(Command::Data { socket, take_over }) => runtime.block_on(data_plane::run(socket, take_over)),
            Some(Command::Net { socket }) => runtime.block_on(net::run(socket)),
            None => runtime.block_on(run(config)),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("swarmd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log_filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match config.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn run(config: Config) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let state = StateDir::open(&config.state_dir)?;
    let socket = ApiSocket::bind(&config.socket).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        state_dir = %config.state_dir.display(),
        socket = %config.socket.display(),
        engine = %config.engine,
        hostname = config.hostname,
        "swarmd starts"
    );
    let node = Arc::new(Node::new(config, state)?);
    node.resume().await.context("cannot take up this node's place in its swarm")?;
    let stop = CancellationToken::new();
    let served = tokio::spawn(socket.serve(Api::new(node.clone()), stop.clone()));
    let growth = tokio::spawn(memory::follow_growth(memory::LARGE_BYTES));
    notify::notify(notify::READY);
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        reason = node.failed() => Err(anyhow::anyhow!(reason)),
    };
    tracing::info!("swarmd stops; containers keep running");
    notify::notify(notify::STOPPING);
    growth.abort();
    stop.cancel();
    served.await?;
    node.shutdown().await;
    ended
}
