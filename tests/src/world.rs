//! The simulated world: one clock, one queue, one seed. Real nodes live on its hosts and meet each other over wires
//! made of values; nothing takes longer than computing it. Every panic while a world lives prints its seed and the
//! tail of its story. Neighbours: `town` settles relays, clients and services; `quic` and `cells` carry what they send.

mod cells;
pub mod eyes;
mod glass;
mod host;
mod laws;
mod machine;
pub mod packet;
mod queue;
mod quic;
pub mod quiet;
mod story;
pub mod town;
mod wire;

pub use cells::Tally;
pub use eyes::{Body, Datagram, Eyes};
pub use glass::Glass;
pub use machine::{Birth, Build, Machine};
pub use quic::DIAL_PATIENCE;
pub use story::Line;
pub use wire::Wire;

use bytes::Bytes;
use core::time::Duration;
use host::Host;
use laws::Laws;
use lokinet_core::flow::question::{Answer, Question};
use lokinet_core::netdb::profile::Profile;
use lokinet_core::node::io::{Event, Input, Output, Ticket};
use lokinet_core::node::report::Report;
use lokinet_core::time::{Now, Time, Wall};
use lokinet_core::wire::batch::{Packets, Shape};
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::packet::complete;
use queue::{Happening, Queue};
use quic::Quic;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use story::Story;
use wire::Wires;

/// The wall clock when a world begins: 2026-01-01 00:00:00 UTC.
pub const BEGINNING: Wall = Wall::from_secs(1_767_225_600);
/// How long a host's programs wait for the answer to a name question.
pub const DNS_PATIENCE: Duration = Duration::from_secs(30);
/// How long a stopping machine may take for its goodbyes.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How long a host's kernel takes to send an echo back.
const KERNEL: Duration = Duration::from_micros(100);
/// Wakes in a row at one instant that are not yet a machine gone mad.
const RESTLESS: u32 = 10_000;

/// A world. Hosts are named; naming one that does not exist panics.
pub struct World {
    seed: u64,
    now: Time,
    queue: Queue,
    /// How many things have happened.
    steps: u64,
    /// How many milestones machines have reported.
    milestones: u64,
    rng: ChaCha8Rng,
    hosts: Vec<Host>,
    names: BTreeMap<String, usize>,
    addresses: BTreeMap<SocketAddr, usize>,
    wires: Wires,
    quic: Quic,
    story: Story,
    laws: Laws,
    eyes: Eyes,
    tally: Tally,
    /// Requests and their replies by kind: how many, and how many bytes together.
    asked: [(u64, u64); 8],
    /// How much later than [`BEGINNING`] the clocks of hosts begin that are added from now on, in milliseconds.
    later: i64,
    /// Hosts whose own contacts every newborn machine is given.
    bootstraps: Vec<usize>,
    /// Names whose secrets are made from another name.
    aliases: BTreeMap<String, String>,
}

impl World {
    /// An empty world in which everything follows from `seed`.
    pub fn new(seed: u64) -> World {
        quiet::listen();
        World {
            seed,
            now: Time::default(),
            queue: Queue::default(),
            steps: 0,
            milestones: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            hosts: Vec::new(),
            names: BTreeMap::new(),
            addresses: BTreeMap::new(),
            wires: Wires::default(),
            quic: Quic::default(),
            story: Story::new(seed),
            laws: Laws::default(),
            eyes: Eyes::default(),
            tally: Tally::default(),
            asked: [(0, 0); 8],
            later: 0,
            bootstraps: Vec::new(),
            aliases: BTreeMap::new(),
        }
    }

    // Founding.

    /// Has the wall clocks of the hosts that are added from now on begin so much later.
    pub fn begin_later(&mut self, by: Duration) {
        self.later = by.as_millis() as i64;
    }

    /// Adds a host whose machine is not started yet. With a key it can be dialled by whoever knows the key.
    pub fn add(&mut self, name: &str, addr: SocketAddr, key: Option<RelayId>, build: Build) {
        let id = self.hosts.len();
        assert!(self.names.insert(name.to_owned(), id).is_none(), "two hosts called {name}");
        assert!(self.addresses.insert(addr, id).is_none(), "two hosts at {addr}");
        let boot = 1_000_000_000 + self.rng.next_u64() % 1_000_000_000_000;
        self.hosts.push(Host { ahead: self.later, ..Host::new(name, addr, key, boot, build) });
    }

    /// From now on newborn machines are given this host's own contact, once it has published one.
    pub fn make_bootstrap(&mut self, name: &str) {
        self.bootstraps.push(self.host(name));
    }

    /// Starts a host's machine, with fresh chance and with what earlier lives kept. A living one is left alone.
    pub fn start(&mut self, name: &str) {
        let id = self.host(name);
        if self.hosts[id].machine.is_some() {
            return;
        }
        self.tell(id, None, "start", 0, 0);
        let contacts = self.bootstraps.iter().filter(|b| **b != id);
        let bootstraps = contacts.filter_map(|b| self.hosts[*b].disk.own.clone()).collect();
        let birth = Birth { seed: self.draw(), now: self.now_at(id), saved: self.hosts[id].disk.saved(), bootstraps };
        let machine = (self.hosts[id].build)(birth);
        self.hosts[id].born = self.now;
        self.hosts[id].machine = Some(machine);
        self.revive_links(id);
        let entropy = self.draw();
        self.feed(id, Input::Entropy(entropy.into()));
    }

    /// Ends a host's machine as SIGKILL does: no goodbye, nothing more is saved.
    pub fn kill(&mut self, name: &str) {
        let id = self.host(name);
        self.tell(id, None, "kill", 0, 0);
        self.forget_links(id);
        let conns = self.conns_of(id);
        self.hosts[id].bury();
        self.review(&conns);
    }

    /// Ends a host's machine as SIGTERM does: `Input::Stop`, time for its goodbyes, then its links are closed.
    pub fn stop(&mut self, name: &str) {
        let id = self.host(name);
        self.tell(id, None, "stop", 0, 0);
        self.feed(id, Input::Stop);
        self.run_for(Duration::from_millis(1));
        self.run_until(|world| world.hosts[id].pending.is_empty(), STOP_PATIENCE);
        self.close_links(id);
        self.forget_links(id);
        let conns = self.conns_of(id);
        self.hosts[id].bury();
        self.review(&conns);
    }

    // Wires and clocks.

    /// What every wire is like that is not set by itself.
    pub fn usual_wire(&mut self, wire: Wire) {
        self.wires.usual = wire;
        let all = self.all_conns();
        self.review(&all);
    }

    /// What the wire between two hosts is like, both ways.
    pub fn wire(&mut self, one: &str, other: &str, wire: Wire) {
        let (one, other) = (self.host(one), self.host(other));
        self.wires.set(one, other, wire);
        self.wires.set(other, one, wire);
        let conns = self.conns_of(one);
        self.review(&conns);
    }

    /// Cuts the wires between a host and all others, or heals them.
    pub fn isolate(&mut self, name: &str, cut: bool) {
        let id = self.host(name);
        self.tell(id, None, if cut { "isolated" } else { "rejoined" }, 0, 0);
        for other in (0..self.hosts.len()).filter(|other| *other != id) {
            for (from, to) in [(id, other), (other, id)] {
                let wire = Wire { cut, ..self.wires.between(from, to) };
                self.wires.set(from, to, wire);
            }
        }
        let conns = self.conns_of(id);
        self.review(&conns);
    }

    /// Moves a host to another address, as a laptop that changes networks.
    pub fn roam(&mut self, name: &str, addr: SocketAddr) {
        let id = self.host(name);
        self.addresses.remove(&self.hosts[id].addr);
        assert!(self.addresses.insert(addr, id).is_none(), "two hosts at {addr}");
        self.hosts[id].addr = addr;
        self.tell(id, None, "roams", 0, 0);
        self.move_links(id);
    }

    /// Sets a host's wall clock on (or back) by milliseconds; its monotonic clock does not notice.
    pub fn clock_jump(&mut self, name: &str, millis: i64) {
        let id = self.host(name);
        self.hosts[id].ahead += millis;
        self.tell(id, None, "clock jumps", 0, 0);
    }

    /// Takes the AES instructions from a host's processor.
    pub fn without_aes(&mut self, name: &str) {
        let id = self.host(name);
        self.hosts[id].aes = false;
    }

    /// Begins or ends recording what an onlooker sees.
    pub fn eyes(&mut self, open: bool) {
        self.eyes.open = open;
    }

    /// What was seen while the eyes were open.
    pub fn seen(&self) -> &Eyes {
        &self.eyes
    }

    // What programs on a host do.

    /// A program sends an IP packet into the host's TUN device.
    pub fn send(&mut self, name: &str, packet: &[u8]) {
        self.send_all(name, &[packet.to_vec()]);
    }

    /// Programs send several packets in one go.
    pub fn send_all(&mut self, name: &str, packets: &[Vec<u8>]) {
        let id = self.host(name);
        self.tun_in(id, packets);
    }

    /// The host's kernel leaves work to a TUN device with offload: it hands down a super-packet, or one without checksum.
    pub fn send_shaped(&mut self, name: &str, packet: &[u8], shape: Shape) {
        let id = self.host(name);
        let mut batch = Packets::new();
        self.story.hear(packet);
        batch.push(packet);
        batch.shape_last(shape);
        self.tell(id, None, "packets in", 1, 0);
        self.feed(id, Input::Packets(&mut batch));
    }

    /// How many packets came to the host's TUN device without their checksum; it has finished them.
    pub fn finished(&self, name: &str) -> usize {
        self.hosts[self.host(name)].finished
    }

    /// Takes the packets that were delivered to the host's TUN device.
    pub fn inbox(&mut self, name: &str) -> Vec<Vec<u8>> {
        self.inbox_at(name).into_iter().map(|(_, packet)| packet).collect()
    }

    /// The same, with when each was delivered.
    pub fn inbox_at(&mut self, name: &str) -> Vec<(Time, Vec<u8>)> {
        let id = self.host(name);
        core::mem::take(&mut self.hosts[id].inbox)
    }

    /// How many delivered packets wait in the inbox.
    pub fn delivered(&self, name: &str) -> usize {
        self.hosts[self.host(name)].inbox.len()
    }

    /// Whether the host's kernel sends echo requests and UDP packets back where they came from. Both also reach the
    /// inbox.
    pub fn echo(&mut self, name: &str, echoes: bool) {
        let id = self.host(name);
        self.hosts[id].echoes = echoes;
    }

    /// A program asks for a name; the world runs until the answer comes, or for [`DNS_PATIENCE`].
    pub fn ask(&mut self, name: &str, question: Question) -> Option<Answer> {
        self.ask_within(name, question, DNS_PATIENCE)
    }

    /// As [`ask`](World::ask), with the asker's own patience.
    pub fn ask_within(&mut self, name: &str, question: Question, patience: Duration) -> Option<Answer> {
        let ticket = self.begin_asking(name, question);
        self.await_answer(name, ticket, patience)
    }

    /// A program asks for a name and does not wait yet.
    pub fn begin_asking(&mut self, name: &str, question: Question) -> Ticket {
        let id = self.host(name);
        let ticket = self.hosts[id].ticket();
        self.tell(id, None, "asks for a name", 0, 0);
        self.hosts[id].asking.insert(ticket, self.now);
        self.feed(id, Input::Dns { ticket, question });
        ticket
    }

    /// Lets time pass until the answer to a question comes.
    pub fn await_answer(&mut self, name: &str, ticket: Ticket, patience: Duration) -> Option<Answer> {
        let id = self.host(name);
        self.run_until(|world| world.hosts[id].answers.contains_key(&ticket), patience);
        self.hosts[id].answers.remove(&ticket)
    }

    /// A machine's look at itself; empty when it is dead.
    pub fn report(&self, name: &str) -> Report {
        let id = self.host(name);
        self.hosts[id].machine.as_ref().map(|m| m.report(self.now_at(id))).unwrap_or_default()
    }

    /// The milestones a host's machines reported, in all its lives.
    pub fn events(&self, name: &str) -> &[(Time, Event)] {
        &self.hosts[self.host(name)].events
    }

    /// How many name questions and requests of others a machine has been told and has not answered yet.
    pub fn owes(&self, name: &str) -> usize {
        let host = &self.hosts[self.host(name)];
        host.asking.len() + host.asked.len()
    }

    /// The relay's own signed contact, once it has published one.
    pub fn own_contact(&self, name: &str) -> Option<Bytes> {
        self.hosts[self.host(name)].disk.own.clone()
    }

    /// The scores of relays that a host's machines have kept on its disk, by relay.
    pub fn kept_scores(&self, name: &str, relay: RelayId) -> u32 {
        let profiles = self.hosts[self.host(name)].disk.rest.profiles.as_ref();
        profiles.and_then(|bytes| Profile::decode(bytes).ok()).map_or(0, |profile| profile.score(&relay))
    }

    /// Where a host is.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.hosts[self.host(name)].addr
    }

    /// The key a host proves when dialled.
    pub fn key(&self, name: &str) -> Option<RelayId> {
        self.hosts[self.host(name)].key
    }

    /// Which host is at an address.
    pub fn who_is_at(&self, addr: SocketAddr) -> Option<&str> {
        self.addresses.get(&addr).map(|id| self.hosts[*id].name.as_str())
    }

    /// Which host proves a key.
    pub fn who_has(&self, key: RelayId) -> Option<&str> {
        self.hosts.iter().find(|host| host.key == Some(key)).map(|host| host.name.as_str())
    }

    /// All hosts' names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.names.keys().map(String::as_str).collect()
    }

    // Time.

    /// How long the world has existed.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How many things have happened: wakes, arrivals, steps of connections.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How many things are still to happen.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Requests by their kind (`wire::request`): how many, and how many bytes with their replies.
    pub fn asked(&self) -> [(u64, u64); 8] {
        self.asked
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(|_| false, time);
    }

    /// Lets time pass until the condition holds, at most `patience`; whether it holds.
    pub fn run_until(&mut self, mut holds: impl FnMut(&World) -> bool, patience: Duration) -> bool {
        let end = self.now + patience;
        loop {
            if holds(self) {
                return true;
            }
            match self.queue.next() {
                Some(at) if at <= end => self.step(),
                _ => break,
            }
        }
        self.now = end;
        assert!(self.tally.balances(), "datagrams vanished or came from nowhere: {:?}", self.tally);
        holds(self)
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        let Some((at, happening)) = self.queue.pop() else { return };
        self.now = at;
        self.steps += 1;
        match happening {
            Happening::Wake { host, alarm } => {
                if self.hosts[host].alarm.is_some_and(|(_, number)| number == alarm) {
                    self.hosts[host].alarm = None;
                    self.count_wake(host);
                    self.feed(host, Input::Wake);
                }
            }
            Happening::Arrive { host } => self.arrive(host),
            Happening::Packets { host, life, packets } => {
                if self.hosts[host].life == life {
                    self.tun_in(host, &packets);
                }
            }
            Happening::Moved { host, life, link, remote } => {
                if self.hosts[host].life == life && self.hosts[host].links.contains_key(&link) {
                    self.feed(host, Input::LinkMoved { link, remote });
                }
            }
            Happening::Quic(step) => self.quic_step(step),
        }
        self.beat();
    }

    fn schedule(&mut self, at: Time, happening: Happening) {
        self.queue.plan(at.max(self.now), happening);
    }

    /// What a host's clocks show.
    fn now_at(&self, id: usize) -> Now {
        let host = &self.hosts[id];
        let wall = (BEGINNING.millis() + self.now.nanos() / 1_000_000).saturating_add_signed(host.ahead);
        Now { mono: Time::from_nanos(self.now.nanos() + host.boot), wall: Wall::from_millis(wall) }
    }

    // The border.

    /// Tells a machine that something happened, and does what it wants done. A dead one hears nothing.
    fn feed(&mut self, id: usize, input: Input<'_>) {
        let now = self.now_at(id);
        let Some(mut machine) = self.hosts[id].machine.take() else { return };
        machine.handle(input, now, &mut |output| self.act(id, output));
        let wake = machine.next_wake();
        self.hosts[id].machine = Some(machine);
        self.set_alarm(id, wake.map(|(at, _)| at));
        self.after_step(id);
    }

    fn act(&mut self, id: usize, output: Output<'_>) {
        match output {
            Output::Dial { dial, peer, addrs, key } => self.dial(id, dial, peer, addrs, key),
            Output::Hangup { link } => self.hangup(id, link),
            Output::Request { link, ticket, body, patience } => self.request(id, link, ticket, body, patience),
            Output::Answer { ticket, body } => self.answer(id, ticket, body),
            Output::Transmit { to, segment, bytes } => self.transmit(id, to, segment, bytes),
            Output::Deliver(packets) => self.tun_out(id, packets),
            Output::Dns { ticket, answer } => {
                self.tell(id, None, "answers about a name", 0, 0);
                let asked = self.hosts[id].asking.remove(&ticket);
                self.must(asked.is_some(), id, "answers a name question twice, or one that nobody asked");
                self.hosts[id].answers.insert(ticket, answer);
            }
            Output::Save(save) => {
                self.tell(id, None, "saves", 0, 0);
                self.hosts[id].disk.keep(save);
            }
            Output::Event(event) => {
                let what = match event {
                    Event::Ready => "is ready",
                    Event::Published => "has published",
                    Event::RegistryExpired => "says that the registry has expired",
                    Event::RegistryRefused => "refuses a registry",
                    Event::ClockSkew(_) => "reports clock skew",
                };
                self.tell(id, None, what, 0, 0);
                self.hosts[id].events.push((self.now, event));
                self.milestones += 1;
            }
        }
    }

    /// Plans the machine's next wake, if it is not planned already.
    fn set_alarm(&mut self, id: usize, wake: Option<Time>) {
        let boot = self.hosts[id].boot;
        let at = wake.map(|at| Time::from_nanos(at.nanos().saturating_sub(boot)).max(self.now));
        if self.hosts[id].alarm.map(|(at, _)| at) == at {
            return;
        }
        let number = self.queue.number() + 1;
        self.hosts[id].alarm = at.map(|at| (at, number));
        if let Some(at) = at {
            self.schedule(at, Happening::Wake { host: id, alarm: number });
        }
    }

    /// Waking must lead somewhere: a machine that wants to be woken again and again at one instant hangs in life.
    fn count_wake(&mut self, id: usize) {
        let (since, wakes) = self.hosts[id].restless;
        self.hosts[id].restless = if since == self.now { (since, wakes + 1) } else { (self.now, 1) };
        self.must(wakes < RESTLESS || since != self.now, id, "wants to be woken for ever at one instant");
    }

    fn tun_in(&mut self, id: usize, packets: &[Vec<u8>]) {
        let mut batch = Packets::new();
        for packet in packets {
            self.story.hear(packet);
            batch.push(packet);
            if batch.is_full() {
                self.tell(id, None, "packets in", batch.len(), 0);
                self.feed(id, Input::Packets(&mut batch));
                batch.clear();
            }
        }
        if !batch.is_empty() {
            self.tell(id, None, "packets in", batch.len(), 0);
            self.feed(id, Input::Packets(&mut batch));
        }
    }

    fn tun_out(&mut self, id: usize, packets: &mut Packets) {
        self.tell(id, None, "packets out", packets.len(), 0);
        for index in (0..packets.len()).filter(|index| packets.shape(*index).partial).collect::<Vec<_>>() {
            let finished = complete(packets.packet(index)).is_ok();
            self.must(finished, id, "delivers a packet whose checksum cannot be finished");
            self.hosts[id].finished += 1;
        }
        let delivered: Vec<Vec<u8>> = packets.iter().map(<[u8]>::to_vec).collect();
        delivered.iter().for_each(|packet| self.story.hear(packet));
        if self.hosts[id].echoes {
            let echoes: Vec<Vec<u8>> = delivered.iter().filter_map(|packet| packet::echo(packet)).collect();
            if !echoes.is_empty() {
                let life = self.hosts[id].life;
                self.schedule(self.now + KERNEL, Happening::Packets { host: id, life, packets: echoes });
            }
        }
        let now = self.now;
        self.hosts[id].inbox.extend(delivered.into_iter().map(|packet| (now, packet)));
    }

    // The story.

    fn tell(&mut self, who: usize, whom: Option<usize>, what: &'static str, count: usize, size: usize) {
        self.story.tell(Line { at: self.now, who, whom, what, count, size });
    }

    /// A law of the border that no machine may break.
    fn must(&self, holds: bool, id: usize, otherwise: &str) {
        assert!(holds, "{} {otherwise}", self.hosts[id].name);
    }

    /// A digest of everything sent and done: the same for the same seed.
    pub fn digest(&self) -> u64 {
        self.story.digest()
    }

    fn by_index(&self) -> Vec<&str> {
        self.hosts.iter().map(|host| host.name.as_str()).collect()
    }

    fn host(&self, name: &str) -> usize {
        match self.names.get(name) {
            Some(id) => *id,
            None => panic!("no host is called {name}; there are {:?}", self.names()),
        }
    }

    /// 32 bytes of the world's chance.
    fn draw(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}
