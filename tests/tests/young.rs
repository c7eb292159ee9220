//! Who has just woken, or whose keepers are gone, may not know. That is trouble, and must never be said as "there is no
//! such service": programs believe it, and resolvers remember it. Judged by answers to name questions.

#![allow(clippy::print_stdout, reason = "a test speaks to who runs it")]

use core::time::Duration;
use lokinet_core::flow::question::{Code, Kind as Type};
use lokinet_core::node::io::Ticket;
use lokinet_tests::person::{first_address, loki_name, question};
use lokinet_tests::world::{Wire, World};

const SECOND: Duration = Duration::from_secs(1);

/// All clients call at the moment the last node of a large town says it is ready, when most know a part of the relays.
#[test]
fn young_callers_are_never_told_that_a_service_does_not_exist() {
    const CLIENTS: usize = 30;
    for seed in [501, 502] {
        let mut world = World::new(seed);
        world.usual_wire(Wire { jitter: Duration::from_millis(5), ..Wire::of(Duration::from_millis(20)) });
        world.settle(150, CLIENTS, 3);
        assert!(world.awake(SECOND * 60));
        let names: Vec<String> = (1..=3).map(|n| loki_name(&mut world, &format!("service{n}"))).collect();
        let asked: Vec<(String, usize, Ticket)> = (0..CLIENTS)
            .map(|n| {
                let host = format!("client{}", n + 1);
                let known = world.report(&host).contacts;
                let ticket = world.begin_asking(&host, question(&names[n % 3], Type::A));
                (host, known, ticket)
            })
            .collect();
        let mut reached = 0;
        for (host, known, ticket) in asked {
            let answer = world.await_answer(&host, ticket, SECOND * 30).expect("no answer at all");
            println!("seed {seed}: {host}, who knew {known} of 150 relays, is told {:?}", answer.code);
            assert_ne!(answer.code, Code::NxDomain, "{host} is told that a service does not exist");
            reached += usize::from(answer.code == Code::NoError);
        }
        println!("seed {seed}: {reached} of {CLIENTS} young callers reached their service");
        assert!(reached >= CLIENTS * 9 / 10, "only {reached} of {CLIENTS} young callers reached their service");
    }
}

/// The relays that keep an introset die together. Nobody who could deny it is left.
#[test]
fn keepers_that_cannot_be_reached_deny_nothing() {
    for seed in [503, 504, 505] {
        let mut world = World::town(seed, 30, 1, 1);
        assert!(world.awake(SECOND * 20));
        world.run_for(SECOND * 30);
        let name = loki_name(&mut world, "service1");
        let keeps = |world: &World, relay: &String| world.report(relay).counter("introsets kept") > 0;
        let keepers: Vec<String> = (1..=30).map(|n| format!("relay{n}")).filter(|relay| keeps(&world, relay)).collect();
        assert!(keepers.len() >= 4, "{keepers:?}");
        keepers.iter().for_each(|keeper| world.kill(keeper));
        world.kill("service1");
        let answer = world.ask_within("client1", question(&name, Type::A), SECOND * 20).expect("no answer at all");
        println!("seed {seed}: {} keepers dead, and the caller is told {:?}", keepers.len(), answer.code);
        assert_eq!(answer.code, Code::ServFail, "those who could know are dead");
    }
}

/// Half of the relays are dead for minutes, some of them keepers: what exists is found all the same.
#[test]
fn a_service_is_found_while_half_of_the_relays_are_dead() {
    for seed in 80..90 {
        let mut world = World::town(seed, 10, 1, 1);
        assert!(world.awake(SECOND * 10));
        (6..=10).for_each(|n| world.kill(&format!("relay{n}")));
        world.run_for(SECOND * 420);
        let name = loki_name(&mut world, "service1");
        let before = world.now();
        let answer = world.ask("client1", question(&name, Type::A));
        println!("seed {seed}: answered after {:?}", world.now().since(before));
        first_address(answer);
    }
}
