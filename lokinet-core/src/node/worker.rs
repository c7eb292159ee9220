//! One core's share of a relay's cells: a plain value that the driver runs on a thread of its own, beside others and beside
//! the node, which only hears of what is for itself. Messages come in, are opened as links seal them, wait by path in
//! [`Queues`], and go through their path's leg in turns. Neighbours: `relay` hands workers out; `link` and `transit`
//! keep what they share with it.

use crate::crypto::random::Chance;
use crate::link::LinkId;
use crate::link::channel::{Channel, SHARDS};
use crate::link::lane::Lane;
use crate::link::port::{Ports, channel_id};
use crate::queue::Queues;
use crate::time::Time;
use crate::transit::hop::HopRef;
use crate::transit::leg::{Legs, Passed};
use crate::wire::cell::{CHANNEL_ID, Size};
use crate::wire::id::PathId;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Most workers of a relay: every link has a sub-channel for each, and the first is the node's own.
pub const WORKERS_MAX: usize = SHARDS - 1;
/// Messages that may wait, each of up to 64 KiB. When as many do, the path that has most waiting makes room.
pub const MESSAGES_MAX: usize = 256;
/// Cells that go at once when there is no room.
const CUT: usize = 64;
/// Cells worked on between two looks at the sockets, where these are never full: a sixth of a millisecond.
pub const WORK: usize = 128;

/// What a worker gives out.
pub enum Work<'a> {
    /// Send these datagrams, all of one size.
    Transmit {
        /// Where to.
        to: SocketAddr,
        /// Bytes of each.
        segment: usize,
        /// The datagrams, end to end.
        bytes: &'a [u8],
    },
    /// Tell the node ([`Input::Control`](super::io::Input::Control)).
    Control {
        /// Which hop it is for.
        hop: HopRef,
        /// What a client put into one cell.
        body: &'a [u8],
    },
}

/// What workers count, together.
#[derive(Default)]
pub struct Tally {
    /// Datagrams that no link had made.
    pub unopened: AtomicU64,
    /// Cells of no path, or that led nowhere.
    pub misled: AtomicU64,
    /// Cells that waited too long, or had no room.
    pub waited: AtomicU64,
    /// Cells that no link took.
    pub unsent: AtomicU64,
}

/// One core's share.
pub struct Worker {
    ports: Arc<RwLock<Ports>>,
    legs: Arc<RwLock<Legs>>,
    tally: Arc<Tally>,
    lane: Lane,
    queues: Queues<(LinkId, PathId), Cell>,
    messages: Vec<Message>,
    /// Places of messages whose memory waits to be used again, the last one used last.
    free: Vec<usize>,
    /// Places whose memory has been given out.
    bare: Vec<usize>,
    taken: Vec<Cell>,
    dropped: Vec<Cell>,
}

/// A message that cells lie in.
struct Message {
    bytes: Vec<u8>,
    /// Cells that still wait in it.
    cells: usize,
}

/// Where a cell lies.
#[derive(Clone, Copy)]
struct Cell {
    message: usize,
    start: usize,
    size: Size,
}

impl Worker {
    /// A worker over these ports and legs, which sends on a sub-channel that nobody else does.
    pub fn new(
        ports: Arc<RwLock<Ports>>,
        legs: Arc<RwLock<Legs>>,
        tally: Arc<Tally>,
        shard: usize,
        chance: Chance,
    ) -> Worker {
        let lane = Lane::new(shard, chance);
        let (messages, free, bare) = (Vec::new(), Vec::new(), Vec::new());
        Worker {
            ports,
            legs,
            tally,
            lane,
            queues: Queues::default(),
            messages,
            free,
            bare,
            taken: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queues.is_empty() && self.lane.is_empty()
    }

    /// How many cells wait.
    pub fn waiting(&self) -> usize {
        self.queues.len()
    }

    /// Memory for a message, in which anything may stand, best such as was used just now; empty when there is none.
    pub fn spare(&mut self) -> Vec<u8> {
        let Some(at) = self.free.pop() else { return Vec::new() };
        self.bare.push(at);
        core::mem::take(&mut self.messages[at].bytes)
    }

    /// Takes in one message of datagrams of one size, the last perhaps shorter. Cells are opened and queued by path;
    /// each datagram that no channel of ours made is given to `letter`. What is no path's is dropped.
    pub fn take(&mut self, bytes: Vec<u8>, used: usize, segment: usize, now: Time, letter: &mut impl FnMut(&[u8])) {
        let at = self.place();
        let mut message = Message { bytes, cells: 0 };
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        let legs = self.legs.read().unwrap_or_else(PoisonError::into_inner);
        let end = used.min(message.bytes.len());
        let mut start = 0;
        // Cells that follow each other are most often of one channel, and of one path: what was looked up is kept for them.
        let mut known: Option<([u8; CHANNEL_ID], LinkId, _)> = None;
        let mut last: Option<((LinkId, PathId), usize)> = None;
        while start < end {
            let stop = end.min(start + segment.max(1));
            let datagram = &mut message.bytes[start..stop];
            let begin = start;
            start = stop;
            let Some(id) = channel_id(datagram).copied() else {
                letter(datagram);
                continue;
            };
            if known.as_ref().is_none_or(|(last, _, _)| *last != id) {
                // Given back before the next is taken: nobody waits for one while holding another.
                drop(known.take());
                known = ports
                    .channel_of(datagram)
                    .and_then(|(link, shard)| Some((id, link, ports.receiving(link, shard)?)));
            }
            let Some((_, link, receiving)) = &mut known else {
                letter(datagram);
                continue;
            };
            let opened = match Size::of_datagram(datagram.len()) {
                Some(size) => receiving.open(datagram, now).ok().map(|(path, _)| ((*link, path), size)),
                None => None,
            };
            let Some((key, size)) = opened else {
                self.tally.unopened.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let cell = Cell { message: at, start: begin, size };
            match last {
                Some((same, flow)) if same == key => self.queues.push_to(flow, size.datagram(), cell, now),
                _ if legs.contains_key(&key) => {
                    last = Some((key, self.queues.push(key, size.datagram(), cell, now)));
                }
                _ => {
                    self.tally.misled.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            message.cells += 1;
        }
        drop(known);
        drop((ports, legs));
        self.messages[at] = message;
        if self.messages[at].cells == 0 {
            self.free.push(at);
        }
    }

    /// A place for a message: when none is free, whoever has most waiting makes room.
    fn place(&mut self) -> usize {
        loop {
            if let Some(at) = self.bare.pop() {
                return at;
            }
            if self.messages.len() < MESSAGES_MAX {
                self.messages.push(Message { bytes: Vec::new(), cells: 0 });
                return self.messages.len() - 1;
            }
            if let Some(at) = self.free.pop() {
                return at;
            }
            self.queues.cut_fattest(CUT, &mut self.dropped);
            self.forget_dropped();
        }
    }

    /// Works on what waits, up to some cells, path by path in turns, and gives out what comes of it.
    pub fn work(&mut self, now: Time, act: &mut impl FnMut(Work<'_>)) {
        self.work_some(WORK, now, act);
    }

    /// The same, up to about `most` cells. Where that is less than [`WORK`] all of it is given out at once: it is for sockets
    /// that take little.
    pub fn work_some(&mut self, most: usize, now: Time, act: &mut impl FnMut(Work<'_>)) {
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        self.lane.flush_old(&ports, now, &mut |to, segment, bytes| act(Work::Transmit { to, segment, bytes }));
        drop(ports);
        let mut worked = 0;
        while worked < most
            && let Some(key) = self.queues.turn(now, &mut self.taken, &mut self.dropped)
        {
            worked += self.taken.len();
            self.pass(key, now, act);
            self.forget_dropped();
        }
        // CoDel may have dropped the last of what waited.
        self.forget_dropped();
        // What does not fill a run waits for the next cells as long as there are some, but not for long.
        if self.queues.is_empty() || most < WORK {
            let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
            self.lane.flush(&ports, now, &mut |to, segment, bytes| act(Work::Transmit { to, segment, bytes }));
        }
        if self.lane.dropped > 0 {
            self.tally.unsent.fetch_add(std::mem::take(&mut self.lane.dropped), Ordering::Relaxed);
        }
    }

    /// One path's turn.
    fn pass(&mut self, key: (LinkId, PathId), now: Time, act: &mut impl FnMut(Work<'_>)) {
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        let legs = self.legs.read().unwrap_or_else(PoisonError::into_inner);
        let mut held = legs.get(&key).map(|leg| leg.hold());
        for cell in self.taken.drain(..) {
            let Message { bytes, cells } = &mut self.messages[cell.message];
            let datagram = &mut bytes[cell.start..cell.start + cell.size.datagram()];
            let onion = Channel::onion(datagram);
            let passed = match &mut held {
                Some(held) => held.pass(cell.size, onion, &mut self.lane, now),
                None => Passed::Dropped,
            };
            match passed {
                Passed::On | Passed::Cover => {}
                Passed::Dropped => drop(self.tally.misled.fetch_add(1, Ordering::Relaxed)),
                Passed::Control(hop, within) => act(Work::Control { hop, body: &onion[within] }),
            }
            *cells -= 1;
            if *cells == 0 {
                self.free.push(cell.message);
            }
            self.lane.flush_full(&ports, now, &mut |to, segment, bytes| act(Work::Transmit { to, segment, bytes }));
        }
    }

    fn forget_dropped(&mut self) {
        for cell in self.dropped.drain(..) {
            self.tally.waited.fetch_add(1, Ordering::Relaxed);
            let cells = &mut self.messages[cell.message].cells;
            *cells -= 1;
            if *cells == 0 {
                self.free.push(cell.message);
            }
        }
    }

    /// Gives back the memory of peers that are gone; to be called now and then.
    pub fn tidy(&mut self) {
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        self.lane.tidy(&ports);
    }
}
