//! The introsets a relay keeps for services it cannot know. Only verified envelopes, only the newest revision of each
//! blinded key, bounded in number; what is full drops what ends soonest. Neighbours: `wire::introset` verifies, `node`
//! asks and answers.

use crate::time::Wall;
use crate::wire::introset::Envelope;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Most introsets a relay keeps (each about 2.2 kB).
pub const KEPT_MAX: usize = 16_384;

/// Introsets by blinded key.
#[derive(Default)]
pub struct Shelf {
    kept: BTreeMap<[u8; 32], Envelope>,
}

impl Shelf {
    /// Keeps a verified introset unless a newer revision is here; says whether it is kept now.
    pub fn store(&mut self, envelope: Envelope, wall: Wall) -> bool {
        if let Some(held) = self.kept.get(&envelope.key)
            && held.revision > envelope.revision
        {
            return false;
        }
        if self.kept.len() >= KEPT_MAX && !self.kept.contains_key(&envelope.key) {
            self.expire(wall);
            if self.kept.len() >= KEPT_MAX {
                let soonest = self.kept.values().min_by_key(|held| held.until).map(|held| (held.key, held.until));
                match soonest {
                    Some((key, until)) if until < envelope.until => self.kept.remove(&key),
                    _ => return false,
                };
            }
        }
        self.kept.insert(envelope.key, envelope);
        true
    }

    /// The introset under a blinded key, while it counts.
    pub fn find(&self, key: &[u8; 32], wall: Wall) -> Option<Bytes> {
        self.kept.get(key).filter(|held| held.until > wall).map(|held| held.signed.clone())
    }

    /// Forgets what no longer counts.
    pub fn expire(&mut self, wall: Wall) {
        self.kept.retain(|_, held| held.until > wall);
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

    #[test]
    fn rollback_is_refused_and_expiry_is_kept() {
        let (identity, now) = (Identity::from_seed(&[1; 32]), Wall::from_secs(1_700_000_000));
        let mut chance = Chance::new([2; 32]);
        let introset = Introset { handshake: Box::new([3; 1216]), leases: Vec::new() };
        let mut make = |revision| {
            let until = now.plus(Duration::from_secs(600));
            let signed = introset.publish(&identity, blind::period(now), revision, until, &mut chance).unwrap();
            Envelope::verify(signed, now).unwrap()
        };
        let mut shelf = Shelf::default();
        let (old, new) = (make(5), make(6));
        assert!(shelf.store(new.clone(), now));
        assert!(!shelf.store(old, now), "an older revision must not win");
        assert_eq!(shelf.find(&new.key, now), Some(new.signed.clone()));
        assert_eq!(shelf.find(&new.key, now.plus(Duration::from_secs(601))), None);
    }
}
