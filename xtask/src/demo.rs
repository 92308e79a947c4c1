//! `cargo xtask demo`: a cluster of three nodes on this machine, shown step by step. Each step waits for what it
//! claims; what does not happen ends the demo with what was seen instead.

mod cluster;
mod rollout;
mod story;
mod traffic;
mod view;

use anyhow::{Result, anyhow};

use crate::engine::Engine;
use crate::{images, interrupt, programs, ui};

use cluster::Cluster;

/// The options of `cargo xtask demo`.
pub(crate) struct Options {
    /// Leave the cluster at the end.
    pub keep: bool,
    /// Tasks run in memory.
    pub simulated: bool,
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> Result<()> {
    ui::heading("Getting ready");
    let (engine, images) = if options.simulated {
        ui::say(
            "Tasks run in memory (--simulated): no Docker Engine and no root are needed, and there are no containers.",
        );
        (None, Vec::new())
    } else {
        let engine = Engine::ensure()
            .map_err(|error| anyhow!("{error:#}; `cargo xtask demo --simulated` needs no Docker Engine"))?;
        ui::seen(&format!("a Docker Engine {} answers at {}", engine.version(), engine.host()));
        let images = images::ensure(&engine)?;
        (Some(engine), images)
    };
    let programs = programs::build()?;
    interrupt::check()?;

    let mut cluster = Cluster::new(programs, engine)?;
    let told = story::tell(&mut cluster);
    match &told {
        Ok(lines) => {
            ui::heading("Summary");
            for line in lines {
                ui::seen(line);
            }
        }
        Err(_) if interrupt::check().is_err() => ui::heading("Interrupted"),
        Err(error) => {
            ui::heading("This did not go as it should");
            ui::say(&format!("{} {error:#}", ui::red("✗")));
            cluster.show_evidence();
        }
    }
    if options.keep {
        cluster.keep();
        return told.map(drop);
    }
    interrupt::clear();
    ui::heading("Cleaning up");
    let cleaned = cluster.clean_up(told.is_ok(), &images);
    told?;
    cleaned
}
