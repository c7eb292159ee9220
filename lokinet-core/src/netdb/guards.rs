//! The few relays a client enters by, kept for months and over restarts, so that a hostile relay does not become the
//! first hop simply by waiting (Tor's guard-spec, in small). Neighbours: `select` takes the list, `node` saves it.

use super::Netdb;
use super::select::apart;
use crate::crypto::random::Chance;
use crate::time::Wall;
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::id::RelayId;
use core::time::Duration;

/// How many guards are kept ready. Two are used where one would do, for paths whose pivot is the other.
pub const KEPT: usize = 3;
/// The longest a guard is kept; each one's own time is drawn between half of this and all of it.
pub const LIFETIME: Duration = Duration::from_secs(120 * 24 * 3600);

/// A client's guards, in order of preference.
#[derive(Default)]
pub struct Guards {
    chosen: Vec<(RelayId, Wall)>,
    ids: Vec<RelayId>,
}

impl Guards {
    /// Reads a saved list.
    ///
    /// # Errors
    /// It is not one.
    pub fn decode(bytes: &[u8]) -> Result<Guards, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut chosen = Vec::new();
        while !reader.is_empty() {
            chosen.push((RelayId(reader.array()?), Wall::from_secs(reader.u64()?)));
            if chosen.len() > 64 {
                return Err(Malformed);
            }
        }
        let ids = chosen.iter().map(|(id, _)| *id).collect();
        Ok(Guards { chosen, ids })
    }

    /// The list's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        for (id, until) in &self.chosen {
            writer.bytes(&id.0).u64(until.secs());
        }
        writer.done()
    }

    /// Uses exactly these relays (`[network] strict-connect`).
    pub fn pin(&mut self, relays: &[RelayId]) {
        self.chosen = relays.iter().map(|id| (*id, Wall::from_millis(u64::MAX))).collect();
        self.ids = relays.to_vec();
    }

    /// Drops guards that left the registry or had their time, and fills up with relays apart from each other; true
    /// when the list changed. A guard whose contact is merely unknown or failing is kept: it comes back.
    pub fn refresh(&mut self, netdb: &Netdb, chance: &mut Chance, wall: Wall) -> bool {
        let before = self.chosen.len();
        self.chosen.retain(|(id, until)| *until > wall && netdb.registry().lists(id));
        let mut changed = self.chosen.len() != before;
        let wanted = KEPT.min(netdb.len().div_ceil(3));
        while self.chosen.len() < wanted {
            let held: Vec<_> = self.chosen.iter().filter_map(|(id, _)| netdb.contact(id)).cloned().collect();
            let mut free: Vec<RelayId> = netdb
                .contacts()
                .filter(|c| apart(netdb, c, &held) && !self.chosen.iter().any(|(id, _)| *id == c.id))
                .map(|c| c.id)
                .collect();
            if free.is_empty() {
                break;
            }
            let id = free.swap_remove(chance.below(free.len() as u64) as usize);
            self.chosen.push((id, wall.plus(chance.between(LIFETIME / 2, LIFETIME))));
            changed = true;
        }
        self.ids = self.chosen.iter().map(|(id, _)| *id).collect();
        changed
    }

    /// The guards, best first.
    pub fn ids(&self) -> &[RelayId] {
        &self.ids
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::known;
    use super::*;

    #[test]
    fn guards_stay_over_a_restart_and_leave_when_their_time_is_up() {
        let netdb = known(12);
        let (mut guards, mut chance) = (Guards::default(), Chance::new([1; 32]));
        let wall = Wall::from_secs(1_000_000);
        assert!(guards.refresh(&netdb, &mut chance, wall));
        let first = guards.ids().to_vec();
        assert_eq!(first.len(), KEPT);
        let mut again = Guards::decode(&guards.encode()).unwrap();
        assert!(!again.refresh(&netdb, &mut chance, wall.plus(Duration::from_secs(3600))));
        assert_eq!(again.ids(), first);
        assert!(again.refresh(&netdb, &mut chance, wall.plus(LIFETIME)));
    }
}
