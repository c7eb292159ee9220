//! One path's part at this relay: the opener of what comes down, the sealer of what goes up, and what to do with a
//! body. Neighbours: `transit` finds it by link and path id, `admit` makes it.

use crate::crypto::onion::{BODY_AT, Opener, Sealer, TYPE_AT};
use crate::link::{LinkId, Links};
use crate::time::Time;
use crate::wire::build::TOKEN;
use crate::wire::cell::{Kind, Size};
use crate::wire::fragment::Assembler;
use crate::wire::id::{CallerId, PathId};
use std::collections::VecDeque;

/// Answers kept in case the client asks again.
pub const ANSWERS_MAX: usize = 16;
/// The longest answer that is kept; longer ones are made anew.
pub const ANSWER_KEPT_MAX: usize = 2304;
/// Questions to others that one path may ask: so many at once, then so many a second.
pub const ASKS: (u32, u32) = (64, 8);

/// A hop, safe against its place being used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HopRef {
    pub(super) index: usize,
    pub(super) serial: u64,
}

/// What this relay is on the path.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Passes on; the link is known once the next hop has been reached.
    Middle {
        /// The next link.
        next: Option<LinkId>,
        /// The path's name on it.
        wire: PathId,
    },
    /// The last hop of a path for questions.
    Pivot,
    /// The last hop of a service's path.
    Host {
        /// What callers show.
        token: [u8; TOKEN],
    },
    /// The last hop of a caller's path.
    Caller {
        /// The service's hop here.
        service: usize,
        /// What the service knows the caller by.
        caller: CallerId,
    },
}

/// One path's part at this relay.
pub struct Hop {
    pub(super) serial: u64,
    pub(super) back: (LinkId, PathId),
    pub(super) part: Part,
    pub(super) depth: u8,
    pub(super) opener: Opener,
    pub(super) sealer: Sealer,
    pub(super) expires: Time,
    pub(super) assembler: Assembler,
    pub(super) answers: VecDeque<(u32, Option<Vec<u8>>)>,
    /// Questions that may be asked now, and since when.
    pub(super) asks: (u32, Time),
}

impl Hop {
    /// Adds our layer and stages the cell towards the client.
    pub(super) fn wrap(
        &mut self,
        size: Size,
        kind: Kind,
        links: &mut Links,
        now: Time,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let layer = size.layer(self.depth.into());
        let (link, path) = self.back;
        let sealer = &mut self.sealer;
        links.put(link, path, size, now, |onion| {
            onion[TYPE_AT] = kind as u8;
            fill(&mut onion[BODY_AT..layer - crate::crypto::seal::TAG]);
            sealer.seal(&mut onion[..layer], now);
        })
    }

    /// The answer already given under this message number; an empty one while it is being looked up.
    pub(super) fn answered(&self, message: u32) -> Option<Vec<u8>> {
        self.answers.iter().find(|(m, _)| *m == message).and_then(|(_, answer)| answer.clone())
    }

    /// Notes that a question is being looked up; false when it already was, or when there were too many.
    pub(super) fn note(&mut self, message: u32, now: Time) -> bool {
        if self.answers.iter().any(|(m, _)| *m == message) || !self.spend(now) {
            return false;
        }
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back((message, None));
        true
    }

    fn spend(&mut self, now: Time) -> bool {
        let (tokens, since) = self.asks;
        let earned = (now.since(since).as_millis() as u64 * u64::from(ASKS.1) / 1000).min(ASKS.0.into()) as u32;
        if earned > 0 {
            self.asks = ((tokens + earned).min(ASKS.0), now);
        }
        let left = self.asks.0.checked_sub(1);
        self.asks.0 = left.unwrap_or(0);
        left.is_some()
    }

    /// Keeps an answer for a repeated question; of a long one not even that it was asked.
    pub(super) fn remember(&mut self, message: u32, answer: &[u8]) {
        if answer.len() > ANSWER_KEPT_MAX {
            self.answers.retain(|(m, _)| *m != message);
        } else if let Some(slot) = self.answers.iter_mut().find(|(m, _)| *m == message) {
            slot.1 = Some(answer.to_vec());
        }
    }
}
