//! The header before each packet of a TUN device with offload: Linux's `virtio_net_hdr` (virtio 1.2, chapter 5.1.6), in the
//! host's byte order. Neighbours: `device` reads and writes it, the core cuts and joins what it describes.

use lokinet_core::wire::batch::Shape;
use lokinet_core::wire::packet;
use lokinet_core::wire::packet::coalesce::Run;

/// Its length, in bytes.
pub(super) const HEADER: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;
/// Beside one of the kinds: the flow speaks ECN.
const ECN: u8 = 0x80;

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

/// What the header says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Header {
    flags: u8,
    kind: u8,
    header: u16,
    segment: u16,
    start: u16,
    offset: u16,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Header {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Header { flags: bytes[0], kind: bytes[1], header: word(2), segment: word(4), start: word(6), offset: word(8) }
    }

    pub(super) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [self.flags, self.kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip([self.header, self.segment, self.start, self.offset]) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Of a packet whose checksum the kernel is to finish if anybody needs it.
    pub(super) fn partial(start: usize, offset: usize) -> Header {
        Header { flags: NEEDS_CHECKSUM, start: start as u16, offset: offset as u16, ..Header::default() }
    }

    /// Of packets that have been joined.
    pub(super) fn joined(run: &Run) -> Header {
        let kind = match (run.tcp, run.v6) {
            (true, false) => TCP4,
            (true, true) => TCP6,
            (false, _) => UDP,
        };
        let (header, segment) = (run.header as u16, run.segment as u16);
        Header { kind, header, segment, ..Header::partial(run.transport, run.offset) }
    }

    /// What a packet that came with this header lacks; a checksum that nobody after us could finish is finished here.
    /// `None` when it is nothing we asked for.
    pub(super) fn shape(self, bytes: &mut [u8]) -> Option<Shape> {
        let segment = match self.kind & !ECN {
            0 => 0,
            TCP4 | TCP6 | UDP if self.segment > 0 && self.flags & NEEDS_CHECKSUM != 0 => self.segment,
            _ => return None,
        };
        let place = (usize::from(self.start), usize::from(self.offset));
        let mut partial = self.flags & NEEDS_CHECKSUM != 0;
        if partial && packet::checksum_place(bytes) != Some(place) {
            if segment > 0 {
                return None;
            }
            packet::finish_checksum(bytes, place.0, place.1).ok()?;
            partial = false;
        }
        Some(Shape { partial, segment })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A TCP packet of 40 bytes over IPv4.
    fn tcp() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend_from_slice(&[0, 1, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        packet
    }

    fn shape(header: Header) -> Option<(Shape, bool)> {
        let mut packet = tcp();
        let shape = header.shape(&mut packet)?;
        Some((shape, packet != tcp()))
    }

    #[test]
    fn what_the_kernel_says_of_a_packet() {
        let plain = Shape::default();
        let partial = Header::partial(20, 16);
        assert_eq!(shape(Header::default()), Some((plain, false)));
        assert_eq!(shape(partial), Some((Shape { partial: true, segment: 0 }, false)));
        let joined = Header { kind: TCP4 | ECN, segment: 1000, ..partial };
        assert_eq!(shape(joined), Some((Shape { partial: true, segment: 1000 }, false)));
        // A checksum where we know none is finished at once; in a packet that is to be cut it is nothing we asked for.
        assert_eq!(shape(Header::partial(20, 14)), Some((plain, true)));
        assert_eq!(shape(Header { offset: 14, ..joined }), None);
        assert_eq!(shape(Header::partial(20, 19)), None, "beyond the end");
        assert_eq!(shape(Header { segment: 0, ..joined }), None, "to be cut into nothing");
        assert_eq!(shape(Header { flags: 0, ..joined }), None, "to be cut with a whole checksum");
        assert_eq!(shape(Header { kind: 3, ..joined }), None, "UDP fragments");
    }

    #[test]
    fn the_header_round_trips() {
        let header = Header { flags: 1, kind: 4, header: 60, segment: 1220, start: 40, offset: 16 };
        assert_eq!(Header::decode(&header.encode()), header);
    }
}
