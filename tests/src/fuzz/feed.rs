//! Bytes as choices: a [`Feed`] gives numbers and slices until it is empty, and zeros from then on, so that every input
//! means something and a longer one means more. Neighbours: all targets that act out a sequence.

/// A stranger's will.
pub struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    /// From any bytes.
    pub fn new(bytes: &'a [u8]) -> Feed<'a> {
        Feed(bytes)
    }

    /// Whether nothing is left to be chosen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Yes, once in so many times.
    pub fn one_in(&mut self, times: u8) -> bool {
        self.byte().is_multiple_of(times)
    }

    /// One of the numbers below `bound` (at least 1).
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = if bound > 256 { self.number() } else { self.byte().into() };
        wide % bound.max(1)
    }

    /// A number of two bytes.
    pub fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    /// A number of eight bytes.
    pub fn wide(&mut self) -> u64 {
        u64::from_be_bytes(core::array::from_fn(|_| self.byte()))
    }

    /// A length of two bytes, and as much of that as is there.
    pub fn slice(&mut self) -> &'a [u8] {
        let length = self.number().min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    /// A slice, cut or filled up with zeros to exactly this length.
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = self.slice().to_vec();
        bytes.resize(length, 0);
        bytes
    }
}
