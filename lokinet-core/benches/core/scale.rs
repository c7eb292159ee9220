//! One relay on several cores: `scale WORKERS CELLS` has so many clients send so many full cells each through a middle
//! hop, one worker and one thread for each client, and prints how many cells the relay passed in a second and what one
//! cost in processor time. The second number tells on a busy machine too whether workers stand in each other's way.
//! Neighbours: `chain` lends the relays, `counted` counts instructions instead.

use super::chain::{Chain, NOW};
use lokinet_core::crypto::random::Chance;
use lokinet_core::node::worker::{Tally, WORKERS_MAX, Work, Worker};
use lokinet_core::wire::cell::Size;
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// Cells in one message, as GRO brings them.
const MESSAGE: usize = 44 * Size::Full.datagram();

/// Does what the words after `scale` say; `None` when they say nothing.
#[allow(clippy::print_stdout)] // for whoever runs it
pub(crate) fn run(words: &[String]) -> Option<()> {
    let [workers, cells] = words else { return None };
    let workers = workers.parse().ok().filter(|workers| (1..=WORKERS_MAX).contains(workers))?;
    let cells = cells.parse().ok()?;
    let mut chain = Chain::new(2);
    let sent: Vec<Vec<u8>> = (0..workers).map(|number| chain.flood(number as u8, cells)).collect();
    let (relay, tally) = (&mut chain.relays[0], Arc::new(Tally::default()));
    let (ports, legs) = (relay.links.share(), relay.transit.share());
    let crew =
        (1..=workers).map(|shard| Worker::new(ports.clone(), legs.clone(), tally.clone(), shard, Chance::new([1; 32])));
    let start = Barrier::new(workers + 1);
    let spent = std::thread::scope(|scope| {
        let threads: Vec<_> = crew
            .zip(&sent)
            .map(|(worker, sent)| {
                scope.spawn(|| {
                    start.wait();
                    work(worker, sent)
                })
            })
            .collect();
        start.wait();
        let begun = time(ClockId::Monotonic);
        let cost: Duration = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        (time(ClockId::Monotonic) - begun, cost)
    });
    let all = (cells * workers) as f64;
    println!(
        "{workers} workers: {:.0} cells/s, {:.0} ns of processor each",
        all / spent.0.as_secs_f64(),
        spent.1.as_nanos() as f64 / all
    );
    Some(())
}

/// Takes the cells message by message, works them off, and says what processor time that took.
fn work(mut worker: Worker, sent: &[u8]) -> Duration {
    let mut passed = 0;
    let begun = time(ClockId::ThreadCPUTime);
    for message in sent.chunks(MESSAGE) {
        let mut spare = worker.spare();
        spare.clear();
        spare.extend_from_slice(message); // as the kernel would
        worker.take(spare, message.len(), Size::Full.datagram(), NOW.mono, &mut |_| panic!("a stray"));
        while !worker.is_idle() {
            worker.work(NOW.mono, &mut |work| {
                if let Work::Transmit { bytes, .. } = work {
                    passed += bytes.len();
                }
            });
        }
    }
    assert_eq!(passed, sent.len(), "cells were dropped");
    time(ClockId::ThreadCPUTime) - begun
}

fn time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
