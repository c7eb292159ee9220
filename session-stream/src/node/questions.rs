//! Questions to others that wait for answers: to whom each answer matters, and how long it is waited for. The driver
//! keeps the same time, but the machine does not depend on it. Neighbours: `fan_out` and `onion` (ask).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::Node;
use super::calls::CallId;
use super::io::{NodeKey, Now, Output, Ticket};
use super::onion::Back;
use super::room::Place;

/// To whom an answer matters.
#[derive(Debug)]
pub enum Why {
    /// A call that this member was asked to do too.
    Member(CallId, NodeKey),
    /// Who sent an onion; it went on to this node.
    Onion(Back, NodeKey, Place),
    /// Who sent an onion; it went to a server.
    Server(Back, Place),
    /// Us: this node was told what it may have missed; the question's number there.
    Told(NodeKey, u64),
}

/// The questions that wait.
#[derive(Default)]
pub struct Questions {
    waiting: BTreeMap<Ticket, (Why, Duration)>,
    deadlines: BTreeSet<(Duration, Ticket)>,
    last: u64,
}

impl Questions {
    /// When patience ends first.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Numbers a question.
    pub fn wait(&mut self, why: Why, until: Duration) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.waiting.insert(ticket, (why, until));
        self.deadlines.insert((until, ticket));
        ticket
    }

    /// The question has its answer. One that has had it, or was given up, does not wait.
    pub fn take(&mut self, ticket: Ticket) -> Option<Why> {
        let (why, until) = self.waiting.remove(&ticket)?;
        self.deadlines.remove(&(until, ticket));
        Some(why)
    }

    /// The first question whose time is over.
    pub fn overdue(&self, now: Duration) -> Option<Ticket> {
        self.deadlines.first().filter(|(until, _)| *until <= now).map(|(_, ticket)| *ticket)
    }
}

impl Node {
    /// Asks a peer.
    pub(super) fn ask(
        &mut self,
        why: Why,
        (peer, method): (NodeKey, &'static str),
        body: Bytes,
        patience: Duration,
        now: Now,
    ) -> Ticket {
        let ticket = self.questions.wait(why, now.mono + patience);
        self.out.push(Output::Ask { ticket, peer, method, body, patience });
        ticket
    }
}
