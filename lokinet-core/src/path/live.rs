//! A live path: cells both ways, questions to its hops with retransmission, probes when it goes silent, and its end.
//! Neighbours: `layers` wraps, `wire::control` says what questions there are, `path` keeps the table.

use super::AskId;
use super::layers::Layers;
use crate::crypto::onion::Dropped;
use crate::crypto::random::Chance;
use crate::link::{Egress, LinkId, Links};
use crate::time::Time;
use crate::wire::build::Purpose;
use crate::wire::cell::{Kind, Size};
use crate::wire::contact::Contact;
use crate::wire::control::{Ask, Tell};
use crate::wire::fragment::{self, Assembler, Fragment};
use crate::wire::id::{PathId, RelayId};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A path that has heard nothing for so long is probed.
pub const IDLE: Duration = Duration::from_secs(5);
/// One that carried data is probed so soon, then at doubling pauses: whoever used it would wait to be heard again.
pub const USED: Duration = Duration::from_secs(1);
/// A path that sends and hears nothing for so long is probed at once.
pub const SILENCE: Duration = Duration::from_millis(400);
/// A path that sent and heard nothing for so long is not given new questions.
pub const LATE: Duration = Duration::from_millis(100);
/// A probed path that stays silent so long (or four round trips, if longer) is dead.
pub const DEAD: Duration = Duration::from_millis(1250);
/// First pause before a question is repeated; it doubles.
pub const REPEAT: Duration = Duration::from_millis(250);
/// How often a question is sent before it is given up.
pub const TRIES: u32 = 5;
/// Most questions open on one path.
pub const ASKS_MAX: usize = 64;

struct Open {
    id: AskId,
    fragments: Vec<Vec<u8>>,
    tries: u32,
    sent: Time,
    next: Time,
    probe: bool,
}

/// What a cell was.
pub enum Received<'a> {
    /// A session's bytes.
    Data(&'a mut [u8]),
    /// The answer to a question.
    Answer(AskId, Tell),
    /// Said unasked.
    Told(Tell),
    /// Part of something, or nothing.
    Nothing,
}

/// Why a path ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Its time is up.
    Old,
    /// Its hops do not answer.
    Silent,
}

/// What waking a path led to.
#[derive(Default)]
pub struct Outcome {
    /// Questions given up.
    pub unanswered: Vec<AskId>,
    /// Whether it fell silent just now.
    pub suspicious: bool,
    /// Whether the path is over.
    pub end: Option<End>,
}

/// Pages of contacts come from our own hops.
fn roomy() -> Assembler {
    Assembler::new(fragment::PAGES_HELD_MAX)
}

/// A path that was built.
pub struct Live {
    layers: Layers,
    hops: Vec<Arc<Contact>>,
    first: (LinkId, PathId),
    purpose: Purpose,
    expires: Time,
    round_trip: Duration,
    heard: Time,
    /// When it came to live: until something is sent over it, hearing cells is no reason to be quiet, since its hops end
    /// when their client never uses them.
    born: Time,
    /// Since when we have been sending without hearing anything.
    waiting: Option<Time>,
    /// Whether others have been told that it is silent.
    suspected: bool,
    open: BTreeMap<u32, Open>,
    assemblers: BTreeMap<usize, Assembler>,
    /// After how much silence it is probed.
    idle: Duration,
    /// Cells sent and received.
    pub cells: (u64, u64),
    pub(super) held: Vec<(Size, Vec<u8>)>,
}

impl Live {
    pub(super) fn new(
        layers: Layers,
        hops: Vec<Arc<Contact>>,
        first: (LinkId, PathId),
        purpose: Purpose,
        expires: Time,
        round_trip: Duration,
        now: Time,
    ) -> Live {
        Live {
            layers,
            hops,
            first,
            purpose,
            expires,
            round_trip,
            heard: now,
            born: now,
            waiting: None,
            suspected: false,
            open: BTreeMap::new(),
            assemblers: BTreeMap::new(),
            idle: IDLE,
            cells: (0, 0),
            held: Vec::new(),
        }
    }

    /// The first link and the path's name on it.
    pub fn first(&self) -> (LinkId, PathId) {
        self.first
    }

    /// The relays, first hop first.
    pub fn hops(&self) -> &[Arc<Contact>] {
        &self.hops
    }

    /// The last hop.
    pub fn pivot(&self) -> RelayId {
        self.hops.last().map_or(RelayId([0; 32]), |hop| hop.id)
    }

    /// What the pivot does with it.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// When it ends.
    pub fn expires(&self) -> Time {
        self.expires
    }

    /// Smoothed time to the pivot and back.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    pub(super) fn open_asks(&self) -> impl Iterator<Item = AskId> {
        self.open.values().filter(|open| !open.probe).map(|open| open.id)
    }

    pub(super) fn send(
        &mut self,
        size: Size,
        kind: Kind,
        links: &mut Links,
        now: Time,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let pivot = self.layers.len() - 1;
        self.send_to(pivot, size, kind, links, now, fill)
    }

    fn send_to(
        &mut self,
        hop: usize,
        size: Size,
        kind: Kind,
        links: &mut Links,
        now: Time,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let layers = &mut self.layers;
        let (link, path) = self.first;
        let sent = links.put(link, path, size, now, |onion| layers.wrap(onion, size, hop, kind, now, fill));
        if sent {
            if kind == Kind::Data {
                self.idle = USED;
            }
            self.cells.0 += 1;
            self.waiting.get_or_insert(now);
        }
        sent
    }

    pub(super) fn receive<'a>(&mut self, size: Size, onion: &'a mut [u8], now: Time) -> Result<Received<'a>, Dropped> {
        let (hop, kind, body) = self.layers.unwrap(onion, size, now)?;
        self.cells.1 += 1;
        self.heard = now;
        (self.waiting, self.suspected) = (None, false);
        let pivot = hop + 1 == self.layers.len();
        match kind {
            Kind::Data if pivot => {
                self.idle = USED;
                Ok(Received::Data(body))
            }
            Kind::Control => Ok(self.control(hop, body, now)),
            _ => Ok(Received::Nothing),
        }
    }

    fn control<'a>(&mut self, hop: usize, body: &[u8], now: Time) -> Received<'a> {
        let Ok(fragment) = Fragment::decode(body) else { return Received::Nothing };
        let message = fragment.message;
        let Some(whole) = self.assemblers.entry(hop).or_insert_with(roomy).take(fragment) else {
            return Received::Nothing;
        };
        let Ok(tell) = Tell::decode(&whole) else { return Received::Nothing };
        match self.open.remove(&message) {
            Some(open) => {
                if open.tries == 1 {
                    let sample = now.since(open.sent);
                    self.round_trip = (self.round_trip * 7 + sample) / 8;
                }
                if open.probe { Received::Nothing } else { Received::Answer(open.id, tell) }
            }
            None => match tell {
                Tell::Closed | Tell::JoinEnded(_) => Received::Told(tell),
                _ => Received::Nothing,
            },
        }
    }

    pub(super) fn ask(&mut self, id: AskId, ask: &Ask, chance: &mut Chance, links: &mut Links, now: Time) -> bool {
        // A probe always finds room: without it nobody would notice that the path is dead.
        let probe = *ask == Ask::Ping;
        if self.open.len() >= ASKS_MAX && !probe {
            return false;
        }
        if probe {
            self.idle = (self.idle * 2).min(IDLE);
        }
        let size = Size::Full;
        let message = chance.nonzero();
        let fragments = fragment::split(message, &ask.encode(), size.payload());
        if fragments.is_empty() {
            return false;
        }
        let open = Open { id, fragments, tries: 0, sent: now, next: now, probe };
        self.open.insert(message, open);
        self.repeat(message, links, now);
        true
    }

    fn repeat(&mut self, message: u32, links: &mut Links, now: Time) {
        let Some(mut open) = self.open.remove(&message) else { return };
        for fragment in &open.fragments {
            let size = if fragment.len() <= Size::Small.payload() { Size::Small } else { Size::Full };
            self.send(size, Kind::Control, links, now, |body| body[..fragment.len()].copy_from_slice(fragment));
        }
        // A probe repeats steadily: it is small, and it decides whether the path lives.
        let pause = if open.probe { REPEAT } else { REPEAT * (1 << open.tries.min(6)) };
        open.next = now + pause.max(self.round_trip * 3 / 2);
        open.tries += 1;
        self.open.insert(message, open);
    }

    pub(super) fn say_close(&mut self, chance: &mut Chance, links: &mut Links, now: Time) {
        // To every hop, farthest first: a lost cell then leaves only hops that end by their lifetime.
        for hop in (0..self.layers.len()).rev() {
            let fragment = fragment::split(chance.nonzero(), &Ask::Close.encode(), Size::Small.payload());
            for piece in fragment {
                self.send_to(hop, Size::Small, Kind::Control, links, now, |body| {
                    body[..piece.len()].copy_from_slice(&piece);
                });
            }
        }
    }

    /// When to call [`Live::wake`].
    pub(super) fn next_wake(&self) -> Time {
        let probing = self.open.values().any(|open| open.probe);
        let mut next = self.expires;
        if let Some(since) = self.waiting.filter(|_| !self.suspected) {
            next = next.min(since + self.silence());
        }
        if let Some(since) = self.waiting.filter(|_| probing) {
            next = next.min(since + self.patience());
        }
        if !probing {
            next = next.min(self.quiet() + self.idle);
        }
        self.open.values().map(|open| open.next).fold(next, Time::min)
    }

    /// Whether it should have been heard by now, since we sent something.
    pub(super) fn is_late(&self, now: Time) -> bool {
        self.waiting.is_some_and(|since| now.since(since) > LATE.max(self.round_trip * 3 / 2))
    }

    /// Whether it has been silent for so long that it is being probed.
    pub(super) fn is_silent(&self, now: Time) -> bool {
        self.silent_since(now).is_some()
    }

    /// Since when it has been silent, when that is so long that it is being probed.
    pub(super) fn silent_since(&self, now: Time) -> Option<Time> {
        self.waiting.filter(|since| now.since(*since) >= self.silence())
    }

    /// When it was heard last, or came to live.
    pub(super) fn heard(&self) -> Time {
        self.heard
    }

    /// Asks for a sign of life, unless that is under way.
    pub(super) fn probe(&mut self, id: AskId, chance: &mut Chance, links: &mut Links, now: Time) {
        if !self.open.values().any(|open| open.probe) {
            self.ask(id, &Ask::Ping, chance, links, now);
        }
    }

    /// Since when it is idle.
    fn quiet(&self) -> Time {
        if self.cells.0 == 0 { self.born } else { self.heard }
    }

    fn silence(&self) -> Duration {
        SILENCE.max(self.round_trip * 2)
    }

    fn patience(&self) -> Duration {
        DEAD.max(self.round_trip * 4)
    }

    pub(super) fn wake(&mut self, probe: AskId, chance: &mut Chance, links: &mut Links, now: Time) -> Outcome {
        let mut outcome = Outcome::default();
        if now >= self.expires {
            outcome.end = Some(End::Old);
            return outcome;
        }
        let probing = self.open.values().any(|open| open.probe);
        if let Some(since) = self.waiting
            && probing
            && now.since(since) >= self.patience()
        {
            outcome.end = Some(End::Silent);
            return outcome;
        }
        let silent = self.is_silent(now);
        if silent && !self.suspected {
            (self.suspected, outcome.suspicious) = (true, true);
            // What was asked here is better asked elsewhere, at once.
            outcome.unanswered.extend(self.open_asks());
            self.open.retain(|_, open| open.probe);
        }
        if !probing && (silent || now.since(self.quiet()) >= self.idle) {
            self.ask(probe, &Ask::Ping, chance, links, now);
        }
        let due: Vec<u32> = self.open.iter().filter(|(_, open)| open.next <= now).map(|(m, _)| *m).collect();
        for message in due {
            let given_up = self.open.get(&message).is_some_and(|open| !open.probe && open.tries >= TRIES);
            if given_up {
                outcome.unanswered.extend(self.open.remove(&message).map(|open| open.id));
            } else {
                self.repeat(message, links, now);
            }
        }
        outcome
    }
}
