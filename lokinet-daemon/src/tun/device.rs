//! `/dev/net/tun`: opening it, making an interface with it, moving packets. Where the kernel offers it, packets come and
//! go by the dozen: it hands down super-packets that are to be cut and checksums that are to be finished, and takes the
//! same (offload, as network cards do it; `tun::offload` is the header before each). The only file of the daemon's TUN with
//! `unsafe`, for two ioctls; packets go through safe reads and writes. Neighbours: `tun` decides what is made, the driver
//! calls the batches, the core cuts and joins.
#![allow(unsafe_code)]

use super::choice::{MTU, NAME_MAX};
use super::offload::{HEADER, Header};
use lokinet_core::driver::Tun;
use lokinet_core::wire::batch::{Packets, Shape};
use lokinet_core::wire::packet;
use lokinet_core::wire::packet::coalesce::{self, HEADER_MAX, RUN_MAX, Run};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Bytes a packet is read into where super-packets do not come: more than the MTU, so that a packet that fills them is
/// known to be cut.
const ROOM: usize = 2048;
/// Bytes a super-packet is read into: IP knows no longer one.
const SUPER_ROOM: usize = 1 << 16;
const _: () = assert!(ROOM > MTU as usize);

/// What a device takes beside plain packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offload {
    /// Nothing.
    None,
    /// Partial checksums and TCP super-packets.
    Tcp,
    /// And UDP super-packets (Linux 6.2).
    TcpAndUdp,
}

/// Opens the door to the kernel's TUN driver: non-blocking, and closed in children (std opens everything so).
pub(super) fn open() -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")
}

/// Makes the interface `name`, which lives as long as `file` is open. An interface of that name, even one left for us
/// by somebody, is refused (`EBUSY`): what we made goes with us.
pub(super) fn make(file: &File, name: &str) -> io::Result<()> {
    if name.len() > NAME_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an all-zero ifreq is a valid one (empty name, no flags).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char; // the last of its 16 bytes stays zero
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call; the descriptor is open.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks the kernel for as much offload as it has.
fn offload(file: &File) -> Offload {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    for (flags, offload) in
        [(tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6, Offload::TcpAndUdp), (tcp, Offload::Tcp), (0, Offload::None)]
    {
        // SAFETY: TUNSETOFFLOAD takes its flags by value and touches no memory of ours; the descriptor is open.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as _, flags as libc::c_ulong) } == 0 {
            return offload;
        }
    }
    Offload::None
}

/// A TUN device that is ours.
pub struct Device {
    file: File,
    offload: Offload,
    /// Whether the kernel takes joined packets; some releases refuse them.
    joins: bool,
}

impl Device {
    pub(super) fn new(file: File, wide: bool) -> Device {
        let offload = if wide { offload(&file) } else { Offload::None };
        Device { file, offload, joins: offload != Offload::None }
    }

    /// Writes one packet after its header; whether the kernel took it. EINVAL: no IP packet; EIO: the interface is
    /// down. Either is this packet's end, not the device's.
    fn write(&mut self, header: Header, pieces: &[&[u8]]) -> bool {
        let header = header.encode();
        let mut slices = [IoSlice::new(&[]); RUN_MAX + 2];
        slices[0] = IoSlice::new(&header);
        for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        loop {
            match self.file.write_vectored(&slices[..pieces.len() + 1]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.is_ok(),
            }
        }
    }

    /// Writes a packet that stands alone.
    fn single(&mut self, packets: &mut Packets, index: usize) -> bool {
        if !packets.shape(index).partial {
            return self.write(Header::default(), &[packets.get(index)]);
        }
        if self.offload == Offload::None {
            return packet::complete(packets.packet(index)).is_ok()
                && self.write(Header::default(), &[packets.get(index)]);
        }
        match packet::checksum_place(packets.get(index)) {
            Some((start, offset)) => self.write(Header::partial(start, offset), &[packets.get(index)]),
            None => false,
        }
    }

    /// Writes a run as one packet.
    fn joined(&mut self, packets: &Packets, run: &Run) -> bool {
        let mut head = [0; HEADER_MAX];
        run.header(packets, &mut head);
        let mut pieces: [&[u8]; RUN_MAX + 1] = [&[]; RUN_MAX + 1];
        pieces[0] = &head[..run.header];
        let mut count = 1;
        for (piece, payload) in pieces[1..].iter_mut().zip(run.payloads(packets)) {
            *piece = payload;
            count += 1;
        }
        self.write(Header::joined(run), &pieces[..count])
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Why nothing was appended to a batch.
enum Nothing {
    /// The packet was larger than the MTU can be meant to allow, or is none, and is gone.
    Unfit,
    Error(io::Error),
}

impl Tun for Device {
    fn receive(&mut self, into: &mut Packets) -> io::Result<()> {
        let file = &mut self.file;
        let room = if self.offload == Offload::None { ROOM } else { SUPER_ROOM };
        while !into.is_full() {
            let mut shape = Shape::default();
            let read = into.push_with(room, |room| {
                let mut header = [0; HEADER];
                let capacity = room.len();
                let read = file.read_vectored(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(room)]);
                let used = match read.map_err(Nothing::Error)?.checked_sub(HEADER) {
                    Some(used) if used > 0 && (used < capacity || capacity == SUPER_ROOM) => used,
                    _ => return Err(Nothing::Unfit),
                };
                shape = Header::decode(&header).shape(&mut room[..used]).ok_or(Nothing::Unfit)?;
                Ok(used)
            });
            match read {
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
        let mut written = 0;
        let mut alone = Vec::new();
        if self.joins {
            let udp = self.offload == Offload::TcpAndUdp;
            let shared: &Packets = packets;
            coalesce::runs(shared, udp, |found| match found {
                Ok(run) if self.joins && self.joined(shared, &run) => written += run.packets.len(),
                // A kernel that refuses one run refuses them all: from now on packets go one by one.
                Ok(run) => {
                    self.joins = false;
                    alone.extend(run.packets);
                }
                Err(index) if shared.shape(index).partial => match packet::checksum_place(shared.get(index)) {
                    Some((start, offset)) => {
                        written += usize::from(self.write(Header::partial(start, offset), &[shared.get(index)]));
                    }
                    None => {}
                },
                Err(index) => written += usize::from(self.write(Header::default(), &[shared.get(index)])),
            });
        } else {
            alone.extend(0..packets.len());
        }
        for index in alone {
            written += usize::from(self.single(packets, index));
        }
        (written, packets.len() - written)
    }
}
