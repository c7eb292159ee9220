//! The replay window: which counters of the last 2048 have been seen (the sliding bitmap of RFC 6479, whole words
//! cleared as it moves). Checked before a cell is opened, marked after it proved authentic. Neighbours: `onion` keeps
//! one per epoch, `link::channel` one per sub-channel.

/// How far a cell may arrive behind the newest.
pub const SPAN: u64 = 2048;
const WORDS: usize = (SPAN / 64) as usize + 1;

/// A sliding window over counters that only the authentic sender can advance.
pub struct Window {
    /// One above the newest counter seen; 0 when none was.
    next: u64,
    words: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Window {
        Window { next: 0, words: [0; WORDS] }
    }
}

impl Window {
    /// Whether a counter is neither too old nor seen before.
    pub fn is_fresh(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        if self.next - counter > SPAN {
            return false;
        }
        self.words[word(counter)] & (1 << (counter % 64)) == 0
    }

    /// Remembers a counter whose cell was authentic.
    pub fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            // Words strictly between the newest so far and this one held older counters; clear them.
            let old = if self.next == 0 { 0 } else { (self.next - 1) / 64 };
            let steps = (counter / 64 - old).min(WORDS as u64);
            for step in 0..steps {
                self.words[((counter / 64 - step) % WORDS as u64) as usize] = 0;
            }
            self.next = counter + 1;
        }
        self.words[word(counter)] |= 1 << (counter % 64);
    }
}

fn word(counter: u64) -> usize {
    ((counter / 64) % WORDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        /// Against a model that remembers everything: never accepts twice, never accepts what is too old.
        #[test]
        fn agrees_with_a_model(start in 0u64..100_000, jumps in prop::collection::vec(-2500i64..2500, 1..400)) {
            let (mut window, mut seen, mut top) = (Window::default(), HashSet::new(), None::<u64>);
            let mut at = start;
            for jump in jumps {
                at = at.saturating_add_signed(jump);
                let fresh = !seen.contains(&at) && top.is_none_or(|top| at > top || top + 1 - at <= SPAN);
                prop_assert_eq!(window.is_fresh(at), fresh);
                if fresh {
                    window.mark(at);
                    seen.insert(at);
                    top = Some(top.map_or(at, |top| top.max(at)));
                }
            }
        }
    }
}
