//! Cells of one size that wait to leave for one peer, end to end in one buffer: it grows to what was needed once and is then
//! used over and over, without being cleared for each cell. Neighbours: `link` has one for each link and size, `lane` has
//! some for each core.

use super::STAGED_MAX;
use crate::wire::cell::Size;
use core::ops::{Deref, DerefMut};

/// Cells end to end.
#[derive(Default)]
pub struct Stage {
    bytes: Vec<u8>,
    used: usize,
}

impl Stage {
    /// Room for one more cell, in which anything may stand; `None` when as many wait as may.
    pub(super) fn room(&mut self, size: Size) -> Option<&mut [u8]> {
        let (start, end) = (self.used, self.used + size.datagram());
        if start >= STAGED_MAX * size.datagram() {
            return None;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end.max(2 * self.bytes.len()), 0);
        }
        self.used = end;
        self.bytes.get_mut(start..end)
    }

    /// Forgets the cells and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }
}

impl Deref for Stage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.used]
    }
}
