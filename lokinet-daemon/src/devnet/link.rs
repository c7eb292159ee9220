//! One node's link as a pure value: frames are pushed as the node sends them, and popped once they have arrived. It asks no
//! clock and draws from its own seed, so that the same pushes at the same times have the same fates. `impair` says what
//! is done to them, `switch` brings frames and time.
//!
//! A frame first meets the loss. Then it waits until the frames before it have left, each of which takes its length at
//! the rate (a token bucket as deep as one frame), and is dropped where that would take longer than the queue, or where
//! CoDel would drop it at the queue's front: it waits exactly as long as is known when it comes. Then it travels, for
//! the latency and the jitter, drawn evenly. As with the kernel's netem, frames overtake each other within the jitter
//! where there is no rate; where there is one they keep their order, the faster behind the slower.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use lokinet_core::queue::codel::Codel;
use lokinet_core::time::Time;

use super::impair::{HELD_MAX, Impairment};

/// How many parts the chance of loss is counted in.
const MILLION: u64 = 1_000_000;

/// What became of a pushed frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is on its way.
    Taken,
    /// Chance has lost it.
    Lost,
    /// Too much was waiting or on its way already.
    Full,
}

/// A frame on its way. Ordered by arrival, then by departure.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Time,
    number: u64,
    frame: Box<[u8]>,
}

/// A link in one direction.
pub struct Link {
    wire: Impairment,
    codel: Codel,
    chance: Chance,
    /// When the last frame taken will have left.
    free: Time,
    /// When the last frame taken will arrive.
    last: Time,
    pushed: u64,
    held: usize,
    flights: BinaryHeap<Reverse<Flight>>,
}

impl Link {
    /// An empty link.
    pub fn new(wire: Impairment, seed: u64) -> Self {
        let (free, last) = (Time::default(), Time::default());
        Self {
            wire,
            codel: Codel::default(),
            chance: Chance(seed),
            free,
            last,
            pushed: 0,
            held: 0,
            flights: BinaryHeap::new(),
        }
    }

    /// The node sends a frame; `now` never goes back.
    pub fn push(&mut self, now: Time, frame: &[u8]) -> Fate {
        // Drawn for every frame, so that one frame's fate does not change the others'.
        let lost = self.chance.below(MILLION) < u64::from(self.wire.loss);
        let travel = self.travel();
        if lost {
            return Fate::Lost;
        }
        let Some(left) = self.leave(now, frame.len()) else { return Fate::Full };
        let mut due = left + travel;
        if self.wire.rate.is_some() {
            due = due.max(self.last);
        }
        (self.free, self.last) = (left, due);
        self.pushed += 1;
        self.held += frame.len();
        self.flights.push(Reverse(Flight { due, number: self.pushed, frame: frame.into() }));
        Fate::Taken
    }

    /// When a frame of this length has left, if there is room for it.
    fn leave(&mut self, now: Time, length: usize) -> Option<Time> {
        if self.held + length > HELD_MAX {
            return None;
        }
        let Some(rate) = self.wire.rate else { return Some(now) };
        let wait = self.free.since(now);
        let takes = Duration::from_nanos(length as u64 * 8 * 1_000_000_000 / rate.max(1));
        let room = wait.is_zero() || wait <= self.wire.queue();
        let behind = (wait.as_nanos() * u128::from(rate) / 8_000_000_000) as usize;
        if !room || self.wire.codel && self.codel.drops(wait, behind, now + wait) {
            return None;
        }
        Some(now + wait + takes)
    }

    fn travel(&mut self) -> Duration {
        let jitter = self.wire.jitter().as_nanos() as u64;
        let least = self.wire.latency().saturating_sub(self.wire.jitter());
        least + Duration::from_nanos(self.chance.below(2 * jitter + 1))
    }

    /// The next frame that has arrived by `now`.
    pub fn pop(&mut self, now: Time) -> Option<Box<[u8]>> {
        if self.next()? > now {
            return None;
        }
        let Reverse(flight) = self.flights.pop()?;
        self.held -= flight.frame.len();
        Some(flight.frame)
    }

    /// When the next frame arrives.
    pub fn next(&self) -> Option<Time> {
        self.flights.peek().map(|Reverse(flight)| flight.due)
    }
}

/// Chance for a laboratory (SplitMix64): fast, even, of one number; no secret rests on it.
struct Chance(u64);

impl Chance {
    /// A number below `end`, which is far below 2^64 and not zero.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * u128::from(end)) >> 64) as u64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(wire: &str) -> Link {
        Link::new(wire.parse().unwrap(), 1)
    }

    fn at(micros: u64) -> Time {
        Time::from_nanos(1_000_000_000 + micros * 1_000)
    }

    /// Pushes `count` frames of `length` bytes, one each `step` microseconds, numbered in their first four bytes; says when
    /// each that was taken arrived, in microseconds, in the order of arrival.
    fn run(link: &mut Link, count: u32, length: usize, step: u64) -> Vec<(u32, u64)> {
        let mut arrived = Vec::new();
        let mut fates = [0; 3];
        for number in 0..count {
            let mut frame = vec![0; length];
            frame[..4].copy_from_slice(&number.to_be_bytes());
            drain(link, at(u64::from(number) * step), &mut arrived);
            fates[link.push(at(u64::from(number) * step), &frame) as usize] += 1;
        }
        drain(link, at(u64::from(u32::MAX)), &mut arrived);
        assert_eq!(arrived.len(), fates[0], "what was taken arrives, once");
        assert_eq!(link.held, 0);
        arrived
    }

    fn drain(link: &mut Link, until: Time, arrived: &mut Vec<(u32, u64)>) {
        while let Some(due) = link.next().filter(|due| *due <= until) {
            assert!(link.pop(Time::from_nanos(due.nanos() - 1)).is_none(), "not before its time");
            let frame = link.pop(due).unwrap();
            let number = u32::from_be_bytes(frame[..4].try_into().unwrap());
            arrived.push((number, due.since(at(0)).as_nanos() as u64 / 1_000));
        }
    }

    #[test]
    fn latency_is_the_same_for_all() {
        let arrived = run(&mut link("latency=20ms"), 100, 1_000, 10);
        assert!(arrived.iter().enumerate().all(|(n, got)| *got == (n as u32, n as u64 * 10 + 20_000)));
        assert_eq!(arrived.len(), 100);
    }

    #[test]
    fn jitter_is_even_around_the_latency_and_lets_frames_overtake() {
        let arrived = run(&mut link("latency=20ms,jitter=2ms"), 20_000, 100, 10);
        let travels: Vec<u64> = arrived.iter().map(|(n, due)| due - u64::from(*n) * 10).collect();
        let (least, most) = (*travels.iter().min().unwrap(), *travels.iter().max().unwrap());
        assert!((18_000..18_010).contains(&least) && (21_990..=22_000).contains(&most), "{least} {most}");
        let mean = travels.iter().sum::<u64>() / 20_000;
        assert!((19_970..20_030).contains(&mean), "{mean}");
        assert!(!arrived.is_sorted_by_key(|(number, _)| *number));
        assert!(arrived.is_sorted_by_key(|(_, due)| *due));
    }

    #[test]
    fn a_rate_keeps_the_order_whatever_the_jitter() {
        let arrived = run(&mut link("latency=20ms,jitter=10ms,rate=100mbit"), 5_000, 1_250, 100);
        assert_eq!(arrived.len(), 5_000);
        assert!(arrived.is_sorted());
    }

    #[test]
    fn loss_is_as_wished_and_the_same_again() {
        let lost = |seed| {
            let mut link = Link::new("loss=0.5%".parse().unwrap(), seed);
            (0..100_000).filter(|n| link.push(at(*n), &[0; 4]) == Fate::Lost).collect::<Vec<u64>>()
        };
        let first = lost(7);
        assert!((420..580).contains(&first.len()), "{} of an expected 500", first.len());
        assert!(first == lost(7) && first != lost(8));
        let every = (0..1_000).filter(|_| link("loss=100%").push(at(0), &[0; 4]) == Fate::Lost).count();
        assert_eq!(every, 1_000);
        assert_eq!(run(&mut link("loss=0%"), 1_000, 4, 1).len(), 1_000);
    }

    #[test]
    fn a_rate_spaces_frames_by_their_length() {
        // 1,250 bytes at 10 Mbit/s are a millisecond each.
        let arrived = run(&mut link("rate=10mbit"), 50, 1_250, 0);
        assert!(arrived.iter().enumerate().all(|(n, got)| *got == (n as u32, (n as u64 + 1) * 1_000)));
        assert_eq!(arrived.len(), 50);
        // Idle time is not saved up.
        let arrived = run(&mut link("rate=10mbit"), 3, 1_250, 5_000);
        assert_eq!(arrived, [(0, 1_000), (1, 6_000), (2, 11_000)]);
    }

    #[test]
    fn a_full_queue_drops_the_newest() {
        // 20 ms of queue at a millisecond a frame: one leaves, twenty wait.
        let arrived = run(&mut link("rate=10mbit,queue=20ms"), 100, 1_250, 0);
        assert_eq!(arrived.len(), 21);
        assert_eq!(arrived[20], (20, 21_000), "the first ones came, and none waited longer than the queue");
        // Twice the rate for a second: the rate passes, plus what the queue holds.
        let arrived = run(&mut link("rate=10mbit,queue=20ms"), 2_000, 1_250, 500);
        assert!((1_019..=1_022).contains(&arrived.len()), "{}", arrived.len());
        // However short the queue, an idle link takes a frame.
        assert_eq!(run(&mut link("rate=56kbit,queue=0ms"), 10, 1_500, 1_000_000).len(), 10);
    }

    #[test]
    fn what_a_link_holds_is_bounded() {
        let mut link = link("latency=60s");
        let frame = vec![0; 1 << 20];
        let taken = (0..100).filter(|_| link.push(at(0), &frame) == Fate::Taken).count();
        assert_eq!((taken, link.held), (64, HELD_MAX));
        assert_eq!(link.push(at(0), &[0]), Fate::Full);
        assert!(link.pop(at(60_000_000)).is_some());
        assert_eq!(link.push(at(60_000_000), &frame), Fate::Taken, "there is room again");
    }

    #[test]
    fn codel_keeps_the_wait_short_where_it_is_asked_to() {
        // A sender as TCP is: so much on its way and no more, a frame more for each round trip, a third less after a loss.
        let waits = |wire: &str| {
            let mut link = link(wire);
            let (mut window, mut cut, mut waits) = (20.0, 0, Vec::new());
            for now in (0..30_000_000).step_by(200) {
                while link.pop(at(now)).is_some() {
                    window += 1.0 / window;
                }
                while (link.flights.len() as f64) < window {
                    match link.push(at(now), &[0; 1_250]) {
                        Fate::Taken => waits.push(link.free.since(at(now)).as_micros()),
                        _ => {
                            if now > cut + 150_000 {
                                (window, cut) = (window * 0.7, now);
                            }
                            break;
                        }
                    }
                }
            }
            waits.sort_unstable();
            (waits[waits.len() / 2], waits.len())
        };
        let (long, filled) = waits("latency=20ms,rate=10mbit,queue=100ms");
        let (short, also) = waits("latency=20ms,rate=10mbit");
        assert!(long > 50_000 && short < 20_000, "half of the frames waited {long} µs, with CoDel {short} µs");
        assert!(also * 10 > filled * 8, "{also} frames came through, without CoDel {filled}");
    }

    proptest! {
        #[test]
        fn no_frame_is_early_late_or_twice(
            latency in 0..50_000u64, jitter in 0..50_000u64, queue in 0..50_000u64,
            sends in prop::collection::vec((0..3_000u64, 4..1_514usize), 1..200),
        ) {
            let jitter = jitter.min(latency);
            let mut link = link(&format!("latency={latency}us,jitter={jitter}us,rate=10mbit,queue={queue}us"));
            let mut now = 0;
            let mut taken = Vec::new();
            for (step, length) in sends {
                now += step;
                let frame = vec![taken.len() as u8; length];
                if link.push(at(now), &frame) == Fate::Taken {
                    let least = now + latency - jitter + length as u64 * 8 / 10;
                    // All of a frame's own 1.3 ms at most come on top of the wait.
                    taken.push((frame, least, now + latency + jitter + queue + 1_300));
                }
            }
            for (frame, least, most) in taken {
                let due = link.next().unwrap();
                prop_assert!(at(least) <= due && due <= at(most), "{least} {due:?} {most}");
                prop_assert_eq!(link.pop(due).unwrap().into_vec(), frame);
            }
            prop_assert!(link.next().is_none());
        }
    }
}
