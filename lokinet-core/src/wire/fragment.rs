//! Messages longer than a cell, in fragments. Control messages and session handshakes travel so; retransmission is the
//! sender's affair (whole messages, 250 ms, doubling), duplicates are harmless, and what a stranger can make us hold
//! is bounded by three constants. Neighbours: `control` and `session` say what the messages are.

use crate::wire::codec::{Malformed, Reader, Writer};
use std::collections::BTreeMap;

/// Message number (4) ‖ index ‖ count ‖ length (2), in bytes.
pub const HEADER: usize = 8;
/// Most fragments of one message.
pub const MAX_FRAGMENTS: usize = 24;
/// Most unfinished messages one assembler holds; the oldest makes room.
pub const MAX_PARTIAL: usize = 8;

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
#[derive(Default)]
pub struct Assembler {
    partial: BTreeMap<u32, Partial>,
    clock: u64,
}

struct Partial {
    pieces: Vec<Option<Vec<u8>>>,
    touched: u64,
}

impl Assembler {
    /// Takes a fragment; gives the whole message when it was the last one missing.
    pub fn take(&mut self, fragment: Fragment<'_>) -> Option<Vec<u8>> {
        self.clock += 1;
        if fragment.count == 1 {
            return Some(fragment.bytes.to_vec());
        }
        let count = usize::from(fragment.count);
        let partial =
            self.partial.entry(fragment.message).or_insert_with(|| Partial { pieces: vec![None; count], touched: 0 });
        partial.touched = self.clock;
        if partial.pieces.len() != count {
            return None;
        }
        partial.pieces[usize::from(fragment.index)].get_or_insert_with(|| fragment.bytes.to_vec());
        if partial.pieces.iter().all(Option::is_some) {
            let whole = self.partial.remove(&fragment.message)?;
            return Some(whole.pieces.into_iter().flatten().flatten().collect());
        }
        if self.partial.len() > MAX_PARTIAL {
            let oldest = self.partial.iter().min_by_key(|(_, p)| p.touched).map(|(message, _)| *message);
            oldest.and_then(|message| self.partial.remove(&message));
        }
        None
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
            let mut assembler = Assembler::default();
            let (last, first) = pieces.split_last().unwrap();
            for piece in first.iter().chain(first) {
                prop_assert_eq!(assembler.take(Fragment::decode(piece).unwrap()), None);
            }
            prop_assert_eq!(assembler.take(Fragment::decode(last).unwrap()), Some(bytes));
        }
    }

    #[test]
    fn a_stranger_cannot_make_us_hold_more_than_the_bound() {
        let mut assembler = Assembler::default();
        for message in 0..1000 {
            let fragment = Fragment { message, index: 0, count: MAX_FRAGMENTS as u8, bytes: &[0; 1000] };
            assert_eq!(assembler.take(fragment), None);
            assert!(assembler.partial.len() <= MAX_PARTIAL);
        }
    }
}
