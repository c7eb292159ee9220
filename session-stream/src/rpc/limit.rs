//! Who calls too often: a bucket of calls for every address, filled anew as time passes. Neighbours: `node` (asks before
//! anything else is done, whatever the way in).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Calls a bucket holds.
pub const BUCKET: i64 = 600;

/// Buckets there can be. Who comes when all are taken is limited until one is full again.
pub const BUCKETS_MAX: usize = 10_000;

/// How often full buckets are thrown away.
const CLEAN: Duration = Duration::from_secs(10);

/// How often they are when there is no room for another.
const CLEAN_FULL: Duration = Duration::from_millis(100);

/// The buckets that are not full, of everybody who called.
pub struct Limiter<K> {
    buckets: BTreeMap<K, Bucket>,
    /// How long one call takes to come back.
    period: Duration,
    cleaned: Duration,
}

struct Bucket {
    /// Below nothing when a call turned out to be more than one.
    left: i64,
    /// When `left` was right.
    at: Duration,
}

impl<K: Ord> Limiter<K> {
    /// Everybody's bucket is full.
    pub fn new(period: Duration) -> Limiter<K> {
        Limiter { buckets: BTreeMap::new(), period, cleaned: Duration::ZERO }
    }

    /// Whether a call of this one may be done now.
    pub fn admits(&mut self, whose: K, now: Duration) -> bool {
        let crowded = self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&whose);
        if now.saturating_sub(self.cleaned) >= if crowded { CLEAN_FULL } else { CLEAN } {
            self.clean(now);
        }
        if crowded && self.buckets.len() >= BUCKETS_MAX {
            return false;
        }
        let bucket = self.buckets.entry(whose).or_insert(Bucket { left: BUCKET, at: now });
        bucket.fill(self.period, now);
        let admitted = bucket.left > 0;
        bucket.left -= i64::from(admitted);
        admitted
    }

    /// A call that was admitted is as much work as so many more: whoever made it waits for them to come back.
    pub fn charge(&mut self, whose: &K, calls: usize) {
        if let Some(bucket) = self.buckets.get_mut(whose) {
            bucket.left = bucket.left.saturating_sub(i64::try_from(calls).unwrap_or(i64::MAX));
        }
    }

    fn clean(&mut self, now: Duration) {
        self.cleaned = now;
        let period = self.period;
        self.buckets.retain(|_, bucket| {
            bucket.fill(period, now);
            bucket.left < BUCKET
        });
    }
}

impl Bucket {
    fn fill(&mut self, period: Duration, now: Duration) {
        let back = now.saturating_sub(self.at).as_micros() / period.as_micros();
        let back = i64::try_from(back).unwrap_or(i64::MAX);
        if back >= BUCKET.saturating_sub(self.left) {
            (self.left, self.at) = (BUCKET, now);
        } else {
            self.left += back;
            self.at += period.saturating_mul(u32::try_from(back).unwrap_or(u32::MAX));
        }
    }
}

/// Whom an address stands for: a host of IPv4, or the network a host of IPv6 picks its addresses from.
pub fn place(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => v6,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_micros(3333);

    fn host(number: u32) -> Ipv6Addr {
        place(IpAddr::V4(number.into()))
    }

    #[test]
    fn a_bucket_is_emptied_by_calls_and_filled_by_time() {
        let mut limiter = Limiter::new(PERIOD);
        let mut now = Duration::from_secs(5);
        assert!((0..BUCKET).all(|_| limiter.admits(host(1), now)));
        assert!(!limiter.admits(host(1), now), "it is empty");
        assert!(limiter.admits(host(2), now), "another's is not");
        now += PERIOD - Duration::from_micros(1);
        assert!(!limiter.admits(host(1), now));
        now += Duration::from_micros(1);
        assert!(limiter.admits(host(1), now), "one has come back");
        assert!(!limiter.admits(host(1), now), "and only one");
        now += PERIOD * 600 * 3;
        assert_eq!((0..700).filter(|_| limiter.admits(host(1), now)).count(), 600, "it holds no more than it did");
    }

    #[test]
    fn a_call_that_is_as_much_as_many_is_paid_for_afterwards() {
        let mut limiter = Limiter::new(PERIOD);
        let now = Duration::from_secs(5);
        assert!(limiter.admits(host(1), now));
        limiter.charge(&host(1), 1000);
        assert!(!limiter.admits(host(1), now + PERIOD * 401));
        assert!(limiter.admits(host(1), now + PERIOD * 402));
    }

    #[test]
    fn there_is_an_end_to_buckets_until_one_is_full_again() {
        let mut limiter = Limiter::new(PERIOD);
        let now = Duration::from_secs(1);
        let hosts = u32::try_from(BUCKETS_MAX).unwrap_or(u32::MAX);
        assert!((0..hosts).all(|number| limiter.admits(host(number), now)));
        assert!(!limiter.admits(host(hosts), now));
        assert!(limiter.admits(host(0), now), "who has one is served");
        assert!(limiter.admits(host(0), now));
        // After one period all but the busy one's are full, and gone.
        let later = now + CLEAN_FULL;
        assert!(limiter.admits(host(hosts), later));
        assert!(limiter.buckets.len() <= 2);
    }

    #[test]
    fn a_host_of_ipv6_is_its_network() {
        let v6 = |text: &str| place(text.parse().unwrap_or(IpAddr::V4(0.into())));
        assert_eq!(v6("2001:db8:1:2:3:4:5:6"), v6("2001:db8:1:2::1"));
        assert_ne!(v6("2001:db8:1:2::1"), v6("2001:db8:1:3::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), v6("192.0.2.1"));
        assert_ne!(v6("::ffff:192.0.2.1"), v6("192.0.2.2"));
    }
}
