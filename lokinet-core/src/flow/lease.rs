//! Leases: which local address stands for which remote. A bijection: our own address first, then one address per
//! remote in order, and when the range is used up the one that has been out of use longest, but never before its time.
//! Neighbours: `dns` tells programs the addresses, `node::client` maps packets by them.

use crate::session::Remote;
use crate::time::Time;
use crate::wire::address::{LokiAddress, untwin};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A lease not used for so long may be given to another remote.
pub const TTL: Duration = Duration::from_secs(3600);
/// Most leases, however wide the range.
pub const LEASES_MAX: usize = 65_000;

/// The TUN device's own address and the range around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    own: Ipv4Addr,
    prefix: u8,
    base6: Option<Ipv6Addr>,
}

impl Range {
    /// From `ifaddr` (own address and prefix, 8 to 30) and `ip6-range`'s base; `None` when the prefix leaves no room.
    pub fn new(own: Ipv4Addr, prefix: u8, base6: Option<Ipv6Addr>) -> Option<Range> {
        (8..=30).contains(&prefix).then_some(Range { own, prefix, base6 })
    }

    /// Our own address.
    pub fn own(&self) -> Ipv4Addr {
        self.own
    }

    /// The prefix length.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// What IPv6 twins are made over.
    pub fn base6(&self) -> Option<Ipv6Addr> {
        self.base6
    }

    /// Whether an address lies in the range.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        (u32::from(ip) ^ u32::from(self.own)) & self.mask() == 0
    }

    fn mask(&self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    /// The IPv4 address behind either kind of address, when it is in the range.
    pub fn v4_of(&self, ip: IpAddr) -> Option<Ipv4Addr> {
        let v4 = match ip {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(v6) => untwin(self.base6?, v6)?,
        };
        self.contains(v4).then_some(v4)
    }

    fn hosts(&self) -> (u32, u32) {
        let network = u32::from(self.own) & self.mask();
        (network + 1, (network | !self.mask()) - 1)
    }
}

struct Lease {
    ip: Ipv4Addr,
    used: Time,
    /// A conversation is open, or the address is fixed: never given away.
    held: bool,
    fixed: bool,
}

/// One lease, as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leased {
    /// The local address.
    pub ip: Ipv4Addr,
    /// Whose it is.
    pub remote: Remote,
    /// When it was last used.
    pub used: Time,
    /// Whether it may not be given away: a conversation is open, or it is fixed.
    pub held: bool,
}

/// Who has which address.
pub struct Leases {
    range: Range,
    by_remote: BTreeMap<Remote, Lease>,
    by_ip: BTreeMap<Ipv4Addr, Remote>,
    reserved: BTreeSet<Ipv4Addr>,
    next: u32,
}

impl Leases {
    /// Nobody has one yet.
    pub fn new(range: Range) -> Leases {
        let (first, _) = range.hosts();
        let reserved = BTreeSet::from([range.own]);
        Leases { range, by_remote: BTreeMap::new(), by_ip: BTreeMap::new(), reserved, next: first }
    }

    /// The range.
    pub fn range(&self) -> Range {
        self.range
    }

    /// Gives a remote an address for good (`mapaddr`).
    pub fn fix(&mut self, address: LokiAddress, ip: Ipv4Addr) {
        let remote = Remote::Address(address.0);
        self.reserved.insert(ip);
        self.by_ip.insert(ip, remote);
        self.by_remote.insert(remote, Lease { ip, used: Time::default(), held: true, fixed: true });
    }

    /// The remote's address, leased now if it had none; `None` when all are in use.
    pub fn lease(&mut self, remote: Remote, now: Time) -> Option<Ipv4Addr> {
        if let Some(lease) = self.by_remote.get_mut(&remote) {
            lease.used = now;
            return Some(lease.ip);
        }
        let ip = self.free().or_else(|| self.reclaim(now))?;
        self.by_ip.insert(ip, remote);
        self.by_remote.insert(remote, Lease { ip, used: now, held: false, fixed: false });
        Some(ip)
    }

    fn free(&mut self) -> Option<Ipv4Addr> {
        let (_, last) = self.range.hosts();
        if self.by_remote.len() >= LEASES_MAX {
            return None;
        }
        while self.next <= last {
            let ip = Ipv4Addr::from(self.next);
            self.next += 1;
            if !self.reserved.contains(&ip) && !self.by_ip.contains_key(&ip) {
                return Some(ip);
            }
        }
        None
    }

    fn reclaim(&mut self, now: Time) -> Option<Ipv4Addr> {
        let old = |lease: &Lease| !lease.held && now.since(lease.used) >= TTL;
        let (remote, ip) = self
            .by_remote
            .iter()
            .filter(|(_, lease)| old(lease))
            .min_by_key(|(_, lease)| lease.used)
            .map(|(remote, lease)| (*remote, lease.ip))?;
        self.by_remote.remove(&remote);
        self.by_ip.remove(&ip);
        Some(ip)
    }

    /// A conversation with this remote is open, or is over.
    pub fn hold(&mut self, remote: Remote, open: bool, now: Time) {
        self.lease(remote, now);
        if let Some(lease) = self.by_remote.get_mut(&remote) {
            lease.held = open || lease.fixed;
            lease.used = now;
        }
    }

    /// The remote behind a local address; counts as use.
    pub fn remote_of(&mut self, ip: IpAddr, now: Time) -> Option<Remote> {
        let remote = *self.by_ip.get(&self.range.v4_of(ip)?)?;
        if let Some(lease) = self.by_remote.get_mut(&remote) {
            lease.used = now;
        }
        Some(remote)
    }

    /// The remote behind a local address, for reverse names.
    pub fn look(&self, ip: IpAddr) -> Option<Remote> {
        self.by_ip.get(&self.range.v4_of(ip)?).copied()
    }

    /// The address a remote has.
    pub fn ip_of(&self, remote: &Remote) -> Option<Ipv4Addr> {
        self.by_remote.get(remote).map(|lease| lease.ip)
    }

    /// All leases, by remote.
    pub fn all(&self) -> Vec<Leased> {
        let leased = |(remote, l): (&Remote, &Lease)| Leased { ip: l.ip, remote: *remote, used: l.used, held: l.held };
        self.by_remote.iter().map(leased).collect()
    }

    /// How many are leased.
    pub fn len(&self) -> usize {
        self.by_remote.len()
    }

    /// Whether none is leased.
    pub fn is_empty(&self) -> bool {
        self.by_remote.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(prefix: u8) -> Range {
        Range::new(Ipv4Addr::new(172, 16, 0, 1), prefix, Some("fd00::".parse().unwrap())).unwrap()
    }

    fn remote(n: u8) -> Remote {
        Remote::Address([n; 32])
    }

    fn at(secs: u64) -> Time {
        Time::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn in_order_and_found_by_either_address() {
        let mut leases = Leases::new(range(16));
        assert_eq!(leases.lease(remote(1), at(0)), Some(Ipv4Addr::new(172, 16, 0, 2)));
        assert_eq!(leases.lease(remote(2), at(0)), Some(Ipv4Addr::new(172, 16, 0, 3)));
        assert_eq!(leases.lease(remote(1), at(9)), Some(Ipv4Addr::new(172, 16, 0, 2)));
        assert_eq!(leases.remote_of("172.16.0.3".parse().unwrap(), at(9)), Some(remote(2)));
        assert_eq!(leases.remote_of("fd00::ac10:3".parse().unwrap(), at(9)), Some(remote(2)));
        assert_eq!(leases.remote_of("172.16.0.9".parse().unwrap(), at(9)), None);
        assert_eq!(leases.remote_of("10.0.0.3".parse().unwrap(), at(9)), None);
    }

    #[test]
    fn an_address_is_not_dealt_anew_within_its_time_or_while_open() {
        let mut leases = Leases::new(range(29));
        for n in 1..=5 {
            assert!(leases.lease(remote(n), at(n.into())).is_some());
        }
        leases.hold(remote(1), true, at(1));
        assert_eq!(leases.lease(remote(9), at(3500)), None, "all in use");
        let ip = leases.lease(remote(9), at(4000)).unwrap();
        assert_eq!(ip, Ipv4Addr::new(172, 16, 0, 3), "the longest unused of those not open");
        assert_eq!(leases.ip_of(&remote(2)), None);
    }

    #[test]
    fn fixed_addresses_are_kept_free_for_their_remote() {
        let mut leases = Leases::new(range(29));
        leases.fix(LokiAddress([7; 32]), Ipv4Addr::new(172, 16, 0, 2));
        assert_eq!(leases.lease(remote(1), at(0)), Some(Ipv4Addr::new(172, 16, 0, 3)));
        assert_eq!(leases.lease(remote(7), at(0)), Some(Ipv4Addr::new(172, 16, 0, 2)));
    }

    proptest! {
        #[test]
        fn a_bijection_whatever_happens(steps in prop::collection::vec((0u8..40, 0u64..4000, any::<bool>()), 1..200)) {
            let mut leases = Leases::new(range(27));
            let mut now = 0;
            for (n, wait, open) in steps {
                now += wait;
                leases.lease(remote(n), at(now));
                leases.hold(remote(n), open, at(now));
                prop_assert_eq!(leases.by_remote.len(), leases.by_ip.len());
                for (remote, lease) in &leases.by_remote {
                    prop_assert_eq!(leases.by_ip.get(&lease.ip), Some(remote));
                    prop_assert!(range(27).contains(lease.ip) && lease.ip != range(27).own());
                }
            }
        }
    }
}
