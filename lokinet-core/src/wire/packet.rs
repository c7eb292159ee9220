//! IP packets on their way through the tunnel. They travel without addresses: the sender takes them out, the receiver
//! writes those of its own leases, also into the packet that an ICMP error quotes. Every checksum that covers an
//! address is adjusted by the difference (RFC 1624) and never made anew: so a packet broken before or behind us stays
//! visibly broken, fragments keep the checksum of the whole they belong to, and nothing has to read the payload.
//! Where a kernel left the checksum to its network card (offload), there is none to adjust: such packets travel without.
//! Neighbours: `layout` finds the fields and refuses what does not fit, `checksum` adjusts, `segment` cuts super-packets
//! and `coalesce` joins them, `batch` carries the result.

pub mod checksum;
pub mod coalesce;
mod layout;
pub mod segment;
#[cfg(test)]
mod tests;

use crate::wire::address::twin;
use crate::wire::batch::{Packets, Shape};
pub use checksum::finish_checksum;
use checksum::{Shift, apply, replace};
pub use layout::EXTENSIONS_MAX;
use layout::{Layout, Part, Version, lay_out};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an IPv4 header without options.
pub const V4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
pub const V6_HEADER: usize = 40;
/// Bytes the two IPv4 addresses take, and so what a stripped packet saves.
pub const V4_ADDRESSES: usize = 8;
/// Bytes the two IPv6 addresses take.
pub const V6_ADDRESSES: usize = 32;
/// Protocol number of ICMP for IPv4.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of DCCP.
pub const DCCP: u8 = 33;
/// Protocol number of ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;
/// Protocol number of UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// Where the addresses begin; the source comes first, the destination follows at once.
const V4_AT: usize = 12;
const V6_AT: usize = 8;
const V4_CHECKSUM_AT: usize = 10;
/// Where an ICMP message of either version has its checksum, and where an error has its quote.
const ICMP_CHECKSUM_AT: usize = 2;
const ICMP_QUOTE_AT: usize = 8;

/// Why a packet does not pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refused {
    /// It ends before its headers do.
    Short,
    /// It is neither IPv4 nor IPv6.
    Version,
    /// A header field contradicts another one.
    Header,
    /// The length in its header is not its length.
    Length,
    /// Its time to live is used up.
    HopLimit,
    /// An option or extension header carries addresses of its own (source routes, recorded routes, home addresses).
    Route,
    /// More extension headers than [`EXTENSIONS_MAX`].
    Extensions,
    /// The transport header is cut off, by the packet's end or by fragmentation.
    Transport,
    /// It is an ICMP error whose quoted packet cannot be read, and so might name addresses.
    Quote,
    /// It speaks of the local link only: redirects, router and neighbour discovery, multicast listeners.
    LinkLocal,
    /// No unicast packet comes from there.
    Source,
    /// No unicast packet goes there.
    Destination,
    /// It is IPv6 and we have none.
    NoIpv6,
    /// It is to be cut into more pieces than [`segment::PIECES_MAX`].
    Pieces,
}

impl Refused {
    /// A counter's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Refused::Short => "packet-short",
            Refused::Version => "packet-version",
            Refused::Header => "packet-header",
            Refused::Length => "packet-length",
            Refused::HopLimit => "packet-hop-limit",
            Refused::Route => "packet-route",
            Refused::Extensions => "packet-extensions",
            Refused::Transport => "packet-transport",
            Refused::Quote => "packet-quote",
            Refused::LinkLocal => "packet-link-local",
            Refused::Source => "packet-source",
            Refused::Destination => "packet-destination",
            Refused::NoIpv6 => "packet-no-ipv6",
            Refused::Pieces => "packet-pieces",
        }
    }
}

/// An IP packet without its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stripped<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Whether its transport checksum was left out too.
    pub partial: bool,
}

/// Where a packet says it comes from.
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 0)
}

/// Where a packet says it goes.
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 1)
}

/// The first or second address of a header that is there in full.
fn address(packet: &[u8], index: usize) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 if packet.len() >= V4_HEADER => {
            let at = V4_AT + 4 * index;
            let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            Some(IpAddr::V4(bytes.into()))
        }
        6 if packet.len() >= V6_HEADER => {
            let at = V6_AT + 16 * index;
            let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
            Some(IpAddr::V6(bytes.into()))
        }
        _ => None,
    }
}

/// What a packet carries, behind any extension headers; `None` when it is malformed.
pub fn protocol(packet: &[u8]) -> Option<u8> {
    View::new(packet).ok().map(|view| view.protocol())
}

/// Source and destination port, where a packet has them and shows them.
pub fn ports(packet: &[u8]) -> Option<(u16, u16)> {
    View::new(packet).ok().and_then(|view| view.ports())
}

/// A whole packet whose headers have been checked.
pub struct View<'a> {
    packet: &'a [u8],
    layout: Layout,
}

impl<'a> View<'a> {
    /// Checks the headers, not the checksums.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(packet: &'a [u8]) -> Result<View<'a>, Refused> {
        Ok(View { packet, layout: lay_out(packet, Part::Whole)? })
    }

    /// Whether it is IPv6.
    pub fn is_v6(&self) -> bool {
        self.layout.version == Version::V6
    }

    /// What it carries, behind any extension headers.
    pub fn protocol(&self) -> u8 {
        self.layout.protocol
    }

    /// Whether it is a fragment that does not begin its datagram, so that no transport header is in it.
    pub fn is_later_fragment(&self) -> bool {
        self.layout.transport.is_none()
    }

    /// The transport header and all behind it; empty in later fragments.
    pub fn transport(&self) -> &'a [u8] {
        self.layout.transport.and_then(|at| self.packet.get(at..)).unwrap_or_default()
    }

    /// Whether it is an ICMP error, which must never be answered with another one.
    pub fn is_icmp_error(&self) -> bool {
        self.layout.quote.is_some()
    }

    /// Source and destination port, where it has them and shows them.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.layout.protocol {
            TCP | UDP | DCCP | SCTP | UDP_LITE => match *self.transport() {
                [a, b, c, d, ..] => Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Takes the addresses out of a packet of ours and appends what is left to `out`. On success `packet` has been changed
/// as well; on an error neither has.
///
/// # Errors
/// Why it cannot be sent.
pub fn strip(packet: &mut [u8], out: &mut Vec<u8>) -> Result<(), Refused> {
    let layout = lay_out_ours(packet)?;
    match layout.version {
        Version::V4 => readdress(packet, &layout, &[0; 4], &[0; 4]),
        Version::V6 => readdress(packet, &layout, &[0; 16], &[0; 16]),
    }
    let (at, addresses) = layout.version.addresses();
    out.extend_from_slice(packet.get(..at).ok_or(Refused::Short)?);
    out.extend_from_slice(packet.get(at + addresses..).ok_or(Refused::Short)?);
    Ok(())
}

/// Measures a packet that a program of ours sends.
fn lay_out_ours(packet: &[u8]) -> Result<Layout, Refused> {
    let layout = lay_out(packet, Part::Whole)?;
    match (source(packet), destination(packet)) {
        (Some(from), _) if !is_unicast(from) => Err(Refused::Source),
        (_, Some(to)) if !is_unicast(to) => Err(Refused::Destination),
        (Some(_), Some(_)) => Ok(layout),
        _ => Err(Refused::Short),
    }
}

/// Whether the tunnel carries packets between this address and another one.
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] != 0 && !v4.is_loopback() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast() && !v6.is_unicast_link_local()
        }
    }
}

/// Puts a stripped packet back together between `src` and `dst` (or their twins over `base6`) and appends it to `out`.
/// A `partial` one came without its transport checksum (`segment`): it gets the sum of its new pseudo-header, which is
/// what a TUN device with offload wants and [`complete`] starts from.
///
/// # Errors
/// Why it cannot be delivered; nothing is appended then.
pub fn restore(
    Stripped { bytes: stripped, partial }: Stripped<'_>,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    base6: Option<Ipv6Addr>,
    out: &mut Packets,
) -> Result<(), Refused> {
    let version = Version::of(stripped)?;
    let (at, addresses) = version.addresses();
    let (head, tail) = stripped.split_at_checked(at).ok_or(Refused::Short)?;
    let whole = stripped.len() + addresses;
    if whole > usize::from(u16::MAX) + V6_HEADER {
        return Err(Refused::Length);
    }
    out.push_with(whole, |packet| {
        packet[..at].copy_from_slice(head);
        packet[at..at + addresses].fill(0); // what the checksums were adjusted to
        packet[at + addresses..].copy_from_slice(tail);
        let mut layout = lay_out(packet, Part::Whole)?;
        let left_out = match partial {
            true => Some(layout.offloadable().ok_or(Refused::Transport)?),
            false => None,
        };
        if partial {
            layout.checksum = None; // there is none to be mended
        }
        match (version, base6) {
            (Version::V4, _) => readdress(packet, &layout, &src.octets(), &dst.octets()),
            (Version::V6, Some(base)) => {
                readdress(packet, &layout, &twin(base, src).octets(), &twin(base, dst).octets());
            }
            (Version::V6, None) => return Err(Refused::NoIpv6),
        }
        if let Some((transport, field)) = left_out {
            let sum = checksum::pseudo(&packet[at..at + addresses], layout.protocol, whole - transport);
            packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        Ok(whole)
    })?;
    out.shape_last(Shape { partial, segment: 0 });
    Ok(())
}

/// Where the cover of a TCP or UDP checksum begins and where in it the field lies: virtio's `csum_start` and
/// `csum_offset`. `None` for fragments, whose checksum covers more than they hold.
pub fn checksum_place(packet: &[u8]) -> Option<(usize, usize)> {
    let (start, field) = lay_out(packet, Part::Whole).ok()?.offloadable()?;
    Some((start, field - start))
}

/// Completes the checksum of a packet that has only its pseudo-header's sum.
///
/// # Errors
/// It has none that could be completed.
pub fn complete(packet: &mut [u8]) -> Result<(), Refused> {
    let (start, offset) = checksum_place(packet).ok_or(Refused::Transport)?;
    finish_checksum(packet, start, offset)
}

/// Writes other addresses over those in a packet and mends every checksum that covers them. The quote of an ICMP error
/// is a packet that went the other way, so its addresses are those of the error, exchanged.
fn readdress(packet: &mut [u8], layout: &Layout, src: &[u8], dst: &[u8]) {
    let (at, addresses) = layout.version.addresses();
    let shift = replace(packet, at, src) + replace(packet, at + addresses / 2, dst);
    if layout.version == Version::V4 {
        apply(packet, V4_CHECKSUM_AT, shift);
    }
    // What a changed address means for the transport checksum; ICMP for IPv4 has no pseudo-header.
    let mut covered = if layout.pseudo { shift } else { Shift::default() };
    if let Some(quote) = layout.quote.and_then(|start| packet.get_mut(start..)) {
        covered = covered + readdress_quote(quote, dst, src);
    }
    if let Some(field) = layout.checksum {
        apply_unless_absent(packet, field, layout.protocol, covered);
    }
}

/// The same for the packet an ICMP error quotes; returns what all the changes do to the sum of the quote's bytes.
fn readdress_quote(quote: &mut [u8], src: &[u8], dst: &[u8]) -> Shift {
    // It has been laid out once already, when the error was; a quote that is unreadable never comes here.
    let Ok(layout) = lay_out(quote, Part::Quoted) else { return Shift::default() };
    let (at, addresses) = layout.version.addresses();
    let shift = replace(quote, at, src) + replace(quote, at + addresses / 2, dst);
    let mut all = shift;
    if layout.version == Version::V4 {
        all = all + apply(quote, V4_CHECKSUM_AT, shift);
    }
    match layout.checksum {
        Some(field) if layout.pseudo => all + apply_unless_absent(quote, field, layout.protocol, shift),
        _ => all,
    }
}

/// Applies a shift to a transport checksum. UDP without a checksum stays without, and no UDP checksum becomes zero.
fn apply_unless_absent(packet: &mut [u8], field: usize, protocol: u8, shift: Shift) -> Shift {
    let is_zero = |packet: &[u8]| packet.get(field..field + 2) == Some(&[0, 0]);
    let udp = protocol == UDP;
    if udp && is_zero(packet) {
        return Shift::default();
    }
    let mut change = apply(packet, field, shift);
    if udp && is_zero(packet) {
        change = change + replace(packet, field, &[0xff, 0xff]);
    }
    change
}
