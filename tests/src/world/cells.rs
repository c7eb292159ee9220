//! Cells on the wire: a burst is cut into datagrams, each meets the wire's fate, and what arrives at one instant is
//! handed over in runs as GRO would. Neighbours: `wire` decides each fate, `world` owns the queue.

use super::World;
use super::eyes::Datagram;
use super::queue::Happening;
use super::wire::Lost;
use lokinet_core::node::io::{Input, Run};
use lokinet_core::time::Time;
use std::net::SocketAddr;

/// Most datagrams one run holds, as the kernel coalesces.
const RUN: usize = 64;

/// What became of all datagrams. Always: `sent + doubled` = all others together.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Handed to the network by a machine.
    pub sent: u64,
    /// Made by the network out of nothing.
    pub doubled: u64,
    /// Still under way.
    pub flying: u64,
    /// Given to a machine as cells.
    pub delivered: u64,
    /// Not on a channel the receiver knows; in life QUIC would look at it and drop it.
    pub foreign: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Met a cut wire.
    pub cut: u64,
    /// Met a full queue.
    pub overflowed: u64,
    /// Addressed to nobody, or to a host whose machine was dead.
    pub nowhere: u64,
}

impl Tally {
    /// Whether nothing vanished and nothing came from nowhere.
    pub fn balances(&self) -> bool {
        let ends = [self.flying, self.delivered, self.foreign, self.lost, self.cut, self.overflowed, self.nowhere];
        self.sent + self.doubled == ends.iter().sum::<u64>()
    }
}

impl World {
    /// A machine sends a burst of datagrams to one address.
    pub(super) fn transmit(&mut self, from: usize, to: SocketAddr, segment: usize, bytes: &[u8]) {
        let target = self.addresses.get(&to).copied();
        let count = if segment == 0 { 0 } else { bytes.len().div_ceil(segment) };
        self.tell(from, target, "cells", count, segment);
        self.story.hear(bytes);
        self.must(segment > 0 || bytes.is_empty(), from, "transmits datagrams of no size");
        let source = self.hosts[from].addr;
        let burst = target.map(|to| self.wires.jitter(from, to, &mut self.rng)).unwrap_or_default();
        for datagram in bytes.chunks(segment.max(1)) {
            self.tally.sent += 1;
            if self.eyes.open {
                self.eyes.datagrams.push(Datagram { at: self.now, from: source, to, bytes: datagram.to_vec() });
            }
            let Some(target) = target else {
                self.tally.nowhere += 1;
                continue;
            };
            match self.wires.pass((from, target), datagram.len(), burst, self.now, &mut self.rng) {
                Ok((once, again)) => {
                    self.fly(source, target, datagram, once);
                    if let Some(again) = again {
                        self.tally.doubled += 1;
                        self.fly(source, target, datagram, again);
                    }
                }
                Err(Lost::Loss) => self.tally.lost += 1,
                Err(Lost::Cut) => self.tally.cut += 1,
                Err(Lost::Overflow) => self.tally.overflowed += 1,
            }
        }
    }

    /// Puts a datagram into the queue, or beside those that arrive at the same instant.
    pub(super) fn fly(&mut self, from: SocketAddr, to: usize, datagram: &[u8], at: Time) {
        self.tally.flying += 1;
        let together = self.hosts[to].arrivals.entry(at).or_default();
        together.push((from, datagram.to_vec()));
        if together.len() == 1 {
            self.schedule(at, Happening::Arrive { host: to });
        }
    }

    /// Hands over everything that arrives at a host now.
    pub(super) fn arrive(&mut self, host: usize) {
        let now = self.now;
        let arrived = self.hosts[host].arrivals.remove(&now).unwrap_or_default();
        self.tally.flying -= arrived.len() as u64;
        let Some(machine) = self.hosts[host].machine.as_ref() else {
            self.tally.nowhere += arrived.len() as u64;
            return;
        };
        let mut runs: Vec<(SocketAddr, usize, Vec<u8>)> = Vec::new();
        for (from, datagram) in arrived {
            if datagram.is_empty() || !machine.is_cell(&datagram) {
                self.tally.foreign += 1;
                continue;
            }
            self.tally.delivered += 1;
            // A run goes on while the sender's datagrams have one size; a shorter one ends it.
            let open = runs.iter_mut().rev().find(|run| run.0 == from).filter(|(_, segment, bytes)| {
                bytes.len() % segment == 0 && datagram.len() <= *segment && bytes.len() < RUN * segment
            });
            match open {
                Some((_, _, bytes)) => bytes.extend_from_slice(&datagram),
                None => runs.push((from, datagram.len(), datagram)),
            }
        }
        if runs.is_empty() {
            return;
        }
        let mut runs: Vec<Run<'_>> =
            runs.iter_mut().map(|(from, segment, bytes)| Run { from: *from, bytes, segment: *segment }).collect();
        self.feed(host, Input::Cells(&mut runs));
    }

    /// What became of all datagrams so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }
}
