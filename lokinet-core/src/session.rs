//! Floor 3: conversations. A [`Sessions`] finds services and calls them (`call`, `lookup`), publishes ours and answers
//! callers (`publish`, `answer`), and keeps the conversations that came of it (`convo`) moving while paths come and
//! go. Neighbours: `path` carries everything; `flow` turns what arrives into IP packets; both ends of a conversation
//! are this same file.

pub mod answer;
pub mod call;
mod census;
pub mod convo;
mod incoming;
pub mod lookup;
mod outgoing;
pub mod publish;

use crate::crypto::key::Identity;
use crate::crypto::random::Chance;
use crate::crypto::seal::Suite;
use crate::link::Links;
use crate::netdb::Netdb;
use crate::netdb::select::{self, Want};
use crate::path::{AskId, PathKey, Paths};
use crate::time::{Now, Time};
use crate::wire::build::{Purpose, Status, TOKEN};
use crate::wire::cell::Size;
use crate::wire::control::{Ask, Tell};
use crate::wire::fragment::Assembler;
use crate::wire::id::{CallerId, RelayId, SessionId};
use crate::wire::introset::Lease;
use crate::wire::packet::Stripped;
use crate::wire::session::{self, Frame};
use call::Call;
use convo::{Convo, Route};
use core::time::Duration;
use lookup::Lookup;
use std::collections::BTreeMap;

/// Most conversations at once.
pub const CONVOS_MAX: usize = 4096;
/// Most calls under way at once.
pub const CALLS_MAX: usize = 256;
/// Most handshakes whose fragments are being collected.
pub const COLLECTING_MAX: usize = 256;
/// A conversation without packets for so long is closed.
pub const IDLE: Duration = Duration::from_secs(600);
/// A conversation that hears nothing for so long, on any route, is given up.
pub const LOST: Duration = Duration::from_secs(60);
/// How many joined paths a caller keeps to a service it talks with.
pub const ROUTES: usize = 2;
/// A handshake message has no more fragments than this.
pub const HANDSHAKE_FRAGMENTS: u8 = 2;
/// How often an introset is sent once more by another path that was not answered on the first.
pub const STORE_TRIES: u8 = 3;
/// How long a lease whose pivot could not be reached is left alone.
pub const UNREACHED: Duration = Duration::from_secs(10);
/// Leases that were learnt so long ago are asked for anew before another is joined.
pub const STALE: Duration = Duration::from_secs(10);
const REJOIN_PAUSE: Duration = Duration::from_millis(300);

/// The longest packet a cell carries, without its addresses.
pub const PACKET_MAX: usize = session::frames(Size::Full) - session::FRAME;

/// The other end of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// One who proved to have this address, or whom we called by it.
    Address([u8; 32]),
    /// A caller who stayed anonymous, by our number for the conversation.
    Anonymous(u32),
}

impl core::fmt::Debug for Remote {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Remote(..)")
    }
}

/// Why a call came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// No relay that should have its introset has one.
    NotFound,
    /// It is published, and no way to it worked.
    Unreachable,
    /// Too many calls at once.
    Busy,
}

/// What the session floor reports.
#[derive(Debug)]
pub enum Action {
    /// A conversation is open; packets will flow.
    Open(Remote),
    /// A call came to nothing.
    Failed(Remote, Failed),
    /// A conversation is over.
    Closed(Remote),
    /// Our introset is stored by at least one relay.
    Published,
    /// A service can be met at a relay that we do not know.
    Unknown(RelayId),
}

/// The floors below, lent for one step.
pub struct Road<'a> {
    /// Paths of ours.
    pub paths: &'a mut Paths,
    /// Links.
    pub links: &'a mut Links,
    /// Relays.
    pub netdb: &'a Netdb,
    /// Our guards, best first.
    pub guards: &'a [RelayId],
    /// Hops from us to a pivot.
    pub hops: usize,
    /// What time it is.
    pub now: Now,
}

impl Road<'_> {
    /// Builds a path to where a service can be met, beside others of the same conversation: one relay's death should not
    /// end them all.
    fn join(&mut self, lease: &Lease, rider: Option<&[u8]>, beside: &[PathKey]) -> Option<PathKey> {
        // A path takes half a second to be given up; what is built meanwhile need not lead over the same dead relay.
        let mut rather_not = self.paths.doubted(self.now.mono);
        rather_not.extend(self.paths.behind_guards(beside));
        let (hops, guards, pivot) = (self.hops, self.guards, Some(lease.pivot));
        let want = Want { hops, guards, pivot, avoid: &[], rather_not: &rather_not };
        let hops = select::select(self.netdb, &want, self.paths.chance())?;
        // Behind its lease's end a path leads nowhere: it is to be left in time, like any other.
        let most = Duration::from_millis(lease.until.millis().saturating_sub(self.now.wall.millis()));
        self.paths.build(hops, Purpose::Join(lease.token), rider, most, self.links, self.now)
    }
}

enum Asked {
    Lookup([u8; 32], RelayId),
    /// An edition of our introset, and how often it may still go another way.
    Store(u64, Ask, u8),
}

/// A lease that led nowhere, and until when it is not tried again.
#[derive(Clone, Copy)]
pub struct Shut {
    token: [u8; TOKEN],
    until: Time,
}

impl Shut {
    /// What a refusal says of a lease. A pivot that does not know its token never will; that it cannot be reached may be
    /// a lie of the hop before it, or over soon.
    fn of(purpose: Purpose, refused: Option<Status>, now: Time) -> Option<Shut> {
        let shut = Shut::awhile(purpose, now)?;
        match refused? {
            Status::NoSuchJoin => Some(Shut { until: Time::from_nanos(u64::MAX), ..shut }),
            Status::Unreachable => Some(shut),
            _ => None,
        }
    }

    /// Leaves a lease alone for a while.
    fn awhile(purpose: Purpose, now: Time) -> Option<Shut> {
        let Purpose::Join(token) = purpose else { return None };
        Some(Shut { token, until: now + UNREACHED })
    }

    /// Whether it never leads anywhere again.
    fn is_for_ever(&self) -> bool {
        self.until == Time::from_nanos(u64::MAX)
    }

    /// Whether a lease is among them.
    fn any(all: &[Shut], lease: &Lease, now: Time) -> bool {
        all.iter().any(|shut| shut.token == lease.token && now < shut.until)
    }

    /// Forgets what no introset names any more.
    fn keep(all: &mut Vec<Shut>, leases: &[Lease]) {
        all.retain(|shut| leases.iter().any(|lease| lease.token == shut.token));
    }
}

/// Who a joined path is for.
#[derive(Clone, Copy)]
enum Joining {
    Call([u8; 32]),
    Convo(SessionId),
}

/// Everything a client says and hears end to end.
pub struct Sessions {
    identity: Identity,
    reachable: bool,
    suite: Suite,
    chance: Chance,
    answering: answer::Door,
    publishing: publish::Publisher,
    convos: BTreeMap<SessionId, Convo>,
    /// No conversation is to be looked after before this: spares a walk over all of them at every input.
    soonest: Time,
    by_remote: BTreeMap<Remote, SessionId>,
    calls: BTreeMap<[u8; 32], Call>,
    lookups: BTreeMap<[u8; 32], Lookup>,
    joining: BTreeMap<PathKey, Joining>,
    /// Handshakes in fragments, and when each was begun, as a count.
    collecting: BTreeMap<(PathKey, CallerId), (u64, Assembler)>,
    collected: u64,
    asked: BTreeMap<AskId, Asked>,
    dirty: Vec<SessionId>,
    actions: Vec<Action>,
    /// Bodies that belonged to no conversation, were not authentic, or no piece of a handshake.
    pub dropped: u64,
    /// Bodies that came; of those the ones of conversations, and the pieces of handshakes.
    bodies: (u64, u64, u64),
    /// Handshakes that came whole; of those the ones that led to something, and the ones that did not.
    pub handshakes: (u64, u64, u64),
    /// Packets taken from programs; of those the ones sent, and the ones lost, of conversations and calls that are over.
    packets: (u64, u64, u64),
}

impl Sessions {
    /// The sessions of one identity. Unreachable ones publish nothing and call anonymously.
    pub fn new(identity: Identity, reachable: bool, suite: Suite, mut chance: Chance, now: Now) -> Sessions {
        let answering = answer::Door::new(&mut chance, now.wall);
        Sessions {
            identity,
            reachable,
            suite,
            answering,
            publishing: publish::Publisher::new(),
            chance,
            convos: BTreeMap::new(),
            soonest: now.mono,
            by_remote: BTreeMap::new(),
            calls: BTreeMap::new(),
            lookups: BTreeMap::new(),
            joining: BTreeMap::new(),
            collecting: BTreeMap::new(),
            collected: 0,
            asked: BTreeMap::new(),
            dirty: Vec::new(),
            actions: Vec::new(),
            dropped: 0,
            bodies: (0, 0, 0),
            handshakes: (0, 0, 0),
            packets: (0, 0, 0),
        }
    }

    /// Our address.
    pub fn address(&self) -> [u8; 32] {
        self.identity.public()
    }

    /// Mixes fresh entropy in.
    pub fn reseed(&mut self, fresh: &[u8; 32]) {
        self.chance.reseed(fresh);
    }

    /// What happened; empties the list.
    pub fn actions(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.actions)
    }

    /// Whether a conversation with this remote is open.
    pub fn is_open(&self, remote: &Remote) -> bool {
        self.by_remote.contains_key(remote)
    }

    /// Begins a call unless one is under way or its conversation is open; the outcome comes as an action.
    pub fn call(&mut self, address: [u8; 32], road: &mut Road<'_>) {
        if self.by_remote.contains_key(&Remote::Address(address)) || self.calls.contains_key(&address) {
            return;
        }
        if self.calls.len() >= CALLS_MAX || address == self.address() {
            self.actions.push(Action::Failed(Remote::Address(address), Failed::Busy));
            return;
        }
        self.calls.insert(address, Call::new(road.now.mono));
        self.look_up(address, road);
    }

    /// Sends an IP packet without its addresses: at the end of the batch, or when the call it starts succeeds.
    pub fn send(&mut self, remote: Remote, packet: Stripped<'_>, road: &mut Road<'_>) -> bool {
        if packet.bytes.len() > PACKET_MAX {
            return false;
        }
        if let Some(id) = self.by_remote.get(&remote).copied() {
            let Some(convo) = self.convos.get_mut(&id) else { return false };
            if convo.frames.is_empty() {
                self.dirty.push(id);
            }
            let taken = convo.push(packet, road);
            self.packets.0 += u64::from(taken);
            return taken;
        }
        let Remote::Address(address) = remote else { return false };
        self.call(address, road);
        let taken = self.calls.get_mut(&address).is_some_and(|call| call.queue(packet));
        self.packets.0 += u64::from(taken);
        taken
    }

    /// Sends what the batch left in half-filled cells.
    pub fn flush(&mut self, road: &mut Road<'_>) {
        for id in core::mem::take(&mut self.dirty) {
            if let Some(convo) = self.convos.get_mut(&id) {
                convo.flush(road);
                self.soonest = self.soonest.min(convo.next_wake());
            }
        }
    }

    /// We know more relays than before.
    pub fn learned(&mut self, netdb: &Netdb, now: Now) {
        if self.reachable {
            self.publishing.learned(netdb, now.mono);
        }
    }

    /// A path of ours is live.
    pub fn path_live(&mut self, key: PathKey, road: &mut Road<'_>) {
        match self.joining.get(&key).copied() {
            Some(Joining::Call(address)) => {
                if let Some(call) = self.calls.get_mut(&address) {
                    call.path_live(key, road.now.mono);
                }
            }
            Some(Joining::Convo(session)) => self.standby(session, key, road),
            None => match road.paths.errand(key) {
                Some((Purpose::Host(_), _)) => self.publishing.changed(road.now.mono),
                _ => self.publishing.may_ask(road.now.mono),
            },
        }
        for lookup in self.lookups.values_mut() {
            lookup.hurry();
        }
        self.wake(road);
    }

    /// A path of ours is no more.
    pub fn path_ended(&mut self, key: PathKey, purpose: Purpose, refused: Option<Status>, road: &mut Road<'_>) {
        self.collecting.retain(|(path, _), _| *path != key);
        let shut = Shut::of(purpose, refused, road.now.mono);
        match self.joining.remove(&key) {
            Some(Joining::Call(address)) => {
                if let Some(call) = self.calls.get_mut(&address) {
                    shut.into_iter().for_each(|shut| call.shut(shut));
                    call.path_ended(key);
                }
            }
            Some(Joining::Convo(session)) => {
                if let Some(convo) = self.convos.get_mut(&session) {
                    // Whatever ended it may be its pivot's end: while another way may work the lease is left alone.
                    let others = convo.routes().any(|route| route.path != key) && !convo.is_missing(road.now.mono);
                    let shut = shut.or_else(|| Shut::awhile(purpose, road.now.mono).filter(|_| others));
                    shut.into_iter().for_each(|shut| convo.shut(shut, road.now.mono));
                }
            }
            None if matches!(purpose, Purpose::Host(_)) => self.publishing.changed(road.now.mono),
            None => {}
        }
        for convo in self.convos.values_mut() {
            convo.drop_path(key);
        }
        self.soonest = Time::default();
        self.wake(road);
    }

    /// A pivot says that the other half of a join is gone.
    pub fn join_ended(&mut self, key: PathKey, caller: CallerId, road: &mut Road<'_>) {
        if caller.0 == 0 {
            // Our own joined path leads nowhere now.
            road.paths.close(key, road.links, road.now.mono);
            return;
        }
        for convo in self.convos.values_mut() {
            convo.drop_route(Route { path: key, caller });
        }
    }

    /// A hop answered a question of ours, or did not; false when it was not ours.
    pub fn answered(&mut self, id: AskId, tell: Option<Tell>, road: &mut Road<'_>) -> bool {
        match self.asked.remove(&id) {
            None => return false,
            Some(Asked::Store(edition, ask, tries)) if tell.is_none() && tries > 0 => {
                self.store(edition, ask, tries - 1, road);
            }
            Some(Asked::Store(..)) if matches!(tell, Some(Tell::Stored(true))) => {
                if self.publishing.kept() {
                    self.actions.push(Action::Published);
                }
            }
            Some(Asked::Store(edition, ask, _)) => {
                if let Some(other) = self.publishing.refused(edition, ask, road.now.mono) {
                    self.store(edition, other, STORE_TRIES, road);
                }
            }
            Some(Asked::Lookup(address, relay)) => {
                if let Some(lookup) = self.lookups.get_mut(&address) {
                    match tell {
                        Some(Tell::Found(found)) => lookup.answered(&relay, found, road.now),
                        _ => lookup.unanswered(&relay),
                    }
                }
                self.step_lookup(address, road);
            }
        }
        true
    }

    /// Gives an edition of our introset to one of its keepers, by any path for questions.
    fn store(&mut self, edition: u64, ask: Ask, tries: u8, road: &mut Road<'_>) {
        if edition != self.publishing.edition() {
            return;
        }
        let now = road.now.mono;
        match road.paths.any(now).and_then(|path| road.paths.ask(path, &ask, road.links, now)) {
            Some(id) => {
                self.asked.insert(id, Asked::Store(edition, ask, tries));
            }
            None => drop(self.publishing.refused(edition, ask, now)),
        }
    }

    fn close(&mut self, id: SessionId, say: bool, road: &mut Road<'_>) {
        let Some(mut convo) = self.convos.remove(&id) else { return };
        if say {
            convo.say_everywhere(&Frame::Close, false, road);
        }
        self.packets.1 += convo.packets.0;
        self.packets.2 += convo.packets.1 + convo.waiting_packets;
        let mine: Vec<PathKey> = self
            .joining
            .iter()
            .filter(|(_, joining)| matches!(joining, Joining::Convo(convo) if *convo == id))
            .map(|(key, _)| *key)
            .collect();
        for key in mine {
            self.joining.remove(&key);
            road.paths.close(key, road.links, road.now.mono);
        }
        if self.by_remote.get(&convo.remote) == Some(&id) {
            self.by_remote.remove(&convo.remote);
            self.actions.push(Action::Closed(convo.remote));
        }
    }

    /// Says goodbye to everybody.
    pub fn stop(&mut self, road: &mut Road<'_>) {
        let all: Vec<SessionId> = self.convos.keys().copied().collect();
        for id in all {
            self.close(id, true, road);
        }
    }

    /// When to call [`Sessions::wake`].
    pub fn next_wake(&self) -> Option<Time> {
        let publish = self.reachable.then(|| self.publishing.next_wake()).flatten();
        let lookups = self.lookups.values().map(Lookup::next_wake);
        let calls = self.calls.values().filter_map(Call::next_wake);
        let convos = (!self.convos.is_empty()).then_some(self.soonest);
        lookups.chain(calls).chain(convos).chain(publish).min()
    }

    /// Does what is due: publishes, repeats, probes, joins anew, gives up.
    pub fn wake(&mut self, road: &mut Road<'_>) {
        let now = road.now;
        self.answering.rotate(&mut self.chance, now.wall);
        if self.reachable {
            let handshake = self.answering.public();
            let asks = self.publishing.due(&self.identity, handshake, &mut self.chance, road);
            let edition = self.publishing.edition();
            for ask in asks {
                self.store(edition, ask, STORE_TRIES, road);
            }
        }
        let lookups: Vec<[u8; 32]> =
            self.lookups.iter().filter(|(_, l)| l.next_wake() <= now.mono).map(|(address, _)| *address).collect();
        for address in lookups {
            self.step_lookup(address, road);
        }
        let calls: Vec<[u8; 32]> = self
            .calls
            .iter()
            .filter(|(_, call)| call.next_wake().is_some_and(|at| at <= now.mono))
            .map(|(address, _)| *address)
            .collect();
        for address in calls {
            self.step_call(address, road);
        }
        if self.soonest > now.mono {
            return;
        }
        let due: Vec<SessionId> =
            self.convos.iter().filter(|(_, c)| c.next_wake() <= now.mono).map(|(id, _)| *id).collect();
        for id in due {
            self.tend(id, road);
        }
        self.soonest = self.convos.values().map(Convo::next_wake).min().unwrap_or(now.mono + IDLE);
    }

    /// All conversations: the remote, whether we were called, and the path in use.
    pub fn all(&self) -> impl Iterator<Item = (Remote, bool, Option<PathKey>)> {
        self.convos.values().map(|convo| (convo.remote, !convo.caller, convo.active().map(|route| route.path)))
    }

    /// All calls under way.
    pub fn calling(&self) -> impl Iterator<Item = (&[u8; 32], bool)> {
        self.calls.keys().map(|address| (address, self.lookups.contains_key(address)))
    }
}
