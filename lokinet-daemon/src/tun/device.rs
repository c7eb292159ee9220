//! `/dev/net/tun`: opening it, making an interface with it, moving packets. Where the kernel offers it, packets come and
//! go by the dozen: it hands down super-packets that are to be cut and checksums that are to be finished, and takes the
//! same (offload, as network cards do it; `tun::offload` is the header before each). The only file of the daemon's TUN with
//! `unsafe`, for two ioctls; packets go through safe reads and writes. Neighbours: `tun` decides what is made, the driver
//! calls the batches, `devnet::wire` makes its TAPs here, `outgoing` says what is written, the core cuts and joins.
#![allow(unsafe_code)]

use super::choice::{MTU, NAME_MAX};
use super::offload::{HEADER, Header, Offload};
use super::outgoing::{Outgoing, PIECES_MAX};
use lokinet_core::driver::Tun;
use lokinet_core::wire::batch::{Packets, Shape};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Bytes a packet is read into where super-packets do not come: more than the MTU, so that a packet that fills them is
/// known to be cut.
const ROOM: usize = 2048;
/// Bytes a super-packet is read into: the kernel makes none as long (`GSO_LEGACY_MAX_SIZE`).
const SUPER_ROOM: usize = 1 << 16;
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
    // With or without offload, the header comes before each packet of a TUN; the kernel has had it for longer than
    // IFF_TUN_EXCL. A TAP carries plain frames.
    let header = if let Kind::Tun = kind { libc::IFF_VNET_HDR } else { 0 };
    let flags = kind as libc::c_int | libc::IFF_NO_PI | libc::IFF_TUN_EXCL | header;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call; the descriptor is open.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks the kernel for as much offload as it has; without asking it gives none.
fn negotiate(file: &File) -> Offload {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let both = tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    // SAFETY: TUNSETOFFLOAD takes its flags by value and touches no memory of ours; the descriptor is open.
    let takes =
        |flags| unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) == 0 };
    if takes(both) {
        Offload::TcpAndUdp
    } else if takes(tcp) {
        Offload::Tcp
    } else {
        Offload::None
    }
}

/// A TUN device that is ours.
pub struct Device {
    file: File,
    /// Bytes a packet is read into.
    room: usize,
    outgoing: Outgoing,
}

impl Device {
    /// `wide`: whether super-packets may come, where the kernel has them.
    pub(super) fn new(file: File, wide: bool) -> Device {
        let offload = if wide { negotiate(&file) } else { Offload::None };
        let room = if offload == Offload::None { ROOM } else { SUPER_ROOM };
        Device { file, room, outgoing: Outgoing::new(offload) }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Why nothing was appended to a batch.
enum Nothing {
    /// The packet filled its room, so that its end may be lost, or is none we can use, and is gone.
    Unfit,
    Error(io::Error),
}

/// Reads one packet into `room`: its length, and what its header says of it.
fn read(mut file: &File, room: &mut [u8]) -> Result<(usize, Shape), Nothing> {
    let mut header = [0; HEADER];
    let read =
        file.read_vectored(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(room)]).map_err(Nothing::Error)?;
    let packet = read.checked_sub(HEADER).filter(|used| *used < room.len()).and_then(|used| room.get_mut(..used));
    let shaped = packet.and_then(|packet| Some((packet.len(), Header::decode(&header).shape(packet)?)));
    shaped.ok_or(Nothing::Unfit)
}

/// Writes one packet after its header.
fn write(mut file: &File, header: Header, pieces: &[&[u8]]) -> io::Result<()> {
    let header = header.encode();
    let mut slices = [IoSlice::new(&[]); PIECES_MAX + 1];
    slices[0] = IoSlice::new(&header);
    for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
    }
    loop {
        match file.write_vectored(&slices[..=pieces.len()]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

impl Tun for Device {
    fn receive(&mut self, into: &mut Packets) -> io::Result<()> {
        while !into.is_full() {
            let mut shape = Shape::default();
            let appended = into.push_with(self.room, |room| {
                let (used, found) = read(&self.file, room)?;
                shape = found;
                Ok(used)
            });
            match appended {
                Ok(()) => into.shape_last(shape),
                Err(Nothing::Unfit) => {}
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
        let file = &self.file;
        let written = self.outgoing.send(packets, &mut |header, pieces| write(file, header, pieces));
        (written, packets.len() - written)
    }
}
