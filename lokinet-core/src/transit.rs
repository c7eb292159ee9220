//! Floor 2: hops we lend to strangers. A [`Transit`] admits builds, forwards their records, and then peels, wraps and
//! hands over cells; at a pivot it joins callers to services and answers the client's questions. What it needs from
//! elsewhere it asks by [`Action`]. Neighbours: `admit` opens builds, `hop` is one path's part here, `join` keeps who
//! is joined to whom; `path` is the client's side and unknown here.

pub mod admit;
pub mod census;
pub mod hop;
pub mod join;
pub mod leg;
#[cfg(test)]
mod tests;

use crate::crypto::random::Chance;
use crate::link::{LinkId, Links, Ticket};
use crate::netdb::Netdb;
use crate::shared::Shared;
use crate::time::{Now, Time};
use crate::wire::build::{self, BUILD, Purpose, Status};
use crate::wire::cell::{Kind, Size};
use crate::wire::control::{Ask, Tell};
use crate::wire::fragment::{self, Fragment};
use crate::wire::id::{CallerId, PathId, RelayId};
use crate::wire::request::{ENDED_MAX, Request};
use admit::{Admit, Refusal};
use bytes::Bytes;
use core::time::Duration;
use hop::{Hop, HopRef, Part};
use leg::{Leg, Legs, Passed, To};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLock};

/// Most paths through one relay at once.
pub const HOPS_MAX: usize = 65_536;
/// Of those, most that one client's link brings: as many as a client has paths.
pub const HOPS_OF_CLIENT: usize = 1024;
/// The longest life a build may ask for.
pub const LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// A hop over which its client has sent nothing for so long after its build ends: the build failed further on, or its
/// reply never came home. Who has a live path asks for a sign of life much sooner.
pub const UNUSED: Duration = Duration::from_secs(60);
/// How long a pivot may take to be dialled, where it must be, and for its reply.
pub const PIVOT_PATIENCE: Duration = Duration::from_millis(2000);
/// How much longer every hop before it: each must outlast the next one's wait, or it would be blamed for what lies
/// behind it. Together less than the client's own patience.
pub const HOP_PATIENCE: Duration = Duration::from_millis(750);

/// No question of a client has more fragments than this: strangers' unfinished ones are kept here.
pub const ASK_FRAGMENTS: u8 = 2;

/// What transit needs done.
#[derive(Debug)]
pub enum Action {
    /// Answer a neighbour's request, or refuse it.
    Answer(Ticket, Option<Bytes>),
    /// A client asks its pivot something that is not transit's to know; answer with [`Transit::tell`].
    Asked(HopRef, u32, Ask),
    /// Tell the neighbour at the other end of this link that these paths have ended.
    Ended(LinkId, Vec<PathId>),
}

/// Why a hop is removed, and so who is to hear of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Its time is up, its client closed it, or it never was: nobody need be told.
    Over,
    /// What lay behind it is gone: its client is told.
    Onward,
    /// What lay before it is gone: whoever comes after it is told.
    Back,
}

struct Forwarded {
    from: Ticket,
    hop: usize,
    serial: u64,
    admitted: admit::Keyed,
}

/// All hops a relay lends.
pub struct Transit {
    own: RelayId,
    chance: Chance,
    admit: Admit,
    hops: Vec<Option<Box<Hop>>>,
    free: Vec<usize>,
    serial: u64,
    legs: Shared<Legs>,
    joins: join::Joins,
    /// How many hops came by each link.
    brought: BTreeMap<LinkId, usize>,
    expiry: BTreeSet<(Time, usize)>,
    forwarded: BTreeMap<Ticket, Forwarded>,
    /// Paths whose next hops have yet to be told that nothing will follow.
    ended: BTreeMap<LinkId, Vec<PathId>>,
    actions: Vec<Action>,
    /// Cells dropped: unknown path, forged or replayed layer, no join.
    pub dropped: u64,
    /// Cells of known paths; of those the ones passed on, and the ones that were for us.
    pub cells: (u64, u64, u64),
    /// Builds accepted and refused.
    pub builds: (u64, u64),
}

impl Transit {
    /// A relay's transit with its onion keys.
    pub fn new(own: RelayId, keys: admit::OnionKeys, chance: Chance) -> Transit {
        Transit {
            own,
            chance,
            admit: Admit::new(own, keys),
            hops: Vec::new(),
            free: Vec::new(),
            serial: 0,
            legs: Shared::default(),
            joins: join::Joins::default(),
            brought: BTreeMap::new(),
            expiry: BTreeSet::new(),
            forwarded: BTreeMap::new(),
            ended: BTreeMap::new(),
            actions: Vec::new(),
            dropped: 0,
            cells: (0, 0, 0),
            builds: (0, 0),
        }
    }

    /// Mixes fresh entropy in.
    pub fn reseed(&mut self, fresh: &[u8; 32]) {
        self.chance.reseed(fresh);
    }

    /// The onion keys, for publishing and rotating.
    pub fn keys(&mut self) -> &mut admit::OnionKeys {
        self.admit.keys()
    }

    /// How many paths go through us.
    pub fn len(&self) -> usize {
        self.hops.len() - self.free.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is to be done; empties the list.
    pub fn actions(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.actions)
    }

    /// A neighbour asks us to be a hop.
    pub fn build(&mut self, link: LinkId, ticket: Ticket, body: &Bytes, netdb: &Netdb, links: &mut Links, now: Now) {
        let relay = links.get(link).is_some_and(|link| link.relay);
        let previous = links.get(link).map(|link| link.peer);
        let brought = self.brought.get(&link).copied().unwrap_or(0);
        let room = self.len() < HOPS_MAX && (relay || brought < HOPS_OF_CLIENT);
        let (header, deeper, keyed) = match self.admit.open(link, relay, body, room, &mut self.chance, now) {
            Ok(opened) => opened,
            Err(Refusal::Silent) => return self.refuse(ticket, None),
            Err(Refusal::Spoken(opening, depth, status)) => {
                let reply = build::seal_reply(&opening, depth, status, None, &mut self.chance);
                return self.refuse(ticket, Some(reply.into()));
            }
        };
        let status = self.check(link, &header, previous, netdb, links);
        if status != Status::Accepted {
            let reply = keyed.refuse(status, &mut self.chance);
            return self.refuse(ticket, Some(reply.into()));
        }
        let lifetime = Duration::from_secs(header.lifetime.into()).min(LIFETIME_MAX);
        self.serial += 1;
        let part = match (&header.next, header.purpose) {
            (Some((_, _, wire)), _) => Part::Middle { next: None, wire: *wire },
            (None, Purpose::General) => Part::Pivot,
            (None, Purpose::Host(token)) => Part::Host { token },
            (None, Purpose::Join(_)) => Part::Pivot,
        };
        let index = self.place();
        let at = HopRef { index, serial: self.serial };
        let hop = keyed.hop(at, (link, header.back), part, now.mono + lifetime, &header, now.mono);
        self.insert(index, hop);
        match (&header.next, header.purpose) {
            (Some((next, addrs, wire)), _) => {
                let known = netdb.addrs(next);
                let addrs = if known.is_empty() { *addrs } else { known };
                let mut body = deeper.to_vec();
                build::pad(&mut body, BUILD, &mut self.chance);
                let request = Request::Build(body.into()).encode();
                let patience = PIVOT_PATIENCE + HOP_PATIENCE * u32::from(header.depth.saturating_sub(2));
                let out = links.request(*next, addrs.list(), request, patience, now.mono);
                if let Some(next) = links.link_of(out) {
                    self.connect(index, next, *wire);
                }
                let serial = self.serial;
                self.forwarded.insert(out, Forwarded { from: ticket, hop: index, serial, admitted: keyed });
                return;
            }
            (None, Purpose::Host(token)) => {
                self.joins.host(token, index);
                self.lead(index, To::Callers(HashMap::new()));
            }
            (None, Purpose::Join(token)) => self.join(index, &token, &deeper, links, now.mono),
            (None, Purpose::General) => {}
        }
        self.builds.0 += 1;
        let reply = keyed.accept(&[], &mut self.chance);
        self.actions.push(Action::Answer(ticket, Some(reply.into())));
    }

    fn refuse(&mut self, ticket: Ticket, reply: Option<Bytes>) {
        self.builds.1 += 1;
        self.actions.push(Action::Answer(ticket, reply));
    }

    fn check(
        &self,
        link: LinkId,
        header: &build::Header,
        previous: Option<RelayId>,
        netdb: &Netdb,
        links: &Links,
    ) -> Status {
        if self.is_taken(link, header.back) || header.back.0 == 0 {
            return Status::Taken;
        }
        if let Some((next, addrs, wire)) = &header.next {
            let known = netdb.registry().lists(next);
            if !known || *next == self.own || Some(*next) == previous || !netdb.may_dial(addrs) {
                return Status::BadNext;
            }
            let taken = links.to(next).is_some_and(|next| self.is_taken(next, *wire));
            return if taken || wire.0 == 0 { Status::Taken } else { Status::Accepted };
        }
        match header.purpose {
            Purpose::Join(token) if self.joins.service(&token).is_none() => Status::NoSuchJoin,
            Purpose::Join(token) if self.joins.is_full(&token) => Status::Busy,
            Purpose::Host(token) if self.joins.service(&token).is_some() => Status::Taken,
            _ => Status::Accepted,
        }
    }

    fn is_taken(&self, link: LinkId, path: PathId) -> bool {
        self.legs.look(|legs| legs.contains_key(&(link, path)))
    }

    /// A free place for a hop.
    fn place(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.hops.push(None);
            self.hops.len() - 1
        })
    }

    fn insert(&mut self, index: usize, hop: Hop) {
        let (down, wire) = (Leg::Down(hop.down.clone()), hop.back);
        self.legs.change(|legs| legs.insert(wire, down));
        *self.brought.entry(wire.0).or_default() += 1;
        self.expiry.insert((hop.expires, index));
        self.hops[index] = Some(Box::new(hop));
    }

    fn lead(&self, index: usize, to: To) {
        if let Some(hop) = self.hops.get(index).and_then(Option::as_ref) {
            hop.down.lead(to);
        }
    }

    fn connect(&mut self, index: usize, link: LinkId, wire: PathId) -> bool {
        if self.is_taken(link, wire) {
            return false;
        }
        let Some(hop) = self.hops[index].as_mut() else { return false };
        let Part::Middle { next, .. } = &mut hop.part else { return false };
        *next = Some(link);
        hop.down.lead(To::Next(link, wire));
        let up = Leg::Up(hop.up.clone());
        self.legs.change(|legs| legs.insert((link, wire), up));
        true
    }

    fn join(&mut self, index: usize, token: &[u8; build::TOKEN], rider: &[u8], links: &mut Links, now: Time) {
        let Some((service, caller)) = self.joins.join(token, index, &mut self.chance) else { return };
        let host = self.hops[service].as_ref().map(|host| (host.down.clone(), host.up.clone()));
        if let (Some(hop), Some((down, up))) = (self.hops[index].as_mut(), host) {
            hop.part = Part::Caller { service, caller };
            down.caller(caller, Some(hop.up.clone()));
            hop.down.lead(To::Service(up, caller));
        }
        // The caller's first message rode along; from here it travels as its own cells would.
        let message =
            rider.get(..2).and_then(|len| rider.get(2..2 + usize::from(u16::from_be_bytes([len[0], len[1]]))));
        let Some(message) = message.filter(|message| !message.is_empty()) else { return };
        let room = Size::Full.payload() - crate::wire::session::HEADER;
        for piece in fragment::split(self.chance.nonzero(), message, room) {
            self.up(service, Size::Full, Kind::Data, links, now, |body| {
                body.fill(0);
                body[..4].copy_from_slice(&caller.0.to_be_bytes());
                body[8..8 + piece.len()].copy_from_slice(&piece);
            });
        }
    }

    /// The next hop replied, on this link, to a build we passed on, or did not; false when the ticket is not ours.
    pub fn reply(
        &mut self,
        ticket: Ticket,
        reply: Option<Bytes>,
        link: Option<LinkId>,
        links: &mut Links,
        now: Time,
    ) -> bool {
        let Some(forwarded) = self.forwarded.remove(&ticket) else { return false };
        let Forwarded { from, hop: index, serial, admitted } = forwarded;
        let wire = match self.hops.get(index).and_then(|hop| hop.as_ref()).filter(|hop| hop.serial == serial) {
            Some(hop) => match hop.part {
                Part::Middle { wire, next } => Some((wire, next)),
                _ => None,
            },
            None => None,
        };
        let connected = match wire {
            Some((_, Some(next))) => link == Some(next),
            Some((wire, None)) => link.is_some_and(|link| self.connect(index, link, wire)),
            None => false,
        };
        let reply = reply.filter(|reply| reply.len() == build::REPLY && connected);
        let answer = match reply {
            Some(deeper) => {
                self.builds.0 += 1;
                admitted.accept(&deeper, &mut self.chance)
            }
            None => {
                if wire.is_some() {
                    self.remove(index, links, now, Why::Over);
                }
                self.builds.1 += 1;
                admitted.refuse(Status::Unreachable, &mut self.chance)
            }
        };
        self.actions.push(Action::Answer(from, Some(answer.into())));
        true
    }

    /// A cell for a path through us, its onion opened by the link; false when we know no such path.
    pub fn cell(
        &mut self,
        link: LinkId,
        path: PathId,
        size: Size,
        onion: &mut [u8],
        links: &mut Links,
        now: Time,
    ) -> bool {
        let Some(leg) = self.legs.look(|legs| legs.get(&(link, path)).cloned()) else { return false };
        self.cells.0 += 1;
        match leg.hold().pass(size, onion, links, now) {
            Passed::On => self.cells.1 += 1,
            Passed::Dropped => self.dropped += 1,
            Passed::Cover => self.cells.2 += 1,
            Passed::Control(hop, within) => {
                self.cells.2 += 1;
                self.control(hop, &onion[within], links, now);
            }
        }
        true
    }

    /// The legs, to be shared with other cores.
    pub fn share(&mut self) -> Arc<RwLock<Legs>> {
        self.legs.share()
    }

    /// Sends a body up a path, towards its client.
    fn up(&mut self, index: usize, size: Size, kind: Kind, links: &mut Links, now: Time, fill: impl FnOnce(&mut [u8])) {
        if let Some(hop) = self.hops.get(index).and_then(Option::as_ref) {
            hop.up.wrap(size, kind, links, now, fill);
        }
    }

    /// A piece of a question that a client puts to us as its hop; in vain when the path is gone.
    pub fn control(&mut self, to: HopRef, body: &[u8], links: &mut Links, now: Time) {
        let index = to.index;
        let Some(fragment) = Fragment::decode(body).ok().filter(|f| f.count <= ASK_FRAGMENTS) else { return };
        let Some(hop) = self.hops.get_mut(index).and_then(Option::as_mut).filter(|hop| hop.serial == to.serial) else {
            return;
        };
        let message = fragment.message;
        // Long questions are for pivots alone: a middle hop never holds half of one.
        if hop.depth > 1 && fragment.count > 1 {
            return;
        }
        // A question repeated because our answer was lost: the same answer again, without asking anybody anew.
        if let Some(answer) = hop.desk.answered(message) {
            if fragment.index == 0 && hop.desk.may_ask(now) {
                self.say(index, message, &answer, links, now);
            }
            return;
        }
        let Some(whole) = hop.desk.assembler.take(fragment) else { return };
        match Ask::decode(&whole) {
            Ok(Ask::Ping) => self.say(index, message, &Tell::Pong.encode(), links, now),
            Ok(Ask::Close) => self.remove(index, links, now, Why::Over),
            Ok(ask) if hop.depth == 1 && hop.desk.may_ask(now) && hop.desk.note(message) => {
                let hop = HopRef { index, serial: hop.serial };
                self.actions.push(Action::Asked(hop, message, ask));
            }
            _ => {}
        }
    }

    /// Answers a client's question; in vain when its path is gone.
    pub fn tell(&mut self, to: HopRef, message: u32, tell: &Tell, links: &mut Links, now: Time) {
        let Some(hop) = self.hops.get_mut(to.index).and_then(Option::as_mut) else { return };
        if hop.serial == to.serial {
            let answer = tell.encode();
            hop.desk.remember(message, &answer);
            self.say(to.index, message, &answer, links, now);
        }
    }

    fn say(&mut self, index: usize, message: u32, tell: &[u8], links: &mut Links, now: Time) {
        let Some(hop) = self.hops.get(index).and_then(Option::as_ref) else { return };
        for piece in fragment::split(message, tell, Size::Full.payload()) {
            let size = if piece.len() <= Size::Small.payload() { Size::Small } else { Size::Full };
            hop.up.wrap(size, Kind::Control, links, now, |body| write(body, &piece));
        }
    }

    /// A link is gone: paths that came by it end; paths that went on by it are told so. A build that waits for its reply
    /// is put again over another link; the hop is then known by that one.
    pub fn link_down(&mut self, link: LinkId, links: &mut Links, now: Time) {
        let pending: BTreeSet<(usize, u64)> = self.forwarded.values().map(|sent| (sent.hop, sent.serial)).collect();
        let touched: Vec<(usize, Why)> = self
            .hops
            .iter()
            .enumerate()
            .filter_map(|(index, hop)| hop.as_ref().map(|hop| (index, hop)))
            .filter_map(|(index, hop)| match hop.part {
                _ if hop.back.0 == link => Some((index, Why::Back)),
                Part::Middle { next: Some(next), .. } if next == link => Some((index, Why::Onward)),
                _ => None,
            })
            .collect();
        for (index, why) in touched {
            match self.hops[index].as_mut() {
                Some(hop) if why == Why::Onward && pending.contains(&(index, hop.serial)) => {
                    if let Part::Middle { next, wire } = &mut hop.part {
                        *next = None;
                        let wire = *wire;
                        hop.down.lead(To::Nobody);
                        self.legs.change(|legs| legs.remove(&(link, wire)));
                    }
                }
                _ => self.remove(index, links, now, why),
            }
        }
        self.admit.forget(link);
        self.say_ended();
    }

    /// A neighbour lost the link by which these paths came to it: nothing will follow on them. A service's callers are
    /// told, and seek another way at once.
    pub fn ended(&mut self, link: LinkId, paths: &[PathId], links: &mut Links, now: Time) {
        for path in paths {
            // Only who is before us on a path can say so of it.
            let leg = self.legs.look(|legs| legs.get(&(link, *path)).cloned());
            if let Some(Leg::Down(down)) = leg {
                self.remove(down.hop.index, links, now, Why::Back);
            }
        }
        self.say_ended();
    }

    fn say_ended(&mut self) {
        for (link, paths) in core::mem::take(&mut self.ended) {
            self.actions.extend(paths.chunks(ENDED_MAX).map(|paths| Action::Ended(link, paths.to_vec())));
        }
    }

    /// Forgets what clients asked their pivot here and nobody will ask for again.
    pub fn tidy(&mut self, now: Time) {
        self.hops.iter_mut().flatten().for_each(|hop| hop.desk.tidy(now));
    }

    /// When to call [`Transit::wake`].
    pub fn next_wake(&self) -> Option<Time> {
        self.expiry.first().map(|(at, _)| *at)
    }

    /// Ends paths whose time is up.
    pub fn wake(&mut self, links: &mut Links, now: Time) {
        while let Some((at, index)) = self.expiry.first().copied()
            && at <= now
        {
            // What its client has used since it was made stays for as long as it was asked for.
            match self.hops[index].as_mut().filter(|hop| hop.expires < hop.lifetime && hop.down.is_used()) {
                Some(hop) => {
                    hop.expires = hop.lifetime;
                    self.expiry.remove(&(at, index));
                    self.expiry.insert((hop.lifetime, index));
                }
                None => self.remove(index, links, now, Why::Over),
            }
        }
    }

    fn remove(&mut self, index: usize, links: &mut Links, now: Time, why: Why) {
        let Some(hop) = self.hops[index].take() else { return };
        self.free.push(index);
        self.expiry.remove(&(hop.expires, index));
        self.legs.change(|legs| {
            legs.remove(&hop.back);
            if let Part::Middle { next: Some(next), wire } = hop.part {
                legs.remove(&(next, wire));
            }
        });
        if let Some(brought) = self.brought.get_mut(&hop.back.0) {
            *brought -= 1;
            if *brought == 0 {
                self.brought.remove(&hop.back.0);
            }
        }
        let message = self.chance.nonzero();
        if why == Why::Onward {
            for piece in fragment::split(message, &Tell::Closed.encode(), Size::Small.payload()) {
                hop.up.wrap(Size::Small, Kind::Control, links, now, |body| write(body, &piece));
            }
        }
        match hop.part {
            Part::Middle { next: Some(next), wire } if why == Why::Back => {
                self.ended.entry(next).or_default().push(wire);
            }
            Part::Host { token } => {
                for index in self.joins.end_service(&token) {
                    // The service's place will be somebody else's: what this caller still sends leads nowhere.
                    if let Some(caller) = self.hops.get_mut(index).and_then(Option::as_mut) {
                        caller.part = Part::Pivot;
                        caller.down.lead(To::Nobody);
                    }
                    self.say(index, message, &Tell::JoinEnded(CallerId(0)).encode(), links, now);
                }
            }
            Part::Caller { service, caller } => {
                self.joins.end_caller(service, caller);
                if let Some(host) = self.hops.get(service).and_then(Option::as_ref) {
                    host.down.caller(caller, None);
                }
                self.say(service, message, &Tell::JoinEnded(caller).encode(), links, now);
            }
            Part::Middle { .. } | Part::Pivot => {}
        }
    }
}

/// Writes bytes, and zeroes over whatever stands behind them.
fn write(room: &mut [u8], bytes: &[u8]) {
    let (start, rest) = room.split_at_mut(bytes.len());
    start.copy_from_slice(bytes);
    rest.fill(0);
}
