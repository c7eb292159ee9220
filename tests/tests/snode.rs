//! What a relay serves is reached by the relay's own name: a service that holds a relay's key answers to `<key>.snode`,
//! over paths like any other, and nobody else does. Neighbours: `first_light` (services by their `.loki` names).

use core::time::Duration;
use lokinet_core::flow::question::{Code, Data, Kind as Type};
use lokinet_tests::person::{self, first_address, loki_name, nobody, own_ip, question};
use lokinet_tests::world::World;
use lokinet_tests::world::packet;

const SECOND: Duration = Duration::from_secs(1);

/// A town in which `service1` is served with the key of `relay3`.
fn town(seed: u64) -> World {
    let mut world = World::new(seed);
    world.disguise("service1", "relay3");
    world.settle(8, 1, 2);
    world.echo("service1", true);
    assert!(world.awake(10 * SECOND), "the town did not wake: {:?}", world.names());
    world
}

/// The name whose key the relay has, as it tells it itself.
fn snode_name(world: &mut World, relay: &str) -> String {
    let answer = world.ask(relay, question("localhost.loki", Type::Cname)).expect("no answer at all");
    let Some(Data::Cname(name)) = answer.records.first().map(|record| record.data.clone()) else {
        panic!("{answer:?} names nobody")
    };
    name
}

#[test]
fn a_relays_service_is_met_by_the_relays_name() {
    let mut world = town(1);
    let name = snode_name(&mut world, "relay3");
    assert!(name.ends_with(".snode"), "{name}");
    let own = own_ip(&mut world, "client1");
    let theirs = first_address(world.ask("client1", question(&name, Type::A)));
    assert!(person::ping(&mut world, "client1", (own, theirs), 1, SECOND), "no pong");
    // Its `.loki` spelling is the same place, and looked up backwards it is the relay.
    let loki = loki_name(&mut world, "service1");
    assert_eq!(first_address(world.ask("client1", question(&loki, Type::A))), theirs);
    let [a, b, c, d] = theirs.octets();
    let back = world.ask("client1", question(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), Type::Ptr)).expect("an answer");
    assert_eq!(back.records.first().map(|record| &record.data), Some(&Data::Ptr(name.clone())));
    // What stands before the key reaches the same host.
    assert_eq!(first_address(world.ask("client1", question(&format!("www.{name}"), Type::A))), theirs);
    // The host itself answers to it as to its own name.
    let ours = own_ip(&mut world, "service1");
    assert_eq!(first_address(world.ask("service1", question(&name, Type::A))), ours);
    let asked: Vec<_> = world.inbox("service1").iter().filter_map(|p| packet::read(p)).collect();
    assert!(asked.iter().all(|packet| packet.to == ours), "{asked:?}");
}

#[test]
fn who_is_no_relay_has_no_snode_name() {
    let mut world = town(2);
    let service = loki_name(&mut world, "service2").replace(".loki", ".snode");
    for name in [service, nobody().replace(".loki", ".snode")] {
        let answer = world.ask("client1", question(&name, Type::A)).expect("an answer");
        assert_eq!((answer.code, answer.records.len()), (Code::NxDomain, 0), "{name}");
    }
    // A relay that serves nothing: as with any service that does not exist.
    let silent = snode_name(&mut world, "relay5");
    let answer = world.ask("client1", question(&silent, Type::A)).expect("an answer");
    assert_eq!((answer.code, answer.records.len()), (Code::NxDomain, 0));
}
