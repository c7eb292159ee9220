//! Cells of one size that wait to leave for one peer, end to end in one buffer: it grows to what was needed once and is then
//! used over and over, without being cleared for each cell. Neighbours: `link` has one for each link and size, `lane` has
//! some for each core.

use super::STAGED_MAX;
use crate::crypto::random::Chance;
use crate::wire::cell::{HEADER, PATH_ID, Size};
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

    /// Puts cells that are not sealed yet in random order, those of one path among themselves as they are; `spare` is memory
    /// to do it in. Where all are of one path nothing is moved.
    pub(super) fn shuffle(&mut self, size: Size, spare: &mut Vec<u8>, chance: &mut Chance) {
        let cells = || self.bytes[..self.used].chunks_exact(size.datagram());
        let mut paths = cells().map(|cell| &cell[HEADER..HEADER + PATH_ID]);
        let first = paths.next();
        if paths.all(|path| Some(path) == first) {
            return;
        }
        let mut from: Vec<(&[u8], usize)> =
            cells().enumerate().map(|(place, cell)| (&cell[HEADER..HEADER + PATH_ID], place)).collect();
        // Which path is where is shuffled; then each path's cells take the places it got, in their order.
        let mut paths: Vec<&[u8]> = from.iter().map(|(path, _)| *path).collect();
        chance.shuffle(&mut paths);
        let mut to: Vec<(&[u8], usize)> = paths.into_iter().zip(0..).collect();
        from.sort_unstable();
        to.sort_unstable();
        spare.resize(spare.len().max(self.used), 0);
        let step = size.datagram();
        for ((_, from), (_, to)) in from.into_iter().zip(to) {
            spare[to * step..][..step].copy_from_slice(&self.bytes[from * step..][..step]);
        }
        core::mem::swap(&mut self.bytes, spare);
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
