//! Carrying onions: one layer comes off, and what is under it goes on to a node, to a server, or is a call for us; what
//! comes back goes back the same way. Neighbours: `onion` (the layers), `calls` (a call that came in one).

use std::time::Duration;

use bytes::Bytes;

use super::Node;
use super::calls::Then;
use super::io::{AskError, Body, NodeKey, Now, Output, Ticket};
use super::questions::Why;
use super::room::{Place, What, Who};
use crate::bt;
use crate::onion::{Layer, Onion, Refusal, peel};
use crate::rpc::{Reply, Said};
use crate::value::{Form, Value};

/// How long the rest of the way has to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a server has to answer: less, so that who waits for us still hears that it did not.
const SERVER_PATIENCE: Duration = Duration::from_secs(25);

/// Who an onion came from, and the number of its call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Back {
    /// Whoever sent it first: it is answered as any call.
    Client(Ticket),
    /// A node: it is answered `[status, body]`, and knows that it was carried at all.
    Node(Ticket),
}

impl Node {
    /// An onion as it came, from a client or from a node.
    pub(super) fn onion(&mut self, back: Back, who: Who, onion: Result<Onion, Refusal>, now: Now) {
        if self.swarms.mine().is_none() {
            let text = format!("Snode not ready: {:?}", self.swarms.me());
            return self.go_back(back, Reply::text(503, text));
        }
        let layer = onion.and_then(|onion| {
            let layer = peel(&onion, &self.secret)?;
            Ok((layer, onion.sealed.len()))
        });
        let (layer, bytes) = match layer {
            Ok(layer) => layer,
            Err(Refusal { status, words }) => return self.go_back(back, Reply::text(status, words)),
        };
        // What goes on is held by nobody here.
        let (what, bytes) = match &layer {
            Layer::Here { .. } => (What::Call, bytes),
            Layer::Next { .. } | Layer::Server { .. } => (What::Onion, 0),
        };
        let Some(room) = self.room.admit(who, what, bytes) else {
            return self.go_back(back, Reply::text(503, "Service node is overloaded, try another"));
        };
        match layer {
            Layer::Next { node, .. } if self.swarms.node(&NodeKey(node)).is_none() => {
                self.room.release(room);
                self.go_back(back, Reply::text(502, format!("Next node not found: {:?}", NodeKey(node))));
            }
            Layer::Next { node, onion } => {
                let node = NodeKey(node);
                let why = Why::Onion(back, node, room);
                self.ask(why, (node, "onion_request"), onion.for_node(), PATIENCE, now);
            }
            Layer::Server { url, body } => {
                let ticket = self.questions.wait(Why::Server(back, room), now.mono + SERVER_PATIENCE);
                self.out.push(Output::Post { ticket, url, body, patience: SERVER_PATIENCE });
            }
            Layer::Here { request, reply } => {
                let then = Then::Onion { back, reply: Box::new(reply), room };
                match self.read("storage_rpc", Form::Json, &request) {
                    Ok(call) => {
                        self.charge(who, &call);
                        self.begin(call, then, now);
                    }
                    Err(refused) => self.settle(then, refused, now),
                }
            }
        }
    }

    /// The rest of the way answered, or it did not.
    pub(super) fn onion_back(&mut self, back: Back, node: NodeKey, room: Place, reply: Result<Bytes, AskError>) {
        self.room.release(room);
        let reply = match reply {
            Ok(bytes) => carried(&bytes).unwrap_or_else(|| Reply::text(500, "Invalid response from snode")),
            Err(AskError::Timeout) => Reply::text(504, "Request time out"),
            Err(AskError::Unreachable) => Reply::text(502, format!("Next node is currently unreachable: {node:?}")),
            Err(AskError::Refused(words)) => match super::fan_out::refusal(&words) {
                Some((code, reason)) => Reply::text(code.parse().unwrap_or(500), reason),
                None => Reply::text(500, "Invalid response from snode"),
            },
        };
        self.go_back(back, reply);
    }

    /// A server answered, or it did not.
    pub(super) fn server_back(&mut self, back: Back, room: Place, reply: Result<(u16, Bytes), AskError>) {
        self.room.release(room);
        let reply = match reply {
            Ok((status, body)) => Reply { status, body: Said::Raw(body) },
            Err(AskError::Timeout) => Reply::text(504, "Request time out"),
            Err(AskError::Unreachable) => Reply::text(502, "The server cannot be reached"),
            Err(AskError::Refused(words)) => Reply::text(502, String::from_utf8_lossy(&words)),
        };
        self.go_back(back, reply);
    }

    /// A call that came in an onion has its reply: sealed, it goes back.
    pub(super) fn seal(&mut self, back: Back, reply_to: &crate::onion::ReplyTo, reply: Reply) {
        let body = match reply.body {
            Said::Dict(value) => value.write(Form::Json).into(),
            Said::Text(text) => text.into(),
            Said::Raw(bytes) => bytes,
        };
        let sealed = match reply_to.seal(reply.status, &body, &mut self.chance) {
            Some(sealed) => Reply { status: 200, body: Said::Raw(sealed) },
            None => Reply::text(500, "the answer could not be sealed"),
        };
        self.go_back(back, sealed);
    }

    fn go_back(&mut self, back: Back, reply: Reply) {
        let ticket = match back {
            Back::Client(ticket) => return self.answer(ticket, Form::Json, reply),
            Back::Node(ticket) => ticket,
        };
        let body = match reply.body {
            Said::Dict(value) => value.write(Form::Json),
            Said::Text(text) => text.into_bytes(),
            Said::Raw(bytes) => bytes.to_vec(),
        };
        let carried = Value::List(vec![reply.status.into(), Value::Bytes(body)]);
        let carried = Bytes::from(bt::write(&carried));
        self.said += carried.len();
        self.out.push(Output::Answer { ticket, status: 200, body: Body::Dict(carried) });
    }
}

/// Reads `[status, body]`.
fn carried(bytes: &[u8]) -> Option<Reply> {
    let Value::List(parts) = bt::read(bytes).ok()? else { return None };
    let [Value::Int(status), Value::Bytes(body)] = &parts[..] else { return None };
    let status = u16::try_from(*status).ok().filter(|status| (100..600).contains(status))?;
    // What is not well is said in words, if they are any.
    let words = if status == 200 { None } else { str::from_utf8(body).ok() };
    let body = words.map_or_else(|| Said::Raw(body.clone().into()), |words| Said::Text(words.to_owned()));
    Some(Reply { status, body })
}
