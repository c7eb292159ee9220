//! Nodes that do harm, each in one way, otherwise real: dressed over an honest node, they hold real links and keys. The
//! laws of the world are not asked of them, but of everybody they meet. Neighbours: `world::machine` houses them;
//! `tests/hostile` and `tests/seeds` let them loose.

use crate::world::Machine;
use crate::world::town::NETID;
use bytes::Bytes;
use core::time::Duration;
use lokinet_core::crypto::random::Chance;
use lokinet_core::node::Node;
use lokinet_core::node::io::{Input, LinkId, Output, REPLY_MAX, REQUEST_MAX, Save, Ticket, Wake};
use lokinet_core::node::report::Report;
use lokinet_core::path::build::Building;
use lokinet_core::time::{Now, Time};
use lokinet_core::wire::build::Purpose;
use lokinet_core::wire::contact::{Contact, NetId};
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::request::Request;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// How a villain does harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vice {
    /// Lets half of the cells and half of the requests it should answer fall.
    Drops,
    /// Lets everything wait for up to a second.
    Delays,
    /// Bends a bit in a quarter of its replies and cells.
    Lies,
    /// Gives one neighbour the reply that was meant for another.
    AnswersForOthers,
    /// Sends the longest requests, replies and datagrams there are, full of noise.
    Oversize,
    /// Begins so many well-formed builds a second on each of its links, and keeps every path.
    Floods(u32),
    /// Begins builds that come back to relays they have passed.
    Loops,
    /// Asks everything that can be asked, as often as it can.
    Asks,
    /// Sends every build, request and cell three times.
    Replays,
}

/// All vices, for those who want to meet each.
pub const ALL: [Vice; 9] = [
    Vice::Drops,
    Vice::Delays,
    Vice::Lies,
    Vice::AnswersForOthers,
    Vice::Oversize,
    Vice::Floods(40),
    Vice::Loops,
    Vice::Asks,
    Vice::Replays,
];

/// How often the busy ones act.
const BUSY: Duration = Duration::from_millis(100);
/// Their tickets begin here, above any honest one.
const TICKETS: u64 = 1 << 40;
/// The longest datagram a wire takes, in bytes.
const DATAGRAM: usize = 1472;

/// An output that can be kept.
enum Kept {
    Answer(Ticket, Option<Bytes>),
    Transmit(SocketAddr, usize, Vec<u8>),
    Request(LinkId, Ticket, Bytes, Duration),
}

impl Kept {
    fn give(self, act: &mut dyn FnMut(Output<'_>)) {
        match self {
            Kept::Answer(ticket, body) => act(Output::Answer { ticket, body }),
            Kept::Transmit(to, segment, bytes) => act(Output::Transmit { to, segment, bytes: &bytes }),
            Kept::Request(link, ticket, body, patience) => act(Output::Request { link, ticket, body, patience }),
        }
    }
}

/// A villain.
pub struct Villain {
    honest: Node,
    vice: Vice,
    rng: ChaCha8Rng,
    links: BTreeMap<LinkId, (RelayId, SocketAddr)>,
    contacts: BTreeMap<RelayId, Arc<Contact>>,
    held: VecDeque<(Time, Kept)>,
    replies: VecDeque<Bytes>,
    next: Option<Time>,
    tickets: u64,
}

impl Villain {
    /// Dresses an honest node up.
    pub fn new(honest: Node, vice: Vice, seed: u64) -> Villain {
        Villain {
            honest,
            vice,
            rng: ChaCha8Rng::seed_from_u64(seed),
            links: BTreeMap::new(),
            contacts: BTreeMap::new(),
            held: VecDeque::new(),
            replies: VecDeque::new(),
            next: None,
            tickets: TICKETS,
        }
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn bend(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bent = bytes.to_vec();
        if !bent.is_empty() {
            let place = self.rng.next_u32() as usize % bent.len();
            bent[place] ^= 1 << (self.rng.next_u32() % 8);
        }
        bent
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.next_u32().is_multiple_of(n)
    }

    /// What the honest node wants done, as the villain does it.
    fn pervert(&mut self, output: Output<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        if let Output::Save(Save::Contact { signed: Some(signed), .. }) = &output {
            self.know(signed, now);
        }
        match (self.vice, output) {
            (Vice::Drops, Output::Transmit { .. }) if self.one_in(2) => {}
            (Vice::Drops, Output::Answer { ticket, .. }) if self.one_in(2) => {
                act(Output::Answer { ticket, body: None })
            }
            (Vice::Delays, Output::Transmit { to, segment, bytes }) => {
                self.hold(Kept::Transmit(to, segment, bytes.to_vec()), now);
            }
            (Vice::Delays, Output::Answer { ticket, body }) => self.hold(Kept::Answer(ticket, body), now),
            (Vice::Lies, Output::Transmit { to, segment, bytes }) if self.one_in(4) => {
                let bent = self.bend(bytes);
                act(Output::Transmit { to, segment, bytes: &bent });
            }
            (Vice::Lies, Output::Answer { ticket, body: Some(body) }) if self.one_in(4) => {
                let bent = self.bend(&body).into();
                act(Output::Answer { ticket, body: Some(bent) });
            }
            (Vice::AnswersForOthers, Output::Answer { ticket, body: Some(body) }) => {
                self.replies.push_back(body.clone());
                let other = if self.replies.len() > 4 { self.replies.pop_front() } else { None };
                act(Output::Answer { ticket, body: other.or(Some(body)) });
            }
            (Vice::Oversize, Output::Answer { ticket, body: Some(body) }) => {
                let body = if self.one_in(4) { self.noise(REPLY_MAX).into() } else { body };
                act(Output::Answer { ticket, body: Some(body) });
            }
            (Vice::Replays, Output::Transmit { to, segment, bytes }) => {
                (0..3).for_each(|_| act(Output::Transmit { to, segment, bytes }));
            }
            (Vice::Replays, Output::Request { link, ticket, body, patience }) => {
                act(Output::Request { link, ticket, body: body.clone(), patience });
                for _ in 0..2 {
                    self.tickets += 1;
                    act(Output::Request { link, ticket: Ticket(self.tickets), body: body.clone(), patience });
                }
            }
            (_, output) => act(output),
        }
    }

    fn hold(&mut self, kept: Kept, now: Now) {
        let wait = Duration::from_millis(u64::from(self.rng.next_u32() % 1000));
        self.held.push_back((now.mono + wait, kept));
    }

    /// It was verified by the honest node a moment ago; only its parts are wanted.
    fn know(&mut self, signed: &Bytes, now: Now) {
        if let Some(contact) = NetId::new(NETID).and_then(|id| Contact::verify(signed.clone(), id, now.wall).ok()) {
            self.contacts.insert(contact.id, Arc::new(contact));
        }
    }

    /// What a villain does of its own accord.
    fn mischief(&mut self, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        let links: Vec<(LinkId, RelayId, SocketAddr)> = self.links.iter().map(|(l, (p, a))| (*l, *p, *a)).collect();
        for (link, peer, addr) in links {
            match self.vice {
                Vice::Floods(rate) => {
                    for _ in 0..rate.div_ceil(10) {
                        self.build(link, peer, false, now, act);
                    }
                }
                Vice::Loops => self.build(link, peer, true, now, act),
                Vice::Asks => {
                    for kind in [2, 4, 5, 6, 7, 3] {
                        let body = [&[kind][..], &self.noise(32)].concat();
                        (0..8).for_each(|_| self.ask(link, body.clone().into(), act));
                    }
                }
                Vice::Oversize => {
                    let mut body = self.noise(REQUEST_MAX);
                    body[0] = 1 + (self.rng.next_u32() % 6) as u8;
                    self.ask(link, body.into(), act);
                    let bytes = self.noise(DATAGRAM);
                    act(Output::Transmit { to: addr, segment: DATAGRAM, bytes: &bytes });
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, link: LinkId, body: Bytes, act: &mut dyn FnMut(Output<'_>)) {
        self.tickets += 1;
        act(Output::Request { link, ticket: Ticket(self.tickets), body, patience: Duration::from_secs(5) });
    }

    /// A build that its first hop cannot tell from an honest one.
    fn build(&mut self, link: LinkId, first: RelayId, round: bool, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        let Some(first) = self.contacts.get(&first).cloned() else { return };
        let others: Vec<Arc<Contact>> = self.contacts.values().filter(|c| c.id != first.id).cloned().collect();
        if others.len() < 2 {
            return;
        }
        let at = self.rng.next_u64() as usize % others.len();
        let (one, two) = (others[at].clone(), others[(at + 1) % others.len()].clone());
        let hops = match (round, self.one_in(2)) {
            (false, _) => vec![first, one, two],
            (true, false) => vec![first.clone(), one.clone(), first, one],
            (true, true) => vec![first.clone(), one, two, first],
        };
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let lifetime = Duration::from_secs(3600);
        let begun = Building::begin(hops, Purpose::General, None, lifetime, now, &mut Chance::new(seed));
        if let Some((_, body)) = begun {
            debug_assert!(matches!(Request::decode(&body), Ok(Request::Build(_))));
            self.ask(link, body, act);
        }
    }
}

impl Machine for Villain {
    fn handle(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        let mut woken = false;
        match &input {
            Input::LinkUp(up) => drop(self.links.insert(up.link, (up.peer, up.remote))),
            Input::LinkDown { link } => drop(self.links.remove(link)),
            Input::Reply { ticket, .. } if ticket.0 > TICKETS => return,
            Input::Wake => woken = self.honest.next_wake().is_some_and(|(at, _)| at <= now.mono),
            _ => {}
        }
        if woken || !matches!(input, Input::Wake) {
            // The honest node lends what it wants done: it is kept, so that the villain may think about it.
            let mut wanted: Vec<Kept> = Vec::new();
            let mut rest: Vec<Output<'static>> = Vec::new();
            let mut outputs = self.honest.handle(input, now);
            while let Some(output) = outputs.next() {
                match output {
                    Output::Transmit { to, segment, bytes } => wanted.push(Kept::Transmit(to, segment, bytes.to_vec())),
                    Output::Answer { ticket, body } => wanted.push(Kept::Answer(ticket, body)),
                    Output::Request { link, ticket, body, patience } => {
                        wanted.push(Kept::Request(link, ticket, body, patience))
                    }
                    Output::Hangup { link } => rest.push(Output::Hangup { link }),
                    Output::Dial { dial, peer, addrs, key } => rest.push(Output::Dial { dial, peer, addrs, key }),
                    Output::Dns { ticket, answer } => rest.push(Output::Dns { ticket, answer }),
                    Output::Save(save) => rest.push(Output::Save(save)),
                    Output::Event(event) => rest.push(Output::Event(event)),
                    Output::Deliver(packets) => act(Output::Deliver(packets)),
                }
            }
            for kept in wanted {
                kept.give(&mut |output| self.pervert(output, now, act));
            }
            for output in rest {
                if let Output::Hangup { link } = &output {
                    self.links.remove(link);
                }
                self.pervert(output, now, act);
            }
        }
        let due = |(at, _): &(Time, Kept)| *at <= now.mono;
        while let Some(place) = self.held.iter().position(due) {
            if let Some((_, kept)) = self.held.remove(place) {
                kept.give(act);
            }
        }
        if self.next.is_none_or(|at| at <= now.mono) {
            self.next = Some(now.mono + BUSY);
            self.mischief(now, act);
        }
    }

    fn next_wake(&self) -> Option<(Time, Wake)> {
        let honest = self.honest.next_wake();
        let held = self.held.iter().map(|(at, _)| *at).min().map(|at| (at, Wake::Link));
        let busy = self.next.map(|at| (at, Wake::Link));
        [honest, held, busy].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn is_cell(&self, datagram: &[u8]) -> bool {
        self.honest.is_cell(datagram)
    }

    fn report(&self, now: Now) -> Report {
        self.honest.report(now)
    }
}
