//! A town whose relays are all in glass, recorded once: no relay has a string in common with one that is not its
//! neighbour, nor what it takes in with what it gives on; wires carry cells of two sizes; the first hop alone is told
//! where the client is.

use core::time::Duration;
use lokinet_core::flow::question::Kind as Type;
use lokinet_core::wire::build::Purpose;
use lokinet_core::wire::cell::{Kind, Size};
use lokinet_tests::person::{first_address, loki_name, own_ip, ping, question};
use lokinet_tests::world::eyes::{Hop, Views, paths, shared, strings};
use lokinet_tests::world::packet;
use lokinet_tests::world::town::{Trade, address_of};
use lokinet_tests::world::{Body, Datagram, World};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::OnceLock;

const RELAYS: usize = 14;
const CLIENTS: usize = 28;
const LIVES: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// What a whole town was seen doing.
struct Recorded {
    hops: Vec<Hop>,
    datagrams: Vec<Datagram>,
    bodies: Vec<Body>,
    neighbours: BTreeMap<SocketAddr, Vec<SocketAddr>>,
}

fn recorded() -> &'static Recorded {
    static ONCE: OnceLock<Recorded> = OnceLock::new();
    ONCE.get_or_init(record)
}

/// Clients are born, call the service, talk a little, and die; ten times over.
fn record() -> Recorded {
    let mut world = World::new(900);
    world.eyes(true);
    let views: Views = world.settle_in_glass(RELAYS, CLIENTS, 1);
    world.echo("service1", true);
    assert!(world.awake(SECOND * 20), "relays in glass do not carry a town");
    let name = loki_name(&mut world, "service1");
    for life in 0..LIVES {
        for number in 1..=CLIENTS {
            let client = format!("client{number}");
            if life > 0 {
                world.kill(&client);
                world.start(&client);
            }
        }
        // Long enough that every path is probed.
        world.run_for(SECOND * 22);
        // One after another calls, in each life another few.
        for number in (1..=CLIENTS).filter(|number| number % LIVES == life) {
            let client = format!("client{number}");
            let theirs = first_address(world.ask(&client, question(&name, Type::A)));
            let way = (own_ip(&mut world, &client), theirs);
            for round in 1..=4 {
                assert!(ping(&mut world, &client, way, round, SECOND), "{client} is not answered through glass");
            }
            world.send(&client, &packet::udp((way.0, 1), (way.1, 2), &[number as u8; 1000]));
            world.run_for(SECOND / 5);
        }
    }
    let clients: Vec<SocketAddr> = (1..=CLIENTS).map(|number| address_of(Trade::Client, number)).collect();
    let neighbours = clients.iter().map(|client| (*client, world.seen().neighbours(*client))).collect();
    let hops = views.lock().unwrap().clone();
    let seen = world.seen();
    Recorded { hops, datagrams: seen.datagrams.clone(), bodies: seen.bodies.clone(), neighbours }
}

/// Whole paths of three hops.
fn whole() -> Vec<Vec<&'static Hop>> {
    let all: Vec<_> = paths(&recorded().hops).into_iter().filter(|path| path.len() == 3).collect();
    assert!(all.len() >= 1000, "only {} whole paths were recorded", all.len());
    all
}

#[test]
fn hops_that_are_not_neighbours_share_no_string() {
    let (mut most, mut cells) = (0, [0; 2]);
    let all = whole();
    for path in &all {
        let (first, last) = (strings(path[0].everything()), strings(path[2].everything()));
        assert_eq!(shared(&first, &last), None, "a first and a last hop have a string in common");
        most = most.max(first.len());
        cells[0] += path[0].down_in.len() + path[0].up_out.len();
        cells[1] += path[2].down_in.len() + path[2].up_out.len();
    }
    println!("{} paths: builds, replies, {cells:?} cells at first and last hops; {most} strings at one hop", all.len());
    assert!(cells.iter().all(|count| *count >= 2 * all.len()), "hardly a cell was seen");
}

/// The two halves of a conversation meet at the pivot only: no other relay of the one knows a string of the other.
#[test]
fn the_callers_half_and_the_services_half_share_no_string() {
    let all = whole();
    let host: BTreeMap<[u8; 16], &Vec<&Hop>> = all
        .iter()
        .filter_map(|path| match path[2].purpose {
            Purpose::Host(token) => Some((token, path)),
            _ => None,
        })
        .collect();
    let mut joined = 0;
    for caller in &all {
        let Purpose::Join(token) = caller[2].purpose else { continue };
        let Some(service) = host.get(&token) else { continue };
        joined += 1;
        for (one, other) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (one, other) = (caller[one], service[other]);
            assert_eq!(shared(&strings(one.everything()), &strings(other.everything())), None);
        }
    }
    println!("{joined} callers' paths joined to the service's");
    assert!(joined >= 40, "only {joined}");
}

#[test]
fn what_a_hop_takes_in_and_what_it_gives_on_share_no_string() {
    for path in whole() {
        for hop in path {
            let (came, went) = (strings(hop.came()), strings(hop.went()));
            assert_eq!(shared(&came, &went), None, "{} gives on what it was given", hop.relay);
            // What the record holds for the next hop is passed on as it is, and nothing else of it is known to two.
            if let Some(out) = &hop.build_out {
                assert!(out.starts_with(&hop.deeper));
                let pad = strings(core::iter::once(&out[hop.deeper.len()..]));
                assert_eq!(shared(&pad, &came), None, "{} passes on an old pad", hop.relay);
            }
        }
    }
}

/// Names of a path on its links, and the client's keys: nowhere equal, and with no XOR or difference that comes twice.
#[test]
fn names_of_a_path_say_nothing_to_hops_that_are_not_neighbours() {
    let all = whole();
    let (mut xors, mut differences) = (BTreeSet::new(), BTreeSet::new());
    for path in &all {
        let (near, far) = (path[0].back.0, path[2].back.0);
        assert_ne!(near, far);
        xors.insert(near ^ far);
        differences.insert(near.wrapping_sub(far));
        for hop in path {
            assert!(hop.lifetime % 60 == 0, "a lifetime of {} s is nearly a name", hop.lifetime);
        }
    }
    // Among a thousand random 32-bit numbers a pair is equal once in some 8,000 such tests.
    assert!(xors.len() + 2 > all.len() && differences.len() + 2 > all.len(), "names follow each other");
}

#[test]
fn cells_have_two_sizes_on_every_wire() {
    let mut sizes = BTreeMap::<usize, usize>::new();
    for datagram in &recorded().datagrams {
        *sizes.entry(datagram.bytes.len()).or_default() += 1;
    }
    println!("datagrams by size: {sizes:?}");
    let of: Vec<usize> = sizes.keys().copied().collect();
    assert_eq!(of, [Size::Small.datagram(), Size::Full.datagram()]);
    assert!(sizes.values().all(|count| *count > 500));
    // And builds one, in each direction.
    let builds = recorded().bodies.iter().filter(|body| !body.reply && body.bytes.first() == Some(&1));
    let lengths: BTreeSet<usize> = builds.map(|body| body.bytes.len()).collect();
    assert_eq!(lengths.len(), 1, "builds of several lengths: {lengths:?}");
}

/// Wires repeat nothing: no two datagrams have a string in common but the names of their channel.
#[test]
fn wires_repeat_nothing() {
    use lokinet_core::wire::cell::HEADER;
    let mut seen = BTreeMap::<[u8; 8], usize>::new();
    let all = &recorded().datagrams;
    let few: Vec<&Datagram> = all.iter().step_by((all.len() / 2500).max(1)).collect();
    for (number, datagram) in few.iter().enumerate() {
        for string in strings(core::iter::once(&datagram.bytes[HEADER..])) {
            let before = seen.insert(string, number);
            assert!(before.is_none_or(|before| before == number), "two datagrams have {string:02x?} in common");
        }
    }
    assert!(few.len() > 1000, "only {} datagrams", few.len());
}

#[test]
fn the_first_hop_alone_is_told_where_the_client_is() {
    let recorded = recorded();
    let at: BTreeMap<String, SocketAddr> =
        (1..=RELAYS).map(|number| (format!("relay{number}"), address_of(Trade::Relay, number))).collect();
    let needle = |client: &SocketAddr| match client {
        SocketAddr::V4(v4) => [&v4.ip().octets()[..], &v4.port().to_be_bytes()].concat(),
        SocketAddr::V6(_) => unreachable!("clients of a town have IPv4 addresses"),
    };
    let mut strangers = 0;
    for (client, neighbours) in &recorded.neighbours {
        let needle = needle(client);
        for hop in recorded.hops.iter().filter(|hop| !neighbours.contains(&at[&hop.relay])) {
            strangers += 1;
            let told = hop.everything().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle));
            assert!(!told, "{} was told where {client} is", hop.relay);
        }
        assert!(neighbours.len() < RELAYS, "the client touched every relay");
    }
    assert!(strangers > 1000, "only {strangers} hops that do not touch a client");
}

/// What a hop must do with a cell is in the cell; a hop that only passes it on cannot tell data from control.
#[test]
fn whoever_passes_on_sees_only_pass() {
    let mut kinds = BTreeMap::<(bool, u8), usize>::new();
    for path in whole() {
        for hop in &path {
            for cell in &hop.down_in {
                *kinds.entry((hop.depth == 1, cell.kind.map_or(0, |kind| kind as u8))).or_default() += 1;
            }
        }
    }
    println!("cells by (is the pivot, type): {kinds:?}");
    for depth in [true, false] {
        assert!(!kinds.contains_key(&(depth, 0)), "a type nobody knows");
    }
    let passed = kinds.get(&(false, Kind::Pass as u8)).copied().unwrap_or(0);
    assert!(passed > 2000 && !kinds.contains_key(&(false, Kind::Data as u8)), "{kinds:?}");
}
