//! Floor 5: the machines wired together. A [`Node`] is told what happened ([`io::Input`]), hands it to the machine it
//! concerns, carries what the machines ask of each other, and gives out what is to be done ([`io::Output`]). It decides
//! nothing itself. Neighbours: `client` and `relay` hold the machines of the two trades; above are only the driver and
//! the simulated world.

mod census;
pub mod client;
pub mod config;
pub mod io;
pub mod relay;
pub mod report;
pub mod worker;

pub use config::{Config, Trade};

use crate::crypto::random::Chance;
use crate::link::{self, Links};
use crate::netdb::profile::Profile;
use crate::netdb::{Learned, Netdb};
use crate::time::{Now, Time};
use crate::wire::batch::Packets;
use crate::wire::id::RelayId;
use crate::wire::registry::Registry;
use bytes::Bytes;
use client::Client;
use io::{Event, Input, LinkKey, LinkUp, NoReply, Output, Run, Save, Wake};
use relay::Relay;
use std::collections::VecDeque;
use zeroize::Zeroizing;

/// A router, client or relay.
pub struct Node {
    core: Core,
    trade: Machines,
    last: Now,
}

enum Machines {
    Client(Box<Client>),
    Relay(Box<Relay>),
}

/// What both trades have.
pub(crate) struct Core {
    pub links: Links,
    pub netdb: Netdb,
    pub chance: Chance,
    pub out: Out,
    /// Datagrams that looked like cells.
    pub arrived: u64,
    /// Datagrams dropped before any path knew them.
    pub dropped: u64,
    /// Requests of others.
    pub asked: u64,
    /// Inputs of strangers that were not what they should be.
    pub malformed: u64,
    /// Whether it was said that the registry has expired.
    expired: bool,
}

/// Outputs that wait to be taken.
#[derive(Default)]
pub(crate) struct Out {
    queue: VecDeque<Output<'static>>,
    /// Packets for the TUN device.
    pub packets: Packets,
    /// Packets that could not be given their addresses.
    pub refused: u64,
    /// Requests of others that were answered.
    pub answered: u64,
    lent: Option<(link::LinkId, crate::wire::cell::Size, link::stage::Stage)>,
    delivering: bool,
}

impl Out {
    /// Something to do.
    pub fn push(&mut self, output: Output<'static>) {
        self.answered += u64::from(matches!(output, Output::Answer { .. }));
        self.queue.push_back(output);
    }

    /// A milestone.
    pub fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }
}

impl Core {
    /// Forgets what no longer counts, and has what is left kept.
    pub fn tidy(&mut self, now: Now) {
        for id in self.netdb.expire(now) {
            self.out.push(Output::Save(Save::Contact { id, signed: None }));
        }
        let expired = now.wall >= self.netdb.registry().until;
        if expired && !self.expired {
            self.out.event(Event::RegistryExpired);
        }
        self.expired = expired;
        if let Some(profiles) = self.netdb.profile.changed() {
            self.out.push(Output::Save(Save::Profiles(profiles.into())));
        }
    }

    /// Verifies and keeps a contact, and has it saved when it is new.
    pub fn learn(&mut self, signed: &Bytes, now: Now) -> Learned {
        let learned = self.netdb.learn(signed, now.wall);
        match learned {
            Learned::New(id) => {
                self.out.push(Output::Save(Save::Contact { id, signed: Some(signed.clone()) }));
            }
            Learned::Refused => self.malformed += 1,
            Learned::Known => {}
        }
        learned
    }
}

impl Node {
    /// A node with its keys, its registry and what it saved; `seed` is 32 secret random bytes of the operating system.
    pub fn new(config: Config, seed: Zeroizing<[u8; 32]>, now: Now) -> Node {
        let mut chance = Chance::new(seed);
        let Config { netid, private, registry, bootstraps, saved, aes, trade } = config;
        let kept = saved.registry.as_ref() == Some(&registry.signed);
        let netdb = Netdb::new(netid, private, registry);
        let mut core = Core {
            links: Links::default(),
            netdb,
            chance: chance.fork("node"),
            out: Out::default(),
            arrived: 0,
            dropped: 0,
            asked: 0,
            malformed: 0,
            expired: false,
        };
        if !kept {
            core.out.push(Output::Save(Save::Registry(core.netdb.registry().signed.clone())));
        }
        for contact in saved.contacts.iter() {
            core.netdb.learn(contact, now.wall);
        }
        if let Some(profile) = saved.profiles.as_ref().and_then(|bytes| Profile::decode(bytes).ok()) {
            core.netdb.profile = profile;
            core.netdb.forget_unlisted();
        }
        for contact in &bootstraps {
            core.learn(contact, now);
        }
        let trade = match trade {
            Trade::Client(config) => Machines::Client(Box::new(Client::new(
                *config,
                saved.guards.as_ref(),
                aes,
                &mut core,
                &mut chance,
                now,
            ))),
            Trade::Relay(config) => {
                Machines::Relay(Box::new(Relay::new(*config, &saved, aes, &mut core, &mut chance, now)))
            }
        };
        Node { core, trade, last: now }
    }

    /// Takes in what happened and gives out what is to be done.
    pub fn handle(&mut self, input: Input<'_>, now: Now) -> Outputs<'_> {
        self.last = now;
        self.take(input, now);
        self.pump(now);
        self.core.out.delivering = false;
        Outputs { node: self }
    }

    fn take(&mut self, input: Input<'_>, now: Now) {
        let core = &mut self.core;
        match input {
            Input::LinkUp(up) => self.link_up(&up, now),
            Input::LinkDown { link } => self.link_down(link, now),
            Input::LinkMoved { link, remote } => core.links.moved(link, remote),
            Input::DialFailed { dial } => {
                if let Some(peer) = core.links.dial_failed(dial, now.mono) {
                    core.netdb.profile.failed(peer);
                }
            }
            Input::Request { link, ticket, body } => {
                core.asked += 1;
                match &mut self.trade {
                    // A client has nothing to give; whoever asks it is not a neighbour we chose.
                    Machines::Client(_) => core.out.push(Output::Answer { ticket, body: None }),
                    Machines::Relay(relay) => relay.request(link, ticket, &body, core, now),
                }
            }
            Input::Reply { ticket, result } => self.replied(ticket, result, now),
            Input::Cells(runs) => self.cells(runs, now),
            Input::Control { hop, body } => {
                if let Machines::Relay(relay) = &mut self.trade {
                    relay.control(hop, &body, core, now);
                }
            }
            Input::Packets(packets) => {
                if let Machines::Client(client) = &mut self.trade {
                    client.packets(packets, core, now);
                }
            }
            Input::Dns { ticket, question } => match &mut self.trade {
                Machines::Client(client) => client.dns(ticket, question, core, now),
                Machines::Relay(relay) => relay.dns(ticket, &question, core),
            },
            Input::Registry(registry) => self.registry(registry, now),
            Input::Entropy(fresh) => {
                core.chance.reseed(&fresh);
                match &mut self.trade {
                    Machines::Client(client) => client.reseed(&mut core.chance),
                    Machines::Relay(relay) => relay.reseed(&mut core.chance),
                }
            }
            Input::Wake => {
                core.links.wake(now.mono);
                match &mut self.trade {
                    Machines::Client(client) => client.wake(core, now),
                    Machines::Relay(relay) => relay.wake(core, now),
                }
            }
            Input::Stop => {
                core.tidy(now);
                if let Machines::Client(client) = &mut self.trade {
                    client.stop(core, now);
                }
            }
        }
    }

    /// Who is a relay has changed: what is none any more is let go, and what became one is treated as one.
    fn registry(&mut self, registry: Registry, now: Now) {
        let core = &mut self.core;
        let signed = registry.signed.clone();
        let Some(forgotten) = core.netdb.replace(registry) else {
            if signed != core.netdb.registry().signed {
                core.out.event(Event::RegistryRefused);
            }
            return;
        };
        core.out.push(Output::Save(Save::Registry(signed)));
        for id in forgotten {
            core.out.push(Output::Save(Save::Contact { id, signed: None }));
        }
        let registry = core.netdb.registry();
        for link in core.links.relist(|peer| registry.lists(peer)) {
            core.links.hang_up(link);
            match &mut self.trade {
                Machines::Client(client) => client.link_down(link, core, now),
                Machines::Relay(relay) => relay.link_down(link, core, now),
            }
        }
        match &mut self.trade {
            Machines::Client(client) => client.relisted(core, now),
            Machines::Relay(relay) => relay.relisted(now),
        }
    }

    fn link_up(&mut self, up: &LinkUp, now: Now) {
        let core = &mut self.core;
        let listed = core.netdb.registry().lists(&up.peer);
        if core.links.up(up, listed, now.mono) {
            match &mut self.trade {
                Machines::Client(client) => client.link_up(up, core, now),
                Machines::Relay(relay) => relay.link_up(up, listed, core, now),
            }
        }
    }

    fn link_down(&mut self, link: link::LinkId, now: Now) {
        let core = &mut self.core;
        if core.links.down(link).is_some() {
            match &mut self.trade {
                Machines::Client(client) => client.link_down(link, core, now),
                Machines::Relay(relay) => relay.link_down(link, core, now),
            }
        }
    }

    /// A request of ours ended. One whose link was lost is put once more, where that makes sense.
    fn replied(&mut self, ticket: io::Ticket, result: Result<Bytes, NoReply>, now: Now) {
        if result == Err(NoReply::LinkLost) {
            // The link's own end may be told only after this one.
            if let Some(link) = self.core.links.link_of(ticket) {
                self.link_down(link, now);
            }
            if self.core.links.again(ticket, now.mono) {
                return;
            }
        }
        self.reply(ticket, result, now);
    }

    fn reply(&mut self, ticket: io::Ticket, result: Result<Bytes, NoReply>, now: Now) {
        match &mut self.trade {
            Machines::Client(client) => client.reply(ticket, result.ok(), &mut self.core, now),
            Machines::Relay(relay) => relay.reply(ticket, result.ok(), &mut self.core, now),
        }
    }

    fn cells(&mut self, runs: &mut [Run<'_>], now: Now) {
        let core = &mut self.core;
        for run in runs {
            for datagram in run.bytes.chunks_mut(run.segment.max(1)) {
                core.arrived += 1;
                let Ok((link, path, size, onion)) = core.links.open(datagram, now.mono) else {
                    core.dropped += 1;
                    continue;
                };
                match &mut self.trade {
                    Machines::Client(client) => client.cell(link, path, size, onion, core, now),
                    Machines::Relay(relay) => relay.cell(link, path, size, onion, core, now),
                }
            }
        }
        if let Machines::Client(client) = &mut self.trade {
            client.flush(core, now);
        }
    }

    /// Carries what the machines ask of each other until nobody asks anything.
    fn pump(&mut self, now: Now) {
        loop {
            let mut busy = false;
            for action in self.core.links.actions() {
                busy = true;
                self.link_action(action, now);
            }
            busy |= match &mut self.trade {
                Machines::Client(client) => client.pump(&mut self.core, now),
                Machines::Relay(relay) => relay.pump(&mut self.core, now),
            };
            if !busy {
                break;
            }
        }
    }

    fn link_action(&mut self, action: link::Action, now: Now) {
        let key = match &self.trade {
            Machines::Client(_) => LinkKey::Throwaway,
            Machines::Relay(_) => LinkKey::Identity,
        };
        let out = &mut self.core.out;
        match action {
            link::Action::Dial { dial, peer, addrs } => out.push(Output::Dial { dial, peer, addrs, key }),
            link::Action::Hangup(link) => out.push(Output::Hangup { link }),
            link::Action::Request { link, ticket, body, patience } => {
                out.push(Output::Request { link, ticket, body, patience });
            }
            link::Action::Unanswered(ticket) => self.reply(ticket, Err(NoReply::LinkLost), now),
        }
    }

    /// A relay's workers, as many as are asked for and there are sub-channels; from then on cells are theirs alone. None for
    /// a client.
    pub fn workers(&mut self, count: usize) -> Vec<worker::Worker> {
        match &mut self.trade {
            Machines::Client(_) => Vec::new(),
            Machines::Relay(relay) => relay.workers(count, &mut self.core),
        }
    }

    /// When to wake the node next, and why.
    pub fn next_wake(&self) -> Option<(Time, Wake)> {
        let links = self.core.links.next_wake().map(|at| (at, Wake::Link));
        let trade = match &self.trade {
            Machines::Client(client) => client.next_wake(self.last.mono),
            Machines::Relay(relay) => relay.next_wake(),
        };
        links.into_iter().chain(trade).min_by_key(|(at, _)| *at)
    }

    /// Whether a datagram carries the id of one of our channels; every other is QUIC's.
    pub fn is_cell(&self, datagram: &[u8]) -> bool {
        self.core.links.channel_of(datagram).is_some()
    }

    /// A look at itself.
    pub fn report(&self, now: Now) -> report::Report {
        let mut report = report::Report {
            registered: self.core.netdb.registry().len(),
            contacts: self.core.netdb.len(),
            links: self.core.links.iter().map(|(_, link)| report::LinkReport::of(link)).collect(),
            ..report::Report::default()
        };
        match &self.trade {
            Machines::Client(client) => client.report(&mut report, now),
            Machines::Relay(relay) => relay.report(&mut report),
        }
        report.counters.push(("packets undeliverable", self.core.out.refused));
        report.counters.push(("datagrams dropped", self.core.dropped));
        report.counters.push(("cells not sent", self.core.links.dropped));
        report.counters.push(("malformed", self.core.malformed));
        report
    }

    /// A relay's own id, or a client's address, as raw key.
    pub fn key(&self) -> RelayId {
        match &self.trade {
            Machines::Client(client) => RelayId(client.address()),
            Machines::Relay(relay) => relay.id(),
        }
    }
}

/// What a node wants done, in order. It holds the node until it is drained; what is left undrained comes with the next.
pub struct Outputs<'a> {
    node: &'a mut Node,
}

impl Outputs<'_> {
    /// The next thing to do.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Output<'_>> {
        let Core { links, out, .. } = &mut self.node.core;
        if let Some((link, size, bytes)) = out.lent.take() {
            links.give_back(link, size, bytes);
        }
        if let Some(output) = out.queue.pop_front() {
            return Some(output);
        }
        if let Some((to, size, link, bytes)) = links.take_run() {
            let (_, _, bytes) = out.lent.insert((link, size, bytes));
            return Some(Output::Transmit { to, segment: size.datagram(), bytes });
        }
        if out.delivering {
            out.packets.clear();
            out.delivering = false;
        }
        if out.packets.is_empty() {
            return None;
        }
        out.delivering = true;
        Some(Output::Deliver(&mut out.packets))
    }
}
