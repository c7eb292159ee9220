//! Conversations counted, for the laws of the simulated world. Neighbours: `session` keeps the tables; `node::census`
//! asks.

use super::call::Call;
use super::{CALLS_MAX, COLLECTING_MAX, CONVOS_MAX, Sessions};

impl Sessions {
    /// What came and what became of it: bodies, whole handshakes, and packets of programs.
    pub fn accounts(&self) -> [(&'static str, u64, u64); 3] {
        let (bodies, opened, pieces) = self.bodies;
        let (whole, good, vain) = self.handshakes;
        let (taken, sent, lost) = self.packets;
        let convos = self.convos.values().map(|convo| convo.packets.0 + convo.packets.1 + convo.waiting_packets);
        let calls = self.calls.values().map(Call::waiting);
        [
            ("bodies from paths", bodies, opened + pieces + self.dropped),
            ("handshakes", whole, good + vain),
            ("packets of programs", taken, sent + lost + convos.sum::<u64>() + calls.sum::<u64>()),
        ]
    }

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
