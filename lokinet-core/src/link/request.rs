//! Requests of ours that wait: for a dial to succeed, then for a reply. Bounded per dial and per link and in time; every
//! ticket ends exactly once. One whose link is lost under it is sent again over another: who never saw it answers, who
//! did has answered a question that may be put twice, or refuses a build that may not. Neighbours: `link` decides when to
//! send; the node's machines remember what their tickets were for.

use super::{DialId, LinkId, Place, Ticket};
use crate::time::Time;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most requests that wait for one dial.
pub const QUEUED_MAX: usize = 64;
/// Most requests that wait for replies on one link; more would only wait for streams until their patience ends.
pub const SENT_MAX: usize = 256;
/// How often a request whose link was lost is sent again: two links to one peer may both be left from its life before.
pub const AGAIN_MAX: u8 = 2;

/// A request that waits for its link.
pub struct Queued {
    /// Our number.
    pub ticket: Ticket,
    /// Whom it is for, and where that one is dialled.
    pub(super) place: Place,
    /// Its bytes.
    pub body: Bytes,
    /// When it will have waited long enough, for its link and for its reply.
    pub until: Time,
    /// How often it may still be sent again.
    pub again: u8,
}

/// A request that waits for its reply.
struct Sent {
    link: LinkId,
    /// What to send again; nothing when that would be in vain.
    request: Option<Queued>,
}

/// The requests of a node.
#[derive(Default)]
pub struct Requests {
    next: u64,
    queued: BTreeMap<DialId, VecDeque<Queued>>,
    /// When those that are queued will have waited long enough.
    due: BTreeSet<(Time, Ticket, DialId)>,
    sent: BTreeMap<Ticket, Sent>,
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
    pub fn sent(&mut self, request: Queued, link: LinkId) {
        let (ticket, request) = (request.ticket, Some(request).filter(|request| request.again > 0));
        self.sent.insert(ticket, Sent { link, request });
        *self.waiting.entry(link).or_default() += 1;
    }

    /// A request ended: the link it went out on, if it ever did.
    pub fn ended(&mut self, ticket: Ticket) -> Option<LinkId> {
        self.take(ticket).map(|sent| sent.link)
    }

    /// A request's link is lost: the request, when it is to be sent again.
    pub fn lost(&mut self, ticket: Ticket, now: Time) -> Option<Queued> {
        self.sent.get(&ticket)?.request.as_ref().filter(|request| now < request.until)?;
        let request = self.take(ticket)?.request?;
        Some(Queued { again: request.again - 1, ..request })
    }

    /// Nothing that went out on this link is sent again: we closed it ourselves.
    pub fn give_up(&mut self, link: LinkId) {
        self.sent.values_mut().filter(|sent| sent.link == link).for_each(|sent| sent.request = None);
    }

    fn take(&mut self, ticket: Ticket) -> Option<Sent> {
        let sent = self.sent.remove(&ticket)?;
        if let Some(waiting) = self.waiting.get_mut(&sent.link) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting.remove(&sent.link);
            }
        }
        Some(sent)
    }

    /// The link a request went out on.
    pub fn link_of(&self, ticket: Ticket) -> Option<LinkId> {
        self.sent.get(&ticket).map(|sent| sent.link)
    }

    /// Keeps a request until its dial has succeeded; false when too many wait already.
    pub fn queue(&mut self, dial: DialId, request: Queued) -> bool {
        let queue = self.queued.entry(dial).or_default();
        if queue.len() >= QUEUED_MAX {
            return false;
        }
        self.due.insert((request.until, request.ticket, dial));
        queue.push_back(request);
        true
    }

    /// How many requests wait for the link for which most wait.
    pub fn most_queued(&self) -> usize {
        self.queued.values().map(VecDeque::len).max().unwrap_or_default()
    }

    /// All that waits for a dial, oldest first.
    pub fn unqueue(&mut self, dial: &DialId) -> VecDeque<Queued> {
        let queue = self.queued.remove(dial).unwrap_or_default();
        for request in &queue {
            self.due.remove(&(request.until, request.ticket, *dial));
        }
        queue
    }

    /// When the first of the queued will have waited long enough.
    pub fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(until, ..)| *until)
    }

    /// One that has waited long enough for its dial; the dial may still come to something.
    pub fn overdue(&mut self, now: Time) -> Option<Ticket> {
        let (_, ticket, dial) = *self.due.first().filter(|(until, ..)| *until <= now)?;
        self.due.pop_first();
        if let Some(queue) = self.queued.get_mut(&dial) {
            queue.retain(|request| request.ticket != ticket);
        }
        Some(ticket)
    }
}
