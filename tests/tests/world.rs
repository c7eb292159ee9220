//! The world tested by itself, with parrots for nodes: time, wires, links and requests keep their promises before any
//! real node relies on them.

use bytes::Bytes;
use core::time::Duration;
use lokinet_core::node::io::{
    CLIENT_ALIVE, CLIENT_IDLE as IDLE, DialId, Input, LinkId, LinkKey, NoReply, Output, Ticket, Wake,
};
use lokinet_core::node::report::Report;
use lokinet_core::time::{Now, Time};
use lokinet_core::wire::batch::Packets;
use lokinet_core::wire::id::RelayId;
use lokinet_tests::world::{Birth, Machine, Wire, World};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

/// What a parrot heard, shared with the test.
type Heard = Rc<RefCell<Vec<String>>>;

/// Dials its target at birth, asks it once the link is up, answers what it is asked, floods cells when poked through
/// the TUN, and writes down everything it hears.
struct Parrot {
    target: Option<(RelayId, SocketAddr)>,
    exporter: [u8; 32],
    link: Option<LinkId>,
    remote: Option<SocketAddr>,
    hungry: bool,
    mute: bool,
    alarm: Option<Time>,
    heard: Heard,
}

impl Parrot {
    fn hear(&self, what: String) {
        self.heard.borrow_mut().push(what);
    }
}

impl Machine for Parrot {
    fn handle(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        match input {
            Input::Entropy(_) => self.alarm = Some(now.mono + Duration::from_millis(1)),
            Input::Wake => {
                assert_eq!(self.alarm.take(), Some(now.mono), "woken at the wrong time");
                if let Some((peer, addr)) = self.target {
                    let key = LinkKey::Throwaway;
                    act(Output::Dial { dial: DialId(1), peer, addrs: vec![addr], key });
                }
            }
            Input::LinkUp(up) => {
                self.hear(format!("up {:?}", up.role));
                (self.exporter, self.link, self.remote) = (*up.exporter, Some(up.link), Some(up.remote));
                if self.hungry {
                    let body = Bytes::from_static(b"polly wants a cracker");
                    act(Output::Request { link: up.link, ticket: Ticket(1), body, patience: Duration::from_secs(2) });
                }
            }
            Input::Control { .. } => self.hear("a worker spoke".into()),
            Input::DialFailed { .. } => self.hear("failed".into()),
            Input::LinkDown { .. } => self.hear("down".into()),
            Input::LinkMoved { .. } => self.hear("moved".into()),
            Input::Request { ticket, body, .. } if !self.mute => act(Output::Answer { ticket, body: Some(body) }),
            Input::Request { .. } => self.hear("asked".into()),
            Input::Reply { result, .. } => self.hear(match result {
                Ok(body) => format!("reply {}", body.len()),
                Err(why) => format!("{why:?}"),
            }),
            Input::Cells(runs) => {
                for run in runs {
                    self.hear(format!("cells {} of {}", run.bytes.len().div_ceil(run.segment), run.segment));
                }
            }
            Input::Packets(packets) => {
                let bytes: Vec<u8> = (0..packets.len()).flat_map(|_| cell(&self.exporter)).collect();
                if let Some(to) = self.remote {
                    act(Output::Transmit { to, segment: 1440, bytes: &bytes });
                }
                let mut back = Packets::new();
                packets.iter().for_each(|packet| back.push(packet));
                act(Output::Deliver(&mut back));
            }
            Input::Dns { .. } | Input::Registry(_) => {}
            Input::Stop => {
                self.link.take().into_iter().for_each(|link| act(Output::Hangup { link }));
            }
        }
    }

    fn next_wake(&self) -> Option<(Time, Wake)> {
        self.alarm.map(|at| (at, Wake::Link))
    }

    fn is_cell(&self, datagram: &[u8]) -> bool {
        datagram.starts_with(&self.exporter)
    }

    fn report(&self, _: Now) -> Report {
        Report::default()
    }
}

fn cell(exporter: &[u8; 32]) -> Vec<u8> {
    let mut cell = exporter.to_vec();
    cell.resize(1440, 7);
    cell
}

const KEY: RelayId = RelayId([9; 32]);

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, n, 0, 1], 1090))
}

/// A world of two: `anna` dials `bob`, whose key she believes to be `wanted`.
fn pair(seed: u64, wanted: RelayId, mute: bool) -> (World, Heard, Heard) {
    let (mut world, anna, bob) = (World::new(seed), Heard::default(), Heard::default());
    let parrot = |target: Option<(RelayId, SocketAddr)>, heard: Heard, mute: bool| {
        Box::new(move |_: Birth| -> Box<dyn Machine> {
            Box::new(Parrot {
                target,
                exporter: [0; 32],
                link: None,
                remote: None,
                hungry: target.is_some(),
                mute,
                alarm: None,
                heard: heard.clone(),
            })
        })
    };
    world.add("anna", addr(1), None, parrot(Some((wanted, addr(2))), anna.clone(), false));
    world.add("bob", addr(2), Some(KEY), parrot(None, bob.clone(), mute));
    world.start("bob");
    world.start("anna");
    (world, anna, bob)
}

fn all(heard: &Heard) -> Vec<String> {
    heard.borrow().clone()
}

#[test]
fn a_dial_brings_both_ends_up_and_a_request_its_reply() {
    let (mut world, anna, bob) = pair(1, KEY, false);
    world.run_for(Duration::from_millis(100));
    assert_eq!(all(&anna), ["up Initiator", "reply 21"]);
    assert_eq!(all(&bob), ["up Responder"]);
}

#[test]
fn a_wrong_key_a_dead_host_and_a_cut_wire_fail_the_dial() {
    let (mut world, anna, bob) = pair(2, RelayId([1; 32]), false);
    world.run_for(Duration::from_millis(100));
    assert_eq!((all(&anna), all(&bob)), (vec!["failed".to_owned()], vec![]));

    let (mut world, anna, _) = pair(3, KEY, false);
    world.kill("bob");
    world.run_for(Duration::from_secs(10));
    assert_eq!(all(&anna), ["failed"]);

    let (mut world, anna, _) = pair(4, KEY, false);
    world.isolate("bob", true);
    world.run_for(Duration::from_secs(10));
    assert_eq!(all(&anna), ["failed"]);
}

#[test]
fn a_cut_that_heals_costs_time_and_nothing_else() {
    let (mut world, anna, bob) = pair(5, KEY, false);
    world.isolate("bob", true);
    world.run_for(Duration::from_secs(2));
    world.isolate("bob", false);
    world.run_for(Duration::from_secs(3));
    assert_eq!(all(&anna), ["up Initiator", "reply 21"]);
    world.isolate("bob", true);
    world.run_for(IDLE - Duration::from_secs(1));
    world.isolate("bob", false);
    world.run_for(IDLE * 3);
    assert_eq!((anna.borrow().len(), bob.borrow().len()), (2, 1), "a cut shorter than the idle time was noticed");
    world.isolate("bob", true);
    world.run_for(IDLE + Duration::from_secs(1));
    assert_eq!((all(&anna)[2].as_str(), all(&bob)[1].as_str()), ("down", "down"));
}

#[test]
fn a_silent_peer_costs_patience_and_a_killed_one_the_idle_time() {
    let (mut world, anna, bob) = pair(6, KEY, true);
    world.run_for(Duration::from_secs(1));
    assert_eq!(all(&bob), ["up Responder", "asked"]);
    world.kill("bob");
    world.run_for(Duration::from_secs(2));
    assert_eq!(all(&anna), ["up Initiator", format!("{:?}", NoReply::TimedOut).as_str()]);
    world.run_for(IDLE);
    assert_eq!(anna.borrow().last().map(String::as_str), Some("down"));
}

#[test]
fn a_peer_that_was_started_again_says_that_it_knows_nothing() {
    let (mut world, anna, _) = pair(8, KEY, false);
    world.run_for(Duration::from_secs(1));
    world.kill("bob");
    world.run_for(CLIENT_ALIVE);
    assert_eq!(anna.borrow().len(), 2, "the dead say nothing");
    world.start("bob");
    world.run_for(CLIENT_ALIVE + Duration::from_millis(100));
    assert_eq!(anna.borrow().last().map(String::as_str), Some("down"));
}

#[test]
fn a_goodbye_is_heard_at_once_and_ends_open_requests() {
    let (mut world, anna, bob) = pair(7, KEY, true);
    world.run_for(Duration::from_secs(1));
    world.stop("bob");
    world.run_for(Duration::from_millis(50));
    let mut heard = all(&anna)[1..].to_vec();
    heard.sort();
    assert_eq!(heard, ["LinkLost", "down"]);
    assert_eq!(bob.borrow().len(), 2, "the one who hangs up is not told");
}

#[test]
fn cells_arrive_in_runs_and_strangers_are_counted() {
    let (mut world, _, bob) = pair(8, KEY, false);
    world.run_for(Duration::from_secs(1));
    world.eyes(true);
    world.send_all("anna", &vec![vec![0; 100]; 100]);
    world.run_for(Duration::from_secs(1));
    assert_eq!(all(&bob)[1..], ["cells 64 of 1440", "cells 36 of 1440"]);
    assert_eq!(world.seen().datagrams.len(), 100);
    assert_eq!(world.seen().neighbours(addr(1)), [addr(2)]);
    assert_eq!(world.inbox("anna").len(), 100);
    world.kill("bob");
    world.start("bob");
    world.send("anna", &[0]);
    world.run_for(Duration::from_secs(1));
    assert_eq!((world.tally().delivered, world.tally().foreign), (100, 1));
}

#[test]
fn wires_lose_double_overtake_and_overflow_as_they_say() {
    let wire = Wire { loss: 0.2, duplicate: 0.1, reorder: 0.1, jitter: Duration::from_millis(3), ..Wire::default() };
    let (mut world, ..) = pair(9, KEY, false);
    world.run_for(Duration::from_secs(1));
    world.wire("anna", "bob", wire);
    for _ in 0..100 {
        world.send_all("anna", &vec![vec![0; 100]; 100]);
        world.run_for(Duration::from_millis(10));
    }
    let tally = world.tally();
    assert!((1800..2200).contains(&tally.lost), "{tally:?}");
    assert!((700..900).contains(&tally.doubled), "{tally:?}");

    let (mut world, ..) = pair(10, KEY, false);
    world.run_for(Duration::from_secs(1));
    world.wire("anna", "bob", Wire { rate: Some(11_520_000), queue: 14_400, ..Wire::default() });
    world.send_all("anna", &vec![vec![0; 100]; 100]);
    world.run_for(Duration::from_millis(5 + 11));
    let tally = world.tally();
    assert_eq!((tally.delivered, tally.overflowed), (11, 89), "one cell leaves per millisecond, ten wait");
}

#[test]
fn one_seed_is_one_story() {
    let digest = |seed: u64| {
        let (mut world, ..) = pair(seed, KEY, false);
        world.usual_wire(Wire { loss: 0.1, jitter: Duration::from_millis(2), ..Wire::default() });
        world.run_for(Duration::from_secs(10));
        world.send_all("anna", &vec![vec![0; 100]; 50]);
        world.clock_jump("bob", -5000);
        world.roam("anna", addr(3));
        world.stop("bob");
        world.run_for(Duration::from_secs(10));
        (world.digest(), world.story_text(), world.story_mermaid())
    };
    assert_eq!(digest(11), digest(11));
    assert_ne!(digest(11).0, digest(12).0);
}

#[test]
fn packets_survive_their_own_reader() {
    use lokinet_tests::world::packet::{Kind, echo, ping, read, udp};
    let (a, b) = ([172, 16, 0, 1].into(), [172, 16, 0, 2].into());
    let packet = udp((a, 5), (b, 7), b"hello");
    let seen = read(&packet).expect("its own packet");
    assert_eq!((seen.from, seen.to, seen.kind, seen.payload.as_slice()), (a, b, Kind::Udp(5, 7), &b"hello"[..]));
    let back = echo(&ping(a, b, 1, 2, b"odd")).and_then(|packet| read(&packet)).expect("an echo");
    assert_eq!((back.from, back.to, back.kind), (b, a, Kind::Pong(1, 2)));
    for at in 0..packet.len() {
        let mut bent = packet.clone();
        bent[at] ^= 0x10;
        assert_eq!(read(&bent), None, "byte {at} bent and not noticed");
    }
}
