//! A client's machines, wired: paths and their pool, sessions, leases. How it learns of relays, answers names and reports lies
//! in the folder beside this file. Neighbours: `node` hands it inputs; `session` converses, `flow` knows packets.

// Splits a client into the road for its sessions and the sessions themselves.
macro_rules! road {
    ($client:expr, $core:expr, $now:expr) => {
        Road {
            paths: &mut $client.paths,
            links: &mut $core.links,
            netdb: &$core.netdb,
            guards: &$client.entries,
            hops: $client.hops,
            now: $now,
        }
    };
}

mod directory;
mod names;
mod report;

use super::config::ClientConfig;
use super::io::{Event, LinkUp, Output, Save, Ticket, Wake};
use super::{Core, Out};
use crate::crypto::random::Chance;
use crate::crypto::seal::Suite;
use crate::flow::dns::SrvRecord;
use crate::flow::icmp;
use crate::flow::lease::{Leases, Range};
use crate::flow::question::Question;
use crate::link::LinkId;
use crate::netdb::fetch::Fetch;
use crate::netdb::guards::Guards;
use crate::netdb::profile::FAILURE;
use crate::netdb::refresh::Refresh;
use crate::netdb::select::{self, Want};
use crate::path::live::Live;
use crate::path::pool::{ASKING, Aim, Pool};
use crate::path::{Action as PathAction, AskId, PathKey, Paths};
use crate::session::{Action as SessionAction, Remote, Road, Sessions};
use crate::time::{Now, Time};
use crate::wire::address::LokiAddress;
use crate::wire::batch::{Packets, Shape};
use crate::wire::build::Purpose;
use crate::wire::cell::Size;
use crate::wire::contact::Contact;
use crate::wire::control::Tell;
use crate::wire::id::{PathId, RelayId};
use crate::wire::packet::{self, Stripped, segment};
use crate::wire::request::Request;
use bytes::Bytes;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often expired things are swept and links looked after.
const TEND: Duration = Duration::from_secs(10);
/// So long all guards must have failed, while others can be reached, before one more is drawn.
pub const CUT_OFF: Duration = Duration::from_secs(60);

/// A client.
pub struct Client {
    pub(super) paths: Paths,
    /// For questions; a service has another, on which it is met.
    pools: Vec<Pool>,
    pub(super) sessions: Sessions,
    guards: Guards,
    /// The guards in the order in which paths begin with them: those first that we are linked with and that answer.
    entries: Vec<RelayId>,
    strict: bool,
    hops: usize,
    pub(super) leases: Leases,
    range: Range,
    srv: Vec<SrvRecord>,
    netid: String,
    names: BTreeMap<[u8; 32], Vec<(Ticket, Question)>>,
    fetch: Fetch,
    fetching: Option<Ticket>,
    learning: Option<(AskId, PathKey, Refresh)>,
    clocks: BTreeMap<Ticket, Now>,
    chance: Chance,
    stripped: Vec<u8>,
    ready: bool,
    published: bool,
    tend: Time,
    /// Since when no guard can be reached, though another relay can.
    cut_off: Option<Time>,
    /// Packets from the TUN device that could not be sent.
    refused: u64,
    /// Contacts we were told, known ones too, in bytes.
    directory: u64,
}

impl Client {
    pub(super) fn new(
        config: ClientConfig,
        saved: Option<&Bytes>,
        aes: bool,
        core: &mut Core,
        chance: &mut Chance,
        now: Now,
    ) -> Client {
        let ClientConfig { identity, reachable, hops, paths, lifetime, strict, range, mapaddr, srv, netid } = config;
        let mut guards = saved.and_then(|bytes| Guards::decode(bytes).ok()).unwrap_or_default();
        if !strict.is_empty() {
            guards.pin(&strict);
        }
        let suite = if aes { Suite::Aes } else { Suite::ChaCha };
        let mut leases = Leases::new(range);
        for (address, ip) in mapaddr {
            leases.fix(LokiAddress(address), ip);
        }
        let pools =
            if reachable { vec![(Aim::Meeting, paths), (Aim::Asking, ASKING)] } else { vec![(Aim::Asking, paths)] };
        let mut client = Client {
            paths: Paths::new(chance.fork("paths"), lifetime),
            pools: pools.into_iter().map(|(aim, wanted)| Pool::new(aim, wanted, lifetime, now.mono)).collect(),
            sessions: Sessions::new(identity, reachable, suite, chance.fork("sessions"), now),
            guards,
            entries: Vec::new(),
            strict: !strict.is_empty(),
            hops,
            leases,
            range,
            srv,
            netid,
            names: BTreeMap::new(),
            fetch: Fetch::new(now.mono),
            fetching: None,
            learning: None,
            clocks: BTreeMap::new(),
            chance: chance.fork("client"),
            stripped: Vec::with_capacity(2048),
            ready: false,
            published: false,
            tend: now.mono,
            cut_off: None,
            refused: 0,
            directory: 0,
        };
        client.refresh_guards(core, now);
        client
    }

    pub(super) fn address(&self) -> [u8; 32] {
        self.sessions.address()
    }

    pub(super) fn reseed(&mut self, chance: &mut Chance) {
        self.chance.reseed(&chance.secret());
        self.paths.chance().reseed(&chance.secret());
        self.sessions.reseed(&chance.secret());
    }

    pub(super) fn link_up(&mut self, up: &LinkUp, core: &mut Core, now: Now) {
        let body = Request::Clock.encode();
        let ticket = core.links.request(up.peer, Vec::new(), body, Duration::from_secs(5), now.mono);
        self.clocks.insert(ticket, now);
        self.order_entries(core, now);
    }

    /// The registry has changed: no path goes through who is no relay, and new relays are to be learnt of.
    pub(super) fn relisted(&mut self, core: &mut Core, now: Now) {
        let registry = core.netdb.registry();
        let through = |live: &Live| live.hops().iter().any(|hop| !registry.lists(&hop.id));
        let gone: Vec<_> = self.paths.all_live().filter(|(_, live)| through(live)).map(|(key, _)| key).collect();
        for key in gone {
            self.paths.close(key, &mut core.links, now.mono);
        }
        self.refresh_guards(core, now);
        self.fetch.hurry(now.mono);
    }

    pub(super) fn link_down(&mut self, link: LinkId, core: &Core, now: Now) {
        self.paths.link_down(link);
        self.order_entries(core, now);
    }

    /// Guards in the order in which paths are to begin with them: one that leaves builds or live paths without an answer may
    /// be gone; so may one that failed us lately, or is yet to be dialled. What begins with it would wait in vain.
    fn order_entries(&mut self, core: &Core, now: Now) {
        let failures = |guard: &RelayId| core.netdb.profile.score(guard) / (2 * FAILURE);
        self.entries = self.guards.ids().to_vec();
        self.entries
            .sort_by_key(|guard| (self.paths.doubts(guard, now.mono), failures(guard), core.links.to(guard).is_none()));
    }

    pub(super) fn reply(&mut self, ticket: Ticket, reply: Option<Bytes>, core: &mut Core, now: Now) {
        if let Some(asked) = self.clocks.remove(&ticket) {
            core.links.ended(ticket);
            return self.clock(asked, reply, core, now);
        }
        if self.fetching == Some(ticket) {
            self.fetching = None;
            core.links.ended(ticket);
            return self.page(reply, core, now);
        }
        let link = core.links.ended(ticket);
        let profile = &mut core.netdb.profile;
        let mut verdict = |hops: &[Arc<Contact>], blamed: Option<usize>| judge(profile, hops, blamed);
        self.paths.reply(ticket, reply, link, now.mono, &mut verdict);
        self.order_entries(core, now);
    }

    /// Our clock against a relay's: reported, never corrected by strangers.
    fn clock(&mut self, asked: Now, reply: Option<Bytes>, core: &mut Core, now: Now) {
        let Some(theirs) = reply.and_then(|reply| reply.as_ref().try_into().ok()).map(u64::from_be_bytes) else {
            return;
        };
        let ours = (asked.wall.millis() / 2 + now.wall.millis() / 2) as i64;
        let ahead = ours.saturating_sub_unsigned(theirs) / 1000;
        if ahead.unsigned_abs() > 60 {
            core.out.event(Event::ClockSkew(ahead));
        }
    }

    fn refresh_guards(&mut self, core: &mut Core, now: Now) {
        let enough = Fetch::enough(&core.netdb);
        if !self.strict && self.guards.refresh(&core.netdb, enough, &mut self.chance, now.wall) {
            core.out.push(Output::Save(Save::Guards(self.guards.encode().into())));
        }
        self.order_entries(core, now);
    }

    pub(super) fn cell(&mut self, link: LinkId, path: PathId, size: Size, onion: &mut [u8], core: &mut Core, now: Now) {
        let Some(arrived) = self.paths.receive(link, path, size, onion, now.mono) else { return };
        let mut road = road!(self, core, now);
        let (leases, out) = (&mut self.leases, &mut core.out);
        self.sessions.arrived(arrived, &mut road, &mut |remote, packet| {
            deliver(remote, packet, leases, out, now.mono);
        });
    }

    /// Sends what the batch left in half-filled cells.
    pub(super) fn flush(&mut self, core: &mut Core, now: Now) {
        self.sessions.flush(&mut road!(self, core, now));
    }

    /// Programs sent packets into the TUN device.
    pub(super) fn packets(&mut self, packets: &mut Packets, core: &mut Core, now: Now) {
        for index in 0..packets.len() {
            let shape = packets.shape(index);
            self.packet(packets.packet(index), shape, core, now);
        }
        self.flush(core, now);
    }

    fn packet(&mut self, bytes: &mut [u8], shape: Shape, core: &mut Core, now: Now) {
        let remote = packet::destination(bytes).and_then(|to| self.leases.remote_of(to, now.mono));
        let Some(remote) = remote else {
            self.refused += 1;
            return;
        };
        if shape.segment == 0 && icmp::is_too_big(bytes) {
            self.refused += 1;
            return icmp::too_big(bytes, &mut core.out.packets);
        }
        let mut room = std::mem::take(&mut self.stripped);
        let mut refused = 0;
        let mut road = road!(self, core, now);
        let mut send = |bytes: &[u8]| {
            let sent = self.sessions.send(remote, Stripped { bytes, partial: shape.partial }, &mut road);
            refused += u64::from(!sent);
        };
        let made = if shape.partial {
            segment::cut(bytes, shape, &mut room, send)
        } else {
            room.clear();
            packet::strip(bytes, &mut room).map(|()| send(&room))
        };
        self.refused += refused + u64::from(made.is_err());
        self.stripped = room;
    }

    /// Carries what paths and sessions ask; true when there was something.
    pub(super) fn pump(&mut self, core: &mut Core, now: Now) -> bool {
        let mut busy = false;
        for action in self.paths.actions() {
            busy = true;
            match action {
                PathAction::Live(key) => {
                    let purpose = self.paths.errand(key).map(|(purpose, _)| purpose);
                    let of = |pool: &&mut Pool| purpose.is_some_and(|purpose| pool.aim().is(purpose));
                    self.pools.iter_mut().filter(of).for_each(Pool::worked);
                    if !self.ready {
                        self.ready = true;
                        core.out.event(Event::Ready);
                    }
                    for ((link, path), size, mut onion) in self.paths.take_held(key) {
                        self.cell(link, path, size, &mut onion, core, now);
                    }
                    self.sessions.path_live(key, &mut road!(self, core, now));
                }
                PathAction::Ended { key, born, purpose, refused } => {
                    if !born {
                        let of = |pool: &&mut Pool| pool.aim().is(purpose);
                        self.pools.iter_mut().filter(of).for_each(|pool| pool.failed(now.mono));
                    }
                    self.sessions.path_ended(key, purpose, refused, &mut road!(self, core, now));
                }
                PathAction::Answered(id, tell) => self.answered(id, Some(tell), core, now),
                PathAction::Unanswered(id) => self.answered(id, None, core, now),
                PathAction::Told(key, Tell::JoinEnded(caller)) => {
                    self.sessions.join_ended(key, caller, &mut road!(self, core, now));
                }
                // What lay behind one of its hops is gone: the hops before that need not be kept either.
                PathAction::Told(key, Tell::Closed) => self.paths.close(key, &mut core.links, now.mono),
                PathAction::Told(..) => {}
            }
        }
        for action in self.sessions.actions() {
            busy = true;
            self.session_action(action, core, now);
        }
        self.fill_pool(core, now);
        busy
    }

    fn answered(&mut self, id: AskId, tell: Option<Tell>, core: &mut Core, now: Now) {
        if let Some((_, path, refresh)) = self.learning.take_if(|(asked, ..)| *asked == id) {
            return self.learned(path, refresh, tell, core, now);
        }
        self.sessions.answered(id, tell, &mut road!(self, core, now));
    }

    fn session_action(&mut self, action: SessionAction, core: &mut Core, now: Now) {
        match action {
            SessionAction::Open(remote) => {
                self.leases.hold(remote, true, now.mono);
                if let Remote::Address(address) = remote {
                    self.named(address, None, core, now);
                }
            }
            SessionAction::Failed(Remote::Address(address), why) => self.named(address, Some(why), core, now),
            SessionAction::Closed(remote) => self.leases.hold(remote, false, now.mono),
            SessionAction::Unknown(relay) if self.paths.can_ask() => self.fetch.missed(relay, now.mono),
            SessionAction::Failed(Remote::Anonymous(_), _) | SessionAction::Unknown(_) => {}
            SessionAction::Published => {
                self.published = true;
                core.out.event(Event::Published);
            }
        }
    }

    fn fill_pool(&mut self, core: &mut Core, now: Now) {
        // While no guard is linked the first build finds out whether one is there: four would fail together.
        let linked =
            self.entries.iter().any(|guard| core.links.to(guard).is_some() && !self.paths.doubts(guard, now.mono));
        for index in 0..self.pools.len() {
            let (pool, aim) = (&self.pools[index], self.pools[index].aim());
            let brisk = self.paths.brisk(aim);
            let most = if linked { usize::MAX } else { 1usize.saturating_sub(brisk) };
            for _ in 0..pool.missing(&self.paths, Fetch::enough(&core.netdb), now.mono).min(most) {
                // Best a pivot of its own; at least none that we are met at and ask.
                let all = self.paths.pivots(|_| true);
                let others = self.paths.pivots(|purpose| !aim.is(purpose));
                if ![&all[..], &others, &[]].into_iter().any(|avoid| self.begin(aim, avoid, core, now)) {
                    self.pools[index].failed(now.mono);
                    break;
                }
            }
        }
    }

    fn begin(&mut self, aim: Aim, avoid: &[RelayId], core: &mut Core, now: Now) -> bool {
        let guards = &self.entries;
        let want = Want { hops: self.hops, guards, pivot: None, avoid, rather_not: &self.paths.doubted(now.mono) };
        let paths = &mut self.paths;
        let Some(hops) = select::select(&core.netdb, &want, paths.chance()).filter(|_| !guards.is_empty()) else {
            return false;
        };
        let purpose = match aim {
            Aim::Asking => Purpose::General,
            Aim::Meeting => Purpose::Host(paths.chance().bytes()),
        };
        paths.build(hops, purpose, None, Duration::MAX, &mut core.links, now).is_some()
    }

    pub(super) fn next_wake(&self, now: Time) -> Option<(Time, Wake)> {
        let all = [
            self.paths.next_wake().map(|at| (at, Wake::Path)),
            self.pools.iter().filter_map(|pool| pool.next_wake(&self.paths, now)).min().map(|at| (at, Wake::Path)),
            self.sessions.next_wake().map(|at| (at, Wake::Session)),
            self.fetch.next_wake().filter(|_| self.learning.is_none()).map(|at| (at, Wake::Netdb)),
            Some((self.tend, Wake::Link)),
        ];
        all.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    pub(super) fn wake(&mut self, core: &mut Core, now: Now) {
        let Core { links, netdb, .. } = core;
        let profile = &mut netdb.profile;
        self.paths.wake(links, now.mono, &mut |hops, blamed| judge(profile, hops, blamed));
        self.order_entries(core, now);
        self.sessions.wake(&mut road!(self, core, now));
        let question = self.fetch.wake(&core.netdb, None, self.guards.ids(), &mut self.chance, now.mono);
        self.fetch_from(question, core, now);
        if now.mono >= self.tend {
            self.tend = now.mono + TEND;
            self.tidy(core, now);
        }
    }

    fn tidy(&mut self, core: &mut Core, now: Now) {
        core.tidy(now);
        self.refresh_guards(core, now);
        self.mind_guards(core, now);
        // Paths that began elsewhere while the first guard was away are to begin with it again.
        if let Some(first) = self.guards.ids().first().filter(|first| self.ready && core.links.to(first).is_none()) {
            core.links.dial(*first, core.netdb.addrs(first).list(), now.mono);
        }
        // A relay that only gave us contacts need not know that we are still here.
        let used: Vec<LinkId> = self.paths.all_live().map(|(_, live)| live.first().0).collect();
        let building = self.paths.all_building().next().is_some() || self.fetching.is_some();
        let idle: Vec<LinkId> = core
            .links
            .iter()
            .filter(|(id, link)| !building && !used.contains(id) && !self.guards.ids().contains(&link.peer))
            .map(|(id, _)| id)
            .collect();
        for id in idle {
            core.links.hang_up(id);
        }
    }

    /// Draws one more guard when all of them have failed for long, and the network is there without them: then it is not
    /// we who are offline.
    fn mind_guards(&mut self, core: &mut Core, now: Now) {
        let guards = self.guards.ids();
        let works = |id: &RelayId| core.netdb.profile.score(id) < FAILURE || core.links.to(id).is_some();
        let elsewhere = core.links.iter().any(|(_, link)| link.relay && !guards.contains(&link.peer));
        if self.strict || guards.is_empty() || guards.iter().any(works) || !elsewhere {
            self.cut_off = None;
            return;
        }
        if now.mono.since(*self.cut_off.get_or_insert(now.mono)) >= CUT_OFF {
            self.cut_off = None;
            if self.guards.reserve(&core.netdb, &mut self.chance, now.wall) {
                core.out.push(Output::Save(Save::Guards(self.guards.encode().into())));
            }
        }
    }

    pub(super) fn stop(&mut self, core: &mut Core, now: Now) {
        self.sessions.stop(&mut road!(self, core, now));
        let keys: Vec<_> = self.paths.all_live().map(|(key, _)| key).collect();
        for key in keys {
            self.paths.close(key, &mut core.links, now.mono);
        }
    }
}

fn judge(profile: &mut crate::netdb::profile::Profile, hops: &[Arc<Contact>], blamed: Option<usize>) {
    match blamed {
        None => hops.iter().for_each(|hop| profile.worked(&hop.id)),
        Some(index) => {
            if let Some(hop) = hops.get(index) {
                profile.failed(hop.id);
            }
        }
    }
}

/// A packet came out of a conversation: addresses are written and it goes to the TUN device.
fn deliver(remote: Remote, stripped: Stripped<'_>, leases: &mut Leases, out: &mut Out, now: Time) {
    let Some(from) = leases.lease(remote, now) else {
        out.refused += 1;
        return;
    };
    let range = leases.range();
    if packet::restore(stripped, from, range.own(), range.base6(), &mut out.packets).is_err() {
        out.refused += 1;
    }
}
