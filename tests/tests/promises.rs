//! Promised times and bounds, on virtual clocks: how soon a cold client has its first answer, how soon a new service is
//! reached, how soon a name without a service is denied, and what a hundred callers cost.

use core::time::Duration;
use lokinet_core::flow::question::{Answer, Code, Kind as Type};
use lokinet_core::node::io::Event;
use lokinet_tests::person::{first_address, loki_name, nobody, own_ip, ping, question};
use lokinet_tests::world::{Wire, World};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn founded(seed: u64, wire: Wire, clients: usize, services: usize) -> World {
    let mut world = World::new(seed);
    world.usual_wire(wire);
    world.settle(10, clients, services);
    (1..=services).for_each(|n| world.echo(&format!("service{n}"), true));
    world
}

#[test]
fn from_a_cold_start_to_the_first_answered_name_takes_a_second_at_most() {
    for seed in 61..65 {
        let mut world = founded(seed, Wire::of(MILLI), 1, 1);
        assert!(world.awake(SECOND * 10));
        let name = loki_name(&mut world, "service1");
        world.kill("client1");
        world.run_for(SECOND);
        // Born anew, and asked at once.
        world.start("client1");
        let born = world.now();
        let answer = world.ask_within("client1", question(&name, Type::A), SECOND * 5);
        first_address(answer);
        let took = world.now().since(born);
        println!("seed {seed}: first name answered {took:?} after a cold start");
        assert!(took <= SECOND);
    }
}

#[test]
fn the_whole_town_is_awake_soon() {
    for seed in 65..68 {
        let mut world = founded(seed, Wire::of(MILLI), 1, 1);
        assert!(world.awake(SECOND * 10));
        println!("seed {seed}: everyone ready and published after {:?}", world.now().since(Default::default()));
        assert!(world.now().since(Default::default()) <= SECOND * 2);
    }
}

/// Everybody is born at once and asks relays that know as little: that must not last until the next round.
#[test]
fn a_network_that_is_born_at_once_knows_itself_soon() {
    let mut world = World::town(66, 60, 6, 2);
    assert!(world.awake(SECOND * 10));
    world.run_for(SECOND * 15);
    for host in world.names() {
        let report = world.report(host);
        assert!(report.contacts * 4 >= report.registered * 3, "{host} knows {} of 60 relays", report.contacts);
    }
}

#[test]
fn a_known_name_brings_the_first_byte_within_two_round_trips() {
    for seed in 68..72 {
        let mut world = founded(seed, Wire::of(MILLI * 10), 1, 1);
        assert!(world.awake(SECOND * 10));
        world.run_for(SECOND * 5);
        let name = loki_name(&mut world, "service1");
        let own = own_ip(&mut world, "client1");
        let asked = world.now();
        let theirs = first_address(world.ask("client1", question(&name, Type::A)));
        let answered = world.now().since(asked);
        assert!(ping(&mut world, "client1", (own, theirs), 1, SECOND));
        let first = world.now().since(asked);
        world.run_for(SECOND);
        let before = world.now();
        assert!(ping(&mut world, "client1", (own, theirs), 2, SECOND));
        let round = world.now().since(before);
        // Finding the introset costs a round trip of one path and two wires beforehand: of those two relays dial first.
        let found = round / 2 + MILLI * 65;
        println!(
            "seed {seed}: name answered after {answered:?}, first byte after {first:?}; a round trip is {round:?}"
        );
        assert!(first <= found + round * 2, "{first:?} with round trips of {round:?}");
    }
}

#[test]
fn a_new_service_is_reached_within_three_seconds_by_a_client_that_runs() {
    for seed in 72..75 {
        let mut world = founded(seed, Wire::default(), 1, 2);
        world.kill("service2");
        assert!(world.awake(SECOND * 10));
        world.run_for(SECOND * 60);
        world.start("service2");
        let born = world.now();
        let name = loki_name(&mut world, "service2");
        let own = own_ip(&mut world, "client1");
        let reached = loop {
            let answer = world.ask_within("client1", question(&name, Type::A), SECOND * 5).expect("no answer at all");
            if answer.code == Code::NoError {
                let theirs = first_address(Some(answer));
                assert!(ping(&mut world, "client1", (own, theirs), 1, SECOND));
                break world.now();
            }
            world.run_for(MILLI * 100);
            assert!(world.now().since(born) < SECOND * 10);
        };
        println!("seed {seed}: a new service reached {:?} after its start", reached.since(born));
        assert!(reached.since(born) <= SECOND * 3);
    }
}

#[test]
fn what_does_not_exist_is_denied_within_two_seconds() {
    for (seed, dead) in [(75, 0), (76, 0), (77, 2)] {
        let mut world = founded(seed, Wire::default(), 1, 1);
        assert!(world.awake(SECOND * 10));
        // Dead relays may be among those that would have it.
        (0..dead).for_each(|n| world.kill(&format!("relay{}", 10 - n)));
        world.run_for(SECOND * 35);
        let before = world.now();
        let answer = world.ask_within("client1", question(&nobody(), Type::A), SECOND * 5);
        let took = world.now().since(before);
        println!("seed {seed}: denied after {took:?} with {dead} relays dead");
        assert_eq!(answer, Some(Answer::empty(Code::NxDomain)));
        assert!(took <= SECOND * 2);
    }
}

/// Nobody could be asked: that is trouble, and no proof that there is nothing.
#[test]
fn a_client_that_reaches_nobody_denies_nothing() {
    let mut world = founded(78, Wire::default(), 1, 1);
    assert!(world.awake(SECOND * 10));
    let name = loki_name(&mut world, "service1");
    world.isolate("client1", true);
    let answer = world.ask_within("client1", question(&name, Type::A), SECOND * 29).expect("no answer at all");
    assert_eq!(answer.code, Code::ServFail, "NXDOMAIN for a service that exists");
    world.isolate("client1", false);
    let back = world.run_until(|w| w.report("client1").paths.iter().any(|p| p.state == "live"), SECOND * 60);
    assert!(back, "the client found no way back");
    let answer = world.ask_within("client1", question(&name, Type::A), SECOND * 10);
    first_address(answer);
}

#[test]
fn a_hundred_callers_are_all_served_and_leave_nothing_behind() {
    const CALLERS: usize = 100;
    let mut world = founded(79, Wire::default(), CALLERS, 1);
    assert!(world.awake(SECOND * 20));
    let name = loki_name(&mut world, "service1");
    let began = world.now();
    let mut ways = Vec::new();
    let hosts: Vec<String> = (1..=CALLERS).map(|n| format!("client{n}")).collect();
    let asked: Vec<_> = hosts.iter().map(|host| world.begin_asking(host, question(&name, Type::A))).collect();
    for (host, ticket) in hosts.iter().zip(asked) {
        let theirs = first_address(world.await_answer(host, ticket, SECOND * 15));
        ways.push((own_ip(&mut world, host), theirs));
    }
    println!("{CALLERS} callers have their answer after {:?}", world.now().since(began));
    assert!(world.now().since(began) <= SECOND * 3);
    for (host, way) in hosts.iter().zip(&ways) {
        assert!(ping(&mut world, host, *way, 1, SECOND), "{host} is not served");
    }
    let report = world.report("service1");
    assert_eq!(report.sessions.len(), CALLERS);
    let mut leased: Vec<_> = report.sessions.iter().map(|s| s.lease.expect("no address")).collect();
    leased.sort();
    leased.dedup();
    assert_eq!(leased.len(), CALLERS, "two callers share an address");
    // Half leave politely, half just vanish: both are forgotten.
    for (n, host) in hosts.iter().enumerate() {
        if n % 2 == 0 { world.stop(host) } else { world.kill(host) }
    }
    world.run_for(SECOND * 720);
    let report = world.report("service1");
    assert_eq!(report.sessions.len(), 0, "conversations with the dead");
    world.run_for(SECOND * 700);
    for relay in (1..=10).map(|n| format!("relay{n}")) {
        let report = world.report(&relay);
        // Only the service's own paths are left: four, and while they are renewed up to eight, each a hop here at most.
        assert!(report.transit <= 8, "{relay} keeps {} hops of nobody", report.transit);
    }
    assert!(world.events("service1").iter().any(|(_, e)| *e == Event::Published));
}

/// A relay that should keep the introset is dead for long: the others must not be given new editions ever so often.
#[test]
fn a_dead_keeper_costs_few_editions() {
    const STORE: u8 = 3;
    for seed in 80..85 {
        let mut world = founded(seed, Wire::default(), 1, 1);
        assert!(world.awake(SECOND * 10));
        (6..=10).for_each(|n| world.kill(&format!("relay{n}")));
        world.run_for(SECOND * 120);
        world.eyes(true);
        world.run_for(SECOND * 300);
        let stores = world.seen().bodies.iter().filter(|b| !b.reply && b.bytes.first() == Some(&STORE)).count();
        println!("{stores} introsets handed to keepers in five minutes with half of the relays dead");
        assert!((4..=40).contains(&stores), "{stores}");
        let name = loki_name(&mut world, "service1");
        let answer = world.ask("client1", question(&name, Type::A));
        first_address(answer);
    }
}
