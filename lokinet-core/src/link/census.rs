//! Links counted, for the laws of the simulated world. Neighbours: `link` keeps the tables; `node::census` asks.

use super::channel::SHARDS;
use super::request::QUEUED_MAX;
use super::{LINKS_MAX, Link, Links, STAGED_MAX};
use crate::wire::cell::Size;
use crate::wire::registry::MAX_RELAYS;

impl Links {
    /// Cells that were put into links, and what became of them.
    pub fn account(&self) -> (&'static str, u64, u64) {
        let staged: u64 = self.live.values().map(Link::staged_cells).sum();
        ("cells put into links", self.cells.0, self.cells.1 + staged + self.dropped)
    }

    /// Every table by name: its size, and the bound it must keep. Only relays of the registry are dialled.
    pub fn tables(&self) -> [(&'static str, usize, usize); 7] {
        let staged = |size: Size| {
            let cells = self.live.values().map(|link| link.staged[size as usize].len() / size.datagram());
            cells.max().unwrap_or_default()
        };
        [
            ("links", self.live.len(), LINKS_MAX),
            ("channel ids", self.channel_ids(), self.live.len() * SHARDS),
            ("dials", self.dials.len(), MAX_RELAYS),
            ("peers backed off from", self.backoff.len(), MAX_RELAYS),
            ("requests that wait for one link", self.requests.most_queued(), QUEUED_MAX),
            ("full cells staged", staged(Size::Full), STAGED_MAX),
            ("small cells staged", staged(Size::Small), STAGED_MAX),
        ]
    }
}
