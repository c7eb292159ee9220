//! Floor 2: hops we lend to strangers. A [`Transit`] admits builds, forwards their records, and then peels, wraps and
//! hands over cells; at a pivot it joins callers to services and answers the client's questions. What it needs from
//! elsewhere it asks by [`Action`]. Neighbours: `admit` opens builds, `hop` is one path's part here, `join` keeps who
//! is joined to whom; `path` is the client's side and unknown here.

pub mod admit;
pub mod census;
pub mod hop;
pub mod join;
#[cfg(test)]
mod tests;

use crate::crypto::onion::{BODY_AT, TYPE_AT};
use crate::crypto::random::Chance;
use crate::crypto::seal::TAG;
use crate::link::{LinkId, Links, Ticket};
use crate::netdb::Netdb;
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
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Most paths through one relay at once.
pub const HOPS_MAX: usize = 65_536;
/// Of those, most that one client's link brings: as many as a client has paths.
pub const HOPS_OF_CLIENT: usize = 1024;
/// The longest life a build may ask for.
pub const LIFETIME_MAX: Duration = Duration::from_secs(3600);
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

#[derive(Clone, Copy)]
enum Side {
    /// The cell came from the client's side.
    Forward,
    /// The cell came from the pivot's side.
    Backward,
}

/// All hops a relay lends.
pub struct Transit {
    own: RelayId,
    chance: Chance,
    admit: Admit,
    hops: Vec<Option<Box<Hop>>>,
    free: Vec<usize>,
    serial: u64,
    wire: HashMap<(LinkId, PathId), (usize, Side)>,
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
            wire: HashMap::new(),
            joins: join::Joins::default(),
            brought: BTreeMap::new(),
            expiry: BTreeSet::new(),
            forwarded: BTreeMap::new(),
            ended: BTreeMap::new(),
            actions: Vec::new(),
            dropped: 0,
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
        let hop = keyed.hop(self.serial, (link, header.back), part, now.mono + lifetime, &header, now.mono);
        let index = self.insert(hop, (link, header.back));
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
            (None, Purpose::Host(token)) => self.joins.host(token, index),
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
        if self.wire.contains_key(&(link, header.back)) || header.back.0 == 0 {
            return Status::Taken;
        }
        if let Some((next, addrs, wire)) = &header.next {
            let known = netdb.registry().lists(next);
            if !known || *next == self.own || Some(*next) == previous || !netdb.may_dial(addrs) {
                return Status::BadNext;
            }
            let taken = links.to(next).is_some_and(|next| self.wire.contains_key(&(next, *wire)));
            return if taken || wire.0 == 0 { Status::Taken } else { Status::Accepted };
        }
        match header.purpose {
            Purpose::Join(token) if self.joins.service(&token).is_none() => Status::NoSuchJoin,
            Purpose::Join(token) if self.joins.is_full(&token) => Status::Busy,
            Purpose::Host(token) if self.joins.service(&token).is_some() => Status::Taken,
            _ => Status::Accepted,
        }
    }

    fn insert(&mut self, hop: Hop, wire: (LinkId, PathId)) -> usize {
        let expires = hop.expires;
        let index = match self.free.pop() {
            Some(index) => {
                self.hops[index] = Some(Box::new(hop));
                index
            }
            None => {
                self.hops.push(Some(Box::new(hop)));
                self.hops.len() - 1
            }
        };
        self.wire.insert(wire, (index, Side::Forward));
        *self.brought.entry(wire.0).or_default() += 1;
        self.expiry.insert((expires, index));
        index
    }

    fn connect(&mut self, index: usize, link: LinkId, wire: PathId) -> bool {
        if self.wire.contains_key(&(link, wire)) {
            return false;
        }
        if let Some(Part::Middle { next, .. }) = self.hops[index].as_mut().map(|hop| &mut hop.part) {
            *next = Some(link);
            self.wire.insert((link, wire), (index, Side::Backward));
            return true;
        }
        false
    }

    fn join(&mut self, index: usize, token: &[u8; build::TOKEN], rider: &[u8], links: &mut Links, now: Time) {
        let Some((service, caller)) = self.joins.join(token, index, &mut self.chance) else { return };
        if let Some(hop) = self.hops[index].as_mut() {
            hop.part = Part::Caller { service, caller };
        }
        // The caller's first message rode along; from here it travels as its own cells would.
        let message =
            rider.get(..2).and_then(|len| rider.get(2..2 + usize::from(u16::from_be_bytes([len[0], len[1]]))));
        let Some(message) = message.filter(|message| !message.is_empty()) else { return };
        let room = Size::Full.payload() - crate::wire::session::HEADER;
        for piece in fragment::split(self.chance.nonzero(), message, room) {
            self.up(service, Size::Full, Kind::Data, links, now, |body| {
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
        let Some((index, side)) = self.wire.get(&(link, path)).copied() else { return false };
        let Some(hop) = self.hops[index].as_mut() else { return false };
        match side {
            Side::Backward => {
                let inner = &onion[..size.layer(usize::from(hop.depth) - 1)];
                hop.wrap(size, Kind::Pass, links, now, |body| body.copy_from_slice(inner));
            }
            Side::Forward => {
                let layer = &mut onion[..size.layer(hop.depth.into())];
                if hop.opener.open(layer, now).is_err() {
                    self.dropped += 1;
                    return true;
                }
                let kind = Kind::from_byte(layer[TYPE_AT]);
                let end = layer.len() - TAG;
                let body = &mut layer[BODY_AT..end];
                match (kind, &hop.part) {
                    (Some(Kind::Pass), Part::Middle { next: Some(next), wire }) => {
                        let (next, wire) = (*next, *wire);
                        links.put(next, wire, size, now, |onion| onion[..body.len()].copy_from_slice(body));
                    }
                    (Some(Kind::Data), Part::Caller { service, caller }) => {
                        let (service, caller) = (*service, *caller);
                        body[..4].copy_from_slice(&caller.0.to_be_bytes());
                        self.up(service, size, Kind::Data, links, now, |to| to.copy_from_slice(body));
                    }
                    (Some(Kind::Data), Part::Host { token }) => {
                        let caller = CallerId(u32::from_be_bytes([body[0], body[1], body[2], body[3]]));
                        match self.joins.caller(token, caller) {
                            Some(index) => {
                                body[..4].fill(0);
                                self.up(index, size, Kind::Data, links, now, |to| to.copy_from_slice(body));
                            }
                            None => self.dropped += 1,
                        }
                    }
                    (Some(Kind::Control), _) => self.control(index, body, links, now),
                    (Some(Kind::Cover), _) => {}
                    _ => self.dropped += 1,
                }
            }
        }
        true
    }

    /// Sends a body up a path, towards its client.
    fn up(&mut self, index: usize, size: Size, kind: Kind, links: &mut Links, now: Time, fill: impl FnOnce(&mut [u8])) {
        if let Some(hop) = self.hops.get_mut(index).and_then(Option::as_mut) {
            hop.wrap(size, kind, links, now, fill);
        }
    }

    fn control(&mut self, index: usize, body: &[u8], links: &mut Links, now: Time) {
        let Some(fragment) = Fragment::decode(body).ok().filter(|f| f.count <= ASK_FRAGMENTS) else { return };
        let Some(hop) = self.hops[index].as_mut() else { return };
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
        let Some(hop) = self.hops.get_mut(index).and_then(Option::as_mut) else { return };
        for piece in fragment::split(message, tell, Size::Full.payload()) {
            let size = if piece.len() <= Size::Small.payload() { Size::Small } else { Size::Full };
            hop.wrap(size, Kind::Control, links, now, |body| body[..piece.len()].copy_from_slice(&piece));
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
                        self.wire.remove(&(link, *wire));
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
            if let Some((index, Side::Forward)) = self.wire.get(&(link, *path)).copied() {
                self.remove(index, links, now, Why::Back);
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
            self.remove(index, links, now, Why::Over);
        }
    }

    fn remove(&mut self, index: usize, links: &mut Links, now: Time, why: Why) {
        let Some(mut hop) = self.hops[index].take() else { return };
        self.free.push(index);
        self.expiry.remove(&(hop.expires, index));
        self.wire.remove(&hop.back);
        if let Some(brought) = self.brought.get_mut(&hop.back.0) {
            *brought -= 1;
            if *brought == 0 {
                self.brought.remove(&hop.back.0);
            }
        }
        let message = self.chance.nonzero();
        if why == Why::Onward {
            for piece in fragment::split(message, &Tell::Closed.encode(), Size::Small.payload()) {
                hop.wrap(Size::Small, Kind::Control, links, now, |body| body[..piece.len()].copy_from_slice(&piece));
            }
        }
        match hop.part {
            Part::Middle { next: Some(next), wire } => {
                self.wire.remove(&(next, wire));
                if why == Why::Back {
                    self.ended.entry(next).or_default().push(wire);
                }
            }
            Part::Host { token } => {
                for index in self.joins.end_service(&token) {
                    // The service's place will be somebody else's: what this caller still sends leads nowhere.
                    if let Some(caller) = self.hops.get_mut(index).and_then(Option::as_mut) {
                        caller.part = Part::Pivot;
                    }
                    self.say(index, message, &Tell::JoinEnded(CallerId(0)).encode(), links, now);
                }
            }
            Part::Caller { service, caller } => {
                self.joins.end_caller(service, caller);
                self.say(service, message, &Tell::JoinEnded(caller).encode(), links, now);
            }
            Part::Middle { .. } | Part::Pivot => {}
        }
    }
}
