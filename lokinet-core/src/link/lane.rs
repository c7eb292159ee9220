//! One core's way out: cells staged for each peer and size, shuffled and sealed by the run when they leave, on a sub-channel
//! that this core alone sends on. Neighbours: `port` is what the lanes share, `stage` holds the cells; `node::worker` has one.

use super::channel::Channel;
use super::port::Ports;
use super::stage::Stage;
use super::{Egress, LinkId};
use crate::crypto::random::Chance;
use crate::time::Time;
use crate::wire::cell::Size;
use crate::wire::id::PathId;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Bytes that leave at once, as soon as so many are staged: what one send call takes, in full cells.
const RUN: usize = 45 * Size::Full.datagram();
/// How long cells stay staged at most, so that a run may fill: a path whose next hop few others use must not wait until
/// there is nothing left to do for all of them.
pub const STAGED_TIME: Duration = Duration::from_micros(500);

/// What one core has staged.
pub struct Lane {
    shard: usize,
    chance: Chance,
    stages: BTreeMap<(LinkId, Size), Stage>,
    /// What has cells staged, and since when.
    dirty: VecDeque<((LinkId, Size), Time)>,
    /// The one of them that fills a run.
    full: Option<(LinkId, Size)>,
    /// Memory to shuffle in.
    spare: Vec<u8>,
    /// Cells dropped because a peer's stage was full or its link gone.
    pub dropped: u64,
}

impl Lane {
    /// A lane that sends on this sub-channel of every link.
    pub fn new(shard: usize, chance: Chance) -> Lane {
        Lane {
            shard,
            chance,
            stages: BTreeMap::new(),
            dirty: VecDeque::new(),
            full: None,
            spare: Vec::new(),
            dropped: 0,
        }
    }

    /// Seals what is staged and gives it out, run by run, first staged first; `send` gets where to, each cell's size, and
    /// the cells.
    pub fn flush(&mut self, ports: &Ports, now: Time, send: &mut impl FnMut(SocketAddr, usize, &[u8])) {
        while let Some((staged, _)) = self.dirty.pop_front() {
            self.send(staged, ports, now, send);
        }
    }

    /// The same for what has been staged for long enough.
    pub fn flush_old(&mut self, ports: &Ports, now: Time, send: &mut impl FnMut(SocketAddr, usize, &[u8])) {
        while let Some((staged, since)) = self.dirty.front().copied()
            && now.since(since) >= STAGED_TIME
        {
            self.dirty.pop_front();
            self.send(staged, ports, now, send);
        }
    }

    /// The same for a run that is full; to be called after every cell that is put.
    pub fn flush_full(&mut self, ports: &Ports, now: Time, send: &mut impl FnMut(SocketAddr, usize, &[u8])) {
        let Some(full) = self.full.take() else { return };
        self.dirty.retain(|(staged, _)| *staged != full);
        self.send(full, ports, now, send);
    }

    fn send(
        &mut self,
        (link, size): (LinkId, Size),
        ports: &Ports,
        now: Time,
        send: &mut impl FnMut(SocketAddr, usize, &[u8]),
    ) {
        let Some(stage) = self.stages.get_mut(&(link, size)) else { return };
        let Some((to, mut sending)) = ports.sending(link, self.shard) else {
            self.dropped += (stage.len() / size.datagram()) as u64;
            self.stages.remove(&(link, size));
            return;
        };
        stage.shuffle(size, &mut self.spare, &mut self.chance);
        for cell in stage.chunks_exact_mut(size.datagram()) {
            sending.seal(cell, now);
        }
        drop(sending);
        send(to, size.datagram(), stage);
        stage.clear();
    }

    /// Whether nothing is staged.
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Gives back the memory of peers that are gone.
    pub fn tidy(&mut self, ports: &Ports) {
        self.stages.retain(|(link, _), stage| !stage.is_empty() || ports.by_link.contains_key(link));
    }
}

impl Egress for Lane {
    fn put(&mut self, link: LinkId, path: PathId, size: Size, now: Time, fill: impl FnOnce(&mut [u8])) -> bool {
        let stage = self.stages.entry((link, size)).or_default();
        if stage.is_empty() {
            self.dirty.push_back(((link, size), now));
        }
        let Some(cell) = stage.room(size) else {
            self.dropped += 1;
            return false;
        };
        Channel::name(cell, path);
        fill(Channel::onion(cell));
        if stage.len() >= RUN {
            self.full = Some((link, size));
        }
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::link::{Role, Suite};

    const PATHS: usize = 4;

    /// Has a lane send so many cells of each of four paths, path by path: each cell's path, and its place in it.
    fn sent(lane: &mut Lane, peer: &mut Channel, ports: &Ports, each: usize) -> Vec<(usize, usize)> {
        let now = Time::from_nanos(1);
        for (path, place) in (0..PATHS).flat_map(|path| (0..each).map(move |place| (path, place))) {
            assert!(lane.put(LinkId(1), PathId(path as u32), Size::Small, now, |onion| onion.fill(place as u8)));
        }
        let mut seen = Vec::new();
        lane.flush(ports, now, &mut |_, segment, bytes| {
            for cell in bytes.to_vec().chunks_exact_mut(segment) {
                let (path, onion) = peer.open(1, cell, now).unwrap();
                assert!(onion.iter().all(|byte| *byte == onion[0]), "parts of two cells");
                seen.push((path.0 as usize, usize::from(onion[0])));
            }
        });
        seen
    }

    /// Who sees what goes in and out must not read from the order alone which of two cells that left together came first.
    #[test]
    fn cells_of_paths_that_leave_together_are_shuffled_and_those_of_one_keep_their_order() {
        let mut ports = Ports::default();
        let channel = |role| Channel::new(Suite::Aes, role, &[1; 32]);
        ports.insert(LinkId(1), ([10, 1, 0, 1], 1090).into(), channel(Role::Initiator));
        let (mut peer, mut lane) = (channel(Role::Responder), Lane::new(1, Chance::new([7; 32])));
        const RUNS: usize = 400;
        let mut first = [0usize; PATHS];
        for _ in 0..RUNS {
            let seen = sent(&mut lane, &mut peer, &ports, 8);
            first[seen[0].0] += 1;
            for path in 0..PATHS {
                assert!(seen.iter().filter(|cell| cell.0 == path).map(|cell| cell.1).eq(0..8), "path {path}: {seen:?}");
            }
        }
        // Each path comes first a quarter of the time; five standard deviations are 43.
        assert!(first.iter().all(|count| count.abs_diff(RUNS / PATHS) < 43), "first of a run: {first:?}");
    }
}
