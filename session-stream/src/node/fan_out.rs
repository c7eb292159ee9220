//! Asking the swarm's other members to do what we do, and putting together what each says. Neighbours: `calls` (where
//! the answer then goes), `rpc` (what is done).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;

use super::Node;
use super::calls::{CallId, Then, Whole};
use super::io::{AskError, NodeKey, Now};
use super::questions::Why;
use crate::bt;
use crate::rpc::{Done, Everywhere, Reply, Said};
use crate::value::Value;

/// How long a member has to answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of members' replies that are held at a time.
const HELD_MAX: usize = 256 << 20;

/// The calls that members were asked to do too.
#[derive(Default)]
pub struct FanOut {
    rounds: BTreeMap<CallId, Round>,
    held: usize,
}

/// One call, asked of every member.
struct Round {
    waiting: BTreeSet<NodeKey>,
    held: usize,
    said: BTreeMap<String, Value>,
    members: BTreeMap<String, Value>,
    must_delete: bool,
}

impl Node {
    /// Does a call here and asks the others to; answers when all have.
    pub(super) fn everywhere(&mut self, call: &dyn Everywhere, then: Then, now: Now) {
        if let Err(reply) = self.at_home(call.account(), now).and_then(|()| call.admit(&self.desk(now, false))) {
            return self.settle(then, reply, now);
        }
        let id = self.calls.wait(then, Whole::Members);
        // The others first: what is slow is under way while we write.
        let waiting = self.ask_others(id, call, now);
        let (done, _) = self.do_here(call, now, false);
        let said = done.top.into_iter();
        let common = self.desk(now, false).common().map(|(name, value)| (name.to_owned(), value));
        let mut round = Round {
            waiting,
            held: 0,
            said: said.chain(common).collect(),
            members: BTreeMap::new(),
            must_delete: call.must_delete(),
        };
        round.members.insert(name(&self.swarms.me()), Value::dict(done.entry));
        let alone = round.waiting.is_empty();
        self.begun.insert(id);
        self.fan_out.rounds.insert(id, round);
        if alone {
            self.finish(id, now);
        }
    }

    fn ask_others(&mut self, id: CallId, call: &dyn Everywhere, now: Now) -> BTreeSet<NodeKey> {
        let others: BTreeSet<NodeKey> = self.swarms.others().map(|node| node.key).collect();
        if others.is_empty() {
            return others;
        }
        let parts = vec![call.method().into(), Value::Bytes(bt::write(&call.carried()))];
        let body = Bytes::from(bt::write(&Value::List(parts)));
        for peer in &others {
            self.ask(Why::Member(id, *peer), (*peer, "storage_cc"), body.clone(), PATIENCE, now);
        }
        others
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

    /// A member answered, or it did not.
    pub(super) fn member_replied(&mut self, id: CallId, peer: NodeKey, reply: Result<Bytes, AskError>, now: Now) {
        let Some(round) = self.fan_out.rounds.get_mut(&id) else { return };
        round.waiting.remove(&peer);
        let room = HELD_MAX - self.fan_out.held;
        let (entry, bytes) = entry(reply, room);
        self.fan_out.held += bytes;
        round.held += bytes;
        round.members.insert(name(&peer), entry);
        if round.waiting.is_empty() {
            self.finish(id, now);
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
