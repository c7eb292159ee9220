//! Where things are in an IP packet: its version, its transport header, the checksum that covers its addresses, and the
//! packet an ICMP error quotes. Everything is measured here, strictly, before anything is changed, so that the files
//! that change packets cannot fail half-way. Neighbours: `packet`, the only user.

use super::{
    DCCP, ICMP, ICMP_CHECKSUM_AT, ICMP_QUOTE_AT, ICMPV6, Refused, TCP, UDP, UDP_LITE, V4_ADDRESSES, V4_AT, V4_HEADER,
    V6_ADDRESSES, V6_AT, V6_HEADER,
};

/// Most IPv6 extension headers before the transport header.
pub const EXTENSIONS_MAX: usize = 8;

/// Which IP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

impl Version {
    pub(super) fn of(packet: &[u8]) -> Result<Version, Refused> {
        match packet.first().ok_or(Refused::Short)? >> 4 {
            4 => Ok(Version::V4),
            6 => Ok(Version::V6),
            _ => Err(Refused::Version),
        }
    }

    /// Where both addresses begin and how long they are together.
    pub(super) fn addresses(self) -> (usize, usize) {
        match self {
            Version::V4 => (V4_AT, V4_ADDRESSES),
            Version::V6 => (V6_AT, V6_ADDRESSES),
        }
    }
}

/// Whether the packet is all there, or the beginning that an ICMP error quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Quoted,
}

/// The measurements.
pub(super) struct Layout {
    pub(super) version: Version,
    /// What it carries, behind extension headers.
    pub(super) protocol: u8,
    /// Where the transport header begins; `None` in later fragments.
    pub(super) transport: Option<usize>,
    /// The transport checksum, when a change of addresses or of the quote can change it.
    pub(super) checksum: Option<usize>,
    /// Whether that checksum covers the addresses.
    pub(super) pseudo: bool,
    /// Where the packet begins that an ICMP error quotes.
    pub(super) quote: Option<usize>,
    /// Whether it is a fragment, be it the first, or the only one.
    pub(super) fragment: bool,
}

impl Layout {
    /// Where the transport header begins and where its checksum lies, if the packet may travel without that checksum:
    /// only TCP and UDP, whose ends know what it was, and only where the packet is all it covers.
    pub(super) fn offloadable(&self) -> Option<(usize, usize)> {
        let fits = !self.fragment && matches!(self.protocol, TCP | UDP);
        self.transport.zip(self.checksum).filter(|_| fits)
    }
}

/// Measures a packet.
pub(super) fn lay_out(packet: &[u8], part: Part) -> Result<Layout, Refused> {
    match Version::of(packet)? {
        Version::V4 => lay_out_v4(packet, part),
        Version::V6 => lay_out_v6(packet, part),
    }
}

fn word(packet: &[u8], at: usize) -> Result<u16, Refused> {
    match packet.get(at..at + 2) {
        Some(&[a, b]) => Ok(u16::from_be_bytes([a, b])),
        _ => Err(Refused::Short),
    }
}

fn lay_out_v4(packet: &[u8], part: Part) -> Result<Layout, Refused> {
    if packet.len() < V4_HEADER {
        return Err(Refused::Short);
    }
    let header = usize::from(packet[0] & 0x0f) * 4;
    if header < V4_HEADER {
        return Err(Refused::Header);
    }
    let options = packet.get(V4_HEADER..header).ok_or(Refused::Short)?;
    let total = usize::from(word(packet, 2)?);
    if total < header {
        return Err(Refused::Header);
    }
    let fragment = word(packet, 6)?;
    let later = fragment & 0x1fff != 0;
    if part == Part::Whole {
        if total != packet.len() {
            return Err(Refused::Length);
        }
        // The reserved flag is zero.
        if fragment & 0x8000 != 0 {
            return Err(Refused::Header);
        }
        if packet[8] == 0 {
            return Err(Refused::HopLimit);
        }
    }
    check_v4_options(options)?;
    let protocol = packet[9];
    if later {
        return Ok(Layout {
            version: Version::V4,
            protocol,
            transport: None,
            checksum: None,
            pseudo: false,
            quote: None,
            fragment: true,
        });
    }
    // The first fragment says that more follow.
    let fragment = fragment & 0x2000 != 0;
    Ok(Layout { fragment, ..lay_out_transport(packet, part, Version::V4, protocol, header)? })
}

/// Refuses options that hold addresses, which would tell the other side about our network.
fn check_v4_options(mut options: &[u8]) -> Result<(), Refused> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const RECORD_ROUTE: u8 = 7;
    const TIMESTAMP: u8 = 68;
    const TRACEROUTE: u8 = 82;
    const LOOSE_ROUTE: u8 = 131;
    const STRICT_ROUTE: u8 = 137;
    loop {
        options = match *options {
            [] | [END, ..] => return Ok(()),
            [NOTHING, ref rest @ ..] => rest,
            [RECORD_ROUTE | TIMESTAMP | TRACEROUTE | LOOSE_ROUTE | STRICT_ROUTE, ..] => return Err(Refused::Route),
            [_, length, ..] if length >= 2 => options.get(usize::from(length)..).ok_or(Refused::Header)?,
            _ => return Err(Refused::Header),
        };
    }
}

fn lay_out_v6(packet: &[u8], part: Part) -> Result<Layout, Refused> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    if packet.len() < V6_HEADER {
        return Err(Refused::Short);
    }
    if part == Part::Whole {
        if usize::from(word(packet, 4)?) != packet.len() - V6_HEADER {
            return Err(Refused::Length);
        }
        if packet[7] == 0 {
            return Err(Refused::HopLimit);
        }
    }
    let mut next = packet[6];
    let mut at = V6_HEADER;
    let mut fragment = false;
    for seen in 0..=EXTENSIONS_MAX {
        let header = packet.get(at..).ok_or(Refused::Short)?;
        let length = match next {
            HOP_BY_HOP if seen != 0 => return Err(Refused::Header),
            HOP_BY_HOP | DESTINATION => {
                let &[_, eights, ..] = header else { return Err(Refused::Short) };
                let length = (usize::from(eights) + 1) * 8;
                check_v6_options(header.get(2..length).ok_or(Refused::Short)?)?;
                length
            }
            ROUTING => return Err(Refused::Route),
            FRAGMENT => {
                let extension = header.get(..8).ok_or(Refused::Short)?;
                fragment = true;
                if word(extension, 2)? & 0xfff8 != 0 {
                    let protocol = extension[0];
                    let none = Layout {
                        version: Version::V6,
                        protocol,
                        transport: None,
                        checksum: None,
                        pseudo: false,
                        quote: None,
                        fragment: true,
                    };
                    return Ok(none);
                }
                8
            }
            protocol => {
                return Ok(Layout { fragment, ..lay_out_transport(packet, part, Version::V6, protocol, at)? });
            }
        };
        next = header[0];
        at += length;
    }
    Err(Refused::Extensions)
}

/// Refuses the option that holds an address (a mobile node's home).
fn check_v6_options(mut options: &[u8]) -> Result<(), Refused> {
    const PAD: u8 = 0;
    const HOME_ADDRESS: u8 = 0xc9;
    loop {
        options = match *options {
            [] => return Ok(()),
            [PAD, ref rest @ ..] => rest,
            [HOME_ADDRESS, ..] => return Err(Refused::Route),
            [_, length, ref rest @ ..] => rest.get(usize::from(length)..).ok_or(Refused::Header)?,
            _ => return Err(Refused::Header),
        };
    }
}

/// The transport header begins at `at`; it is there unless the packet is a quote.
fn lay_out_transport(packet: &[u8], part: Part, version: Version, protocol: u8, at: usize) -> Result<Layout, Refused> {
    let transport = packet.get(at..).ok_or(Refused::Short)?;
    // Protocol, least length, where its checksum is, and whether that covers the addresses.
    let (least, checksum, pseudo) = match (version, protocol) {
        (_, TCP) => (20, Some(16), true),
        (_, UDP | UDP_LITE) => (8, Some(6), true),
        (_, DCCP) => (12, Some(6), true),
        (Version::V4, ICMP) => (8, Some(ICMP_CHECKSUM_AT), false),
        (Version::V6, ICMPV6) => (4, Some(ICMP_CHECKSUM_AT), true),
        _ => (0, None, false),
    };
    // A first fragment that ends before the checksum could not be mended; nobody makes them but attackers (RFC 1858).
    if part == Part::Whole && transport.len() < least {
        return Err(Refused::Transport);
    }
    // Half a checksum cannot be mended, and would tell of the addresses it covers.
    if checksum.is_some_and(|offset| transport.len() == offset + 1) {
        return Err(Refused::Transport);
    }
    let mut layout =
        Layout { version, protocol, transport: Some(at), checksum: None, pseudo, quote: None, fragment: false };
    layout.checksum = checksum.map(|offset| at + offset).filter(|field| field + 2 <= packet.len());
    match icmp_kind(version, protocol, transport) {
        Icmp::LinkOnly => return Err(Refused::LinkLocal),
        // No error answers an error, so a quoted one is either broken or meant to smuggle addresses.
        Icmp::Error if part == Part::Quoted => return Err(Refused::Quote),
        Icmp::Error => {
            let start = at + ICMP_QUOTE_AT;
            let quote = packet.get(start..).ok_or(Refused::Quote)?;
            let quoted = lay_out(quote, Part::Quoted).map_err(|_| Refused::Quote)?;
            if quoted.version != version {
                return Err(Refused::Quote);
            }
            layout.quote = Some(start);
        }
        Icmp::Other => {}
    }
    Ok(layout)
}

/// What sort of ICMP message a transport header begins, if any.
enum Icmp {
    Error,
    LinkOnly,
    Other,
}

fn icmp_kind(version: Version, protocol: u8, transport: &[u8]) -> Icmp {
    let Some(&kind) = transport.first() else { return Icmp::Other };
    match (version, protocol, kind) {
        // Unreachable, source quench, time exceeded, parameter problem.
        (Version::V4, ICMP, 3 | 4 | 11 | 12) => Icmp::Error,
        // Redirect, router advertisement and solicitation.
        (Version::V4, ICMP, 5 | 9 | 10) => Icmp::LinkOnly,
        (Version::V6, ICMPV6, 0..=127) => Icmp::Error,
        // Multicast listeners, neighbour discovery, and queries for a node's addresses.
        (Version::V6, ICMPV6, 130..=143) => Icmp::LinkOnly,
        _ => Icmp::Other,
    }
}
