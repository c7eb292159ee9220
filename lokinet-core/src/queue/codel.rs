//! CoDel (RFC 8289): whether the item at the front of a queue is to be dropped. It looks at how long items have waited, not
//! at how many there are: a burst may fill any queue, but a wait that stays above the target for a whole interval is a
//! standing queue, and then single items go, at first rarely, then ever more often, until senders give way. Neighbours:
//! `queue` keeps one for each flow.

use crate::time::Time;
use core::time::Duration;

/// A wait that does no harm (RFC 8289, 4.4: 5 % to 10 % of the interval).
pub const TARGET: Duration = Duration::from_millis(5);
/// So long a wait must stay above the target before the first item goes: the longest round trip of most flows.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// A queue this short, in bytes, is none to be shortened: one datagram's worth.
pub const LEAST: usize = 1500;

/// What is remembered of one queue.
#[derive(Default)]
pub struct Codel {
    /// When the wait will have been above the target for an interval.
    above_since: Option<Time>,
    dropping: bool,
    next: Time,
    count: u32,
    /// The count when dropping last began.
    began_with: u32,
}

impl Codel {
    /// Whether the item just taken from the front, which has waited so long and left so many bytes behind it, is to be
    /// dropped. To be asked of every item taken.
    pub fn drops(&mut self, waited: Duration, behind: usize, now: Time) -> bool {
        let standing = self.is_standing(waited, behind, now);
        if !standing {
            self.dropping = false;
            return false;
        }
        if self.dropping {
            if now < self.next {
                return false;
            }
            self.count = self.count.saturating_add(1);
            self.next = self.next + self.pause();
            return true;
        }
        // Soon after the last time: go on near where that ended, for the flow is the same.
        let gained = self.count - self.began_with;
        self.count = if gained > 1 && now.since(self.next) < 16 * INTERVAL { gained } else { 1 };
        (self.dropping, self.began_with) = (true, self.count);
        self.next = now + self.pause();
        true
    }

    fn is_standing(&mut self, waited: Duration, behind: usize, now: Time) -> bool {
        if waited < TARGET || behind <= LEAST {
            self.above_since = None;
            return false;
        }
        now >= *self.above_since.get_or_insert(now + INTERVAL)
    }

    /// The control law: the pause shrinks with the root of the count, so that the loss rate grows steadily.
    fn pause(&self) -> Duration {
        INTERVAL.div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a queue that always has this wait, and an item taken each millisecond, loses: the milliseconds.
    fn lost(waits: impl Fn(u64) -> u64, millis: u64) -> Vec<u64> {
        let mut codel = Codel::default();
        let now = |ms: u64| Time::from_nanos(1_000_000_000 + ms * 1_000_000);
        (0..millis).filter(|ms| codel.drops(Duration::from_millis(waits(*ms)), 100_000, now(*ms))).collect()
    }

    #[test]
    fn a_standing_queue_loses_items_ever_more_often() {
        // The first after an interval, then at 100/√n further milliseconds each (RFC 8289, 3.3).
        assert_eq!(lost(|_| 20, 400)[..5], [100, 200, 271, 329, 379]);
        let second = lost(|_| 20, 10_000);
        assert!(second.windows(2).all(|pair| pair[1] > pair[0]));
        assert!(second.len() > 1_000, "{}", second.len());
    }

    #[test]
    fn a_wait_below_the_target_forgives() {
        assert!(lost(|_| 4, 10_000).is_empty());
        assert!(lost(|ms| if ms % 90 == 0 { 4 } else { 50 }, 10_000).is_empty(), "each interval had a good moment");
    }

    #[test]
    fn a_queue_that_comes_back_soon_is_taken_up_where_it_was() {
        let again = lost(|ms| if (1_000..1_010).contains(&ms) { 0 } else { 20 }, 1_400);
        let first = again.iter().filter(|ms| **ms < 1_000).count();
        let second: Vec<u64> = again.into_iter().filter(|ms| *ms >= 1_010).collect();
        assert!(first > 10);
        assert_eq!(second[0], 1_110, "after an interval");
        assert!(second[1] - second[0] < 50, "and not as rarely as at first: {second:?}");
    }

    #[test]
    fn the_last_item_always_passes() {
        let mut codel = Codel::default();
        let now = |ms: u64| Time::from_nanos(ms * 1_000_000);
        assert!((0..10_000).all(|ms| !codel.drops(Duration::from_secs(1), LEAST, now(ms))));
    }
}
