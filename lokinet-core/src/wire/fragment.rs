//! Messages longer than a cell, in fragments. Control messages and session handshakes travel so; retransmission is the
//! sender's affair (whole messages, 250 ms, doubling), duplicates are harmless, and what a stranger can make us hold
//! is bounded in bytes. Neighbours: `control` and `session` say what the messages are.

use crate::wire::codec::{Malformed, Reader, Writer};
use std::collections::VecDeque;

/// Message number (4) ‖ index ‖ count ‖ length (2), in bytes.
pub const HEADER: usize = 8;
/// Most fragments of one message.
pub const MAX_FRAGMENTS: usize = 24;
/// Most unfinished messages one assembler holds; the oldest makes room.
pub const MAX_PARTIAL: usize = 8;
/// What the unfinished messages of one sender may take, in bytes: three introsets or handshakes. The oldest makes room.
pub const HELD_MAX: usize = 8192;
/// The same where pages of contacts come: two of them.
pub const PAGES_HELD_MAX: usize = 48 * 1024;

/// One piece of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment<'a> {
    /// The sender's number for the message.
    pub message: u32,
    /// Which piece, from 0.
    pub index: u8,
    /// How many there are.
    pub count: u8,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Reads a fragment; what follows it is padding.
    ///
    /// # Errors
    /// Not a fragment.
    pub fn decode(bytes: &'a [u8]) -> Result<Fragment<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        let fragment =
            Fragment { message: reader.u32()?, index: reader.u8()?, count: reader.u8()?, bytes: reader.short()? };
        if fragment.index >= fragment.count || usize::from(fragment.count) > MAX_FRAGMENTS {
            return Err(Malformed);
        }
        Ok(fragment)
    }
}

/// Cuts a message into encoded fragments of at most `room` bytes each (headers included); an empty list when it is too
/// long for [`MAX_FRAGMENTS`].
pub fn split(message: u32, bytes: &[u8], room: usize) -> Vec<Vec<u8>> {
    let piece = room.saturating_sub(HEADER).max(1);
    let count = bytes.len().div_ceil(piece).max(1);
    if count > MAX_FRAGMENTS {
        return Vec::new();
    }
    (0..count)
        .map(|i| {
            let part = &bytes[i * piece..bytes.len().min((i + 1) * piece)];
            let mut writer = Writer::new(HEADER + part.len());
            writer.u32(message).u8(i as u8).u8(count as u8).short(part);
            writer.done()
        })
        .collect()
}

/// Puts fragments together again.
pub struct Assembler {
    /// The message touched last stands last.
    partial: VecDeque<Partial>,
    held: usize,
    most: usize,
}

struct Partial {
    message: u32,
    pieces: Vec<Option<Box<[u8]>>>,
    held: usize,
}

impl Default for Assembler {
    fn default() -> Assembler {
        Assembler::new(HELD_MAX)
    }
}

impl Assembler {
    /// One that holds at most so many bytes.
    pub fn new(most: usize) -> Assembler {
        Assembler { partial: VecDeque::new(), held: 0, most }
    }

    /// Forgets what is unfinished.
    pub fn clear(&mut self) {
        (self.partial, self.held) = (VecDeque::new(), 0);
    }

    /// What is held, in bytes.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes a fragment; gives the whole message when it was the last one missing.
    pub fn take(&mut self, fragment: Fragment<'_>) -> Option<Vec<u8>> {
        if fragment.count == 1 {
            return Some(fragment.bytes.to_vec());
        }
        let count = usize::from(fragment.count);
        let known = self.partial.iter().position(|partial| partial.message == fragment.message);
        let mut partial = match known.and_then(|at| self.partial.remove(at)) {
            Some(partial) => {
                self.held -= partial.held;
                partial
            }
            None => Partial::new(fragment.message, count),
        };
        if partial.pieces.len() == count {
            partial.fill(usize::from(fragment.index), fragment.bytes);
        }
        if partial.pieces.iter().all(Option::is_some) {
            return Some(partial.pieces.into_iter().flatten().flat_map(Vec::from).collect());
        }
        self.held += partial.held;
        self.partial.push_back(partial);
        while self.held > self.most || self.partial.len() > MAX_PARTIAL {
            let Some(oldest) = self.partial.pop_front() else { break };
            self.held -= oldest.held;
        }
        None
    }
}

impl Partial {
    fn new(message: u32, count: usize) -> Partial {
        let pieces = vec![None; count];
        let held = core::mem::size_of_val(pieces.as_slice());
        Partial { message, pieces, held }
    }

    fn fill(&mut self, index: usize, bytes: &[u8]) {
        if self.pieces[index].is_none() {
            self.pieces[index] = Some(bytes.into());
            self.held += bytes.len();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_order_any_duplicates(bytes in prop::collection::vec(any::<u8>(), 0..20_000), order in any::<u64>()) {
            let mut pieces = split(7, &bytes, 1305);
            let rotate = order as usize % pieces.len();
            pieces.rotate_left(rotate);
            if order % 2 == 0 { pieces.reverse(); }
            let mut assembler = Assembler::new(PAGES_HELD_MAX);
            let (last, first) = pieces.split_last().unwrap();
            for piece in first.iter().chain(first) {
                prop_assert_eq!(assembler.take(Fragment::decode(piece).unwrap()), None);
            }
            prop_assert_eq!(assembler.take(Fragment::decode(last).unwrap()), Some(bytes));
        }
    }

    fn really_held(assembler: &Assembler) -> usize {
        let bytes = |partial: &Partial| partial.pieces.iter().flatten().map(|piece| piece.len()).sum::<usize>();
        assembler.partial.iter().map(|partial| bytes(partial) + 16 * partial.pieces.len()).sum()
    }

    #[test]
    fn a_stranger_cannot_make_us_hold_more_than_the_bound() {
        let mut assembler = Assembler::default();
        for round in 0..4000 {
            let (message, index) = (round / 20 % 50, (round % 20) as u8);
            let fragment = Fragment { message, index, count: MAX_FRAGMENTS as u8, bytes: &[0; 1305] };
            assert_eq!(assembler.take(fragment), None);
            assert_eq!(really_held(&assembler), assembler.held());
            assert!(assembler.held() <= HELD_MAX && assembler.partial.len() <= MAX_PARTIAL);
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut assembler = Assembler::default();
        let piece = |message, index| Fragment { message, index, count: 2, bytes: &[1; 1305] };
        // Numbers say nothing about age: the first has the highest.
        for message in [9, 1, 2, 3] {
            assert_eq!(assembler.take(piece(message, 0)), None);
        }
        assert_eq!(assembler.take(piece(9, 0)), None, "9 was touched last");
        for message in [4, 5, 6] {
            assert_eq!(assembler.take(piece(message, 0)), None);
        }
        assert_eq!(assembler.take(piece(1, 1)), None, "1 was the oldest");
        assert!(assembler.take(piece(9, 1)).is_some(), "9 was thrown away before older ones");
    }
}
