//! The cell path for a counter of instructions: `count STAGES CELLS` sends so many cells of 1440 bytes through the first
//! stages of a path and prints nothing. `tests/bench/instructions` runs it under callgrind with two numbers of cells, so that
//! set-up falls out of the difference. Neighbours: `cells` measures the same in time, `chain` lends whole relays.

use super::chain::{Chain, NOW, Relay};
use lokinet_core::crypto::onion::{Opener, Order, Sealer};
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::link::Links;
use lokinet_core::node::worker::{Tally, Work, Worker};
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::session;
use std::sync::Arc;

/// Cells that are staged together before a relay sees them, as GRO would bring them.
const BATCH: usize = 44;
const HOPS: u8 = 3;

/// Does what the words after `count` say; `None` when they say nothing.
///
/// `STAGES` is `session`, for the ends' own layer, sealed and opened; or how many relays the cells pass (0 to 3) after the
/// client has wrapped and sealed them.
pub(crate) fn run(words: &[String]) -> Option<()> {
    let [stages, cells] = words else { return None };
    let cells = cells.parse().ok()?;
    match stages.as_str() {
        "session" => ends(cells),
        stages => pass(stages.parse().ok().filter(|stages| *stages <= usize::from(HOPS))?, cells),
    }
    Some(())
}

/// The layer between client and SNApp: seal, open.
fn ends(cells: usize) {
    let mut sealer = Sealer::new(Suite::Aes, &[4; 32], Order::Plain);
    let mut opener = Opener::new(Suite::Aes, &[4; 32]);
    let mut layer = vec![0; session::layer(Size::Full)];
    for _ in 0..cells {
        sealer.seal(&mut layer, NOW.mono);
        assert!(opener.open(&mut layer, NOW.mono).is_ok());
    }
}

/// The client wraps three layers and seals the cell; each relay opens it, peels, and seals it for the next.
fn pass(relays: usize, cells: usize) {
    let mut chain = Chain::new(HOPS);
    let key = chain.path();
    let tally = Arc::new(Tally::default());
    let worker = |relay: &mut Relay| {
        Worker::new(relay.links.share(), relay.transit.share(), tally.clone(), 1, Chance::new([1; 32]))
    };
    let mut workers: Vec<Worker> = chain.relays.iter_mut().map(worker).collect();
    let (mut sent, mut run) = (0, Vec::new());
    while sent < cells {
        let batch = BATCH.min(cells - sent);
        for _ in 0..batch {
            chain.paths.send(key, Size::Full, &mut chain.client, NOW.mono, |body| body.fill(1));
        }
        take(&mut chain.client, &mut run);
        assert_eq!(run.len(), batch * Size::Full.datagram(), "the client sent something else");
        for (at, worker) in workers.iter_mut().take(relays).enumerate() {
            let (message, used) = (core::mem::replace(&mut run, worker.spare()), batch * Size::Full.datagram());
            worker.take(message, used, Size::Full.datagram(), NOW.mono, &mut |_| panic!("a stray"));
            run.clear();
            worker.work(NOW.mono, &mut |work| {
                if let Work::Transmit { bytes, .. } = work {
                    run.extend_from_slice(bytes);
                }
            });
            assert!(worker.is_idle());
            // The last one is a pivot that has nobody to hand to.
            assert!(at + 1 == usize::from(HOPS) || run.len() == batch * Size::Full.datagram(), "cells were dropped");
        }
        sent += batch;
    }
}

/// All that wants to be sent, in one run.
fn take(links: &mut Links, all: &mut Vec<u8>) {
    all.clear();
    while let Some((_, size, link, bytes)) = links.take_run() {
        all.extend_from_slice(&bytes);
        links.give_back(link, size, bytes);
    }
}
