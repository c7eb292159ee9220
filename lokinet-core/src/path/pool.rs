//! How many paths to keep, and when to renew: a pure decision over what is there. Renewals are staggered by each path's
//! own drawn time, failures slow the next attempt. A service has two pools, so that whoever joins callers to it is not
//! the one it asks. Neighbours: `path` builds, `node` asks this at every wake.

use super::Paths;
use crate::time::Time;
use crate::wire::build::Purpose;
use core::time::Duration;

/// A path with less than this part of its life left is replaced.
pub const RENEW_AT: f32 = 0.25;
/// Most builds of one pool under way at once.
pub const BUILDING_MAX: usize = 4;
/// Paths for questions that a service keeps beside those on which it is met.
pub const ASKING: usize = 2;
/// How long a new node waits for a choice of relays before it builds all its paths.
pub const YOUNG: Duration = Duration::from_secs(3);
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(10);

/// What the paths of a pool are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// Questions of ours: storing, finding, learning.
    Asking,
    /// To be met by callers.
    Meeting,
}

impl Aim {
    /// Whether a path with this purpose serves it.
    pub fn is(self, purpose: Purpose) -> bool {
        match self {
            Aim::Asking => purpose == Purpose::General,
            Aim::Meeting => matches!(purpose, Purpose::Host(_)),
        }
    }
}

/// The wish for a number of paths of one kind.
pub struct Pool {
    aim: Aim,
    wanted: usize,
    renew: Duration,
    next: Time,
    pause: Duration,
    /// Until then, or until enough relays are known, a single path must do.
    young: Time,
}

impl Pool {
    /// Keep so many; paths live so long.
    pub fn new(aim: Aim, wanted: usize, lifetime: Duration, now: Time) -> Pool {
        Pool { aim, wanted, renew: lifetime.mul_f32(RENEW_AT), next: now, pause: PAUSE_FIRST, young: now + YOUNG }
    }

    /// What its paths are for.
    pub fn aim(&self) -> Aim {
        self.aim
    }

    /// How many builds to begin now. Before there is a choice of relays, paths would all be alike: one is enough then.
    pub fn missing(&self, paths: &Paths, enough: bool, now: Time) -> usize {
        let wanted = if enough || now >= self.young { self.wanted } else { self.wanted.min(1) };
        if now < self.next {
            return 0;
        }
        let fresh = paths
            .all_live()
            .filter(|(_, live)| self.aim.is(live.purpose()) && live.expires() > now + self.renew)
            .count();
        // A build over a dead relay takes long to fail: others are begun beside it.
        let building = paths.brisk(self.aim);
        wanted.saturating_sub(fresh + building).min(BUILDING_MAX.saturating_sub(building))
    }

    /// A build succeeded.
    pub fn worked(&mut self) {
        self.pause = PAUSE_FIRST;
    }

    /// We know more than before: what could not begin may begin now.
    pub fn learned(&mut self, now: Time) {
        self.next = self.next.min(now);
    }

    /// A build failed or could not begin: wait before the next. Builds that fail together count once.
    pub fn failed(&mut self, now: Time) {
        if now < self.next {
            return;
        }
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_LAST);
    }

    /// When the number may be short again.
    pub fn next_wake(&self, paths: &Paths, now: Time) -> Option<Time> {
        if now < self.next {
            return Some(self.next);
        }
        let renewals = paths
            .all_live()
            .filter(|(_, live)| self.aim.is(live.purpose()))
            .map(|(_, live)| Time::from_nanos(live.expires().nanos().saturating_sub(self.renew.as_nanos() as u64)))
            .filter(|at| *at > now);
        renewals.chain((now < self.young).then_some(self.young)).min()
    }
}
