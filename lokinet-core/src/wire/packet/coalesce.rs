//! The way back from cells to super-packets: neighbouring packets of one flow that only continue each other are found, so
//! that a kernel with offload takes them as one (GRO). Nothing is copied here: a [`Run`] says which packets, and what the
//! one header before their payloads is. Neighbours: `packet::restore` made the packets, the daemon's TUN file writes them.

use super::checksum::{checksum, pseudo};
use super::{TCP, UDP, V4_ADDRESSES, V4_AT, V4_CHECKSUM_AT, V4_HEADER, V6_ADDRESSES, V6_AT, V6_HEADER};
use crate::wire::batch::{Packets, Shape};
use core::ops::Range;

/// Most packets taken as one: a system call's pieces, and the kernel's limit of segments, are not far above.
pub const RUN_MAX: usize = 60;
/// Longest header of a run: IPv6, and TCP with all its options.
pub const HEADER_MAX: usize = V6_HEADER + 60;

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// In the byte that holds IPv4's flags and the upper bits of the fragment's offset.
const DONT_FRAGMENT: u8 = 0x40;
const ACK: u8 = 0x10;
const PUSH: u8 = 0x08;

/// Packets that can be written as one.
pub struct Run {
    /// Which packets of the batch.
    pub packets: Range<usize>,
    /// How much of each is header.
    pub header: usize,
    /// Payload of each but the last.
    pub segment: usize,
    /// Where the transport header begins.
    pub transport: usize,
    /// Where its checksum lies in it.
    pub offset: usize,
    /// Whether it is TCP; UDP otherwise.
    pub tcp: bool,
    /// Whether it is IPv6.
    pub v6: bool,
}

/// What of a packet's headers is needed to compare it.
#[derive(Clone, Copy)]
struct Seen {
    v6: bool,
    tcp: bool,
    transport: usize,
    header: usize,
    payload: usize,
    sequence: u32,
    push: bool,
    /// The identification where it tells fragments apart: in IPv4 that may be fragmented (RFC 6864).
    id: Option<u16>,
}

/// What comes next in a batch.
pub enum Next {
    /// At least two packets that go as one.
    Joined(Run),
    /// A packet that stands alone, by its index.
    Alone(usize),
}

/// Goes through a batch, each packet once and in order. UDP is joined only where the kernel takes it (`udp`).
pub fn runs(packets: &Packets, udp: bool, mut each: impl FnMut(Next)) {
    let mut at = 0;
    while at < packets.len() {
        let first = look(packets, at).filter(|seen| seen.tcp || udp);
        let end = first.map_or(at + 1, |first| extend(packets, at, first));
        match first {
            Some(seen) if end > at + 1 => each(Next::Joined(Run {
                packets: at..end,
                header: seen.header,
                segment: seen.payload,
                transport: seen.transport,
                offset: if seen.tcp { 16 } else { 6 },
                tcp: seen.tcp,
                v6: seen.v6,
            })),
            _ => each(Next::Alone(at)),
        }
        at = end;
    }
}

/// How far a run goes that begins with this packet.
fn extend(packets: &Packets, at: usize, first: Seen) -> usize {
    let head = packets.get(at);
    let mut total = first.header + first.payload;
    let mut sequence = first.sequence;
    let mut last = first;
    let mut end = at + 1;
    while end < packets.len() && end - at < RUN_MAX && last.payload == first.payload && !last.push {
        let Some(next) = look(packets, end) else { break };
        sequence = sequence.wrapping_add(last.payload as u32);
        let continues = next.payload <= first.payload
            && (!next.tcp || next.sequence == sequence)
            && next.id == first.id.map(|id| id.wrapping_add((end - at) as u16))
            && total + next.payload <= usize::from(u16::MAX)
            && alike(head, packets.get(end), &first, &next);
        if !continues {
            break;
        }
        total += next.payload;
        last = next;
        end += 1;
    }
    end
}

/// A packet that may be part of a run: TCP data without flags that matter, or UDP; no options or extension headers in
/// front of it, not a fragment, its checksum partial. Its lengths are the other end's word, so they are checked.
fn look(packets: &Packets, index: usize) -> Option<Seen> {
    let packet = packets.get(index);
    if packets.shape(index) != (Shape { partial: true, segment: 0 }) {
        return None;
    }
    let (v6, transport, protocol, id) = match *packet.first()? {
        0x45 => {
            let &[id_high, id_low, flags, offset, _, protocol] = packet.get(4..10)? else { return None };
            if flags & !DONT_FRAGMENT != 0 || offset != 0 {
                return None;
            }
            let id = u16::from_be_bytes([id_high, id_low]);
            (false, V4_HEADER, protocol, (flags & DONT_FRAGMENT == 0).then_some(id))
        }
        first if first >> 4 == 6 => (true, V6_HEADER, *packet.get(6)?, None),
        _ => return None,
    };
    let body = packet.get(transport..)?;
    let (tcp, length) = match protocol {
        TCP => (true, usize::from(body.get(12)? >> 4) * 4),
        UDP if body.get(4..6)? == (body.len() as u16).to_be_bytes() => (false, UDP_HEADER),
        _ => return None,
    };
    if tcp && length < TCP_HEADER {
        return None;
    }
    let payload = body.len().checked_sub(length).filter(|payload| *payload > 0)?;
    let flags = if tcp { *body.get(13)? } else { ACK };
    let sequence = if tcp { u32::from_be_bytes(body.get(4..8)?.try_into().ok()?) } else { 0 };
    let seen = Seen { v6, tcp, transport, header: transport + length, payload, sequence, push: flags & PUSH != 0, id };
    (flags & !PUSH == ACK).then_some(seen)
}

/// Whether two packets' headers differ only in what differs between pieces of one super-packet.
fn alike(a: &[u8], b: &[u8], first: &Seen, next: &Seen) -> bool {
    if (first.v6, first.tcp, first.header) != (next.v6, next.tcp, next.header) {
        return false;
    }
    let same = |range: Range<usize>| a.get(range.clone()) == b.get(range);
    let t = first.transport;
    // Length, identification (see `Seen`) and header checksum differ in IPv4; the length in IPv6.
    let ip = if first.v6 { same(0..4) && same(6..t) } else { same(0..2) && same(6..V4_CHECKSUM_AT) && same(12..t) };
    // Sequence, push flag and checksum differ in TCP; length and checksum in UDP.
    let transport = if first.tcp {
        same(t..t + 4) && same(t + 8..t + 13) && same(t + 14..t + 16) && same(t + 18..first.header)
    } else {
        same(t..t + 4)
    };
    ip && transport
}

impl Run {
    /// Writes the header of the whole run to the front of `to`: that of its first packet, with the lengths, flags and
    /// sums of all of them.
    pub fn header(&self, packets: &Packets, to: &mut [u8; HEADER_MAX]) {
        let (first, last) = (packets.get(self.packets.start), packets.get(self.packets.end.saturating_sub(1)));
        let payload: usize = self.packets.clone().map(|index| packets.get(index).len() - self.header).sum();
        let head = &mut to[..self.header];
        head.copy_from_slice(&first[..self.header]);
        let length = self.header + payload;
        let transport = length - self.transport;
        let (at, addresses) = if self.v6 {
            head[4..6].copy_from_slice(&((length - V6_HEADER) as u16).to_be_bytes());
            (V6_AT, V6_ADDRESSES)
        } else {
            head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            head[V4_CHECKSUM_AT..V4_CHECKSUM_AT + 2].fill(0);
            let sum = checksum(&[&head[..V4_HEADER]]);
            head[V4_CHECKSUM_AT..V4_CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
            (V4_AT, V4_ADDRESSES)
        };
        let protocol = if self.tcp { TCP } else { UDP };
        let sum = pseudo(&head[at..at + addresses], protocol, transport);
        let field = self.transport + self.offset;
        head[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        if self.tcp {
            head[self.transport + 13] |= last[self.transport + 13] & PUSH;
        } else {
            head[self.transport + 4..self.transport + 6].copy_from_slice(&(transport as u16).to_be_bytes());
        }
    }

    /// Each packet's payload, in order.
    pub fn payloads<'a>(&self, packets: &'a Packets) -> impl Iterator<Item = &'a [u8]> {
        let header = self.header;
        self.packets.clone().map(move |index| packets.get(index).get(header..).unwrap_or_default())
    }
}
