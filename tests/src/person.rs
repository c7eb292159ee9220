//! What a person on a host does, and how a person judges: names are asked, packets sent, answers read. Shared by the
//! scenarios. Neighbours: `world` lets it happen, `world::packet` makes and reads the packets.

use crate::world::World;
use crate::world::packet::{self, Kind};
use core::time::Duration;
use lokinet_core::flow::question::{Answer, Code, Data, Kind as Type, Question};
use std::net::Ipv4Addr;

/// What every ping carries.
pub const TOLD: &[u8] = b"is there anybody out there";
/// The identifier of every ping.
const PING: u16 = 77;

/// A question as a program asks it.
pub fn question(name: &str, kind: Type) -> Question {
    Question { name: name.to_owned(), kind }
}

/// What `dig +short` would print for an A question: the last address.
pub fn first_address(answer: Option<Answer>) -> Ipv4Addr {
    let answer = answer.expect("no answer at all");
    assert_eq!(answer.code, Code::NoError, "{answer:?}");
    let addresses: Vec<Ipv4Addr> =
        answer.records.iter().filter_map(|r| if let Data::A(ip) = r.data { Some(ip) } else { None }).collect();
    assert_eq!(addresses.len(), 1, "{answer:?}");
    addresses[0]
}

/// The host's own address on its TUN device, as `dig localhost.loki` tells it.
pub fn own_ip(world: &mut World, name: &str) -> Ipv4Addr {
    let answer = world.ask(name, question("localhost.loki", Type::A));
    first_address(answer)
}

/// The host's `.loki` name, as `dig localhost.loki CNAME` at the host tells it.
pub fn loki_name(world: &mut World, host: &str) -> String {
    let answer = world.ask(host, question("localhost.loki", Type::Cname)).expect("no answer at all");
    let names: Vec<&String> =
        answer.records.iter().filter_map(|r| if let Data::Cname(name) = &r.data { Some(name) } else { None }).collect();
    assert_eq!(names.len(), 1, "{answer:?}");
    let name = names[0].clone();
    assert!(name.len() == 52 + 5 && name.ends_with(".loki"), "{name} is not an address");
    name
}

/// An address whose key exists and whose service does not.
pub fn nobody() -> String {
    let key = ed25519_dalek::SigningKey::from_bytes(&[42; 32]).verifying_key().to_bytes();
    let bit = |at: usize| key.get(at / 8).map_or(0, |byte| usize::from(byte >> (7 - at % 8) & 1));
    let digit = |n: usize| (0..5).fold(0, |digit, i| digit << 1 | bit(5 * n + i));
    let digits = (0..52).map(|n| char::from(b"ybndrfg8ejkmcpqxot1uwisza345h769"[digit(n)]));
    digits.chain(".loki".chars()).collect()
}

/// The addresses under which one host knows itself and reaches another by its name.
pub fn call(world: &mut World, caller: &str, service: &str) -> (Ipv4Addr, Ipv4Addr) {
    let name = loki_name(world, service);
    let own = own_ip(world, caller);
    let answer = world.ask(caller, question(&name, Type::A));
    (own, first_address(answer))
}

/// Sends one numbered ping and waits for its pong; whether it came.
pub fn ping(
    world: &mut World,
    host: &str,
    (own, theirs): (Ipv4Addr, Ipv4Addr),
    number: u16,
    patience: Duration,
) -> bool {
    world.send(host, &packet::ping(own, theirs, PING, number, TOLD));
    let until = world.now() + patience;
    loop {
        let arrived = world.run_until(|w| w.delivered(host) > 0, until.since(world.now()));
        for packet in world.inbox(host) {
            let seen = packet::read(&packet).expect("a broken packet was delivered");
            if seen.kind == Kind::Pong(PING, number) {
                assert_eq!((seen.from, seen.to), (theirs, own));
                assert_eq!(seen.payload, TOLD);
                return true;
            }
        }
        if !arrived {
            return false;
        }
    }
}

/// The relays on the path that the host's conversation uses now, first hop first, pivot last.
pub fn relays_on_the_way(world: &World, host: &str) -> Vec<String> {
    let report = world.report(host);
    let session = report.sessions.iter().find(|s| s.state == "open" && !s.route.is_empty());
    let route = session.map(|session| session.route.clone()).expect("no conversation has a way");
    route.iter().map(|id| world.who_has(*id).expect("a relay nobody knows").to_owned()).collect()
}

/// Pings every 100 ms until one of these pings returns: how long that took, or `None` when it took longer than `patience`.
pub fn reached_again(
    world: &mut World,
    host: &str,
    (own, theirs): (Ipv4Addr, Ipv4Addr),
    first: u16,
    patience: Duration,
) -> Option<Duration> {
    let began = world.now();
    let mut number = first;
    while world.now().since(began) <= patience {
        world.send(host, &packet::ping(own, theirs, PING, number, TOLD));
        world.run_until(|w| w.delivered(host) > 0, Duration::from_millis(100));
        for packet in world.inbox(host) {
            let seen = packet::read(&packet).expect("a broken packet was delivered");
            if matches!(seen.kind, Kind::Pong(PING, back) if (first..=number).contains(&back)) {
                return Some(world.now().since(began));
            }
        }
        number += 1;
    }
    None
}
