//! A call under way: introset found, two pivots chosen, our own paths built to them with the hello riding on the
//! first, the hello repeated until welcomed. Neighbours: `lookup` comes before, `convo` after; `session` acts.

use super::Shut;
use crate::crypto::kdf;
use crate::crypto::key::Identity;
use crate::crypto::random::Chance;
use crate::crypto::seal::Suite;
use crate::path::PathKey;
use crate::time::{Now, Time};
use crate::wire::build::TOKEN;
use crate::wire::id::SessionId;
use crate::wire::introset::{Introset, Lease};
use crate::wire::packet::Stripped;
use crate::wire::session::{self, Caller, Calling, Secrets};
use core::time::Duration;
use std::collections::VecDeque;

/// Packets kept while calling.
pub const QUEUE_MAX: usize = 64;
/// A call not welcomed by then has failed.
pub const PATIENCE: Duration = Duration::from_secs(12);
/// First pause before the hello is repeated; it doubles.
pub const REPEAT: Duration = Duration::from_millis(500);
/// After so many repeats without a welcome nobody is at the other end of these paths: the introset is fetched anew.
pub const REPEATS: u32 = 4;
/// How often stale leases lead to a new lookup.
pub const REFRESHES: u32 = 8;
/// First pause between two such lookups; it doubles.
pub const REFRESH_PAUSE: Duration = Duration::from_millis(100);

struct Ready {
    leases: Vec<Lease>,
    calling: Calling,
    /// The service's handshake key, in short.
    handshake: [u8; 32],
    tried: Vec<[u8; TOKEN]>,
    /// Paths being built or live, and since when they live.
    paths: Vec<(PathKey, Option<Time>)>,
    repeats: u32,
    next: Time,
}

/// Where a call stands after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// On its way.
    Going,
    /// Its leases led nowhere: fetch the introset anew.
    Refresh,
    /// It came to nothing.
    Failed,
}

/// What a step wants done.
pub struct Step {
    /// Paths to join, with what is to ride along.
    pub join: Vec<(Lease, Option<Vec<u8>>)>,
    /// The hello to be sent again, and where.
    pub repeat: Option<(PathKey, Vec<u8>)>,
    /// Where the call stands.
    pub stage: Stage,
}

/// What the handshake key of an introset is compared by.
pub fn name_of(introset: &Introset) -> [u8; 32] {
    kdf::digest("handshake key", &[introset.handshake.as_slice()])
}

/// A packet that waits for the conversation to be open.
pub struct Queued {
    bytes: Vec<u8>,
    partial: bool,
}

impl Queued {
    /// The packet.
    pub fn packet(&self) -> Stripped<'_> {
        Stripped { bytes: &self.bytes, partial: self.partial }
    }
}

/// A call under way.
pub struct Call {
    began: Time,
    queued: VecDeque<Queued>,
    ready: Option<Ready>,
    refreshes: u32,
    /// Not before this is the introset looked up again.
    refresh_at: Time,
    /// Leases that led nowhere.
    shut: Vec<Shut>,
    /// Whether one of the leases turned out to be of the past: then the introset is fetched anew before another is tried.
    outdated: bool,
}

impl Call {
    /// A call that begins with a lookup.
    pub fn new(now: Time) -> Call {
        Call {
            began: now,
            queued: VecDeque::new(),
            ready: None,
            refreshes: 0,
            refresh_at: now,
            shut: Vec::new(),
            outdated: false,
        }
    }

    /// Keeps a packet for when the conversation is open; false when too many wait.
    pub fn queue(&mut self, packet: Stripped<'_>) -> bool {
        let room = self.queued.len() < QUEUE_MAX;
        if room {
            self.queued.push_back(Queued { bytes: packet.bytes.to_vec(), partial: packet.partial });
        }
        room
    }

    /// How many packets wait.
    pub fn waiting(&self) -> u64 {
        self.queued.len() as u64
    }

    /// The introset was found.
    pub fn found(
        &mut self,
        address: &[u8; 32],
        introset: Introset,
        identity: Option<&Identity>,
        suite: Suite,
        chance: &mut Chance,
        now: Now,
    ) {
        let caller = Caller {
            session: SessionId(chance.nonzero()),
            time: now.wall,
            suite,
            address: identity.map(Identity::public),
        };
        let Some(calling) = session::call(address, &introset.handshake, caller, identity, chance) else { return };
        let handshake = name_of(&introset);
        let leases = introset.leases;
        Shut::keep(&mut self.shut, &leases);
        self.outdated = false;
        let paths = self.ready.take().map(|ready| ready.paths).unwrap_or_default();
        self.ready = Some(Ready { leases, calling, handshake, tried: Vec::new(), paths, repeats: 0, next: now.mono });
    }

    /// What to do now.
    pub fn step(&mut self, now: Now) -> Step {
        let mut step = Step { join: Vec::new(), repeat: None, stage: Stage::Going };
        if now.mono.since(self.began) >= PATIENCE {
            step.stage = Stage::Failed;
            return step;
        }
        let Some(ready) = &mut self.ready else { return step };
        if ready.repeats >= REPEATS && now.mono >= ready.next {
            // Pivots may still wait for a service that is gone, while the one that lives now has published others.
            ready.paths.clear();
            (ready.repeats, ready.next) = (0, now.mono + REPEAT);
            self.refreshes += 1;
            step.stage = if self.refreshes > REFRESHES { Stage::Failed } else { Stage::Refresh };
            return step;
        }
        let margin = now.wall.plus(Duration::from_secs(30));
        while ready.paths.len() + step.join.len() < super::ROUTES && !self.outdated {
            let usable = |lease: &&Lease| {
                lease.until > margin && !ready.tried.contains(&lease.token) && !Shut::any(&self.shut, lease, now.mono)
            };
            let Some(lease) = ready.leases.iter().find(usable).copied() else { break };
            ready.tried.push(lease.token);
            // The hello rides once; the second path is the standby, used when the first does not answer.
            let first = ready.paths.is_empty() && step.join.is_empty();
            step.join.push((lease, first.then(|| ready.calling.hello.clone())));
        }
        if ready.paths.is_empty() && step.join.is_empty() {
            // Every way is closed, or leads over a pivot we have not heard of. Either may change soon, not at once.
            if now.mono < self.refresh_at {
                ready.next = self.refresh_at;
                return step;
            }
            self.refresh_at = now.mono + REFRESH_PAUSE * (1 << self.refreshes.min(5));
            self.refreshes += 1;
            step.stage = if self.refreshes > REFRESHES { Stage::Failed } else { Stage::Refresh };
            ready.next = now.mono + REPEAT;
            return step;
        }
        let live: Vec<(PathKey, Time)> = ready.paths.iter().filter_map(|(k, at)| at.map(|at| (*k, at))).collect();
        if let Some((_, since)) = live.first()
            && now.mono >= ready.next
            && now.mono.since(*since) >= REPEAT
        {
            // In turn over the paths that live: either pivot may be the one that fails.
            let (path, _) = live[ready.repeats as usize % live.len()];
            ready.repeats += 1;
            step.repeat = Some((path, ready.calling.hello.clone()));
            ready.next = now.mono + REPEAT * (1 << (ready.repeats / 2).min(3));
        } else {
            ready.next = ready.next.max(now.mono + REPEAT / 2);
        }
        step
    }

    /// The paths built for this call so far.
    pub fn paths(&self) -> Vec<PathKey> {
        self.ready.iter().flat_map(|ready| ready.paths.iter().map(|(key, _)| *key)).collect()
    }

    /// A path is being built for this call.
    pub fn joining(&mut self, key: PathKey) {
        if let Some(ready) = &mut self.ready {
            ready.paths.push((key, None));
        }
    }

    /// A lease could not be tried: its pivot is unknown to us.
    pub fn unusable(&mut self) {
        if let Some(ready) = &mut self.ready {
            ready.next = Time::default();
        }
    }

    /// A lease led nowhere.
    pub fn shut(&mut self, shut: Shut) {
        self.outdated |= shut.is_for_ever();
        self.shut.push(shut);
    }

    /// A path of this call is live.
    pub fn path_live(&mut self, key: PathKey, now: Time) {
        if let Some(ready) = &mut self.ready {
            ready.paths.iter_mut().filter(|(path, _)| *path == key).for_each(|(_, at)| *at = Some(now));
            ready.next = now + REPEAT;
        }
    }

    /// A path of this call is no more.
    pub fn path_ended(&mut self, key: PathKey) {
        if let Some(ready) = &mut self.ready {
            ready.paths.retain(|(path, _)| *path != key);
            ready.next = Time::default();
        }
    }

    /// Opens a welcome: their number, the secrets, ours.
    pub fn welcome(&self, welcome: &[u8]) -> Option<(SessionId, Secrets, SessionId)> {
        let ready = self.ready.as_ref()?;
        let (theirs, secrets) = ready.calling.open(welcome)?;
        Some((theirs, secrets, ready.calling.caller().session))
    }

    /// What the conversation takes over: packets that wait, where the service can be met, and its handshake key's name.
    pub fn finish(self) -> (VecDeque<Queued>, Vec<Lease>, [u8; 32]) {
        let (leases, handshake) = self.ready.map(|ready| (ready.leases, ready.handshake)).unwrap_or_default();
        (self.queued, leases, handshake)
    }

    /// When to step again.
    pub fn next_wake(&self) -> Option<Time> {
        let end = self.began + PATIENCE;
        Some(self.ready.as_ref().map_or(end, |ready| ready.next.min(end)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::crypto::exchange::Secret;
    use crate::time::Wall;
    use crate::wire::id::RelayId;

    /// At a cold start the only pivot may be a relay whose contact is still on its way to us.
    #[test]
    fn a_pivot_we_have_not_heard_of_is_waited_for() {
        let mut chance = Chance::new([1; 32]);
        let (service, secret) = (Identity::generate(&mut chance), Secret::generate(&mut chance));
        let at = |millis: u64| Now { mono: Time::from_nanos(millis * 1_000_000), wall: Wall::from_secs(1_000_000) };
        let lease = Lease { pivot: RelayId([9; 32]), token: [7; TOKEN], until: Wall::from_secs(1_001_000) };
        let introset = Introset { handshake: Box::new(*secret.public()), leases: vec![lease] };
        let mut call = Call::new(at(0).mono);
        let (mut lookups, mut millis) = (0, 0);
        while millis < 3000 {
            call.found(&service.public(), introset.clone(), None, Suite::Aes, &mut chance, at(millis));
            assert_eq!(call.step(at(millis)).join.len(), 1, "the pivot is tried anew after each lookup");
            call.unusable();
            let stage = loop {
                match call.step(at(millis)).stage {
                    Stage::Going => millis = call.next_wake().unwrap().nanos() / 1_000_000,
                    stage => break stage,
                }
            };
            assert_eq!(stage, Stage::Refresh, "given up after {millis} ms");
            lookups += 1;
        }
        assert!(lookups <= 6, "{lookups} lookups in 3 s");
    }
}
