//! Relays that come and go: what a build, a client's wire and the network's talk pay for it. Judged by counters that a
//! person sees in `lokinet status`, on virtual time.

use core::time::Duration;
use lokinet_tests::scale::{self, Plan};
use lokinet_tests::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn failed(world: &World, clients: usize) -> u64 {
    (1..=clients).map(|n| world.report(&format!("client{n}")).counter("paths failed")).sum()
}

/// One relay in ten is killed each minute and is back ten seconds later. A service moves to other pivots all the time; its
/// callers know where, and nobody builds over a relay that he could know to be gone. Nor does anybody wait for one to be
/// back: whoever loses his first hop finds out himself.
#[test]
fn paths_are_built_and_talks_go_on_while_relays_come_and_go() {
    let (mut ended, mut failed) = (0, 0);
    for seed in 1..4 {
        let away = SECOND * 10;
        let plan = Plan { relays: 60, clients: 12, services: 12, minutes: 6, churn: 10.0, away, seed };
        let figures = scale::run(&plan, &mut |_| {});
        let (beats, back) = figures.beats;
        println!("seed {seed}: {:?} builds, {back} of {beats} beats, longest {:?}", figures.builds, figures.longest);
        assert!(figures.longest <= SECOND * 8, "seed {seed}: nothing heard for {:?}", figures.longest);
        assert!(back * 100 >= beats * 97, "seed {seed}: only {back} of {beats} beats came back");
        ended += figures.builds.0;
        failed += figures.builds.1;
    }
    assert!(failed * 50 <= ended, "{failed} of {ended} builds failed");
}

/// A neighbour's links to a relay that was killed look sound for as long as QUIC is patient. One that is back says that
/// it forgot, and what was asked in vain is asked again.
#[test]
fn a_relay_that_is_back_is_a_hop_again_at_once() {
    for seed in 500..504 {
        let mut world = World::town(seed, 6, 4, 0);
        assert!(world.awake(SECOND * 10));
        world.run_for(SECOND * 20);
        let before = failed(&world, 4);
        for relay in ["relay1", "relay2", "relay3", "relay4", "relay5", "relay6"] {
            world.kill(relay);
            world.run_for(SECOND / 10);
            world.start(relay);
            // Clients find out that their paths are gone, and build others over the relay that everybody was linked with.
            world.run_for(SECOND * 14);
        }
        let lost = failed(&world, 4) - before;
        let live = (1..=4).all(|n| world.report(&format!("client{n}")).paths.iter().any(|path| path.state == "live"));
        println!("seed {seed}: {lost} builds failed while six relays were restarted");
        assert!(live && lost <= 1, "seed {seed}: {lost} builds failed over relays that were there");
    }
}

/// The relay that a client's paths begin with.
fn first_hop(world: &World) -> Option<String> {
    let report = world.report("client1");
    let hop = report.paths.iter().find(|path| path.state == "live")?.hops.first()?.0;
    world.who_has(hop).map(str::to_owned)
}

/// Both of a client's best guards are gone: one build finds out about the second, not all of them.
#[test]
fn a_dead_guard_costs_few_builds() {
    for seed in 510..514 {
        let begin = || {
            let mut world = World::town(seed, 12, 1, 0);
            assert!(world.awake(SECOND * 10));
            world.run_for(SECOND * 20);
            let first = first_hop(&world).expect("a live path");
            (world, first)
        };
        let (mut world, first) = begin();
        world.kill(&first);
        world.run_for(SECOND * 20);
        let second = first_hop(&world).expect("a live path again");
        assert_ne!(first, second);
        let (mut world, _) = begin();
        let before = failed(&world, 1);
        world.kill(&first);
        world.kill(&second);
        world.run_for(SECOND * 30);
        let lost = failed(&world, 1) - before;
        println!("seed {seed}: {lost} builds failed after {first} and {second} had died");
        assert!(first_hop(&world).is_some_and(|third| third != first && third != second), "no path again");
        // Others may have wanted the dead as their middle or last hop.
        assert!(lost <= 3, "seed {seed}: {lost} builds failed");
    }
}

/// A relay that crashed and is back is who it was: nobody need be told, and nobody is.
#[test]
fn a_restart_is_no_news() {
    let mut world = World::town(520, 20, 1, 0);
    assert!(world.awake(SECOND * 10));
    world.run_for(SECOND * 30);
    let (before, told) = (world.own_contact("relay5").expect("a contact"), world.asked()[5]);
    world.kill("relay5");
    world.run_for(SECOND);
    world.start("relay5");
    world.run_for(SECOND * 10);
    assert_eq!(world.own_contact("relay5"), Some(before));
    let told = world.asked()[5].0 - told.0;
    println!("{told} contacts were shown because one relay was restarted");
    assert!(told <= 40, "{told} contacts were shown: whoever links with it and no more");
}

/// Nothing has changed: a client hears names, not contacts.
#[test]
fn a_client_is_not_told_again_what_it_knows() {
    let mut world = World::town(530, 60, 1, 0);
    world.laws(false);
    assert!(world.awake(SECOND * 20));
    assert!(world.run_until(|world| world.report("client1").contacts == 60, SECOND * 120), "not all were learnt");
    world.run_for(SECOND * 60);
    let before = world.report("client1").counter("directory bytes");
    world.run_for(SECOND * 1300);
    let told = world.report("client1").counter("directory bytes") - before;
    println!("told {told} bytes in two rounds");
    assert!(told >= 2 * 50 * 8, "nobody was asked");
    assert!(told <= 3 * 60 * 8, "{told} bytes in two rounds, of 82 kB of contacts each");
}
