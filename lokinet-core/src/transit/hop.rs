//! One path's part at this relay, as the control plane knows it: where it came from, what it is, and what its client asked
//! here. Neighbours: `transit` keeps it, `admit` makes it, `leg` holds the two ways its cells take.

use super::leg::{Down, Up};
use crate::link::LinkId;
use crate::time::{Bucket, Time};
use crate::wire::build::TOKEN;
use crate::wire::fragment::Assembler;
use crate::wire::id::{CallerId, PathId};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

/// Questions of one path that are being looked up, and answers kept in case the client asks again.
pub const ANSWERS_MAX: usize = 16;
/// What the kept answers of one path may take, in bytes: two introsets. Longer ones are given anew instead.
pub const ANSWERS_HELD_MAX: usize = 4608;
/// How long answers are kept: a client gives up asking sooner.
pub const ANSWERS_KEPT: Duration = Duration::from_secs(10);
/// Questions of one path: so many at once, then so many a second.
pub const QUESTIONS: (u32, u32) = (64, 8);

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
    pub(super) down: Arc<Down>,
    pub(super) up: Arc<Up>,
    /// When it ends, as things stand.
    pub(super) expires: Time,
    /// When it ends at the latest, once its client has used it.
    pub(super) lifetime: Time,
    pub(super) desk: Desk,
}

/// What the client asked this hop. Only the pivot's ever holds anything, and only for a few seconds.
pub(super) struct Desk {
    pub(super) assembler: Assembler,
    /// By message number, oldest first; without an answer while it is being looked up.
    answers: VecDeque<(u32, Option<Vec<u8>>)>,
    bucket: Bucket,
    touched: Time,
}

impl Desk {
    pub(super) fn new(now: Time) -> Desk {
        let bucket = Bucket::full(QUESTIONS, now);
        Desk { assembler: Assembler::default(), answers: VecDeque::new(), bucket, touched: now }
    }

    /// Whether the client may ask something now.
    pub(super) fn may_ask(&mut self, now: Time) -> bool {
        self.touched = now;
        self.bucket.take(QUESTIONS, now)
    }

    /// The answer already given under this message number.
    pub(super) fn answered(&self, message: u32) -> Option<Vec<u8>> {
        self.answers.iter().find(|(m, _)| *m == message).and_then(|(_, answer)| answer.clone())
    }

    /// Notes that a question is being looked up; false when it already was, or as many are as may be.
    pub(super) fn note(&mut self, message: u32) -> bool {
        if self.answers.iter().any(|(m, _)| *m == message) {
            return false;
        }
        if self.answers.len() >= ANSWERS_MAX && !self.drop_oldest_answer() {
            return false;
        }
        self.answers.push_back((message, None));
        true
    }

    /// Keeps an answer for a repeated question. A long one is not kept, and its question may be asked anew.
    pub(super) fn remember(&mut self, message: u32, answer: &[u8]) {
        let Some(at) = self.answers.iter().position(|(m, _)| *m == message) else { return };
        self.answers.remove(at);
        if answer.len() > ANSWERS_HELD_MAX {
            return;
        }
        while self.held() + answer.len() > ANSWERS_HELD_MAX && self.drop_oldest_answer() {}
        self.answers.push_back((message, Some(answer.to_vec())));
    }

    fn held(&self) -> usize {
        self.answers.iter().filter_map(|(_, answer)| answer.as_ref()).map(Vec::len).sum()
    }

    fn drop_oldest_answer(&mut self) -> bool {
        let oldest = self.answers.iter().position(|(_, answer)| answer.is_some());
        oldest.and_then(|at| self.answers.remove(at)).is_some()
    }

    /// Forgets what nobody will ask for again.
    pub(super) fn tidy(&mut self, now: Time) {
        if now.since(self.touched) >= ANSWERS_KEPT {
            self.assembler.clear();
            self.answers.retain(|(_, answer)| answer.is_none());
            self.answers.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_nanos(0);

    #[test]
    fn what_a_client_makes_its_pivot_keep_is_bounded_and_goes_away() {
        let mut desk = Desk::new(START);
        for message in 0..1000 {
            assert!(desk.note(message));
            desk.remember(message, &[0; 2202]);
            assert!(desk.held() <= ANSWERS_HELD_MAX && desk.answers.len() <= ANSWERS_MAX);
        }
        assert!(
            desk.answered(999).is_some() && desk.answered(998).is_some(),
            "the newest are the ones asked for again"
        );
        assert!(desk.answered(900).is_none());
        assert!(desk.note(1000));
        desk.remember(1000, &[0; 22_000]);
        assert!(desk.answered(1000).is_none() && desk.note(1000), "a page of contacts is given anew, not kept");
        desk.tidy(START + ANSWERS_KEPT);
        assert_eq!((desk.held(), desk.assembler.held()), (0, 0));
    }

    #[test]
    fn a_client_has_only_so_many_questions_looked_up_at_once_and_a_second() {
        let mut desk = Desk::new(START);
        let open = (0..100).filter(|message| desk.note(*message)).count();
        assert_eq!(open, ANSWERS_MAX);
        desk.remember(3, b"answer");
        assert!(desk.note(200) && !desk.note(201), "an answer makes room for one question");
        assert!(!desk.note(5), "asked anew while it was being looked up");

        let asked = |desk: &mut Desk, now| (0..1000).filter(|_| desk.may_ask(now)).count();
        assert_eq!(asked(&mut desk, START), QUESTIONS.0 as usize);
        assert_eq!(asked(&mut desk, START + Duration::from_secs(1)), QUESTIONS.1 as usize);
    }
}
