//! Wires as values: how long, how lossy, how narrow, and whether cut. Every ordered pair of hosts has one; what is not
//! set is the world's default. Neighbours: `cells` and `quic` ask here when something sent will arrive.

use core::time::Duration;
use lokinet_core::time::Time;
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use std::collections::BTreeMap;

/// One direction between two hosts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Wire {
    /// One way, at the least.
    pub delay: Duration,
    /// Up to this much more, drawn evenly per burst.
    pub jitter: Duration,
    /// Share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams that later ones overtake.
    pub reorder: f64,
    /// Bits per second; `None` has no limit.
    pub rate: Option<u64>,
    /// Bytes that wait before the wire's end when `rate` is set; more are dropped.
    pub queue: usize,
    /// Nothing passes.
    pub cut: bool,
}

impl Default for Wire {
    fn default() -> Wire {
        Wire {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            rate: None,
            queue: 256 * 1024,
            cut: false,
        }
    }
}

impl Wire {
    /// An ordinary wire of this length.
    pub fn of(delay: Duration) -> Wire {
        Wire { delay, ..Wire::default() }
    }
}

/// Why a datagram did not pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    Cut,
    Loss,
    Overflow,
}

/// What one direction remembers of its past.
#[derive(Clone, Copy, Default)]
struct Past {
    /// When the last queued byte will have left.
    free: Time,
    /// When the last datagram in order arrives.
    last: Time,
}

/// All wires of a world.
#[derive(Default)]
pub(super) struct Wires {
    pub usual: Wire,
    special: BTreeMap<(usize, usize), Wire>,
    past: BTreeMap<(usize, usize), Past>,
}

impl Wires {
    pub fn between(&self, from: usize, to: usize) -> Wire {
        self.special.get(&(from, to)).copied().unwrap_or(self.usual)
    }

    pub fn set(&mut self, from: usize, to: usize, wire: Wire) {
        self.special.insert((from, to), wire);
    }

    /// The jitter of one burst.
    pub fn jitter(&self, from: usize, to: usize, rng: &mut ChaCha8Rng) -> Duration {
        share(self.between(from, to).jitter, rng)
    }

    /// When one datagram of a burst arrives: once, twice, or never.
    pub fn pass(
        &mut self,
        (from, to): (usize, usize),
        bytes: usize,
        jitter: Duration,
        now: Time,
        rng: &mut ChaCha8Rng,
    ) -> Result<(Time, Option<Time>), Lost> {
        let wire = self.between(from, to);
        if wire.cut {
            return Err(Lost::Cut);
        }
        if chance(wire.loss, rng) {
            return Err(Lost::Loss);
        }
        let past = self.past.entry((from, to)).or_default();
        let mut at = now;
        if let Some(rate) = wire.rate {
            let backlog = past.free.since(now);
            if backlog.as_nanos() * u128::from(rate) / 8_000_000_000 > wire.queue as u128 {
                return Err(Lost::Overflow);
            }
            past.free = past.free.max(now) + serial(bytes, rate);
            at = past.free;
        }
        at = at + wire.delay + jitter;
        if chance(wire.reorder, rng) {
            at = at + share(wire.delay / 2 + Duration::from_millis(1), rng);
        } else {
            at = at.max(past.last);
            past.last = at;
        }
        let again = chance(wire.duplicate, rng).then(|| at + share(wire.delay, rng));
        Ok((at, again))
    }

    /// How long a message takes that is sent until it arrives; what the wire loses costs time. `None`: the wire is cut.
    pub fn carry(
        &mut self,
        (from, to): (usize, usize),
        bytes: usize,
        now: Time,
        rng: &mut ChaCha8Rng,
    ) -> Option<Duration> {
        let wire = self.between(from, to);
        if wire.cut {
            return None;
        }
        let mut takes = wire.delay + share(wire.jitter, rng);
        if let Some(rate) = wire.rate {
            let past = self.past.entry((from, to)).or_default();
            past.free = past.free.max(now) + serial(bytes, rate);
            takes += past.free.since(now);
        }
        // Each lost packet is found missing one round trip later, or by the probe timer at the tail.
        let back = self.between(to, from).delay;
        let probe = (wire.delay + back) * 3 + wire.jitter * 4 + Duration::from_millis(25);
        for _ in 0..bytes.div_ceil(PACKET).max(1) {
            let mut tries = 0;
            while tries < 8 && chance(wire.loss, rng) {
                takes += probe * (1 << tries);
                tries += 1;
            }
        }
        Some(takes)
    }
}

/// Bytes of a message one QUIC packet carries.
const PACKET: usize = 1200;

fn serial(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos((bytes as u64).saturating_mul(8_000_000_000) / rate.max(1))
}

/// A duration drawn evenly below `most`.
fn share(most: Duration, rng: &mut ChaCha8Rng) -> Duration {
    let most = most.as_nanos() as u64;
    if most == 0 { Duration::ZERO } else { Duration::from_nanos(rng.next_u64() % most) }
}

/// True with this probability; draws nothing where there is no doubt, so that quiet wires cost no chance.
fn chance(probability: f64, rng: &mut ChaCha8Rng) -> bool {
    probability > 0.0 && ((rng.next_u64() >> 11) as f64) < probability * (1u64 << 53) as f64
}
