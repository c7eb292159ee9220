//! Where a relay listens: at most one IPv4 and one IPv6 address, in 24 bytes whatever is there. Also the two questions
//! asked of an address: is it public, and do two stand too near each other. Neighbours: `contact`, `registry` and
//! `build` carry it; `netdb::select` asks about nearness.

use crate::wire::codec::{Malformed, Reader, Writer};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Encoded length, in bytes: v4 (4 + port 2) ‖ v6 (16 + port 2); port 0 means "none".
pub const ADDRS: usize = 24;

/// A relay's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Addrs {
    /// IPv4 address and UDP port.
    pub v4: Option<SocketAddrV4>,
    /// IPv6 address and UDP port.
    pub v6: Option<SocketAddrV6>,
}

impl core::fmt::Debug for Addrs {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Addrs(..)")
    }
}

impl Addrs {
    /// From any list: the first of each family counts.
    pub fn from_list(list: &[SocketAddr]) -> Addrs {
        let mut addrs = Addrs::default();
        for addr in list {
            match addr {
                SocketAddr::V4(v4) => addrs.v4 = addrs.v4.or(Some(*v4)),
                SocketAddr::V6(v6) => addrs.v6 = addrs.v6.or(Some(*v6)),
            }
        }
        addrs
    }

    /// The addresses to try, IPv4 first.
    pub fn list(&self) -> Vec<SocketAddr> {
        self.v4.map(SocketAddr::V4).into_iter().chain(self.v6.map(SocketAddr::V6)).collect()
    }

    /// Whether there is no address at all.
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Whether every address could be reached over the public internet.
    pub fn is_public(&self) -> bool {
        self.v4.is_none_or(|a| is_public(IpAddr::V4(*a.ip()))) && self.v6.is_none_or(|a| is_public(IpAddr::V6(*a.ip())))
    }

    /// Whether two relays share an IPv4 /16 or an IPv6 /32, and so perhaps an owner.
    pub fn near(&self, other: &Addrs) -> bool {
        let v4 = match (self.v4, other.v4) {
            (Some(a), Some(b)) => a.ip().octets()[..2] == b.ip().octets()[..2],
            _ => false,
        };
        let v6 = match (self.v6, other.v6) {
            (Some(a), Some(b)) => a.ip().octets()[..4] == b.ip().octets()[..4],
            _ => false,
        };
        v4 || v6
    }

    pub(crate) fn write(&self, to: &mut Writer) {
        match self.v4 {
            Some(a) => to.bytes(&a.ip().octets()).u16(a.port()),
            None => to.bytes(&[0; 6]),
        };
        match self.v6 {
            Some(a) => to.bytes(&a.ip().octets()).u16(a.port()),
            None => to.bytes(&[0; 18]),
        };
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Addrs, Malformed> {
        let (ip4, port4) = (from.array::<4>()?, from.u16()?);
        let (ip6, port6) = (from.array::<16>()?, from.u16()?);
        if (port4 == 0 && ip4 != [0; 4]) || (port6 == 0 && ip6 != [0; 16]) {
            return Err(Malformed);
        }
        Ok(Addrs {
            v4: (port4 != 0).then(|| SocketAddrV4::new(Ipv4Addr::from(ip4), port4)),
            v6: (port6 != 0).then(|| SocketAddrV6::new(Ipv6Addr::from(ip6), port6, 0, 0)),
        })
    }
}

/// Whether an address can be meant for the public internet.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let o = ip.octets();
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_documentation()
                || ip.is_multicast()
                || o[0] == 0
                || o[0] >= 240
                || (o[0] == 100 && o[1] & 0xc0 == 64)
                || (o[0] == 198 && o[1] & 0xfe == 18)
                || (o[0] == 192 && o[1] == 0 && o[2] == 0))
        }
        IpAddr::V6(ip) => {
            let s = ip.segments();
            // Global unicast is 2000::/3 and no more, without documentation, 6to4, Teredo and ORCHID.
            s[0] & 0xe000 == 0x2000 && !(s[0] == 0x2001 && (s[1] == 0xdb8 || s[1] < 0x200)) && s[0] != 0x2002
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Shared facts §7, net/test_llarp_net.cpp.
    #[test]
    fn bogons() {
        for bogon in ["10.40.11.6", "192.168.1.111", "127.0.0.1", "0.0.0.0", "::1", "fc00::1", "fe80::1", "2001:db8::1"]
        {
            assert!(!is_public(bogon.parse().unwrap()), "{bogon}");
        }
        for public in ["1.1.1.1", "8.8.6.6", "141.55.12.99", "79.12.3.4", "2620:fe::9"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn round_trip_and_nearness() {
        let addrs = Addrs { v4: Some("10.3.0.1:1090".parse().unwrap()), v6: None };
        let mut writer = Writer::new(ADDRS);
        addrs.write(&mut writer);
        let bytes = writer.done();
        assert_eq!(bytes.len(), ADDRS);
        assert_eq!(Addrs::read(&mut Reader::new(&bytes)).unwrap(), addrs);
        assert!(addrs.near(&Addrs::from_list(&["10.3.200.1:1".parse().unwrap()])));
        assert!(!addrs.near(&Addrs::from_list(&["10.4.0.1:1".parse().unwrap(), "[2620::1]:2".parse().unwrap()])));
    }
}
