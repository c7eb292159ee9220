//! The codec's doors, opened for the fuzzers in `tests` alone: the same functions in the same order as `server` and
//! `upstream` call them. Neighbours: `codec` does the work.

use super::codec::{Over, Read, Verdict, read};
use lokinet_core::flow::lease::Range;
use lokinet_core::flow::question::{Answer, Question};

/// What became of a program's bytes.
pub enum Heard {
    /// A question, and how the answer looks over UDP and TCP.
    Asked {
        /// What was asked.
        question: Question,
        /// The reply as a datagram.
        udp: Vec<u8>,
        /// The reply in a stream.
        tcp: Vec<u8>,
        /// Most bytes of a datagram that the program takes.
        limit: usize,
    },
    /// A refusal.
    Refused(Vec<u8>),
    /// No answer at all.
    Nothing,
}

/// Reads what a program sent and writes `answer` to it.
pub fn hear(bytes: &[u8], answer: &Answer) -> Heard {
    match read(bytes) {
        Read::Asked(asked) => Heard::Asked {
            question: asked.question().clone(),
            udp: asked.answer(answer, Over::Udp),
            tcp: asked.answer(answer, Over::Tcp),
            limit: asked.limit(Over::Udp),
        },
        Read::Refused(reply) => Heard::Refused(reply),
        Read::Nothing => Heard::Nothing,
    }
}

/// Whether an upstream's reply to a query would be passed on.
pub fn judge(query: &[u8], reply: &[u8], range: Option<&Range>) -> bool {
    match read(query) {
        Read::Asked(asked) => asked.judge(reply, asked.id(), range) == Verdict::Good,
        _ => false,
    }
}
