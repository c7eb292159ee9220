//! Finding a service's introset: the four relays nearest to its blinded key are asked over our own paths, two first,
//! then the others; the newest edition that opens under the address wins. Where some of them are silent, or we may be
//! wrong about which are nearest, the next four are asked too: services give those what the nearest do not take. That
//! there is none is said only when enough of the right relays have said so; whoever cannot be sure begins anew while the
//! caller has patience. Neighbours: `session` sends the questions, `netdb::shelf` is where they are answered.

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
/// How many are asked when those do not suffice.
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
/// So many of the asked relays must say that they have none before there is none.
pub const DENIALS: usize = COPIES / 2;
/// Who may be wrong about which relays are nearest, or hears from too few of them, asks anew for so long.
pub const UNSURE: Duration = Duration::from_secs(5);
/// The pause before that.
pub const AGAIN: Duration = Duration::from_millis(500);
/// After the first find, the other answers are waited for so long.
pub const SETTLE: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unasked,
    Asked,
    /// It has none.
    Denied,
    /// It had one, or came to nothing too often.
    Over,
}

/// A lookup under way.
pub struct Lookup {
    address: [u8; 32],
    created: Time,
    began: Option<Time>,
    key: [u8; 32],
    relays: Vec<(RelayId, State)>,
    best: Option<(u64, Introset, Time)>,
    /// How many relays that we do not know may be among the right ones.
    unknown: usize,
    /// Not before this it begins anew.
    resume: Time,
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
            unknown: 0,
            resume: now,
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
            if now.mono < self.resume {
                return Vec::new();
            }
            let Some(key) = blind::public(&self.address, blind::period(now.wall)) else { return Vec::new() };
            self.key = key;
            self.unknown = unknown(netdb, &key);
            self.relays = netdb.nearest(&key, WIDE).into_iter().map(|id| (id, State::Unasked)).collect();
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

    /// How many of the nearest are to be asked by now: two, then four, then all, unless those four settle it.
    fn width(&self, now: Time) -> usize {
        let settled = self.unknown == 0 && self.denials() == COPIES;
        let waves = [COPIES / 2, COPIES, if settled { COPIES } else { WIDE }];
        let by_time = self.began.map_or(0, |began| (now.since(began).as_millis() / SECOND.as_millis()) as usize);
        let answered = |wave: usize| self.relays.iter().take(wave).all(|(_, state)| state.is_over());
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
            *state = if self.vain <= VAIN_MAX { State::Unasked } else { State::Over };
        }
    }

    /// A relay answered.
    pub fn answered(&mut self, relay: &RelayId, found: Option<Bytes>, now: Now) {
        if let Some((_, state)) = self.relays.iter_mut().find(|(id, _)| id == relay) {
            *state = if found.is_none() { State::Denied } else { State::Over };
        }
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
                let width = self.width(now.mono).min(self.relays.len());
                let over = self.relays.iter().take(width).all(|(_, state)| state.is_over());
                let all = over && width >= COPIES.min(self.relays.len()) && width > 0;
                if all || now.mono.since(began) >= GIVE_UP {
                    return self.in_vain(now);
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

    /// How many of the nearest say that they have none.
    fn denials(&self) -> usize {
        self.relays.iter().take(COPIES).filter(|(_, state)| *state == State::Denied).count()
    }

    /// Nobody has one. Silence proves nothing: only those who were asked and had none do, if they were the right ones.
    fn in_vain(&mut self, now: Now) -> Outcome {
        let denials = self.denials();
        if denials > self.unknown && denials >= DENIALS.min(self.relays.len()) {
            return Outcome::Failed(Failed::NotFound);
        }
        if now.mono.since(self.created) >= UNSURE {
            return Outcome::Failed(Failed::Unreachable);
        }
        self.relays.clear();
        self.resume = now.mono + AGAIN;
        (self.began, self.vain, self.next) = (None, 0, self.resume);
        Outcome::Waiting
    }

    /// When to look again.
    pub fn next_wake(&self) -> Time {
        self.next
    }
}

impl State {
    fn is_over(self) -> bool {
        matches!(self, State::Denied | State::Over)
    }
}

/// How many relays of the registry that we do not know may be among those that keep what is at this position: that are
/// nearer to it than the last of the four nearest known. A page of contacts that has not come yet is a whole stretch of
/// positions, so that half of all relays may be known and none of the right ones.
fn unknown(netdb: &Netdb, position: &[u8; 32]) -> usize {
    let edge = netdb.nearest(position, COPIES).get(COPIES - 1).map(|id| id.distance(position));
    let nearer = |id: &RelayId| edge.is_none_or(|edge| id.distance(position) < edge);
    netdb.registry().relays().filter(|(id, _)| netdb.contact(id).is_none() && nearer(id)).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::crypto::key::Identity;
    use crate::netdb::testing::{knowing, known};
    use crate::time::Wall;

    fn at(millis: u64) -> Now {
        Now { mono: Time::from_nanos(millis * 1_000_000), wall: Wall::from_secs(1_000_000) }
    }

    /// Looks a service up whose keepers do with each question as they are told; how it ends, and when, in milliseconds.
    fn look_up(netdb: &Netdb, mut does: impl FnMut(usize, &RelayId) -> State) -> (Failed, u64) {
        let address = Identity::from_seed(&[77; 32]).public();
        let nearest = netdb.nearest(&blind::public(&address, blind::period(at(0).wall)).unwrap(), WIDE);
        let mut lookup = Lookup::new(address, at(0).mono);
        for millis in (0..20_000).step_by(10) {
            for (relay, _) in lookup.questions(netdb, at(millis)) {
                let rank = nearest.iter().position(|id| *id == relay).unwrap();
                match does(rank, &relay) {
                    State::Denied => lookup.answered(&relay, None, at(millis)),
                    State::Over => lookup.unanswered(&relay),
                    _ => {}
                }
            }
            match lookup.outcome(at(millis)) {
                Outcome::Failed(why) => return (why, millis),
                Outcome::Waiting => {}
                Outcome::Found(_) => panic!("nobody has one"),
            }
        }
        panic!("a lookup without end")
    }

    #[test]
    fn what_the_right_relays_deny_does_not_exist() {
        let netdb = known(20);
        let (why, took) = look_up(&netdb, |_, _| State::Denied);
        assert!(why == Failed::NotFound && took < 100, "{why:?} after {took} ms");
        let (why, took) = look_up(&netdb, |rank, _| if rank % 2 == 0 { State::Denied } else { State::Asked });
        assert_eq!(why, Failed::NotFound, "half of them are silent");
        assert!((GIVE_UP.as_millis() as u64..GIVE_UP.as_millis() as u64 + 20).contains(&took), "{took}");
    }

    #[test]
    fn silence_and_what_came_to_nothing_deny_nothing() {
        let netdb = known(20);
        for vain in [State::Asked, State::Over] {
            let (why, took) = look_up(&netdb, |_, _| vain);
            assert_eq!(why, Failed::Unreachable);
            assert!(took >= UNSURE.as_millis() as u64, "given up after {took} ms");
            assert_eq!(look_up(&netdb, |rank, _| if rank == 0 { State::Denied } else { vain }).0, Failed::Unreachable);
        }
    }

    /// Those behind the nearest four were never given it: their word says nothing.
    #[test]
    fn relays_that_are_not_the_nearest_deny_nothing() {
        let address = Identity::from_seed(&[77; 32]).public();
        let key = blind::public(&address, blind::period(at(0).wall)).unwrap();
        let farthest = known(40).nearest(&key, 40).pop();
        let netdb = knowing(40, |id| Some(*id) != farthest);
        let far = |rank: usize, _: &RelayId| if rank < COPIES { State::Asked } else { State::Denied };
        assert_eq!(look_up(&netdb, far).0, Failed::Unreachable);
    }

    /// A whole page of contacts has not come yet, and the right relays stand on it.
    #[test]
    fn who_does_not_know_the_right_relays_denies_nothing() {
        let address = Identity::from_seed(&[77; 32]).public();
        let key = blind::public(&address, blind::period(at(0).wall)).unwrap();
        let nearest = known(40).nearest(&key, COPIES);
        let young = knowing(40, |id| !nearest.contains(id));
        assert_eq!(look_up(&young, |_, _| State::Denied).0, Failed::Unreachable, "denied by all but the right ones");
        let nearly = knowing(40, |id| *id != nearest[1]);
        assert_eq!(look_up(&nearly, |_, _| State::Denied).0, Failed::NotFound, "three of the four right ones deny it");
    }
}
