//! The door: whether a stranger's build becomes a hop here. Work is done cheapest first: rate, shape and key tag,
//! replay, then one decapsulation, then the header's word, and only then state. Neighbours: `wire::build` opens
//! records, `transit` makes the hop.

use super::hop::{Hop, Part};
use crate::crypto::exchange::{self, CIPHERTEXT, Secret, Shared};
use crate::crypto::kdf;
use crate::crypto::onion::{Opener, Order, Sealer};
use crate::crypto::random::Chance;
use crate::link::LinkId;
use crate::time::{Now, Time, Wall};
use crate::wire::build::{self, Header, Opening, Status};
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::contact::onion_tag;
use crate::wire::fragment::Assembler;
use crate::wire::id::{PathId, RelayId};
use core::time::Duration;
use std::collections::{BTreeMap, HashSet, VecDeque};
use zeroize::Zeroizing;

/// How long one onion key is published.
pub const ROTATE: Duration = Duration::from_secs(24 * 3600);
/// How long the key before is still opened.
pub const KEEP: Duration = Duration::from_secs(48 * 3600);
/// How far a build's clock may be from ours.
pub const SKEW_MINUTES: u64 = 10;
/// Builds a client's link may bring: so many at once, then so many a second.
pub const CLIENT_RATE: (u32, u32) = (60, 20);
/// Builds a relay's link may bring.
pub const RELAY_RATE: (u32, u32) = (400, 200);
/// Most builds remembered against replay, in each of two generations.
pub const REPLAYS_MAX: usize = 1 << 18;

/// A relay's onion keys.
pub struct OnionKeys {
    current: (Secret, [u8; 4], Wall),
    previous: Option<(Secret, [u8; 4], Wall)>,
}

impl OnionKeys {
    /// A fresh key.
    pub fn generate(chance: &mut Chance, now: Wall) -> OnionKeys {
        OnionKeys { current: tagged(Secret::generate(chance), now), previous: None }
    }

    /// Reads saved keys.
    ///
    /// # Errors
    /// They are not keys.
    pub fn decode(bytes: &[u8]) -> Result<OnionKeys, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut keys = Vec::new();
        while !reader.is_empty() {
            let made = Wall::from_secs(reader.u64()?);
            keys.push(tagged(Secret::from_seed(Zeroizing::new(reader.array()?)), made));
        }
        let mut keys = keys.into_iter();
        Ok(OnionKeys { current: keys.next().ok_or(Malformed)?, previous: keys.next() })
    }

    /// The keys' bytes, current first.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new(2 * (8 + exchange::SEED));
        for (secret, _, made) in core::iter::once(&self.current).chain(&self.previous) {
            writer.u64(made.secs()).bytes(secret.seed());
        }
        Zeroizing::new(writer.done())
    }

    /// Makes a new key when the time has come; true when it did.
    pub fn rotate(&mut self, chance: &mut Chance, now: Wall) -> bool {
        if self.previous.as_ref().is_some_and(|(_, _, made)| made.apart(now) >= ROTATE + KEEP) {
            self.previous = None;
        }
        if self.current.2.apart(now) < ROTATE {
            return false;
        }
        let fresh = tagged(Secret::generate(chance), now);
        self.previous = Some(core::mem::replace(&mut self.current, fresh));
        true
    }

    /// The key to publish.
    pub fn public(&self) -> &[u8; exchange::PUBLIC] {
        self.current.0.public()
    }

    fn tagged(&self, tag: [u8; 4]) -> Option<&Secret> {
        core::iter::once(&self.current).chain(&self.previous).find(|(_, t, _)| *t == tag).map(|(secret, _, _)| secret)
    }
}

fn tagged(secret: Secret, made: Wall) -> (Secret, [u8; 4], Wall) {
    let tag = onion_tag(secret.public());
    (secret, tag, made)
}

/// Why a build was not opened.
pub enum Refusal {
    /// The stream is reset: we cannot or will not speak under the client's key.
    Silent,
    /// The client is told, inside its reply layer.
    Spoken(Opening, u8, Status),
}

/// A build that was opened, with the relay's share made.
pub struct Keyed {
    own: RelayId,
    opening: Opening,
    depth: u8,
    ciphertext: Box<[u8; CIPHERTEXT]>,
    shared: Shared,
}

impl Keyed {
    /// The hop it becomes.
    pub fn hop(&self, serial: u64, back: (LinkId, PathId), part: Part, expires: Time, header: &Header) -> Hop {
        let [forward, backward] = self.opening.layers(&self.own, &self.ciphertext, &self.shared);
        Hop {
            serial,
            back,
            part,
            depth: self.depth,
            opener: Opener::new(header.suite, &forward),
            sealer: Sealer::new(header.suite, &backward, Order::Plain),
            expires,
            assembler: Assembler::default(),
            answers: VecDeque::new(),
            asks: (super::hop::ASKS.0, Time::default()),
        }
    }

    /// The accepting reply, around the next hop's.
    pub fn accept(&self, deeper: &[u8], chance: &mut Chance) -> Vec<u8> {
        build::seal_reply(&self.opening, self.depth, Status::Accepted, Some((&self.ciphertext, deeper)), chance)
    }

    /// A refusing reply.
    pub fn refuse(&self, status: Status, chance: &mut Chance) -> Vec<u8> {
        build::seal_reply(&self.opening, self.depth, status, None, chance)
    }
}

/// The door's memory.
pub struct Admit {
    own: RelayId,
    keys: OnionKeys,
    pub(super) buckets: BTreeMap<LinkId, (u32, Time)>,
    pub(super) seen: [HashSet<[u8; 16]>; 2],
    turned: Time,
}

impl Admit {
    /// The door of this relay, which opens with these keys.
    pub fn new(own: RelayId, keys: OnionKeys) -> Admit {
        Admit { own, keys, buckets: BTreeMap::new(), seen: Default::default(), turned: Time::default() }
    }

    /// The onion keys.
    pub fn keys(&mut self) -> &mut OnionKeys {
        &mut self.keys
    }

    /// Forgets what it knew of a link.
    pub fn forget(&mut self, link: LinkId) {
        self.buckets.remove(&link);
    }

    /// Opens a build: the header, what goes on, and the keys.
    ///
    /// # Errors
    /// Whether and what to tell the client.
    pub fn open(
        &mut self,
        link: LinkId,
        relay: bool,
        body: &[u8],
        room: bool,
        chance: &mut Chance,
        now: Now,
    ) -> Result<(Header, Zeroizing<Vec<u8>>, Keyed), Refusal> {
        if !self.spend(link, if relay { RELAY_RATE } else { CLIENT_RATE }, now.mono) {
            return Err(Refusal::Silent);
        }
        let (tag, ciphertext) = build::peek(body).map_err(|_| Refusal::Silent)?;
        let secret = self.keys.tagged(tag).ok_or(Refusal::Silent)?;
        let digest = kdf::digest("build replay", &[&ciphertext]);
        let name: [u8; 16] = core::array::from_fn(|i| digest[i]);
        if self.seen.iter().any(|seen| seen.contains(&name)) {
            return Err(Refusal::Silent);
        }
        let (header, deeper, opening) = build::open_record(secret, body).ok_or(Refusal::Silent)?;
        let (depth, minutes) = (header.depth, now.wall.secs() / 60);
        if u64::from(header.minute).abs_diff(minutes) > SKEW_MINUTES {
            return Err(Refusal::Spoken(opening, depth, Status::WrongTime));
        }
        if !room || !self.remember(name, now.mono) {
            return Err(Refusal::Spoken(opening, depth, Status::Busy));
        }
        let Some((ciphertext, shared)) = exchange::encapsulate(&header.ephemeral, chance) else {
            return Err(Refusal::Silent);
        };
        Ok((header, deeper, Keyed { own: self.own, opening, depth, ciphertext, shared }))
    }

    fn spend(&mut self, link: LinkId, (burst, rate): (u32, u32), now: Time) -> bool {
        let (tokens, since) = self.buckets.entry(link).or_insert((burst, now));
        let earned = (now.since(*since).as_millis() as u64 * u64::from(rate) / 1000).min(burst.into()) as u32;
        if earned > 0 {
            *tokens = (*tokens + earned).min(burst);
            *since = now;
        }
        let left = tokens.checked_sub(1);
        *tokens = left.unwrap_or(0);
        left.is_some()
    }

    fn remember(&mut self, name: [u8; 16], now: Time) -> bool {
        // Two generations, each longer than a build stays in time, cover every build that could come again.
        if now.since(self.turned) >= Duration::from_secs(60 * (2 * SKEW_MINUTES + 5)) {
            self.seen.swap(0, 1);
            self.seen[0].clear();
            self.turned = now;
        }
        self.seen[0].len() < REPLAYS_MAX && self.seen[0].insert(name)
    }
}
