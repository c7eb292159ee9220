//! What is over leaves nothing behind: builds that came to nothing, paths whose relays died, conversations that others
//! took the place of. Judged by what relays carry and by the paths a client keeps.

#![allow(clippy::print_stdout, reason = "a test speaks to who runs it")]

use core::time::Duration;
use lokinet_tests::person::{call, ping, reached_again};
use lokinet_tests::world::World;

const SECOND: Duration = Duration::from_secs(1);
const RELAYS: usize = 10;

/// Hops that all relays lend, and those of them that belong to somebody's path, built or being built.
fn hops(world: &World, owners: &[&str]) -> (usize, usize) {
    let lent = (1..=RELAYS).map(|n| world.report(&format!("relay{n}")).transit).sum();
    let paths = owners.iter().flat_map(|owner| world.report(owner).paths);
    (lent, paths.map(|path| path.hops.len()).sum())
}

#[test]
fn builds_that_fail_and_paths_that_break_leave_no_hops() {
    let owners = ["client1", "client2", "service1"];
    for seed in [521, 522] {
        let mut world = World::town(seed, RELAYS, 2, 1);
        assert!(world.awake(SECOND * 10));
        world.run_for(SECOND * 20);
        (7..=RELAYS).for_each(|n| world.kill(&format!("relay{n}")));
        world.run_for(SECOND * 60);
        let failed: u64 = owners.iter().map(|owner| world.report(owner).counter("paths failed")).sum();
        assert!(failed >= 10, "seed {seed}: only {failed} builds failed");
        (7..=RELAYS).for_each(|n| world.start(&format!("relay{n}")));
        // Those that failed last are let go a minute later; nobody's lifetime is over by then.
        world.run_for(SECOND * 120);
        let (lent, owned) = hops(&world, &owners);
        println!("seed {seed}: after {failed} failed builds {lent} hops are lent, {owned} belong to somebody");
        // Behind a first hop that dies the others cannot hear of it, and wait for their lifetime's end.
        assert!(lent <= owned + 6, "seed {seed}: {lent} hops are lent, and {owned} belong to somebody");
    }
}

#[test]
fn conversations_that_others_took_the_place_of_leave_no_paths() {
    let mut world = World::town(523, RELAYS, 1, 1);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 10));
    let way = call(&mut world, "client1", "service1");
    for round in 0..4 {
        world.kill("service1");
        world.start("service1");
        let back = reached_again(&mut world, "client1", way, 100 * round, SECOND * 90);
        assert!(back.is_some(), "round {round}: the service lives and is not reached");
    }
    world.run_for(SECOND * 30);
    assert!(ping(&mut world, "client1", way, 9999, SECOND));
    // The ones that were left are forgotten a minute after their last word.
    world.run_for(SECOND * 90);
    let report = world.report("client1");
    let joined = report.paths.iter().filter(|path| path.purpose == "rendezvous").count();
    println!("after four lives of the service: {} conversations, {joined} joined paths", report.sessions.len());
    assert_eq!(report.sessions.len(), 1, "conversations with services that are dead");
    assert!(joined <= 3, "{joined} joined paths for one conversation");
}
