//! What is chosen when the configuration is silent: the interface's name and the first private range that nothing on
//! the host uses. Pure. Neighbours: `link` reads from the kernel what is in use, `tun` asks here.

use std::fmt;
use std::net::Ipv4Addr;

/// The interface's MTU: the least that IPv6 allows, so that a packet with its frame fits into one cell everywhere.
pub const MTU: u32 = 1280;
/// Longest name of an interface, in bytes.
pub const NAME_MAX: usize = 15;
/// How many names `lokitunN` are tried.
pub(super) const NAMES: u16 = 255;
/// Routes broader than this mean "everything" (a VPN's pair of /1), not a network that is in use.
const BROADEST: u8 = 8;

/// Whether the kernel would take it as it is (it expands `%d` by itself).
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".."
}

/// The names to try, in order.
pub(super) fn names() -> impl Iterator<Item = String> {
    (0..NAMES).map(|n| format!("lokitun{n}"))
}

/// An IPv4 network that is in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Network {
    /// Any address in it.
    pub(super) addr: Ipv4Addr,
    /// The length of its prefix.
    pub(super) prefix: u8,
    /// The interface that has an address in it; `None` when it is only routed.
    pub(super) interface: Option<String>,
}

impl Network {
    /// Whether the two share an address.
    pub(super) fn meets(&self, other: &Network) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        (u32::from(self.addr) ^ u32::from(other.addr)) & mask == 0
    }

    /// The first host of the network, when the address is no host: the network's own or its broadcast address.
    pub(super) fn host_instead(&self) -> Option<Ipv4Addr> {
        let hosts = !mask(self.prefix);
        let host = u32::from(self.addr) & hosts;
        (host == 0 || host == hosts).then(|| Ipv4Addr::from((u32::from(self.addr) & !hosts) + 1))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(u32::from(self.addr) & mask(self.prefix)), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// The first range of the ancestor's list that meets nothing in use: our address in it, and its prefix.
pub(super) fn free_range(used: &[Network]) -> Option<(Ipv4Addr, u8)> {
    let sixteens = (16..=31).map(|n| (Ipv4Addr::new(172, n, 0, 1), 16));
    let tens = (0..=255).map(|n| (Ipv4Addr::new(10, n, 0, 1), 16));
    let homes = (0..=255).map(|n| (Ipv4Addr::new(192, 168, n, 1), 24));
    sixteens.chain(tens).chain(homes).find(|&(addr, prefix)| {
        let range = Network { addr, prefix, interface: None };
        !used.iter().any(|network| (network.interface.is_some() || network.prefix >= BROADEST) && range.meets(network))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        let (addr, prefix) = text.split_once('/').unwrap();
        Network { addr: addr.parse().unwrap(), prefix: prefix.parse().unwrap(), interface: None }
    }

    fn free(used: &[&str]) -> Option<String> {
        let used: Vec<Network> = used.iter().map(|text| network(text)).collect();
        free_range(&used).map(|(addr, prefix)| format!("{addr}/{prefix}"))
    }

    #[test]
    fn networks_that_meet() {
        let wide = network("10.9.0.1/16");
        assert!(wide.meets(&network("10.9.0.1/24")) && wide.meets(&network("10.9.1.1/24")));
        assert!(!network("10.9.0.1/24").meets(&network("10.9.1.1/24")));
        assert!(!network("1.9.1.1/8").meets(&wide) && network("0.0.0.0/0").meets(&wide));
        assert_eq!(network("10.9.1.7/16").to_string(), "10.9.0.0/16");
    }

    #[test]
    fn the_first_range_that_nothing_uses() {
        assert_eq!(free(&[]).unwrap(), "172.16.0.1/16");
        assert_eq!(free(&["172.16.5.5/32", "172.17.0.1/16"]).unwrap(), "172.18.0.1/16");
        assert_eq!(free(&["172.16.0.0/12"]).unwrap(), "10.0.0.1/16");
        assert_eq!(free(&["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/23"]).unwrap(), "192.168.2.1/24");
        assert_eq!(free(&["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"]), None);
    }

    #[test]
    fn a_vpn_that_routes_everything_leaves_the_private_ranges_free() {
        assert_eq!(free(&["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"]).unwrap(), "172.16.0.1/16");
    }

    #[test]
    fn addresses_that_are_no_host() {
        assert_eq!(network("172.16.0.0/16").host_instead(), Some(Ipv4Addr::new(172, 16, 0, 1)));
        assert_eq!(network("172.16.255.255/16").host_instead(), Some(Ipv4Addr::new(172, 16, 0, 1)));
        assert_eq!(network("172.16.1.0/16").host_instead(), None);
    }

    #[test]
    fn names_of_interfaces() {
        assert!(is_name("lokitun0") && is_name("exactly15bytes_") && is_name("eth0.7"));
        for bad in ["", "sixteen_bytes_xx", "loki/tun", "lokitun%d", "a b", "a:1", ".", "..", "löki"] {
            assert!(!is_name(bad), "{bad}");
        }
        let all: Vec<String> = names().collect();
        assert_eq!((all[0].as_str(), all[254].as_str(), all.len()), ("lokitun0", "lokitun254", 255));
    }

    proptest! {
        #[test]
        fn what_is_chosen_meets_no_interface(used in prop::collection::vec((any::<u32>(), 0u8..=32), 0..40)) {
            // All of them inside the ranges that are dealt first.
            let used: Vec<Network> = used
                .into_iter()
                .map(|(n, prefix)| (Ipv4Addr::from(0xac10_0000 | (n & 0xf_ffff)), prefix))
                .map(|(addr, prefix)| Network { addr, prefix, interface: Some("x".into()) })
                .collect();
            if let Some((addr, prefix)) = free_range(&used) {
                let chosen = Network { addr, prefix, interface: None };
                prop_assert!(addr.is_private() && !used.iter().any(|network| network.meets(&chosen)));
            } else {
                prop_assert!(used.iter().any(|network| network.prefix < 12));
            }
        }
    }
}
