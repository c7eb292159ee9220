//! Strangers and liars: a node is told whatever comes to mind, well-formed, bent and plain noise, by peers that hold real
//! links and real channel keys. It must not panic, must answer each request once, and must not keep more than its
//! constants allow; and a town with liars in it must go on working.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use core::time::Duration;
use lokinet_core::flow::question::{Kind as Type, Question};
use lokinet_core::link::channel::Channel;
use lokinet_core::node::Node;
use lokinet_core::node::io::{DialId, Input, LinkId, LinkUp, NoReply, Output, Role, Run, Suite, Ticket, Wake};
use lokinet_core::node::report::Report;
use lokinet_core::time::{Now, Time, Wall};
use lokinet_core::wire::batch::Packets;
use lokinet_core::wire::id::{PathId, RelayId};
use lokinet_tests::person;
use lokinet_tests::world::town::{self, Papers, Trade};
use lokinet_tests::world::{BEGINNING, Birth, Machine, World};
use proptest::prelude::*;
use proptest::test_runner::Config;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::OnceLock;
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);

/// What real nodes said to each other in a town, to be bent: requests and replies.
fn corpus() -> &'static Vec<Bytes> {
    static CORPUS: OnceLock<Vec<Bytes>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let mut world = World::new(1);
        world.eyes(true);
        world.settle(5, 1, 1);
        assert!(world.awake(SECOND * 10));
        person::call(&mut world, "client1", "service1");
        world.seen().bodies.iter().map(|body| body.bytes.clone()).collect()
    })
}

/// A number below the bound.
fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    (rng.next_u64() % bound.max(1) as u64) as usize
}

/// A node and the far ends of its links.
struct Victim {
    node: Node,
    rng: ChaCha8Rng,
    now: Time,
    links: Vec<(LinkId, Channel)>,
    /// Dials and requests of the node's own that wait.
    dials: Vec<(DialId, RelayId)>,
    waiting: Vec<Ticket>,
    /// Requests of ours that the node has not answered.
    asked: BTreeSet<Ticket>,
    numbers: u64,
    relays: Vec<RelayId>,
}

impl Victim {
    fn new(trade: Trade, seed: u64) -> Victim {
        let keys: Vec<[u8; 32]> = (1..=8).map(|n| [n; 32]).collect();
        let mut relays: Vec<RelayId> = keys
            .iter()
            .map(|key| RelayId(ed25519_dalek::SigningKey::from_bytes(key).verifying_key().to_bytes()))
            .collect();
        relays.sort();
        let papers = Papers {
            name: "victim".into(),
            trade,
            identity: Some(Zeroizing::new(keys[0])),
            addr: town::address_of(trade, 1),
            authority: Zeroizing::new([99; 32]),
            registry: relays.clone(),
            tun: [172, 16, 0, 1].into(),
        };
        let now = Time::from_nanos(1_000_000_000_000);
        let birth = Birth { seed: [seed as u8; 32], now: at(now), saved: Default::default(), bootstraps: Vec::new() };
        Victim {
            node: town::bear(&papers, birth),
            rng: ChaCha8Rng::seed_from_u64(seed),
            now,
            links: Vec::new(),
            dials: Vec::new(),
            waiting: Vec::new(),
            asked: BTreeSet::new(),
            numbers: 0,
            relays,
        }
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; below(&mut self.rng, most + 1)];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Something real, often bent.
    fn bent(&mut self) -> Bytes {
        let real = corpus()[below(&mut self.rng, corpus().len())].clone();
        let mut bytes = real.to_vec();
        match below(&mut self.rng, 5) {
            0 => {}
            1 => bytes.truncate(below(&mut self.rng, real.len() + 1)),
            2 => bytes.extend(self.noise(64)),
            3 if !bytes.is_empty() => {
                let place = below(&mut self.rng, bytes.len());
                bytes[place] ^= 1 << below(&mut self.rng, 8);
            }
            _ => {
                bytes = self.noise(13_000);
                let kind = below(&mut self.rng, 9) as u8;
                bytes.insert(0, kind);
            }
        }
        bytes.into()
    }

    fn tell(&mut self, input: Input<'_>) {
        let mut outputs = self.node.handle(input, at(self.now));
        while let Some(output) = outputs.next() {
            match output {
                Output::Dial { dial, peer, .. } => self.dials.push((dial, peer)),
                Output::Hangup { link } => self.links.retain(|(id, _)| *id != link),
                Output::Request { ticket, .. } => self.waiting.push(ticket),
                Output::Answer { ticket, .. } => assert!(self.asked.remove(&ticket), "answered twice, or unasked"),
                _ => {}
            }
        }
    }

    fn link_up(&mut self, dial: Option<(DialId, RelayId)>) {
        self.numbers += 1;
        let stranger = below(&mut self.rng, 2) == 0;
        let peer = match dial {
            Some((_, peer)) => peer,
            None if stranger => RelayId([self.numbers as u8; 32]),
            None => self.relays[below(&mut self.rng, self.relays.len())],
        };
        let mut exporter = [0; 32];
        self.rng.fill_bytes(&mut exporter);
        let (role, other) = match dial {
            Some(_) => (Role::Initiator, Role::Responder),
            None => (Role::Responder, Role::Initiator),
        };
        let link = LinkId(self.numbers);
        self.links.push((link, Channel::new(Suite::Aes, other, &exporter)));
        let remote = SocketAddr::from(([10, 1, 2, 3], 1090));
        let dial = dial.map(|(dial, _)| dial);
        self.tell(Input::LinkUp(LinkUp {
            link,
            dial,
            peer,
            role,
            exporter: exporter.into(),
            suite: Suite::Aes,
            remote,
        }));
    }

    fn cells(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let chosen = below(&mut self.rng, self.links.len());
        let segment = [384, 1440, 17, 1][below(&mut self.rng, 4)];
        let mut bytes = Vec::new();
        for _ in 0..=below(&mut self.rng, 4) {
            let mut cell = vec![0; segment];
            self.rng.fill_bytes(&mut cell);
            if segment >= 384 && below(&mut self.rng, 4) > 0 {
                let path = PathId(below(&mut self.rng, 4) as u32);
                let (now, shard) = (self.now, below(&mut self.rng, 8));
                self.links[chosen].1.seal(shard, path, &mut cell, now);
                if below(&mut self.rng, 4) == 0 {
                    let place = below(&mut self.rng, cell.len());
                    cell[place] ^= 4;
                }
            }
            bytes.extend(cell);
        }
        bytes.truncate(bytes.len() - below(&mut self.rng, 20).min(bytes.len() - 1));
        let from = SocketAddr::from(([10, 1, 2, 3], 1090));
        self.tell(Input::Cells(&mut [Run { from, bytes: &mut bytes, segment }]));
    }

    /// One thing that comes to a hostile mind.
    fn step(&mut self, what: u8) {
        match what % 12 {
            0 => self.link_up(None),
            1 | 2 => {
                if !self.links.is_empty() {
                    let link = self.links[below(&mut self.rng, self.links.len())].0;
                    self.numbers += 1;
                    let ticket = Ticket(self.numbers);
                    self.asked.insert(ticket);
                    let body = self.bent();
                    self.tell(Input::Request { link, ticket, body });
                }
            }
            3 | 4 => {
                if !self.waiting.is_empty() {
                    let ticket = self.waiting.swap_remove(below(&mut self.rng, self.waiting.len()));
                    let result = match below(&mut self.rng, 4) {
                        0 => Err(NoReply::TimedOut),
                        1 => Err(NoReply::Refused),
                        _ => Ok(self.bent()),
                    };
                    self.tell(Input::Reply { ticket, result });
                }
            }
            5 | 6 => self.cells(),
            7 => {
                if !self.dials.is_empty() {
                    let dial = self.dials.swap_remove(below(&mut self.rng, self.dials.len()));
                    if below(&mut self.rng, 3) == 0 {
                        self.tell(Input::DialFailed { dial: dial.0 });
                    } else {
                        self.link_up(Some(dial));
                    }
                }
            }
            8 => {
                if !self.links.is_empty() {
                    let (link, _) = self.links.swap_remove(below(&mut self.rng, self.links.len()));
                    self.tell(Input::LinkDown { link });
                }
            }
            9 => {
                let mut packets = Packets::new();
                for _ in 0..below(&mut self.rng, 4) {
                    let mut packet = self.noise(1500);
                    // Plausible beginnings reach further.
                    for (byte, real) in packet.iter_mut().zip([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 1, 0, 0, 172, 16, 0, 1])
                    {
                        *byte = real;
                    }
                    packets.push(&packet);
                }
                self.tell(Input::Packets(&mut packets));
            }
            10 => {
                let name = match below(&mut self.rng, 3) {
                    0 => person::nobody(),
                    1 => "localhost.loki".into(),
                    _ => String::from_utf8_lossy(&self.noise(80)).into_owned(),
                };
                self.numbers += 1;
                let kind = [Type::A, Type::Aaaa, Type::Ptr, Type::Any, Type::Other(99)][below(&mut self.rng, 5)];
                self.tell(Input::Dns { ticket: Ticket(self.numbers), question: Question { name, kind } });
            }
            _ => {
                let time = Duration::from_millis(1 << below(&mut self.rng, 14));
                self.pass(time);
            }
        }
    }

    /// Lets time pass as a driver does: wakes at the times the node named, which must not come again at one instant.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut still = 0;
        while let Some((at, why)) = self.node.next_wake().filter(|(at, _)| *at <= end) {
            still = if at <= self.now { still + 1 } else { 0 };
            assert!(still < 200, "wants to be woken for ever at one instant: {why:?}");
            self.now = self.now.max(at);
            self.tell(Input::Wake);
        }
        self.now = end;
    }
}

fn at(mono: Time) -> Now {
    Now { mono, wall: Wall::from_millis(BEGINNING.millis() + mono.nanos() / 1_000_000) }
}

fn counter(report: &Report, name: &str) -> u64 {
    report.counters.iter().find(|(known, _)| *known == name).map_or(0, |(_, n)| *n)
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_a_relay_is_told_it_stays_calm(seed: u64, steps in prop::collection::vec(any::<u8>(), 200..800)) {
        let mut victim = Victim::new(Trade::Relay, seed);
        for what in steps {
            victim.step(what);
        }
        // Every request has its answer once the node's own have had their ends.
        for _ in 0..20 {
            for dial in core::mem::take(&mut victim.dials) {
                victim.tell(Input::DialFailed { dial: dial.0 });
            }
            for ticket in core::mem::take(&mut victim.waiting) {
                victim.tell(Input::Reply { ticket, result: Err(NoReply::TimedOut) });
            }
        }
        prop_assert!(victim.asked.is_empty(), "{} requests were never answered", victim.asked.len());
        for (link, _) in core::mem::take(&mut victim.links) {
            victim.tell(Input::LinkDown { link });
        }
        let report = victim.node.report(at(victim.now));
        prop_assert_eq!(report.transit, 0, "hops without a link");
        prop_assert_eq!(report.links.len(), 0);
        // The corpus has the real ones of one service, for two periods; bent ones do not count.
        prop_assert!(counter(&report, "introsets kept") <= 2, "an introset that nobody published");
    }

    #[test]
    fn whatever_a_client_is_told_it_stays_calm(seed: u64, steps in prop::collection::vec(any::<u8>(), 200..800)) {
        for trade in [Trade::Client, Trade::Service] {
            let mut victim = Victim::new(trade, seed);
            for what in &steps {
                victim.step(*what);
            }
            prop_assert!(victim.asked.is_empty(), "a client has nothing to think about");
            let report = victim.node.report(at(victim.now));
            prop_assert!(report.paths.iter().all(|path| path.state == "building"), "a path of nothing");
            prop_assert!(report.paths.len() <= 8 && report.sessions.len() <= 1);
        }
    }
}

/// A node that lies: a share of what it answers and of the cells it sends is bent.
struct Liar {
    honest: Node,
    rng: ChaCha8Rng,
}

impl Machine for Liar {
    fn handle(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        let rng = &mut self.rng;
        let mut outputs = self.honest.handle(input, now);
        while let Some(output) = outputs.next() {
            let lie = rng.next_u32().is_multiple_of(4);
            match output {
                Output::Answer { ticket, body: Some(body) } if lie && !body.is_empty() => {
                    let mut body = body.to_vec();
                    let place = rng.next_u32() as usize % body.len();
                    body[place] ^= 1 << (rng.next_u32() % 8);
                    act(Output::Answer { ticket, body: Some(body.into()) });
                }
                Output::Transmit { to, segment, bytes } if lie => {
                    let mut bytes = bytes.to_vec();
                    let place = rng.next_u32() as usize % bytes.len();
                    bytes[place] ^= 1 << (rng.next_u32() % 8);
                    act(Output::Transmit { to, segment, bytes: &bytes });
                }
                other => act(other),
            }
        }
    }

    fn next_wake(&self) -> Option<(Time, Wake)> {
        self.honest.next_wake()
    }

    fn is_cell(&self, datagram: &[u8]) -> bool {
        self.honest.is_cell(datagram)
    }

    fn report(&self, now: Now) -> Report {
        self.honest.report(now)
    }
}

#[test]
fn a_town_with_liars_goes_on_working() {
    for seed in [81, 82, 83] {
        let mut world = World::new(seed);
        world.settle_with(10, 1, 1, |name, node| match name {
            "relay4" | "relay8" => Box::new(Liar { honest: node, rng: ChaCha8Rng::seed_from_u64(7) }),
            _ => Box::new(node),
        });
        world.echo("service1", true);
        assert!(world.awake(SECOND * 30), "seed {seed}: the liars keep the town asleep");
        world.run_for(SECOND * 5);
        let way = person::call(&mut world, "client1", "service1");
        let back =
            (0..300).filter(|n| person::ping(&mut world, "client1", way, *n, Duration::from_millis(300))).count();
        println!("seed {seed}: {back} of 300 pings returned in a town with two liars");
        // A way over one liar loses a quarter each way: 56 of 100 return.
        assert!(back >= 120, "seed {seed}: only {back} of 300 pings returned");
        for host in ["client1", "service1"] {
            let report = world.report(host);
            assert!(report.paths.len() <= 24 && report.sessions.len() <= 2, "{host} keeps {report:?}");
        }
    }
}
