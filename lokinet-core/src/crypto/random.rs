//! Chance, given and never taken. A [`Chance`] is a generator with fast key erasure: after each refill the key that
//! made it is overwritten, so a seized process does not reveal what was drawn before. Each machine forks its own from
//! the node's. Neighbours: the driver seeds the first from the operating system and reseeds it; the simulated world
//! seeds it from its one seed.

use crate::crypto::kdf;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::{Zeroize, Zeroizing};

const BLOCK: usize = 1024;

/// A cryptographic generator that forgets its past.
pub struct Chance {
    key: Zeroizing<[u8; 32]>,
    buffer: Zeroizing<[u8; BLOCK]>,
    used: usize,
}

impl Chance {
    /// A generator started from 32 secret random bytes.
    pub fn new(seed: impl Into<Zeroizing<[u8; 32]>>) -> Chance {
        Chance { key: seed.into(), buffer: Zeroizing::new([0; BLOCK]), used: BLOCK }
    }

    /// A generator of its own for one machine.
    pub fn fork(&mut self, label: &str) -> Chance {
        Chance::new(kdf::expand::<32>(&self.secret::<32>(), "fork", &[label.as_bytes()]))
    }

    /// Mixes fresh entropy in; what is buffered is thrown away.
    pub fn reseed(&mut self, fresh: &[u8; 32]) {
        self.key = kdf::extract(fresh, &[self.key.as_slice()]);
        self.buffer.zeroize();
        self.used = BLOCK;
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            if self.used == BLOCK {
                self.refill();
            }
            let take = out.len().min(BLOCK - self.used);
            let (now, later) = out.split_at_mut(take);
            let from = &mut self.buffer[self.used..self.used + take];
            now.copy_from_slice(from);
            from.zeroize();
            self.used += take;
            out = later;
        }
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// `N` random bytes that are erased when dropped.
    pub fn secret<const N: usize>(&mut self) -> Zeroizing<[u8; N]> {
        let mut out = Zeroizing::new([0; N]);
        self.fill(out.as_mut_slice());
        out
    }

    /// A uniformly random number below `bound` (which must not be 0), without bias.
    pub fn below(&mut self, bound: u64) -> u64 {
        debug_assert!(bound > 0);
        let limit = u64::MAX - u64::MAX % bound.max(1);
        loop {
            let draw = u64::from_be_bytes(self.bytes());
            if draw < limit {
                return draw % bound.max(1);
            }
        }
    }

    /// A number that is not 0, for names where 0 has a meaning.
    pub fn nonzero(&mut self) -> u32 {
        loop {
            let draw = u32::from_be_bytes(self.bytes());
            if draw != 0 {
                return draw;
            }
        }
    }

    /// A duration drawn evenly from `low` to `high`.
    pub fn between(&mut self, low: core::time::Duration, high: core::time::Duration) -> core::time::Duration {
        let span = high.saturating_sub(low).as_nanos() as u64;
        low + core::time::Duration::from_nanos(self.below(span.saturating_add(1)))
    }

    /// Puts a slice in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    fn refill(&mut self) {
        let mut stream = ChaCha20Rng::from_seed(*self.key);
        stream.fill_bytes(self.key.as_mut_slice());
        stream.fill_bytes(self.buffer.as_mut_slice());
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_stream_and_forks_differ() {
        let (mut a, mut b) = (Chance::new([7; 32]), Chance::new([7; 32]));
        assert_eq!(a.bytes::<3000>(), b.bytes::<3000>());
        let (mut fork, mut other) = (a.fork("x"), b.fork("y"));
        assert_ne!(fork.bytes::<32>(), other.bytes::<32>());
        a.reseed(&[1; 32]);
        assert_ne!(a.bytes::<32>(), b.bytes::<32>());
    }

    #[test]
    fn what_was_handed_out_is_erased() {
        let mut chance = Chance::new([9; 32]);
        let drawn: [u8; 64] = chance.bytes();
        assert!(!chance.buffer.windows(16).any(|w| w == &drawn[..16]));
        assert_ne!(*chance.key, [9; 32]);
    }
}
