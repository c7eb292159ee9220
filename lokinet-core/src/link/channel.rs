//! The sealed cell channel of one link (spec chapter 30). On the wire a cell looks like a QUIC short-header packet:
//!
//! ```text
//! flags (1: 01000p11, low five bits masked) ‖ channel id (8) ‖ number (4, masked) ‖ AEAD(path id (4) ‖ onion) ‖ tag (16)
//! ```
//!
//! Each direction has [`SHARDS`] sub-channels with keys, counters and ids of their own, so that as many cores can send
//! without sharing a counter. A sub-channel ratchets its key after 2^22 cells or ten minutes; bit `p` is the key's
//! generation modulo 2. Neighbours: `link` finds the channel and stages what is sealed here.

use super::Role;
use crate::crypto::kdf;
use crate::crypto::seal::{Key, Mask, Suite, TAG};
use crate::crypto::window::Window;
use crate::time::Time;
use crate::wire::cell::{CHANNEL_ID, HEADER, PATH_ID};
use crate::wire::id::PathId;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Sub-channels in each direction.
pub const SHARDS: usize = 8;
/// Cells after which a sub-channel's key is ratcheted.
pub const REKEY_CELLS: u32 = 1 << 22;
/// Time after which a sub-channel's key is ratcheted.
pub const REKEY_TIME: Duration = Duration::from_secs(600);
/// Fewest cells under one key.
pub const REKEY_AFTER: u32 = 256;
/// How long the key before the current one still opens cells.
pub const REKEY_GRACE: Duration = Duration::from_secs(10);

const FIXED: u8 = 0x43;
const PHASE: u8 = 0x04;

/// Why a datagram was dropped. Counted, never told to anyone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// No channel has this id.
    Unknown,
    /// Not one of the two sizes.
    Size,
    /// Seen before, or older than the window.
    Replayed,
    /// Not made by the peer, or changed on the way.
    Forged,
}

/// Both directions of a link's cells. Each end of a sub-channel can be had by itself, so that cores that use different ones
/// do not meet.
pub struct Channel {
    sending: [Mutex<Sending>; SHARDS],
    receiving: [Mutex<Receiving>; SHARDS],
}

/// The end of a sub-channel that seals.
pub struct Sending(Sub);

/// The end of a sub-channel that opens.
pub struct Receiving(Sub);

/// A sub-channel: its id at once, its keys when first used.
struct Sub {
    suite: Suite,
    id: [u8; CHANNEL_ID],
    secret: Zeroizing<[u8; 32]>,
    state: Option<Box<State>>,
}

struct State {
    mask: Mask,
    generation: u32,
    current: (Key, Window),
    previous: Option<(Key, Window, Time)>,
    /// The secret of the next generation.
    next: Zeroizing<[u8; 32]>,
    number: u32,
    began: Time,
}

impl Sub {
    fn new(suite: Suite, exporter: &[u8; 32], sender: Role, shard: usize) -> Sub {
        let direction: &[u8] = match sender {
            Role::Initiator => b"initiator sends",
            Role::Responder => b"responder sends",
        };
        let parts: [&[u8]; 3] = [direction, &[shard as u8], &[suite.code()]];
        let id = *kdf::expand(exporter, "channel id", &parts);
        Sub { suite, id, secret: kdf::expand(exporter, "channel", &parts), state: None }
    }

    fn state(&mut self, now: Time) -> &mut State {
        let suite = self.suite;
        self.state.get_or_insert_with(|| {
            let first = core::mem::take(&mut self.secret);
            Box::new(State {
                mask: Mask::new(suite, &kdf::expand(&first, "channel header", &[])),
                generation: 0,
                current: (Key::new(suite, &first), Window::default()),
                previous: None,
                next: kdf::expand(&first, "channel ratchet", &[]),
                number: 0,
                began: now,
            })
        })
    }
}

impl State {
    fn ratchet(&mut self, key: Key, window: Window, now: Time) {
        let (old, seen) = core::mem::replace(&mut self.current, (key, window));
        self.previous = Some((old, seen, now + REKEY_GRACE));
        self.next = kdf::expand(&self.next, "channel ratchet", &[]);
        self.generation = self.generation.wrapping_add(1);
        self.number = 0;
        self.began = now;
    }
}

impl Channel {
    /// The channel of a link whose TLS exporter gave these 32 bytes, seen from the end with this role.
    pub fn new(suite: Suite, role: Role, exporter: &[u8; 32]) -> Channel {
        let other = match role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        Channel {
            sending: core::array::from_fn(|shard| Mutex::new(Sending(Sub::new(suite, exporter, role, shard)))),
            receiving: core::array::from_fn(|shard| Mutex::new(Receiving(Sub::new(suite, exporter, other, shard)))),
        }
    }

    /// The ids the peer's cells will carry, by shard.
    pub fn receiving_ids(&self) -> [[u8; CHANNEL_ID]; SHARDS] {
        core::array::from_fn(|shard| self.receiving(shard).0.id)
    }

    /// Where the onion lies in a datagram.
    pub fn onion(cell: &mut [u8]) -> &mut [u8] {
        let end = cell.len().saturating_sub(TAG);
        cell.get_mut(HEADER + PATH_ID..end).unwrap_or_default()
    }

    /// Writes the path's name into a datagram that is to be sealed.
    pub fn name(cell: &mut [u8], path: PathId) {
        if let Some(room) = cell.get_mut(HEADER..HEADER + PATH_ID) {
            room.copy_from_slice(&path.0.to_be_bytes());
        }
    }

    /// Seals a datagram in place; its onion is already there.
    pub fn seal(&mut self, shard: usize, path: PathId, cell: &mut [u8], now: Time) {
        Channel::name(cell, path);
        alone(&mut self.sending[shard % SHARDS]).seal(cell, now);
    }

    /// Opens a datagram in place: the path's name and the onion.
    ///
    /// # Errors
    /// Why it is dropped; nothing has changed then.
    pub fn open<'a>(&mut self, shard: usize, cell: &'a mut [u8], now: Time) -> Result<(PathId, &'a mut [u8]), Dropped> {
        alone(&mut self.receiving[shard % SHARDS]).open(cell, now)
    }

    /// The sealing end of a sub-channel, for as long as it is held.
    pub fn sending(&self, shard: usize) -> MutexGuard<'_, Sending> {
        self.sending[shard % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The opening end of a sub-channel, for as long as it is held.
    pub fn receiving(&self, shard: usize) -> MutexGuard<'_, Receiving> {
        self.receiving[shard % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a lock guards, where nobody else can hold it.
fn alone<T>(lock: &mut Mutex<T>) -> &mut T {
    lock.get_mut().unwrap_or_else(PoisonError::into_inner)
}

impl Sending {
    /// Seals a datagram in place; its path's name and onion are already there.
    pub fn seal(&mut self, cell: &mut [u8], now: Time) {
        let sub = &mut self.0;
        let (suite, id) = (sub.suite, sub.id);
        let state = sub.state(now);
        // A key is left only after enough cells that a peer cannot have lost them all and be two generations behind.
        let aged = state.number >= REKEY_AFTER && now.since(state.began) >= REKEY_TIME;
        if state.number >= REKEY_CELLS || aged {
            let key = Key::new(suite, &state.next);
            state.ratchet(key, Window::default(), now);
            state.previous = None;
        }
        let number = state.number;
        state.number += 1;
        let flags = FIXED | if state.generation % 2 == 1 { PHASE } else { 0 };
        let (head, body) = cell.split_at_mut(HEADER);
        head[0] = flags;
        head[1..1 + CHANNEL_ID].copy_from_slice(&id);
        head[1 + CHANNEL_ID..].copy_from_slice(&number.to_be_bytes());
        state.current.0.seal(number.into(), &[], body);
        let mask = state.mask.mask(body);
        head[0] ^= mask[0] & 0x1f;
        for (byte, mask) in head[1 + CHANNEL_ID..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
    }
}

impl Receiving {
    /// Opens a datagram in place: the path's name and the onion.
    ///
    /// # Errors
    /// Why it is dropped; nothing has changed then.
    pub fn open<'a>(&mut self, cell: &'a mut [u8], now: Time) -> Result<(PathId, &'a mut [u8]), Dropped> {
        let suite = self.0.suite;
        let state = self.0.state(now);
        let (head, body) = cell.split_at_mut_checked(HEADER).ok_or(Dropped::Size)?;
        let mask = state.mask.mask(body);
        head[0] ^= mask[0] & 0x1f;
        let mut number = [0; 4];
        for (i, byte) in head[1 + CHANNEL_ID..].iter_mut().enumerate() {
            *byte ^= mask[1 + i];
            number[i] = *byte;
        }
        let number = u64::from(u32::from_be_bytes(number));
        if head[0] & !PHASE != FIXED {
            return Err(Dropped::Forged);
        }
        // What is past its grace is gone with the next cell, not with the next ratchet.
        state.previous.take_if(|(_, _, until)| *until <= now);
        let odd = head[0] & PHASE != 0;
        if odd == (state.generation % 2 == 1) {
            let (key, window) = &mut state.current;
            open(key, window, number, body)?;
        } else {
            match &mut state.previous {
                // The other phase is the generation before or the one after. A late cell's number is near the highest
                // of its generation, those of a new generation begin at 0 and would be far too old for it.
                Some((key, window, _)) if window.is_fresh(number) => open(key, window, number, body)?,
                _ => {
                    let (key, mut window) = (Key::new(suite, &state.next), Window::default());
                    open(&key, &mut window, number, body)?;
                    state.ratchet(key, window, now);
                }
            }
        }
        let end = body.len() - TAG;
        let (path, onion) = body[..end].split_at_mut(PATH_ID);
        let path = path.try_into().map(u32::from_be_bytes).map_err(|_| Dropped::Size)?;
        Ok((PathId(path), onion))
    }
}

/// Nothing is associated: of the header every bit is fixed, or chooses the key, or is the nonce.
fn open(key: &Key, window: &mut Window, number: u64, body: &mut [u8]) -> Result<(), Dropped> {
    if body.len() < PATH_ID + TAG {
        return Err(Dropped::Size);
    }
    if !window.is_fresh(number) {
        return Err(Dropped::Replayed);
    }
    if !key.open(number, &[], body) {
        return Err(Dropped::Forged);
    }
    window.mark(number);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::cell::Size;

    fn pair(suite: Suite) -> (Channel, Channel) {
        (Channel::new(suite, Role::Initiator, &[1; 32]), Channel::new(suite, Role::Responder, &[1; 32]))
    }

    fn sealed(channel: &mut Channel, shard: usize, size: Size, text: u8, now: Time) -> Vec<u8> {
        let mut cell = vec![0; size.datagram()];
        Channel::onion(&mut cell).fill(text);
        channel.seal(shard, PathId(text.into()), &mut cell, now);
        cell
    }

    fn at(secs: u64) -> Time {
        Time::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn both_ways_every_shard_every_size() {
        for suite in [Suite::Aes, Suite::ChaCha] {
            let (mut a, mut b) = pair(suite);
            assert_ne!(a.receiving_ids(), b.receiving_ids());
            for shard in 0..SHARDS {
                for size in [Size::Small, Size::Full] {
                    let mut up = sealed(&mut a, shard, size, 7, at(1));
                    assert_eq!(up[1..9], b.receiving_ids()[shard]);
                    assert_eq!(up[0] & 0xc0, 0x40, "looks like a QUIC short header");
                    let (path, onion) = b.open(shard, &mut up, at(1)).unwrap();
                    assert_eq!((path, onion.len(), onion[0]), (PathId(7), size.onion(), 7));
                    let mut down = sealed(&mut b, shard, size, 8, at(1));
                    assert_eq!(a.open(shard, &mut down, at(1)).unwrap().0, PathId(8));
                }
            }
        }
    }

    #[test]
    fn replays_and_every_flipped_bit_are_dropped() {
        let (mut a, mut b) = pair(Suite::Aes);
        let cell = sealed(&mut a, 0, Size::Small, 1, at(1));
        for bit in 0..cell.len() * 8 {
            // The channel id is what the table looks up, the top two bits what marks a short header.
            if (8..72).contains(&bit) {
                continue;
            }
            let mut bent = cell.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(b.open(0, &mut bent, at(1)).is_err(), "bit {bit}");
        }
        assert!(b.open(0, &mut cell.clone(), at(1)).is_ok());
        assert_eq!(b.open(0, &mut cell.clone(), at(1)).err(), Some(Dropped::Replayed));
    }

    #[test]
    fn the_key_ratchets_and_late_cells_still_open() {
        let (mut a, mut b) = pair(Suite::Aes);
        let mut first = sealed(&mut a, 0, Size::Small, 1, at(1));
        let late = sealed(&mut a, 0, Size::Small, 2, at(1));
        b.open(0, &mut first, at(1)).unwrap();
        for _ in 0..REKEY_AFTER {
            sealed(&mut a, 0, Size::Small, 1, at(2));
        }
        let mut new = sealed(&mut a, 0, Size::Small, 3, at(700));
        b.open(0, &mut new, at(700)).unwrap();
        assert!(b.open(0, &mut late.clone(), at(701)).is_ok());
        for _ in 0..REKEY_AFTER {
            sealed(&mut a, 0, Size::Small, 1, at(702));
        }
        let mut newer = sealed(&mut a, 0, Size::Small, 4, at(1400));
        b.open(0, &mut newer, at(1400)).unwrap();
        assert_eq!(b.receiving(0).0.state.as_ref().unwrap().generation, 2);
    }

    /// The peer sends so fast that its key is used up again before the grace of the one before has run out.
    #[test]
    fn a_key_used_up_within_the_grace_is_followed_by_the_next() {
        let (mut a, mut b) = pair(Suite::Aes);
        let mut first = sealed(&mut a, 0, Size::Small, 1, at(1));
        b.open(0, &mut first, at(1)).unwrap();
        for generation in 1..=3u32 {
            // Millions of cells, of which the last two are looked at.
            a.sending(0).0.state.as_mut().unwrap().number = REKEY_CELLS - 2;
            let mut last = sealed(&mut a, 0, Size::Small, 1, at(2));
            let late = sealed(&mut a, 0, Size::Small, 1, at(2));
            b.open(0, &mut last, at(2)).unwrap();
            let mut new = sealed(&mut a, 0, Size::Small, 2, at(2));
            assert!(b.open(0, &mut new, at(2)).is_ok(), "generation {generation} is dropped until the grace ends");
            assert!(b.open(0, &mut late.clone(), at(3)).is_ok(), "a late cell of the generation before is dropped");
            assert_eq!(b.receiving(0).0.state.as_ref().unwrap().generation, generation);
        }
    }

    #[test]
    fn a_key_past_its_grace_is_gone_with_the_next_cell() {
        let (mut a, mut b) = pair(Suite::Aes);
        b.open(0, &mut sealed(&mut a, 0, Size::Small, 1, at(1)), at(1)).unwrap();
        a.sending(0).0.state.as_mut().unwrap().number = REKEY_CELLS;
        b.open(0, &mut sealed(&mut a, 0, Size::Small, 1, at(2)), at(2)).unwrap();
        assert!(b.receiving(0).0.state.as_ref().unwrap().previous.is_some());
        let later = at(2) + REKEY_GRACE;
        b.open(0, &mut sealed(&mut a, 0, Size::Small, 1, later), later).unwrap();
        assert!(b.receiving(0).0.state.as_ref().unwrap().previous.is_none());
    }

    /// Whether a recorded cell opens for one who has taken everything that an end holds for this sub-channel, and ratchets
    /// on from there as far as it likes. Replay is no concern of thieves.
    fn opens_for_a_thief(sub: &Sub, cell: &[u8]) -> bool {
        let state = sub.state.as_ref().unwrap();
        let mut secrets = vec![sub.secret.clone(), state.next.clone()];
        for start in 0..2 {
            let mut secret = secrets[start].clone();
            for _ in 0..8 {
                secret = kdf::expand(&secret, "channel ratchet", &[]);
                secrets.push(secret.clone());
            }
        }
        let derived: Vec<Key> = secrets.iter().map(|secret| Key::new(Suite::Aes, secret)).collect();
        let held = core::iter::once(&state.current.0).chain(state.previous.as_ref().map(|(key, ..)| key));
        held.chain(&derived).any(|key| {
            let mut cell = cell.to_vec();
            let (head, body) = cell.split_at_mut(HEADER);
            let mask = state.mask.mask(body);
            head[0] ^= mask[0] & 0x1f;
            head[1 + CHANNEL_ID..].iter_mut().zip(&mask[1..]).for_each(|(byte, mask)| *byte ^= mask);
            let number = u32::from_be_bytes(head[1 + CHANNEL_ID..].try_into().unwrap());
            key.open(number.into(), &[], body)
        })
    }

    #[test]
    fn what_an_end_holds_opens_nothing_from_two_generations_before() {
        let (mut a, mut b) = pair(Suite::Aes);
        let mut recorded = Vec::new();
        for generation in 0..4u64 {
            let now = at(1 + 700 * generation);
            recorded.push(sealed(&mut a, 0, Size::Small, 1, now));
            b.open(0, &mut recorded[generation as usize].clone(), now).unwrap();
            assert_eq!(u64::from(b.receiving(0).0.state.as_ref().unwrap().generation), generation);
            (0..REKEY_AFTER).for_each(|_| drop(sealed(&mut a, 0, Size::Small, 1, now)));
        }
        for (end, sub) in [("sender", &a.sending(0).0), ("receiver", &b.receiving(0).0)] {
            assert!(opens_for_a_thief(sub, &recorded[3]), "the {end}'s present key does not open the present");
            for (generation, cell) in recorded[..2].iter().enumerate() {
                assert!(!opens_for_a_thief(sub, cell), "the {end} still holds what opens generation {generation} of 3");
            }
        }
    }
}
