//! What the driver asks of a TUN device: packets by the batch, readiness by its file descriptor. The daemon's kernel
//! side implements it; a test can implement it with a socket pair. Neighbours: `driver` waits on it and moves batches.

use crate::wire::batch::Packets;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

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

/// A device in the shape tokio's reactor wants.
pub(crate) struct Device(pub(crate) Box<dyn Tun>);

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
