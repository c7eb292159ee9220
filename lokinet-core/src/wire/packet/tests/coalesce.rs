//! Joining packets, judged by a model that joins naively and cuts again: what that does not give back bit by bit must
//! not have been joined. Neighbours: `segment` beside it makes the packets.

#![allow(clippy::single_range_in_vec_init, reason = "a list of runs may have one")]

use super::segment::{Flow, Place, flows, noise, pieces, restore_partial};
use super::*;
use crate::wire::packet::coalesce::{FLOWS_MAX, Flows, HEADER_MAX, Next, RUN_MAX};
use std::ops::Range;

const PUSH: u8 = 0x08;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;
const PLACE: Place = Place { flags: ACK, sequence: 4_294_966_000, id: 65_530 };
const ENDS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(172, 16, 3, 9), Ipv4Addr::new(172, 16, 0, 1));

fn batch<'a>(packets: impl IntoIterator<Item = &'a Vec<u8>>) -> Packets {
    let mut batch = Packets::new();
    for packet in packets {
        batch.push(packet);
        batch.shape_last(Shape { partial: true, segment: 0 });
    }
    batch
}

/// What is written for a batch: which packets, and the bytes that stand for them.
fn written_by(flows: &mut Flows, packets: &Packets, udp: bool) -> Vec<(Vec<usize>, Vec<u8>)> {
    let mut written = Vec::new();
    flows.join(packets, udp, |next| match next {
        Next::Joined(run) => {
            let mut head = [0; HEADER_MAX];
            run.header(packets, &mut head);
            let mut bytes = head[..run.header].to_vec();
            run.payloads(packets).for_each(|payload| bytes.extend_from_slice(payload));
            written.push((run.packets().collect(), bytes));
        }
        Next::Alone(index) => written.push((vec![index], packets.get(index).to_vec())),
    });
    written
}

fn written(packets: &Packets, udp: bool) -> Vec<(Vec<usize>, Vec<u8>)> {
    written_by(&mut Flows::default(), packets, udp)
}

/// Which packets go together, in the order in which they are written.
fn runs(packets: &Packets) -> Vec<Vec<usize>> {
    written(packets, true).into_iter().map(|(members, _)| members).collect()
}

/// The same, where all of them are neighbours.
fn ranges(packets: &Packets) -> Vec<Range<usize>> {
    let range = |members: Vec<usize>| {
        let range = members[0]..members[0] + members.len();
        assert!(members.iter().copied().eq(range.clone()), "{members:?} are no neighbours");
        range
    };
    runs(packets).into_iter().map(range).collect()
}

/// The naive model: some packets as one, if cutting that one gives them back.
fn joined(packets: &Packets, members: &[usize]) -> Option<Vec<u8>> {
    let all: Vec<&[u8]> = members.iter().map(|index| packets.get(*index)).collect();
    let (first, last) = (all[0], all[all.len() - 1]);
    let v6 = first[0] >> 4 == 6;
    let (transport, protocol) = if v6 { (40, first[6]) } else { (20, first[9]) };
    let header = match protocol {
        TCP => transport + usize::from(first[transport + 12] >> 4) * 4,
        UDP => transport + 8,
        _ => return None,
    };
    let plain = |packet: &&[u8]| {
        let data = || protocol != TCP || packet[transport + 13] & !(PUSH | FIN) == ACK;
        (v6 || first[0] == 0x45) && packet.len() > header && data()
    };
    if !all.iter().all(plain) || !members.iter().all(|index| packets.shape(*index).partial) || members.len() > RUN_MAX {
        return None;
    }
    let mut whole = first[..header].to_vec();
    all.iter().for_each(|packet| whole.extend_from_slice(packet.get(header..).unwrap_or_default()));
    if whole.len() > 65_535 {
        return None;
    }
    if protocol == TCP {
        whole[transport + 13] |= last[transport + 13] & (PUSH | FIN);
    }
    let length = whole.len();
    set_lengths(&mut whole, length, transport, protocol);
    // Now the way back.
    let size = first.len() - header;
    let parts: Vec<&[u8]> = whole[header..].chunks(size).collect();
    if parts.len() != all.len() {
        return None;
    }
    for (index, (part, packet)) in parts.iter().zip(&all).enumerate() {
        let mut piece = [&whole[..header], part].concat();
        if protocol == TCP {
            let sequence = u32::from_be_bytes(piece[transport + 4..transport + 8].try_into().unwrap());
            let sequence = sequence.wrapping_add((index * size) as u32);
            piece[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
            if index + 1 < all.len() {
                piece[transport + 13] &= !(PUSH | FIN);
            }
        }
        if !v6 {
            let id = u16::from_be_bytes([piece[4], piece[5]]).wrapping_add(index as u16);
            piece[4..6].copy_from_slice(&id.to_be_bytes());
            if piece[6] & 0x40 != 0 {
                piece[4..6].copy_from_slice(&packet[4..6]); // says nothing where nothing is fragmented
            }
        }
        let length = piece.len();
        set_lengths(&mut piece, length, transport, protocol);
        if piece != *packet {
            return None;
        }
    }
    Some(whole)
}

/// Whether two packets may be of one flow, whose order matters: where the ports of one cannot be told, any between its ends.
fn may_share(a: &[u8], b: &[u8]) -> bool {
    let of = |packet: &[u8]| {
        let v6 = packet[0] >> 4 == 6;
        let (transport, protocol) = if v6 { (40, packet[6]) } else { (20, packet[9]) };
        let addresses = if v6 { packet[8..40].to_vec() } else { packet[12..20].to_vec() };
        let whole = v6 || u16::from_be_bytes([packet[6], packet[7]]) & 0xbfff == 0;
        ((v6, protocol, addresses), whole.then(|| packet[transport..transport + 4].to_vec()))
    };
    let ((ends, ports), (other_ends, other_ports)) = (of(a), of(b));
    ends == other_ends && (ports == other_ports || ports.is_none() || other_ports.is_none())
}

/// Writes lengths and sums, the transport's as a pseudo-header's.
fn set_lengths(packet: &mut [u8], length: usize, transport: usize, protocol: u8) {
    if transport == 40 {
        packet[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
    } else {
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        packet[10..12].fill(0);
        let sum = textbook(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if protocol == UDP {
        packet[transport + 4..transport + 6].copy_from_slice(&((length - transport) as u16).to_be_bytes());
    }
    let pseudo = pseudo_header(source(packet).unwrap(), destination(packet).unwrap(), protocol, length - transport);
    let field = transport + if protocol == TCP { 16 } else { 6 };
    packet[field..field + 2].copy_from_slice(&(!textbook(&pseudo)).to_be_bytes());
}

/// The packets of a flow that a super-packet with this payload is cut into, at the far side.
fn cut_and_restored(flow: &Flow, place: Place, payload: &[u8], segment: u16) -> Vec<Vec<u8>> {
    let found = pieces(&flow.partial(ENDS, place, payload), segment).unwrap();
    found.iter().map(|piece| restore_partial(piece, ENDS).unwrap()).collect()
}

proptest! {
    /// There and back again: what a kernel handed down as one is handed up as one, the same in every bit.
    #[test]
    fn a_cut_super_packet_is_joined_to_itself(
        flow in flows(),
        flags in prop::sample::select(vec![ACK, ACK | PUSH, ACK | PUSH | FIN]),
        (sequence, id, seed) in any::<(u32, u16, u32)>(),
        segment in 500u16..=1180,
        count in 2usize..=RUN_MAX,
        short in 0usize..500,
    ) {
        let length = (usize::from(segment) * count - short).min(65_535 - flow.header());
        let payload = noise(length, seed);
        let place = Place { flags, sequence, id };
        let packets = batch(&cut_and_restored(&flow, place, &payload, segment));
        prop_assume!(packets.len() > 1);
        let expected = vec![((0..packets.len()).collect(), flow.partial(ENDS, place, &payload))];
        prop_assert_eq!(written(&packets, true), expected);
        if !flow.tcp {
            prop_assert!(written(&packets, false).iter().all(|(members, _)| members.len() == 1), "a kernel without USO");
        }
    }

    /// As many flows as may be open, mixed in whatever way: each comes out as one, the same in every bit, and only then.
    #[test]
    fn mixed_flows_are_joined_each_to_itself(
        kinds in prop::collection::vec((flows(), 2usize..=20, any::<bool>()), 2..=FLOWS_MAX),
        turns in prop::collection::vec(any::<prop::sample::Index>(), 320),
    ) {
        let mut expected = Vec::new();
        let mut waiting = Vec::new();
        for (number, (flow, count, push)) in kinds.into_iter().enumerate() {
            let place = Place { flags: if push { ACK | PUSH } else { ACK }, ..PLACE };
            let payload = noise(500 * count - number, number as u32);
            let mut pieces = cut_and_restored(&flow, place, &payload, 500);
            let mut whole = flow.partial(ENDS, place, &payload);
            let port = flow.transport() + 1;
            pieces.iter_mut().chain([&mut whole]).for_each(|packet| packet[port] = number as u8);
            expected.push(whole);
            pieces.reverse();
            waiting.push(pieces);
        }
        let mut all = Vec::new();
        for turn in turns {
            waiting.retain(|pieces| !pieces.is_empty());
            match waiting.len() {
                0 => break,
                count => all.extend(waiting[turn.index(count)].pop()),
            }
        }
        let packets = batch(all.iter().chain(waiting.iter().flat_map(|pieces| pieces.iter().rev())));
        let mut found: Vec<Vec<u8>> = written(&packets, true).into_iter().map(|(_, bytes)| bytes).collect();
        expected.sort();
        found.sort();
        prop_assert_eq!(found, expected);
    }

    /// Whatever comes, each once and no flow out of its order; only what continues is joined, and as much of it as can be.
    #[test]
    fn only_what_continues_is_joined(
        flow in flows(),
        other in flows(),
        sizes in prop::collection::vec(prop_oneof![6 => Just(100usize), 1 => 1usize..130, 1 => Just(0usize)], 1..24),
        faults in prop::collection::vec((0usize..24, 0usize..80, any::<u8>()), 0..3),
        (swap, strange, whole) in (prop::option::of((0usize..24, 0usize..24)), prop::option::of(0usize..24), prop::option::of(0usize..24)),
        step in prop_oneof![8 => Just(1u16), 1 => Just(0u16)],
        push in prop::option::of(0usize..24),
    ) {
        let (mut sequence, mut id) = (PLACE.sequence, PLACE.id);
        let mut all = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let flags = if push == Some(index) { ACK | PUSH } else { ACK };
            let flow = if strange == Some(index) { &other } else { &flow };
            all.push(flow.partial(ENDS, Place { flags, sequence, id }, &noise(*size, index as u32)));
            sequence = sequence.wrapping_add(*size as u32);
            id = id.wrapping_add(step);
        }
        // A fault in any byte but those by which the model finds the headers; lengths and sums, `restore` makes right.
        for (index, at, value) in faults {
            if let Some(packet) = all.get_mut(index) {
                let (transport, protocol) = if packet[0] >> 4 == 6 { (40, 6) } else { (20, 9) };
                let at = at % packet.len();
                if ![0, protocol, transport + 12].contains(&at) {
                    packet[at] = value;
                    let (length, protocol) = (packet.len(), packet[protocol]);
                    set_lengths(packet, length, transport, protocol);
                }
            }
        }
        if let Some((a, b)) = swap.filter(|(a, b)| *a < all.len() && *b < all.len()) {
            all.swap(a, b);
        }
        let mut packets = Packets::new();
        for (index, packet) in all.iter().enumerate() {
            packets.push(packet);
            packets.shape_last(Shape { partial: whole != Some(index), segment: 0 });
        }
        let mut open: Vec<Vec<usize>> = Vec::new();
        let mut expected = Vec::new();
        for index in 0..packets.len() {
            let mut taken = false;
            open.retain_mut(|run| {
                let longer = [run.as_slice(), &[index]].concat();
                if !may_share(packets.get(run[0]), packets.get(index)) {
                    return true;
                }
                let continues = joined(&packets, &longer).is_some();
                if continues {
                    taken = true;
                    *run = longer;
                } else {
                    expected.push(std::mem::take(run));
                }
                continues
            });
            if !taken {
                open.push(vec![index]);
            }
        }
        expected.append(&mut open);
        expected.sort();
        let mut found = written(&packets, true);
        let place = |index: usize| found.iter().position(|(members, _)| members.contains(&index)).unwrap();
        for (a, b) in (0..packets.len()).flat_map(|b| (0..b).map(move |a| (a, b))) {
            let related = may_share(packets.get(a), packets.get(b));
            prop_assert!(!related || place(a) <= place(b), "{b} has overtaken {a} of its flow");
        }
        found.sort();
        let bytes = |run: &Vec<usize>| joined(&packets, run).filter(|_| run.len() > 1);
        let expected: Vec<(Vec<usize>, Vec<u8>)> = expected
            .into_iter()
            .map(|run| { let bytes = bytes(&run).unwrap_or_else(|| packets.get(run[0]).to_vec()); (run, bytes) })
            .collect();
        prop_assert_eq!(found, expected);
    }

    /// Packets the other end invented never make us panic.
    #[test]
    fn hostile_packets(
        flow in flows(),
        changes in prop::collection::vec((0usize..80, any::<u8>()), 1..4),
        length in 0usize..60,
    ) {
        let mut packet = flow.partial(ENDS, PLACE, &noise(length, 1));
        for (at, value) in changes {
            let at = at % packet.len();
            packet[at] = value;
        }
        let found = written(&batch([&packet, &packet, &packet]), true);
        prop_assert_eq!(found.iter().map(|(members, _)| members.len()).sum::<usize>(), 3);
    }
}

fn tcp(v6: bool) -> Flow {
    Flow { v6, tcp: true, options: vec![1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7], dont_fragment: true }
}

/// Six packets of 1000 bytes that continue each other; joined as they are, they are one.
fn six(flow: &Flow) -> Vec<Vec<u8>> {
    let six = cut_and_restored(flow, PLACE, &noise(6000, 3), 1000);
    assert_eq!(ranges(&batch(&six)), [0..6]);
    six
}

/// A header shorter than any TCP header, in packets that continue each other: nothing of it may be believed.
#[test]
fn a_tcp_header_that_is_too_short_is_not_joined() {
    for v6 in [false, true] {
        for words in 0..5u8 {
            let header = usize::from(words) * 4;
            let packets: Vec<Vec<u8>> = (0..3u32)
                .map(|index| {
                    let mut packet = Flow { options: vec![], ..tcp(v6) }.partial(ENDS, PLACE, &[0; 80]);
                    let transport = if v6 { 40 } else { 20 };
                    let payload = (100 - header) as u32;
                    let sequence = PLACE.sequence.wrapping_add(index * payload).to_be_bytes();
                    packet[transport + 4..transport + 8].copy_from_slice(&sequence);
                    packet[transport + 12] = words << 4;
                    packet
                })
                .collect();
            assert_eq!(ranges(&batch(&packets)), [0..1, 1..2, 2..3], "{words} words");
        }
    }
}

#[test]
fn what_breaks_a_run_and_where() {
    for v6 in [false, true] {
        for flow in [tcp(v6), Flow { tcp: false, ..tcp(v6) }] {
            let transport = flow.transport();
            let changed = |at: usize, value: u8| {
                let mut six = six(&flow);
                six[3][at] ^= value;
                ranges(&batch(&six))
            };
            let apart = [0..3, 3..4, 4..6];
            // Of another flow: only TCP sees that it is missing.
            let another = |at: usize, what: &str| {
                let mut six = six(&flow);
                six[3][at] ^= 1;
                let rest: &[&[usize]] = if flow.tcp { &[&[0, 1, 2], &[3], &[4, 5]] } else { &[&[0, 1, 2, 4, 5], &[3]] };
                assert_eq!(runs(&batch(&six)), rest, "{what}");
            };
            if v6 {
                assert_eq!(changed(0, 0x01), apart, "traffic class");
                assert_eq!(changed(1, 0x20), apart, "traffic class");
                assert_eq!(changed(2, 0x01), apart, "flow label");
                assert_eq!(changed(7, 1), apart, "hop limit");
                another(23, "source");
                another(39, "destination");
            } else {
                assert_eq!(changed(1, 0x03), apart, "congestion mark");
                assert_eq!(changed(6, 0x40), apart, "may be fragmented");
                assert_eq!(changed(6, 0x20), apart, "a fragment");
                assert_eq!(changed(7, 1), apart, "a fragment");
                assert_eq!(changed(8, 1), apart, "time to live");
                another(15, "source");
                another(19, "destination");
            }
            another(transport + 1, "source port");
            another(transport + 3, "destination port");
            if flow.tcp {
                assert_eq!(changed(transport + 7, 1), apart, "a gap");
                assert_eq!(changed(transport + 11, 1), apart, "acknowledgement");
                assert_eq!(changed(transport + 13, FIN), [0..4, 4..6], "FIN ends a run");
                assert_eq!(changed(transport + 13, 0x04), apart, "RST");
                assert_eq!(changed(transport + 13, 0x20), apart, "URG");
                assert_eq!(changed(transport + 13, 0x40), apart, "ECE");
                assert_eq!(changed(transport + 13, 0x80), apart, "CWR");
                assert_eq!(changed(transport + 13, ACK), apart, "no ACK");
                assert_eq!(changed(transport + 13, PUSH), [0..4, 4..6], "PSH ends a run");
                assert_eq!(changed(transport + 15, 1), apart, "window");
                assert_eq!(changed(transport + 27, 1), apart, "timestamp");
            } else {
                assert_eq!(changed(transport + 5, 1), apart, "a length that lies");
            }

            let mut reordered = six(&flow);
            reordered.swap(2, 3);
            let expected = if flow.tcp { vec![0..2, 2..3, 3..4, 4..6] } else { vec![0..6] };
            assert_eq!(ranges(&batch(&reordered)), expected, "only TCP knows its order");
            let mut between = six(&flow);
            between.insert(3, tcp(!v6).partial(ENDS, PLACE, b"somebody else"));
            assert_eq!(runs(&batch(&between)), [&[0, 1, 2, 4, 5, 6][..], &[3]], "somebody else between");

            let mut complete = batch(&six(&flow));
            complete.clear();
            for (index, packet) in six(&flow).iter().enumerate() {
                complete.push(packet);
                complete.shape_last(Shape { partial: index != 3, segment: 0 });
            }
            assert_eq!(ranges(&complete), apart, "one whose checksum is whole");
        }
    }
}

#[test]
fn short_and_long_ones() {
    let place = |sequence| Place { sequence, ..PLACE };
    for v6 in [false, true] {
        let flow = tcp(v6);
        let of = |sizes: &[usize]| {
            let mut sequence = 1;
            let made: Vec<Vec<u8>> = sizes
                .iter()
                .map(|size| {
                    sequence += *size as u32;
                    flow.partial(ENDS, place(sequence - *size as u32), &noise(*size, 1))
                })
                .collect();
            ranges(&batch(&made))
        };
        assert_eq!(of(&[1000, 1000, 500, 1000, 1000]), [0..3, 3..5], "a short one ends a run");
        assert_eq!(of(&[1000, 1001, 1001]), [0..1, 1..3], "a longer one begins one");
        assert_eq!(of(&[0, 0, 1000, 0, 1000]), [0..1, 1..2, 2..3, 3..4, 4..5], "bare acknowledgements stay alone");
        assert_eq!(of(&[10; RUN_MAX + 5]), [0..RUN_MAX, RUN_MAX..RUN_MAX + 5]);
        // 65,535 bytes of packet: one byte more does not fit.
        let room = 65_535 - flow.header();
        assert_eq!(
            of(&[room / 3, room / 3, room - room / 3 * 2]),
            if room.is_multiple_of(3) { vec![0..3] } else { vec![0..2, 2..3] }
        );
        assert_eq!(of(&[20_000, 20_000, 20_000, room - 60_000]), [0..4]);
        assert_eq!(of(&[20_000, 20_000, 20_000, room - 60_000 + 1]), [0..3, 3..4]);
    }
}

/// Without DF a router may yet fragment, and the identification says which fragments are one packet's: such packets are
/// joined only if cutting them again gives each its own back. With DF it says nothing (RFC 6864).
#[test]
fn identifications_that_mean_something_are_kept() {
    let of = |flow: &Flow, ids: [u16; 4]| {
        let mut sequence = 1;
        let made = ids.map(|id| {
            sequence += 100;
            flow.partial(ENDS, Place { flags: ACK, sequence, id }, &[7; 100])
        });
        ranges(&batch(&made))
    };
    for flow in [tcp(false), Flow { tcp: false, ..tcp(false) }] {
        let may_fragment = Flow { dont_fragment: false, ..flow.clone() };
        assert_eq!(of(&may_fragment, [65_534, 65_535, 0, 1]), [0..4]);
        assert_eq!(of(&may_fragment, [5, 6, 8, 9]), [0..2, 2..4]);
        assert_eq!(of(&may_fragment, [5, 5, 5, 5]), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(of(&flow, [5, 5, 9, 0]), [0..4]);
    }
}

/// IPv4 options and IPv6 extension headers are never joined.
#[test]
fn what_lies_between_headers_is_not_joined() {
    let plain = Flow { tcp: false, ..tcp(false) }.partial(ENDS, PLACE, &[7; 100]);
    let body = &plain[20..];
    let options = [v4_header(ENDS.0, ENDS.1, UDP, 0x4000, &[1; 4], body.len()), body.to_vec()].concat();
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (address(true, ENDS.0), address(true, ENDS.1)) else { unreachable!() };
    let pad = vec![UDP, 0, 1, 4, 0, 0, 0, 0];
    let extension = [v6_header(src, dst, 60, 8 + body.len()), pad, body.to_vec()].concat();
    for packet in [options, extension] {
        assert!(View::new(&packet).is_ok());
        assert_eq!(runs(&batch([&packet, &packet])), [[0], [1]]);
    }
    assert_eq!(runs(&batch([&plain, &plain])), [[0, 1]]);
}

/// Two flows in turns, and between them a packet that cannot be joined: it waits for its own flow, and for no other.
#[test]
fn what_is_not_joined_overtakes_only_others() {
    for v6 in [false, true] {
        let flow = tcp(v6);
        let transport = flow.transport();
        let turns = |between: Vec<u8>| {
            let mut other = six(&flow);
            other.iter_mut().for_each(|packet| packet[transport] = 9);
            let mut mixed: Vec<Vec<u8>> = six(&flow).into_iter().zip(other).flat_map(|(a, b)| [a, b]).collect();
            mixed.insert(4, between);
            runs(&batch(&mixed))
        };
        let after = Place { sequence: PLACE.sequence.wrapping_add(2000), ..PLACE };
        let past_both: &[&[usize]] = &[&[4], &[0, 2, 5, 7, 9, 11], &[1, 3, 6, 8, 10, 12]];
        let after_one: &[&[usize]] = &[&[0, 2], &[4], &[1, 3, 6, 8, 10, 12], &[5, 7, 9, 11]];
        let after_both: &[&[usize]] = &[&[0, 2], &[1, 3], &[4], &[5, 7, 9, 11], &[6, 8, 10, 12]];
        for (flags, what) in [(ACK, "a bare acknowledgement"), (0x02, "SYN"), (0x04, "RST"), (ACK | FIN, "a bare FIN")]
        {
            let mut bare = flow.partial(ENDS, Place { flags, ..after }, &[]);
            assert_eq!(turns(bare.clone()), after_one, "{what}");
            bare[transport + 3] ^= 1;
            assert_eq!(turns(bare), past_both, "{what} of a third connection");
        }
        let urgent = flow.partial(ENDS, Place { flags: ACK | 0x20, ..after }, &noise(1000, 1));
        assert_eq!(turns(urgent), after_one, "URG");
        let datagram = Flow { tcp: false, ..flow.clone() }.partial(ENDS, PLACE, &[]);
        assert_eq!(turns(datagram.clone()), past_both, "an empty datagram over the same ports");
        // A ping between the same hosts, and what may be anything between them.
        let mut unknown = datagram;
        unknown[if v6 { 6 } else { 9 }] = if v6 { ICMPV6 } else { ICMP };
        assert_eq!(turns(unknown.clone()), past_both, "ICMP");
        if v6 {
            unknown[6] = 44;
        } else {
            unknown[6..10].copy_from_slice(&[0x20, 0, 64, TCP]);
        }
        assert_eq!(turns(unknown.clone()), after_both, "a fragment");
        unknown[if v6 { 23 } else { 15 }] ^= 1;
        assert_eq!(turns(unknown), past_both, "somebody else's fragment");
    }
}

/// A datagram longer than the first of its run begins another; shorter, it ends one.
#[test]
fn datagrams_of_mixed_sizes() {
    let flow = Flow { tcp: false, ..tcp(true) };
    let sizes = [800, 800, 900, 900, 400, 800, 800];
    let datagrams = sizes.map(|size| flow.partial(ENDS, PLACE, &noise(size, 1)));
    assert_eq!(ranges(&batch(&datagrams)), [0..2, 2..5, 5..7]);
}

/// One flow more than may be open, in turns: the longest open makes room, and nobody's order is lost. One fewer is joined.
#[test]
fn the_table_is_bounded() {
    let turns = |count: usize| {
        let pieces: Vec<Vec<Vec<u8>>> = (0..count)
            .map(|port| {
                let mut pieces = six(&tcp(false));
                pieces.iter_mut().for_each(|packet| packet[20] = port as u8);
                pieces
            })
            .collect();
        let mixed: Vec<Vec<u8>> = (0..6).flat_map(|round| pieces.iter().map(move |flow| flow[round].clone())).collect();
        runs(&batch(&mixed))
    };
    let each: Vec<Vec<usize>> = (0..FLOWS_MAX).map(|flow| (flow..6 * FLOWS_MAX).step_by(FLOWS_MAX).collect()).collect();
    assert_eq!(turns(FLOWS_MAX), each);
    let alone: Vec<Vec<usize>> = (0..6 * (FLOWS_MAX + 1)).map(|index| vec![index]).collect();
    assert_eq!(turns(FLOWS_MAX + 1), alone);
}

/// What could be continued by the next batch is given away with its own.
#[test]
fn nothing_waits_for_the_next_batch() {
    let mut flows = Flows::default();
    for six in six(&tcp(false)).chunks(2) {
        let found = written_by(&mut flows, &batch(six), true);
        assert_eq!(found.into_iter().map(|(members, _)| members).collect::<Vec<_>>(), [[0, 1]]);
    }
    assert!(written_by(&mut flows, &Packets::new(), true).is_empty());
}
