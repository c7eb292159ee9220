//! Cutting super-packets, judged by the packets a kernel without offload would have made, which are built here piece by
//! piece with textbook checksums. Neighbours: `coalesce` beside it uses the flows of this file.

use super::*;
use crate::wire::packet::segment::{PIECES_MAX, cut};

const FIN: u8 = 0x01;
const PUSH: u8 = 0x08;
const ACK: u8 = 0x10;
const REDUCED: u8 = 0x80;

/// What the packets of one flow have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) v6: bool,
    pub(super) tcp: bool,
    /// TCP's, a multiple of four bytes.
    pub(super) options: Vec<u8>,
    pub(super) dont_fragment: bool,
}

/// What else a packet has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) flags: u8,
    pub(super) sequence: u32,
    pub(super) id: u16,
}

impl Flow {
    pub(super) fn protocol(&self) -> u8 {
        if self.tcp { TCP } else { UDP }
    }

    /// Where the transport header begins.
    pub(super) fn transport(&self) -> usize {
        if self.v6 { V6_HEADER } else { V4_HEADER }
    }

    /// Bytes of all headers.
    pub(super) fn header(&self) -> usize {
        self.transport() + if self.tcp { 20 + self.options.len() } else { 8 }
    }

    /// Where the transport checksum is.
    pub(super) fn field(&self) -> usize {
        self.transport() + if self.tcp { 16 } else { 6 }
    }

    /// A right packet from `src` to `dst`.
    pub(super) fn packet(&self, (src, dst): (Ipv4Addr, Ipv4Addr), place: Place, payload: &[u8]) -> Vec<u8> {
        let (src, dst) = (address(self.v6, src), address(self.v6, dst));
        let mut message = if self.tcp {
            let offset = ((20 + self.options.len()) / 4 * 16) as u8;
            let mut head = vec![0x12, 0x34, 0, 80];
            head.extend_from_slice(&place.sequence.to_be_bytes());
            head.extend_from_slice(&[5, 6, 7, 8, offset, place.flags, 0xfa, 0xce, 0, 0, 0, 0]);
            [&head, &self.options, payload].concat()
        } else {
            let length = (8 + payload.len() as u16).to_be_bytes();
            [&[0x12, 0x34, 0, 53, length[0], length[1], 0, 0], payload].concat()
        };
        seal(&mut message, src, dst, self.protocol());
        let mut packet = whole(src, dst, self.protocol(), &message);
        if !self.v6 {
            packet[4..6].copy_from_slice(&place.id.to_be_bytes());
            packet[6] = if self.dont_fragment { 0x40 } else { 0 };
            packet[10..12].fill(0);
            let sum = textbook(&packet[..V4_HEADER]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    }

    /// The packet as a kernel with offload hands it down: its checksum is the sum of the pseudo-header.
    pub(super) fn partial(&self, ends: (Ipv4Addr, Ipv4Addr), place: Place, payload: &[u8]) -> Vec<u8> {
        let mut packet = self.packet(ends, place, payload);
        let (src, dst) = (address(self.v6, ends.0), address(self.v6, ends.1));
        let sum = !textbook(&pseudo_header(src, dst, self.protocol(), packet.len() - self.transport()));
        packet[self.field()..self.field() + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// Whether it is the packet that was expected: in every bit, but that a sum of zero may be written in two ways.
    fn is(&self, packet: &[u8], expected: &[u8]) -> bool {
        let field = self.field()..self.field() + 2;
        let rest = |bytes: &[u8]| [&bytes[..field.start], &bytes[field.end..]].concat();
        let sums = (&packet[field.clone()], &expected[field.clone()]);
        let zero = |sum: &[u8]| sum == [0, 0] || sum == [0xff, 0xff];
        rest(packet) == rest(expected) && (sums.0 == sums.1 || self.tcp && zero(sums.0) && zero(sums.1))
    }
}

pub(super) fn flows() -> impl Strategy<Value = Flow> {
    let options = prop::sample::select(vec![
        vec![],
        vec![1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7], // timestamps
        vec![1; 40],
    ]);
    (any::<bool>(), any::<bool>(), options, any::<bool>()).prop_map(|(v6, tcp, options, dont_fragment)| Flow {
        v6,
        tcp,
        options,
        dont_fragment,
    })
}

/// Bytes of which no two places look alike.
pub(super) fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

pub(super) fn pieces(packet: &[u8], segment: u16) -> Result<Vec<Vec<u8>>, Refused> {
    let mut pieces = Vec::new();
    let result = cut(packet, Shape { partial: true, segment }, &mut Vec::new(), |piece| pieces.push(piece.to_vec()));
    assert!(result.is_ok() || pieces.is_empty(), "all or nothing");
    result.map(|()| pieces)
}

/// Puts a piece back together at the other end.
pub(super) fn restore_partial(stripped: &[u8], (src, dst): (Ipv4Addr, Ipv4Addr)) -> Result<Vec<u8>, Refused> {
    let mut out = Packets::new();
    restore(Stripped { bytes: stripped, partial: true }, src, dst, Some(BASE.parse().unwrap()), &mut out)?;
    assert_eq!((out.len(), out.shape(0)), (1, Shape { partial: true, segment: 0 }));
    Ok(out.get(0).to_vec())
}

const HERE: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2));
const THERE: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(172, 16, 3, 9), Ipv4Addr::new(172, 16, 0, 1));

proptest! {
    /// At the far side, each piece is the packet a kernel there would have sent had it cut by itself.
    #[test]
    fn a_super_packet_arrives_as_the_packets_it_stands_for(
        flow in flows(),
        flags in prop::sample::select(vec![ACK, ACK | PUSH, ACK | FIN | PUSH, ACK | REDUCED, ACK | REDUCED | FIN | PUSH]),
        (sequence, id, seed) in any::<(u32, u16, u32)>(),
        segment in 500u16..=1180,
        length in prop_oneof![1usize..3000, 1usize..=65_400],
        (a, b, c, d) in (unicast(), unicast(), unicast(), unicast()),
    ) {
        let payload = noise(length.min(65_535 - flow.header()), seed);
        let packet = flow.partial((a, b), Place { flags, sequence, id }, &payload);
        let found = pieces(&packet, segment).unwrap();
        prop_assert_eq!(found.len(), payload.len().div_ceil(segment.into()));
        for (index, (piece, part)) in found.iter().zip(payload.chunks(segment.into())).enumerate() {
            let (first, last) = (index == 0, index + 1 == found.len());
            let mut flags = flags;
            if !first { flags &= !REDUCED }
            if !last { flags &= !(FIN | PUSH) }
            let sequence = sequence.wrapping_add((index * usize::from(segment)) as u32);
            let expected = flow.packet((c, d), Place { flags, sequence, id: id.wrapping_add(index as u16) }, part);
            let mut there = restore_partial(piece, (c, d)).unwrap();
            prop_assert!(there.len() <= 1280);
            complete(&mut there).unwrap();
            prop_assert!(flow.is(&there, &expected), "piece {}: {:?} is not {:?}", index, there, expected);
        }
        prop_assert_eq!(found, pieces(&flow.partial((c, d), Place { flags, sequence, id }, &payload), segment).unwrap(), "nothing of the addresses");
    }

    /// Bytes that are anything, or a good packet with some bytes changed, or cut short.
    #[test]
    fn hostile_super_packets(
        flow in flows(),
        length in 0usize..3000,
        changes in prop::collection::vec((0usize..100, any::<u8>()), 0..4),
        keep in prop::option::of(0usize..120),
        segment: u16,
    ) {
        let mut packet = flow.partial(HERE, Place { flags: ACK, sequence: 1, id: 1 }, &noise(length, 1));
        for (at, value) in changes {
            let at = at % packet.len();
            packet[at] = value;
        }
        packet.truncate(keep.unwrap_or(usize::MAX));
        if let Ok(found) = pieces(&packet, segment) {
            prop_assert!(found.len() <= PIECES_MAX);
            for piece in found {
                // What we cut is what the other end takes.
                prop_assert!(restore_partial(&piece, THERE).is_ok());
            }
        }
        // And what the other end may invent.
        if let Ok(mut there) = restore_partial(&packet, THERE) {
            complete(&mut there).unwrap();
            let transport = View::new(&there).unwrap().transport().to_vec();
            prop_assert!(verifies(&transport, source(&there).unwrap(), destination(&there).unwrap(), protocol(&there).unwrap()));
        }
    }
}

fn tcp(v6: bool) -> Flow {
    Flow { v6, tcp: true, options: vec![], dont_fragment: true }
}

const PLACE: Place = Place { flags: ACK, sequence: u32::MAX, id: u16::MAX };

#[test]
fn a_packet_that_only_lacks_its_checksum_is_one_piece() {
    for v6 in [false, true] {
        for tcp in [false, true] {
            for payload in [&b""[..], b"payload"] {
                let flow = Flow { tcp, ..self::tcp(v6) };
                let found = pieces(&flow.partial(HERE, PLACE, payload), 0).unwrap();
                let [piece] = found.as_slice() else { panic!("{} pieces", found.len()) };
                let mut there = restore_partial(piece, THERE).unwrap();
                assert_eq!(there, flow.partial(THERE, PLACE, payload), "what the far kernel is given");
                complete(&mut there).unwrap();
                assert_eq!(there, flow.packet(THERE, PLACE, payload), "what a device without offload is given");
            }
        }
    }
}

/// One read may bring 64 KiB; what it makes of them is bounded all the same.
#[test]
fn tiny_segments_are_bounded() {
    let flow = tcp(false);
    let packet = flow.partial(HERE, PLACE, &noise(65_535 - flow.header(), 7));
    assert_eq!(pieces(&packet, 1).unwrap_err(), Refused::Pieces);
    assert!(pieces(&packet, 36).is_ok(), "the smallest segments Linux speaks, with timestamps");
    assert_eq!(pieces(&packet, u16::MAX).unwrap().len(), 1, "a segment larger than all there is");
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let with = |flow: &Flow, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = flow.partial(HERE, PLACE, &[7; 3000]);
        change(&mut packet);
        pieces(&packet, 1000).unwrap_err()
    };
    for v6 in [false, true] {
        let flow = tcp(v6);
        let offset = flow.transport() + 12;
        assert_eq!(with(&flow, &|p| p[offset] = 0x40), Refused::Transport, "a header that ends before its checksum");
        assert_eq!(with(&flow, &|p| p.truncate(90)), Refused::Length);
        assert_eq!(with(&flow, &|p| p.clear()), Refused::Short);
    }
    // A data offset beyond the end.
    let mut short = tcp(false).partial(HERE, PLACE, &[7; 8]);
    short[32] = 0xf0;
    assert_eq!(pieces(&short, 1000).unwrap_err(), Refused::Transport);
    // What has no checksum that could be left out.
    assert_eq!(with(&tcp(false), &|p| p[9] = 47), Refused::Transport);
    assert_eq!(with(&tcp(false), &|p| p[9] = UDP_LITE), Refused::Transport);
    assert_eq!(with(&tcp(false), &|p| p[6] = 0x20), Refused::Transport, "a first fragment");
    assert_eq!(with(&tcp(false), &|p| p[7] = 9), Refused::Transport, "a later fragment");
    // And what no packet may have.
    assert_eq!(with(&tcp(false), &|p| p[8] = 0), Refused::HopLimit);
    assert_eq!(with(&tcp(false), &|p| p[16] = 224), Refused::Destination);
}

/// Frame 6 is the other end's word. Only TCP and UDP in one piece may come without a checksum.
#[test]
fn a_checksum_is_left_out_where_it_can_be_made_anew() {
    let (src, dst) = (address(false, HERE.0), address(false, HERE.1));
    let refused = |packet: &[u8]| {
        let stripped = strip_copy(packet).unwrap();
        assert!(restore_one(&stripped, THERE.0, THERE.1).is_ok(), "with a checksum it passes");
        assert_eq!(restore_partial(&stripped, THERE).unwrap_err(), Refused::Transport);
        let (mut whole, before) = (packet.to_vec(), packet.to_vec());
        assert_eq!((complete(&mut whole), checksum_place(packet)), (Err(Refused::Transport), None));
        assert_eq!(whole, before);
    };
    for protocol in [ICMP, UDP_LITE, DCCP, SCTP, 47] {
        refused(&whole(src, dst, protocol, &message(src, dst, protocol, &[8; 40])));
    }
    let body = message(src, dst, UDP, &[7; 64]);
    for fragment in [0x2000, 0x2004, 0x0004] {
        refused(&[v4_header(HERE.0, HERE.1, UDP, fragment, &[], body.len()), body.clone()].concat());
    }
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (address(true, HERE.0), address(true, HERE.1)) else { unreachable!() };
    let body = message(src.into(), dst.into(), UDP, &[7; 64]);
    for fragment in [[0, 1], [0, 0], [0, 9], [0, 8]] {
        let extension = [&[UDP, 0], fragment.as_slice(), &[1, 2, 3, 4]].concat();
        refused(&[v6_header(src, dst, 44, 8 + body.len()), extension, body.clone()].concat());
    }
    let icmp = whole(src.into(), dst.into(), ICMPV6, &message(src.into(), dst.into(), ICMPV6, &[7; 8]));
    refused(&icmp);
}
