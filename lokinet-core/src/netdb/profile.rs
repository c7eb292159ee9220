//! Who failed us: a score per relay that failures raise, success lowers and time halves. It only steers new paths away
//! for a while; it never excludes a relay for good, so that an attacker cannot choose our hops by failing the others.
//! Neighbours: `path` reports outcomes, `select` reads scores.

use crate::time::Time;
use crate::wire::id::RelayId;
use core::time::Duration;
use std::collections::BTreeMap;

/// Time in which a score halves.
pub const HALF_LIFE: Duration = Duration::from_secs(120);
/// What one failure adds.
pub const FAILURE: u32 = 64;
const WORST: u32 = 1024;

/// Scores of relays that failed lately; the others are not in it.
#[derive(Default)]
pub struct Profile {
    scores: BTreeMap<RelayId, u32>,
    halved: Time,
}

impl Profile {
    /// A path through this relay failed; the first hop that could be to blame is charged more by being reported more.
    pub fn failed(&mut self, id: RelayId) {
        let score = self.scores.entry(id).or_default();
        *score = (*score + FAILURE).min(WORST);
    }

    /// A path through this relay was built.
    pub fn worked(&mut self, id: &RelayId) {
        if let Some(score) = self.scores.get_mut(id) {
            *score /= 4;
        }
    }

    /// The relay's score; 0 is good.
    pub fn score(&self, id: &RelayId) -> u32 {
        self.scores.get(id).copied().unwrap_or(0)
    }

    /// Lets time heal.
    pub fn decay(&mut self, now: Time) {
        while now.since(self.halved) >= HALF_LIFE {
            self.halved = self.halved + HALF_LIFE;
            self.scores.retain(|_, score| {
                *score /= 2;
                *score > 0
            });
            if self.scores.is_empty() {
                self.halved = now;
            }
        }
    }
}
