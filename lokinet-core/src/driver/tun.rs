//! What the driver asks of a TUN device: packets by the batch, readiness by its file descriptor. The daemon's kernel
//! side implements it; a test can implement it with a socket pair. Neighbours: `driver` waits on it and moves batches.

use crate::wire::batch::Packets;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A TUN device, opened and non-blocking.
pub trait Tun: AsFd + Send {
    /// Appends the packets that wait in the device, until none waits or `into` is full. Stopping earlier loses the
    /// wake-up for what is left.
    ///
    /// # Errors
    /// When the device cannot be read any more. An empty device is no error.
    fn receive(&mut self, into: &mut Packets) -> io::Result<()>;

    /// Writes all packets; says how many were written and how many the device refused.
    fn send(&mut self, packets: &mut Packets) -> (usize, usize);
}

/// A device and its readiness. The reactor watches a descriptor of its own, a duplicate of the device's: whatever an
/// implementation of [`Tun`] does with its descriptor, the watched one stays open and stays the same.
pub(super) struct Device {
    pub(super) tun: Box<dyn Tun>,
    pub(super) ready: AsyncFd<OwnedFd>,
}

impl Device {
    /// Registers a device with tokio's reactor.
    pub(super) fn watch(tun: Box<dyn Tun>) -> io::Result<Device> {
        let watched = tun.as_fd().try_clone_to_owned()?;
        // Deprecated because a careless `AsRawFd` could change or close its descriptor under the reactor. An `OwnedFd`
        // that the `AsyncFd` owns cannot, so the safe constructor is sound here; its successor is `unsafe`, which is
        // not for this file (law 7).
        #[expect(deprecated)]
        let ready = AsyncFd::with_interest(watched, Interest::READABLE)?;
        Ok(Device { tun, ready })
    }
}
