//! Floor 2: paths we own. A [`Paths`] builds them, keeps their layers, carries control messages to their hops, watches
//! whether they live, and ends them. It never decides how many there should be (`pool` does) nor what they are for
//! (`session` does). Neighbours: `transit` is the same thing seen by the hops, and unknown here; `link` carries the
//! cells.

pub mod build;
pub mod layers;
pub mod live;
pub mod pool;

use crate::crypto::random::Chance;
use crate::link::{LinkId, Links, Ticket};
use crate::time::{Now, Time};
use crate::wire::build::{Purpose, Status};
use crate::wire::cell::{Kind, Size};
use crate::wire::contact::Contact;
use crate::wire::control::{Ask, Tell};
use crate::wire::id::{PathId, RelayId};
use build::Building;
use bytes::Bytes;
use core::time::Duration;
use live::Live;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A path of ours, by a number that is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathKey(pub u64);

/// A question put to a hop, by a number that is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AskId(pub u64);

/// Most paths at once, building and live.
pub const PATHS_MAX: usize = 1024;
/// How long a build may take before it has failed.
pub const BUILD_PATIENCE: Duration = Duration::from_secs(5);

/// What became of a path or a question.
#[derive(Debug)]
pub enum Action {
    /// A build succeeded.
    Live(PathKey),
    /// A path is no more, built or not; `born` says whether it ever lived.
    Ended {
        /// Which.
        key: PathKey,
        /// Whether it ever lived.
        born: bool,
        /// What its last hop was to do.
        purpose: Purpose,
        /// What was said of its last hop, when that kept it from living.
        refused: Option<Status>,
    },
    /// A hop answered.
    Answered(AskId, Tell),
    /// A hop did not answer, or its path ended first.
    Unanswered(AskId),
    /// A hop told us something unasked.
    Told(PathKey, Tell),
}

enum Path {
    Building(Building),
    Live(Box<Live>),
}

/// A cell that came up a path and was meant for us.
pub struct Arrived<'a> {
    /// The path.
    pub path: PathKey,
    /// The `Data` body.
    pub body: &'a mut [u8],
}

/// All paths of a node.
pub struct Paths {
    chance: Chance,
    lifetime: Duration,
    table: BTreeMap<PathKey, Path>,
    wire: HashMap<(LinkId, PathId), PathKey>,
    tickets: BTreeMap<Ticket, PathKey>,
    next: u64,
    actions: Vec<Action>,
    /// Cells that no path of ours could open, or that waited for one that never came to live.
    pub dropped: u64,
    /// Cells received, and cells opened.
    pub cells: (u64, u64),
    /// Builds begun, and builds that failed.
    pub builds: (u64, u64),
}

impl Paths {
    /// No paths yet; new ones will live so long.
    pub fn new(chance: Chance, lifetime: Duration) -> Paths {
        Paths {
            chance,
            lifetime,
            table: BTreeMap::new(),
            wire: HashMap::new(),
            tickets: BTreeMap::new(),
            next: 0,
            actions: Vec::new(),
            dropped: 0,
            cells: (0, 0),
            builds: (0, 0),
        }
    }

    /// Begins to build over these hops, first hop first. The rider goes to the service behind the pivot. The path lives
    /// no longer than `most`. `None` when there are too many paths or a hop's key is malformed.
    pub fn build(
        &mut self,
        hops: Vec<Arc<Contact>>,
        purpose: Purpose,
        rider: Option<&[u8]>,
        most: Duration,
        links: &mut Links,
        now: Now,
    ) -> Option<PathKey> {
        if self.table.len() >= PATHS_MAX {
            return None;
        }
        // No two paths of one client end together: that would show they belong together.
        let lifetime = self.chance.between(self.lifetime.mul_f32(0.8), self.lifetime).min(most);
        let (building, request) = Building::begin(hops, purpose, rider, lifetime, now, &mut self.chance)?;
        let first = building.first();
        let ticket = links.request(first.id, first.card.addrs.list(), request, BUILD_PATIENCE, now.mono);
        self.next += 1;
        let key = PathKey(self.next);
        self.tickets.insert(ticket, key);
        self.table.insert(key, Path::Building(building));
        self.builds.0 += 1;
        Some(key)
    }

    /// The reply to a build of ours, or none, and the link that carried it; false when the ticket is not one of a build.
    pub fn reply(
        &mut self,
        ticket: Ticket,
        reply: Option<Bytes>,
        link: Option<LinkId>,
        now: Time,
        verdict: &mut impl FnMut(&[Arc<Contact>], Option<usize>),
    ) -> bool {
        let Some(key) = self.tickets.remove(&ticket) else { return false };
        let Some(Path::Building(building)) = self.table.remove(&key) else { return true };
        let hops: Vec<Arc<Contact>> = building.hops().to_vec();
        let (purpose, waiting) = (building.purpose(), building.held());
        match (link, building.finish(reply.as_deref(), link, now)) {
            (Some(_), Ok((live, held))) => {
                verdict(&hops, None);
                let wire = live.first();
                self.wire.insert(wire, key);
                self.table.insert(key, Path::Live(Box::new(live)));
                self.actions.push(Action::Live(key));
                // The held cells are opened by the caller's next look: they came before the reply.
                if let Some(Path::Live(live)) = self.table.get_mut(&key) {
                    live.held = held;
                }
            }
            (_, Err((blamed, said))) => {
                verdict(&hops, Some(blamed));
                self.dropped += waiting;
                self.builds.1 += 1;
                let refused = said.filter(|_| blamed + 1 == hops.len());
                self.actions.push(Action::Ended { key, born: false, purpose, refused });
            }
            (None, Ok(_)) => {
                self.dropped += waiting;
                self.builds.1 += 1;
                self.actions.push(Action::Ended { key, born: false, purpose, refused: None });
            }
        }
        true
    }

    /// Sends a `Data` body over a live path; `fill` writes it. False when the path is not live or the cell was dropped.
    pub fn send(
        &mut self,
        key: PathKey,
        size: Size,
        links: &mut Links,
        now: Time,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let Some(Path::Live(live)) = self.table.get_mut(&key) else { return false };
        live.send(size, Kind::Data, links, now, fill)
    }

    /// Opens a cell that came on a link, in place; a `Data` body is given back, the rest is dealt with here.
    pub fn receive<'a>(
        &mut self,
        link: LinkId,
        path: PathId,
        size: Size,
        onion: &'a mut [u8],
        now: Time,
    ) -> Option<Arrived<'a>> {
        self.cells.0 += 1;
        let Some(key) = self.wire.get(&(link, path)).copied() else {
            self.hold(path, size, onion);
            return None;
        };
        let Some(Path::Live(live)) = self.table.get_mut(&key) else {
            self.dropped += 1;
            return None;
        };
        let received = live.receive(size, onion, now);
        self.cells.1 += u64::from(received.is_ok());
        match received {
            Ok(live::Received::Data(body)) => Some(Arrived { path: key, body }),
            Ok(live::Received::Told(tell)) => {
                self.actions.push(Action::Told(key, tell));
                None
            }
            Ok(live::Received::Answer(id, tell)) => {
                self.actions.push(Action::Answered(id, tell));
                None
            }
            Ok(live::Received::Nothing) => None,
            Err(_) => {
                self.dropped += 1;
                None
            }
        }
    }

    /// Cells that arrived before their path's reply, oldest first, with where they came from.
    pub fn take_held(&mut self, key: PathKey) -> Vec<((LinkId, PathId), Size, Vec<u8>)> {
        let Some(Path::Live(live)) = self.table.get_mut(&key) else { return Vec::new() };
        let wire = live.first();
        self.cells.0 -= live.held.len() as u64; // they are received once more
        core::mem::take(&mut live.held).into_iter().map(|(size, onion)| (wire, size, onion)).collect()
    }

    fn hold(&mut self, path: PathId, size: Size, onion: &[u8]) {
        let building = self.table.values_mut().find_map(|path_| match path_ {
            Path::Building(building) if building.wire() == path => Some(building),
            _ => None,
        });
        if !building.is_some_and(|building| building.hold(size, onion)) {
            self.dropped += 1;
        }
    }

    /// Puts a question to a live path's last hop; `None` when the path is not live or has too many open.
    pub fn ask(&mut self, key: PathKey, ask: &Ask, links: &mut Links, now: Time) -> Option<AskId> {
        let Some(Path::Live(live)) = self.table.get_mut(&key) else { return None };
        self.next += 1;
        let id = AskId(self.next);
        live.ask(id, ask, &mut self.chance, links, now).then_some(id)
    }

    /// Ends a path of ours and tells its hops.
    pub fn close(&mut self, key: PathKey, links: &mut Links, now: Time) {
        if let Some(Path::Live(live)) = self.table.get_mut(&key) {
            live.say_close(&mut self.chance, links, now);
        }
        self.end(key);
    }

    fn end(&mut self, key: PathKey) {
        let (born, purpose) = match self.table.remove(&key) {
            None => return,
            Some(Path::Building(building)) => {
                self.dropped += building.held();
                (false, building.purpose())
            }
            Some(Path::Live(live)) => {
                self.dropped += live.held.len() as u64;
                self.wire.remove(&live.first());
                self.actions.extend(live.open_asks().map(Action::Unanswered));
                (true, live.purpose())
            }
        };
        self.actions.push(Action::Ended { key, born, purpose, refused: None });
    }

    /// A link is gone, and every path that began with it.
    pub fn link_down(&mut self, link: LinkId) {
        let gone: Vec<PathKey> = self
            .table
            .iter()
            .filter(|(_, path)| matches!(path, Path::Live(live) if live.first().0 == link))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.end(key);
        }
    }

    /// When to call [`Paths::wake`].
    pub fn next_wake(&self) -> Option<Time> {
        let live = |path: &Path| match path {
            Path::Building(building) => building.slow_at(),
            Path::Live(live) => Some(live.next_wake()),
        };
        self.table.values().filter_map(live).min()
    }

    /// Repeats questions, probes what went silent, ends what is dead or old.
    pub fn wake(&mut self, links: &mut Links, now: Time, verdict: &mut impl FnMut(&[Arc<Contact>], Option<usize>)) {
        for path in self.table.values_mut() {
            if let Path::Building(building) = path
                && building.slow_at().is_some_and(|at| at <= now)
            {
                building.note_slow();
                // Not even linked yet: the first hop is the one to doubt.
                if links.to(&building.first().id).is_none() {
                    verdict(building.hops(), Some(0));
                }
            }
        }
        let due: Vec<PathKey> = self
            .table
            .iter()
            .filter(|(_, path)| matches!(path, Path::Live(live) if live.next_wake() <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            let Some(Path::Live(live)) = self.table.get_mut(&key) else { continue };
            self.next += 1;
            let link = live.first().0;
            let outcome = live.wake(AskId(self.next), &mut self.chance, links, now);
            self.actions.extend(outcome.unanswered.into_iter().map(Action::Unanswered));
            match outcome.end {
                None if outcome.suspicious => self.suspect(link, links, now),
                None => {}
                Some(live::End::Old) => self.close(key, links, now),
                Some(live::End::Silent) => {
                    // Nobody knows which hop failed: all of them are suspected a little.
                    for index in 0..live.hops().len() {
                        verdict(live.hops(), Some(index));
                    }
                    // Those of its hops that still hear us need not wait for its lifetime's end.
                    self.close(key, links, now);
                    self.bury(link, links, now, verdict);
                }
            }
        }
    }

    /// A path fell silent: if its first hop is to blame, the others that begin there are as silent, and are asked now.
    fn suspect(&mut self, link: LinkId, links: &mut Links, now: Time) {
        for path in self.table.values_mut() {
            if let Path::Live(live) = path
                && live.first().0 == link
            {
                self.next += 1;
                live.probe(AskId(self.next), &mut self.chance, links, now);
            }
        }
    }

    /// A path died: those that begin with the same hop and did not answer either die with it. When none is left, neither
    /// is the link: QUIC would notice only much later, and whatever is asked on it meanwhile waits in vain.
    fn bury(
        &mut self,
        link: LinkId,
        links: &mut Links,
        now: Time,
        verdict: &mut impl FnMut(&[Arc<Contact>], Option<usize>),
    ) {
        let silent = |path: &Path| matches!(path, Path::Live(live) if live.first().0 == link && live.is_silent(now));
        let keys: Vec<PathKey> = self.table.iter().filter(|(_, path)| silent(path)).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(live) = self.live(key) {
                verdict(live.hops(), Some(0));
            }
            self.end(key);
        }
        if !self.all_live().any(|(_, live)| live.first().0 == link) {
            links.hang_up(link);
        }
    }

    /// What happened; empties the list.
    pub fn actions(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.actions)
    }

    /// A live path.
    pub fn live(&self, key: PathKey) -> Option<&Live> {
        match self.table.get(&key) {
            Some(Path::Live(live)) => Some(live),
            _ => None,
        }
    }

    /// Cells received, and what became of them.
    pub fn account(&self) -> (&'static str, u64, u64) {
        let held = |path: &Path| match path {
            Path::Building(building) => building.held(),
            Path::Live(live) => live.held.len() as u64,
        };
        let (received, opened) = self.cells;
        ("cells of our paths", received, opened + self.dropped + self.table.values().map(held).sum::<u64>())
    }

    /// How many paths there are, building and live.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All live paths, oldest first.
    pub fn all_live(&self) -> impl Iterator<Item = (PathKey, &Live)> {
        self.table.iter().filter_map(|(key, path)| match path {
            Path::Live(live) => Some((*key, &**live)),
            Path::Building(_) => None,
        })
    }

    /// All paths being built: their hops and what for.
    pub fn all_building(&self) -> impl Iterator<Item = (PathKey, &[Arc<Contact>], Purpose)> {
        self.table.iter().filter_map(|(key, path)| match path {
            Path::Building(building) => Some((*key, building.hops(), building.purpose())),
            Path::Live(_) => None,
        })
    }

    /// Whether a guard may be gone: a build that began with it takes long, or a path that does is silent, and none was
    /// heard since.
    pub fn doubts(&self, guard: &RelayId, now: Time) -> bool {
        let slow = |path: &Path| matches!(path, Path::Building(building) if building.slow_at().is_none() && building.first().id == *guard);
        let begun = || self.all_live().map(|(_, live)| live).filter(|live| live.hops()[0].id == *guard);
        let silent = begun().filter_map(|live| live.silent_since(now)).min();
        let heard = begun().map(Live::heard).max();
        self.table.values().any(slow) || silent.is_some_and(|silent| heard < Some(silent))
    }

    /// Who stands behind the guards on paths that are silent when they should not be: one of them may be dead.
    pub fn doubted(&self, now: Time) -> Vec<RelayId> {
        let silent = self.all_live().filter(|(_, live)| live.is_silent(now));
        silent.flat_map(|(_, live)| live.hops().iter().skip(1)).map(|hop| hop.id).collect()
    }

    /// Who stands behind the guards on these paths, live or being built.
    pub fn behind_guards(&self, keys: &[PathKey]) -> Vec<RelayId> {
        let hops = |key: &PathKey| match self.table.get(key) {
            Some(Path::Live(live)) => live.hops(),
            Some(Path::Building(building)) => building.hops(),
            None => &[],
        };
        keys.iter().flat_map(|key| hops(key).iter().skip(1)).map(|hop| hop.id).collect()
    }

    /// How many builds of a pool are under way and not slow.
    pub fn brisk(&self, aim: pool::Aim) -> usize {
        let brisk = |path: &&Path| matches!(path, Path::Building(building) if building.slow_at().is_some() && aim.is(building.purpose()));
        self.table.values().filter(brisk).count()
    }

    /// The relays that are last hops of live or building paths of some purposes.
    pub fn pivots(&self, of: impl Fn(Purpose) -> bool) -> Vec<RelayId> {
        let live = self.all_live().filter(|(_, live)| of(live.purpose())).map(|(_, live)| live.pivot());
        let building = self.all_building().filter(|(_, _, purpose)| of(*purpose));
        live.chain(building.filter_map(|(_, hops, _)| hops.last().map(|hop| hop.id))).collect()
    }

    /// Whether there is a path for questions of ours.
    pub fn can_ask(&self) -> bool {
        self.all_live().any(|(_, live)| pool::Aim::Asking.is(live.purpose()))
    }

    /// A live path drawn at random for a question of ours; where there is another, not one that owes us a sign of life.
    /// Never one with a token: its pivot would learn of whom or for whom we ask.
    pub fn any(&mut self, now: Time) -> Option<PathKey> {
        let free = self.all_live().filter(|(_, live)| pool::Aim::Asking.is(live.purpose()));
        let (mut keys, late): (Vec<_>, Vec<_>) = free.partition(|(_, live)| !live.is_late(now));
        if keys.is_empty() {
            keys = late;
        }
        let keys: Vec<PathKey> = keys.into_iter().map(|(key, _)| key).collect();
        let at = self.chance.below(keys.len().max(1) as u64) as usize;
        keys.get(at).copied()
    }

    /// What a path, built or not, is for, and its last hop.
    pub fn errand(&self, key: PathKey) -> Option<(Purpose, RelayId)> {
        match self.table.get(&key)? {
            Path::Live(live) => Some((live.purpose(), live.pivot())),
            Path::Building(building) => Some((building.purpose(), building.hops().last()?.id)),
        }
    }

    /// The generator of this floor, for choosing hops.
    pub fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }
}
