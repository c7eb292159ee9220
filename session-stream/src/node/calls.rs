//! Calls that wait: for other members of the swarm, or for the calls they hold. Neighbours: `fan_out` (who is asked),
//! `node` (begins and settles them).

use std::collections::BTreeMap;

use super::io::Ticket;
use super::onion::Back;
use super::room::Place;
use crate::onion::ReplyTo;
use crate::rpc::batch::nested;
use crate::rpc::{Call, Reply};
use crate::value::{Form, Value};

/// The machine's number for a call that waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CallId(u64);

/// Where a call's reply goes.
#[derive(Debug)]
pub enum Then {
    /// To who called, in the form it writes.
    Answer {
        /// The driver's number for the call.
        ticket: Ticket,
        /// How the answer is written.
        form: Form,
        /// Where it waits.
        room: Place,
    },
    /// To who sent an onion.
    Onion {
        /// Whom it came from.
        back: Back,
        /// How the answer is sealed.
        reply: Box<ReplyTo>,
        /// Where it waits.
        room: Place,
    },
    /// To the call that holds it.
    Part {
        /// That call.
        whole: CallId,
        /// Which of its parts this is.
        place: usize,
    },
}

/// What a call waits for.
pub enum Whole {
    /// The swarm's other members.
    Members,
    /// All of its parts.
    Batch {
        /// What they replied.
        replies: Vec<Value>,
        /// How many have not.
        left: usize,
    },
    /// One part, and then perhaps the others.
    Sequence {
        /// The parts that were not begun.
        rest: std::vec::IntoIter<Call>,
        /// What the others replied.
        replies: Vec<Value>,
    },
    /// The branch that was taken.
    Branch {
        /// What is said besides.
        said: BTreeMap<String, Value>,
    },
}

/// What a part's reply leads to.
pub enum Progress {
    /// Others are waited for.
    Waiting,
    /// The next part.
    Next(Call),
    /// The whole has its reply.
    Done(Then, Reply),
}

impl Whole {
    /// Waits for so many parts.
    pub fn batch(parts: usize) -> Whole {
        Whole::Batch { replies: vec![Value::Null; parts], left: parts }
    }
}

/// The calls that wait.
#[derive(Default)]
pub struct Calls {
    waiting: BTreeMap<CallId, (Then, Whole)>,
    last: u64,
}

impl Calls {
    /// Numbers a call that waits.
    pub fn wait(&mut self, then: Then, whole: Whole) -> CallId {
        self.last += 1;
        self.waiting.insert(CallId(self.last), (then, whole));
        CallId(self.last)
    }

    /// The call waits no more.
    pub fn resume(&mut self, call: CallId) -> Option<Then> {
        self.waiting.remove(&call).map(|(then, _)| then)
    }

    /// A part of a call has its reply. If the whole was given up, nobody waits for it.
    pub fn part(&mut self, call: CallId, place: usize, reply: Reply) -> Progress {
        let Some((_, whole)) = self.waiting.get_mut(&call) else { return Progress::Waiting };
        let done = reply.status / 100 == 2;
        let reply = nested(reply);
        let results = match whole {
            Whole::Members => return Progress::Waiting,
            Whole::Batch { replies, left } => {
                replies[place] = reply;
                *left -= 1;
                if *left > 0 {
                    return Progress::Waiting;
                }
                std::mem::take(replies)
            }
            Whole::Sequence { rest, replies } => {
                replies.push(reply);
                if let Some(call) = rest.next().filter(|_| done) {
                    return Progress::Next(call);
                }
                std::mem::take(replies)
            }
            Whole::Branch { said } => {
                let said = std::mem::take(said).into_iter().chain([("result".to_owned(), reply)]);
                let reply = Reply::dict(said);
                return self.resume(call).map_or(Progress::Waiting, |then| Progress::Done(then, reply));
            }
        };
        let reply = Reply::dict([("results", Value::List(results))]);
        self.resume(call).map_or(Progress::Waiting, |then| Progress::Done(then, reply))
    }

    /// Gives up a call and everything it is part of; who is to be told so.
    pub fn drop_whole(&mut self, mut call: CallId) -> Option<Then> {
        loop {
            match self.waiting.remove(&call)?.0 {
                Then::Part { whole, .. } => call = whole,
                then => return Some(then),
            }
        }
    }
}
