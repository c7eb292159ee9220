//! IP packets on their way through the tunnel, and what carries their pieces: fragments and frames. Neighbours:
//! `records` holds the messages that fragments are made of.

use super::feed::Feed;
use lokinet_core::flow::icmp;
use lokinet_core::wire::batch::Packets;
use lokinet_core::wire::batch::Shape;
use lokinet_core::wire::fragment::{self, Assembler, Fragment};
use lokinet_core::wire::packet::{self, Stripped, View, coalesce, restore, segment, strip};
use lokinet_core::wire::session::{Frame, header, read_frames};
use std::net::{Ipv4Addr, Ipv6Addr};

const BASE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0);
/// Two pairs of addresses between which a packet may be.
const ONE: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(172, 16, 0, 1), Ipv4Addr::new(172, 16, 0, 2));
const OTHER: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 200, 30, 4), Ipv4Addr::new(10, 255, 255, 254));

fn strip_copy(packet: &[u8]) -> Option<Vec<u8>> {
    let (mut packet, before) = (packet.to_vec(), packet);
    let mut out = vec![9];
    match strip(&mut packet, &mut out) {
        Ok(()) => Some(out.split_off(1)),
        Err(_) => {
            assert!(packet == before && out == [9], "a refused packet was changed");
            None
        }
    }
}

fn restored(stripped: &[u8], (src, dst): (Ipv4Addr, Ipv4Addr)) -> Option<Vec<u8>> {
    let mut out = Packets::default();
    let done = restore(Stripped { bytes: stripped, partial: false }, src, dst, Some(BASE), &mut out);
    assert_eq!(done.is_ok(), out.len() == 1);
    out.iter().next().map(<[u8]>::to_vec)
}

/// A program's packet out, and a stranger's in: addresses come and go and leave no trace.
pub fn packet(bytes: &[u8]) {
    let mut too_big = Packets::default();
    icmp::too_big(bytes, &mut too_big);
    if let Some(error) = too_big.iter().next() {
        assert!(View::new(error).is_ok_and(|view| view.is_icmp_error()) && error.len() <= usize::from(icmp::MTU));
    }
    let _ = (packet::protocol(bytes), packet::ports(bytes), icmp::is_too_big(bytes));
    if let Some(stripped) = strip_copy(bytes) {
        assert!(View::new(bytes).is_ok(), "what is no packet was sent");
        let there = restored(&stripped, ONE).expect("a packet of ours is refused by the other end");
        assert_eq!((there.len(), View::new(&there).is_ok()), (bytes.len(), true));
    }
    // As a stranger would send it.
    let Some(here) = restored(bytes, ONE) else { return };
    let elsewhere = restored(bytes, OTHER).expect("delivery depends on the lease");
    for (packet, (src, dst)) in [(&here, ONE), (&elsewhere, OTHER)] {
        assert!(View::new(packet).is_ok());
        let v4 = |ip: Option<std::net::IpAddr>| match ip {
            Some(std::net::IpAddr::V4(ip)) => ip,
            Some(std::net::IpAddr::V6(ip)) => lokinet_core::wire::address::untwin(BASE, ip).expect("a twin"),
            None => panic!("no address"),
        };
        assert_eq!((v4(packet::source(packet)), v4(packet::destination(packet))), (src, dst));
    }
    // Whatever its addresses were, it is the same packet once they are out.
    let (one, other) = (strip_copy(&here).expect("a packet"), strip_copy(&elsewhere).expect("a packet"));
    assert_alike(&one, &other, "a stripped packet tells its addresses");
    let again = restored(&one, ONE).expect("a packet");
    assert_alike(&again, &here, "a packet did not come back");
}

/// What a kernel with offload hands down is cut, and what strangers say are packets without checksums is joined: neither
/// panics, and what is joined is what was there.
pub fn offload(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let segment = feed.number() as u16;
    let packet = feed.slice();
    let mut pieces = Vec::new();
    let _ =
        segment::cut(packet, Shape { partial: true, segment }, &mut Vec::new(), |piece| pieces.push(piece.to_vec()));
    assert!(pieces.len() <= segment::PIECES_MAX);
    let mut batch = Packets::new();
    let stranger = feed.rest().to_vec();
    for bytes in pieces.iter().map(Vec::as_slice).chain([stranger.as_slice(), stranger.as_slice()]) {
        let _ = restore(Stripped { bytes, partial: true }, ONE.0, ONE.1, Some(BASE), &mut batch);
    }
    let mut seen = Vec::new();
    coalesce::Flows::default().join(&batch, true, |next| match next {
        coalesce::Next::Alone(index) => seen.push(index),
        coalesce::Next::Joined(run) => {
            seen.extend(run.packets());
            run.header(&batch, &mut [0; coalesce::HEADER_MAX]);
            assert!(run.payloads(&batch).all(|payload| payload.len() <= run.segment));
        }
    });
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..batch.len()), "a packet was lost or came twice");
}

/// The same bytes, but that the two ways to write zero in one's complement are one. A checksum of zero cannot be told
/// from one of all ones, wherever it stands.
fn assert_alike(one: &[u8], other: &[u8], what: &str) {
    assert_eq!(one.len(), other.len());
    let mut at = 0;
    while at < one.len() {
        if one[at] == other[at] {
            at += 1;
            continue;
        }
        let pair = |bytes: &[u8]| [bytes[at], bytes.get(at + 1).copied().unwrap_or(1)];
        let zeros = [[0, 0], [0xff, 0xff]];
        assert!(zeros.contains(&pair(one)) && zeros.contains(&pair(other)), "{what}: byte {at}");
        at += 2;
    }
}

/// Fragments from a stranger, in any order, with any numbers.
pub fn fragment(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let mut assembler = Assembler::default();
    let mut offered: Vec<(u32, u8, u8, &[u8])> = Vec::new();
    while !feed.is_empty() && offered.len() < 200 {
        let Ok(piece) = Fragment::decode(feed.slice()) else { continue };
        assert!(piece.index < piece.count && usize::from(piece.count) <= fragment::MAX_FRAGMENTS);
        offered.push((piece.message, piece.index, piece.count, piece.bytes));
        let Some(whole) = assembler.take(piece) else { continue };
        let said: Vec<_> =
            offered.iter().filter(|(m, _, count, _)| *m == piece.message && *count == piece.count).collect();
        assert!(is_made_of(&whole, 0, piece.count, &said), "a message that nobody sent");
    }
    // What is cut comes together again, whatever went before.
    let message = feed.wide() as u32;
    let text: Vec<u8> = bytes.iter().copied().cycle().take(bytes.len() * 3).collect();
    let room = 300 + feed.below(1000);
    let pieces = fragment::split(message, &text, room);
    assert_eq!(pieces.is_empty(), text.len().div_ceil(room - fragment::HEADER).max(1) > fragment::MAX_FRAGMENTS);
    let mut fresh = Assembler::default();
    let fits = text.len() < 4096;
    let whole =
        pieces.iter().rev().filter_map(|piece| fresh.take(Fragment::decode(piece).expect("our own piece"))).last();
    assert!(!fits || pieces.is_empty() || whole == Some(text), "a message was lost");
}

/// Whether a message is, from piece `index` on, one piece of each number after another.
fn is_made_of(whole: &[u8], index: u8, count: u8, offered: &[&(u32, u8, u8, &[u8])]) -> bool {
    if index == count {
        return whole.is_empty();
    }
    let mut tried: Vec<&[u8]> = Vec::new();
    offered.iter().filter(|(_, i, ..)| *i == index).any(|(.., bytes)| {
        let fresh = !tried.contains(bytes);
        tried.push(bytes);
        fresh && whole.strip_prefix(*bytes).is_some_and(|rest| is_made_of(rest, index + 1, count, offered))
    })
}

/// A conversation's frames, from whoever holds its other end.
pub fn frames(bytes: &[u8]) {
    let _ = header(bytes);
    let read: Vec<Frame<'_>> = read_frames(bytes).collect();
    assert!(read.len() <= bytes.len() / 3);
    let mut written = Vec::new();
    for frame in &read {
        assert!(frame.write(&mut written, bytes.len()), "frames grew");
    }
    let again: Vec<Frame<'_>> = read_frames(&written).collect();
    assert_eq!(read, again);
    written.push(0);
    written.extend_from_slice(bytes);
    assert_eq!(read_frames(&written).count(), read.len(), "padding was read");
}
