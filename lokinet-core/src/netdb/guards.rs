//! The few relays a client enters by, kept for months and over restarts, so that a hostile relay does not become the
//! first hop simply by waiting (Tor's guard-spec, in small). Neighbours: `select` takes the list, `node` saves it.

use super::Netdb;
use super::select::apart;
use crate::crypto::random::Chance;
use crate::time::Wall;
use crate::wire::addrs::Addrs;
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::id::RelayId;
use core::time::Duration;

/// How many guards are kept ready. Two are used where one would do, for paths whose pivot is the other.
pub const KEPT: usize = 3;
/// Most guards on the list, with those that are unknown or fail for the time being.
pub const KEPT_MAX: usize = 9;
/// The longest a guard is kept; each one's own time is drawn between half of this and all of it.
pub const LIFETIME: Duration = Duration::from_secs(120 * 24 * 3600);

/// A client's guards, in order of preference.
#[derive(Default)]
pub struct Guards {
    chosen: Vec<(RelayId, Wall)>,
    ids: Vec<RelayId>,
    /// Chosen while few relays were known: used until there is a choice, and never kept.
    makeshift: bool,
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
        Ok(Guards { chosen, ids, makeshift: false })
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
    /// when there is a new list to keep. A guard whose contact is merely unknown or failing is kept: it comes back, and
    /// others stand in for it. Until we know `enough` relays the choice is a makeshift: else everybody's guards would be
    /// the bootstraps.
    pub fn refresh(&mut self, netdb: &Netdb, enough: bool, chance: &mut Chance, wall: Wall) -> bool {
        let before = self.chosen.len();
        if self.makeshift && enough {
            self.chosen.clear();
        }
        if self.chosen.is_empty() && !enough {
            self.chosen = from_registry(netdb, chance, wall);
        }
        self.chosen.retain(|(id, until)| *until > wall && netdb.registry().lists(id));
        self.makeshift = !enough && (self.makeshift || self.chosen.is_empty());
        let mut changed = self.chosen.len() != before;
        let wanted = if self.makeshift { KEPT } else { KEPT.min(netdb.len().div_ceil(3)) };
        let known = |chosen: &[(RelayId, Wall)]| chosen.iter().filter(|(id, _)| netdb.contact(id).is_some()).count();
        // Guards taken from the registry are waited for: their contacts are on their way.
        let may_add = enough || self.makeshift;
        while may_add && known(&self.chosen) < wanted && self.add(netdb, chance, wall) {
            changed = true;
        }
        self.ids = self.chosen.iter().map(|(id, _)| *id).collect();
        changed && !self.makeshift
    }

    /// Draws one more, apart from the others, when all of them fail though others can be reached; true when there is a new
    /// list to keep. Those that failed stay and come first again once they are back, so that whoever can keep us from all
    /// of our guards gains a few more draws, and no more.
    pub fn reserve(&mut self, netdb: &Netdb, chance: &mut Chance, wall: Wall) -> bool {
        let added = !self.makeshift && self.add(netdb, chance, wall);
        self.ids = self.chosen.iter().map(|(id, _)| *id).collect();
        added
    }

    fn add(&mut self, netdb: &Netdb, chance: &mut Chance, wall: Wall) -> bool {
        if self.chosen.len() >= KEPT_MAX {
            return false;
        }
        let held: Vec<_> = self.chosen.iter().filter_map(|(id, _)| netdb.contact(id)).cloned().collect();
        let mut free: Vec<RelayId> = netdb
            .contacts()
            .filter(|c| apart(netdb, c, &held) && !self.chosen.iter().any(|(id, _)| *id == c.id))
            .map(|c| c.id)
            .collect();
        if free.is_empty() {
            return false;
        }
        let id = free.swap_remove(chance.below(free.len() as u64) as usize);
        self.chosen.push((id, wall.plus(chance.between(LIFETIME / 2, LIFETIME))));
        true
    }

    /// The guards, best first.
    pub fn ids(&self) -> &[RelayId] {
        &self.ids
    }
}

/// Guards before any contact is known, where the registry says of most relays where they are: then the first relay that
/// sees our address is a guard already, also when it is only asked for contacts. Where it names a few bootstraps, none.
fn from_registry(netdb: &Netdb, chance: &mut Chance, wall: Wall) -> Vec<(RelayId, Wall)> {
    let registry = netdb.registry();
    let mut placed: Vec<(RelayId, Addrs)> =
        registry.relays().filter(|(_, hint)| netdb.may_dial(hint)).map(|(id, hint)| (*id, *hint)).collect();
    if placed.len() * 2 < registry.len() {
        return Vec::new();
    }
    chance.shuffle(&mut placed);
    let wanted = KEPT.min(placed.len().div_ceil(3));
    let mut chosen: Vec<(RelayId, Addrs)> = Vec::new();
    for (id, hint) in placed {
        let operator = registry.operator(&id);
        let apart = chosen.iter().all(|(other, theirs)| {
            !hint.near(theirs) && (registry.operator(other) != operator || matches!(operator, None | Some(0)))
        });
        if apart && chosen.len() < wanted {
            chosen.push((id, hint));
        }
    }
    chosen.into_iter().map(|(id, _)| (id, wall.plus(chance.between(LIFETIME / 2, LIFETIME)))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fetch::Fetch;
    use super::super::testing::{hinted, known};
    use super::*;
    use crate::time::Time;

    #[test]
    fn where_relays_are_is_in_the_registry_so_the_first_to_be_asked_is_a_guard() {
        let (netdb, mut chance) = (hinted(12, 12), Chance::new([2; 32]));
        let wall = Wall::from_secs(1_000_000);
        let mut guards = Guards::default();
        assert!(guards.refresh(&netdb, false, &mut chance, wall), "they are kept at once");
        let first = guards.ids().to_vec();
        assert_eq!(first.len(), KEPT);
        let mut fetch = Fetch::new(Time::default());
        let mut asked = Vec::new();
        let mut now = Time::default();
        while asked.len() < KEPT + 1 {
            asked.push(fetch.wake(&netdb, None, guards.ids(), &mut chance, now).unwrap().relay);
            assert!(fetch.page(&netdb, None, true, now).is_none());
            now = fetch.next_wake().unwrap();
        }
        assert_eq!(asked[..KEPT], first, "each guard in turn, and nobody else while one is left");
        assert!(!guards.refresh(&netdb, true, &mut chance, wall), "and they stay");
        assert_eq!(guards.ids(), first);
    }

    #[test]
    fn a_few_bootstraps_are_nobodys_guards() {
        let (netdb, mut chance) = (hinted(12, 3), Chance::new([3; 32]));
        let mut guards = Guards::default();
        assert!(!guards.refresh(&netdb, false, &mut chance, Wall::from_secs(1_000_000)));
        assert!(guards.ids().is_empty());
    }

    #[test]
    fn guards_stay_over_a_restart_and_leave_when_their_time_is_up() {
        let netdb = known(12);
        let (mut guards, mut chance) = (Guards::default(), Chance::new([1; 32]));
        let wall = Wall::from_secs(1_000_000);
        assert!(guards.refresh(&netdb, true, &mut chance, wall));
        let first = guards.ids().to_vec();
        assert_eq!(first.len(), KEPT);
        let mut again = Guards::decode(&guards.encode()).unwrap();
        assert!(!again.refresh(&netdb, true, &mut chance, wall.plus(Duration::from_secs(3600))));
        assert_eq!(again.ids(), first);
        assert!(again.refresh(&netdb, true, &mut chance, wall.plus(LIFETIME)));
    }

    #[test]
    fn what_was_chosen_from_a_few_is_not_kept() {
        let netdb = known(12);
        let (mut guards, mut chance) = (Guards::default(), Chance::new([1; 32]));
        let wall = Wall::from_secs(1_000_000);
        assert!(!guards.refresh(&netdb, false, &mut chance, wall), "nothing to save");
        assert_eq!(guards.ids().len(), KEPT);
        assert!(guards.refresh(&netdb, true, &mut chance, wall));
        assert_eq!(guards.ids().len(), KEPT);
        // Known guards are not thrown away when we know too little after a restart.
        let mut again = Guards::decode(&guards.encode()).unwrap();
        assert!(!again.refresh(&netdb, false, &mut chance, wall));
        assert_eq!(again.ids(), guards.ids());
    }

    #[test]
    fn guards_that_are_unknown_have_others_stand_in() {
        let (small, large) = (known(3), known(12));
        let (mut guards, mut chance) = (Guards::default(), Chance::new([3; 32]));
        let wall = Wall::from_secs(1_000_000);
        let gone: Vec<RelayId> =
            large.contacts().map(|c| c.id).filter(|id| small.contact(id).is_none()).take(KEPT).collect();
        guards.pin(&gone);
        let held = small.contacts().next().unwrap().id;
        assert!(!gone.contains(&held) && gone.iter().all(|id| small.contact(id).is_none()));
        // The smaller network's registry does not list them: they go, and one that is there is chosen.
        assert!(guards.refresh(&small, true, &mut chance, wall));
        assert!(small.contact(&guards.ids()[0]).is_some());
    }
}
