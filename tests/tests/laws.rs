//! The laws of the world, broken on purpose: whoever breaks one is caught, and the run that fails says how to run it again.

use core::time::Duration;
use lokinet_core::node::Node;
use lokinet_core::node::io::{Input, Output, Wake};
use lokinet_core::node::report::Report;
use lokinet_core::time::{Now, Time};
use lokinet_tests::scale::{self, Plan};
use lokinet_tests::world::{Machine, World, quiet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tracing::Level;

const SECOND: Duration = Duration::from_secs(1);

/// A node that breaks one law.
struct Outlaw {
    node: Node,
    law: Law,
}

#[derive(Clone, Copy, PartialEq)]
enum Law {
    /// Neighbours are answered.
    Answer,
    /// The log is silent about users.
    Silence,
}

impl Machine for Outlaw {
    fn handle(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        if self.law == Law::Silence
            && let Input::LinkUp(up) = &input
        {
            tracing::info!("a link from {} is up", up.remote);
        }
        let mut outputs = self.node.handle(input, now);
        while let Some(output) = outputs.next() {
            match output {
                Output::Answer { .. } if self.law == Law::Answer => {}
                output => act(output),
            }
        }
    }

    fn next_wake(&self) -> Option<(Time, Wake)> {
        self.node.next_wake()
    }

    fn is_cell(&self, datagram: &[u8]) -> bool {
        self.node.is_cell(datagram)
    }

    fn report(&self, now: Now) -> Report {
        self.node.report(now)
    }

    fn node(&self) -> Option<&Node> {
        Some(&self.node)
    }
}

/// What ends a town in which one relay breaks a law; `None` when nothing does within two minutes.
fn end_of(dress: fn(&str, Node) -> Box<dyn Machine>) -> Option<String> {
    let run = || {
        let mut world = World::new(401);
        world.settle_with(8, 1, 1, dress);
        world.run_for(SECOND * 120);
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

fn outlaw(name: &str, node: Node, law: Law) -> Box<dyn Machine> {
    if name == "relay6" { Box::new(Outlaw { node, law }) } else { Box::new(node) }
}

#[test]
fn a_town_of_honest_nodes_breaks_none() {
    assert_eq!(end_of(|_, node| Box::new(node)), None);
}

#[test]
fn who_does_not_answer_is_caught() {
    let end = end_of(|name, node| outlaw(name, node, Law::Answer)).expect("not caught");
    assert!(end.contains("relay6 does not answer a neighbour's request"), "{end}");
}

#[test]
fn who_logs_an_address_is_caught() {
    let end = end_of(|name, node| outlaw(name, node, Law::Silence)).expect("not caught");
    assert!(end.contains("logged an IP address"), "{end}");
}

/// The client goes on believing in a path that its relay has lost from its tables.
#[test]
fn a_path_that_is_not_there_is_noticed() {
    struct Forgetful(Node, Option<Box<Node>>);
    impl Machine for Forgetful {
        fn handle(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
            Machine::handle(&mut self.0, input, now, act);
        }
        fn next_wake(&self) -> Option<(Time, Wake)> {
            self.0.next_wake()
        }
        fn is_cell(&self, datagram: &[u8]) -> bool {
            self.0.is_cell(datagram)
        }
        fn report(&self, now: Now) -> Report {
            self.0.report(now)
        }
        fn node(&self) -> Option<&Node> {
            self.1.as_deref()
        }
    }
    let end = end_of(|name, node| {
        if !name.starts_with("relay") {
            return Box::new(node);
        }
        let papers = lokinet_tests::world::town::Papers {
            name: name.to_owned(),
            trade: lokinet_tests::world::town::Trade::Relay,
            identity: Some([1; 32].into()),
            addr: ([10, 1, 0, 1], 1090).into(),
            authority: [2; 32].into(),
            registry: Vec::new(),
            tun: [172, 16, 0, 1].into(),
        };
        let now = Now { mono: Time::from_nanos(1), wall: lokinet_tests::world::BEGINNING };
        let birth =
            lokinet_tests::world::Birth { seed: [3; 32], now, saved: Default::default(), bootstraps: Vec::new() };
        Box::new(Forgetful(node, Some(Box::new(lokinet_tests::world::town::bear(&papers, birth)))))
    });
    let end = end.expect("not caught");
    assert!(end.contains("takes a path for live that is not there"), "{end}");
}

#[test]
fn what_a_log_line_may_say() {
    for line in [
        "10.1.2.3:1090 is up",
        "peer=[2001:db8::7]:443",
        "from 60.1.0.1.",
        "55fxpaeqqrfb1gsm1gabgcfw5t9rz9hny5n9d5xxdsgn9xjwkc1o.loki",
        "bob.snode asked",
        "key 5f3759df5f3759df5f3759df5f3759df",
    ] {
        assert!(quiet::breach(Level::INFO, line).is_some(), "{line}");
        assert_eq!(quiet::breach(Level::DEBUG, line), None, "{line}");
    }
    for line in ["listening on 127.3.2.1:53", "ready after 1.2 s, version 0.1.0", "12:30:01 3 paths", "[::1]:1190"] {
        assert_eq!(quiet::breach(Level::WARN, line), None, "{line}");
    }
    assert_eq!(quiet::breach(Level::ERROR, "we are wrong"), Some("an error"));
}

#[test]
fn a_run_that_fails_says_how_to_run_it_again() {
    let mut world = World::town(402, 5, 1, 0);
    assert!(world.awake(SECOND * 10));
    let said = world.obituary();
    assert!(said.starts_with("world of seed 402, digest "), "{said}");
    assert!(said.lines().any(|line| line.contains(" ms  client1") && line.contains("relay")), "{said}");
    let drawing = &said[said.find("sequenceDiagram\n").expect("no drawing")..];
    let arrows: Vec<&str> = drawing.lines().skip(1).filter(|line| !line.is_empty()).collect();
    assert!(arrows.len() > 10, "{drawing}");
    for arrow in arrows {
        let (ends, what) = arrow.trim().split_once(": ").expect("an arrow says what was sent");
        let (from, to) = ends.split_once("->>").expect("an arrow has two ends");
        assert!(world.names().contains(&from) && world.names().contains(&to) && !what.is_empty(), "{arrow}");
    }
}

/// The large town's program, in small, with relays that come and go.
#[test]
fn a_town_with_churn_is_measured() {
    let plan = Plan { relays: 30, clients: 4, services: 2, minutes: 4, churn: 10.0, away: SECOND * 10, seed: 403 };
    let mut last = 0;
    let figures = scale::run(&plan, &mut |progress| last = progress.passed.as_secs());
    println!("{figures:?}");
    assert_eq!((last, figures.nodes, figures.killed), (240, 36, 12));
    assert_eq!((figures.pairs, figures.beats.0), (4, 4 * 240));
    assert!(figures.beats.1 * 100 >= figures.beats.0 * 90, "{figures:?}");
    assert!(figures.builds.0 > 20 && figures.builds.1 * 100 <= figures.builds.0 * 15, "{figures:?}");
    assert!(figures.directory.0 > 5_000 && figures.directory.1 > 100_000, "{figures:?}");
    assert_eq!(figures.denied.0, 0, "a young client denied a service that exists");
}
