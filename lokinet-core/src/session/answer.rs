//! Answering callers: the service's handshake keys, and the memory that a hello is answered once. A repeated hello
//! gets the same welcome again; an old or replayed one gets nothing. Neighbours: `wire::session` opens and makes the
//! messages, `session` keeps the conversation.

use crate::crypto::exchange::{PUBLIC, Secret};
use crate::crypto::kdf;
use crate::crypto::random::Chance;
use crate::time::{Now, Time, Wall};
use crate::wire::id::SessionId;
use crate::wire::session::{self, Caller, Secrets};
use core::time::Duration;
use std::collections::{BTreeMap, HashSet, VecDeque};

/// How long a handshake key is published.
pub const ROTATE: Duration = Duration::from_secs(24 * 3600);
/// How far a hello's clock may be from ours.
pub const SKEW: Duration = Duration::from_secs(600);
/// Hellos remembered against replay; older ones are refused by their time. As many as [`RATE`] lets in within twice
/// the skew: a caller who sends as fast as it may cannot shut the door for others.
pub const REMEMBERED_MAX: usize = 1 << 17;
/// Welcomes are kept for callers who ask again, and so long.
pub const AGAIN: Duration = Duration::from_secs(20);
/// Hellos answered at once, and then per second: each costs three public-key operations.
pub const RATE: (u32, u32) = (200, 100);

/// What a hello was.
pub enum Heard {
    /// A new caller.
    New {
        /// What it says of itself.
        caller: Caller,
        /// The welcome to send.
        welcome: Vec<u8>,
        /// The conversation's secrets.
        secrets: Secrets,
        /// Our number for it.
        session: SessionId,
    },
    /// The same hello once more: the same welcome.
    Again(Vec<u8>),
    /// To be dropped.
    Nothing,
}

/// The service's side of handshakes.
pub struct Door {
    current: (Secret, Wall),
    previous: Option<Secret>,
    seen: HashSet<[u8; 16]>,
    /// What was seen, oldest first.
    order: VecDeque<([u8; 16], Wall)>,
    welcomes: BTreeMap<[u8; 16], Vec<u8>>,
    /// Whose welcome is kept, oldest first.
    fresh: VecDeque<([u8; 16], Time)>,
    tokens: (u32, Time),
}

impl Door {
    /// A door with a fresh key.
    pub fn new(chance: &mut Chance, now: Wall) -> Door {
        Door {
            current: (Secret::generate(chance), now),
            previous: None,
            seen: HashSet::new(),
            order: VecDeque::new(),
            welcomes: BTreeMap::new(),
            fresh: VecDeque::new(),
            tokens: (RATE.0, Time::default()),
        }
    }

    /// The key callers seal their hellos to.
    pub fn public(&self) -> &[u8; PUBLIC] {
        self.current.0.public()
    }

    /// Makes a new key when the time has come.
    pub fn rotate(&mut self, chance: &mut Chance, now: Wall) {
        if self.current.1.apart(now) >= ROTATE {
            let fresh = (Secret::generate(chance), now);
            self.previous = Some(core::mem::replace(&mut self.current, fresh).0);
        }
    }

    /// Hears a hello.
    pub fn answer(&mut self, address: &[u8; 32], hello: &[u8], room: bool, chance: &mut Chance, now: Now) -> Heard {
        let digest = kdf::digest("hello", &[hello]);
        let name: [u8; 16] = core::array::from_fn(|i| digest[i]);
        self.forget(now);
        if let Some(welcome) = self.welcomes.get(&name) {
            return Heard::Again(welcome.clone());
        }
        if self.seen.contains(&name) {
            return Heard::Nothing;
        }
        if !room || !self.spend(now.mono) {
            return Heard::Nothing;
        }
        let keys = core::iter::once(&self.current.0).chain(&self.previous);
        let Some((caller, answering)) = keys.into_iter().find_map(|key| session::answer(address, key, hello)) else {
            return Heard::Nothing;
        };
        if caller.time.apart(now.wall) > SKEW {
            return Heard::Nothing;
        }
        if self.order.len() >= REMEMBERED_MAX {
            return Heard::Nothing;
        }
        let session = SessionId(chance.nonzero());
        let Some((welcome, secrets)) = answering.welcome(session, chance) else { return Heard::Nothing };
        self.seen.insert(name);
        self.order.push_back((name, now.wall));
        self.welcomes.insert(name, welcome.clone());
        self.fresh.push_back((name, now.mono));
        Heard::New { caller, welcome, secrets, session }
    }

    fn forget(&mut self, now: Now) {
        while let Some((name, at)) = self.fresh.front().copied()
            && now.mono.since(at) > AGAIN
        {
            self.fresh.pop_front();
            self.welcomes.remove(&name);
        }
        // A hello within the skew on either side may come again for twice the skew.
        while let Some((name, at)) = self.order.front().copied()
            && at.apart(now.wall) > SKEW * 2
        {
            self.order.pop_front();
            self.seen.remove(&name);
        }
    }

    fn spend(&mut self, now: Time) -> bool {
        let (tokens, since) = self.tokens;
        let earned = (now.since(since).as_millis() as u64 * u64::from(RATE.1) / 1000).min(RATE.0.into()) as u32;
        if earned > 0 {
            self.tokens = ((tokens + earned).min(RATE.0), now);
        }
        let left = self.tokens.0.checked_sub(1);
        self.tokens.0 = left.unwrap_or(0);
        left.is_some()
    }
}
