//! IP packets as programs and kernels make them, for scenarios: UDP and echo requests with right checksums, and a
//! reader that believes none. Written apart from the core's own codec on purpose, so that one can catch the other.
//! Neighbours: `world` echoes with it, scenarios send and judge with it.

use std::net::Ipv4Addr;

const ICMP: u8 = 1;
const UDP: u8 = 17;
/// Bytes of an IPv4 header without options, and of the UDP and ICMP echo headers.
const IP: usize = 20;
const HEAD: usize = 8;

/// What a reader sees in a packet whose checksums are right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Source address.
    pub from: Ipv4Addr,
    /// Destination address.
    pub to: Ipv4Addr,
    /// What kind, with its ports or its number in the row.
    pub kind: Kind,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The kinds of packets scenarios use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// UDP, with source and destination port.
    Udp(u16, u16),
    /// An ICMP echo request, with identifier and sequence number.
    Ping(u16, u16),
    /// An ICMP echo reply, with identifier and sequence number.
    Pong(u16, u16),
    /// Another ICMP message, with its type and code.
    Icmp(u8, u8),
}

/// A UDP packet.
pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEAD + payload.len());
    body.extend(from.1.to_be_bytes());
    body.extend(to.1.to_be_bytes());
    body.extend(((HEAD + payload.len()) as u16).to_be_bytes());
    body.extend([0, 0]);
    body.extend(payload);
    let sum = checksum(&[&pseudo(from.0, to.0, body.len()), &body]);
    body[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    ip(from.0, to.0, UDP, &body)
}

/// A UDP packet of any length as a kernel with offload hands it down: its checksum is the pseudo-header's sum.
pub fn udp_unfinished(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = udp(from, to, payload);
    let sum = !checksum(&[&pseudo(from.0, to.0, HEAD + payload.len())]);
    packet[IP + 6..IP + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An ICMP echo request.
pub fn ping(from: Ipv4Addr, to: Ipv4Addr, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    icmp(from, to, 8, id, sequence, payload)
}

fn icmp(from: Ipv4Addr, to: Ipv4Addr, kind: u8, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0];
    body.extend(id.to_be_bytes());
    body.extend(sequence.to_be_bytes());
    body.extend(payload);
    let sum = checksum(&[&body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, ICMP, &body)
}

fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((IP + body.len()) as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    packet
}

/// Reads a packet; `None` when it is not one, is cut short, or a checksum is wrong (a UDP checksum of zero counts as
/// wrong: no program's packet has it).
pub fn read(packet: &[u8]) -> Option<Seen> {
    let (head, body) = packet.split_at_checked(IP)?;
    let whole = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[0] != 0x45 || whole != packet.len() || checksum(&[head]) != 0 || body.len() < HEAD {
        return None;
    }
    let from = Ipv4Addr::new(head[12], head[13], head[14], head[15]);
    let to = Ipv4Addr::new(head[16], head[17], head[18], head[19]);
    let word = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let kind = match head[9] {
        UDP => {
            let right = word(6) != 0 && checksum(&[&pseudo(from, to, body.len()), body]) == 0;
            (right && usize::from(word(4)) == body.len()).then(|| Kind::Udp(word(0), word(2)))?
        }
        ICMP if checksum(&[body]) == 0 => match (body[0], body[1]) {
            (8, 0) => Kind::Ping(word(4), word(6)),
            (0, 0) => Kind::Pong(word(4), word(6)),
            (kind, code) => Kind::Icmp(kind, code),
        },
        _ => return None,
    };
    Some(Seen { from, to, kind, payload: body[HEAD..].to_vec() })
}

/// What a kernel with an echo service sends back.
pub fn echo(packet: &[u8]) -> Option<Vec<u8>> {
    let seen = read(packet)?;
    match seen.kind {
        Kind::Udp(from, to) => Some(udp((seen.to, to), (seen.from, from), &seen.payload)),
        Kind::Ping(id, sequence) => Some(icmp(seen.to, seen.from, 0, id, sequence, &seen.payload)),
        Kind::Pong(..) | Kind::Icmp(..) => None,
    }
}

fn pseudo(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> [u8; 12] {
    let mut head = [0; 12];
    head[..4].copy_from_slice(&from.octets());
    head[4..8].copy_from_slice(&to.octets());
    head[9] = UDP;
    head[10..].copy_from_slice(&(length as u16).to_be_bytes());
    head
}

/// The Internet checksum over parts, all but the last of even length; 0 over something that carries a right one.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
