//! The cell path for a counter of instructions: `count STAGES CELLS` sends so many cells of 1440 bytes through the first
//! stages of a path and prints nothing. `tests/bench/instructions` runs it under callgrind with two numbers of cells, so that
//! set-up falls out of the difference. Neighbours: `cells` measures the same in time, `chain` lends whole relays.

use super::chain::{Chain, NOW};
use lokinet_core::crypto::onion::{Opener, Order, Sealer};
use lokinet_core::crypto::seal::Suite;
use lokinet_core::link::Links;
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::session;

/// Cells that are staged together before a relay sees them, as GRO would bring them.
const BATCH: usize = 64;
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
    let mut sent = 0;
    while sent < cells {
        let batch = BATCH.min(cells - sent);
        for _ in 0..batch {
            chain.paths.send(key, Size::Full, &mut chain.client, NOW.mono, |body| body.fill(1));
        }
        let mut run = take(&mut chain.client);
        assert_eq!(run.len(), batch * Size::Full.datagram(), "the client sent something else");
        for (at, relay) in chain.relays.iter_mut().take(relays).enumerate() {
            for datagram in run.chunks_mut(Size::Full.datagram()) {
                let (link, path, size, onion) = relay.links.open(datagram, NOW.mono).unwrap();
                relay.transit.cell(link, path, size, onion, &mut relay.links, NOW.mono);
            }
            run = take(&mut relay.links);
            // The last one is a pivot that has nobody to hand to.
            assert!(at + 1 == usize::from(HOPS) || run.len() == batch * Size::Full.datagram(), "cells were dropped");
        }
        sent += batch;
    }
}

/// All that wants to be sent, in one run.
fn take(links: &mut Links) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some((_, size, link, bytes)) = links.take_run() {
        all.extend_from_slice(&bytes);
        links.give_back(link, size, bytes);
    }
    all
}
