//! What a stripped packet must keep and what it must lose, checked against checksums made from scratch by code that
//! shares nothing with the code under test. Neighbours: `packet`.

#![allow(clippy::unwrap_used)]

mod coalesce;
mod segment;

use super::*;
use proptest::prelude::*;

const BASE: &str = "fd00::";

/// The plain textbook checksum over a whole buffer.
fn textbook(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = [octets(src), octets(dst)].concat();
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, protocol]);
    bytes
}

/// Writes a right checksum into a whole transport message.
fn seal(message: &mut [u8], src: IpAddr, dst: IpAddr, protocol: u8) {
    let field = match protocol {
        TCP => 16,
        UDP | UDP_LITE => 6,
        ICMP | ICMPV6 => 2,
        _ => return,
    };
    message[field..field + 2].copy_from_slice(&[0, 0]);
    let mut covered = if protocol == ICMP { vec![] } else { pseudo_header(src, dst, protocol, message.len()) };
    covered.extend_from_slice(message);
    let sum = match (textbook(&covered), protocol) {
        (0, UDP) => 0xffff,
        (sum, _) => sum,
    };
    message[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Whether a transport message verifies: with its checksum in place, everything sums to all ones.
fn verifies(message: &[u8], src: IpAddr, dst: IpAddr, protocol: u8) -> bool {
    let mut covered = if protocol == ICMP { vec![] } else { pseudo_header(src, dst, protocol, message.len()) };
    covered.extend_from_slice(message);
    textbook(&covered) == 0
}

fn v4_header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, fragment: u16, options: &[u8], payload: usize) -> Vec<u8> {
    let header = 20 + options.len();
    let mut bytes = vec![0x40 | (header / 4) as u8, 0];
    bytes.extend_from_slice(&((header + payload) as u16).to_be_bytes());
    bytes.extend_from_slice(&[0xab, 0xcd]);
    bytes.extend_from_slice(&fragment.to_be_bytes());
    bytes.extend_from_slice(&[64, protocol, 0, 0]);
    bytes.extend_from_slice(&src.octets());
    bytes.extend_from_slice(&dst.octets());
    bytes.extend_from_slice(options);
    let sum = textbook(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn v6_header(src: Ipv6Addr, dst: Ipv6Addr, next: u8, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0x12, 0x34];
    bytes.extend_from_slice(&(payload as u16).to_be_bytes());
    bytes.extend_from_slice(&[next, 64]);
    bytes.extend_from_slice(&src.octets());
    bytes.extend_from_slice(&dst.octets());
    bytes
}

/// A whole packet, without extension headers or options.
fn whole(src: IpAddr, dst: IpAddr, protocol: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => v4_header(src, dst, protocol, 0, &[], message.len()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => v6_header(src, dst, protocol, message.len()),
        _ => panic!("one version at a time"),
    };
    packet.extend_from_slice(message);
    packet
}

/// A transport message with a right checksum; the payload is arbitrary.
fn message(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = match protocol {
        TCP => [&[0x12, 0x34, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0], payload].concat(),
        UDP => {
            let length = (8 + payload.len() as u16).to_be_bytes();
            [&[0x12, 0x34, 0, 53, length[0], length[1], 0, 0], payload].concat()
        }
        ICMP => [&[8, 0, 0, 0, 0x77, 0x88, 0, 1], payload].concat(),
        ICMPV6 => [&[128, 0, 0, 0, 0x77, 0x88, 0, 1], payload].concat(),
        _ => payload.to_vec(),
    };
    seal(&mut message, src, dst, protocol);
    message
}

fn address(v6: bool, v4: Ipv4Addr) -> IpAddr {
    if v6 { IpAddr::V6(twin(BASE.parse().unwrap(), v4)) } else { IpAddr::V4(v4) }
}

fn strip_copy(packet: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut packet = packet.to_vec();
    let mut out = Vec::new();
    strip(&mut packet, &mut out).map(|()| out)
}

fn restore_one(stripped: &[u8], src: Ipv4Addr, dst: Ipv4Addr) -> Result<Vec<u8>, Refused> {
    let mut out = Packets::new();
    let result = restore(Stripped { bytes: stripped, partial: false }, src, dst, Some(BASE.parse().unwrap()), &mut out);
    assert_eq!(out.len(), usize::from(result.is_ok()));
    result.map(|()| out.packet(0).to_vec())
}

/// Through the tunnel to somebody who knows both ends by other addresses.
fn carry(packet: &[u8], src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    restore_one(&strip_copy(packet).unwrap(), src, dst).unwrap()
}

fn unicast() -> impl Strategy<Value = Ipv4Addr> {
    (1u8..=126, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d))
}

fn protocols(v6: bool) -> impl Strategy<Value = u8> {
    prop::sample::select(vec![TCP, UDP, if v6 { ICMPV6 } else { ICMP }, 47])
}

fn versioned_protocol() -> impl Strategy<Value = (bool, u8)> {
    any::<bool>().prop_flat_map(|v6| protocols(v6).prop_map(move |protocol| (v6, protocol)))
}

proptest! {
    /// The far side, which knows both ends by its own addresses, gets the packet its kernel would have made.
    #[test]
    fn a_packet_arrives_as_if_made_there(
        (v6, protocol) in versioned_protocol(),
        (a, b, c, d) in (unicast(), unicast(), unicast(), unicast()),
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (src, dst) = (address(v6, a), address(v6, b));
        let sent = whole(src, dst, protocol, &message(src, dst, protocol, &payload));
        let (src, dst) = (address(v6, c), address(v6, d));
        let expected = whole(src, dst, protocol, &message(src, dst, protocol, &payload));
        let stripped = strip_copy(&sent).unwrap();
        prop_assert_eq!(stripped.len() + if v6 { 32 } else { 8 }, sent.len());
        prop_assert_eq!(restore_one(&stripped, c, d).unwrap(), expected);
        prop_assert_eq!(restore_one(&stripped, a, b).unwrap(), sent);
    }

    /// What leaves us does not depend on our addresses, in any bit.
    #[test]
    fn a_stripped_packet_says_nothing_about_its_addresses(
        (v6, protocol) in versioned_protocol(),
        (a, b, c, d) in (unicast(), unicast(), unicast(), unicast()),
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let made = |src, dst| {
            let (src, dst) = (address(v6, src), address(v6, dst));
            strip_copy(&whole(src, dst, protocol, &message(src, dst, protocol, &payload))).unwrap()
        };
        prop_assert_eq!(made(a, b), made(c, d));
    }

    /// A packet broken before it came to us is as broken after.
    #[test]
    fn a_broken_packet_stays_broken(
        (a, b, c, d) in (unicast(), unicast(), unicast(), unicast()),
        v6: bool,
        flip in 20usize..60,
        bit in 0u8..8,
    ) {
        let (src, dst) = (address(v6, a), address(v6, b));
        let mut broken = message(src, dst, TCP, &[7; 40]);
        broken[flip] ^= 1 << bit;
        let there = carry(&whole(src, dst, TCP, &broken), c, d);
        let header = if v6 { 40 } else { 20 };
        prop_assert!(!verifies(&there[header..], address(v6, c), address(v6, d), TCP));
    }

    /// Fragments carry one checksum for all; put together at the far side, the datagram verifies there.
    #[test]
    fn fragments_of_v4_make_a_whole_again(
        (a, b, c, d) in (unicast(), unicast(), unicast(), unicast()),
        protocol in protocols(false),
        payload in prop::collection::vec(any::<u8>(), 60..400),
        cut in 3usize..7,
    ) {
        let datagram = message(a.into(), b.into(), protocol, &payload);
        let (first, second) = datagram.split_at(cut * 8);
        let mut one = v4_header(a, b, protocol, 0x2000, &[], first.len());
        one.extend_from_slice(first);
        let mut two = v4_header(a, b, protocol, cut as u16, &[], second.len());
        two.extend_from_slice(second);
        let (one, two) = (carry(&one, c, d), carry(&two, c, d));
        prop_assert_eq!(textbook(&one[..20]), 0);
        prop_assert_eq!(textbook(&two[..20]), 0);
        prop_assert_eq!(&two[20..], second);
        prop_assert_eq!([&one[20..], &two[20..]].concat(), message(c.into(), d.into(), protocol, &payload));
    }

    /// The same for IPv6, with a destination header before the fragment header.
    #[test]
    fn fragments_of_v6_make_a_whole_again(
        (a, b, c, d) in (unicast(), unicast(), unicast(), unicast()),
        protocol in protocols(true),
        payload in prop::collection::vec(any::<u8>(), 60..400),
        cut in 3usize..7,
    ) {
        let made = |a, b| {
            let (IpAddr::V6(src), IpAddr::V6(dst)) = (address(true, a), address(true, b)) else { unreachable!() };
            let datagram = message(src.into(), dst.into(), protocol, &payload);
            let piece = |offset: u16, more: u16, part: &[u8]| {
                let mut packet = v6_header(src, dst, 60, 16 + part.len());
                packet.extend_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0]);
                packet.extend_from_slice(&[protocol, 0]);
                packet.extend_from_slice(&((offset * 8) | more).to_be_bytes());
                packet.extend_from_slice(&[1, 2, 3, 4]);
                packet.extend_from_slice(part);
                packet
            };
            (piece(0, 1, &datagram[..cut * 8]), piece(cut as u16, 0, &datagram[cut * 8..]))
        };
        let (one, two) = made(a, b);
        prop_assert_eq!((carry(&one, c, d), carry(&two, c, d)), made(c, d));
    }

    /// An ICMP error names, at the far side, the packet as the far side sent it.
    #[test]
    fn a_quoted_packet_is_the_one_they_sent(
        (v6, protocol) in versioned_protocol(),
        (a, b, c, d) in (unicast(), unicast(), unicast(), unicast()),
        payload in prop::collection::vec(any::<u8>(), 0..80),
        keep in 8usize..100,
    ) {
        prop_assume!(protocol != TCP || keep != 17); // half a checksum: `what_is_refused_and_why`
        let header = if v6 { 40 } else { 20 };
        let error = |near, far| {
            let (near, far) = (address(v6, near), address(v6, far));
            let quoted = whole(far, near, protocol, &message(far, near, protocol, &payload));
            let start: [u8; 8] = if v6 { [1, 4, 0, 0, 0, 0, 0, 0] } else { [3, 3, 0, 0, 0, 0, 0, 0] };
            let quote = &quoted[..quoted.len().min(header + keep)];
            let mut error = [&start, quote].concat();
            seal(&mut error, near, far, if v6 { ICMPV6 } else { ICMP });
            whole(near, far, if v6 { ICMPV6 } else { ICMP }, &error)
        };
        let sent = error(a, b);
        let there = carry(&sent, c, d);
        prop_assert_eq!(&there, &error(c, d));
        prop_assert_eq!(strip_copy(&sent).unwrap(), strip_copy(&there).unwrap());
    }

    /// Neither end can be made to panic, nor to hand on a packet whose length lies.
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), version in prop::option::of(prop::sample::select(vec![0x45u8, 0x46, 0x60]))) {
        let mut bytes = bytes;
        if let (Some(version), Some(first)) = (version, bytes.first_mut()) {
            *first = version;
        }
        let _ = (source(&bytes), destination(&bytes), protocol(&bytes), ports(&bytes));
        let before = bytes.clone();
        let mut out = Vec::new();
        if strip(&mut bytes, &mut out).is_err() {
            prop_assert_eq!(&before, &bytes);
            prop_assert!(out.is_empty());
        }
        if let Ok(packet) = restore_one(&before, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)) {
            prop_assert!(View::new(&packet).is_ok());
        }
    }

    /// The same where the lengths are right, so that the deeper fields are reached.
    #[test]
    fn arbitrary_insides(
        v6: bool,
        next in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 50, 51, 58, 60, 132, 136]),
        insides in prop::collection::vec(any::<u8>(), 0..120),
        kind in prop::option::of(prop::sample::select(vec![1u8, 3, 11, 60, 44])),
    ) {
        let mut insides = insides;
        if let (Some(kind), Some(first)) = (kind, insides.first_mut()) {
            *first = kind;
        }
        let (a, b) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2));
        let packet = whole(address(v6, a), address(v6, b), next, &insides);
        let _ = (protocol(&packet), ports(&packet));
        if let Ok(stripped) = strip_copy(&packet) {
            restore_one(&stripped, a, b).unwrap();
        }
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let (a, b) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2));
    let mut datagram = message(a.into(), b.into(), UDP, b"hello");
    datagram[6..8].copy_from_slice(&[0, 0]);
    let there = carry(&whole(a.into(), b.into(), UDP, &datagram), Ipv4Addr::new(172, 16, 0, 9), b);
    assert_eq!(&there[20..], datagram);
}

#[test]
fn a_udp_checksum_never_becomes_absent() {
    // Every destination: one of them makes the sum come out as zero, which must be written as all ones.
    let (a, b) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2));
    let packet = whole(a.into(), b.into(), UDP, &message(a.into(), b.into(), UDP, b"hello"));
    let stripped = strip_copy(&packet).unwrap();
    let mut all_ones = 0;
    for host in 1..=u16::MAX {
        let [high, low] = host.to_be_bytes();
        let there = restore_one(&stripped, a, Ipv4Addr::new(10, 2, high, low)).unwrap();
        assert_ne!(&there[26..28], &[0, 0]);
        all_ones += u32::from(there[26..28] == [0xff, 0xff]);
    }
    assert_eq!(all_ones, 1);
}

#[test]
fn an_odd_payload_and_options_survive() {
    let (a, b) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2));
    let (c, d) = (Ipv4Addr::new(172, 16, 0, 7), Ipv4Addr::new(172, 16, 0, 1));
    let made = |src: Ipv4Addr, dst: Ipv4Addr| {
        let datagram = message(src.into(), dst.into(), UDP, b"odd");
        // Router alert, then no-operations.
        let mut packet = v4_header(src, dst, UDP, 0, &[148, 4, 0, 0, 1, 1, 0, 0], datagram.len());
        packet.extend_from_slice(&datagram);
        packet
    };
    assert_eq!(carry(&made(a, b), c, d), made(c, d));
}

#[test]
fn what_is_refused_and_why() {
    let (a, b) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2));
    let good = whole(a.into(), b.into(), UDP, &message(a.into(), b.into(), UDP, b"hello"));
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        strip_copy(&packet).unwrap_err()
    };
    assert_eq!(with(&|p| p.clear()), Refused::Short);
    assert_eq!(with(&|p| p.truncate(19)), Refused::Short);
    assert_eq!(with(&|p| p[0] = 0x55), Refused::Version);
    assert_eq!(with(&|p| p[0] = 0x65), Refused::Short);
    assert_eq!(with(&|p| p[0] = 0x44), Refused::Header);
    assert_eq!(with(&|p| p.push(0)), Refused::Length);
    assert_eq!(
        with(&|p| {
            p.pop();
        }),
        Refused::Length
    );
    assert_eq!(with(&|p| p[6] = 0x80), Refused::Header);
    assert_eq!(with(&|p| p[8] = 0), Refused::HopLimit);
    assert_eq!(with(&|p| p[9] = TCP), Refused::Transport);
    assert_eq!(with(&|p| p[12] = 127), Refused::Source);
    assert_eq!(with(&|p| p[16] = 224), Refused::Destination);
    assert_eq!(with(&|p| p[16..20].fill(255)), Refused::Destination);
    assert_eq!(with(&|p| p[16..20].fill(0)), Refused::Destination);

    let datagram = message(a.into(), b.into(), UDP, b"hello");
    for option in [7u8, 68, 131, 137] {
        let mut routed = v4_header(a, b, UDP, 0, &[option, 7, 4, 10, 0, 0, 1, 0], datagram.len());
        routed.extend_from_slice(&datagram);
        assert_eq!(strip_copy(&routed).unwrap_err(), Refused::Route);
    }

    // An error whose quote is cut off, of the other version, or itself an error.
    let error = |quote: &[u8]| {
        let message = [&[3, 1, 0, 0, 0, 0, 0, 0], quote].concat();
        strip_copy(&whole(a.into(), b.into(), ICMP, &message)).unwrap_err()
    };
    assert_eq!(error(&good[..19]), Refused::Quote);
    assert_eq!(error(&[0x60; 60]), Refused::Quote);
    let segment = whole(b.into(), a.into(), TCP, &message(b.into(), a.into(), TCP, b"hello"));
    assert_eq!(error(&segment[..37]), Refused::Quote, "half a checksum");
    assert_eq!(error(&whole(b.into(), a.into(), ICMP, &[3, 1, 0, 0, 0, 0, 0, 0])), Refused::Quote);
    let redirect = whole(a.into(), b.into(), ICMP, &[5, 1, 0, 0, 10, 0, 0, 9]);
    assert_eq!(strip_copy(&redirect).unwrap_err(), Refused::LinkLocal);

    let (IpAddr::V6(a6), IpAddr::V6(b6)) = (address(true, a), address(true, b)) else { unreachable!() };
    let extended = |extensions: &[u8], first: u8| {
        let mut packet = v6_header(a6, b6, first, extensions.len());
        packet.extend_from_slice(extensions);
        strip_copy(&packet).unwrap_err()
    };
    assert_eq!(extended(&[59, 0, 0, 0, 0, 0, 0, 0], 43), Refused::Route);
    assert_eq!(extended(&[[59, 2, 0xc9, 16], [1; 4], [1; 4], [1; 4], [1; 4], [0; 4]].concat(), 60), Refused::Route);
    assert_eq!(extended(&[60, 0, 1, 4, 0, 0, 0, 0].repeat(9), 60), Refused::Extensions);
    assert_eq!(extended(&[60, 9, 1, 4, 0, 0, 0, 0], 60), Refused::Short);
    assert_eq!(extended(&[135, 0, 0, 0, 0, 0, 0, 0], 58), Refused::LinkLocal);
    let to_all = v6_header(a6, "ff02::1".parse().unwrap(), 59, 0);
    assert_eq!(strip_copy(&to_all).unwrap_err(), Refused::Destination);

    let stripped = strip_copy(&v6_header(a6, b6, 59, 0)).unwrap();
    assert_eq!(
        restore(Stripped { bytes: &stripped, partial: false }, a, b, None, &mut Packets::new()),
        Err(Refused::NoIpv6)
    );
}

#[test]
fn what_the_packet_tells() {
    let (a, b) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2));
    for v6 in [false, true] {
        let (src, dst) = (address(v6, a), address(v6, b));
        let packet = whole(src, dst, TCP, &message(src, dst, TCP, b""));
        assert_eq!((source(&packet), destination(&packet)), (Some(src), Some(dst)));
        assert_eq!((protocol(&packet), ports(&packet)), (Some(TCP), Some((0x1234, 80))));
    }
    assert_eq!(source(&[0x45; 19]), None);
}

#[test]
fn a_checksum_left_to_the_card_is_finished() {
    for v6 in [false, true] {
        let (src, dst) = (address(v6, Ipv4Addr::new(10, 1, 0, 1)), address(v6, Ipv4Addr::new(10, 1, 0, 2)));
        for (protocol, offset) in [(TCP, 16), (UDP, 6)] {
            let done = whole(src, dst, protocol, &message(src, dst, protocol, b"payload"));
            let header = if v6 { 40 } else { 20 };
            // What the kernel leaves: the sum of the pseudo-header, not complemented.
            let partial = !textbook(&pseudo_header(src, dst, protocol, done.len() - header));
            let mut packet = done.clone();
            packet[header + offset..header + offset + 2].copy_from_slice(&partial.to_be_bytes());
            finish_checksum(&mut packet, header, offset).unwrap();
            assert_eq!(packet, done);
        }
    }
    assert_eq!(finish_checksum(&mut [0; 20], 18, 6), Err(Refused::Length));
    assert_eq!(finish_checksum(&mut [0; 20], 21, 0), Err(Refused::Length));
    assert_eq!(finish_checksum(&mut [0; 20], 0, usize::MAX), Err(Refused::Length));
}
