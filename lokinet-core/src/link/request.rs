//! Requests of ours that wait: for a link to be opened, then for a reply. Bounded per peer; every ticket ends exactly
//! once. Neighbours: `link` decides when to send; the node's machines remember what their tickets were for.

use super::{LinkId, Ticket};
use crate::wire::id::RelayId;
use bytes::Bytes;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// Most requests that wait for one peer's link.
pub const QUEUED_MAX: usize = 64;

/// A request that waits for its link.
pub struct Queued {
    /// Our number.
    pub ticket: Ticket,
    /// Its bytes.
    pub body: Bytes,
    /// How long to wait for the reply, once sent.
    pub patience: Duration,
}

/// The requests of a node.
#[derive(Default)]
pub struct Requests {
    next: u64,
    queued: BTreeMap<RelayId, VecDeque<Queued>>,
    sent: BTreeMap<Ticket, LinkId>,
}

impl Requests {
    /// A fresh number.
    pub fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// A request went out on this link.
    pub fn sent(&mut self, ticket: Ticket, link: LinkId) {
        self.sent.insert(ticket, link);
    }

    /// A request ended: the link it went out on, if it ever did.
    pub fn ended(&mut self, ticket: Ticket) -> Option<LinkId> {
        self.sent.remove(&ticket)
    }

    /// The link a request went out on.
    pub fn link_of(&self, ticket: Ticket) -> Option<LinkId> {
        self.sent.get(&ticket).copied()
    }

    /// Keeps a request until its peer's link is up; false when too many wait already.
    pub fn queue(&mut self, peer: RelayId, request: Queued) -> bool {
        let queue = self.queued.entry(peer).or_default();
        if queue.len() >= QUEUED_MAX {
            return false;
        }
        queue.push_back(request);
        true
    }

    /// How many requests wait for the link for which most wait.
    pub fn most_queued(&self) -> usize {
        self.queued.values().map(VecDeque::len).max().unwrap_or_default()
    }

    /// All that waits for a peer, oldest first.
    pub fn unqueue(&mut self, peer: &RelayId) -> VecDeque<Queued> {
        self.queued.remove(peer).unwrap_or_default()
    }
}
