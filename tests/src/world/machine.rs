//! What the world can house: the node, or anything else with the node's border, such as a hostile relay or a stand-in
//! for testing the world itself. Neighbours: `host` keeps one, `town` makes real nodes.

use lokinet_core::node::Node;
use lokinet_core::node::io::{Input, Output, Saved, Wake};
use lokinet_core::node::report::Report;
use lokinet_core::time::{Now, Time};

/// A machine behind the border of `node::io`.
pub trait Machine {
    /// Takes in what happened and tells `act` everything to do, in order.
    fn handle(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>));
    /// When to wake it, and why.
    fn next_wake(&self) -> Option<(Time, Wake)>;
    /// Whether a datagram belongs to one of its cell channels.
    fn is_cell(&self, datagram: &[u8]) -> bool;
    /// A look at itself.
    fn report(&self, now: Now) -> Report;
    /// The node in it that keeps the world's laws; `None` for what keeps none.
    fn node(&self) -> Option<&Node> {
        None
    }
}

impl Machine for Node {
    fn handle(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        let mut outputs = Node::handle(self, input, now);
        while let Some(output) = outputs.next() {
            act(output);
        }
    }

    fn next_wake(&self) -> Option<(Time, Wake)> {
        Node::next_wake(self)
    }

    fn is_cell(&self, datagram: &[u8]) -> bool {
        Node::is_cell(self, datagram)
    }

    fn report(&self, now: Now) -> Report {
        Node::report(self, now)
    }

    fn node(&self) -> Option<&Node> {
        Some(self)
    }
}

/// What a machine is born with, afresh at each start.
pub struct Birth {
    /// Chance, new at each start, as the operating system would give it.
    pub seed: [u8; 32],
    /// The host's clocks.
    pub now: Now,
    /// What earlier lives kept on disk.
    pub saved: Saved,
    /// Signed contacts of the town's bootstraps, as far as they have published any.
    pub bootstraps: Vec<bytes::Bytes>,
}

/// Makes a host's machine, once per start.
pub type Build = Box<dyn Fn(Birth) -> Box<dyn Machine>>;
