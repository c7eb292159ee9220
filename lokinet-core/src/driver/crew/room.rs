//! How much a relay's socket may hold: as little as keeps its interface busy, since what it holds leaves in the order it
//! came, whatever path it is of. It is fitted to how fast it empties, as Linux fits a card's queue (BQL). Pure: time is
//! told. Neighbours: `crew` tells when a socket was full and sets what is found here.

use crate::time::Time;
use std::time::Duration;

/// The most and the least it is fitted to, in bytes. The kernel doubles them, and counts memory, not payload.
pub(in crate::driver) const MOST: usize = 256 << 10;
const LEAST: usize = 16 << 10;
/// A full socket takes more when half of it has left. It is halved where that takes longer, and grows by an eighth where it
/// takes less: slowly, for many an interface lets a little pass at once before it is slow.
const LONG: Duration = Duration::from_millis(1);
const SHORT: Duration = Duration::from_micros(250);
/// What many a slow interface lets pass at once after a pause.
const PASSING: usize = 64 << 10;
/// Room for which one cell is worked on at a time: a cell and what the kernel adds.
const CELL: usize = 2048;

/// One socket's.
pub(super) struct Room {
    bytes: usize,
    full_since: Option<Time>,
    /// How long it was full the last time, and what it has taken since.
    waited: Option<Duration>,
    taken: usize,
}

impl Room {
    /// A socket's that has not been full yet.
    pub(super) fn new() -> Room {
        Room { bytes: MOST, full_since: None, waited: None, taken: 0 }
    }

    /// It took so much.
    pub(super) fn took(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// It takes more again.
    pub(super) fn free(&mut self, now: Time) {
        if let Some(since) = self.full_since.take() {
            (self.waited, self.taken) = (Some(now.since(since)), 0);
        }
    }

    /// It takes no more: how much it is to hold from now on, where that changes.
    pub(super) fn full(&mut self, now: Time) -> Option<usize> {
        if self.full_since.is_some() {
            return None;
        }
        self.full_since = Some(now);
        let waited = self.waited.take()?;
        let fitted = match waited {
            // Much more than it holds went through meanwhile: whoever made it full is not slow.
            _ if self.taken > 4 * self.bytes + PASSING => self.bytes * 2,
            _ if waited > LONG => self.bytes / 2,
            _ if waited < SHORT => self.bytes + self.bytes / 8,
            _ => return None,
        };
        let before = std::mem::replace(&mut self.bytes, fitted.clamp(LEAST, MOST));
        (before != self.bytes).then_some(self.bytes)
    }

    /// How many cells are worth working on before the socket is looked at again.
    pub(super) fn cells(&self) -> usize {
        self.bytes / CELL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the room of a socket ends whose interface sends so many bytes in a millisecond, and whose thread wakes so late.
    fn fitted(room: &mut Room, per_ms: u64, late: Duration) -> usize {
        let mut now = Time::from_nanos(1);
        for _ in 0..100 {
            room.full(now);
            // It holds twice what it was told, and is seen to take more when half of that has left.
            let waited = Duration::from_nanos(room.bytes as u64 * 1_000_000 / per_ms) + late;
            now = now + waited;
            room.free(now);
            room.took((waited.as_nanos() as usize * per_ms as usize / 1_000_000).min(2 * room.bytes));
        }
        room.bytes
    }

    #[test]
    fn a_slow_interface_gets_little_and_a_fast_one_much() {
        let soon = Duration::from_micros(20);
        let mut room = Room::new();
        assert_eq!(fitted(&mut room, 12_500, soon), LEAST, "100 Mbit/s");
        assert_eq!(room.cells(), 8);
        assert!((24..=32).contains(&(fitted(&mut room, 125_000, soon) >> 10)), "1 Gbit/s");
        assert_eq!(fitted(&mut room, 1_250_000, soon), MOST, "10 Gbit/s");
        assert_eq!(room.cells(), 128);
        assert_eq!(fitted(&mut room, 125_000, soon), 64 << 10, "1 Gbit/s, from above");
        assert_eq!(fitted(&mut room, 12_500, soon), LEAST, "and 100 Mbit/s again");
    }

    /// On a busy machine a socket may be full for long now and then, though its interface is fast.
    #[test]
    fn who_takes_much_between_is_not_slow() {
        let (mut room, mut now) = (Room::new(), Time::from_nanos(1));
        for _ in 0..100 {
            room.full(now);
            now = now + Duration::from_millis(5);
            room.free(now);
            room.took(10 * MOST);
        }
        assert_eq!(room.bytes, MOST);
    }

    #[test]
    fn who_is_not_full_is_left_alone() {
        let mut room = Room::new();
        assert_eq!(room.full(Time::from_nanos(5)), None, "nothing is known yet");
        assert_eq!(room.full(Time::from_nanos(6)), None, "full is full");
        room.free(Time::from_nanos(50_000_000));
        room.took(MOST / 2);
        assert_eq!(room.full(Time::from_nanos(60_000_000)), Some(MOST / 2));
        room.free(Time::from_nanos(90_000_000));
        room.took(10 * MOST);
        assert!(room.full(Time::from_nanos(99_000_000)) > Some(MOST / 2), "it took all it was given for long");
    }
}
