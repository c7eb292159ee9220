//! Carrying what members tell each other: a new list says who is to be told, offers and messages go out and come in.
//! Neighbours: `transfer` (what is told), `questions` (waits for the answers), `push` (tells subscribers what came).

use bytes::Bytes;

use super::Node;
use super::io::{AskError, NodeKey, Now};
use super::questions::Why;
use crate::rpc::{Reply, Said};

impl Node {
    /// The registry's list came.
    pub(super) fn listed(&mut self, list: &Bytes, now: Now) {
        // A list that makes no sense leaves the last one in its place; the driver has said so to the operator.
        let Ok(Some(change)) = self.swarms.take(list) else { return };
        self.transfer.listed(&change, &self.store, &self.swarms, now.mono);
        if !change.is_nothing() {
            self.accounts_moved();
        }
    }

    /// Asks what is to be asked now.
    pub(super) fn tell_others(&mut self, now: Now) {
        for ask in self.transfer.due(&mut self.store, &self.swarms, now.mono) {
            self.ask(Why::Told(ask.peer, ask.number), (ask.peer, ask.method), ask.body, ask.patience, now);
        }
    }

    /// Somebody we told something answered, or it did not.
    pub(super) fn told(&mut self, whom: (NodeKey, u64), reply: Result<Bytes, AskError>, now: Now) {
        let reply = reply.as_deref().map_err(|_| ());
        self.transfer.replied(whom, reply, &mut self.store, now.mono);
    }

    /// Somebody offers what it has.
    pub(super) fn offered(&mut self, from: NodeKey, body: &[u8], now: Now) -> Reply {
        let answer = self.transfer.offered(from, body, &mut self.store, &self.swarms, (now.mono, now.wall));
        answer.map_or_else(|refused| refused, |answer| Reply { status: 200, body: Said::Raw(answer) })
    }

    /// Somebody brings what we wanted.
    pub(super) fn brought(&mut self, from: NodeKey, body: &[u8], now: Now) -> Reply {
        match self.transfer.brought(from, body, &mut self.store, &self.swarms, (now.mono, now.wall)) {
            Ok((answer, fresh)) => {
                fresh.iter().for_each(|message| self.stored_late(message, now));
                Reply { status: 200, body: Said::Raw(answer) }
            }
            Err(refused) => refused,
        }
    }
}
