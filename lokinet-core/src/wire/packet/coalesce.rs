//! The way back from cells to super-packets: packets of one flow that only continue each other are found, whatever lies
//! between them, so that a kernel with offload takes them as one (GRO). A few flows are open at a time and none longer
//! than its batch, so nothing waits. Nothing is copied here: a [`Run`] says which packets, and what the one header before
//! their payloads is. Neighbours: `packet::restore` made the packets, the daemon's TUN file writes them.

use super::checksum::{checksum, pseudo};
use super::{ICMPV6, TCP, UDP, V4_ADDRESSES, V4_AT, V4_CHECKSUM_AT, V4_HEADER, V6_ADDRESSES, V6_AT, V6_HEADER};
use crate::wire::batch::{Packets, Shape};
use core::ops::Range;

/// Most packets taken as one: a system call's pieces, and the kernel's limit of segments, are not far above.
pub const RUN_MAX: usize = 60;
/// Flows that are open at a time. When one more comes, the one that has been open longest is closed.
pub const FLOWS_MAX: usize = 16;
/// Longest header of a run: IPv6, and TCP with all its options.
pub const HEADER_MAX: usize = V6_HEADER + 60;

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Source and destination, which both protocols begin with.
const PORTS: usize = 4;
/// In the byte that holds IPv4's flags and the upper bits of the fragment's offset.
const DONT_FRAGMENT: u8 = 0x40;
const ACK: u8 = 0x10;
const PUSH: u8 = 0x08;
const FIN: u8 = 0x01;

/// Packets that can be written as one.
pub struct Run {
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
    /// Which packets of the batch: so many.
    members: [u32; RUN_MAX],
    count: usize,
    /// Bytes of the first one's header and of all payloads.
    length: usize,
    /// The sequence number and the identification (see [`Seen`]) of what would continue it.
    sequence: u32,
    id: Option<u16>,
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
    /// Whether its sender wants it delivered now: nothing comes after it in a run.
    last: bool,
    /// The identification where it tells fragments apart: in IPv4 that may be fragmented (RFC 6864).
    id: Option<u16>,
}

/// What comes next of a batch.
pub enum Next<'a> {
    /// At least two packets that go as one.
    Joined(&'a Run),
    /// A packet that stands alone, by its index.
    Alone(usize),
}

/// The flows that are open while a batch is gone through. Only its memory is kept from one batch to the next.
pub struct Flows {
    runs: Vec<Run>,
    /// Places in `runs`: first those of the `open` ones, in the order they began, then the free ones.
    order: [usize; FLOWS_MAX],
    open: usize,
}

impl Default for Flows {
    fn default() -> Flows {
        let runs = (0..FLOWS_MAX).map(|_| Run::empty()).collect();
        Flows { runs, order: core::array::from_fn(|place| place), open: 0 }
    }
}

impl Flows {
    /// Goes through a batch: tells each packet once, those of one flow in their order, all before it returns. What cannot
    /// be joined goes past other flows that are still gathered. UDP is joined only where the kernel takes it (`udp`).
    pub fn join(&mut self, packets: &Packets, udp: bool, mut each: impl FnMut(Next<'_>)) {
        for index in 0..packets.len() {
            match look(packets, index).filter(|seen| seen.tcp || udp) {
                Some(seen) => self.gather(packets, index, seen, &mut each),
                None => {
                    self.close_for(packets, index, &mut each);
                    each(Next::Alone(index));
                }
            }
        }
        while self.open > 0 {
            self.close(0, &mut each);
        }
    }

    /// Puts a packet to its flow's run, or begins one with it.
    fn gather(&mut self, packets: &Packets, index: usize, seen: Seen, each: &mut impl FnMut(Next<'_>)) {
        let packet = packets.get(index);
        // The flow of the packet before is the likeliest.
        let own = (0..self.open).rev().find(|at| {
            let run = &self.runs[self.order[*at]];
            (run.v6, run.tcp) == (seen.v6, seen.tcp) && same_ends(run.head(packets), packet, seen.v6, seen.transport)
        });
        if let Some(at) = own {
            let run = &mut self.runs[self.order[at]];
            let taken = run.take(packets, index, seen);
            if !taken || run.is_done(seen) {
                self.close(at, each);
            }
            if taken {
                return;
            }
        }
        if seen.last {
            return each(Next::Alone(index));
        }
        if self.open == FLOWS_MAX {
            self.close(0, each);
        }
        self.runs[self.order[self.open]].begin(index, seen);
        self.open += 1;
    }

    /// Closes whatever a packet that is not joined would overtake.
    fn close_for(&mut self, packets: &Packets, index: usize, each: &mut impl FnMut(Next<'_>)) {
        let mut at = 0;
        while at < self.open {
            let run = &self.runs[self.order[at]];
            if may_belong(packets.get(index), run, run.head(packets)) {
                self.close(at, each);
            } else {
                at += 1;
            }
        }
    }

    fn close(&mut self, at: usize, each: &mut impl FnMut(Next<'_>)) {
        self.order[at..self.open].rotate_left(1);
        self.open -= 1;
        let run = &self.runs[self.order[self.open]];
        each(if run.count == 1 { Next::Alone(run.members[0] as usize) } else { Next::Joined(run) });
    }
}

/// A packet that may be part of a run: TCP data without flags but those a run may end with, or UDP; no options or
/// extension headers in front of it, not a fragment, its checksum partial. Its lengths are the other end's word, so they
/// are checked.
fn look(packets: &Packets, index: usize) -> Option<Seen> {
    let packet = packets.get(index);
    if packets.shape(index) != (Shape { partial: true, segment: 0 }) {
        return None;
    }
    let (v6, transport, protocol, id) = match *packet.first()? {
        0x45 => {
            let &[id_high, id_low, flags, _, _, protocol] = packet.get(4..10)? else { return None };
            if !is_whole(packet) {
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
    let last = flags & (PUSH | FIN) != 0;
    let seen = Seen { v6, tcp, transport, header: transport + length, payload, sequence, last, id };
    (flags & !(PUSH | FIN) == ACK).then_some(seen)
}

/// Whether two packets of one kind are between the same ends: addresses and ports.
fn same_ends(a: &[u8], b: &[u8], v6: bool, transport: usize) -> bool {
    let same = |at: usize, length: usize| a.get(at..at + length) == b.get(at..at + length);
    same(transport, PORTS) && if v6 { same(V6_AT, V6_ADDRESSES) } else { same(V4_AT, V4_ADDRESSES) }
}

/// Whether a packet that is not joined may be of a run's flow. Where its ports cannot be told, in fragments and behind
/// options, all flows between its ends are meant.
fn may_belong(packet: &[u8], run: &Run, head: &[u8]) -> bool {
    if packet.first().map(|first| first >> 4) != Some(if run.v6 { 6 } else { 4 }) {
        return false;
    }
    let (at, addresses, protocol) = if run.v6 { (V6_AT, V6_ADDRESSES, 6) } else { (V4_AT, V4_ADDRESSES, 9) };
    if packet.get(at..at + addresses) != head.get(at..at + addresses) {
        return false;
    }
    let plain = run.v6 || packet.first() == Some(&0x45) && is_whole(packet);
    match packet.get(protocol).copied() {
        Some(found @ (TCP | UDP)) => {
            run.tcp == (found == TCP) && (!plain || same_ends(packet, head, run.v6, run.transport))
        }
        // Any other may be an extension header.
        found => run.v6 && found != Some(ICMPV6),
    }
}

/// Whether an IPv4 packet is no fragment.
fn is_whole(packet: &[u8]) -> bool {
    packet.get(6..8).is_some_and(|fragment| fragment[0] & !DONT_FRAGMENT == 0 && fragment[1] == 0)
}

/// Whether two packets' headers differ only in what differs between pieces of one super-packet.
fn alike(a: &[u8], b: &[u8], run: &Run) -> bool {
    let same = |range: Range<usize>| a.get(range.clone()) == b.get(range);
    let t = run.transport;
    // Length, identification (see `Seen`) and header checksum differ in IPv4; the length in IPv6.
    let ip = if run.v6 { same(0..4) && same(6..t) } else { same(0..2) && same(6..V4_CHECKSUM_AT) && same(12..t) };
    // Sequence, flags that end a run and checksum differ in TCP; length and checksum in UDP.
    let transport = if run.tcp {
        same(t..t + 4) && same(t + 8..t + 13) && same(t + 14..t + 16) && same(t + 18..run.header)
    } else {
        same(t..t + 4)
    };
    ip && transport
}

impl Run {
    fn empty() -> Run {
        Run {
            header: 0,
            segment: 0,
            transport: 0,
            offset: 0,
            tcp: false,
            v6: false,
            members: [0; RUN_MAX],
            count: 0,
            length: 0,
            sequence: 0,
            id: None,
        }
    }

    /// Forgets what it was, and begins anew with one packet.
    fn begin(&mut self, index: usize, seen: Seen) {
        let Seen { v6, tcp, transport, header, payload, .. } = seen;
        (self.v6, self.tcp, self.transport, self.header, self.segment) = (v6, tcp, transport, header, payload);
        self.offset = if tcp { 16 } else { 6 };
        (self.count, self.length) = (0, header);
        self.append(index, seen);
    }

    fn append(&mut self, index: usize, seen: Seen) {
        self.members[self.count] = index as u32;
        self.count += 1;
        self.length += seen.payload;
        self.sequence = seen.sequence.wrapping_add(seen.payload as u32);
        self.id = seen.id.map(|id| id.wrapping_add(1));
    }

    /// Takes a packet of the same flow if it continues the run.
    fn take(&mut self, packets: &Packets, index: usize, seen: Seen) -> bool {
        let continues = seen.payload <= self.segment
            && seen.header == self.header
            && (!seen.tcp || seen.sequence == self.sequence)
            && seen.id == self.id
            && self.length + seen.payload <= usize::from(u16::MAX)
            && alike(self.head(packets), packets.get(index), self);
        if continues {
            self.append(index, seen);
        }
        continues
    }

    /// Whether nothing can follow the packet taken last.
    fn is_done(&self, last: Seen) -> bool {
        last.last || last.payload < self.segment || self.count == RUN_MAX
    }

    /// The first packet.
    fn head<'a>(&self, packets: &'a Packets) -> &'a [u8] {
        packets.get(self.members[0] as usize)
    }

    /// Which packets of the batch, in order.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.members[..self.count].iter().map(|index| *index as usize)
    }

    /// Writes the header of the whole run to the front of `to`: that of its first packet, with the lengths, flags and
    /// sums of all of them.
    pub fn header(&self, packets: &Packets, to: &mut [u8; HEADER_MAX]) {
        let last = packets.get(self.members[self.count.saturating_sub(1)] as usize);
        let head = &mut to[..self.header];
        head.copy_from_slice(&self.head(packets)[..self.header]);
        let length = self.length;
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
            head[self.transport + 13] |= last[self.transport + 13] & (PUSH | FIN);
        } else {
            head[self.transport + 4..self.transport + 6].copy_from_slice(&(transport as u16).to_be_bytes());
        }
    }

    /// Each packet's payload, in order.
    pub fn payloads<'a>(&'a self, packets: &'a Packets) -> impl Iterator<Item = &'a [u8]> {
        let header = self.header;
        self.packets().map(move |index| packets.get(index).get(header..).unwrap_or_default())
    }
}
