//! Queues of TAP devices, for the data planes of this host.

use std::{io, os::fd::OwnedFd};

use swarm_model::ObjectId;
use tokio::sync::oneshot;

use super::{Device, Host, describe_tap};
use crate::tap;

/// The way to a caller that wants a queue. It is closed when the caller is gone.
pub(crate) type ToCaller = oneshot::Sender<io::Result<OwnedFd>>;

impl Host {
    /// Keeps a caller until the TAP device of a network is there.
    pub(super) fn wait_for_queue(&mut self, network: ObjectId, caller: ToCaller) {
        self.callers.push((network, caller));
    }

    /// Answers the callers whose devices are there.
    pub(super) fn answer_callers(&mut self) {
        for (network, caller) in std::mem::take(&mut self.callers) {
            match self.tap_of(network) {
                _ if caller.is_closed() => {}
                Some(name) => {
                    let opened = tap::open(&name, true).map_err(|e| io::Error::other(describe_tap(&e)));
                    let _ = caller.send(opened);
                }
                None => self.callers.push((network, caller)),
            }
        }
    }

    /// The name of the TAP device of a network, once it is there. It may be one that another process of this host keeps.
    fn tap_of(&self, network: ObjectId) -> Option<String> {
        let device = self.devices.get(&network).filter(|device| device.is_tap)?;
        let link = self.link(&device.name()).filter(|link| link.is_tun)?;
        (link.alias.as_ref() == Some(&device.alias)).then(|| Device::name(device))
    }
}
