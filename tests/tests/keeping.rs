//! What a node keeps and what it gives up: scores over a restart, relays that the registry drops while everybody runs.

use core::time::Duration;
use lokinet_core::netdb::profile::{FAILURE, HALF_LIFE};
use lokinet_core::node::io::Event;
use lokinet_tests::person::{call, ping, reached_again, relays_on_the_way};
use lokinet_tests::world::World;
use std::collections::BTreeSet;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn who_failed_us_is_remembered_over_a_restart() {
    let mut world = World::town(201, 10, 1, 0);
    assert!(world.awake(SECOND * 10));
    world.run_for(SECOND * 5);
    let key = world.report("client1").paths[0].hops[2].0;
    let victim = world.who_has(key).expect("somebody has it").to_owned();
    world.kill(&victim);
    assert!(world.run_until(|world| world.kept_scores("client1", key) >= FAILURE, SECOND * 60), "no score was kept");
    world.kill("client1");
    let kept = world.kept_scores("client1", key);
    // The relay is well again, so that nothing but the old score can speak against it: only who read it can lower it.
    world.start(&victim);
    world.run_for(SECOND * 5);
    world.start("client1");
    world.run_for(HALF_LIFE + SECOND * 15);
    let now = world.kept_scores("client1", key);
    assert!(now < kept, "the restarted client knows nothing of the scores it kept: {kept} then, {now} now");
}

/// The names of the relays on a host's live paths.
fn relays_used(world: &World, host: &str) -> BTreeSet<String> {
    let hops = world.report(host).paths.into_iter().flat_map(|path| path.hops);
    hops.filter_map(|(id, _)| world.who_has(id).map(str::to_owned)).collect()
}

#[test]
fn a_relay_that_the_registry_drops_is_let_go_while_everybody_runs() {
    let mut world = World::town(202, 10, 1, 1);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 10));
    world.run_for(SECOND * 10);
    let way = call(&mut world, "client1", "service1");
    assert!(ping(&mut world, "client1", way, 1, SECOND));
    // The worst: the client's guard.
    let dropped = relays_on_the_way(&world, "client1")[0].clone();
    let all: Vec<String> = (1..=10).map(|n| format!("relay{n}")).collect();
    let others: Vec<&str> = all.iter().map(String::as_str).filter(|name| *name != dropped).collect();
    world.publish_registry(2, &others, SECOND * 3600);
    world.run_for(SECOND * 2);
    let host = |world: &World| ["client1", "service1"].map(|host| relays_used(world, host));
    assert!(host(&world).iter().all(|used| !used.is_empty() && !used.contains(&dropped)), "{:?}", host(&world));
    assert!(reached_again(&mut world, "client1", way, 100, SECOND * 10).is_some(), "the conversation did not survive");
    let report = world.report("client1");
    assert_eq!((report.registered, report.contacts), (9, 9));
    assert_eq!(world.report(&dropped).transit, 0, "who is no relay still carries paths");

    // An older edition, shown again, brings it back to nobody.
    let everybody: Vec<&str> = all.iter().map(String::as_str).collect();
    world.publish_registry(1, &everybody, SECOND * 3600);
    world.publish_registry(2, &everybody, SECOND * 3600);
    assert_eq!(world.report("client1").registered, 9);
    // A newer one does.
    world.publish_registry(3, &everybody, SECOND * 3600);
    assert!(world.run_until(|world| world.report("client1").contacts == 10, SECOND * 60), "never learnt of again");
}

#[test]
fn an_expired_registry_is_told_once_and_stops_nothing() {
    let mut world = World::town(203, 8, 1, 1);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 10));
    let all: Vec<String> = (1..=8).map(|n| format!("relay{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    world.publish_registry(2, &all, SECOND * 60);
    let told = |world: &World, host| world.events(host).iter().filter(|(_, e)| *e == Event::RegistryExpired).count();
    world.run_for(SECOND * 30);
    assert_eq!((told(&world, "client1"), told(&world, "relay1")), (0, 0));
    world.run_for(SECOND * 90);
    assert_eq!((told(&world, "client1"), told(&world, "relay1")), (1, 1));
    let way = call(&mut world, "client1", "service1");
    assert!(ping(&mut world, "client1", way, 1, SECOND));
}

/// A person's file is old, or was put back by somebody: `bear` always begins with the first edition.
#[test]
fn an_older_registry_is_refused_also_after_a_restart() {
    let mut world = World::town(204, 10, 1, 1);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 10));
    let all: Vec<String> = (1..=10).map(|n| format!("relay{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let refused = |world: &World, host| world.events(host).iter().filter(|(_, e)| *e == Event::RegistryRefused).count();
    // One edition drops a relay that has turned out to be hostile; its time ends soon.
    world.publish_registry(2, &all[1..], SECOND * 120);
    world.run_for(SECOND * 5);
    for (host, politely) in [("client1", false), ("service1", true), ("relay5", false)] {
        if politely {
            world.stop(host)
        } else {
            world.kill(host)
        }
        world.start(host);
        assert_eq!(world.report(host).registered, 9, "{host} was set back by a restart");
    }
    world.run_for(SECOND * 20);
    for (serial, count) in [(1, 1), (2, 2)] {
        // Older, and another of the same serial: neither is taken, both are told to the node's owner.
        assert!(world.show_registry(&["client1", "relay5"], serial, &all, SECOND * 3600, 3));
        for host in ["client1", "relay5"] {
            assert_eq!((world.report(host).registered, refused(&world, host)), (9, count), "{host}, serial {serial}");
        }
    }
    // Nor when the newest one's time is over.
    world.run_for(SECOND * 180);
    world.kill("client1");
    world.start("client1");
    assert_eq!(world.report("client1").registered, 9, "an edition whose time is over made room for an older one");
    world.run_for(SECOND * 10);
    let way = call(&mut world, "client1", "service1");
    assert!(ping(&mut world, "client1", way, 1, SECOND));
    world.publish_registry(3, &all, SECOND * 3600);
    assert_eq!(world.report("client1").registered, 10);
}

/// One of three authorities is hostile, and tells some nodes that there are other relays, and others that there are few.
#[test]
fn a_minority_of_authorities_changes_nobody() {
    let mut world = World::town(205, 10, 2, 1);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 10));
    let all: Vec<String> = (1..=10).map(|n| format!("relay{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for (serial, some) in [(2, &all[..3]), (3, &all[5..]), (1000, &all[..1])] {
        assert!(!world.show_registry(&["client1", "relay1"], serial, some, SECOND * 3600, 1), "one of three suffices");
        assert!(!world.show_registry(&["client1", "relay1"], serial, some, SECOND * 3600, 0), "none suffices");
    }
    world.run_for(SECOND * 10);
    assert!(world.names().iter().all(|host| world.report(host).registered == 10));
    // Two agree, and their word reaches some nodes only. Those who still hold the old edition and those who hold the new
    // one go on meeting over the relays that both list.
    assert!(world.show_registry(&["client1", "relay1", "relay2"], 2, &all[..9], SECOND * 3600, 2));
    world.run_for(SECOND * 30);
    assert_eq!((world.report("client1").registered, world.report("client2").registered), (9, 10));
    for client in ["client1", "client2"] {
        let way = call(&mut world, client, "service1");
        let back = (0..20).filter(|n| ping(&mut world, client, way, *n, SECOND)).count();
        assert!(back >= 18, "{client}: only {back} of 20 pings returned while two editions are out");
    }
}
