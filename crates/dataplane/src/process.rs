//! The process `swarmd data`.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{sync::mpsc, time::sleep};

use crate::{
    control::{Control, ControlSocket},
    descriptors::{self, Descriptors},
    forward::{Forwarder, Holding},
    incoming,
    link::Links,
    listeners::Listeners,
    plane::Plane,
    remote::{Arrival, Remote},
    voice::About,
};

/// How often refused connections are spoken of.
const REFUSED_PERIOD: Duration = Duration::from_secs(60);

/// How a data plane runs.
#[derive(Debug)]
pub struct Options {
    /// Where swarmd comes to.
    pub control: Control,
    /// How connections wait that find no endpoint.
    pub holding: Holding,
    /// Open files that it may have; none for the limit of the process, which it raises as far as it may.
    pub descriptors_max: Option<usize>,
}

/// Runs a data plane until swarmd says that it is to end.
///
/// # Errors
/// As [`serve`].
pub async fn run(options: Options) -> Result<()> {
    let (links, arrivals) = Links::new();
    serve(options, Arc::new(links), arrivals).await
}

/// The same with these links to other nodes.
///
/// # Errors
/// The socket for swarmd cannot be opened: its folder is open to others, or another data plane runs there.
pub async fn serve<A: Arrival>(options: Options, remote: Arc<dyn Remote>, arrivals: mpsc::Receiver<A>) -> Result<()> {
    let socket = ControlSocket::open(options.control).await?;
    let plane = Arc::new(Plane::new(remote));
    let descriptors = Descriptors::new(options.descriptors_max.unwrap_or_else(descriptors::raise_limit));
    let forwarder = Arc::new(Forwarder::new(Arc::clone(&plane), Arc::clone(&descriptors), options.holding));
    tokio::select! {
        () = socket.serve(Arc::clone(&plane)) => {}
        () = Listeners::new(Arc::clone(&forwarder)).run() => {}
        () = speak_of_refused(&plane, &descriptors) => {}
        () = async {
            incoming::take(arrivals, forwarder).await;
            std::future::pending().await
        } => {}
    }
    Ok(())
}

/// Says once in a period how many connections were refused for want of descriptors, and takes it back after a period
/// without.
async fn speak_of_refused(plane: &Plane, descriptors: &Descriptors) {
    loop {
        let refused = descriptors.refused_connections().await;
        let text = format!("refused {refused} connections: limit of {} open files", descriptors.limit);
        plane.warnings.set(About::Descriptors, Some(text));
        sleep(REFUSED_PERIOD).await;
        if !descriptors.has_refused() {
            plane.warnings.set(About::Descriptors, None);
        }
    }
}
