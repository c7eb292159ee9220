//! The introsets a relay keeps for services it cannot know. Only verified envelopes, only the newest revision of each
//! blinded key, bounded in number. A full shelf is shared fairly among those who brought something: who brought most
//! loses first, and of his what lies farthest from us. Neighbours: `wire::introset` verifies, `netdb` says whether a
//! key is near enough to be ours, `node` asks and answers.

use crate::time::Wall;
use crate::wire::id::RelayId;
use crate::wire::introset::Envelope;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Most introsets a relay keeps (each about 2.2 kB).
pub const KEPT_MAX: usize = 16_384;
/// A relay keeps what it is among so many nearest relays to, as far as it knows: twice the copies there should be,
/// since not everybody knows the same relays.
pub const NEAR: usize = 8;

/// Introsets by blinded key.
pub struct Shelf {
    own: RelayId,
    kept: BTreeMap<[u8; 32], (RelayId, Envelope)>,
    /// For everyone who brought something: how far his keys are from us.
    brought: BTreeMap<RelayId, BTreeSet<[u8; 32]>>,
}

impl Shelf {
    /// The empty shelf of this relay.
    pub fn new(own: RelayId) -> Shelf {
        Shelf { own, kept: BTreeMap::new(), brought: BTreeMap::new() }
    }

    /// Keeps a verified introset that this relay brought, unless a newer revision is here; says whether it is kept now.
    pub fn store(&mut self, envelope: Envelope, by: RelayId, wall: Wall) -> bool {
        if let Some((_, held)) = self.kept.get(&envelope.key)
            && held.revision > envelope.revision
        {
            return false;
        }
        // A new edition takes the place of the old one, whoever brings it.
        self.remove(&envelope.key);
        if self.kept.len() >= KEPT_MAX {
            self.expire(wall);
        }
        if self.kept.len() >= KEPT_MAX && !self.make_room(by, self.own.distance(&envelope.key)) {
            return false;
        }
        self.brought.entry(by).or_default().insert(self.own.distance(&envelope.key));
        self.kept.insert(envelope.key, (by, envelope));
        true
    }

    /// Drops the farthest introset of who brought most; false when the new one, of this bringer and so far away, is it.
    fn make_room(&mut self, by: RelayId, distance: [u8; 32]) -> bool {
        let share = |brought: &BTreeMap<RelayId, BTreeSet<_>>, of| brought.get(of).map_or(0, BTreeSet::len);
        let Some(most) = self.brought.iter().max_by_key(|(_, keys)| keys.len()).map(|(id, _)| *id) else {
            return false;
        };
        let fair = share(&self.brought, &most) > share(&self.brought, &by) + 1;
        let loser = if fair { most } else { by };
        let Some(farthest) = self.brought.get(&loser).and_then(BTreeSet::last).copied() else { return false };
        if !fair && farthest <= distance {
            return false;
        }
        self.remove(&self.own.distance(&farthest));
        true
    }

    fn remove(&mut self, key: &[u8; 32]) {
        let Some((by, _)) = self.kept.remove(key) else { return };
        if let Some(keys) = self.brought.get_mut(&by) {
            keys.remove(&self.own.distance(key));
            if keys.is_empty() {
                self.brought.remove(&by);
            }
        }
    }

    /// The introset under a blinded key, while it counts.
    pub fn find(&self, key: &[u8; 32], wall: Wall) -> Option<Bytes> {
        self.kept.get(key).filter(|(_, held)| held.until > wall).map(|(_, held)| held.signed.clone())
    }

    /// Forgets what no longer counts.
    pub fn expire(&mut self, wall: Wall) {
        let old: Vec<[u8; 32]> =
            self.kept.iter().filter(|(_, (_, held))| held.until <= wall).map(|(key, _)| *key).collect();
        for key in old {
            self.remove(&key);
        }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::crypto::{blind, key::Identity, random::Chance};
    use crate::wire::introset::Introset;
    use core::time::Duration;

    const OWN: RelayId = RelayId([0; 32]);
    const NOW: Wall = Wall::from_secs(1_700_000_000);

    #[test]
    fn rollback_is_refused_and_expiry_is_kept() {
        let mut shelf = Shelf::new(OWN);
        let (old, new) = (published(5), published(6));
        assert!(shelf.store(new.clone(), OWN, NOW));
        assert!(!shelf.store(old, OWN, NOW), "an older revision must not win");
        assert_eq!(shelf.find(&new.key, NOW), Some(new.signed.clone()));
        assert_eq!(shelf.find(&new.key, NOW.plus(Duration::from_secs(601))), None);
        shelf.expire(NOW.plus(Duration::from_secs(601)));
        assert!(shelf.is_empty() && shelf.brought.is_empty());
    }

    fn published(revision: u64) -> Envelope {
        let identity = Identity::from_seed(&[1; 32]);
        let introset = Introset { handshake: Box::new([3; 1216]), leases: Vec::new() };
        let (until, period) = (NOW.plus(Duration::from_secs(600)), blind::period(NOW));
        let signed = introset.publish(&identity, period, revision, until, &mut Chance::new([2; 32])).unwrap();
        Envelope::verify(signed, NOW).unwrap()
    }

    /// Of another key; the shelf does not look at the signature again.
    fn like(model: &Envelope, key: [u8; 32]) -> Envelope {
        let mut envelope = model.clone();
        envelope.key = key;
        envelope
    }

    fn envelope(key: [u8; 32], seconds: u64) -> Envelope {
        let mut envelope = like(&published(1), key);
        (envelope.until, envelope.signed) = (NOW.plus(Duration::from_secs(seconds)), Bytes::from_static(b"signed"));
        envelope
    }

    fn filled(by: RelayId) -> (Shelf, Chance) {
        let (mut shelf, mut chance) = (Shelf::new(OWN), Chance::new([4; 32]));
        let all = envelope(OWN.0, 3600);
        for _ in 0..KEPT_MAX {
            let mut key: [u8; 32] = chance.bytes();
            key[0] = 1; // nearer than the honest one, and to last longer
            assert!(shelf.store(like(&all, key), by, NOW));
        }
        (shelf, chance)
    }

    #[test]
    fn a_stranger_who_fills_the_shelf_crowds_out_only_himself() {
        let (stranger, honest) = (RelayId([8; 32]), RelayId([9; 32]));
        let (mut shelf, mut chance) = filled(stranger);
        let (mine, theirs) = (envelope([2; 32], 1200), envelope(OWN.0, 3600));
        assert!(shelf.store(mine.clone(), honest, NOW), "a full shelf refused an honest introset");
        for _ in 0..KEPT_MAX {
            let mut key: [u8; 32] = chance.bytes();
            key[0] = 0;
            shelf.store(like(&theirs, key), stranger, NOW);
        }
        assert!(shelf.find(&mine.key, NOW).is_some(), "the stranger evicted an honest introset");
        assert_eq!(shelf.len(), KEPT_MAX);
    }

    #[test]
    fn of_one_bringer_the_farthest_goes_and_the_farther_is_refused() {
        let by = RelayId([8; 32]);
        let (mut shelf, _) = filled(by);
        assert!(!shelf.store(envelope([2; 32], 3600), by, NOW));
        assert!(shelf.store(envelope([0; 32], 60), by, NOW));
        assert_eq!(shelf.len(), KEPT_MAX);
    }
}
