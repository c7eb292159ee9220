//! Publishing: which of our paths callers may use, told to the relays nearest to our blinded key, for this period and
//! the one next to it, whenever the paths change and at least every few minutes. Neighbours: `wire::introset` seals,
//! `session` sends the questions over paths of ours on which nobody is met.

use super::Road;
use super::lookup::COPIES;
use crate::crypto::blind::{self, PERIOD};
use crate::crypto::exchange::PUBLIC;
use crate::crypto::kdf;
use crate::crypto::key::Identity;
use crate::crypto::random::Chance;
use crate::netdb::Netdb;
use crate::netdb::shelf::NEAR;
use crate::time::{Time, Wall};
use crate::wire::build::{Purpose, TOKEN};
use crate::wire::control::Ask;
use crate::wire::id::RelayId;
use crate::wire::introset::{Introset, Lease, MAX_LEASES};
use bytes::Bytes;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// At least so often the introset is published anew.
pub const EVERY: Duration = Duration::from_secs(300);
/// How long an edition counts, unless its leases end sooner.
pub const VALID: Duration = Duration::from_secs(1200);
/// Changes within so short a time go into one edition.
pub const GATHER: Duration = Duration::from_millis(150);
/// After a failure, when to try again; it doubles.
pub const AGAIN: Duration = Duration::from_millis(500);

/// One period's edition, and who has it.
struct Given {
    /// The blinded key.
    key: [u8; 32],
    introset: Bytes,
    keepers: Vec<RelayId>,
    /// The nearest after those, who are given what a keeper did not take: callers ask them too.
    spare: VecDeque<RelayId>,
}

/// When and what to publish.
pub struct Publisher {
    /// How many editions there were in this run.
    edition: u64,
    /// The last revision of each period that was published for.
    revisions: BTreeMap<u64, u64>,
    next: Option<Time>,
    /// Who was given the last edition, for each period it went out for.
    given: Vec<Given>,
    published: bool,
    again: Duration,
    /// What keepers of the last edition did not take.
    failed: Vec<Ask>,
    /// When they are given it again.
    retry: Time,
    /// The tokens of the last edition, and when it is renewed though nothing has changed.
    told: Vec<[u8; TOKEN]>,
    renew: Time,
    /// Whether others are its keepers now.
    moved: bool,
    /// Whether an edition waits for a path to give it to anybody.
    waiting: bool,
}

impl Default for Publisher {
    fn default() -> Publisher {
        Publisher::new()
    }
}

impl Publisher {
    /// Nothing to publish yet.
    pub fn new() -> Publisher {
        Publisher {
            edition: 0,
            revisions: BTreeMap::new(),
            next: None,
            given: Vec::new(),
            published: false,
            again: AGAIN,
            failed: Vec::new(),
            retry: Time::default(),
            told: Vec::new(),
            renew: Time::default(),
            moved: false,
            waiting: false,
        }
    }

    /// There is a path for questions: what waited for one goes now.
    pub fn may_ask(&mut self, now: Time) {
        if core::mem::take(&mut self.waiting) {
            self.next = Some(now);
        }
    }

    /// The paths on which we are met changed.
    pub fn changed(&mut self, now: Time) {
        let at = if self.published { now + GATHER } else { now };
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// We know more relays: if others are nearest now, they are to have the introset.
    pub fn learned(&mut self, netdb: &Netdb, now: Time) {
        let moved = self.given.iter().any(|given| netdb.nearest(&given.key, COPIES) != given.keepers);
        if self.next.is_some() && (moved || self.given.is_empty()) {
            self.moved = true;
            self.changed(now);
        }
    }

    /// When something is due.
    pub fn next_wake(&self) -> Option<Time> {
        self.next
    }

    /// The questions that publish the present state, when it is time and it changed or grew old.
    pub fn due(
        &mut self,
        identity: &Identity,
        handshake: &[u8; PUBLIC],
        chance: &mut Chance,
        road: &Road<'_>,
    ) -> Vec<Ask> {
        let now = road.now;
        if self.next.is_none_or(|next| next > now.mono) {
            return Vec::new();
        }
        let leases = leases(road);
        self.waiting = !leases.is_empty() && !road.paths.can_ask();
        if leases.is_empty() || self.waiting {
            self.next = None;
            return Vec::new();
        }
        // A path that was never met on comes and goes without anybody having to hear of it.
        let tokens: Vec<[u8; TOKEN]> = leases.iter().map(|lease| lease.token).collect();
        if tokens == self.told && !self.moved && now.mono < self.renew {
            let retry = (!self.failed.is_empty()).then_some(self.retry);
            if retry.is_some_and(|retry| retry <= now.mono) {
                self.next = Some(self.renew);
                return core::mem::take(&mut self.failed);
            }
            self.next = Some(retry.unwrap_or(self.renew).min(self.renew));
            return Vec::new();
        }
        (self.told, self.moved) = (tokens, false);
        self.renew = now.mono + chance.between(EVERY.mul_f32(0.8), EVERY);
        self.next = Some(self.renew);
        if core::mem::take(&mut self.failed).is_empty() {
            self.again = AGAIN;
        }
        self.edition += 1;
        let until = leases.iter().map(|lease| lease.until).max().unwrap_or(now.wall).min(now.wall.plus(VALID));
        let introset = Introset { handshake: Box::new(*handshake), leases };
        let period = blind::period(now.wall);
        // Near a period's end callers' clocks may already be in the next, near its start still in the last.
        let half = now.wall.secs() % PERIOD.as_secs() >= PERIOD.as_secs() / 2;
        let adjacent = if half { period + 1 } else { period.saturating_sub(1) };
        self.revisions.retain(|published, _| published.abs_diff(period) <= 1);
        self.given.clear();
        let mut asks = Vec::new();
        for period in [period, adjacent] {
            let Some(key) = blind::public(&identity.public(), period) else { continue };
            let revision = self.revise(&identity.public(), period, chance, now.wall);
            // As the revision: an end that two keys share would say that they are one service's.
            let left = until.secs().saturating_sub(now.wall.secs());
            let until = Wall::from_secs(until.secs() - chance.below(1 + left / 8));
            let Some(signed) = introset.publish(identity, period, revision, until, chance) else { continue };
            let mut keepers = road.netdb.nearest(&key, NEAR);
            let spare = keepers.split_off(COPIES.min(keepers.len())).into();
            asks.extend(keepers.iter().map(|at| Ask::Store { at: *at, introset: signed.clone() }));
            self.given.push(Given { key, introset: signed, keepers, spare });
        }
        asks
    }

    /// The edition that is out now.
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// The revision of a new edition. It goes on rising over restarts without a file, since it follows the wall clock;
    /// but from a start that only those who know the address can reckon, and with a second's play, so that neither
    /// revisions nor their differences are the same in two periods.
    fn revise(&mut self, address: &[u8; 32], period: u64, chance: &mut Chance, wall: Wall) -> u64 {
        let digest = kdf::digest("introset revision", &[address, &period.to_be_bytes()]);
        let start = u64::from_be_bytes(core::array::from_fn(|i| digest[i])) >> 2;
        let last = self.revisions.get(&period).copied().unwrap_or(0);
        let revision = (last + 1 + chance.below(100)).max(start + wall.millis() + chance.below(1000));
        self.revisions.insert(period, revision);
        revision
    }

    /// A relay keeps an edition; true when it is the first that does in this run.
    pub fn kept(&mut self) -> bool {
        !core::mem::replace(&mut self.published, true)
    }

    /// A relay does not keep an edition: the question that gives it to another in its stead. It is asked again itself, but
    /// not ever sooner, and however many fail together count once.
    pub fn refused(&mut self, edition: u64, ask: Ask, now: Time) -> Option<Ask> {
        let Ask::Store { at, introset } = &ask else { return None };
        if edition != self.edition {
            return None;
        }
        let given = self.given.iter_mut().find(|given| given.introset == *introset);
        let keeper = given.as_ref().is_some_and(|given| given.keepers.contains(at));
        let spare = given.and_then(|given| given.spare.pop_front());
        let spare = spare.map(|at| Ask::Store { at, introset: introset.clone() });
        if keeper {
            if self.failed.is_empty() {
                self.retry = now + self.again;
                self.again = (self.again * 2).min(EVERY / 16);
                self.next = Some(self.next.map_or(self.retry, |next| next.min(self.retry)));
            }
            self.failed.push(ask);
        }
        spare
    }
}

/// Where we can be met now.
pub(super) fn leases(road: &Road<'_>) -> Vec<Lease> {
    let now = road.now;
    let soon = now.mono + Duration::from_secs(30);
    let mut leases: Vec<(Time, Lease)> = road
        .paths
        .all_live()
        .filter_map(|(_, live)| match live.purpose() {
            Purpose::Host(token) if live.expires() > soon => {
                let until = Wall::from_secs(now.wall.plus(live.expires().since(now.mono)).secs());
                Some((live.expires(), Lease { pivot: live.pivot(), token, until }))
            }
            _ => None,
        })
        .collect();
    // The youngest paths are worth most to a caller.
    leases.sort_unstable_by_key(|(expires, _)| core::cmp::Reverse(*expires));
    leases.into_iter().map(|(_, lease)| lease).take(MAX_LEASES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdb::testing::known;

    /// The edition of the adjacent period has keepers of its own, who may have been unknown when it went out.
    #[test]
    fn keepers_of_either_period_that_come_to_be_known_are_given_the_introset() {
        let (few, more, now) = (known(15), known(16), Time::from_nanos(0));
        let keepers = |netdb: &Netdb, position: u8| netdb.nearest(&[position; 32], COPIES);
        let given = |position: u8| Given {
            key: [position; 32],
            introset: Bytes::new(),
            keepers: keepers(&few, position),
            spare: VecDeque::new(),
        };
        let same: Vec<u8> = (0..=255).filter(|at| keepers(&few, *at) == keepers(&more, *at)).collect();
        let other: Vec<u8> = (0..=255).filter(|at| keepers(&few, *at) != keepers(&more, *at)).collect();
        for (first, second, moves) in [(same[0], same[1], false), (same[0], other[0], true), (other[0], same[0], true)]
        {
            let mut publisher = Publisher { next: Some(now + EVERY), published: true, ..Publisher::new() };
            publisher.given = vec![given(first), given(second)];
            publisher.learned(&more, now);
            assert_eq!(publisher.next_wake(), Some(now + if moves { GATHER } else { EVERY }));
        }
    }

    /// Each refusal has one other relay asked, and those that refuse are asked again together, at growing pauses.
    #[test]
    fn what_keepers_do_not_take_is_given_to_the_next_nearest() {
        let (netdb, mut now) = (known(12), Time::from_nanos(0));
        let (key, introset) = ([9; 32], Bytes::from_static(b"edition"));
        let mut keepers = netdb.nearest(&key, NEAR);
        let spare: VecDeque<RelayId> = keepers.split_off(COPIES).into();
        let mut publisher = Publisher { edition: 1, renew: now + EVERY, next: Some(now + EVERY), ..Publisher::new() };
        publisher.given =
            vec![Given { key, introset: introset.clone(), keepers: keepers.clone(), spare: spare.clone() }];
        let store = |at: &RelayId| Ask::Store { at: *at, introset: introset.clone() };
        assert_eq!(publisher.refused(0, store(&keepers[0]), now), None, "an edition of the past");
        let mut pause = AGAIN;
        for round in 0..4 {
            let others: Vec<Option<Ask>> = keepers.iter().map(|at| publisher.refused(1, store(at), now)).collect();
            let wanted: Vec<Option<Ask>> = spare.iter().map(|at| (round == 0).then(|| store(at))).collect();
            assert_eq!(others, wanted, "round {round}");
            assert_eq!(publisher.refused(1, store(&spare[0]), now), None, "nobody is left");
            assert_eq!(publisher.next_wake(), Some(now + pause));
            now = now + pause;
            pause *= 2;
            publisher.next = Some(publisher.renew);
            assert_eq!(core::mem::take(&mut publisher.failed).len(), COPIES);
        }
    }
}
