//! ICMP errors of our own: what a program's kernel is told when its packet is too long for the tunnel, so that path-MTU
//! discovery ends at what fits. Only packets that came out of our own TUN device are answered, into the same device.
//! Neighbours: `wire::packet` reads packets, `node::client` finds those that are too long.

use crate::session::PACKET_MAX;
use crate::wire::batch::Packets;
use crate::wire::packet::checksum::checksum;
use crate::wire::packet::{ICMP, ICMPV6, V4_ADDRESSES, V4_HEADER, V6_ADDRESSES, V6_HEADER, View, destination, source};
use std::net::IpAddr;

/// The longest packet programs are told to send, in bytes: the TUN device's MTU.
pub const MTU: u16 = 1280;
/// Bytes of an ICMP error before the packet it quotes.
const HEAD: usize = 8;
/// Bytes of a packet that an IPv4 error quotes at most, so that the whole stays below 576.
const QUOTE_V4: usize = 576 - V4_HEADER - HEAD;
/// The same for IPv6, whose errors may fill the least MTU.
const QUOTE_V6: usize = MTU as usize - V6_HEADER - HEAD;
const TTL: u8 = 64;
const DONT_FRAGMENT: u8 = 0x40;

/// Whether a packet is too long for a cell once its addresses are out.
pub fn is_too_big(packet: &[u8]) -> bool {
    let addresses = if packet.first().is_some_and(|byte| byte >> 4 == 6) { V6_ADDRESSES } else { V4_ADDRESSES };
    packet.len() > PACKET_MAX + addresses
}

/// Appends the error that answers a packet which is too long: "fragmentation needed" or "packet too big". Nothing for
/// packets that are malformed, that their sender allows to be cut, or that are errors or later fragments themselves.
pub fn too_big(packet: &[u8], out: &mut Packets) {
    let Ok(view) = View::new(packet) else { return };
    if view.is_icmp_error() || view.is_later_fragment() {
        return;
    }
    // From where the packet was going: an error from our own address would be taken for a forgery.
    match (destination(packet), source(packet)) {
        (Some(IpAddr::V4(from)), Some(IpAddr::V4(to))) if packet[6] & DONT_FRAGMENT != 0 => {
            let quote = &packet[..packet.len().min(QUOTE_V4)];
            let mut error = vec![0x45, 0];
            error.extend(((V4_HEADER + HEAD + quote.len()) as u16).to_be_bytes());
            error.extend([0, 0, DONT_FRAGMENT, 0, TTL, ICMP, 0, 0]);
            error.extend(from.octets());
            error.extend(to.octets());
            let sum = checksum(&[&error]);
            error[10..12].copy_from_slice(&sum.to_be_bytes());
            error.extend([3, 4, 0, 0, 0, 0]);
            error.extend(MTU.to_be_bytes());
            error.extend_from_slice(quote);
            let sum = checksum(&[&error[V4_HEADER..]]);
            error[V4_HEADER + 2..V4_HEADER + 4].copy_from_slice(&sum.to_be_bytes());
            out.push(&error);
        }
        (Some(IpAddr::V6(from)), Some(IpAddr::V6(to))) => {
            let quote = &packet[..packet.len().min(QUOTE_V6)];
            let length = (HEAD + quote.len()) as u16;
            let mut error = vec![0x60, 0, 0, 0];
            error.extend(length.to_be_bytes());
            error.extend([ICMPV6, TTL]);
            error.extend(from.octets());
            error.extend(to.octets());
            error.extend([2, 0, 0, 0]);
            error.extend(u32::from(MTU).to_be_bytes());
            error.extend_from_slice(quote);
            let pseudo = [0, 0, length.to_be_bytes()[0], length.to_be_bytes()[1], 0, 0, 0, ICMPV6];
            let sum = checksum(&[&from.octets(), &to.octets(), &pseudo, &error[V6_HEADER..]]);
            error[V6_HEADER + 2..V6_HEADER + 4].copy_from_slice(&sum.to_be_bytes());
            out.push(&error);
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn v4(length: usize, flags: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, flags, 0, 64, 17, 0, 0, 172, 16, 0, 1, 172, 16, 0, 2];
        packet.resize(length, 7);
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        packet
    }

    fn v6(length: usize) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 172, 16, 0, 1]);
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 172, 16, 0, 2]);
        packet.resize(length, 7);
        packet[4..6].copy_from_slice(&((length - V6_HEADER) as u16).to_be_bytes());
        packet
    }

    fn answer(packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = Packets::new();
        too_big(packet, &mut out);
        out.iter().next().map(<[u8]>::to_vec)
    }

    #[test]
    fn the_tun_mtu_always_fits() {
        for length in [1280, 1281, 1294] {
            assert!(!is_too_big(&v4(length, 0)) && !is_too_big(&v6(length)));
        }
        assert!(is_too_big(&v4(1295, 0)) && is_too_big(&v6(1319)));
    }

    #[test]
    fn errors_are_whole_packets_with_right_checksums_and_name_the_mtu() {
        let (four, six) = (answer(&v4(1500, DONT_FRAGMENT)).unwrap(), answer(&v6(1500)).unwrap());
        assert!(View::new(&four).unwrap().is_icmp_error() && View::new(&six).unwrap().is_icmp_error());
        assert_eq!((checksum(&[&four[..V4_HEADER]]), checksum(&[&four[V4_HEADER..]])), (0, 0));
        let length = ((six.len() - V6_HEADER) as u16).to_be_bytes();
        let pseudo = [0, 0, length[0], length[1], 0, 0, 0, ICMPV6];
        assert_eq!(checksum(&[&six[8..40], &pseudo, &six[V6_HEADER..]]), 0);
        assert_eq!((four.len(), six.len()), (576, 1280));
        assert_eq!((&four[20..22], &four[26..28]), (&[3, 4][..], &MTU.to_be_bytes()[..]));
        assert_eq!((&six[40..42], &six[46..48]), (&[2, 0][..], &MTU.to_be_bytes()[..]));
        assert_eq!(destination(&four), source(&v4(1500, 0)));
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        assert!(answer(&v4(1500, 0)).is_none(), "its sender allows it to be cut");
        let error = answer(&v4(1500, DONT_FRAGMENT)).unwrap();
        assert!(answer(&error).is_none(), "an error about an error");
        let mut later = v4(1500, DONT_FRAGMENT);
        later[7] = 9;
        assert!(answer(&later).is_none(), "a later fragment");
        assert!(answer(&v4(1500, DONT_FRAGMENT)[..1400]).is_none(), "malformed");
    }
}
