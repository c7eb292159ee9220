//! `/dev/net/tun`: opening it, making an interface with it, moving packets. The only file of the daemon's TUN with
//! `unsafe`, for the one ioctl; packets go through safe reads and writes. Neighbours: `tun` decides what is made, the
//! driver calls the batches; `devnet::wire` makes its TAPs here.
#![allow(unsafe_code)]

use super::choice::{MTU, NAME_MAX};
use lokinet_core::driver::Tun;
use lokinet_core::wire::batch::Packets;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Bytes a packet is read into: more than the MTU, so that a packet that fills them is known to be cut.
const ROOM: usize = 2048;
const _: () = assert!(ROOM > MTU as usize);

/// What an interface carries.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(crate) enum Kind {
    /// IP packets.
    Tun = libc::IFF_TUN,
    /// Ethernet frames.
    Tap = libc::IFF_TAP,
}

/// Opens the door to the kernel's TUN driver: non-blocking, and closed in children (std opens everything so).
pub(crate) fn open() -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")
}

/// Makes the interface `name`, which lives as long as `file` is open. An interface of that name, even one left for us
/// by somebody, is refused (`EBUSY`): what we made goes with us. Without a name the kernel chooses one.
pub(crate) fn make(file: &File, name: &str, kind: Kind) -> io::Result<()> {
    if name.len() > NAME_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an all-zero ifreq is a valid one (empty name, no flags).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char; // the last of its 16 bytes stays zero
    }
    request.ifr_ifru.ifru_flags = (kind as libc::c_int | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call; the descriptor is open.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A TUN device that is ours.
pub struct Device {
    file: File,
}

impl Device {
    pub(super) fn new(file: File) -> Device {
        Device { file }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Why nothing was appended to a batch.
enum Nothing {
    /// The packet was larger than the MTU can be meant to allow, and is gone.
    Cut,
    Error(io::Error),
}

impl Tun for Device {
    fn receive(&mut self, into: &mut Packets) -> io::Result<()> {
        let file = &mut self.file;
        while !into.is_full() {
            let read = into.push_with(ROOM, |room| match file.read(room) {
                Ok(used) if used >= ROOM => Err(Nothing::Cut),
                Ok(used) => Ok(used),
                Err(error) => Err(Nothing::Error(error)),
            });
            match read {
                Ok(()) | Err(Nothing::Cut) => {}
                Err(Nothing::Error(error)) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn send(&mut self, packets: &mut Packets) -> (usize, usize) {
        let mut written = 0;
        for packet in packets.iter() {
            // EINVAL: no IP packet; EIO: the interface is down. Either is this packet's end, not the device's.
            let result = loop {
                match self.file.write(packet) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result,
                }
            };
            written += usize::from(result.is_ok());
        }
        (written, packets.len() - written)
    }
}
