//! What a cable carried: tcpdump's file (pcap, as libpcap writes it), read down to UDP. Enough to say who spoke with whom and
//! in which sizes; contents are sealed anyway. Neighbours: `lab` runs tcpdump inside nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A UDP datagram.
    Udp {
        /// Who sent it.
        from: IpAddr,
        /// Whom to.
        to: IpAddr,
        /// Bytes of payload.
        len: usize,
        /// Its first byte.
        first: u8,
    },
    /// What makes a LAN work: ARP, neighbour discovery, multicast listening.
    Housekeeping,
    /// Anything else, by ether type and protocol.
    Other(u16, u8),
}

/// All frames of a capture file.
///
/// # Panics
/// When the file is no pcap of Ethernet frames: a lab fails then.
pub fn read(path: &Path) -> Vec<Seen> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    assert_eq!(word(0), 0xa1b2_c3d4, "{} is no little-endian pcap", path.display());
    assert_eq!(word(20), 1, "{} holds no Ethernet frames", path.display());
    let mut seen = Vec::new();
    let mut at = 24;
    while at + 16 <= bytes.len() {
        let len = word(at + 8) as usize;
        let Some(frame) = bytes.get(at + 16..at + 16 + len) else { break };
        seen.push(frame_of(frame));
        at += 16 + len;
    }
    seen
}

fn frame_of(frame: &[u8]) -> Seen {
    let ether = frame.get(12..14).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes);
    let packet = frame.get(14..).unwrap_or_default();
    match ether {
        0x0806 => Seen::Housekeeping,
        0x0800 => {
            let header = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
            let address = |at: usize| {
                packet.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(|b| IpAddr::V4(Ipv4Addr::from(b)))
            };
            let protocol = packet.get(9).copied().unwrap_or(0);
            udp(protocol, packet.get(header..), address(12), address(16)).unwrap_or(match protocol {
                2 => Seen::Housekeeping, // IGMP
                other => Seen::Other(ether, other),
            })
        }
        0x86dd => {
            let address = |at: usize| {
                packet
                    .get(at..at + 16)
                    .and_then(|b| <[u8; 16]>::try_from(b).ok())
                    .map(|b| IpAddr::V6(Ipv6Addr::from(b)))
            };
            let next = packet.get(6).copied().unwrap_or(0);
            udp(next, packet.get(40..), address(8), address(24)).unwrap_or_else(|| {
                // Multicast listening goes behind a hop-by-hop header; the rest is ICMPv6 of the LAN itself.
                let kind = if next == 0 { packet.get(48) } else { packet.get(40) };
                match (next, kind) {
                    (0 | 58, Some(130..=137 | 143)) => Seen::Housekeeping,
                    _ => Seen::Other(ether, next),
                }
            })
        }
        other => Seen::Other(other, 0),
    }
}

fn udp(protocol: u8, datagram: Option<&[u8]>, from: Option<IpAddr>, to: Option<IpAddr>) -> Option<Seen> {
    let datagram = datagram.filter(|_| protocol == 17)?;
    let first = datagram.get(8).copied()?;
    // The frame's own length: a super-packet's UDP header counts only 16 bits.
    Some(Seen::Udp { from: from?, to: to?, len: datagram.len() - 8, first })
}

/// How many datagrams there are of each size, super-packets counted by what is in them as far as `cell` divides them.
pub fn sizes(seen: &[Seen]) -> BTreeMap<usize, usize> {
    let mut sizes = BTreeMap::new();
    for frame in seen {
        if let Seen::Udp { len, .. } = frame {
            *sizes.entry(*len).or_insert(0) += 1;
        }
    }
    sizes
}
