//! Clocks: days change, wall clocks jump and disagree. Timers run on the other clock, so conversations must not notice;
//! names must be found on both sides of midnight.

use core::time::Duration;
use lokinet_core::flow::question::Kind as Type;
use lokinet_core::node::io::Event;
use lokinet_tests::person::{self, call, first_address, loki_name, own_ip, ping, question};
use lokinet_tests::world::World;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn at_that_time(seed: u64, later: Duration, clients: usize) -> World {
    let mut world = World::new(seed);
    world.begin_later(later);
    world.settle(10, clients, 1);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 10));
    world
}

/// One ping every ten seconds, for so long: how many were lost.
fn lost(world: &mut World, way: (std::net::Ipv4Addr, std::net::Ipv4Addr), time: Duration) -> usize {
    let rounds = (time.as_secs() / 10) as u16;
    let mut lost = 0;
    for number in 1000..1000 + rounds {
        lost += usize::from(!ping(world, "client1", way, number, SECOND));
        world.run_for(SECOND * 10);
    }
    lost
}

#[test]
fn a_name_is_found_on_both_sides_of_midnight() {
    let mut world = at_that_time(91, MINUTE * (24 * 60 - 2), 3);
    let way = call(&mut world, "client1", "service1");
    assert_eq!(lost(&mut world, way, MINUTE * 3), 0, "midnight was noticed");
    let name = loki_name(&mut world, "service1");
    // One whose clock is still in the old day, one who is as far as the service.
    world.clock_jump("client2", -5 * 60_000);
    for host in ["client2", "client3"] {
        let answer = world.ask(host, question(&name, Type::A));
        let theirs = first_address(answer);
        let own = own_ip(&mut world, host);
        assert!(ping(&mut world, host, (own, theirs), 1, SECOND), "{host} does not reach the service");
    }
    // And a client whose clock is in the next day before anybody else's.
    let mut world = at_that_time(92, MINUTE * (24 * 60 - 4), 1);
    world.clock_jump("client1", 5 * 60_000);
    let way = call(&mut world, "client1", "service1");
    assert!(ping(&mut world, "client1", way, 1, SECOND));
}

#[test]
fn a_clock_that_jumps_five_minutes_costs_nothing() {
    for (seed, jump) in [(93, 5 * 60_000), (94, -5 * 60_000)] {
        let mut world = at_that_time(seed, MINUTE * 60 * 7, 1);
        let way = call(&mut world, "client1", "service1");
        assert_eq!(lost(&mut world, way, MINUTE), 0);
        world.clock_jump("client1", jump);
        let lost = lost(&mut world, way, MINUTE * 45);
        println!("seed {seed}: {lost} of 270 pings lost after the clock jumped {} s", jump / 1000);
        assert!(lost <= 2);
    }
}

/// A clock that is an hour off is told so, and what runs goes on until it has to be built anew; set right, all is well.
#[test]
fn a_clock_that_is_wrong_is_reported_and_mended() {
    let mut world = at_that_time(95, MINUTE * 60 * 7, 1);
    let way = call(&mut world, "client1", "service1");
    world.clock_jump("client1", 3_600_000);
    assert_eq!(lost(&mut world, way, MINUTE), 0);
    world.kill("client1");
    world.start("client1");
    world.run_for(SECOND * 20);
    let told = world.events("client1").iter().any(|(_, event)| matches!(event, Event::ClockSkew(3595..=3605)));
    assert!(told, "{:?}", world.events("client1"));
    world.clock_jump("client1", -3_600_000);
    let live = world.run_until(|w| w.report("client1").paths.iter().any(|p| p.state == "live"), MINUTE);
    assert!(live, "no path a minute after the clock was set right");
    let way = person::call(&mut world, "client1", "service1");
    assert!(ping(&mut world, "client1", way, 1, SECOND));
}

/// Keys are ratcheted, paths renewed, onion keys rotated, a day changes: nothing is lost and nothing piles up.
#[test]
fn a_day_and_an_hour_leave_no_trace() {
    let mut world = at_that_time(96, MINUTE * 60 * 3, 1);
    let way = call(&mut world, "client1", "service1");
    let contact = world.own_contact("relay1").expect("a contact");
    let mut lost = 0;
    for number in 0..25 * 30 {
        lost += usize::from(!ping(&mut world, "client1", way, number, SECOND));
        world.run_for(MINUTE * 2);
    }
    println!("{lost} of 750 pings lost in 25 hours");
    assert_eq!(lost, 0);
    assert_ne!(world.own_contact("relay1").expect("a contact"), contact, "the contact was never made anew");
    for host in world.names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        let report = world.report(&host);
        let size = report.paths.len() + report.sessions.len() + report.links.len() + report.transit;
        assert!(size <= 48, "{host} keeps {report:?}");
        let refused = report.counters.iter().find(|(name, _)| *name == "builds refused").map_or(0, |(_, n)| *n);
        assert_eq!(refused, 0, "{host} refused builds under a key that was rotated away");
    }
}
