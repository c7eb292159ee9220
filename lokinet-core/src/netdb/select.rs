//! The choice of hops, as a pure function of what is known and a generator. A path enters by a guard, ends at the
//! wanted pivot, never repeats a relay, an operator, an IPv4 /16 or an IPv6 /32, and is otherwise drawn evenly, save
//! that relays which failed lately are drawn less. Neighbours: `netdb` is what is known, `path::pool` asks.

use super::Netdb;
use crate::crypto::random::Chance;
use crate::wire::contact::Contact;
use crate::wire::id::RelayId;
use std::sync::Arc;

/// What a path must be.
pub struct Want<'a> {
    /// How many hops, 1 to 4.
    pub hops: usize,
    /// The relays we may enter by, best first; empty allows any (relays building for themselves).
    pub guards: &'a [RelayId],
    /// The last hop, when it is given.
    pub pivot: Option<RelayId>,
    /// Pivots not to use, when it is not.
    pub avoid: &'a [RelayId],
    /// Middle hops to be used only where there is no other: those that may be dead, or may die with another path.
    pub rather_not: &'a [RelayId],
}

/// Draws a path, first hop first; `None` when what we know does not allow one.
pub fn select(netdb: &Netdb, want: &Want<'_>, chance: &mut Chance) -> Option<Vec<Arc<Contact>>> {
    // Backwards from the pivot: it is the most constrained, and the guard must not depend on more than it has to.
    let pivot = match want.pivot {
        Some(id) => netdb.contact(&id)?.clone(),
        None => {
            let first = want.guards.first().and_then(|id| netdb.contact(id)).cloned();
            let spare: &[Arc<Contact>] = if want.hops > 1 { first.as_slice() } else { &[] };
            let candidates = netdb.contacts().filter(|c| {
                !want.avoid.contains(&c.id) && (want.hops > 1 || may_enter(want, &c.id)) && apart(netdb, c, spare)
            });
            draw(netdb, candidates, chance)?
        }
    };
    let mut chosen = vec![pivot];
    if want.hops > 1 {
        let guards: Vec<Arc<Contact>> = match want.guards {
            [] => netdb.contacts().filter(|c| apart(netdb, c, &chosen)).cloned().collect(),
            guards => {
                guards.iter().filter_map(|id| netdb.contact(id)).filter(|c| apart(netdb, c, &chosen)).cloned().collect()
            }
        };
        let guard = match want.guards {
            [] => draw(netdb, guards.iter(), chance)?,
            _ => guards.first()?.clone(),
        };
        chosen.insert(0, guard);
        while chosen.len() < want.hops {
            let candidates = || netdb.contacts().filter(|c| apart(netdb, c, &chosen));
            let trusted = draw(netdb, candidates().filter(|c| !want.rather_not.contains(&c.id)), chance);
            let middle = trusted.or_else(|| draw(netdb, candidates(), chance))?;
            chosen.insert(chosen.len() - 1, middle);
        }
    } else if !may_enter(want, &chosen[0].id) {
        return None;
    }
    Some(chosen)
}

fn may_enter(want: &Want<'_>, id: &RelayId) -> bool {
    want.guards.is_empty() || want.guards.contains(id)
}

/// Whether a relay may stand on one path with these.
pub fn apart(netdb: &Netdb, contact: &Contact, others: &[Arc<Contact>]) -> bool {
    let operator = netdb.registry().operator(&contact.id);
    others.iter().all(|other| {
        let theirs = netdb.registry().operator(&other.id);
        contact.id != other.id
            && !contact.card.addrs.near(&other.card.addrs)
            && (operator != theirs || matches!(operator, None | Some(0)))
    })
}

fn draw<'a>(
    netdb: &Netdb,
    candidates: impl Iterator<Item = &'a Arc<Contact>>,
    chance: &mut Chance,
) -> Option<Arc<Contact>> {
    let weighed: Vec<(&Arc<Contact>, u64)> =
        candidates.map(|c| (c, 1 + 1023 / u64::from(1 + netdb.profile.score(&c.id)))).collect();
    let total: u64 = weighed.iter().map(|(_, weight)| weight).sum();
    if total == 0 {
        return None;
    }
    let mut at = chance.below(total);
    for (contact, weight) in weighed {
        if at < weight {
            return Some(contact.clone());
        }
        at -= weight;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::known;
    use super::*;

    #[test]
    fn middles_that_had_better_not_be_used_are_used_only_in_need() {
        let netdb = known(20);
        let ids: Vec<RelayId> = netdb.contacts().map(|c| c.id).collect();
        let mut chance = Chance::new([9; 32]);
        let mut middles = |rather_not: &[RelayId]| {
            let want = Want { hops: 3, guards: &ids[..1], pivot: Some(ids[19]), avoid: &[], rather_not };
            let mut drawn: Vec<RelayId> = (0..200).map(|_| select(&netdb, &want, &mut chance).unwrap()[1].id).collect();
            drawn.sort();
            drawn.dedup();
            drawn
        };
        assert_eq!(middles(&ids[1..18]), [ids[18]]);
        assert!(middles(&ids).len() > 10, "all are doubted, and none was taken");
    }

    #[test]
    fn paths_keep_their_distances_and_their_guard() {
        let netdb = known(20);
        let guards: Vec<RelayId> = netdb.contacts().take(2).map(|c| c.id).collect();
        let mut chance = Chance::new([1; 32]);
        let mut pivots = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let want = Want { hops: 4, guards: &guards, pivot: None, avoid: &[], rather_not: &[] };
            let path = select(&netdb, &want, &mut chance).unwrap();
            assert_eq!((path.len(), path[0].id), (4, guards[0]));
            for (i, hop) in path.iter().enumerate() {
                assert!(apart(&netdb, hop, &path[..i]));
            }
            pivots.insert(path[3].id);
        }
        assert!(pivots.len() > 12, "pivots are spread: {}", pivots.len());
    }

    #[test]
    fn a_given_pivot_is_kept_even_when_it_is_the_first_guard() {
        let netdb = known(8);
        let guards: Vec<RelayId> = netdb.contacts().take(2).map(|c| c.id).collect();
        let mut chance = Chance::new([2; 32]);
        let want = Want { hops: 3, guards: &guards, pivot: Some(guards[0]), avoid: &[], rather_not: &[] };
        let path = select(&netdb, &want, &mut chance).unwrap();
        assert_eq!((path[0].id, path[2].id), (guards[1], guards[0]));
    }

    /// χ² of the middle hop against the even draw it is meant to be: 17 degrees of freedom, 0.1 % bound 40.8.
    #[test]
    fn middles_are_drawn_evenly() {
        let netdb = known(20);
        let ids: Vec<RelayId> = netdb.contacts().map(|c| c.id).collect();
        let mut chance = Chance::new([3; 32]);
        let mut counts = std::collections::BTreeMap::<RelayId, f64>::new();
        let rounds = 9000;
        for _ in 0..rounds {
            let want = Want { hops: 3, guards: &ids[..1], pivot: Some(ids[19]), avoid: &[], rather_not: &[] };
            *counts.entry(select(&netdb, &want, &mut chance).unwrap()[1].id).or_default() += 1.0;
        }
        let expected = f64::from(rounds) / 18.0;
        let chi: f64 = counts.values().map(|n| (n - expected) * (n - expected) / expected).sum();
        assert!(counts.len() == 18 && chi < 40.8, "χ² = {chi}");
    }

    #[test]
    fn too_small_a_network_gives_no_path() {
        let netdb = known(2);
        let want = Want { hops: 3, guards: &[], pivot: None, avoid: &[], rather_not: &[] };
        assert!(select(&netdb, &want, &mut Chance::new([4; 32])).is_none());
    }
}
