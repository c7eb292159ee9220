//! First light: in a small town a client finds a service by its name, talks to it, and goes on talking when things
//! break; what wires and relays see meanwhile is what they may see. Everything is asked and judged as a person on a
//! host would: by DNS, by packets, by what is on the wire.

use core::time::Duration;
use lokinet_core::flow::question::{Answer, Code, Kind as Type};
use lokinet_core::wire::batch::Shape;
use lokinet_tests::person::{self, TOLD, first_address, loki_name, nobody, own_ip, question, relays_on_the_way};
use lokinet_tests::world::packet::{self, Kind};
use lokinet_tests::world::town::Trade;
use lokinet_tests::world::{Wire, World};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const RELAYS: usize = 8;
/// How long a town may take until everyone is ready and the service has published.
const WAKING: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

/// A town that is awake, with its eyes open since before its first breath.
fn town(seed: u64) -> World {
    town_on(seed, Wire::default())
}

fn town_on(seed: u64, wire: Wire) -> World {
    let mut world = World::new(seed);
    world.eyes(true);
    world.usual_wire(wire);
    world.settle(RELAYS, 1, 1);
    world.echo("service1", true);
    assert!(world.awake(WAKING), "the town did not wake: {:?}", world.names());
    world
}

/// The addresses under which the client knows itself and reaches the service.
fn call(world: &mut World) -> (Ipv4Addr, Ipv4Addr) {
    person::call(world, "client1", "service1")
}

/// Sends one numbered ping and waits for its pong; whether it came.
fn pings(world: &mut World, way: (Ipv4Addr, Ipv4Addr), number: u16, patience: Duration) -> bool {
    person::ping(world, "client1", way, number, patience)
}

/// Where the client's paths begin.
fn guards(world: &World) -> Vec<SocketAddr> {
    world.report("client1").paths.iter().filter_map(|path| path.hops.first()?.1).collect()
}

#[test]
fn a_name_becomes_an_address_and_pings_and_packets_return() {
    let mut world = town(1);
    let (own, theirs) = call(&mut world);
    assert_ne!(own, theirs);
    assert!(pings(&mut world, (own, theirs), 1, SECOND));
    let ours = own_ip(&mut world, "service1");
    let asked: Vec<_> = world.inbox("service1").iter().filter_map(|p| packet::read(p)).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].to, asked[0].kind), (ours, Kind::Ping(77, 1)), "not addressed to the service's own TUN");
    assert_ne!(asked[0].from, ours, "the caller needs an address of its own at the service");

    world.send("client1", &packet::udp((own, 4000), (theirs, 5000), &[0xab; 1200]));
    assert!(world.run_until(|w| w.delivered("client1") > 0, SECOND), "no UDP answer");
    let back: Vec<_> = world.inbox("client1").iter().filter_map(|p| packet::read(p)).collect();
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].from, back[0].to, back[0].kind), (theirs, own, Kind::Udp(5000, 4000)));
    assert_eq!(back[0].payload, [0xab; 1200]);
}

/// A kernel with offload hands down datagrams by the dozen and leaves their checksums. The other end gets each by
/// itself, and right: those that waited for the conversation, and those that found it open.
#[test]
fn a_super_packet_arrives_as_the_datagrams_it_stands_for() {
    let mut world = town(9);
    let (own, theirs) = call(&mut world);
    let ours = own_ip(&mut world, "service1");
    for (port, segment, count) in [(1u16, 1000u16, 40usize), (2, 1200, 50), (3, 90, 300)] {
        // The last one shorter.
        let sent: Vec<u8> = (0..usize::from(segment) * count - 50).map(|at| ((at * 31) >> 4) as u8).collect();
        let packet = packet::udp_unfinished((own, port), (theirs, 9), &sent);
        let before = world.finished("service1");
        world.send_shaped("client1", &packet, Shape { partial: true, segment });
        world.run_until(|w| w.delivered("service1") >= count, SECOND * 5);
        let got: Vec<_> = world.inbox("service1").iter().map(|p| packet::read(p).expect("broken")).collect();
        assert!(got.iter().all(|seen| (seen.to, seen.kind) == (ours, Kind::Udp(port, 9))));
        let payloads: Vec<&[u8]> = got.iter().map(|seen| seen.payload.as_slice()).collect();
        assert_eq!(payloads, sent.chunks(segment.into()).collect::<Vec<_>>());
        assert_eq!(world.finished("service1") - before, count, "the checksums travelled");
    }
    // One that only lacks its checksum, and one that lacks nothing.
    let unfinished = packet::udp_unfinished((own, 4), (theirs, 9), b"word");
    world.send_shaped("client1", &unfinished, Shape { partial: true, segment: 0 });
    world.send("client1", &packet::udp((own, 5), (theirs, 9), b"word"));
    assert!(world.run_until(|w| w.delivered("service1") == 2, SECOND));
    assert!(world.inbox("service1").iter().all(|p| packet::read(p).is_some_and(|seen| seen.payload == b"word")));
    assert_eq!(world.finished("service1"), 391);
}

#[test]
fn a_burst_arrives_whole_on_quiet_wires() {
    let mut world = town(2);
    let (own, theirs) = call(&mut world);
    assert!(pings(&mut world, (own, theirs), 1, SECOND));
    world.inbox("service1");
    let burst: Vec<Vec<u8>> = (0..200u16).map(|n| packet::udp((own, n), (theirs, 9), &[n as u8; 1100])).collect();
    world.send_all("client1", &burst);
    world.run_until(|w| w.delivered("client1") >= 200, SECOND * 2);
    let mut ports: Vec<u16> = Vec::new();
    for seen in world.inbox("client1").iter().map(|p| packet::read(p).expect("a broken packet was delivered")) {
        let Kind::Udp(9, port) = seen.kind else { panic!("{seen:?}") };
        assert_eq!(seen.payload, [port as u8; 1100], "somebody else's contents");
        ports.push(port);
    }
    ports.sort_unstable();
    assert_eq!(ports, (0..200).collect::<Vec<u16>>());
}

#[test]
fn one_seed_is_one_story() {
    let live = |seed: u64| {
        let mut world = town(seed);
        let way = call(&mut world);
        assert!(pings(&mut world, way, 1, SECOND));
        world.run_for(SECOND * 30);
        (world.digest(), world.story_text())
    };
    assert_eq!(live(3), live(3));
    assert_ne!(live(3).0, live(4).0);
}

#[test]
fn wires_see_two_sizes_and_nothing_else() {
    let mut world = town(5);
    let (own, theirs) = call(&mut world);
    for number in 1..=20 {
        assert!(pings(&mut world, (own, theirs), number, SECOND));
        world.send("client1", &packet::udp((own, 1), (theirs, 2), &vec![7; 61 * usize::from(number)]));
        world.run_for(Duration::from_millis(200));
    }
    world.run_for(SECOND * 60);
    let mut sizes: Vec<usize> = world.seen().datagrams.iter().map(|d| d.bytes.len()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes, [384, 1440]);
    let betrayed = world.seen().datagrams.iter().any(|d| d.bytes.windows(TOLD.len()).any(|w| w == TOLD));
    assert!(!betrayed, "contents in the clear on a wire");
}

#[test]
fn only_the_first_hop_knows_the_client() {
    let mut world = town(6);
    let way = call(&mut world);
    assert!(pings(&mut world, way, 1, SECOND));
    world.run_for(SECOND * 30);
    let client = world.address("client1");
    let guards = guards(&world);
    assert!(!guards.is_empty(), "the client has no path");
    // Whoever was asked as a bootstrap saw the client too; traffic must go to first hops alone.
    let spoken: Vec<SocketAddr> = world.seen().datagrams.iter().filter(|d| d.from == client).map(|d| d.to).collect();
    assert!(spoken.iter().all(|to| guards.contains(to)), "cells went to relays that are no first hops");
    let IpAddr::V4(ip) = client.ip() else { panic!("the town is IPv4") };
    let needles = [ip.octets().to_vec(), ip.to_string().into_bytes()];
    for relay in (1..=RELAYS).map(|n| world.address(&format!("relay{n}"))) {
        if world.seen().neighbours(client).contains(&relay) {
            continue;
        }
        for shown in world.seen().shown_to(relay) {
            // Four bytes occur by chance in long ciphertexts; the port and all of the text do not.
            let port = [&needles[0][..], &client.port().to_be_bytes()].concat();
            let named = [&port, &needles[1]].into_iter().any(|needle| shown.windows(needle.len()).any(|w| w == needle));
            assert!(!named, "{:?} was told the client's address", world.who_is_at(relay));
        }
    }
    let service = world.address("service1");
    assert!(!world.seen().neighbours(client).contains(&service), "client and service touched each other");
}

#[test]
fn a_relay_dies_and_traffic_is_back_within_two_seconds() {
    let mut world = town(7);
    let way = call(&mut world);
    assert!(pings(&mut world, way, 1, SECOND));
    // The second relay on the way that is used now: its death certainly hurts.
    let victim = relays_on_the_way(&world, "client1")[1].clone();
    world.kill(&victim);
    let died = world.now();
    let mut number = 2;
    loop {
        let back = pings(&mut world, way, number, Duration::from_millis(100));
        let took = world.now().since(died);
        assert!(took <= SECOND * 2, "{victim} died {took:?} ago and nothing has come back");
        if back {
            break;
        }
        number += 1;
    }
    // And it stays well: most of what follows returns.
    let returned = (100..150).filter(|n| pings(&mut world, way, *n, Duration::from_millis(200))).count();
    assert!(returned >= 45, "only {returned} of 50 pings returned afterwards");
}

#[test]
fn a_service_keeps_its_name_across_restarts() {
    let mut world = town(8);
    let name = loki_name(&mut world, "service1");
    let way = call(&mut world);
    assert!(pings(&mut world, way, 1, SECOND));
    world.stop("service1");
    world.run_for(SECOND);
    world.start("service1");
    assert!(world.awake(WAKING));
    world.run_for(SECOND * 3);
    assert_eq!(loki_name(&mut world, "service1"), name);
    // A client that knew it and one that is born afterwards both reach it.
    let answer = world.ask("client1", question(&name, Type::A));
    assert_eq!(first_address(answer), way.1, "the lease changed though the name did not");
    let reached = (2..12).any(|number| pings(&mut world, way, number, SECOND));
    assert!(reached, "the restarted service is not reached");
    world.kill("client1");
    world.start("client1");
    world.run_for(SECOND * 5);
    let way = call(&mut world);
    assert!(pings(&mut world, way, 20, SECOND));
}

#[test]
fn a_name_without_a_service_is_denied_within_two_seconds() {
    let mut world = town(9);
    let nobody = nobody();
    let before = world.now();
    let answer = world.ask_within("client1", question(&nobody, Type::A), SECOND * 5).expect("no answer at all");
    assert_eq!(answer, Answer::empty(Code::NxDomain));
    let took = world.now().since(before);
    assert!(took <= SECOND * 2, "it took {took:?}");
    let gibberish = world.ask_within("client1", question("not-an-address-at-all.loki", Type::A), SECOND * 2);
    assert_eq!(gibberish.map(|answer| answer.code), Some(Code::NxDomain));
}

#[test]
fn one_percent_of_loss_is_no_obstacle() {
    let mut world = town_on(10, Wire { loss: 0.01, jitter: Duration::from_millis(2), ..Wire::default() });
    let way = call(&mut world);
    let returned = (1..=200).filter(|number| pings(&mut world, way, *number, Duration::from_millis(300))).count();
    // A ping crosses up to 14 wires there and back: 0.99^14 is 87 of 100 where nothing is sent twice.
    assert!(returned >= 150, "only {returned} of 200 pings returned");
    let nobody = nobody();
    let answer = world.ask("client1", question(&nobody, Type::A)).expect("no answer at all");
    assert_eq!(answer.code, Code::NxDomain);
}

#[test]
fn the_town_is_where_its_rule_says() {
    let world = World::town(11, 260, 1, 1);
    let at = |name: &str| world.address(name).to_string();
    assert_eq!(
        (at("relay1"), at("relay250"), at("relay251")),
        ("10.1.0.1:1090".to_owned(), "10.250.0.1:1090".to_owned(), "11.1.0.1:1090".to_owned(),)
    );
    let clients = lokinet_tests::world::town::address_of(Trade::Client, 1);
    assert_eq!(world.address("client1"), clients);
}
