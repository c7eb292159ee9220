//! Requests of ours that wait: for a dial to succeed, then for a reply. Bounded per dial and per link; every ticket ends
//! exactly once. Neighbours: `link` decides when to send; the node's machines remember what their tickets were for.

use super::{DialId, LinkId, Ticket};
use bytes::Bytes;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// Most requests that wait for one dial.
pub const QUEUED_MAX: usize = 64;
/// Most requests that wait for replies on one link; more would only wait for streams until their patience ends.
pub const SENT_MAX: usize = 256;

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
    queued: BTreeMap<DialId, VecDeque<Queued>>,
    sent: BTreeMap<Ticket, LinkId>,
    /// How many of them on each link.
    waiting: BTreeMap<LinkId, usize>,
}

impl Requests {
    /// A fresh number.
    pub fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// Whether a link has as many requests to answer as it may.
    pub fn is_full(&self, link: LinkId) -> bool {
        self.waiting.get(&link).is_some_and(|waiting| *waiting >= SENT_MAX)
    }

    /// A request went out on this link.
    pub fn sent(&mut self, ticket: Ticket, link: LinkId) {
        self.sent.insert(ticket, link);
        *self.waiting.entry(link).or_default() += 1;
    }

    /// A request ended: the link it went out on, if it ever did.
    pub fn ended(&mut self, ticket: Ticket) -> Option<LinkId> {
        let link = self.sent.remove(&ticket)?;
        if let Some(waiting) = self.waiting.get_mut(&link) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting.remove(&link);
            }
        }
        Some(link)
    }

    /// The link a request went out on.
    pub fn link_of(&self, ticket: Ticket) -> Option<LinkId> {
        self.sent.get(&ticket).copied()
    }

    /// Keeps a request until its dial has succeeded; false when too many wait already.
    pub fn queue(&mut self, dial: DialId, request: Queued) -> bool {
        let queue = self.queued.entry(dial).or_default();
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

    /// All that waits for a dial, oldest first.
    pub fn unqueue(&mut self, dial: &DialId) -> VecDeque<Queued> {
        self.queued.remove(dial).unwrap_or_default()
    }
}
