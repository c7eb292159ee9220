//! Packets of every size through the tunnel: what fits arrives whole and in order, small ones share cells, what is too
//! long is answered as a router would.

use core::time::Duration;
use lokinet_tests::person;
use lokinet_tests::world::World;
use lokinet_tests::world::packet::{self, Kind};
use std::net::Ipv4Addr;

const SECOND: Duration = Duration::from_secs(1);
/// IPv4 and UDP headers.
const HEADERS: usize = 28;

/// A town in which the client has called the service: both ends' addresses at the client.
fn called(seed: u64) -> (World, (Ipv4Addr, Ipv4Addr)) {
    let mut world = World::town(seed, 8, 1, 1);
    assert!(world.awake(SECOND * 10));
    let way = person::call(&mut world, "client1", "service1");
    world.run_for(SECOND);
    (world, way)
}

#[test]
fn every_size_up_to_the_mtu_arrives_whole() {
    let (mut world, (own, theirs)) = called(1);
    for payload in (0..=1280 - HEADERS).step_by(13).chain([1280 - HEADERS]) {
        let bytes: Vec<u8> = (0..payload).map(|n| n as u8).collect();
        world.send("client1", &packet::udp((own, 5), (theirs, 6), &bytes));
        assert!(world.run_until(|w| w.delivered("service1") > 0, SECOND), "{payload} bytes were lost");
        let seen = packet::read(&world.inbox("service1")[0]).expect("a broken packet was delivered");
        assert_eq!((seen.kind, seen.payload), (Kind::Udp(5, 6), bytes));
    }
}

#[test]
fn what_is_too_long_is_answered_and_harms_nothing() {
    let (mut world, (own, theirs)) = called(2);
    for length in [1295, 1400, 1500, 9000, 65_000] {
        world.send("client1", &packet::udp((own, 5), (theirs, 6), &vec![1; length - HEADERS]));
        let answers = world.inbox("client1");
        assert_eq!(answers.len(), 1, "{length} bytes");
        let seen = packet::read(&answers[0]).expect("a broken error");
        assert_eq!((seen.from, seen.to, seen.kind), (theirs, own, Kind::Icmp(3, 4)));
        assert_eq!(answers[0][26..28], 1280u16.to_be_bytes(), "the MTU it names");
    }
    world.run_for(SECOND);
    assert_eq!(world.delivered("service1"), 0);
    world.send("client1", &packet::udp((own, 5), (theirs, 6), b"and on"));
    assert!(world.run_until(|w| w.delivered("service1") > 0, SECOND));
}

#[test]
fn a_mixed_burst_keeps_its_order() {
    let (mut world, (own, theirs)) = called(3);
    let sizes = [1200, 40, 900, 0, 1252, 10, 300, 5];
    let burst: Vec<Vec<u8>> = (0..200u16)
        .map(|n| packet::udp((own, n), (theirs, 6), &vec![n as u8; sizes[usize::from(n) % sizes.len()]]))
        .collect();
    world.send_all("client1", &burst);
    world.run_for(SECOND);
    let order: Vec<u16> = world
        .inbox("service1")
        .iter()
        .map(|p| match packet::read(p).expect("a broken packet was delivered").kind {
            Kind::Udp(n, 6) => n,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, (0..200).collect::<Vec<u16>>());
}

#[test]
fn small_packets_share_a_cell() {
    let (mut world, (own, theirs)) = called(4);
    world.eyes(true);
    let now = world.now();
    let burst: Vec<Vec<u8>> = (0..20).map(|n| packet::udp((own, n), (theirs, 6), &[1; 20])).collect();
    world.send_all("client1", &burst);
    world.run_for(SECOND / 10);
    assert_eq!(world.delivered("service1"), 20);
    let client = world.address("client1");
    // Later ones are pings.
    let of_the_burst = world.seen().datagrams.iter().filter(|d| d.from == client && d.at == now);
    let sent: Vec<usize> = of_the_burst.map(|d| d.bytes.len()).collect();
    assert_eq!(sent, [1440], "twenty packets of 48 bytes fit into one cell");
}
