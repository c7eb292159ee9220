//! The laws of the world, looked after while it runs: in small towns after every step at whoever made it, everywhere at
//! every beat. Live paths exist at each hop, no hop outlives its lifetime, leases are a bijection and are not dealt anew
//! within their time, every table keeps its bound, every account balances, everybody who asked is answered. Whoever breaks
//! one ends the run.
//! Neighbours: `world` calls it; `node::census` in the core counts; `quiet` listens to the log.

use super::World;
use core::time::Duration;
use lokinet_core::flow::lease::{Leased, TTL};
use lokinet_core::node::io::LinkId;
use lokinet_core::time::Time;
use lokinet_core::transit::census::Onward;
use lokinet_core::wire::id::{PathId, RelayId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// In towns of so many hosts at most every step is looked at; in larger ones only every beat.
pub const SMALL: usize = 24;
/// How often a small town is walked over.
pub const BEAT: Duration = Duration::from_secs(1);
/// How often a large one is.
pub const BEAT_LARGE: Duration = Duration::from_secs(20);
/// How long a client may take a path for live that is not there: it asks for signs of life each ten seconds.
pub const BROKEN_MAX: Duration = Duration::from_secs(20);
/// How long a neighbour may be kept waiting: a dial of two addresses, and then the longest wait for a build.
pub const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long a program may be kept waiting for a name.
pub const NAME_MAX: Duration = Duration::from_secs(45);

/// What the laws remember.
pub(super) struct Laws {
    pub on: bool,
    next: Time,
    /// Paths that their owner takes for live and that are not there, and since when.
    broken: BTreeMap<(usize, LinkId, PathId), Time>,
    /// Leases at the last beat, by host and life.
    leases: BTreeMap<(usize, u32), BTreeMap<Ipv4Addr, Leased>>,
}

impl Default for Laws {
    fn default() -> Laws {
        Laws { on: true, next: Time::default(), broken: BTreeMap::new(), leases: BTreeMap::new() }
    }
}

impl World {
    /// Has the laws looked after (they are, unless this says otherwise).
    pub fn laws(&mut self, on: bool) {
        self.laws.on = on;
    }

    /// A machine has just acted.
    pub(super) fn after_step(&self, id: usize) {
        if self.laws.on && self.hosts.len() <= SMALL {
            self.keep_bounds(id);
        }
    }

    /// Time has passed.
    pub(super) fn beat(&mut self) {
        if !self.laws.on || self.now < self.laws.next {
            return;
        }
        self.laws.next = self.now + if self.hosts.len() <= SMALL { BEAT } else { BEAT_LARGE };
        let mut broken = BTreeMap::new();
        for id in 0..self.hosts.len() {
            self.keep_bounds(id);
            self.keep_accounts(id);
            self.end_hops(id);
            self.answer_all(id);
            self.keep_leases(id);
            self.walk_paths(id, &mut broken);
        }
        self.laws.broken = broken;
    }

    fn keep_bounds(&self, id: usize) {
        let Some(node) = self.hosts[id].machine.as_ref().and_then(|machine| machine.node()) else { return };
        node.tables(&mut |name, size, bound| {
            assert!(size <= bound, "{} keeps {size} {name}, and may keep {bound}", self.hosts[id].name);
        });
    }

    fn keep_accounts(&self, id: usize) {
        let Some(node) = self.hosts[id].machine.as_ref().and_then(|machine| machine.node()) else { return };
        node.accounts(&mut |name, came, went| {
            assert_eq!(came, went, "{} lost, or made up, {name}: so many came, and so many went", self.hosts[id].name);
        });
    }

    fn end_hops(&self, id: usize) {
        let Some(node) = self.hosts[id].machine.as_ref().and_then(|machine| machine.node()) else { return };
        let in_time = node.soonest_end().is_none_or(|end| end >= self.now_at(id).mono);
        self.must(in_time, id, "lends a hop beyond its lifetime");
    }

    fn answer_all(&self, id: usize) {
        let host = &self.hosts[id];
        let asked = host.asked.values().all(|(_, since)| self.now.since(*since) <= ANSWER_MAX);
        self.must(asked || host.machine.is_none(), id, "does not answer a neighbour's request");
        let named = host.asking.values().all(|since| self.now.since(*since) <= NAME_MAX);
        self.must(named || host.machine.is_none(), id, "does not answer a program's question");
    }

    fn keep_leases(&mut self, id: usize) {
        let Some(node) = self.hosts[id].machine.as_ref().and_then(|machine| machine.node()) else { return };
        let leases = node.leases();
        let remotes: BTreeSet<_> = leases.iter().map(|lease| lease.remote).collect();
        let count = leases.len();
        let now: BTreeMap<Ipv4Addr, Leased> = leases.into_iter().map(|lease| (lease.ip, lease)).collect();
        self.must(now.len() == count && remotes.len() == count, id, "has leases that are no bijection");
        let mono = self.now_at(id).mono;
        let before = self.laws.leases.get(&(id, self.hosts[id].life));
        for (ip, old) in before.into_iter().flatten() {
            let kept = now.get(ip).is_some_and(|new| new.remote == old.remote);
            let free = !old.held && mono.since(old.used) >= TTL;
            self.must(kept || free, id, "dealt an address anew, or took it away, before its time");
        }
        if count > 0 {
            self.laws.leases.insert((id, self.hosts[id].life), now);
        }
    }

    /// Follows every path a client takes for live, hop by hop, over the links that are really there.
    fn walk_paths(&self, id: usize, broken: &mut BTreeMap<(usize, LinkId, PathId), Time>) {
        let Some(node) = self.hosts[id].machine.as_ref().and_then(|machine| machine.node()) else { return };
        for (link, path, hops) in node.live_paths() {
            if self.is_whole(id, (link, path), &hops) {
                continue;
            }
            let since = self.laws.broken.get(&(id, link, path)).copied().unwrap_or(self.now);
            self.must(self.now.since(since) <= BROKEN_MAX, id, "takes a path for live that is not there");
            broken.insert((id, link, path), since);
        }
    }

    fn is_whole(&self, from: usize, wire: (LinkId, PathId), hops: &[RelayId]) -> bool {
        let (mut at, (mut link, mut path)) = (from, wire);
        for (index, hop) in hops.iter().enumerate() {
            let Some((next, theirs)) = self.far_end(at, link) else { return false };
            let Some(node) = self.hosts[next].machine.as_ref().and_then(|machine| machine.node()) else {
                // A machine that shows nothing of itself may keep the path or not.
                return true;
            };
            let last = index + 1 == hops.len();
            match node.onward(theirs, path).filter(|_| self.hosts[next].key == Some(*hop)) {
                Some(Onward::Ends) => return last,
                Some(Onward::Goes(on, name)) if !last => (at, link, path) = (next, on, name),
                _ => return false,
            }
        }
        false
    }
}
