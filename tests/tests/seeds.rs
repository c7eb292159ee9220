//! The scenario set, once per seed: a small town on wires of its own kind wakes, talks, loses a relay, a wire, a clock and
//! sometimes its good company, and must go on talking, with the laws of the world looked after at every step.
//! `LOKINET_SEEDS=64` says how many seeds (64 unless told), `LOKINET_SEED=17` runs that one alone.

use core::time::Duration;
use lokinet_tests::person::{self, call, ping, reached_again, relays_on_the_way};
use lokinet_tests::villain::{Vice, Villain};
use lokinet_tests::world::{Wire, World};
use std::sync::atomic::{AtomicU64, Ordering};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
/// Relays of each town.
const RELAYS: usize = 10;

/// What is different from seed to seed.
fn wire(seed: u64) -> Wire {
    match seed % 4 {
        0 => Wire::default(),
        1 => Wire { jitter: MILLI * 5, loss: 0.01, ..Wire::default() },
        2 => Wire { jitter: MILLI * 10, reorder: 0.05, duplicate: 0.02, ..Wire::of(MILLI * 40) },
        _ => Wire { rate: Some(20_000_000), ..Wire::of(MILLI * 15) },
    }
}

/// Every third town has a villain; what kind follows from which third.
fn settle(world: &mut World, seed: u64) {
    match seed % 9 {
        2 => world.settle_with(RELAYS, 2, 1, |name, node| match name {
            "relay7" => Box::new(Villain::new(node, Vice::Lies, 7)),
            _ => Box::new(node),
        }),
        5 => world.settle_with(RELAYS, 2, 1, |name, node| match name {
            "relay7" | "client2" => Box::new(Villain::new(node, Vice::Replays, 7)),
            _ => Box::new(node),
        }),
        8 => world.settle_with(RELAYS, 2, 1, |name, node| match name {
            "client2" => Box::new(Villain::new(node, Vice::Floods(20), 7)),
            _ => Box::new(node),
        }),
        _ => world.settle(RELAYS, 2, 1),
    }
}

fn live(seed: u64) -> (World, String) {
    let mut world = World::new(seed);
    world.usual_wire(wire(seed));
    settle(&mut world, seed);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 30), "seed {seed}: the town does not wake");
    world.run_for(SECOND * 5);
    let way = call(&mut world, "client1", "service1");
    let talk =
        |world: &mut World, first: u16| (first..first + 20).filter(|n| ping(world, "client1", way, *n, SECOND)).count();
    let before = talk(&mut world, 0);
    // One thing breaks, another one each time.
    let victim = relays_on_the_way(&world, "client1")[seed as usize % 3].clone();
    let mut allowed = SECOND * 5;
    let broke = match seed % 5 {
        0 | 1 => {
            world.kill(&victim);
            format!("{victim} was killed")
        }
        2 => {
            world.isolate(&victim, true);
            format!("{victim} was cut off")
        }
        3 => {
            world.clock_jump("client1", if seed % 2 == 0 { 240_000 } else { -240_000 });
            "a clock jumped".to_owned()
        }
        _ => {
            world.stop("service1");
            world.run_for(SECOND);
            world.start("service1");
            allowed = SECOND * 8;
            "the service was restarted".to_owned()
        }
    };
    let took = reached_again(&mut world, "client1", way, 100, allowed);
    let took = took.unwrap_or_else(|| panic!("seed {seed}: {broke}, and nothing came back within {allowed:?}"));
    // What was killed or cut off comes back, and a while passes.
    world.isolate(&victim, false);
    world.start(&victim);
    world.run_for(SECOND * 90);
    let after = talk(&mut world, 1000);
    // Twice seven wires of one percent lose some; a liar on the way bends a quarter, each way.
    let least = if seed % 9 == 2 { 4 } else { 12 };
    assert!(before >= least && after >= least, "seed {seed}: {before} of 20 pings before, {after} after {broke}");
    assert_eq!(person::own_ip(&mut world, "client1"), way.0);
    let line = format!("{before}/20, {broke}, again after {took:?}, {after}/20, {} events", world.steps());
    (world, line)
}

#[test]
fn every_seed_is_lived_through() {
    let told = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = told("LOKINET_SEED") {
        return println!("seed {seed}: {}", live(seed).1);
    }
    let (next, count) = (AtomicU64::new(0), told("LOKINET_SEEDS").unwrap_or(64));
    // Two worlds at once: no node knows of threads, and each world is whole in its own.
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
                break;
            }
            println!("seed {seed}: {}", live(seed).1);
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(run))));
}

#[test]
fn a_seed_is_lived_through_in_the_same_way_each_time() {
    for seed in [5, 14] {
        assert_eq!(live(seed).0.digest(), live(seed).0.digest(), "seed {seed}");
    }
}
