//! One onion layer in one direction: a [`Sealer`] at the one end, an [`Opener`] at the other. A layer is
//!
//! ```text
//! counter (5, header-protected: epoch 24 bits ‖ sequence 16 bits) ‖ AEAD(type (1) ‖ body) ‖ tag (16)
//! ```
//!
//! Keys are ratcheted: an epoch ends at 2^16 layers or 120 s, whichever is first, and its key is gone. The client
//! scrambles the low six bits of each hop's sequence, so that hops cannot recognise a path by comparing counters.
//! Sessions use the same layer end to end. Neighbours: `path::layers` stacks them, `transit::hop` holds one each way.

use crate::crypto::kdf;
use crate::crypto::seal::{Key, Mask, Suite, TAG};
use crate::crypto::window::Window;
use crate::time::Time;
use core::time::Duration;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

/// Length of the protected counter, in bytes.
pub const COUNTER: usize = 5;
/// What a layer adds to its body: counter, type and tag, in bytes.
pub const OVERHEAD: usize = COUNTER + 1 + TAG;
/// Where the type byte lies in a layer; the body follows it.
pub const TYPE_AT: usize = COUNTER;
/// Where the body lies in a layer, and so how far an inner layer lies behind its outer one.
pub const BODY_AT: usize = COUNTER + 1;
/// The longest an epoch is used for sealing.
pub const EPOCH_TIME: Duration = Duration::from_secs(120);
/// How long the epoch before the current one can still be opened.
pub const EPOCH_GRACE: Duration = Duration::from_secs(10);
/// How many epochs ahead an opener is ready to run.
pub const EPOCHS_AHEAD: u32 = 64;

const EPOCHS: u32 = 1 << 24;
const SEQUENCES: u32 = 1 << 16;
const BLOCK: u32 = 64;

/// Why a layer was dropped. Counted, never told to anyone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// Too short to be a layer.
    Short,
    /// Seen before, or older than the window.
    Replayed,
    /// Not made by the other end, or changed on the way.
    Forged,
}

struct Chain {
    suite: Suite,
    /// The secret of the epoch after the one last taken.
    next: Zeroizing<[u8; 32]>,
}

impl Chain {
    fn new(suite: Suite, secret: &[u8; 32]) -> (Chain, Mask, u32) {
        let start = kdf::expand::<4>(secret, "epoch start", &[]);
        let chain = Chain { suite, next: kdf::expand(secret, "epoch", &[&[suite.code()]]) };
        (chain, Mask::new(suite, &kdf::expand(secret, "layer header", &[])), u32::from_be_bytes(*start) % EPOCHS)
    }

    fn advance(&mut self) -> Epoch {
        let following = kdf::expand(&self.next, "ratchet", &[]);
        let current = core::mem::replace(&mut self.next, following);
        let key = Key::new(self.suite, &current);
        let start = kdf::expand::<2>(&current, "sequence start", &[]);
        let first = u32::from(u16::from_be_bytes(*start)) % (SEQUENCES / 2) / BLOCK * BLOCK;
        Epoch { key, scramble: kdf::expand(&current, "scramble", &[]), first }
    }
}

struct Epoch {
    key: Key,
    scramble: Zeroizing<[u8; 32]>,
    first: u32,
}

/// Whether a sealer scrambles the order of its counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Within each block of 64 by a secret permutation (client to hop).
    Scrambled,
    /// Rising by one (hop to client, where the client alone sees them).
    Plain,
}

/// The sealing end of a layer.
pub struct Sealer {
    chain: Chain,
    mask: Mask,
    epoch: Epoch,
    number: u32,
    sequence: u32,
    began: Option<Time>,
    order: Order,
    permutation: [u8; BLOCK as usize],
}

impl Sealer {
    /// The sealer for a secret that this direction of this hop alone has.
    pub fn new(suite: Suite, secret: &[u8; 32], order: Order) -> Sealer {
        let (mut chain, mask, number) = Chain::new(suite, secret);
        let epoch = chain.advance();
        let sequence = epoch.first;
        Sealer { chain, mask, epoch, number, sequence, began: None, order, permutation: [0; BLOCK as usize] }
    }

    /// Seals a layer in place; `layer` is counter room (5) ‖ type ‖ body ‖ tag room (16).
    pub fn seal(&mut self, layer: &mut [u8], now: Time) {
        if layer.len() < OVERHEAD {
            return;
        }
        let sequence = self.take(now);
        self.epoch.key.seal(u64::from(sequence), &[], &mut layer[COUNTER..]);
        let mask = self.mask.mask(&layer[COUNTER..]);
        let counter = (u64::from(self.number) << 16 | u64::from(sequence)).to_be_bytes();
        for (i, byte) in layer[..COUNTER].iter_mut().enumerate() {
            *byte = counter[3 + i] ^ mask[i];
        }
    }

    fn take(&mut self, now: Time) -> u32 {
        let began = *self.began.get_or_insert(now);
        if self.sequence >= SEQUENCES || now.since(began) >= EPOCH_TIME {
            self.epoch = self.chain.advance();
            self.number = (self.number + 1) % EPOCHS;
            self.sequence = self.epoch.first;
            self.began = Some(now);
        }
        let sequence = self.sequence;
        self.sequence += 1;
        if self.order == Order::Plain {
            return sequence;
        }
        if sequence.is_multiple_of(BLOCK) {
            self.permutation = permutation(&self.epoch.scramble, sequence / BLOCK);
        }
        sequence - sequence % BLOCK + u32::from(self.permutation[(sequence % BLOCK) as usize])
    }
}

fn permutation(secret: &[u8; 32], block: u32) -> [u8; BLOCK as usize] {
    let mut stream = ChaCha20Rng::from_seed(*secret);
    stream.set_stream(u64::from(block));
    let mut order: [u8; BLOCK as usize] = core::array::from_fn(|i| i as u8);
    for i in (1..order.len()).rev() {
        // 32 random bits over at most 64 places: the bias is below 2^-26.
        let j = (u64::from(stream.next_u32()) * (i as u64 + 1)) >> 32;
        order.swap(i, j as usize);
    }
    order
}

struct Seen {
    key: Key,
    window: Window,
}

/// The opening end of a layer.
pub struct Opener {
    chain: Chain,
    mask: Mask,
    current: Box<Seen>,
    number: u32,
    previous: Option<(Box<Seen>, Time)>,
}

impl Opener {
    /// The opener for the sealer's secret.
    pub fn new(suite: Suite, secret: &[u8; 32]) -> Opener {
        let (mut chain, mask, number) = Chain::new(suite, secret);
        let current = Box::new(Seen { key: chain.advance().key, window: Window::default() });
        Opener { chain, mask, current, number, previous: None }
    }

    /// Opens a layer in place; afterwards `layer[TYPE_AT]` is the type and the body follows up to the last 16 bytes.
    ///
    /// # Errors
    /// Why it must be dropped. Nothing has changed then.
    pub fn open(&mut self, layer: &mut [u8], now: Time) -> Result<(), Dropped> {
        if layer.len() < OVERHEAD {
            return Err(Dropped::Short);
        }
        let mask = self.mask.mask(&layer[COUNTER..]);
        let mut counter = [0; 8];
        for (i, byte) in layer[..COUNTER].iter().enumerate() {
            counter[3 + i] = byte ^ mask[i];
        }
        let counter = u64::from_be_bytes(counter);
        let (number, sequence) = ((counter >> 16) as u32, counter & 0xffff);
        let body = &mut layer[COUNTER..];
        // What is past its grace is gone with the next layer, not with the next epoch.
        self.previous.take_if(|(_, until)| *until <= now);
        let ahead = number.wrapping_sub(self.number) % EPOCHS;
        if ahead == 0 {
            return self.current.open(sequence, body);
        }
        if ahead == EPOCHS - 1 {
            return match &mut self.previous {
                Some((seen, _)) => seen.open(sequence, body),
                None => Err(Dropped::Replayed),
            };
        }
        if ahead > EPOCHS_AHEAD {
            return Err(Dropped::Forged);
        }
        // Run ahead on a copy; keep it only when the cell proves that the other end has run ahead too.
        let mut chain = Chain { suite: self.chain.suite, next: self.chain.next.clone() };
        let mut epoch = chain.advance();
        for _ in 1..ahead {
            epoch = chain.advance();
        }
        let mut seen = Box::new(Seen { key: epoch.key, window: Window::default() });
        seen.open(sequence, body)?;
        self.chain = chain;
        let old = core::mem::replace(&mut self.current, seen);
        self.previous = (ahead == 1).then_some((old, now + EPOCH_GRACE));
        self.number = number;
        Ok(())
    }
}

impl Seen {
    fn open(&mut self, sequence: u64, body: &mut [u8]) -> Result<(), Dropped> {
        if !self.window.is_fresh(sequence) {
            return Err(Dropped::Replayed);
        }
        if !self.key.open(sequence, &[], body) {
            return Err(Dropped::Forged);
        }
        self.window.mark(sequence);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 100;

    fn sealed(sealer: &mut Sealer, text: u8, now: Time) -> [u8; LEN] {
        let mut layer = [text; LEN];
        sealer.seal(&mut layer, now);
        layer
    }

    fn at(secs: u64) -> Time {
        Time::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn layers_open_once_in_any_order_within_the_window() {
        for (suite, order) in [(Suite::Aes, Order::Scrambled), (Suite::ChaCha, Order::Plain)] {
            let (mut sealer, mut opener) = (Sealer::new(suite, &[1; 32], order), Opener::new(suite, &[1; 32]));
            let mut layers: Vec<_> = (0..1000u32).map(|i| sealed(&mut sealer, i as u8, at(1))).collect();
            layers.reverse();
            for (i, layer) in layers.iter().enumerate() {
                let mut copy = *layer;
                assert_eq!(opener.open(&mut copy, at(1)), Ok(()));
                assert_eq!(copy[TYPE_AT], (999 - i) as u8);
                assert_eq!(opener.open(&mut layer.clone(), at(1)), Err(Dropped::Replayed));
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_changes_nothing() {
        let (mut sealer, mut opener) =
            (Sealer::new(Suite::Aes, &[2; 32], Order::Plain), Opener::new(Suite::Aes, &[2; 32]));
        let layer = sealed(&mut sealer, 9, at(1));
        for bit in 0..LEN * 8 {
            let mut bent = layer;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.open(&mut bent, at(1)).is_err(), "bit {bit}");
        }
        assert_eq!(opener.open(&mut layer.clone(), at(1)), Ok(()));
    }

    #[test]
    fn epochs_ratchet_by_count_and_by_time() {
        let (mut sealer, mut opener) =
            (Sealer::new(Suite::Aes, &[3; 32], Order::Scrambled), Opener::new(Suite::Aes, &[3; 32]));
        let first = opener.number;
        for i in 0..140_000u32 {
            let mut layer = sealed(&mut sealer, i as u8, at(1));
            assert_eq!(opener.open(&mut layer, at(1)), Ok(()), "cell {i}");
        }
        assert!(opener.number.wrapping_sub(first) % EPOCHS >= 2);
        let late = sealed(&mut sealer, 1, at(1));
        let mut fresh = sealed(&mut sealer, 2, at(122));
        assert_eq!(opener.open(&mut fresh, at(122)), Ok(()));
        assert_eq!(opener.open(&mut late.clone(), at(123)), Ok(()), "the epoch before is kept for a while");
        let mut too_late = sealed(&mut sealer, 3, at(122));
        let mut newest = sealed(&mut sealer, 4, at(250));
        assert_eq!(opener.open(&mut newest, at(250)), Ok(()));
        assert!(opener.open(&mut too_late, at(261)).is_err(), "and no longer");
        assert!(opener.previous.is_none(), "its key is not even in memory any more");
    }

    #[test]
    fn a_long_silence_is_bridged_up_to_the_limit() {
        let mut opener = Opener::new(Suite::ChaCha, &[4; 32]);
        let mut sealer = Sealer::new(Suite::ChaCha, &[4; 32], Order::Plain);
        for step in 0..EPOCHS_AHEAD {
            let _lost = sealed(&mut sealer, 0, at(121 * u64::from(step)));
        }
        let mut layer = sealed(&mut sealer, 5, at(121 * u64::from(EPOCHS_AHEAD)));
        assert_eq!(opener.open(&mut layer, at(1)), Ok(()));
    }

    /// What a hop sees of one path must not match what another hop sees: sequences are different permutations.
    #[test]
    fn scrambled_sequences_share_no_order_between_hops() {
        let orders: Vec<Vec<u8>> = [[5; 32], [6; 32]].iter().map(|s| permutation(s, 0).to_vec()).collect();
        assert_ne!(orders[0], orders[1]);
        let fixed = (0..64).filter(|&i| orders[0][i] == orders[1][i]).count();
        assert!(fixed < 8, "{fixed} of 64 places agree");
        let mut sorted = orders[0].clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..64).collect::<Vec<u8>>());
    }
}
