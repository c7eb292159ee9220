//! What is going to happen, in order of time, and at one instant in order of being planned. The heap holds only when and
//! where; what happens lies beside it, so that a queue of millions is sorted by moving little. Neighbour: `world` plans
//! and takes.

use super::quic::Step;
use core::cmp::Reverse;
use lokinet_core::node::io::LinkId;
use lokinet_core::time::Time;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

/// One thing in the queue.
pub(super) enum Happening {
    Wake { host: usize, alarm: u64 },
    Arrive { host: usize },
    Packets { host: usize, life: u32, packets: Vec<Vec<u8>> },
    Moved { host: usize, life: u32, link: LinkId, remote: SocketAddr },
    Quic(Step),
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    slots: Vec<Option<Happening>>,
    free: Vec<usize>,
    planned: u64,
}

impl Queue {
    /// How many things have ever been planned.
    pub fn number(&self) -> u64 {
        self.planned
    }

    /// How many things wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn plan(&mut self, at: Time, happening: Happening) {
        self.planned += 1;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[slot] = Some(happening);
        self.heap.push(Reverse((at, self.planned, slot)));
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub fn pop(&mut self) -> Option<(Time, Happening)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        Some((at, self.slots[slot].take()?))
    }
}
