//! The machine: one storage node, told what happened and what time it is, answering with what to do. Neighbours: `rpc`,
//! `push`, `transfer` and `onion` (what it wires together), `serve` (which does what it says with real sockets).
//!
//! [`Node::handle`] takes in any number of inputs, [`Node::commit`] puts what they changed on disk and gives out what is
//! to be done: nothing is said before it is kept. `calls` holds the calls that wait for others, `questions` what
//! others were asked; `fan_out` asks the swarm's other members, `transfer` tells them what they missed, `push` tells
//! subscribers, `onion` carries onions.

mod calls;
mod fan_out;
pub mod io;
mod onion;
mod push;
mod questions;
mod room;
mod transfer;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::account::Network;
use crate::bt;
use crate::onion::Onion;
use crate::push::Subscriptions;
use crate::rpc::limit::{self, Limiter};
use crate::rpc::{Call, Desk, Reply, Said, info};
use crate::store::{Store, Trouble};
use crate::swarm::Swarms;
use crate::transfer::Transfer;
use crate::value::{Form, Value};
use calls::{CallId, Calls, Progress, Then, Whole};
use fan_out::FanOut;
use io::{AskError, Body, Input, NodeKey, Now, Origin, Output, Ticket};
use onion::Back;
use questions::{Questions, Why};
use room::{Place, Room, What, Who};

/// How often what has expired is swept away.
const SWEEP: Duration = Duration::from_secs(10);

/// How soon a sweep goes on that has not come to its end.
const SWEEP_ON: Duration = Duration::from_millis(100);

/// Bytes of an answer that are as much work as a call.
const ANSWER: usize = 256 << 10;

/// Bytes of answers after which they should be given out.
const SAID_MAX: usize = 32 << 20;

/// How long the store must work before it is said that it does.
const TROUBLE: Duration = Duration::from_secs(60);

/// How long one call takes to come back into the bucket of a client, and of a node.
const CLIENT_PERIOD: Duration = Duration::from_micros(3333);
/// See [`CLIENT_PERIOD`].
const NODE_PERIOD: Duration = Duration::from_micros(1666);

const TOO_MANY: &str = "Too many requests, try again later";

/// What a node is given at its start.
pub struct Config {
    /// Its Ed25519 key: its name among nodes, and what it signs receipts with.
    pub key: SigningKey,
    /// Whose accounts it keeps.
    pub network: Network,
    /// Fresh from the system's randomness: what nonces are made of.
    pub seed: Zeroizing<[u8; 32]>,
}

/// A storage node.
pub struct Node {
    key: SigningKey,
    /// The same key for onions: its X25519 form.
    secret: StaticSecret,
    network: Network,
    store: Store,
    swarms: Swarms,
    clients: Limiter<Ipv6Addr>,
    nodes: Limiter<NodeKey>,
    room: Room,
    calls: Calls,
    questions: Questions,
    fan_out: FanOut,
    transfer: Transfer,
    subscriptions: Subscriptions,
    chance: ChaCha20Rng,
    /// Calls begun since the last commit: what they did is lost if it fails.
    begun: BTreeSet<CallId>,
    out: Vec<Output>,
    /// Bytes of answers among them.
    said: usize,
    sweep_at: Duration,
    last: Duration,
    trouble: Option<(Trouble, Duration)>,
}

impl Node {
    /// A node with its key and its store; it keeps nothing before it has seen a list of nodes.
    pub fn new(config: Config, store: Store, now: Now) -> Node {
        let Config { key, network, seed } = config;
        let swarms = Swarms::new(NodeKey(key.verifying_key().to_bytes()));
        Node {
            secret: StaticSecret::from(key.to_scalar_bytes()),
            key,
            network,
            store,
            swarms,
            clients: Limiter::new(CLIENT_PERIOD),
            nodes: Limiter::new(NODE_PERIOD),
            room: Room::default(),
            calls: Calls::default(),
            questions: Questions::default(),
            fan_out: FanOut::default(),
            transfer: Transfer::default(),
            subscriptions: Subscriptions::default(),
            chance: ChaCha20Rng::from_seed(*seed),
            begun: BTreeSet::new(),
            out: Vec::new(),
            said: 0,
            sweep_at: now.mono,
            last: now.mono,
            trouble: None,
        }
    }

    /// Takes in what happened. What is to be done about it is given out by [`Node::commit`].
    pub fn handle(&mut self, input: Input, now: Now) {
        self.last = now.mono;
        match input {
            Input::Call { ticket, origin: Origin::Peer(peer), method, body } => {
                self.peer(ticket, peer, &method, &body, now);
            }
            Input::Call { ticket, origin, method, body } => self.client(ticket, origin, &method, &body, now),
            Input::Reply { ticket, reply } => self.replied(ticket, reply, now),
            Input::Nodes(list) => self.listed(&list, now),
            Input::Posted { ticket, reply } => {
                if let Some(Why::Server(back, room)) = self.questions.take(ticket) {
                    self.server_back(back, room, reply);
                }
            }
            Input::Closed(conn) => self.subscriptions.closed(conn),
            Input::Wake => {}
        }
        self.pass(now);
    }

    /// Puts on disk what was done since the last time, and gives out what is to be done; and what the operator has to know
    /// of the store, for a minute after it was last so. If the disk fails, every answer says so, nobody is asked and
    /// nobody is told.
    pub fn commit(&mut self) -> (Vec<Output>, Result<(), Trouble>) {
        let begun = std::mem::take(&mut self.begun);
        if let Err(error) = self.store.commit() {
            let text = format!("Internal Server Error. {error}; nothing was done, try another node");
            // What needs no disk goes on: onions that pass.
            self.out.retain_mut(|output| match output {
                Output::Answer { status, body, .. } => {
                    (*status, *body) = (500, Body::Text(text.clone()));
                    true
                }
                Output::Ask { method, .. } => *method == "onion_request",
                Output::Post { .. } | Output::Peers(_) => true,
                Output::Push { .. } => false,
            });
            for call in begun {
                if let Some(then) = self.calls.drop_whole(call) {
                    self.settle_now(then, Reply::text(500, text.clone()));
                }
            }
        }
        self.said = 0;
        (std::mem::take(&mut self.out), self.trouble())
    }

    fn trouble(&mut self) -> Result<(), Trouble> {
        if let Some(trouble) = self.store.trouble() {
            self.trouble = Some((trouble, self.last + TROUBLE));
        }
        let lasting = self.trouble.take().filter(|(_, until)| *until > self.last);
        self.trouble = lasting.clone();
        lasting.map_or(Ok(()), |(trouble, _)| Err(trouble))
    }

    /// Whether so much is to be said that it should be, before anything else is taken in.
    pub fn is_full(&self) -> bool {
        self.said >= SAID_MAX
    }

    /// When to be woken, on the monotonic clock, if nothing happens before.
    pub fn next_wake(&self) -> Option<Duration> {
        let wakes = [self.questions.next_deadline(), self.transfer.next_wake(), self.subscriptions.next_wake()];
        wakes.into_iter().flatten().chain([self.sweep_at]).min()
    }

    /// Who keeps what, as far as this node knows.
    pub fn swarms(&self) -> &Swarms {
        &self.swarms
    }

    /// What it keeps.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Lets time pass.
    fn pass(&mut self, now: Now) {
        while let Some(ticket) = self.questions.overdue(now.mono) {
            self.replied(ticket, Err(AskError::Timeout), now);
        }
        self.tell_others(now);
        self.subscriptions.pass(now.mono);
        if now.mono >= self.sweep_at {
            // A store that cannot sweep cannot store either, and says so to whom it matters.
            let more = self.store.sweep(now.wall).unwrap_or(false);
            self.sweep_at = now.mono + if more { SWEEP_ON } else { SWEEP };
        }
    }

    /// Somebody answered a question, or did not; who was given up already is not heard any more.
    fn replied(&mut self, ticket: Ticket, reply: Result<Bytes, AskError>, now: Now) {
        match self.questions.take(ticket) {
            None => {}
            Some(Why::Member(call, peer)) => self.member_replied(call, peer, reply, now),
            Some(Why::Onion(back, peer, room)) => self.onion_back(back, peer, room, reply),
            Some(Why::Server(back, room)) => self.server_back(back, room, reply.map(|body| (200, body))),
            Some(Why::Told(peer, number)) => self.told((peer, number), reply, now),
        }
    }

    /// A client's call.
    fn client(&mut self, ticket: Ticket, origin: Origin, method: &str, body: &Bytes, now: Now) {
        // What comes through the onion was limited where it came in.
        let (limited, place) = match origin {
            Origin::Https(ip) | Origin::Quic(ip, _) => {
                let place = limit::place(ip);
                (!self.clients.admits(place, now.mono), place)
            }
            Origin::Onion | Origin::Peer(_) => (false, Ipv6Addr::UNSPECIFIED),
        };
        if limited {
            return self.answer(ticket, Form::Json, Reply::text(429, TOO_MANY));
        }
        match (method, origin) {
            ("monitor", Origin::Quic(ip, conn)) => self.monitor(ticket, (ip, conn), body, now),
            ("snode_ping", _) => self.answer(ticket, Form::Json, pong()),
            ("onion_req", _) => self.onion(Back::Client(ticket), Who::Client(place), Onion::from_client(body), now),
            _ => {
                let form = form_of(body);
                match self.read(method, form, body) {
                    Ok(call) => match self.room.admit(Who::Client(place), What::Call, body.len()) {
                        Some(room) => {
                            self.charge(Who::Client(place), &call);
                            self.begin(call, Then::Answer { ticket, form, room }, now);
                        }
                        None => self.answer(ticket, form, Reply::text(503, "Service node is overloaded, try another")),
                    },
                    Err(reply) => self.answer(ticket, form, reply),
                }
            }
        }
    }

    /// A call that is as much work as many counts as many.
    fn charge(&mut self, who: Who, call: &Call) {
        let more = call.work().saturating_sub(1);
        match who {
            Who::Client(place) => self.clients.charge(&place, more),
            Who::Node(node) => self.nodes.charge(&node, more),
        }
    }

    /// Reads a call: `storage_rpc`'s body names the method and holds the parameters, any other is the parameters.
    fn read(&self, method: &str, form: Form, body: &[u8]) -> Result<Call, Reply> {
        if method == "storage_rpc" {
            let body = Value::read(Form::Json, body).map_err(|_| Reply::text(400, "invalid json"))?;
            let Some(Value::Text(method)) = body.field("method") else {
                return Err(Reply::text(400, "invalid json: no `method` field"));
            };
            let Some(params @ Value::Dict(_)) = body.field("params") else {
                return Err(Reply::text(400, "invalid json: no `params` field"));
            };
            return Call::read(method, params, Form::Json, self.network);
        }
        let body = if body.is_empty() { b"{}" } else { body };
        match Value::read(form, body) {
            Ok(params) => Call::read(method, &params, form, self.network),
            Err(_) => Err(Reply::text(400, "invalid body: expected json or bt_dict")),
        }
    }

    /// Another node's call; the driver has seen that it is one.
    fn peer(&mut self, ticket: Ticket, peer: NodeKey, method: &str, body: &Bytes, now: Now) {
        let reply = match method {
            "snode_ping" => pong(),
            _ if self.swarms.node(&peer).is_none() => Reply::text(403, "you are not on my list of nodes"),
            "storage_cc" => self.carried(body, now),
            "offer" => self.offered(peer, body, now),
            "data" => self.brought(peer, body, now),
            "onion_request" if !self.nodes.admits(peer, now.mono) => Reply::text(429, TOO_MANY),
            "onion_request" => return self.onion(Back::Node(ticket), Who::Node(peer), Onion::from_node(body), now),
            _ => Reply::text(400, format!("no method {method}")),
        };
        self.answer(ticket, Form::Bt, reply);
    }

    /// A call that another member of the swarm carries to us: `[method, parameters]`.
    fn carried(&mut self, body: &[u8], now: Now) -> Reply {
        let bad = || Reply::text(400, "invalid request: expected a method and its parameters");
        let Ok(Value::List(parts)) = Value::read(Form::Bt, body) else { return bad() };
        let [Value::Bytes(method), Value::Bytes(params)] = &parts[..] else { return bad() };
        let (Ok(method), Ok(params)) = (str::from_utf8(method), bt::read(params)) else { return bad() };
        let call = match Call::read(method, &params, Form::Bt, self.network) {
            Ok(Call::Everywhere(call)) => call,
            Ok(_) => {
                return Reply::text(400, "invalid request: received invalid forwarded non-forwardable request");
            }
            Err(reply) => return reply,
        };
        if let Err(reply) = self.at_home(call.account(), now).and_then(|()| call.admit(&self.desk(now, true))) {
            return reply;
        }
        let (entry, failed) = self.do_here(&*call, now, true);
        let reply = Reply::dict(entry.entry);
        if failed { Reply { status: 500, ..reply } } else { reply }
    }

    /// Begins a call; where its reply goes is said by `then`.
    fn begin(&mut self, call: Call, then: Then, now: Now) {
        let reply = match call {
            Call::Everywhere(call) => return self.everywhere(&*call, then, now),
            Call::Here(call) => {
                let here = self.at_home(call.account(), now).and_then(|()| call.look(&self.desk(now, false)));
                here.map_or_else(|refused| refused, Reply::dict)
            }
            Call::Info => info::info(&self.desk(now, false)),
            Call::Swarm(account) => info::whose(&account, &self.desk(now, false)),
            Call::Registry(asked) => asked.answer(&self.desk(now, false)),
            Call::Nodes => info::nodes(&self.desk(now, false)),
            Call::Batch(calls) => {
                let whole = self.calls.wait(then, Whole::batch(calls.len()));
                for (place, call) in calls.into_iter().enumerate() {
                    self.begin(call, Then::Part { whole, place }, now);
                }
                return;
            }
            Call::Sequence(calls) => {
                let mut calls = calls.into_iter();
                let Some(first) = calls.next() else { return };
                let whole = self.calls.wait(then, Whole::Sequence { rest: calls, replies: Vec::new() });
                return self.begin(first, Then::Part { whole, place: 0 }, now);
            }
            Call::Branch(branch) => match branch.decide(&self.desk(now, false)) {
                (said, None) => Reply::dict(said),
                (said, Some(call)) => {
                    let whole = self.calls.wait(then, Whole::Branch { said });
                    return self.begin(call, Then::Part { whole, place: 0 }, now);
                }
            },
        };
        self.settle(then, reply, now);
    }

    /// Gives a call's reply to whom it is for.
    fn settle(&mut self, then: Then, reply: Reply, now: Now) {
        match then {
            Then::Part { whole, place } => match self.calls.part(whole, place, reply) {
                Progress::Waiting => {}
                Progress::Next(call) => self.begin(call, Then::Part { whole, place: place + 1 }, now),
                Progress::Done(then, reply) => self.settle(then, reply, now),
            },
            then => self.settle_now(then, reply),
        }
    }

    /// Gives a whole call's reply to who called.
    fn settle_now(&mut self, then: Then, reply: Reply) {
        match then {
            Then::Answer { ticket, form, room } => {
                let before = self.said;
                self.answer(ticket, form, reply);
                self.answered(room, before);
            }
            Then::Onion { back, reply: reply_to, room } => {
                let before = self.said;
                self.seal(back, &reply_to, reply);
                self.answered(room, before);
            }
            Then::Part { .. } => {}
        }
    }

    /// A call waits no more; a long answer to it counts as many calls.
    fn answered(&mut self, room: Place, before: usize) {
        let more = (self.said - before) / ANSWER;
        match room.who() {
            Who::Client(place) => self.clients.charge(&place, more),
            Who::Node(node) => self.nodes.charge(&node, more),
        }
        self.room.release(room);
    }

    /// Whether the account's mailbox is here, and what to say if it is not.
    fn at_home(&mut self, account: &crate::account::Account, now: Now) -> Result<(), Reply> {
        if self.swarms.keeps(&account.0) {
            Ok(())
        } else if self.swarms.mine().is_none() {
            Err(Reply::text(503, "Service node is not ready: not in a swarm"))
        } else {
            Err(self.desk(now, false).misdirected(account))
        }
    }

    fn desk(&mut self, now: Now, forwarded: bool) -> Desk<'_> {
        Desk {
            store: &mut self.store,
            swarms: &self.swarms,
            key: &self.key,
            network: self.network,
            now: now.wall,
            forwarded,
        }
    }

    fn answer(&mut self, ticket: Ticket, form: Form, reply: Reply) {
        let body = match reply.body {
            Said::Dict(value) => Body::Dict(value.write(form).into()),
            Said::Text(text) => Body::Text(text),
            Said::Raw(bytes) => Body::Raw(bytes),
        };
        self.said += match &body {
            Body::Dict(bytes) | Body::Raw(bytes) => bytes.len(),
            Body::Text(text) => text.len(),
        };
        self.out.push(Output::Answer { ticket, status: reply.status, body });
    }
}

fn pong() -> Reply {
    Reply { status: 200, body: Said::Raw("pong".into()) }
}

/// Which notation a body is written in.
fn form_of(body: &[u8]) -> Form {
    if body.first() == Some(&b'd') { Form::Bt } else { Form::Json }
}
