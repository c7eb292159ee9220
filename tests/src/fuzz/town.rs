//! A town in which things happen: relays die and return, machines stop, wires are cut. A model beside it knows only
//! who should reach whom, and from time to time both are asked. Neighbours: `world` is the town, `person` does the
//! asking.

use super::feed::Feed;
use crate::person;
use crate::world::{Wire, World};
use core::time::Duration;
use lokinet_core::flow::question::{Code, Data, Kind as Type};
use std::collections::BTreeSet;

const SECOND: Duration = Duration::from_secs(1);
/// How long after a change the model is not asked.
const SETTLED: Duration = Duration::from_secs(90);
/// How long a person tries before saying that it does not work.
const PATIENCE: Duration = Duration::from_secs(60);
const RELAYS: usize = 9;
/// Working relays that are enough for everybody.
const ENOUGH: usize = 7;
/// Most changes of one story.
const MOVES: usize = 12;
const CLIENT: &str = "client1";
const SERVICE: &str = "service1";

/// Who works.
#[derive(Default)]
struct Model {
    dead: BTreeSet<String>,
    cut: BTreeSet<String>,
}

impl Model {
    fn works(&self, name: &str) -> bool {
        !self.dead.contains(name) && !self.cut.contains(name)
    }

    /// Whether the client should reach the service: `None` when too few relays are left to say.
    fn reaches(&self) -> Option<bool> {
        if !self.works(CLIENT) || !self.works(SERVICE) {
            return Some(false);
        }
        let relays = (1..=RELAYS).filter(|n| self.works(&format!("relay{n}"))).count();
        (relays >= ENOUGH).then_some(true)
    }
}

/// One story.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let mut world = World::town(feed.byte().into(), RELAYS, 1, 1);
    assert!(world.awake(SECOND * 30), "the town does not wake up");
    world.echo(SERVICE, true);
    let name = person::loki_name(&mut world, SERVICE);
    let mut model = Model::default();
    judge(&mut world, &model, &name);
    for _ in 0..MOVES {
        if feed.is_empty() {
            break;
        }
        change(&mut world, &mut model, &mut feed, &name);
    }
    // Whatever happened: once everything works again, everything works again.
    for name in model.cut.split_off("") {
        world.isolate(&name, false);
    }
    for name in model.dead.split_off("") {
        world.start(&name);
    }
    world.usual_wire(Wire::default());
    judge(&mut world, &model, &name);
}

fn change(world: &mut World, model: &mut Model, feed: &mut Feed<'_>, name: &str) {
    let (what, who) = (feed.byte() % 8, feed.below(RELAYS + 4));
    let host = match who {
        0..RELAYS => format!("relay{}", who + 1),
        9 | 10 => CLIENT.to_owned(),
        _ => SERVICE.to_owned(),
    };
    match what {
        0 if model.dead.insert(host.clone()) => world.kill(&host),
        1 if model.dead.insert(host.clone()) => world.stop(&host),
        0..=2 if model.dead.remove(&host) => world.start(&host),
        3 | 4 => {
            if model.cut.insert(host.clone()) {
                world.isolate(&host, true);
            } else {
                model.cut.remove(&host);
                world.isolate(&host, false);
                // Healing one heals its wires to those that are still cut off, too.
                model.cut.iter().for_each(|other| world.isolate(other, true));
            }
        }
        5 => world.run_for(SECOND * u32::from(feed.byte())),
        6 => {
            let wire = Wire { loss: f64::from(feed.byte() % 6) / 200.0, jitter: SECOND / 50, ..Wire::default() };
            if model.cut.is_empty() {
                world.usual_wire(wire);
            }
        }
        _ => judge(world, model, name),
    }
}

/// Lets things settle, and asks town and model alike.
fn judge(world: &mut World, model: &Model, name: &str) {
    world.run_for(SETTLED);
    match model.reaches() {
        Some(true) => assert!(reaches(world, name, PATIENCE), "the client should reach the service and does not"),
        Some(false) if model.works(CLIENT) => assert!(!reaches(world, name, SECOND * 10), "a dead service answers"),
        _ => {}
    }
}

/// Whether a person at the client gets an echo from the service, trying for so long.
fn reaches(world: &mut World, name: &str, patience: Duration) -> bool {
    let until = world.now() + patience;
    let mut number = 0;
    while world.now() < until {
        let own = person::own_ip(world, CLIENT);
        let answer = world.ask_within(CLIENT, person::question(name, Type::A), SECOND * 10);
        let records = answer.filter(|answer| answer.code == Code::NoError).map(|answer| answer.records);
        let address = records.into_iter().flatten().find_map(|record| match record.data {
            Data::A(ip) => Some(ip),
            _ => None,
        });
        let Some(theirs) = address else {
            world.run_for(SECOND);
            continue;
        };
        for _ in 0..10 {
            number += 1;
            if person::ping(world, CLIENT, (own, theirs), number, SECOND / 2) {
                return true;
            }
        }
    }
    false
}
