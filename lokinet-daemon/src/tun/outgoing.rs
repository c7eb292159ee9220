//! Packets on their way to the kernel: which go as one, what header stands before each, and what is done when the kernel
//! refuses. How a write is done is the caller's: so this is tested without a kernel. Neighbours: `device` writes,
//! `offload` is the header, the core's `coalesce` finds what continues.

use super::offload::{Header, Offload};
use lokinet_core::wire::batch::Packets;
use lokinet_core::wire::packet;
use lokinet_core::wire::packet::coalesce::{Flows, HEADER_MAX, Next, RUN_MAX, Run};
use std::io;

/// Pieces that one write has at most, beside the header: a run's own header and its payloads.
pub(super) const PIECES_MAX: usize = RUN_MAX + 1;
/// Joined packets in a row that the kernel must refuse until we believe that it takes none.
const REFUSALS_MAX: u8 = 8;

/// Writes one packet, given in pieces, after its header.
pub(super) trait Write: FnMut(Header, &[&[u8]]) -> io::Result<()> {}
impl<F: FnMut(Header, &[&[u8]]) -> io::Result<()>> Write for F {}

/// What is known of the kernel's taste.
pub(super) struct Outgoing {
    offload: Offload,
    /// Joined packets refused since one was taken.
    refusals: u8,
    flows: Flows,
}

impl Outgoing {
    pub(super) fn new(offload: Offload) -> Outgoing {
        Outgoing { offload, refusals: 0, flows: Flows::default() }
    }

    /// Writes a batch, each flow in its order; says how many packets the kernel took. One that it does not take is gone, as
    /// on any network: no IP packet (EINVAL), the interface is down (EIO), no memory or room just now.
    pub(super) fn send(&mut self, packets: &mut Packets, write: &mut impl Write) -> usize {
        if self.offload == Offload::None {
            return (0..packets.len()).filter(|index| complete(packets, *index, write)).count();
        }
        let packets: &Packets = packets;
        let (udp, refusals) = (self.offload == Offload::TcpAndUdp, &mut self.refusals);
        let mut written = 0;
        self.flows.join(packets, udp, |next| {
            written += match next {
                Next::Joined(run) if joined(packets, run, refusals, write) => run.packets().len(),
                Next::Joined(run) => run.packets().filter(|index| single(packets, *index, write)).count(),
                Next::Alone(index) => usize::from(single(packets, index, write)),
            }
        });
        written
    }
}

/// Writes a run as one packet, if the kernel has not shown that it does not take such.
fn joined(packets: &Packets, run: &Run, refusals: &mut u8, write: &mut impl Write) -> bool {
    if *refusals == REFUSALS_MAX {
        return false;
    }
    let mut head = [0; HEADER_MAX];
    run.header(packets, &mut head);
    let mut pieces: [&[u8]; PIECES_MAX] = [&[]; PIECES_MAX];
    pieces[0] = &head[..run.header];
    for (piece, payload) in pieces[1..].iter_mut().zip(run.payloads(packets)) {
        *piece = payload;
    }
    let result = write(Header::joined(run), &pieces[..=run.packets().len()]);
    match &result {
        Ok(()) => *refusals = 0,
        Err(error) => *refusals += u8::from(error.raw_os_error() == Some(libc::EINVAL)),
    }
    result.is_ok()
}

/// Writes one packet as it is; a checksum it lacks is the kernel's to finish.
fn single(packets: &Packets, index: usize, write: &mut impl Write) -> bool {
    let header = match packets.shape(index).partial {
        true => packet::checksum_place(packets.get(index)).map(|(start, offset)| Header::partial(start, offset)),
        false => Some(Header::default()),
    };
    header.is_some_and(|header| write(header, &[packets.get(index)]).is_ok())
}

/// Writes one packet whole, its checksum finished here.
fn complete(packets: &mut Packets, index: usize, write: &mut impl Write) -> bool {
    let whole = !packets.shape(index).partial || packet::complete(packets.packet(index)).is_ok();
    whole && write(Header::default(), &[packets.get(index)]).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lokinet_core::wire::batch::Shape;
    use lokinet_core::wire::packet::{Stripped, V4_HEADER, segment};
    use std::net::Ipv4Addr;

    /// What a kernel took: its header's flags and kind, and the packet.
    type Taken = Vec<([u8; 2], Vec<u8>)>;

    /// As many packets of 100 bytes of one connection as the node would deliver for a super-packet of the other end.
    fn push_stream(packets: &mut Packets, count: usize, port: u8) {
        let length = V4_HEADER + 20 + 100 * count;
        let mut packet = vec![0x45, 0, (length >> 8) as u8, length as u8, 0, 0, 0x40, 0, 64, 6, 0, 0];
        packet.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0, port, 0, 80]);
        packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        packet.extend((0..count).flat_map(|index| [index as u8; 100]));
        let (src, dst) = (Ipv4Addr::new(172, 16, 0, 9), Ipv4Addr::new(172, 16, 0, 1));
        segment::cut(&packet, Shape { partial: true, segment: 100 }, &mut Vec::new(), |bytes| {
            packet::restore(Stripped { bytes, partial: true }, src, dst, None, packets).unwrap();
        })
        .unwrap();
    }

    /// The sum of an even number of bytes, as in RFC 1071.
    fn sum(bytes: &[u8]) -> u32 {
        let sum = bytes.chunks(2).fold(0, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        (sum & 0xffff) + (sum >> 16)
    }

    fn stream(count: usize) -> Packets {
        let mut packets = Packets::new();
        push_stream(&mut packets, count, 1);
        packets
    }

    /// A kernel that answers joined packets with an error, or takes all.
    fn kernel(taken: &mut Taken, refuses: Option<i32>) -> impl Write {
        move |header, pieces| {
            let bytes = header.encode();
            match refuses.filter(|_| bytes[1] != 0) {
                Some(error) => return Err(io::Error::from_raw_os_error(error)),
                None => taken.push(([bytes[0], bytes[1]], pieces.concat())),
            }
            Ok(())
        }
    }

    #[test]
    fn a_stream_goes_as_one() {
        let (mut packets, mut taken) = (stream(10), Taken::new());
        let written = Outgoing::new(Offload::Tcp).send(&mut packets, &mut kernel(&mut taken, None));
        assert_eq!((written, taken.len(), taken[0].0, taken[0].1.len()), (10, 1, [1, 1], 1040));
    }

    /// Four streams whose packets come in turns, as from four callers: each goes as one, whole and in order.
    #[test]
    fn streams_that_come_in_turns_go_as_one_each() {
        let streams: Vec<Packets> = (1..5)
            .map(|port| {
                let mut packets = Packets::new();
                push_stream(&mut packets, 10, port);
                packets
            })
            .collect();
        let (mut packets, mut taken) = (Packets::new(), Taken::new());
        for (index, stream) in (0..10).flat_map(|index| streams.iter().map(move |stream| (index, stream))) {
            packets.push(stream.get(index));
            packets.shape_last(stream.shape(index));
        }
        let written = Outgoing::new(Offload::Tcp).send(&mut packets, &mut kernel(&mut taken, None));
        assert_eq!((written, taken.len()), (40, 4));
        for ((header, mut packet), port) in taken.into_iter().zip(1..) {
            let payload: Vec<u8> = (0..10).flat_map(|index| [index; 100]).collect();
            assert_eq!((header, packet[21], &packet[40..]), ([1, 1], port, payload.as_slice()));
            // The header's sum is right, and the one over all of it once it is finished.
            assert_eq!(sum(&packet[..V4_HEADER]), 0xffff);
            packet::finish_checksum(&mut packet, V4_HEADER, 16).unwrap();
            let length = (packet.len() - V4_HEADER) as u16;
            let pseudo = [&packet[12..20], &[0, 6], &length.to_be_bytes()].concat();
            assert_eq!(sum(&[&pseudo, &packet[V4_HEADER..]].concat()), 0xffff);
        }
    }

    /// What the kernel does not take as one it gets one by one, in order; nothing is lost.
    #[test]
    fn a_refused_run_goes_packet_by_packet() {
        for error in [libc::EINVAL, libc::EAGAIN, libc::ENOMEM] {
            let (mut packets, mut taken) = (stream(3), Taken::new());
            push_stream(&mut packets, 1, 2);
            push_stream(&mut packets, 2, 3);
            let written = Outgoing::new(Offload::Tcp).send(&mut packets, &mut kernel(&mut taken, Some(error)));
            assert_eq!((written, taken.len()), (6, 6));
            for (index, (header, packet)) in taken.iter().enumerate() {
                assert_eq!((header, packet.as_slice()), (&[1, 0], packets.get(index)));
            }
        }
    }

    /// A kernel that takes no joined packets is asked a few times, then no more; one without memory is asked again.
    #[test]
    fn a_kernel_that_never_takes_runs_is_not_asked_for_ever() {
        let asked = |error: i32| {
            let (mut outgoing, mut asked) = (Outgoing::new(Offload::Tcp), 0);
            for _ in 0..100 {
                let written = outgoing.send(&mut stream(2), &mut |header: Header, _: &[&[u8]]| {
                    let joined = header.encode()[1] != 0;
                    asked += u32::from(joined);
                    if joined { Err(io::Error::from_raw_os_error(error)) } else { Ok(()) }
                });
                assert_eq!(written, 2);
            }
            asked
        };
        assert_eq!((asked(libc::EINVAL), asked(libc::ENOMEM)), (REFUSALS_MAX.into(), 100));
        // A refusal now and then is forgiven.
        let (mut outgoing, mut asked) = (Outgoing::new(Offload::Tcp), 0);
        for turn in 0..100 {
            outgoing.send(&mut stream(2), &mut |header: Header, _: &[&[u8]]| {
                let joined = header.encode()[1] != 0;
                asked += u32::from(joined);
                if joined && turn % 2 == 0 { Err(io::Error::from_raw_os_error(libc::EINVAL)) } else { Ok(()) }
            });
        }
        assert_eq!(asked, 100);
    }

    /// Without offload each packet goes alone and whole.
    #[test]
    fn without_offload_checksums_are_finished() {
        let (mut packets, mut taken) = (stream(4), Taken::new());
        let partial: Vec<Vec<u8>> = packets.iter().map(<[u8]>::to_vec).collect();
        assert_eq!(Outgoing::new(Offload::None).send(&mut packets, &mut kernel(&mut taken, None)), 4);
        for ((header, packet), mut partial) in taken.into_iter().zip(partial) {
            assert_eq!(header, [0, 0]);
            assert_ne!(packet, partial);
            packet::finish_checksum(&mut partial, V4_HEADER, 16).unwrap();
            assert_eq!(packet, partial);
        }
    }

    /// A packet the kernel does not take is counted, and the rest goes on.
    #[test]
    fn a_refused_packet_is_only_that_one() {
        for offload in [Offload::None, Offload::TcpAndUdp] {
            let mut packets = Packets::new();
            for byte in 0..5 {
                packets.push(&[byte; 40]);
            }
            let written = Outgoing::new(offload).send(&mut packets, &mut |_: Header, pieces: &[&[u8]]| match pieces {
                [[2, ..]] => Err(io::Error::from_raw_os_error(libc::EINVAL)),
                _ => Ok(()),
            });
            assert_eq!(written, 4);
        }
    }
}
