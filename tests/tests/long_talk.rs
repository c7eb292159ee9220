//! Long talks: two ends converse while paths grow old, keys are ratcheted and wires lose and reorder. What a person
//! would notice is a gap, a lost packet, a changed address.

use core::time::Duration;
use lokinet_core::node::report::Report;
use lokinet_core::path::live;
use lokinet_core::time::Time;
use lokinet_tests::person;
use lokinet_tests::world::packet::{self, Kind};
use lokinet_tests::world::{Wire, World};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const SECOND: Duration = Duration::from_secs(1);
/// One packet each way so often.
const BEAT: Duration = Duration::from_millis(500);

/// What became of a talk in one direction.
#[derive(Default)]
struct Heard {
    numbers: BTreeMap<u16, Time>,
    last: Option<Time>,
    gap: Duration,
}

impl Heard {
    fn hear(&mut self, world: &World, packets: &[Vec<u8>], (from, to): (Ipv4Addr, Ipv4Addr)) {
        for packet in packets {
            let seen = packet::read(packet).expect("a broken packet was delivered");
            let Kind::Udp(number, 9) = seen.kind else { continue };
            assert_eq!((seen.from, seen.to), (from, to), "an address changed under a conversation");
            self.gap = self.gap.max(world.now().since(self.last.unwrap_or(world.now())));
            self.last = Some(world.now());
            self.numbers.insert(number, world.now());
        }
    }
}

/// Both ends send a packet every beat for so long: what the service heard, then what the client heard, and how many
/// were sent each way.
fn talk(world: &mut World, way: (Ipv4Addr, Ipv4Addr), time: Duration) -> ([Heard; 2], u16) {
    let (own, theirs) = way;
    let (ours, caller) = greet(world, way);
    let (mut up, mut down) = (Heard::default(), Heard::default());
    let beats = (time.as_millis() / BEAT.as_millis()) as u16;
    for number in 0..beats {
        // Sizes of both kinds of cells, in turn.
        let payload = vec![number as u8; if number % 2 == 0 { 40 } else { 1000 }];
        world.send("client1", &packet::udp((own, number), (theirs, 9), &payload));
        world.send("service1", &packet::udp((ours, number), (caller, 9), &payload));
        world.run_for(BEAT);
        let (at_service, at_client) = (world.inbox("service1"), world.inbox("client1"));
        up.hear(world, &at_service, (caller, ours));
        down.hear(world, &at_client, (theirs, own));
    }
    ([up, down], beats)
}

/// The client says a word: the service's own address and the caller's there.
fn greet(world: &mut World, (own, theirs): (Ipv4Addr, Ipv4Addr)) -> (Ipv4Addr, Ipv4Addr) {
    world.send("client1", &packet::udp((own, 1), (theirs, 1), b"hello"));
    world.run_for(SECOND);
    let heard = world.inbox("service1").iter().find_map(|p| packet::read(p)).expect("the first word was lost");
    (heard.to, heard.from)
}

/// Tables that must not grow with time, as the node itself counts them.
fn size(report: &Report) -> usize {
    report.paths.len() + report.sessions.len() + report.links.len()
}

#[test]
fn forty_five_minutes_lose_nothing_on_quiet_wires() {
    for seed in [21, 22] {
        let mut world = World::town(seed, 10, 1, 1);
        assert!(world.awake(SECOND * 10));
        let way = person::call(&mut world, "client1", "service1");
        let (heard, sent) = talk(&mut world, way, SECOND * 60 * 45);
        for (end, heard) in ["service", "client"].iter().zip(&heard) {
            let lost: Vec<u16> = (0..sent).filter(|n| !heard.numbers.contains_key(n)).collect();
            println!("seed {seed}: the {end} heard {} of {sent}, longest gap {:?}", heard.numbers.len(), heard.gap);
            assert!(heard.gap < SECOND * 2, "the {end} heard nothing for {:?}", heard.gap);
            assert!(lost.is_empty(), "the {end} never heard {lost:?}");
        }
        for host in ["client1", "service1"] {
            let report = world.report(host);
            assert!(size(&report) <= 32, "{host} keeps {report:?}");
            assert_eq!(report.sessions.len(), 1);
        }
    }
}

#[test]
fn a_download_with_nothing_going_up_is_handed_over_too() {
    let mut world = World::town(23, 10, 1, 1);
    assert!(world.awake(SECOND * 10));
    let way = person::call(&mut world, "client1", "service1");
    let (ours, caller) = greet(&mut world, way);
    let mut down = Heard::default();
    for number in 0..3000u16 {
        world.send("service1", &packet::udp((ours, number), (caller, 9), &[7; 900]));
        world.run_for(SECOND / 2);
        let packets = world.inbox("client1");
        down.hear(&world, &packets, (way.1, way.0));
    }
    println!("25 minutes of download: {} of 3000, longest gap {:?}", down.numbers.len(), down.gap);
    assert_eq!(down.numbers.len(), 3000);
    assert!(down.gap < SECOND * 2);
}

#[test]
fn loss_and_disorder_cost_only_what_they_take() {
    let wire = Wire { loss: 0.01, reorder: 0.05, jitter: Duration::from_millis(3), ..Wire::default() };
    for seed in [24, 25] {
        let mut world = World::new(seed);
        world.usual_wire(wire);
        world.settle(10, 1, 1);
        assert!(world.awake(SECOND * 15));
        let way = person::call(&mut world, "client1", "service1");
        let (heard, sent) = talk(&mut world, way, SECOND * 60 * 22);
        for (end, heard) in ["service", "client"].iter().zip(&heard) {
            println!("seed {seed}: the {end} heard {} of {sent}, longest gap {:?}", heard.numbers.len(), heard.gap);
            // Seven wires each way: 0.99^7 is 93 of 100.
            assert!(heard.numbers.len() * 100 >= usize::from(sent) * 90, "too few");
            assert!(heard.gap < SECOND * 3, "the {end} heard nothing for {:?}", heard.gap);
        }
    }
}

#[test]
fn an_idle_conversation_is_quiet_and_wakes_at_once() {
    let mut world = World::town(26, 10, 1, 1);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 10));
    let way = person::call(&mut world, "client1", "service1");
    assert!(person::ping(&mut world, "client1", way, 1, SECOND));
    world.run_for(SECOND * 30);
    let cells = |world: &World| world.tally().sent;
    let before = cells(&world);
    world.run_for(SECOND * 240);
    // Every live path asks for a sign of life now and then: two cells on each of three wires, on some dozen paths.
    let asks = 240 / live::IDLE.as_secs();
    let paths = world.report("client1").paths.len() + world.report("service1").paths.len();
    let sent = cells(&world) - before;
    println!("four idle minutes: {sent} cells on {paths} paths");
    assert!(sent <= (paths as u64) * asks * 6 * 3 / 2, "{sent} cells on {paths} paths");
    assert!(person::ping(&mut world, "client1", way, 2, SECOND), "it did not wake");
}

/// Far apart and lossy: what is slow must not be taken for dead, again and again.
#[test]
fn long_wires_are_not_taken_for_dead_ones() {
    let wire = Wire { loss: 0.01, jitter: Duration::from_millis(20), ..Wire::of(Duration::from_millis(80)) };
    for seed in [27, 28] {
        let mut world = World::new(seed);
        world.usual_wire(wire);
        world.settle(10, 1, 1);
        assert!(world.awake(SECOND * 30));
        world.run_for(SECOND * 10);
        let way = person::call(&mut world, "client1", "service1");
        let begun =
            |world: &World| world.report("client1").counters.iter().find(|(n, _)| *n == "paths begun").map(|c| c.1);
        let before = begun(&world);
        let (heard, sent) = talk(&mut world, way, SECOND * 60 * 10);
        let built = begun(&world).zip(before).map_or(0, |(now, before)| now - before);
        for (end, heard) in ["service", "client"].iter().zip(&heard) {
            println!("seed {seed}: the {end} heard {} of {sent}, longest gap {:?}", heard.numbers.len(), heard.gap);
            assert!(heard.numbers.len() * 100 >= usize::from(sent) * 90, "too few");
            assert!(heard.gap < SECOND * 4, "the {end} heard nothing for {:?}", heard.gap);
        }
        println!("seed {seed}: {built} paths begun in ten minutes");
        assert!(built <= 20, "{built} paths begun in ten minutes");
    }
}
