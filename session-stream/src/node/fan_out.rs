//! Asking the swarm's other members to do what we do, and putting together what each says. Neighbours: `calls` (where
//! the answer then goes), `rpc` (what is done).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;

use super::Node;
use super::calls::{CallId, Then, Whole};
use super::io::{AskError, NodeKey, Now, Output, Ticket};
use crate::bt;
use crate::rpc::{Done, Everywhere, Reply, Said};
use crate::value::Value;

/// How long a member has to answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of members' replies that are held at a time.
const HELD_MAX: usize = 256 << 20;

/// The questions that wait for answers.
#[derive(Default)]
pub struct FanOut {
    rounds: BTreeMap<CallId, Round>,
    asked: BTreeMap<Ticket, (CallId, NodeKey)>,
    held: usize,
    last: u64,
}

/// One call, asked of every member.
struct Round {
    asked: Bytes,
    waiting: BTreeSet<Ticket>,
    until: Duration,
    held: usize,
    said: BTreeMap<String, Value>,
    members: BTreeMap<String, Value>,
    must_delete: bool,
}

impl FanOut {
    /// When patience ends first: rounds end in the order they began.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.rounds.first_key_value().map(|(_, round)| round.until)
    }
}

impl Node {
    /// Does a call here and asks the others to; answers when all have.
    pub(super) fn everywhere(&mut self, call: &dyn Everywhere, then: Then, now: Now) {
        if let Err(reply) = self.at_home(call.account(), now).and_then(|()| call.admit(&self.desk(now, false))) {
            return self.settle(then, reply, now);
        }
        // The others first: what is slow is under way while we write.
        let (asked, waiting) = self.ask_others(call);
        let (done, _) = self.do_here(call, now, false);
        let said = done.top.into_iter();
        let common = self.desk(now, false).common().map(|(name, value)| (name.to_owned(), value));
        let mut round = Round {
            asked,
            waiting: waiting.iter().map(|(ticket, _)| *ticket).collect(),
            until: now.mono + PATIENCE,
            held: 0,
            said: said.chain(common).collect(),
            members: BTreeMap::new(),
            must_delete: call.must_delete(),
        };
        round.members.insert(name(&self.swarms.me()), Value::dict(done.entry));
        if waiting.is_empty() {
            return self.settle(then, round.reply(), now);
        }
        let id = self.calls.wait(then, Whole::Members);
        self.begun.insert(id);
        self.fan_out.asked.extend(waiting.into_iter().map(|(ticket, peer)| (ticket, (id, peer))));
        self.fan_out.rounds.insert(id, round);
    }

    fn ask_others(&mut self, call: &dyn Everywhere) -> (Bytes, Vec<(Ticket, NodeKey)>) {
        let others: Vec<NodeKey> = self.swarms.others().map(|node| node.key).collect();
        if others.is_empty() {
            return (Bytes::new(), Vec::new());
        }
        let parts = vec![call.method().into(), Value::Bytes(bt::write(&call.carried()))];
        let body = Bytes::from(bt::write(&Value::List(parts)));
        let ask = |peer| {
            self.fan_out.last += 1;
            let ticket = Ticket(self.fan_out.last);
            self.out.push(Output::Ask { ticket, peer, method: "storage_cc", body: body.clone(), patience: PATIENCE });
            (ticket, peer)
        };
        let asked = others.into_iter().map(ask).collect();
        (body, asked)
    }

    /// Does a call at this member; what it says of it, and whether it failed.
    pub(super) fn do_here(&mut self, call: &dyn Everywhere, now: Now, forwarded: bool) -> (Done, bool) {
        match call.run(&mut self.desk(now, forwarded)) {
            Ok(done) => {
                if let Some(message) = &done.stored {
                    self.stored(message, now);
                }
                (done, false)
            }
            Err(error) => {
                let said =
                    [("failed", true.into()), ("query_failure", true.into()), ("reason", error.to_string().into())];
                let entry = said.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect();
                (Done { entry, ..Done::default() }, true)
            }
        }
    }

    /// A member answered, or it did not. One that was given up already is not heard any more.
    pub(super) fn replied(&mut self, ticket: Ticket, reply: Result<Bytes, AskError>, now: Now) {
        let Some((id, peer)) = self.fan_out.asked.remove(&ticket) else { return };
        let Some(round) = self.fan_out.rounds.get_mut(&id) else { return };
        round.waiting.remove(&ticket);
        let missed = matches!(reply, Err(AskError::Timeout | AskError::Unreachable)).then(|| round.asked.clone());
        let room = HELD_MAX - self.fan_out.held;
        let (entry, bytes) = entry(reply, room);
        self.fan_out.held += bytes;
        round.held += bytes;
        round.members.insert(name(&peer), entry);
        let over = round.waiting.is_empty();
        if let Some(asked) = missed {
            self.missed(peer, &asked, now);
        }
        if over {
            self.finish(id, now);
        }
    }

    /// Ends the rounds whose time is over.
    pub(super) fn overdue(&mut self, now: Now) {
        while let Some(round) = self.fan_out.rounds.values().next() {
            if round.until > now.mono {
                return;
            }
            for ticket in round.waiting.clone() {
                self.replied(ticket, Err(AskError::Timeout), now);
            }
        }
    }

    fn finish(&mut self, id: CallId, now: Now) {
        let Some(round) = self.fan_out.rounds.remove(&id) else { return };
        self.fan_out.held -= round.held;
        let Some(then) = self.calls.resume(id) else { return };
        self.settle(then, round.reply(), now);
    }
}

impl Round {
    /// The answer: 200 if at least one member did it.
    fn reply(self) -> Reply {
        let failed = |entry: &Value| entry.field("failed").is_some();
        let deleted = |entry: &Value| match entry.field("deleted") {
            Some(Value::List(list)) => !list.is_empty(),
            Some(Value::Dict(dict)) => !dict.is_empty(),
            _ => false,
        };
        let status = match () {
            () if self.members.values().all(failed) => 500,
            () if self.must_delete && !self.members.values().any(deleted) => 404,
            () => 200,
        };
        let mut said = self.said;
        said.insert("swarm".to_owned(), Value::dict(self.members));
        Reply { status, body: Said::Dict(Value::Dict(said)) }
    }
}

/// A node as it stands in an answer.
fn name(key: &NodeKey) -> String {
    HEXLOWER.encode(&key.0)
}

/// What is said of a member, and the bytes it takes.
fn entry(reply: Result<Bytes, AskError>, room: usize) -> (Value, usize) {
    let failed = |why: &[(&'static str, Value)]| {
        let said = [("failed", true.into())].into_iter().chain(why.iter().cloned());
        (Value::dict(said), 0)
    };
    match reply {
        Ok(bytes) if bytes.len() <= room => match bt::read_of(&bytes, bt::PEER_ELEMENTS_MAX) {
            Ok(dict @ Value::Dict(_)) => (as_said(dict), bytes.len()),
            _ => failed(&[("bad_peer_response", true.into())]),
        },
        Ok(_) => failed(&[("bad_peer_response", true.into())]),
        Err(AskError::Timeout | AskError::Unreachable) => failed(&[("timeout", true.into())]),
        Err(AskError::Refused(words)) => match refusal(&words) {
            Some((code, reason)) => failed(&[("code", code.into()), ("reason", reason.into())]),
            None => failed(&[("bad_peer_response", true.into())]),
        },
    }
}

/// Reads `<code> <name>\n\n<reason>`.
pub(super) fn refusal(words: &[u8]) -> Option<(String, String)> {
    let words = String::from_utf8_lossy(&words[..words.len().min(1024)]);
    let (head, reason) = words.split_once("\n\n")?;
    let code = head.split(' ').next().filter(|code| code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()))?;
    Some((code.to_owned(), reason.to_owned()))
}

/// What a member wrote in bt, as we would have written it: text, bytes only where a signature stands, and yes or no
/// where that is meant.
fn as_said(value: Value) -> Value {
    match value {
        Value::Bytes(bytes) => String::from_utf8(bytes).map_or_else(|not| Value::Bytes(not.into_bytes()), Value::Text),
        Value::List(list) => Value::List(list.into_iter().map(as_said).collect()),
        Value::Dict(dict) => {
            let said = |(key, value): (String, Value)| {
                let value = match (key.as_str(), value) {
                    ("signature", value) => value,
                    ("already" | "failed" | "query_failure", Value::Int(number)) => Value::Bool(number != 0),
                    (_, value) => as_said(value),
                };
                (key, value)
            };
            Value::Dict(dict.into_iter().map(said).collect())
        }
        other => other,
    }
}
