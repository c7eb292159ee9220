//! Who calls too often: a bucket of calls for every address, filled anew as time passes. Neighbours: `node` (asks before
//! anything else is done, whatever the way in).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Calls a bucket holds.
pub const BUCKET: u32 = 600;

/// How long one call takes to come back into a client's bucket.
pub const PERIOD: Duration = Duration::from_micros(3333);

/// Buckets there can be. Who comes when all are taken is limited until one is full again.
pub const BUCKETS_MAX: usize = 10_000;

/// How often full buckets are thrown away.
const CLEAN: Duration = Duration::from_secs(10);

/// The buckets that are not full.
#[derive(Default)]
pub struct Limiter {
    buckets: BTreeMap<Ipv6Addr, Bucket>,
    clean_at: Duration,
}

struct Bucket {
    left: u32,
    /// When `left` was right.
    at: Duration,
}

impl Limiter {
    /// Whether a call from this address may be done now.
    pub fn admits(&mut self, ip: IpAddr, now: Duration) -> bool {
        let place = place(ip);
        if now >= self.clean_at {
            self.clean(now);
        }
        if !self.buckets.contains_key(&place) && self.buckets.len() >= BUCKETS_MAX {
            self.clean(now);
            if self.buckets.len() >= BUCKETS_MAX {
                return false;
            }
        }
        let bucket = self.buckets.entry(place).or_insert(Bucket { left: BUCKET, at: now });
        bucket.fill(now);
        match bucket.left.checked_sub(1) {
            Some(left) => bucket.left = left,
            None => return false,
        }
        true
    }

    fn clean(&mut self, now: Duration) {
        self.clean_at = now + CLEAN;
        self.buckets.retain(|_, bucket| {
            bucket.fill(now);
            bucket.left < BUCKET
        });
    }
}

impl Bucket {
    fn fill(&mut self, now: Duration) {
        let micros = PERIOD.as_micros();
        let back = now.saturating_sub(self.at).as_micros() / micros;
        if back >= u128::from(BUCKET - self.left) {
            (self.left, self.at) = (BUCKET, now);
        } else if let Ok(back) = u32::try_from(back) {
            self.left += back;
            self.at += PERIOD * back;
        }
    }
}

/// Whom an address stands for: a host of IPv4, or the network a host of IPv6 picks its addresses from.
fn place(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => v6,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64),
    }
}
