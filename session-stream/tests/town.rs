//! A town of storage nodes in one process: one clock, one queue, one seed. Each node is the machine itself with a store
//! of its own, in memory or in a file that outlives it; what one asks of another takes some time, or gets lost.
//! Neighbours: every test beside it.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use session_stream::account::{Account, Network};
use session_stream::node::io::{AskError, Body, Conn, Input, NodeKey, Now, Origin, Output, Ticket};
use session_stream::node::{Config, Node};
use session_stream::store::{CAP_DEFAULT, Damaged, Store};

/// What the clock says when a town is founded.
pub const FOUNDED: u64 = 1_760_000_000_000;

/// A client's address.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub struct Town {
    pub houses: Vec<House>,
    pub now: Duration,
    /// Of a thousand questions, so many get lost, and as many answers.
    pub loss: u32,
    pub hard_fork: (u16, u16),
    pub height: u64,
    pub answers: BTreeMap<u64, (u16, Body)>,
    pub pushes: Vec<(usize, Conn, &'static str, Bytes)>,
    pub posts: Vec<(usize, Ticket, String, Bytes)>,
    queue: BTreeMap<(Duration, u64), (usize, Input)>,
    /// Questions under way: the ticket a node was called with, who asked, and with which.
    asked: BTreeMap<u64, (usize, Ticket)>,
    chance: ChaCha12Rng,
    last: u64,
}

pub struct House {
    pub key: SigningKey,
    pub swarm: u64,
    /// Nothing while the node is down.
    pub node: Option<Node>,
    /// Where its store is, if it outlives it.
    pub file: Option<PathBuf>,
    /// Whether others can reach it.
    pub reachable: bool,
    pub store_cap: u64,
}

impl House {
    pub fn id(&self) -> NodeKey {
        NodeKey(self.key.verifying_key().to_bytes())
    }

    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.id().0)
    }
}

/// The key of the `number`th node, or account, or member.
pub fn key(kind: u8, number: u8) -> SigningKey {
    let mut seed = [kind; 32];
    seed[31] = number;
    SigningKey::from_bytes(&seed)
}

impl Town {
    /// A town of nodes that live in these swarms and know each other.
    pub fn new(seed: u64, swarms: &[u64]) -> Town {
        Town::built(seed, swarms, None)
    }

    /// The same with stores in files of this directory.
    pub fn in_files(seed: u64, swarms: &[u64], directory: PathBuf) -> Town {
        Town::built(seed, swarms, Some(directory))
    }

    fn built(seed: u64, swarms: &[u64], directory: Option<PathBuf>) -> Town {
        let mut town = Town {
            houses: Vec::new(),
            now: Duration::ZERO,
            loss: 0,
            hard_fork: (19, 4),
            height: 1000,
            answers: BTreeMap::new(),
            pushes: Vec::new(),
            posts: Vec::new(),
            queue: BTreeMap::new(),
            asked: BTreeMap::new(),
            chance: ChaCha12Rng::seed_from_u64(seed),
            last: 0,
        };
        for (number, swarm) in swarms.iter().enumerate() {
            let file = directory.as_ref().map(|directory| directory.join(format!("house-{number}.db")));
            town.add(*swarm, file);
        }
        town.publish();
        town
    }

    /// Adds a node; the others hear of it when the next list is published.
    pub fn add(&mut self, swarm: u64, file: Option<PathBuf>) -> usize {
        let number = self.houses.len();
        let key = key(b'n', u8::try_from(number).unwrap());
        let house = House { key, swarm, node: None, file, reachable: true, store_cap: CAP_DEFAULT };
        self.houses.push(house);
        self.start(number);
        number
    }

    /// Starts a node with what its file holds; it knows no list yet.
    pub fn start(&mut self, number: usize) {
        let now = self.told();
        let house = &mut self.houses[number];
        let store = match &house.file {
            Some(file) => Store::open(file, house.store_cap, Damaged::Refuse).unwrap(),
            None => Store::in_memory(house.store_cap).unwrap(),
        };
        house.node = Some(Node::new(
            Config { key: house.key.clone(), network: Network::Main, seed: [7; 32].into() },
            store,
            now,
        ));
    }

    /// A node is gone from one moment to the next; what it asked and was asked is never answered.
    pub fn kill(&mut self, number: usize) {
        self.houses[number].node = None;
        self.queue.retain(|_, (house, _)| *house != number);
    }

    /// Starts a node again and gives it the list of today.
    pub fn restart(&mut self, number: usize) {
        self.start(number);
        let list = self.list();
        self.input(number, Input::Nodes(list));
    }

    /// The registry's list of today.
    pub fn list(&self) -> Bytes {
        let states: Vec<Json> = self
            .houses
            .iter()
            .enumerate()
            .map(|(number, house)| {
                json!({
                    "service_node_pubkey": HEXLOWER.encode(&[number as u8 + 1; 32]),
                    "pubkey_ed25519": house.hex(),
                    "pubkey_x25519": HEXLOWER.encode(&house.key.verifying_key().to_montgomery().to_bytes()),
                    "public_ip": format!("10.0.0.{}", number + 1),
                    "storage_port": 22021, "storage_lmq_port": 22020, "swarm_id": house.swarm, "funded": true,
                })
            })
            .collect();
        let list = json!({
            "service_node_states": states, "height": self.height, "block_hash": format!("{:064x}", self.height),
            "hardfork": self.hard_fork.0, "snode_revision": self.hard_fork.1, "status": "OK",
        });
        Bytes::from(list.to_string())
    }

    /// A block passes: every node that is up gets the list of today.
    pub fn publish(&mut self) {
        self.height += 1;
        let list = self.list();
        for number in 0..self.houses.len() {
            self.input(number, Input::Nodes(list.clone()));
        }
    }

    pub fn told(&self) -> Now {
        Now { mono: self.now, wall: self.wall() }
    }

    /// What clocks say, in milliseconds.
    pub fn wall(&self) -> u64 {
        FOUNDED + u64::try_from(self.now.as_millis()).unwrap()
    }

    /// Something happens to a node now, and what it then does is done.
    pub fn input(&mut self, number: usize, input: Input) {
        self.inputs(number, vec![input]);
    }

    /// The same with several in one transaction.
    pub fn inputs(&mut self, number: usize, inputs: Vec<Input>) {
        let now = self.told();
        let Some(node) = &mut self.houses[number].node else { return };
        for input in inputs {
            node.handle(input, now);
        }
        let (outputs, _) = node.commit();
        for output in outputs {
            self.output(number, output);
        }
    }

    fn output(&mut self, number: usize, output: Output) {
        match output {
            Output::Answer { ticket, status, body } => match self.asked.remove(&ticket.0) {
                Some((asker, question)) => {
                    let reply = match (status, body) {
                        (200, Body::Dict(bytes) | Body::Raw(bytes)) => Ok(bytes),
                        (200, Body::Text(text)) => Ok(text.into()),
                        (code, Body::Text(text)) => Err(AskError::Refused(format!("{code} Error\n\n{text}").into())),
                        (code, Body::Dict(bytes) | Body::Raw(bytes)) => {
                            Err(AskError::Refused([format!("{code} Error\n\n").as_bytes(), &bytes].concat().into()))
                        }
                    };
                    if !self.lost() {
                        self.later(asker, Input::Reply { ticket: question, reply });
                    }
                }
                None => {
                    let twice = self.answers.insert(ticket.0, (status, body));
                    assert!(twice.is_none(), "call {} is answered twice", ticket.0);
                }
            },
            Output::Ask { ticket, peer, method, body, patience } => {
                let origin = Origin::Peer(self.houses[number].id());
                let whom = self.houses.iter().position(|house| house.id() == peer);
                match whom.filter(|whom| self.houses[*whom].reachable && self.houses[number].reachable) {
                    Some(whom) if !self.lost() => {
                        self.last += 1;
                        self.asked.insert(self.last, (number, ticket));
                        let call = Input::Call { ticket: Ticket(self.last), origin, method: method.to_owned(), body };
                        self.later(whom, call);
                    }
                    _ => {}
                }
                self.last += 1;
                let reply = Err(AskError::Timeout);
                self.queue.insert((self.now + patience, self.last), (number, Input::Reply { ticket, reply }));
            }
            Output::Push { conn, command, body } => self.pushes.push((number, conn, command, body)),
            Output::Post { ticket, url, body, .. } => self.posts.push((number, ticket, url, body)),
            Output::Peers(_) => {}
        }
    }

    fn lost(&mut self) -> bool {
        self.chance.next_u32() % 1000 < self.loss
    }

    fn later(&mut self, number: usize, input: Input) {
        let delay = Duration::from_micros(500 + u64::from(self.chance.next_u32() % 50_000));
        self.last += 1;
        self.queue.insert((self.now + delay, self.last), (number, input));
    }

    /// The next moment something happens, not after `until`.
    pub fn step(&mut self, until: Duration) -> bool {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let woken = (0..self.houses.len())
            .filter_map(|number| Some((self.houses[number].node.as_ref()?.next_wake()?, number)))
            .min();
        match (queued, woken) {
            (Some(at), woken) if at <= until && woken.is_none_or(|(wake, _)| at <= wake) => {
                let (_, (number, input)) = self.queue.pop_first().unwrap();
                self.now = self.now.max(at);
                self.input(number, input);
            }
            (_, Some((wake, number))) if wake <= until => {
                self.now = self.now.max(wake);
                self.input(number, Input::Wake);
            }
            _ => {
                self.now = self.now.max(until);
                return false;
            }
        }
        true
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// A client calls; its ticket.
    pub fn begin(&mut self, number: usize, method: &str, body: impl Into<Bytes>) -> Ticket {
        self.begin_from(number, Origin::Https(CLIENT), method, body)
    }

    pub fn begin_from(&mut self, number: usize, origin: Origin, method: &str, body: impl Into<Bytes>) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.input(number, Input::Call { ticket, origin, method: method.to_owned(), body: body.into() });
        ticket
    }

    /// The answer, once it is there.
    pub fn answer(&mut self, ticket: Ticket) -> (u16, Body) {
        let patience = self.now + Duration::from_secs(60);
        while !self.answers.contains_key(&ticket.0) {
            assert!(self.step(patience), "call {} is not answered", ticket.0);
        }
        self.answers.remove(&ticket.0).unwrap()
    }

    /// Calls and waits: status and body.
    pub fn call(&mut self, number: usize, method: &str, body: impl Into<Bytes>) -> (u16, Vec<u8>) {
        let ticket = self.begin(number, method, body);
        let (status, body) = self.answer(ticket);
        match body {
            Body::Dict(bytes) | Body::Raw(bytes) => (status, bytes.to_vec()),
            Body::Text(text) => (status, text.into_bytes()),
        }
    }

    /// Calls in JSON and waits; a sentence is a JSON string.
    pub fn json(&mut self, number: usize, method: &str, params: &Json) -> (u16, Json) {
        let ticket = self.begin(number, method, params.to_string());
        let (status, body) = self.answer(ticket);
        match body {
            Body::Dict(bytes) => (status, serde_json::from_slice(&bytes).unwrap()),
            Body::Raw(bytes) => (status, Json::String(HEXLOWER.encode(&bytes))),
            Body::Text(text) => (status, Json::String(text)),
        }
    }
}

/// An account and its key.
pub struct Owner {
    pub key: SigningKey,
    pub account: Account,
}

impl Owner {
    /// An account whose key is an Ed25519 one.
    pub fn group(number: u8) -> Owner {
        let key = key(b'a', number);
        let account = Account::new(Account::GROUP, key.verifying_key().to_bytes());
        Owner { key, account }
    }

    /// A Session id.
    pub fn session(number: u8) -> Owner {
        let key = key(b'a', number);
        let account = Account::new(Account::SESSION, key.verifying_key().to_montgomery().to_bytes());
        Owner { key, account }
    }

    /// `pubkey`, `pubkey_ed25519` if it takes one, `signature` over the parts, and `more`.
    pub fn signed(&self, parts: &[&str], more: Json) -> Json {
        let mut params = more;
        params["pubkey"] = self.account.hex().into();
        params["signature"] = base64(&self.key.sign(parts.concat().as_bytes()).to_bytes()).into();
        if self.account.prefix() == Account::SESSION {
            params["pubkey_ed25519"] = HEXLOWER.encode(&self.key.verifying_key().to_bytes()).into();
        }
        params
    }

    /// A message's parameters: `store`.
    pub fn message(&self, town: &Town, namespace: i16, data: &[u8]) -> Json {
        let now = town.wall();
        let ns = if namespace == 0 { String::new() } else { namespace.to_string() };
        let more = json!({"namespace": namespace, "data": base64(data), "timestamp": now, "ttl": 86_400_000});
        self.signed(&["store", &ns, &now.to_string()], more)
    }

    /// A look into a box: `retrieve`.
    pub fn look(&self, town: &Town, namespace: i16, more: Json) -> Json {
        let now = town.wall();
        let ns = if namespace == 0 { String::new() } else { namespace.to_string() };
        let mut params = self.signed(&["retrieve", &ns, &now.to_string()], more);
        params["namespace"] = namespace.into();
        params["timestamp"] = now.into();
        params
    }

    /// The data in a box of this node, as it pages through it.
    pub fn mailbox(&self, town: &mut Town, number: usize, namespace: i16) -> Vec<Vec<u8>> {
        let (mut found, mut last) = (Vec::new(), String::new());
        loop {
            let params = self.look(town, namespace, json!({"last_hash": last}));
            let (status, body) = town.json(number, "retrieve", &params);
            assert_eq!(status, 200, "{body}");
            for message in body["messages"].as_array().unwrap() {
                found.push(data_encoding::BASE64.decode(message["data"].as_str().unwrap().as_bytes()).unwrap());
                last = message["hash"].as_str().unwrap().to_owned();
            }
            if !body["more"].as_bool().unwrap() {
                return found;
            }
        }
    }
}

pub fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}
