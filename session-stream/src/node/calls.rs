//! Calls that wait: for other members of the swarm, or for the calls they hold. Neighbours: `fan_out` (who is asked),
//! `node` (begins and settles them).

use std::collections::BTreeMap;

use super::io::Ticket;
use crate::value::Form;

/// Calls that can wait at a time, and the bytes their bodies may have together.
pub const CALLS_MAX: usize = 4096;
/// See [`CALLS_MAX`].
pub const WEIGHT_MAX: usize = 256 << 20;

/// The machine's number for a call that waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CallId(u64);

/// Where a call's reply goes.
#[derive(Debug)]
pub enum Then {
    /// To who called, in the form he writes; `weight` is what waiting for it costs.
    Answer {
        /// The driver's number for the call.
        ticket: Ticket,
        /// How the answer is written.
        form: Form,
        /// What it counts towards [`WEIGHT_MAX`].
        weight: Weight,
    },
}

/// Bytes that wait; given back by [`Calls::release`].
#[derive(Debug)]
pub struct Weight(usize);

/// The calls that wait.
#[derive(Default)]
pub struct Calls {
    waiting: BTreeMap<CallId, Then>,
    open: usize,
    weight: usize,
    last: u64,
}

impl Calls {
    /// Makes room for a call of so many bytes; nothing when there is none.
    pub fn admit(&mut self, bytes: usize) -> Option<Weight> {
        if self.open >= CALLS_MAX || self.weight + bytes > WEIGHT_MAX {
            return None;
        }
        self.open += 1;
        self.weight += bytes;
        Some(Weight(bytes))
    }

    /// A call has its reply.
    pub fn release(&mut self, weight: Weight) {
        self.open -= 1;
        self.weight -= weight.0;
    }

    /// Numbers a call that waits.
    pub fn wait(&mut self, then: Then) -> CallId {
        self.last += 1;
        self.waiting.insert(CallId(self.last), then);
        CallId(self.last)
    }

    /// The call waits no more.
    pub fn resume(&mut self, call: CallId) -> Option<Then> {
        self.waiting.remove(&call)
    }

    /// Gives up a call and everything it is part of; who is to be told so.
    pub fn drop_whole(&mut self, call: CallId) -> Option<Ticket> {
        let Then::Answer { ticket, weight, .. } = self.waiting.remove(&call)?;
        self.release(weight);
        Some(ticket)
    }
}
