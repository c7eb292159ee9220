//! Transit counted, for the laws of the simulated world: how full its tables are, and where a path goes on. Neighbours:
//! `transit` keeps the tables; `node::census` asks.

use super::admit::REPLAYS_MAX;
use super::hop::Part;
use super::join::CALLERS_MAX;
use super::leg::Leg;
use super::{HOPS_MAX, Transit};
use crate::link::{LINKS_MAX, LinkId};
use crate::time::Time;
use crate::wire::id::PathId;

/// What a hop does with a path that came in by a link under a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Onward {
    /// It ends here.
    Ends,
    /// The next hop is not linked yet.
    Begun,
    /// It goes on by this link, under this name.
    Goes(LinkId, PathId),
}

impl Transit {
    /// Cells of known paths, and what became of them.
    pub fn account(&self) -> (&'static str, u64, u64) {
        let (taken, passed, kept) = self.cells;
        ("cells of paths", taken, passed + kept + self.dropped)
    }

    /// Builds of others that have no answer yet.
    pub fn unanswered(&self) -> u64 {
        self.forwarded.len() as u64
    }

    /// Where the path goes on that comes from a client's side by this link and name; `None` when there is none.
    pub fn onward(&self, link: LinkId, path: PathId) -> Option<Onward> {
        let leg = self.legs.look(|legs| legs.get(&(link, path)).cloned())?;
        let Leg::Down(_) = leg else { return None };
        Some(match self.hops.get(leg.hop())?.as_ref()?.part {
            Part::Middle { next: Some(next), wire } => Onward::Goes(next, wire),
            Part::Middle { next: None, .. } => Onward::Begun,
            Part::Pivot | Part::Host { .. } | Part::Caller { .. } => Onward::Ends,
        })
    }

    /// When the hop ends whose end is next, of all that are there.
    pub fn soonest_end(&self) -> Option<Time> {
        self.hops.iter().flatten().map(|hop| hop.expires).min()
    }

    /// Every table by name: its size, and the bound it must keep.
    pub fn tables(&self) -> [(&'static str, usize, usize); 7] {
        let remembered = self.admit.seen.len();
        [
            ("hops", self.len(), HOPS_MAX),
            ("names of paths on links", self.legs.look(|legs| legs.len()), 2 * self.len()),
            ("ends of hops", self.expiry.len(), self.len()),
            ("builds passed on", self.forwarded.len(), HOPS_MAX),
            ("builds remembered", remembered, REPLAYS_MAX),
            ("build buckets", self.admit.buckets.len(), LINKS_MAX),
            ("callers of one service", self.joins.most_callers(), CALLERS_MAX),
        ]
    }
}
