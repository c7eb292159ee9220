//! Queues that stay short: one for each flow, served in turns (RFC 8290), each watched by CoDel (RFC 8289). A flow that
//! sends more than its share waits for itself alone, and what waits too long is dropped from the front, where its sender
//! notices soonest. Pure: time is told, and what is dropped is given back. Neighbours: `node::worker` queues cells by path
//! in it, the daemon's `devnet` frames on a slow link.

pub mod codel;

use crate::time::Time;
use codel::Codel;
use core::hash::Hash;
use std::collections::{HashMap, VecDeque};

/// What a flow may send in one turn, in bytes: eight full cells, so that a turn costs little more than its cells.
pub const QUANTUM: usize = 8 * 1440;

/// Items of many flows, each flow's in its order.
pub struct Queues<K, T> {
    /// Flows by number; those not in use are in `free`.
    flows: Vec<Flow<K, T>>,
    by_key: HashMap<K, usize>,
    free: Vec<usize>,
    /// Flows that had nothing waiting a moment ago are served first: a ping does not wait for a download.
    new: VecDeque<usize>,
    old: VecDeque<usize>,
    items: usize,
}

struct Flow<K, T> {
    key: Option<K>,
    items: VecDeque<(Time, usize, T)>,
    bytes: usize,
    /// Bytes it may still send in its turn.
    credit: isize,
    codel: Codel,
}

impl<K, T> Default for Queues<K, T> {
    fn default() -> Queues<K, T> {
        Queues {
            flows: Vec::new(),
            by_key: HashMap::new(),
            free: Vec::new(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            items: 0,
        }
    }
}

impl<K: Copy + Eq + Hash, T> Queues<K, T> {
    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// How many flows have something waiting, or had a moment ago.
    pub fn flows(&self) -> usize {
        self.by_key.len()
    }

    /// Puts an item of so many bytes at the end of its flow; the flow's number, to be used with [`Queues::push_to`] as long
    /// as nothing is taken.
    pub fn push(&mut self, key: K, bytes: usize, item: T, now: Time) -> usize {
        let flow = match self.by_key.get(&key) {
            Some(flow) => *flow,
            None => self.begin(key),
        };
        self.push_to(flow, bytes, item, now);
        flow
    }

    /// Puts one more item at the end of the flow that [`Queues::push`] just told the number of.
    pub fn push_to(&mut self, flow: usize, bytes: usize, item: T, now: Time) {
        let Some(flow) = self.flows.get_mut(flow) else { return };
        flow.items.push_back((now, bytes, item));
        flow.bytes += bytes;
        self.items += 1;
    }

    fn begin(&mut self, key: K) -> usize {
        let number = self.free.pop().unwrap_or_else(|| {
            self.flows.push(Flow { key: None, items: VecDeque::new(), bytes: 0, credit: 0, codel: Codel::default() });
            self.flows.len() - 1
        });
        let flow = &mut self.flows[number];
        (flow.key, flow.credit, flow.codel) = (Some(key), QUANTUM as isize, Codel::default());
        self.by_key.insert(key, number);
        self.new.push_back(number);
        number
    }

    /// One flow's turn: appends to `taken` what it may send now, and to `dropped` what has waited too long. `None` when
    /// nothing waits.
    pub fn turn(&mut self, now: Time, taken: &mut Vec<T>, dropped: &mut Vec<T>) -> Option<K> {
        loop {
            let fresh = !self.new.is_empty();
            let number = *self.new.front().or(self.old.front())?;
            let flow = &mut self.flows[number];
            let had = taken.len();
            if flow.credit > 0 {
                self.items -= flow.take(now, taken, dropped);
            }
            let key = flow.key;
            if flow.items.is_empty() && (!fresh || self.old.is_empty()) {
                self.leave(number, fresh);
            } else {
                // Used up, or empty while others wait: to the end of the line, so that a flow cannot be new all the time.
                if flow.credit <= 0 {
                    flow.credit += QUANTUM as isize;
                }
                if fresh {
                    self.new.pop_front()
                } else {
                    self.old.pop_front()
                };
                self.old.push_back(number);
            }
            if taken.len() > had {
                return key;
            }
        }
    }

    fn leave(&mut self, number: usize, fresh: bool) {
        if fresh {
            self.new.pop_front()
        } else {
            self.old.pop_front()
        };
        if let Some(key) = self.flows[number].key.take() {
            self.by_key.remove(&key);
        }
        self.free.push(number);
    }

    /// Takes the oldest items of the flow that has most waiting, up to `most` and no more than half of them: there is no
    /// room for more, and it is the one that takes it.
    pub fn cut_fattest(&mut self, most: usize, dropped: &mut Vec<T>) {
        let Some(flow) = self.flows.iter_mut().max_by_key(|flow| flow.bytes) else { return };
        for _ in 0..most.min(flow.items.len().div_ceil(2)) {
            let Some((_, bytes, item)) = flow.items.pop_front() else { break };
            flow.bytes -= bytes;
            self.items -= 1;
            dropped.push(item);
        }
    }
}

impl<K, T> Flow<K, T> {
    /// Takes items while there is credit; how many left the queue.
    fn take(&mut self, now: Time, taken: &mut Vec<T>, dropped: &mut Vec<T>) -> usize {
        let before = self.items.len();
        while self.credit > 0
            && let Some((entered, bytes, item)) = self.items.pop_front()
        {
            self.bytes -= bytes;
            if self.codel.drops(now.since(entered), self.bytes, now) {
                dropped.push(item);
                continue;
            }
            self.credit -= bytes as isize;
            taken.push(item);
        }
        before - self.items.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CELL: usize = 1440;

    fn at(micros: u64) -> Time {
        Time::from_nanos(1_000_000_000 + micros * 1000)
    }

    /// A relay that works on one cell in 2 µs. `arrivals` says what comes in each step of 100 µs, by flow; each served cell
    /// is told with its flow and the microseconds it waited, and the whole number of dropped ones is returned.
    fn relay(steps: u64, mut arrivals: impl FnMut(u64) -> Vec<(u8, usize)>, mut served: impl FnMut(u8, u64)) -> usize {
        let mut queues = Queues::<u8, (u8, u64)>::default();
        let (mut taken, mut dropped, mut lost) = (Vec::new(), Vec::new(), 0);
        for step in 0..steps {
            let mut now = step * 100;
            for (flow, count) in arrivals(step) {
                for _ in 0..count {
                    queues.push(flow, CELL, (flow, now), at(now));
                }
            }
            while now < (step + 1) * 100 && queues.turn(at(now), &mut taken, &mut dropped).is_some() {
                for (flow, came) in taken.drain(..) {
                    now += 2;
                    served(flow, now - came);
                }
            }
            lost += dropped.drain(..).count();
        }
        lost
    }

    /// One flow sends 20 % more than the relay can do, and another pings ten times a second: the ping waits for one turn,
    /// never for the other's queue.
    #[test]
    fn a_greedy_flow_waits_for_itself() {
        let (mut worst, mut pings, mut greedy) = (0, 0, 0);
        let arrivals = |step: u64| if step % 1000 == 7 { vec![(0, 60), (1, 1)] } else { vec![(0, 60)] };
        let lost = relay(50_000, arrivals, |flow, waited| match flow {
            1 => (worst, pings) = (waited.max(worst), pings + 1),
            _ => greedy += 1,
        });
        assert_eq!(pings, 50, "none is lost");
        assert!(worst <= 2 * 17, "a ping waited {worst} µs");
        assert!(lost > 0 && greedy > 2_000_000, "{lost} lost, {greedy} served");
    }

    #[test]
    fn greedy_flows_share_alike_whatever_they_send() {
        let mut served = [0_u32; 4];
        relay(1_000, |_| vec![(0, 100), (1, 50), (2, 26), (3, 2)], |flow, _| served[usize::from(flow)] += 1);
        assert!(served[3] >= 1_990, "who asks for less than a share gets all of it: {served:?}");
        let (most, least) = (*served[..3].iter().max().unwrap(), *served[..3].iter().min().unwrap());
        assert!(most - least < 200, "{served:?}");
    }

    #[test]
    fn a_burst_that_is_worked_off_in_time_loses_nothing() {
        // 40 ms of work at once, every half second: above the target, but never for a whole interval.
        let mut worst = 0;
        let lost = relay(
            20_000,
            |step| if step % 5_000 == 0 { vec![(0, 20_000)] } else { Vec::new() },
            |_, waited| {
                worst = waited.max(worst);
            },
        );
        assert_eq!(lost, 0);
        assert!((30_000..41_000).contains(&worst), "{worst}");
    }

    #[test]
    fn the_fattest_makes_room() {
        let mut queues = Queues::default();
        for number in 0..100 {
            queues.push("fat", CELL, number, at(0));
        }
        queues.push("thin", CELL, 1000, at(0));
        let mut dropped = Vec::new();
        queues.cut_fattest(30, &mut dropped);
        assert_eq!(dropped, (0..30).collect::<Vec<_>>(), "its oldest");
        queues.cut_fattest(64, &mut dropped);
        assert_eq!((dropped.len(), queues.len()), (65, 36), "no more than half");
    }

    proptest! {
        /// Whatever comes, in whatever turns: nothing is lost unseen, and each flow keeps its order.
        #[test]
        fn order_is_kept_and_all_is_accounted_for(
            sends in prop::collection::vec((0..6_u8, 1..40_usize, 0..30_000_u64), 1..60), turns in 0..40_usize,
        ) {
            let mut queues = Queues::default();
            let (mut now, mut number) = (0, 0_u32);
            let (mut taken, mut dropped, mut out) = (Vec::new(), Vec::new(), Vec::new());
            let mut sent = [0_usize; 6];
            for (flow, count, pause) in sends {
                for _ in 0..count {
                    number += 1;
                    sent[usize::from(flow)] += 1;
                    queues.push(flow, CELL, (flow, number), at(now));
                }
                now += pause;
                for _ in 0..turns {
                    let told = queues.turn(at(now), &mut taken, &mut dropped);
                    prop_assert!(taken.iter().all(|(flow, _)| Some(*flow) == told) && taken.len() <= 9);
                    out.append(&mut taken);
                }
            }
            while queues.turn(at(now), &mut taken, &mut dropped).is_some() {
                out.append(&mut taken);
            }
            prop_assert!(queues.is_empty() && queues.flows() == 0, "{} flows are left", queues.flows());
            for flow in 0..6_u8 {
                let of = |all: &[(u8, u32)]| all.iter().filter(|(f, _)| *f == flow).map(|(_, n)| *n).collect::<Vec<_>>();
                let served = of(&out);
                prop_assert!(served.is_sorted());
                prop_assert_eq!(served.len() + of(&dropped).len(), sent[usize::from(flow)]);
            }
        }
    }
}
