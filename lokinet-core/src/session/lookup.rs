//! Finding a service's introset: the four relays nearest to its blinded key are asked over our own paths, two first,
//! then the others; the newest edition that opens under the address wins. Whoever does not know every relay yet may
//! be wrong about which are nearest, and asks the next four too before it says that there is none; whoever does not even
//! know half of them never says so. Neighbours: `session` sends the questions, `netdb::shelf` is where they are answered.

use super::Failed;
use crate::crypto::blind;
use crate::netdb::Netdb;
use crate::time::{Now, Time};
use crate::wire::control::Ask;
use crate::wire::id::RelayId;
use crate::wire::introset::{Envelope, Introset};
use bytes::Bytes;
use core::time::Duration;

/// How many relays keep an introset.
pub const COPIES: usize = 4;
/// How many are asked while we do not know every relay.
pub const WIDE: usize = 8;
/// After so long without a find the next relays are asked too.
pub const SECOND: Duration = Duration::from_millis(600);
/// After so long what was not found does not exist.
pub const GIVE_UP: Duration = Duration::from_millis(1900);
/// While no path is live or no relay known, a lookup waits at most so long.
pub const WAIT: Duration = Duration::from_secs(15);
/// Most questions of one lookup that are asked once more when they came to nothing.
pub const VAIN_MAX: u32 = 8;
/// A question that could not be sent is tried again after so long.
pub const UNSENT: Duration = Duration::from_millis(50);
/// After the first find, the other answers are waited for so long.
pub const SETTLE: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unasked,
    Asked,
    Answered,
}

/// A lookup under way.
pub struct Lookup {
    address: [u8; 32],
    created: Time,
    began: Option<Time>,
    key: [u8; 32],
    relays: Vec<(RelayId, State)>,
    best: Option<(u64, Introset, Time)>,
    /// Whether a relay said that it has none.
    denied: bool,
    /// Whether we knew too few relays to be sure that the right ones were asked.
    unsure: bool,
    vain: u32,
    next: Time,
}

/// How a lookup stands.
pub enum Outcome {
    /// Not over.
    Waiting,
    /// The newest introset.
    Found(Introset),
    /// Nobody has one, or nobody could be asked.
    Failed(Failed),
}

impl Lookup {
    /// A lookup of an address.
    pub fn new(address: [u8; 32], now: Time) -> Lookup {
        Lookup {
            address,
            created: now,
            began: None,
            key: [0; 32],
            relays: Vec::new(),
            best: None,
            denied: false,
            unsure: false,
            vain: 0,
            next: now,
        }
    }

    /// Looks again at the next step: something changed.
    pub fn hurry(&mut self) {
        if self.began.is_none() {
            self.next = Time::default();
        }
    }

    /// The questions to send now.
    pub fn questions(&mut self, netdb: &Netdb, now: Now) -> Vec<(RelayId, Ask)> {
        if self.relays.is_empty() {
            let Some(key) = blind::public(&self.address, blind::period(now.wall)) else { return Vec::new() };
            self.key = key;
            self.unsure = netdb.len() * 2 < netdb.registry().len();
            let wide = netdb.len() < netdb.registry().len();
            let count = if wide { WIDE } else { COPIES };
            self.relays = netdb.nearest(&key, count).into_iter().map(|id| (id, State::Unasked)).collect();
        }
        let width = self.width(now.mono);
        if self.best.is_some() {
            return Vec::new();
        }
        let mut asks = Vec::new();
        for (relay, state) in self.relays.iter_mut().take(width).filter(|(_, state)| *state == State::Unasked) {
            *state = State::Asked;
            asks.push((*relay, Ask::Find { at: *relay, key: self.key }));
        }
        if !asks.is_empty() {
            self.began.get_or_insert(now.mono);
        }
        asks
    }

    /// How many of the nearest are to be asked by now: two, then four, then all.
    fn width(&self, now: Time) -> usize {
        let waves = [COPIES / 2, COPIES, WIDE];
        let by_time = self.began.map_or(0, |began| (now.since(began).as_millis() / SECOND.as_millis()) as usize);
        let answered = |wave: usize| self.relays.iter().take(wave).all(|(_, state)| *state == State::Answered);
        let by_answers = waves.iter().take_while(|wave| answered(**wave)).count();
        waves[by_time.max(by_answers).min(waves.len() - 1)]
    }

    /// A question could not be sent: no path yet.
    pub fn unasked(&mut self, relay: &RelayId) {
        if let Some((_, state)) = self.relays.iter_mut().find(|(id, _)| id == relay) {
            *state = State::Unasked;
        }
        if self.relays.iter().all(|(_, state)| *state == State::Unasked) {
            self.began = None;
            self.relays.clear();
        }
    }

    /// A question came to nothing: the path it went by is more to blame than the relay, so it is asked once more.
    pub fn unanswered(&mut self, relay: &RelayId) {
        self.vain += 1;
        if let Some((_, state)) = self.relays.iter_mut().find(|(id, _)| id == relay) {
            *state = if self.vain <= VAIN_MAX { State::Unasked } else { State::Answered };
        }
    }

    /// A relay answered.
    pub fn answered(&mut self, relay: &RelayId, found: Option<Bytes>, now: Now) {
        if let Some((_, state)) = self.relays.iter_mut().find(|(id, _)| id == relay) {
            *state = State::Answered;
        }
        self.denied |= found.is_none();
        let Some(envelope) = found.and_then(|bytes| Envelope::verify(bytes, now.wall).ok()) else { return };
        if envelope.key != self.key || self.best.as_ref().is_some_and(|(revision, ..)| *revision >= envelope.revision) {
            return;
        }
        if let Some(introset) = envelope.open(&self.address) {
            let first = self.best.as_ref().map_or(now.mono, |(_, _, at)| *at);
            self.best = Some((envelope.revision, introset, first));
        }
    }

    /// How it stands; sets the next look.
    pub fn outcome(&mut self, now: Now) -> Outcome {
        let asked = self.relays.iter().any(|(_, state)| *state == State::Asked);
        if let Some((_, introset, at)) = &self.best {
            if !asked || now.mono.since(*at) >= SETTLE {
                return Outcome::Found(introset.clone());
            }
            self.next = *at + SETTLE;
            return Outcome::Waiting;
        }
        match self.began {
            None if now.mono.since(self.created) >= WAIT => Outcome::Failed(Failed::Unreachable),
            None => {
                self.next = now.mono + Duration::from_millis(250);
                Outcome::Waiting
            }
            Some(began) => {
                let all = !self.relays.is_empty() && self.relays.iter().all(|(_, s)| *s == State::Answered);
                if all || now.mono.since(began) >= GIVE_UP {
                    // Silence proves nothing; only who was asked and had none does.
                    let sure = self.denied && !self.unsure;
                    return Outcome::Failed(if sure { Failed::NotFound } else { Failed::Unreachable });
                }
                let waves = (now.mono.since(began).as_millis() / SECOND.as_millis()) as u32 + 1;
                let more = self.relays.iter().take(self.width(now.mono)).any(|(_, state)| *state == State::Unasked);
                // More to ask, and it could not be sent: a path may be there soon.
                let wave = if more { now.mono + UNSENT } else { began + SECOND * waves };
                self.next = wave.min(began + GIVE_UP);
                Outcome::Waiting
            }
        }
    }

    /// When to look again.
    pub fn next_wake(&self) -> Time {
        self.next
    }
}
