//! Conversations counted, for the laws of the simulated world. Neighbours: `session` keeps the tables; `node::census`
//! asks.

use super::{CALLS_MAX, COLLECTING_MAX, CONVOS_MAX, Sessions};

impl Sessions {
    /// Every table by name: its size, and the bound it must keep.
    pub fn tables(&self) -> [(&'static str, usize, usize); 5] {
        [
            ("conversations", self.convos.len(), CONVOS_MAX),
            ("remotes with a conversation", self.by_remote.len(), self.convos.len()),
            ("calls", self.calls.len(), CALLS_MAX),
            ("lookups", self.lookups.len(), CALLS_MAX + CONVOS_MAX),
            ("handshakes in fragments", self.collecting.len(), COLLECTING_MAX),
        ]
    }
}
