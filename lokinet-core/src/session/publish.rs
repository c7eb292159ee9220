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
use crate::time::{Now, Time, Wall};
use crate::wire::build::{Purpose, TOKEN};
use crate::wire::control::Ask;
use crate::wire::id::RelayId;
use crate::wire::introset::{Introset, Lease, MAX_LEASES};
use core::time::Duration;
use std::collections::BTreeMap;

/// At least so often the introset is published anew.
pub const EVERY: Duration = Duration::from_secs(300);
/// How long an edition counts, unless its leases end sooner.
pub const VALID: Duration = Duration::from_secs(1200);
/// Changes within so short a time go into one edition.
pub const GATHER: Duration = Duration::from_millis(150);
/// After a failure, when to try again; it doubles.
pub const AGAIN: Duration = Duration::from_millis(500);

/// When and what to publish.
pub struct Publisher {
    /// How many editions there were in this run.
    edition: u64,
    /// The last revision of each period that was published for.
    revisions: BTreeMap<u64, u64>,
    next: Option<Time>,
    /// Who was given the last edition of this period.
    keepers: Vec<RelayId>,
    published: bool,
    again: Duration,
    /// Whether a keeper of the last edition failed us.
    failed: bool,
    /// When a failed edition is given out again.
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
            keepers: Vec::new(),
            published: false,
            again: AGAIN,
            failed: false,
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
    pub fn learned(&mut self, address: &[u8; 32], netdb: &Netdb, now: Now) {
        let Some(key) = blind::public(address, blind::period(now.wall)) else { return };
        if self.next.is_some() && netdb.nearest(&key, COPIES) != self.keepers {
            self.moved = true;
            self.changed(now.mono);
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
        let again = if self.failed { self.retry.min(self.renew) } else { self.renew };
        if tokens == self.told && !self.moved && now.mono < again {
            self.next = Some(again);
            return Vec::new();
        }
        (self.told, self.moved) = (tokens, false);
        self.renew = now.mono + chance.between(EVERY.mul_f32(0.8), EVERY);
        self.next = Some(self.renew);
        if !core::mem::take(&mut self.failed) {
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
        let mut asks = Vec::new();
        for period in [period, adjacent] {
            let Some(key) = blind::public(&identity.public(), period) else { continue };
            let revision = self.revise(&identity.public(), period, chance, now.wall);
            // As the revision: an end that two keys share would say that they are one service's.
            let left = until.secs().saturating_sub(now.wall.secs());
            let until = Wall::from_secs(until.secs() - chance.below(1 + left / 8));
            let Some(signed) = introset.publish(identity, period, revision, until, chance) else { continue };
            let keepers = road.netdb.nearest(&key, COPIES);
            if asks.is_empty() {
                self.keepers = keepers.clone();
            }
            for at in keepers {
                asks.push(Ask::Store { at, introset: signed.clone() });
            }
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

    /// A relay keeps an edition, or not; true when it is the first that does in this run. However many keepers fail
    /// one edition, they count once: a dead one must not have the others asked ever sooner.
    pub fn stored(&mut self, edition: u64, kept: bool, now: Time) -> bool {
        if kept {
            return !core::mem::replace(&mut self.published, true);
        }
        if edition == self.edition && !core::mem::replace(&mut self.failed, true) {
            self.retry = now + self.again;
            self.again = (self.again * 2).min(EVERY / 16);
            self.next = Some(self.next.map_or(self.retry, |next| next.min(self.retry)));
        }
        false
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
