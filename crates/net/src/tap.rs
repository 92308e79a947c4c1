//! TAP devices: the ports of encrypted networks' bridges, whose frames the data plane carries.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::process::geteuid;
use tun_rs::{DeviceBuilder, Layer};

/// Opens a queue of the TAP device of this name in the namespace of the calling thread. The device is made if it is not there;
/// it is up only after somebody says so. It goes with its last queue, unless it `stays`. Other users get no queue of it, unless
/// they have CAP_NET_ADMIN.
///
/// Each frame has the header of virtio-net before it (10 bytes), and may be one of up to 64 KB that the kernel cuts only at its
/// end, or whose checksum it has left out. Frames of one flow come to one queue; without a queue the device has no carrier.
///
/// # Errors
/// The kernel's: it has no TAP devices, does not permit them, or another kind of device has the name.
pub(crate) fn open(name: &str, stays: bool) -> io::Result<OwnedFd> {
    let builder = DeviceBuilder::new().name(name).layer(Layer::L2).offload(true).multi_queue(true);
    let device = builder.inherit_enable_state().build_sync()?;
    // A device without an owner gives a queue to each user who may open /dev/net/tun. tun-rs 2.8 makes the address of the number
    // the owner, and not the number: a user that nobody is. That keeps others out as well, and this process has the right
    // to all devices.
    device.user(geteuid().as_raw().cast_signed())?;
    if stays {
        device.persist()?;
    }
    device.as_fd().try_clone_to_owned()
}
