//! The door: whether a stranger's build becomes a hop here. Work is done cheapest first: rate, shape and key tag,
//! replay, then one decapsulation, then the header's word, and only then state. Neighbours: `wire::build` opens
//! records, `transit` makes the hop.

use super::hop::{Desk, Hop, HopRef, Part};
use super::leg::{Down, Up};
use crate::crypto::exchange::{self, CIPHERTEXT, Secret, Shared};
use crate::crypto::kdf;
use crate::crypto::onion::{Opener, Order, Sealer};
use crate::crypto::random::Chance;
use crate::link::LinkId;
use crate::time::{Bucket, Now, Time, Wall};
use crate::wire::build::{self, Header, Opening, Status};
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::contact::onion_tag;
use crate::wire::id::{PathId, RelayId};
use core::time::Duration;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use zeroize::Zeroizing;

/// How long one onion key is published.
pub const ROTATE: Duration = Duration::from_secs(24 * 3600);
/// How long the key before is still opened.
pub const KEEP: Duration = Duration::from_secs(48 * 3600);
/// Previous keys that are still opened at once.
const PREVIOUS_MAX: usize = (KEEP.as_secs() / ROTATE.as_secs()) as usize;
/// How far a build's clock may be from ours.
pub const SKEW_MINUTES: u64 = 10;
/// Builds a client's link may bring: so many at once, then so many a second.
pub const CLIENT_RATE: (u32, u32) = (60, 2);
/// Builds a relay's link may bring.
pub const RELAY_RATE: (u32, u32) = (400, 200);
/// Most builds remembered against replay.
pub const REPLAYS_MAX: usize = 1 << 20;
/// Most of them that one link brought, so that no link alone can make us refuse the others: as many as a relay's link
/// brings at its full rate in the time they are remembered.
pub const REPLAYS_OF_LINK: usize = 1 << 17;

/// A relay's onion keys.
pub struct OnionKeys {
    current: (Secret, [u8; 4], Wall),
    /// Newest first.
    previous: Vec<(Secret, [u8; 4], Wall)>,
}

impl OnionKeys {
    /// A fresh key.
    pub fn generate(chance: &mut Chance, now: Wall) -> OnionKeys {
        OnionKeys { current: tagged(Secret::generate(chance), now), previous: Vec::new() }
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
        Ok(OnionKeys { current: keys.next().ok_or(Malformed)?, previous: keys.take(PREVIOUS_MAX).collect() })
    }

    /// The keys' bytes, current first.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new((1 + self.previous.len()) * (8 + exchange::SEED));
        for (secret, _, made) in core::iter::once(&self.current).chain(&self.previous) {
            writer.u64(made.secs()).bytes(secret.seed());
        }
        Zeroizing::new(writer.done())
    }

    /// Makes a new key when the time has come; true when it did.
    pub fn rotate(&mut self, chance: &mut Chance, now: Wall) -> bool {
        let rotate = self.current.2.apart(now) >= ROTATE;
        if rotate {
            let fresh = tagged(Secret::generate(chance), now);
            self.previous.insert(0, core::mem::replace(&mut self.current, fresh));
            self.previous.truncate(PREVIOUS_MAX);
        }
        self.previous.retain(|(_, _, made)| made.apart(now) < ROTATE + KEEP);
        rotate
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
    pub fn hop(
        &self,
        at: HopRef,
        back: (LinkId, PathId),
        part: Part,
        lifetime: Time,
        header: &Header,
        now: Time,
    ) -> Hop {
        let [forward, backward] = self.opening.layers(&self.own, &self.ciphertext, &self.shared);
        let sealer = Sealer::new(header.suite, &backward, Order::Plain);
        Hop {
            serial: at.serial,
            back,
            part,
            depth: self.depth,
            down: Arc::new(Down::new(at, self.depth, Opener::new(header.suite, &forward))),
            up: Arc::new(Up::new(at.index, back, self.depth, sealer)),
            expires: lifetime.min(now + super::UNUSED),
            lifetime,
            desk: Desk::new(now),
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
    pub(super) buckets: BTreeMap<LinkId, Bucket>,
    pub(super) seen: Seen,
}

/// Builds that were opened, by the time they claim, for as long as that time is near enough to ours.
#[derive(Default)]
pub(super) struct Seen {
    by_minute: BTreeMap<u64, Minute>,
}

#[derive(Default)]
struct Minute {
    names: HashSet<[u8; 8]>,
    brought: BTreeMap<LinkId, usize>,
}

impl Admit {
    /// The door of this relay, which opens with these keys.
    pub fn new(own: RelayId, keys: OnionKeys) -> Admit {
        Admit { own, keys, buckets: BTreeMap::new(), seen: Seen::default() }
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
        let rate = if relay { RELAY_RATE } else { CLIENT_RATE };
        if !self.buckets.entry(link).or_insert_with(|| Bucket::full(rate, now.mono)).take(rate, now.mono) {
            return Err(Refusal::Silent);
        }
        let (tag, ciphertext) = build::peek(body).map_err(|_| Refusal::Silent)?;
        let secret = self.keys.tagged(tag).ok_or(Refusal::Silent)?;
        let digest = kdf::digest("build replay", &[&ciphertext]);
        let name: [u8; 8] = core::array::from_fn(|i| digest[i]);
        if self.seen.contains(&name) {
            return Err(Refusal::Silent);
        }
        let (header, deeper, opening) = build::open_record(secret, body).ok_or(Refusal::Silent)?;
        let (depth, minutes) = (header.depth, now.wall.secs() / 60);
        if u64::from(header.minute).abs_diff(minutes) > SKEW_MINUTES {
            return Err(Refusal::Spoken(opening, depth, Status::WrongTime));
        }
        if !room || !self.seen.remember(name, link, header.minute.into(), minutes) {
            return Err(Refusal::Spoken(opening, depth, Status::Busy));
        }
        let Some((ciphertext, shared)) = exchange::encapsulate(&header.ephemeral, chance) else {
            return Err(Refusal::Silent);
        };
        Ok((header, deeper, Keyed { own: self.own, opening, depth, ciphertext, shared }))
    }
}

impl Seen {
    /// How many builds are remembered.
    pub(super) fn len(&self) -> usize {
        self.by_minute.values().map(|minute| minute.names.len()).sum()
    }

    fn contains(&self, name: &[u8; 8]) -> bool {
        self.by_minute.values().any(|minute| minute.names.contains(name))
    }

    /// Remembers a build of that minute until it is out of time; false when there is no room for it.
    fn remember(&mut self, name: [u8; 8], link: LinkId, minute: u64, now: u64) -> bool {
        self.by_minute.retain(|minute, _| minute.abs_diff(now) <= SKEW_MINUTES);
        let all = self.len();
        let brought: usize = self.by_minute.values().filter_map(|minute| minute.brought.get(&link)).sum();
        if all >= REPLAYS_MAX || brought >= REPLAYS_OF_LINK {
            return false;
        }
        let minute = self.by_minute.entry(minute).or_default();
        *minute.brought.entry(link).or_default() += 1;
        minute.names.insert(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(n: u64) -> [u8; 8] {
        n.to_be_bytes()
    }

    #[test]
    fn a_build_is_remembered_while_its_time_is_near_ours() {
        let (mut seen, link) = (Seen::default(), LinkId(1));
        for minute in [90, 100, 110] {
            assert!(seen.remember(name(minute), link, minute, 100));
        }
        assert!(!seen.remember(name(90), link, 90, 100));
        assert!(seen.remember(name(0), link, 101, 101));
        assert!(!seen.contains(&name(90)), "out of time, so refused by its time");
        assert!(seen.contains(&name(100)) && seen.contains(&name(110)));
        assert!(seen.remember(name(1), link, 120, 120) && seen.contains(&name(110)));
    }

    #[test]
    fn one_link_cannot_make_us_refuse_the_others() {
        let mut seen = Seen::default();
        let taken = (0..2 * REPLAYS_OF_LINK as u64).filter(|n| seen.remember(name(*n), LinkId(1), 100, 100)).count();
        assert_eq!(taken, REPLAYS_OF_LINK);
        assert!(seen.remember(name(u64::MAX), LinkId(2), 100, 100));
    }

    /// A contact lives for 48 h, so a key must open that long after it was last published.
    #[test]
    fn an_onion_key_opens_for_two_days_after_its_successor_came() {
        let (mut chance, start) = (Chance::new([1; 32]), Wall::from_secs(1_700_000_000));
        let mut keys = OnionKeys::generate(&mut chance, start);
        let first = onion_tag(keys.public());
        for hour in 1..=80u64 {
            let now = start.plus(Duration::from_secs(hour * 3600));
            let rotated = keys.rotate(&mut chance, now);
            assert_eq!(rotated, hour % 24 == 0, "hour {hour}");
            assert_eq!(keys.tagged(first).is_some(), hour < 72, "hour {hour}");
            keys = OnionKeys::decode(&keys.encode()).unwrap();
        }
        // A relay that was away for long opens nothing under what it comes back with.
        keys.rotate(&mut chance, start.plus(Duration::from_secs(300 * 3600)));
        assert!(keys.previous.is_empty());
    }
}
