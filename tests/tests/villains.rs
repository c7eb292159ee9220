//! Villains at large: relays and clients that do harm in each of the ways we know, in a town that must go on working.
//! The laws of the world hold for everybody they meet. Judged as a person would, by names and pings, and by builds.

#![allow(clippy::print_stdout, reason = "a test speaks to who runs it")]

use core::time::Duration;
use lokinet_core::node::Node;
use lokinet_tests::person;
use lokinet_tests::villain::{Vice, Villain};
use lokinet_tests::world::{Machine, World};

const SECOND: Duration = Duration::from_secs(1);

/// Two of twelve relays and one of three clients are villains.
fn villains(name: &str, node: Node, vice: Vice) -> Box<dyn Machine> {
    match name {
        "relay5" | "relay9" | "client3" => Box::new(Villain::new(node, vice, 7)),
        _ => Box::new(node),
    }
}

/// How many of 200 pings return in a town with such villains. A slow path is no dead one: each is waited for.
fn pings_among(vice: Vice, dress: fn(&str, Node) -> Box<dyn Machine>, seed: u64) -> usize {
    let mut world = World::new(seed);
    world.settle_with(12, 3, 1, dress);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 60), "{vice:?} keep the town asleep");
    world.run_for(SECOND * 10);
    let way = person::call(&mut world, "client1", "service1");
    let back = (0..200).filter(|n| person::ping(&mut world, "client1", way, *n, SECOND * 3)).count();
    println!("seed {seed}: {back} of 200 pings returned among {vice:?}");
    back
}

macro_rules! among {
    ($($test:ident: $vice:expr, at least $least:expr;)*) => {$(
        #[test]
        fn $test() {
            for seed in [301, 302] {
                let back = pings_among($vice, |name, node| villains(name, node, $vice), seed);
                assert!(back >= $least, "seed {seed}: only {back} of 200 pings returned");
            }
        }
    )*};
}

among! {
    relays_that_drop: Vice::Drops, at least 150;
    relays_that_delay: Vice::Delays, at least 180;
    relays_that_answer_for_others: Vice::AnswersForOthers, at least 180;
    nodes_that_send_what_is_too_long: Vice::Oversize, at least 180;
    nodes_that_build_paths_in_circles: Vice::Loops, at least 190;
    nodes_that_ask_without_end: Vice::Asks, at least 190;
    nodes_that_say_everything_three_times: Vice::Replays, at least 190;
}

/// Four clients flood every relay they can reach with well-formed builds, ten times as many as the honest ones need: the
/// honest ones must not notice.
#[test]
fn a_flood_of_builds_leaves_room_for_nine_of_ten() {
    const HONEST: usize = 4;
    let mut world = World::new(310);
    world.settle_with(12, HONEST + 4, 1, |name, node| match name {
        "client5" | "client6" | "client7" | "client8" => Box::new(Villain::new(node, Vice::Floods(20), 7)),
        _ => Box::new(node),
    });
    assert!(world.awake(SECOND * 60));
    let (mut begun, mut failed) = (0, 0);
    let flooded = world.asked()[1].0;
    for round in 0..8 {
        world.run_for(SECOND * 5);
        for n in 1..=HONEST {
            let (name, report) = (format!("client{n}"), world.report(&format!("client{n}")));
            let building = report.paths.iter().filter(|path| path.state == "building").count() as u64;
            begun += report.counter("paths begun") - building;
            failed += report.counter("paths failed");
            // Born anew, it needs all its paths anew.
            world.kill(&name);
            world.start(&name);
        }
        println!("round {round}: {begun} honest builds ended, {failed} failed");
    }
    let all = world.asked()[1].0 - flooded;
    println!("{begun} honest builds, {failed} failed, among {all} requests to build");
    assert!(all >= begun * 10, "no flood worth the name: {all} requests, {begun} honest builds");
    assert!((begun - failed) * 10 >= begun * 9, "{failed} of {begun} honest builds failed");
}
