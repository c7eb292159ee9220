//! A relay's machines, wired: transit, the shelf, gossip, and the requests of neighbours. Neighbours: `node` hands it
//! inputs; `transit` does the work on paths.

use super::config::RelayConfig;
use super::io::{Event, LinkUp, Output, Save, Saved, Ticket, Wake};
use super::worker::{Tally, Worker};
use super::{Core, report::Report};
use crate::crypto::key::Identity;
use crate::crypto::random::Chance;
use crate::flow::dns;
use crate::flow::question::Question;
use crate::link::LinkId;
use crate::link::channel::SHARDS;
use crate::netdb::fetch::{self, Fetch};
use crate::netdb::shelf::{NEAR, Shelf};
use crate::netdb::{Learned, Netdb};
use crate::time::{Bucket, Now, Time, Wall};
use crate::transit::admit::OnionKeys;
use crate::transit::hop::HopRef;
use crate::transit::{Action, Transit};
use crate::wire::addrs::Addrs;
use crate::wire::cell::Size;
use crate::wire::contact::{Card, Contact, LIFETIME};
use crate::wire::control::{Ask, NAMES_MAX, Tell};
use crate::wire::id::{PathId, RelayId};
use crate::wire::introset::{Envelope, INTROSET};
use crate::wire::request::{self, Request};
use bytes::Bytes;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How many relays a relay keeps links with, so that gossip reaches it.
pub const NEIGHBOURS: usize = 6;
/// To how many neighbours a relay passes a contact that is new to it.
pub const SPREAD: usize = 6;
/// Requests of one client's link: so many at once, then so many a second.
pub const CLIENT_REQUESTS: (u32, u32) = (200, 100);
/// Requests of one relay's link.
pub const RELAY_REQUESTS: (u32, u32) = (4000, 2000);
/// Pages of contacts of one client's link, each of up to 175 kB: a first set at once, then no flood.
pub const CLIENT_PAGES: (u32, u32) = (32, 2);
/// How long a neighbour may take to answer a small question.
pub const PATIENCE: Duration = Duration::from_millis(1200);
/// Most requests of ours to neighbours that wait for their replies.
pub const WAITING_MAX: usize = 4096;
/// Contacts in one direct reply.
pub const PAGE: usize = 128;
/// A relay that has known most of the others for so long has been given the introsets that are its to keep.
pub const SETTLED: Duration = Duration::from_secs(1);
/// One that is so old has been given them, however many others it knows.
pub const GROWN: Duration = Duration::from_secs(60);
/// The answer to *find* of a relay that has none, and is too young to say that there is none.
const TOO_YOUNG: &[u8] = &[0];
const REPUBLISH: Duration = Duration::from_secs(6 * 3600);
const TEND: Duration = Duration::from_secs(5);
const TEND_FIRST: Duration = Duration::from_millis(250);

enum Waiting {
    Fetch,
    Gossip,
    /// Nothing that matters.
    Nothing,
    /// Asked on behalf of a client of ours.
    Find(HopRef, u32),
    Store(HopRef, u32),
}

/// A relay.
pub struct Relay {
    identity: Identity,
    addrs: Addrs,
    aes: bool,
    pub(super) transit: Transit,
    pub(super) shelf: Shelf,
    fetch: Fetch,
    chance: Chance,
    own: Contact,
    waiting: BTreeMap<Ticket, Waiting>,
    /// For each link: its requests, and its pages of contacts.
    buckets: BTreeMap<LinkId, [Bucket; 2]>,
    ready: bool,
    tend: Time,
    started: Time,
    /// Since when it has known most of the others.
    settled: Option<Time>,
    tally: Arc<Tally>,
}

impl Relay {
    pub(super) fn new(
        config: RelayConfig,
        saved: &Saved,
        aes: bool,
        core: &mut Core,
        chance: &mut Chance,
        now: Now,
    ) -> Relay {
        let RelayConfig { identity, addrs } = config;
        let mut keys_chance = chance.fork("onion keys");
        let kept = saved.onion_keys.as_ref().and_then(|bytes| OnionKeys::decode(bytes).ok());
        let mut keys = kept.unwrap_or_else(|| OnionKeys::generate(&mut keys_chance, now.wall));
        keys.rotate(&mut keys_chance, now.wall);
        core.out.push(Output::Save(Save::OnionKeys(keys.encode())));
        let id = RelayId(identity.public());
        // What the network knows of us is as good as new while it is still true: nobody need hear that we were away.
        let known = saved.own.as_ref().and_then(|own| Contact::verify(own.clone(), core.netdb.netid(), now.wall).ok());
        let told =
            |c: &Contact| (c.id, c.card.addrs, c.card.aes) == (id, addrs, aes) && *c.card.onion == *keys.public();
        let own = known
            .filter(|own| told(own) && own.card.published.apart(now.wall) < REPUBLISH)
            .unwrap_or_else(|| sign(&identity, &keys, addrs, aes, core, now.wall));
        core.out.push(Output::Save(Save::OwnContact(own.signed.clone())));
        core.netdb.learn(&own.signed, now.wall);
        Relay {
            addrs,
            aes,
            transit: Transit::new(id, keys, chance.fork("transit")),
            shelf: Shelf::new(id),
            fetch: Fetch::new(now.mono),
            chance: chance.fork("relay"),
            own,
            waiting: BTreeMap::new(),
            buckets: BTreeMap::new(),
            ready: false,
            tend: now.mono,
            started: now.mono,
            settled: None,
            tally: Arc::default(),
            identity,
        }
    }

    pub(super) fn id(&self) -> RelayId {
        self.own.id
    }

    pub(super) fn reseed(&mut self, chance: &mut Chance) {
        self.chance.reseed(&chance.secret());
        self.transit.reseed(&chance.secret());
    }

    pub(super) fn link_up(&mut self, up: &LinkUp, listed: bool, core: &mut Core, now: Now) {
        if listed {
            self.gossip(up.peer, self.own.signed.clone(), core, now);
        }
    }

    fn gossip(&mut self, to: RelayId, contact: Bytes, core: &mut Core, now: Now) {
        let body = Request::Gossip(contact).encode();
        let ticket = core.links.request(to, Vec::new(), body, PATIENCE, now.mono);
        self.waiting.insert(ticket, Waiting::Gossip);
    }

    /// Passes news on to a few neighbours, never to all: whoever is missed learns it when next it asks around.
    fn spread(&mut self, contact: &Bytes, by: Option<RelayId>, core: &mut Core, now: Now) {
        let linked = core.links.iter().filter(|(_, link)| link.relay && Some(link.peer) != by);
        let mut peers: Vec<RelayId> = linked.map(|(_, link)| link.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        self.chance.shuffle(&mut peers);
        for peer in peers.into_iter().take(SPREAD) {
            self.gossip(peer, contact.clone(), core, now);
        }
    }

    /// The registry has changed: new relays are to be learnt of.
    pub(super) fn relisted(&mut self, now: Now) {
        self.fetch.hurry(now.mono);
    }

    pub(super) fn link_down(&mut self, link: LinkId, core: &mut Core, now: Now) {
        self.buckets.remove(&link);
        self.transit.link_down(link, &mut core.links, now.mono);
    }

    pub(super) fn request(&mut self, link: LinkId, ticket: Ticket, body: &Bytes, core: &mut Core, now: Now) {
        let Some((relay, peer)) = core.links.get(link).map(|link| (link.relay, link.peer)) else {
            return core.out.push(Output::Answer { ticket, body: None });
        };
        let request = Request::decode(body);
        if request.is_err() {
            core.malformed += 1;
        }
        let page = matches!(request, Ok(Request::Contacts { .. }));
        if !self.spend(link, relay, page, now.mono) {
            return core.out.push(Output::Answer { ticket, body: None });
        }
        let answer: Option<Bytes> = match request {
            Err(_) => None,
            Ok(Request::Build(body)) => {
                return self.transit.build(link, ticket, &body, &core.netdb, &mut core.links, now);
            }
            Ok(Request::Contacts { after }) => Some(core.netdb.after(&after, PAGE).concat().into()),
            // Clients ask over their paths; one that comes itself would be a path's length nearer to filling us.
            Ok(Request::Store(introset)) if relay => {
                Some(vec![u8::from(self.store(introset, peer, &core.netdb, now))].into())
            }
            Ok(Request::Store(_)) => None,
            Ok(Request::Find { key }) => Some(self.find(&key, now)),
            Ok(Request::Gossip(contact)) if relay => {
                let learned = core.learn(&contact, now);
                if let Learned::New(_) = learned {
                    self.spread(&contact, Some(peer), core, now);
                }
                Some(vec![u8::from(learned != Learned::Refused)].into())
            }
            Ok(Request::Gossip(_)) => None,
            Ok(Request::Ended(paths)) if relay => {
                self.transit.ended(link, &paths, &mut core.links, now.mono);
                Some(vec![1].into())
            }
            Ok(Request::Ended(_)) => None,
            Ok(Request::Clock) => Some(now.wall.millis().to_be_bytes().to_vec().into()),
        };
        core.out.push(Output::Answer { ticket, body: answer });
    }

    /// The introset, or nothing, or that we are too young to know.
    fn find(&self, key: &[u8; 32], now: Now) -> Bytes {
        let settled = self.settled.is_some_and(|since| now.mono.since(since) >= SETTLED);
        let knows = settled || now.mono.since(self.started) >= GROWN;
        let nothing = if knows { Bytes::new() } else { Bytes::from_static(TOO_YOUNG) };
        self.shelf.find(key, now.wall).unwrap_or(nothing)
    }

    fn store(&mut self, introset: Bytes, by: RelayId, netdb: &Netdb, now: Now) -> bool {
        Envelope::verify(introset, now.wall)
            .ok()
            .filter(|envelope| netdb.is_near(&self.own.id, &envelope.key, NEAR))
            .is_some_and(|envelope| self.shelf.store(envelope, by, now.wall))
    }

    fn spend(&mut self, link: LinkId, relay: bool, page: bool, now: Time) -> bool {
        let rate = if relay { RELAY_REQUESTS } else { CLIENT_REQUESTS };
        let full = || [Bucket::full(rate, now), Bucket::full(CLIENT_PAGES, now)];
        let [requests, pages] = self.buckets.entry(link).or_insert_with(full);
        requests.take(rate, now) && (relay || !page || pages.take(CLIENT_PAGES, now))
    }

    pub(super) fn reply(&mut self, ticket: Ticket, reply: Option<Bytes>, core: &mut Core, now: Now) {
        let link = core.links.ended(ticket);
        match self.waiting.remove(&ticket) {
            Some(waiting) => self.tell(waiting, reply, core, now),
            None => drop(self.transit.reply(ticket, reply, link, &mut core.links, now.mono)),
        }
    }

    /// A neighbour answered, or did not: whoever had us ask is told.
    fn tell(&mut self, waiting: Waiting, reply: Option<Bytes>, core: &mut Core, now: Now) {
        let yes = reply.as_ref().is_some_and(|reply| reply.as_ref() == [1]);
        let (hop, message, tell) = match waiting {
            Waiting::Fetch => return self.page(reply, core, now),
            Waiting::Gossip => {
                if yes && !self.ready {
                    self.ready = true;
                    core.out.event(Event::Ready);
                }
                return;
            }
            Waiting::Nothing => return,
            Waiting::Find(hop, message) => (hop, message, found(reply)),
            Waiting::Store(hop, message) => (hop, message, Tell::Stored(yes)),
        };
        self.transit.tell(hop, message, &tell, &mut core.links, now.mono);
    }

    fn page(&mut self, reply: Option<Bytes>, core: &mut Core, now: Now) {
        let failed = reply.is_none();
        let contacts = reply.map(|reply| request::contacts(&reply)).unwrap_or_default();
        let mut last = None;
        for contact in &contacts {
            if let Learned::New(id) = core.learn(contact, now) {
                last = last.max(Some(id));
            } else if let Some(id) = contact.get(9..41).and_then(|id| id.try_into().ok()) {
                last = last.max(Some(RelayId(id)));
            }
        }
        let next = self.fetch.page(&core.netdb, last, failed, now.mono);
        self.ask(next, core, now);
    }

    fn ask(&mut self, question: Option<fetch::Question>, core: &mut Core, now: Now) {
        let Some(fetch::Question { relay, after }) = question else { return };
        let addrs = core.netdb.addrs(&relay).list();
        let body = Request::Contacts { after }.encode();
        let ticket = core.links.request(relay, addrs, body, Duration::from_secs(5), now.mono);
        self.waiting.insert(ticket, Waiting::Fetch);
    }

    pub(super) fn cell(&mut self, link: LinkId, path: PathId, size: Size, onion: &mut [u8], core: &mut Core, now: Now) {
        if !self.transit.cell(link, path, size, onion, &mut core.links, now.mono) {
            core.dropped += 1;
        }
    }

    pub(super) fn workers(&mut self, count: usize, core: &mut Core) -> Vec<Worker> {
        let (ports, legs) = (core.links.share(), self.transit.share());
        // The first sub-channel is the node's own.
        (1..SHARDS)
            .take(count)
            .map(|shard| {
                Worker::new(ports.clone(), legs.clone(), self.tally.clone(), shard, self.chance.fork("worker"))
            })
            .collect()
    }

    pub(super) fn control(&mut self, hop: HopRef, body: &[u8], core: &mut Core, now: Now) {
        self.transit.control(hop, body, &mut core.links, now.mono);
    }

    pub(super) fn dns(&mut self, ticket: Ticket, question: &Question, core: &mut Core) {
        core.out.push(Output::Dns { ticket, answer: dns::relay(question, &self.own.id) });
    }

    pub(super) fn pump(&mut self, core: &mut Core, now: Now) -> bool {
        let actions = self.transit.actions();
        let busy = !actions.is_empty();
        for action in actions {
            match action {
                Action::Answer(ticket, body) => core.out.push(Output::Answer { ticket, body }),
                Action::Asked(hop, message, ask) => self.asked(hop, message, ask, core, now),
                Action::Ended(link, paths) if self.waiting.len() < WAITING_MAX => {
                    let body = Request::Ended(paths).encode();
                    let ticket = core.links.request_on(link, body, PATIENCE, now.mono);
                    self.waiting.insert(ticket, Waiting::Nothing);
                }
                Action::Ended(..) => {}
            }
        }
        busy
    }

    /// A client asks us, its pivot, for something.
    fn asked(&mut self, hop: HopRef, message: u32, ask: Ask, core: &mut Core, now: Now) {
        let own = self.own.id;
        let (at, request, waiting) = match ask {
            Ask::Find { at, key } if at == own => {
                let found = found(Some(self.find(&key, now)));
                return self.transit.tell(hop, message, &found, &mut core.links, now.mono);
            }
            Ask::Store { at, introset } if at == own => {
                let stored = Tell::Stored(self.store(introset, own, &core.netdb, now));
                return self.transit.tell(hop, message, &stored, &mut core.links, now.mono);
            }
            Ask::Names { after } => {
                let names = Tell::Names(core.netdb.names(&after, NAMES_MAX));
                return self.transit.tell(hop, message, &names, &mut core.links, now.mono);
            }
            Ask::Named(names) => {
                let contacts = Tell::Contacts(core.netdb.named(&names));
                return self.transit.tell(hop, message, &contacts, &mut core.links, now.mono);
            }
            Ask::Find { at, key } => (at, Request::Find { key }, Waiting::Find(hop, message)),
            Ask::Store { at, introset } => (at, Request::Store(introset), Waiting::Store(hop, message)),
            Ask::Ping | Ask::Close => return,
        };
        let addrs = core.netdb.addrs(&at);
        let listed = core.netdb.registry().lists(&at) && core.netdb.may_dial(&addrs);
        if !listed || self.waiting.len() >= WAITING_MAX {
            return self.tell(waiting, None, core, now);
        }
        let ticket = core.links.request(at, addrs.list(), request.encode(), PATIENCE, now.mono);
        self.waiting.insert(ticket, waiting);
    }

    pub(super) fn next_wake(&self) -> Option<(Time, Wake)> {
        let transit = self.transit.next_wake().map(|at| (at, Wake::Transit));
        let fetch = self.fetch.next_wake().map(|at| (at, Wake::Netdb));
        [transit, fetch, Some((self.tend, Wake::Link))].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    pub(super) fn wake(&mut self, core: &mut Core, now: Now) {
        self.transit.wake(&mut core.links, now.mono);
        let question = self.fetch.wake(&core.netdb, Some(self.own.id), &[], &mut self.chance, now.mono);
        self.ask(question, core, now);
        if now.mono >= self.tend {
            // Eager at first, so that a young relay is known soon; then at leisure.
            let young = now.mono.since(self.started) < Duration::from_secs(10);
            self.tend = now.mono + if young { TEND_FIRST } else { TEND };
            self.tidy(core, now);
        }
    }

    fn tidy(&mut self, core: &mut Core, now: Now) {
        let age = self.own.card.published.apart(now.wall);
        if self.transit.keys().rotate(&mut self.chance, now.wall) || age >= REPUBLISH {
            core.out.push(Output::Save(Save::OnionKeys(self.transit.keys().encode())));
            self.own = sign(&self.identity, self.transit.keys(), self.addrs, self.aes, core, now.wall);
            core.out.push(Output::Save(Save::OwnContact(self.own.signed.clone())));
            core.netdb.learn(&self.own.signed, now.wall);
            self.spread(&self.own.signed.clone(), None, core, now);
        }
        core.tidy(now);
        self.shelf.expire(now.wall);
        self.transit.tidy(now.mono);
        if Fetch::most(&core.netdb) {
            self.settled.get_or_insert(now.mono);
        }
        if core.links.relays() < NEIGHBOURS {
            let known: Vec<(RelayId, Addrs)> = core
                .netdb
                .contacts()
                .filter(|c| c.id != self.own.id && core.links.to(&c.id).is_none())
                .map(|c| (c.id, c.card.addrs))
                .collect();
            if !known.is_empty() {
                let (peer, addrs) = known[self.chance.below(known.len() as u64) as usize];
                core.links.dial(peer, addrs.list(), now.mono);
            }
        }
    }

    pub(super) fn report(&self, report: &mut Report) {
        report.relay = true;
        report.ready = self.ready;
        report.address = crate::wire::address::snode(&self.own.id);
        report.transit = self.transit.len();
        let (accepted, refused) = self.transit.builds;
        let tally = &self.tally;
        report.counters.extend([
            ("builds accepted", accepted),
            ("builds refused", refused),
            ("transit cells dropped", self.transit.dropped + tally.misled.load(Ordering::Relaxed)),
            ("transit cells that waited too long", tally.waited.load(Ordering::Relaxed)),
            ("worker datagrams dropped", tally.unopened.load(Ordering::Relaxed)),
            ("worker cells not sent", tally.unsent.load(Ordering::Relaxed)),
            ("introsets kept", self.shelf.len() as u64),
        ]);
    }
}

/// What a relay's answer to *find* is for the client: only one that was asked and must know may say that there is none.
fn found(reply: Option<Bytes>) -> Tell {
    match reply {
        Some(introset) if introset.len() == INTROSET => Tell::Found(Some(introset)),
        Some(nothing) if nothing.is_empty() => Tell::Found(None),
        _ => Tell::Unknown,
    }
}

fn sign(identity: &Identity, keys: &OnionKeys, addrs: Addrs, aes: bool, core: &Core, wall: Wall) -> Contact {
    let onion = Box::new(*keys.public());
    let (published, expires) = (wall, wall.plus(LIFETIME));
    Contact::sign(identity, Card { netid: core.netdb.netid(), onion, published, expires, aes, addrs })
}
