//! Onion requests at this node: each is peeled, and goes on to the next node, out to a server, or becomes a call here
//! whose reply is sealed for who asked. Neighbours: `crate::onion` (the layers), `node` (begins the calls).

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::Node;
use super::calls::{Then, Weight};
use super::fan_out::refusal;
use super::io::{AskError, Body, NodeKey, Now, Output, Ticket};
use crate::bt;
use crate::onion::{Layer, Onion, Refusal, ReplyTo, peel};
use crate::rpc::{Reply, Said};
use crate::value::{Form, Value};

/// How long the next node has to answer, with all nodes behind it.
const NODE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a server has.
const SERVER_PATIENCE: Duration = Duration::from_secs(25);
/// Tickets of onions have this bit, so that they are not mistaken for those of the fan-out.
const ONIONS: u64 = 1 << 63;

/// Where an onion's reply goes back.
#[derive(Clone, Copy, Debug)]
pub enum Back {
    /// To a client, with its status.
    Client(Ticket),
    /// To the node before us, status and body in a list.
    Node(Ticket),
}

/// The onions that wait for others.
pub struct Onions {
    secret: StaticSecret,
    chance: ChaCha20Rng,
    away: BTreeMap<Ticket, (Back, Weight)>,
    /// Sent away since the last commit.
    begun: Vec<Ticket>,
    last: u64,
}

impl Onions {
    /// The node's key opens layers. Nonces come from it and from when it started.
    pub fn new(key: &SigningKey, now: Now) -> Onions {
        let started = [now.wall.to_le_bytes().as_slice(), &now.mono.as_nanos().to_le_bytes()].concat();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.to_bytes()), &started);
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(tag.as_ref());
        let chance = ChaCha20Rng::from_seed(*seed);
        let secret = StaticSecret::from(key.to_scalar_bytes());
        Onions { secret, chance, away: BTreeMap::new(), begun: Vec::new(), last: 0 }
    }

    /// Whether a question is one of ours.
    pub fn sent(ticket: Ticket) -> bool {
        ticket.0 & ONIONS != 0
    }

    /// What was sent away since the last time; the commit worked.
    pub fn committed(&mut self) {
        self.begun.clear();
    }
}

impl Back {
    fn ticket(self) -> Ticket {
        let (Back::Client(ticket) | Back::Node(ticket)) = self;
        ticket
    }
}

impl Node {
    /// An onion came.
    pub(super) fn onion(&mut self, back: Back, onion: Result<Onion, Refusal>, bytes: usize, now: Now) {
        let layer = onion.and_then(|onion| peel(&onion, &self.onions.secret));
        let Some(weight) = self.calls.admit(bytes) else {
            return self.give(back, 503, b"Service node is overloaded, try another");
        };
        match layer {
            Err(Refusal { status, words }) => {
                self.calls.release(weight);
                self.give(back, status, words.as_bytes());
            }
            Ok(Layer::Next { node, onion }) => {
                let peer = NodeKey(node);
                if self.swarms.node(&peer).is_none() {
                    self.calls.release(weight);
                    return self.give(back, 502, format!("Next node not found: {}", HEXLOWER.encode(&node)).as_bytes());
                }
                let ticket = self.away(back, weight);
                let (body, patience) = (onion.for_node(), NODE_PATIENCE);
                self.out.push(Output::Ask { ticket, peer, method: "onion_request", body, patience });
            }
            Ok(Layer::Server { url, body }) => {
                let ticket = self.away(back, weight);
                self.out.push(Output::Post { ticket, url, body, patience: SERVER_PATIENCE });
            }
            Ok(Layer::Here { request, reply }) => {
                let then = Then::Onion { back: back.ticket(), to_node: matches!(back, Back::Node(_)), reply, weight };
                match self.read("storage_rpc", Form::Json, &request) {
                    Ok(call) => self.begin(call, then, now),
                    Err(refused) => self.settle(then, refused, now),
                }
            }
        }
    }

    /// Remembers where the reply to what is sent away goes.
    fn away(&mut self, back: Back, weight: Weight) -> Ticket {
        self.onions.last += 1;
        let ticket = Ticket(self.onions.last | ONIONS);
        self.onions.away.insert(ticket, (back, weight));
        self.onions.begun.push(ticket);
        ticket
    }

    fn returned(&mut self, ticket: Ticket) -> Option<Back> {
        let (back, weight) = self.onions.away.remove(&ticket)?;
        self.calls.release(weight);
        Some(back)
    }

    /// The next node answered, or it did not.
    pub(super) fn passed_on(&mut self, ticket: Ticket, reply: Result<Bytes, AskError>) {
        let Some(back) = self.returned(ticket) else { return };
        match reply {
            Ok(bytes) => match listed(&bytes) {
                Some((status, body)) => self.give(back, status, &body),
                None => self.give(back, 502, b"Bad response from the next node"),
            },
            Err(AskError::Timeout) => self.give(back, 504, b"Request time out"),
            Err(AskError::Unreachable) => self.give(back, 502, b"Next node is currently unreachable"),
            Err(AskError::Refused(words)) => match refusal(&words) {
                Some((code, why)) => self.give(back, code.parse().unwrap_or(502), why.as_bytes()),
                None => self.give(back, 502, b"Bad response from the next node"),
            },
        }
    }

    /// A server answered, or it did not. What it says is sealed for who asked; we only carry it.
    pub(super) fn posted(&mut self, ticket: Ticket, reply: Result<(u16, Bytes), AskError>) {
        let Some(back) = self.returned(ticket) else { return };
        match reply {
            Ok((status, body)) => self.give(back, status, &body),
            Err(AskError::Timeout) => self.give(back, 504, b"Request time out"),
            Err(_) => self.give(back, 502, b"The server is currently unreachable"),
        }
    }

    /// A call that came in an onion has its reply.
    pub(super) fn sealed(&mut self, back: Back, to: &ReplyTo, reply: Reply) {
        let body = match reply.body {
            Said::Dict(value) => value.write(Form::Json).into(),
            Said::Text(text) => text.into(),
            Said::Raw(bytes) => bytes,
        };
        match to.seal(reply.status, &body, &mut self.onions.chance) {
            Some(sealed) => self.give(back, 200, &sealed),
            None => self.give(back, 500, b"Internal Server Error"),
        }
    }

    /// Gives up what was sent away since the last commit, which failed; who is to be told so.
    pub(super) fn drop_onions(&mut self) -> Vec<Ticket> {
        let begun = std::mem::take(&mut self.onions.begun);
        begun.into_iter().filter_map(|ticket| self.returned(ticket)).map(Back::ticket).collect()
    }

    fn give(&mut self, back: Back, status: u16, body: &[u8]) {
        let output = match back {
            Back::Client(ticket) => {
                let text = str::from_utf8(body).ok().filter(|_| status != 200);
                let body =
                    text.map_or_else(|| Body::Raw(Bytes::copy_from_slice(body)), |text| Body::Text(text.to_owned()));
                Output::Answer { ticket, status, body }
            }
            Back::Node(ticket) => {
                let list = Value::List(vec![status.into(), Value::Bytes(body.to_vec())]);
                Output::Answer { ticket, status: 200, body: Body::Raw(bt::write(&list).into()) }
            }
        };
        self.out.push(output);
    }
}

/// Reads `[status, body]`.
fn listed(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let Ok(Value::List(parts)) = bt::read(bytes) else { return None };
    let Ok([Value::Int(status), Value::Bytes(body)]) = <[Value; 2]>::try_from(parts) else { return None };
    let status = u16::try_from(status).ok().filter(|status| (100..600).contains(status))?;
    Some((status, body))
}
