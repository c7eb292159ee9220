//! Seats for those who dial us: a number for all, and for every place they come from, so that no one place takes them
//! all. Neighbours: `quic` gives a seat to each stranger it takes in, and the seat leaves with the link.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections accepted at most, handshakes included.
pub(super) const LINKS_ACCEPTED: usize = 4096;
/// Those of one place: an IPv4 address (with the households behind it), or an IPv6 /64.
pub(super) const LINKS_OF_PLACE: usize = 128;

/// Who sits where.
#[derive(Default)]
pub(super) struct Seats {
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

/// One seat; given back when dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    place: IpAddr,
}

impl Seats {
    /// A seat for one who comes from this address, if there is one.
    pub(super) fn take(self: &Arc<Seats>, from: IpAddr) -> Option<Seat> {
        let place = place(from);
        let mut taken = self.taken();
        let here = taken.get(&place).copied().unwrap_or(0);
        if here >= LINKS_OF_PLACE || taken.values().sum::<usize>() >= LINKS_ACCEPTED {
            return None;
        }
        taken.insert(place, here + 1);
        Some(Seat { seats: self.clone(), place })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(here) = taken.get_mut(&self.place) {
            *here -= 1;
            if *here == 0 {
                taken.remove(&self.place);
            }
        }
    }
}

/// What one household or one host's owner has: an IPv4 address, or the 64 bits of IPv6 that come with it.
fn place(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !0 << 64).into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_place_takes_its_share_and_leaves_the_rest() {
        let seats = Arc::new(Seats::default());
        let host = |n: usize| ip(&format!("2001:db8:1:1::{n:x}"));
        let mut taken: Vec<Seat> = (0..LINKS_OF_PLACE).map(|n| seats.take(host(n)).unwrap()).collect();
        assert!(seats.take(host(9999)).is_none(), "another address of the same /64");
        let neighbour = seats.take(ip("2001:db8:1:2::1"));
        assert!(neighbour.is_some() && seats.take(ip("192.0.2.1")).is_some());
        taken.pop();
        assert!(seats.take(host(9999)).is_some(), "who leaves makes room");
    }

    #[test]
    fn all_together_take_no_more_than_there_are() {
        let seats = Arc::new(Seats::default());
        let from = |n: usize| ip(&format!("192.{}.2.1", n / LINKS_OF_PLACE));
        let taken: Vec<Seat> = (0..LINKS_ACCEPTED).map(|n| seats.take(from(n)).unwrap()).collect();
        assert!(seats.take(ip("198.51.100.1")).is_none());
        drop(taken);
        assert!(seats.taken().is_empty());
        assert!(seats.take(ip("::ffff:192.0.2.1")).is_some_and(|seat| seat.place == ip("192.0.2.1")));
    }
}
