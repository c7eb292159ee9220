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

/// What the header says.
#[derive(Clone, Copy, Default)]
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
