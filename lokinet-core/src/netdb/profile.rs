//! Who failed us: a score per relay that failures raise, success lowers and time halves. It only steers new paths away
//! for a while; it never excludes a relay for good, so that an attacker cannot choose our hops by failing the others.
//! The scores outlive a restart. Neighbours: `path` reports outcomes, `select` reads scores, `node` saves them.

use crate::time::Time;
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::id::RelayId;
use crate::wire::registry::MAX_RELAYS;
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
    /// When the scores were last halved; `None` before the first look at the clock.
    halved: Option<Time>,
    changed: bool,
}

impl Profile {
    /// Reads saved scores.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8]) -> Result<Profile, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut scores = BTreeMap::new();
        while !reader.is_empty() {
            let (id, score) = (RelayId(reader.array()?), reader.u32()?);
            if score == 0 || score > WORST || scores.len() >= MAX_RELAYS {
                return Err(Malformed);
            }
            scores.insert(id, score);
        }
        Ok(Profile { scores, halved: None, changed: false })
    }

    /// The scores' bytes, when they changed since they were last asked for.
    pub fn changed(&mut self) -> Option<Vec<u8>> {
        if !core::mem::take(&mut self.changed) {
            return None;
        }
        let mut writer = Writer::new(self.scores.len() * 36);
        for (id, score) in &self.scores {
            writer.bytes(&id.0).u32(*score);
        }
        Some(writer.done())
    }

    /// A path through this relay failed; the first hop that could be to blame is charged more by being reported more.
    pub fn failed(&mut self, id: RelayId) {
        let score = self.scores.entry(id).or_default();
        *score = (*score + FAILURE).min(WORST);
        self.changed = true;
    }

    /// A path through this relay was built.
    pub fn worked(&mut self, id: &RelayId) {
        if let Some(score) = self.scores.get_mut(id) {
            *score /= 4;
            self.changed = true;
            if *score == 0 {
                self.scores.remove(id);
            }
        }
    }

    /// The relay's score; 0 is good.
    pub fn score(&self, id: &RelayId) -> u32 {
        self.scores.get(id).copied().unwrap_or(0)
    }

    /// Lets time heal.
    pub fn decay(&mut self, now: Time) {
        let mut halved = *self.halved.get_or_insert(now);
        while now.since(halved) >= HALF_LIFE && !self.scores.is_empty() {
            halved = halved + HALF_LIFE;
            self.changed = true;
            self.scores.retain(|_, score| {
                *score /= 2;
                *score > 0
            });
        }
        self.halved = Some(if self.scores.is_empty() { now } else { halved });
    }

    /// Forgets relays that are none any more.
    pub fn retain(&mut self, mut listed: impl FnMut(&RelayId) -> bool) {
        let before = self.scores.len();
        self.scores.retain(|id, _| listed(id));
        self.changed |= self.scores.len() != before;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const RELAY: RelayId = RelayId([7; 32]);

    fn at(secs: u64) -> Time {
        Time::from_nanos(secs * 1_000_000_000)
    }

    /// A host that has run for a day when the node starts: its clock does not begin at 0.
    #[test]
    fn a_failure_is_remembered_for_its_half_life_whatever_the_clock_shows() {
        let mut profile = Profile::default();
        profile.failed(RELAY);
        profile.decay(at(86_400));
        assert_eq!(profile.score(&RELAY), FAILURE);
        profile.decay(at(86_400) + HALF_LIFE);
        assert_eq!(profile.score(&RELAY), FAILURE / 2);
        profile.decay(at(86_400) + HALF_LIFE * 20);
        assert_eq!(profile.score(&RELAY), 0);
    }

    #[test]
    fn scores_survive_a_restart_and_are_written_only_when_they_changed() {
        let mut profile = Profile::default();
        assert_eq!(profile.changed(), None);
        profile.failed(RELAY);
        let saved = profile.changed().unwrap();
        assert_eq!(profile.changed(), None);
        assert_eq!(Profile::decode(&saved).unwrap().score(&RELAY), FAILURE);
        assert!(Profile::decode(&saved[1..]).is_err());
        assert!(Profile::decode(&[0xff; 36]).is_err(), "a score above the worst");
    }
}
