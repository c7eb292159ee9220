//! A large town for an hour: how many builds succeed, how long conversations stand still when relays come and go, and
//! what it costs. The real cryptography, one process, one thread. Neighbours: `bin/world` asks and prints;
//! `directory` reckons what no world of this size can hold.

pub mod directory;
pub mod process;

use crate::person::{self, question};
use crate::world::packet::{self, Kind};
use crate::world::{Wire, World};
use core::time::Duration;
use lokinet_core::flow::question::{Code, Data, Kind as Type};
use lokinet_core::node::io::Ticket;
use lokinet_core::time::Time;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// Most pairs of a client and a service that talk.
pub const PAIRS: usize = 30;
/// How long a town may take until everyone is ready.
const WAKING: Duration = Duration::from_secs(180);
/// When those call again who did not reach their service at once.
const AGAIN: Duration = Duration::from_secs(60);
/// One packet there and back so often.
const BEAT: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many relays.
    pub relays: usize,
    /// How many clients, each with paths of its own.
    pub clients: usize,
    /// How many services, called by the first [`PAIRS`] clients.
    pub services: usize,
    /// How many minutes, counted from when everybody is ready.
    pub minutes: u64,
    /// How many of a hundred relays are killed each minute.
    pub churn: f64,
    /// How long a killed relay stays away before it is started again with what it had saved.
    pub away: Duration,
    /// What everything follows from.
    pub seed: u64,
}

/// How far it is.
pub struct Progress {
    /// How much of the plan's time has passed.
    pub passed: Duration,
    /// What has happened so far.
    pub steps: u64,
    /// What is still to happen.
    pub queued: usize,
    /// Builds begun and failed so far.
    pub builds: (u64, u64),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Virtual time until everybody was ready and every service published; `None` when that never came.
    pub awake: Option<Duration>,
    /// Path builds of clients and services that came to an end, and those that failed, since then.
    pub builds: (u64, u64),
    /// Relays killed.
    pub killed: u64,
    /// Pairs that talk.
    pub pairs: usize,
    /// Callers who were told at first, right after everybody was ready, that the service does not exist, and those who
    /// were told of trouble or nothing at all. They ask once more after a pause.
    pub denied: (usize, usize),
    /// Beats sent, and echoes heard.
    pub beats: (u64, u64),
    /// Between two echoes that follow each other: the longest time of all.
    pub longest: Duration,
    /// The time that 99 of 100 do not exceed.
    pub p99: Duration,
    /// How many took more than two seconds.
    pub long: u64,
    /// Contacts told to one client, in bytes: until everybody was ready, and for each hour afterwards.
    pub directory: (u64, u64),
    /// What one relay sends and answers about contacts in an hour, in bytes: to neighbours unasked, and when asked.
    pub gossip: (u64, u64),
    /// Things that happened, in all.
    pub steps: u64,
    /// Processor seconds, until everybody was ready and in all.
    pub cpu: (f64, f64),
    /// Seconds on the wall's clock.
    pub wall: f64,
    /// Memory at its highest, in bytes.
    pub memory: u64,
    /// Nodes.
    pub nodes: usize,
}

struct Pair {
    client: String,
    way: (Ipv4Addr, Ipv4Addr),
    last: Time,
}

/// Runs a plan; `tell` hears how far it is, once each virtual second.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(&Progress)) -> Figures {
    let began = process::now();
    let mut world = World::new(plan.seed);
    world.usual_wire(Wire { jitter: Duration::from_millis(5), ..Wire::of(Duration::from_millis(20)) });
    world.settle(plan.relays, plan.clients, plan.services);
    let mut figures = Figures { nodes: plan.relays + plan.clients + plan.services, ..Figures::default() };
    let start = world.now();
    if world.awake(WAKING) {
        figures.awake = Some(world.now().since(start));
    }
    figures.cpu.0 = process::cpu_seconds();
    let (before, told) = (builds(&world, plan), directory_bytes(&world, plan));
    let asked = world.asked();
    let mut pairs = call_all(&mut world, plan, &mut figures.denied);
    figures.pairs = pairs.len();
    let mut gaps: Vec<Duration> = Vec::new();
    let mut churn = Churn::new(plan);
    for second in 0..plan.minutes * 60 {
        churn.step(&mut world);
        for pair in &pairs {
            world.send(&pair.client, &packet::udp((pair.way.0, second as u16), (pair.way.1, 9), b"beat"));
        }
        figures.beats.0 += pairs.len() as u64;
        world.run_for(BEAT);
        for pair in &mut pairs {
            for (at, packet) in world.inbox_at(&pair.client) {
                if matches!(packet::read(&packet).map(|seen| seen.kind), Some(Kind::Udp(9, _))) {
                    gaps.push(at.since(pair.last));
                    pair.last = at;
                    figures.beats.1 += 1;
                }
            }
        }
        (1..=plan.services).for_each(|n| drop(world.inbox_at(&format!("service{n}"))));
        let passed = BEAT * (second + 1) as u32;
        tell(&Progress { passed, steps: world.steps(), queued: world.queued(), builds: builds(&world, plan) });
    }
    // Who heard nothing to the end counts too.
    gaps.extend(pairs.iter().map(|pair| world.now().since(pair.last)));
    gaps.sort_unstable();
    figures.longest = gaps.last().copied().unwrap_or_default();
    figures.p99 = gaps.get(gaps.len() * 99 / 100).copied().unwrap_or_default();
    figures.long = gaps.iter().filter(|gap| **gap > BEAT * 2).count() as u64;
    let after = builds(&world, plan);
    figures.builds = (after.0 - before.0, after.1 - before.1);
    figures.killed = churn.killed;
    let hours = (plan.minutes as f64 / 60.0).max(1e-9);
    let hourly = |bytes: u64, count: usize| (bytes as f64 / hours / count.max(1) as f64) as u64;
    let clients = plan.clients + plan.services;
    figures.directory =
        (told / clients.max(1) as u64, hourly(directory_bytes(&world, plan).saturating_sub(told), clients));
    let spent = |kind: usize| hourly(world.asked()[kind].1 - asked[kind].1, plan.relays);
    figures.gossip = (spent(5), spent(2));
    figures.steps = world.steps();
    figures.cpu.1 = process::cpu_seconds();
    figures.memory = process::memory();
    figures.wall = process::now().duration_since(began).as_secs_f64();
    figures
}

/// The first clients call the services in turn, those who fail once more; who fails again is left out.
fn call_all(world: &mut World, plan: &Plan, denied: &mut (usize, usize)) -> Vec<Pair> {
    let names: Vec<String> = (1..=plan.services)
        .map(|n| {
            let host = format!("service{n}");
            world.echo(&host, true);
            person::loki_name(world, &host)
        })
        .collect();
    let callers = if names.is_empty() { 0 } else { plan.clients.min(PAIRS) };
    let all: Vec<usize> = (0..callers).collect();
    let mut pairs = Vec::new();
    let (missing, failed) = call_some(world, &names, &all, &mut pairs);
    *denied = (missing.len(), failed.len());
    let again = [missing, failed].concat();
    if !again.is_empty() {
        world.run_for(AGAIN);
        call_some(world, &names, &again, &mut pairs);
    }
    let now = world.now();
    pairs.iter_mut().for_each(|pair| pair.last = now);
    pairs
}

/// Calls; who was told that there is nothing, and who was told of trouble or nothing.
fn call_some(world: &mut World, names: &[String], who: &[usize], pairs: &mut Vec<Pair>) -> (Vec<usize>, Vec<usize>) {
    let asked: Vec<(usize, String, Ticket)> = (who.iter())
        .map(|n| {
            let client = format!("client{}", n + 1);
            let ticket = world.begin_asking(&client, question(&names[n % names.len()], Type::A));
            (*n, client, ticket)
        })
        .collect();
    let (mut missing, mut failed) = (Vec::new(), Vec::new());
    for (n, client, ticket) in asked {
        let answer = world.await_answer(&client, ticket, Duration::from_secs(30));
        let records = answer.iter().flat_map(|answer| &answer.records);
        let theirs = records.into_iter().find_map(|r| if let Data::A(ip) = r.data { Some(ip) } else { None });
        match theirs {
            Some(theirs) => {
                let own = person::own_ip(world, &client);
                pairs.push(Pair { client, way: (own, theirs), last: world.now() });
            }
            None if answer.is_some_and(|answer| answer.code == Code::NxDomain) => missing.push(n),
            None => failed.push(n),
        }
    }
    (missing, failed)
}

/// Path builds of clients and services: those at an end, and the failed ones of them.
fn builds(world: &World, plan: &Plan) -> (u64, u64) {
    owners(plan).fold((0, 0), |(ended, failed), host| {
        let report = world.report(&host);
        let building = report.paths.iter().filter(|path| path.state == "building").count() as u64;
        let begun = report.counter("paths begun");
        (ended + begun - building.min(begun), failed + report.counter("paths failed"))
    })
}

fn directory_bytes(world: &World, plan: &Plan) -> u64 {
    owners(plan).map(|host| world.report(&host).counter("directory bytes")).sum()
}

fn owners(plan: &Plan) -> impl Iterator<Item = String> {
    let clients = (1..=plan.clients).map(|n| format!("client{n}"));
    clients.chain((1..=plan.services).map(|n| format!("service{n}")))
}

/// Relays that are killed and come back.
struct Churn {
    rng: ChaCha8Rng,
    relays: usize,
    each_second: f64,
    due: f64,
    away: Duration,
    back: VecDeque<(Time, String)>,
    killed: u64,
}

impl Churn {
    fn new(plan: &Plan) -> Churn {
        Churn {
            rng: ChaCha8Rng::seed_from_u64(plan.seed ^ 0x0063_6875_726e),
            relays: plan.relays,
            each_second: plan.relays as f64 * plan.churn / 100.0 / 60.0,
            due: 0.0,
            away: plan.away,
            back: VecDeque::new(),
            killed: 0,
        }
    }

    fn step(&mut self, world: &mut World) {
        while self.back.front().is_some_and(|(at, _)| *at <= world.now()) {
            if let Some((_, name)) = self.back.pop_front() {
                world.start(&name);
            }
        }
        self.due += self.each_second;
        while self.due >= 1.0 {
            self.due -= 1.0;
            let name = format!("relay{}", 1 + self.rng.next_u64() as usize % self.relays);
            if !self.back.iter().any(|(_, away)| *away == name) {
                world.kill(&name);
                self.killed += 1;
                self.back.push_back((world.now() + self.away, name));
            }
        }
    }
}
