//! How many connections there may be, from one address and altogether. Neighbours: `quic` and `https`, which give every
//! connection a seat.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The seats of one way in.
#[derive(Clone)]
pub struct Seats(Arc<Mutex<Taken>>);

struct Taken {
    here: HashMap<IpAddr, usize>,
    all: usize,
    each_max: usize,
    all_max: usize,
}

/// A connection's seat; free again when dropped.
pub struct Seat {
    seats: Seats,
    ip: IpAddr,
}

impl Seats {
    /// So many for one address, so many altogether.
    pub fn new(each_max: usize, all_max: usize) -> Seats {
        Seats(Arc::new(Mutex::new(Taken { here: HashMap::new(), all: 0, each_max, all_max })))
    }

    /// A seat for a connection from this address; nothing when there is none left for it.
    pub fn take(&self, ip: IpAddr) -> Option<Seat> {
        let ip = whose(ip);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.here.get(&ip).copied().unwrap_or(0);
        if here >= taken.each_max || taken.all >= taken.all_max {
            return None;
        }
        taken.here.insert(ip, here + 1);
        taken.all += 1;
        Some(Seat { seats: self.clone(), ip })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(here) = taken.here.get_mut(&self.ip) {
            *here -= 1;
            if *here == 0 {
                taken.here.remove(&self.ip);
            }
        }
    }
}

/// One household has one IPv4 address, or a whole /64 of IPv6.
fn whose(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_seat() {
        let seats = Seats::new(2, 3);
        let take = |ip: &str| seats.take(ip.parse().unwrap());
        let (a, _b) = (take("1.1.1.1").unwrap(), take("::ffff:1.1.1.1").unwrap());
        assert!(take("1.1.1.1").is_none());
        let c = take("2001:db9::1").unwrap();
        assert!(take("1.1.1.2").is_none(), "no seat is left at all");
        drop(c);
        let (_c, _d) = (take("2001:db9::1").unwrap(), drop(a));
        assert!(take("2001:db9::ffff").is_some(), "one more in that household");
        assert_eq!(seats.taken(), 2);
    }
}
