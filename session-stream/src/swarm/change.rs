//! What two lists differ in, as far as it concerns us: who is new in our swarm, which swarms came and went, and where we
//! are now. Neighbours: `list` (one of the two), `transfer` and `push` (act on it), the operator (reads it).

use super::list::{List, NodeKey};
use super::map::SwarmId;

/// What a new list changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Where we are now.
    pub ours: Ours,
    /// Who is in our swarm and was not, by key; nobody when we have just come ourselves.
    pub joined: Vec<NodeKey>,
    /// Who was in our swarm and is not.
    pub left: Vec<NodeKey>,
    /// Swarms that are new.
    pub founded: Vec<SwarmId>,
    /// Swarms that are gone.
    pub dissolved: Vec<SwarmId>,
}

/// Where we are now, compared with before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ours {
    /// In no swarm, as before.
    #[default]
    None,
    /// In the swarm we were in.
    Same,
    /// In a swarm, coming from none.
    Joined,
    /// In another swarm, and the one we were in goes on without us.
    Moved,
    /// In another swarm, because the one we were in is no more: its accounts are others' now.
    Dissolved,
    /// In no swarm any more: decommissioned, or not on the list.
    Lost,
}

impl Change {
    /// What happens to `me` between two lists.
    pub fn between(before: &List, after: &List, me: &NodeKey) -> Change {
        let (old, new) = (before.swarms(), after.swarms());
        let (from, to) = (before.swarm_of(me), after.swarm_of(me));
        let ours = match (from, to) {
            (None, None) => Ours::None,
            (None, Some(_)) => Ours::Joined,
            (Some(_), None) => Ours::Lost,
            (Some(from), Some(to)) if from == to => Ours::Same,
            (Some(from), Some(_)) if new.contains(&from) => Ours::Moved,
            (Some(_), Some(_)) => Ours::Dissolved,
        };
        let missing = |here: &List, there: &List| match (ours, from) {
            (Ours::Same, Some(swarm)) => {
                let members = here.nodes.values().filter(|node| node.swarm == swarm);
                members.map(|node| node.key).filter(|key| there.swarm_of(key) != Some(swarm)).collect()
            }
            _ => Vec::new(),
        };
        Change {
            ours,
            joined: missing(after, before),
            left: missing(before, after),
            founded: new.iter().copied().filter(|swarm| !old.contains(swarm)).collect(),
            dissolved: old.iter().copied().filter(|swarm| !new.contains(swarm)).collect(),
        }
    }

    /// Whether it changes nothing for us or for who keeps what.
    pub fn is_nothing(&self) -> bool {
        matches!(self.ours, Ours::None | Ours::Same)
            && self.joined.is_empty()
            && self.left.is_empty()
            && self.founded.is_empty()
            && self.dissolved.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::list::Node;
    use super::*;

    const NOWHERE: u64 = u64::MAX;

    /// Nodes by their key's byte, each with its swarm.
    fn list(nodes: &[(u8, u64)]) -> List {
        let node = |(byte, swarm): &(u8, u64)| Node {
            key: NodeKey([*byte; 32]),
            legacy: [0; 32],
            x25519: [0; 32],
            ip: Ipv4Addr::LOCALHOST,
            https: 1,
            quic: 1,
            swarm: SwarmId(*swarm),
            version: [0; 3],
        };
        List { nodes: nodes.iter().map(node).map(|node| (node.key, node)).collect(), ..List::default() }
    }

    fn change(before: &[(u8, u64)], after: &[(u8, u64)]) -> Change {
        Change::between(&list(before), &list(after), &NodeKey([1; 32]))
    }

    #[test]
    fn nothing_changes_when_strangers_move() {
        let same = change(&[(1, 5), (2, 5), (3, 9), (4, 9)], &[(1, 5), (2, 5), (4, 9), (6, 9)]);
        assert!(same.is_nothing(), "{same:?}");
    }

    #[test]
    fn our_swarm_gains_and_loses_members() {
        let change = change(&[(1, 5), (2, 5), (3, 9)], &[(1, 5), (2, NOWHERE), (3, 9), (4, 5)]);
        assert_eq!(change.joined, [NodeKey([4; 32])]);
        assert_eq!(change.left, [NodeKey([2; 32])], "decommissioned");
        assert_eq!(change.ours, Ours::Same);
    }

    #[test]
    fn swarms_are_founded_and_dissolved() {
        let change = change(&[(1, 5), (2, 9)], &[(1, 5), (2, 7)]);
        assert_eq!((change.founded, change.dissolved), (vec![SwarmId(7)], vec![SwarmId(9)]));
    }

    #[test]
    fn we_come_move_and_go() {
        assert_eq!(change(&[(2, 5)], &[(1, 5), (2, 5)]).ours, Ours::Joined);
        assert_eq!(change(&[], &[(1, NOWHERE)]).ours, Ours::None);
        assert_eq!(change(&[(1, 5), (2, 5)], &[(1, 9), (2, 5)]).ours, Ours::Moved);
        assert_eq!(change(&[(1, 5), (2, 9)], &[(1, 9), (2, 9)]).ours, Ours::Dissolved);
        assert_eq!(change(&[(1, 5)], &[(1, NOWHERE)]).ours, Ours::Lost);
        assert_eq!(change(&[(1, 5)], &[(2, 5)]).ours, Ours::Lost);
        assert!(change(&[(1, 5), (2, 5)], &[(1, 9), (2, 5)]).joined.is_empty(), "we are the one who came");
    }
}
