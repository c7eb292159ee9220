//! The machines wired together. (skeleton while the floors are being written)
pub mod io;
pub mod report;

use crate::time::{Now, Time};
use io::{Input, Output, Wake};

/// A node.
pub struct Node {}

impl Node {
    /// Takes in what happened and answers with what to do.
    pub fn handle(&mut self, _input: Input<'_>, _now: Now) -> Outputs<'_> {
        Outputs { node: self }
    }
    /// When to wake the node, and why.
    pub fn next_wake(&self) -> Option<(Time, Wake)> {
        None
    }
    /// Whether a datagram belongs to one of our channels (else it is QUIC's).
    pub fn is_cell(&self, _datagram: &[u8]) -> bool {
        false
    }
    /// A look at itself.
    pub fn report(&self, _now: Now) -> report::Report {
        report::Report::default()
    }
}

/// What a node wants done; holds the node until it is drained.
pub struct Outputs<'a> {
    node: &'a mut Node,
}

impl Outputs<'_> {
    /// The next thing to do.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Output<'_>> {
        let _ = &mut self.node;
        None
    }
}
