//! Which node goes into which swarm, as the registry decides it at every block: the same list and the same seed give the
//! same swarms everywhere. A network's own registry does this; ours needs it for private networks. Neighbours: `map`
//! (the circle swarms lie on), the devnet's mock registry (uses it).
//!
//! Swarms want [`SIZE_NEW`] nodes and must have [`SIZE_MIN`]: newcomers go to the small ones, starving ones take from
//! the big ones, a new one is made when the others can spare its nodes, and one that still starves is dissolved.

use std::collections::BTreeMap;

use super::list::NodeKey;
use super::map::SwarmId;

/// Fewest nodes a swarm may have.
pub const SIZE_MIN: usize = 5;
/// Nodes a new swarm begins with.
pub const SIZE_NEW: usize = 7;
/// Nodes that every swarm must be able to spare, on average, before there is a new one.
const MARGIN: usize = 2;
/// Newcomers go to this part of the swarms, the smallest, in hundredths.
const FILL_BELOW: usize = 25;
/// Starving swarms take from those that are bigger than this part, in hundredths.
const STEAL_ABOVE: usize = 75;

/// The swarms there are, and who is in each.
pub type Assignment = BTreeMap<SwarmId, Vec<NodeKey>>;

/// Puts the newcomers into swarms, and puts right what has become too small or too big. `seed` is the first eight bytes
/// of the block's hash.
pub fn assign(swarms: &mut Assignment, newcomers: &[NodeKey], seed: u64) {
    let mut chance = Chance::new(seed);
    if swarms.is_empty() {
        swarms.insert(SwarmId(0), Vec::new());
    }
    for newcomer in newcomers {
        let swarm = small_one(swarms, FILL_BELOW, &mut chance);
        swarms.entry(swarm).or_default().push(*newcomer);
        create(swarms, &mut chance);
    }
    feed(swarms, &mut chance);
    create(swarms, &mut chance);
    dissolve(swarms, &mut chance);
}

/// One of the smallest swarms: of the given part, and of those as big as its biggest.
fn small_one(swarms: &Assignment, hundredths: usize, chance: &mut Chance) -> SwarmId {
    let sizes = by_size(swarms);
    let last = hundredths * (sizes.len() - 1) / 100;
    let choice = sizes.iter().filter(|(size, _)| *size <= sizes[last].0).count();
    sizes[chance.below(choice)].1
}

fn by_size(swarms: &Assignment) -> Vec<(usize, SwarmId)> {
    let mut sizes: Vec<(usize, SwarmId)> = swarms.iter().map(|(id, nodes)| (nodes.len(), *id)).collect();
    sizes.sort_unstable();
    sizes
}

/// Gives starving swarms nodes of the biggest, until all are fed or those have nothing to spare.
fn feed(swarms: &mut Assignment, chance: &mut Chance) {
    for (size, starving) in by_size(swarms) {
        for _ in size..SIZE_MIN {
            let sizes = by_size(swarms);
            let deficit: usize = sizes.iter().map(|(size, _)| SIZE_MIN.saturating_sub(*size)).sum();
            let upper = sizes[STEAL_ABOVE * (sizes.len() - 1) / 100].0;
            let spare = SIZE_MIN.max(upper.saturating_sub(1));
            let rich: Vec<SwarmId> = sizes.iter().filter(|(size, _)| *size > spare).map(|(_, id)| *id).collect();
            if rich.is_empty() || excess(swarms) < deficit {
                return;
            }
            let Some(node) = take_one(swarms, &rich, chance) else { return };
            swarms.entry(starving).or_default().push(node);
        }
    }
}

/// Nodes that swarms have beyond the fewest.
fn excess(swarms: &Assignment) -> usize {
    swarms.values().map(|nodes| nodes.len().saturating_sub(SIZE_MIN)).sum()
}

/// Takes any node of any of these swarms, each node as likely as another.
fn take_one(swarms: &mut Assignment, from: &[SwarmId], chance: &mut Chance) -> Option<NodeKey> {
    let nodes: usize = from.iter().filter_map(|id| swarms.get(id)).map(Vec::len).sum();
    let mut at = chance.below(nodes);
    for id in from {
        let swarm = swarms.get_mut(id)?;
        if at < swarm.len() {
            return Some(swarm.remove(at));
        }
        at -= swarm.len();
    }
    None
}

/// Makes new swarms while nobody starves and the others can spare the nodes.
fn create(swarms: &mut Assignment, chance: &mut Chance) {
    if swarms.values().any(|nodes| nodes.len() < SIZE_MIN) {
        return;
    }
    while excess(swarms) >= SIZE_NEW + MARGIN * swarms.len() {
        let mut nodes = Vec::new();
        while nodes.len() < SIZE_NEW {
            let rich: Vec<SwarmId> =
                swarms.iter().filter(|(_, nodes)| nodes.len() > SIZE_MIN).map(|(id, _)| *id).collect();
            let Some(node) = take_one(swarms, &rich, chance) else { return };
            nodes.push(node);
        }
        let id = widest_gap(swarms);
        swarms.insert(id, nodes);
    }
}

/// The middle of the widest gap between swarms on the circle.
fn widest_gap(swarms: &Assignment) -> SwarmId {
    let ids: Vec<u64> = swarms.keys().map(|id| id.0).collect();
    let Some((first, last)) = ids.first().zip(ids.last()) else { return SwarmId(0) };
    // Across the seam there is one place fewer: the one that means no swarm.
    let seam = (u64::MAX - last + first, *last);
    let between = ids.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
    let (gap, after) = between.fold(seam, |widest, gap| if gap.0 > widest.0 { gap } else { widest });
    SwarmId(after.wrapping_add(gap / 2))
}

/// Ends the swarms that still starve, unless one is all there is; their nodes go to the smallest of the others.
fn dissolve(swarms: &mut Assignment, chance: &mut Chance) {
    while swarms.len() > 1 {
        let Some(starving) = swarms.iter().find(|(_, nodes)| nodes.len() < SIZE_MIN).map(|(id, _)| *id) else { return };
        for node in swarms.remove(&starving).unwrap_or_default() {
            let swarm = small_one(swarms, 0, chance);
            swarms.entry(swarm).or_default().push(node);
        }
    }
}

/// The 64-bit Mersenne Twister, which every node draws the same numbers from.
struct Chance {
    state: [u64; Chance::WORDS],
    at: usize,
}

impl Chance {
    const WORDS: usize = 312;
    const MIDDLE: usize = 156;

    fn new(seed: u64) -> Chance {
        let mut state = [seed; Self::WORDS];
        for at in 1..Self::WORDS {
            let before = state[at - 1];
            state[at] = 6_364_136_223_846_793_005u64.wrapping_mul(before ^ (before >> 62)).wrapping_add(at as u64);
        }
        Chance { state, at: Self::WORDS }
    }

    fn next(&mut self) -> u64 {
        if self.at == Self::WORDS {
            self.twist();
        }
        let mut word = self.state[self.at];
        self.at += 1;
        word ^= (word >> 29) & 0x5555_5555_5555_5555;
        word ^= (word << 17) & 0x71d6_7fff_eda6_0000;
        word ^= (word << 37) & 0xfff7_eee0_0000_0000;
        word ^ (word >> 43)
    }

    fn twist(&mut self) {
        for at in 0..Self::WORDS {
            let word = (self.state[at] & !0x7fff_ffff) | (self.state[(at + 1) % Self::WORDS] & 0x7fff_ffff);
            let odd = if word & 1 == 1 { 0xb502_6f5a_a966_19e9 } else { 0 };
            self.state[at] = self.state[(at + Self::MIDDLE) % Self::WORDS] ^ (word >> 1) ^ odd;
        }
        self.at = 0;
    }

    /// A number below `n`, each as likely as another; zero when there is none.
    fn below(&mut self, n: usize) -> usize {
        let n = n.max(1) as u64;
        let fair = u64::MAX - u64::MAX % n;
        loop {
            let word = self.next();
            if word < fair {
                return (word / (fair / n)) as usize;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn node(number: u16) -> NodeKey {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        NodeKey(key)
    }

    #[test]
    fn the_twister_is_the_standards() {
        // [rand.predef] of C++: the 10000th number that a default-seeded mt19937_64 gives.
        let mut chance = Chance::new(5489);
        let drawn = (0..10_000).map(|_| chance.next()).last();
        assert_eq!(drawn, Some(9_981_545_732_273_789_042));
    }

    #[test]
    fn fourteen_nodes_are_two_swarms_at_opposite_ends() {
        let mut swarms = Assignment::new();
        assign(&mut swarms, &(0..13).map(node).collect::<Vec<_>>(), 1);
        assert_eq!(swarms.len(), 1);
        assign(&mut swarms, &[node(13)], 2);
        assert_eq!(swarms.keys().map(|id| id.0).collect::<Vec<_>>(), [0, u64::MAX / 2]);
        assert_eq!(swarms.values().map(Vec::len).collect::<Vec<_>>(), [7, 7]);
    }

    #[test]
    fn a_starving_swarm_is_fed_or_dissolved() {
        let swarm = |range: std::ops::Range<u16>| range.map(node).collect::<Vec<_>>();
        let mut fed = Assignment::from([(SwarmId(1), swarm(0..9)), (SwarmId(2), swarm(10..14))]);
        assign(&mut fed, &[], 1);
        assert_eq!(fed.values().map(Vec::len).collect::<Vec<_>>(), [8, 5]);
        let mut dissolved = Assignment::from([(SwarmId(1), swarm(0..5)), (SwarmId(2), swarm(10..14))]);
        assign(&mut dissolved, &[], 1);
        assert_eq!(dissolved.values().map(Vec::len).collect::<Vec<_>>(), [9]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn swarms_keep_their_size_as_nodes_come_and_go(seed: u64, blocks in prop::collection::vec((0u16..30, 0usize..12), 1..30)) {
            let (mut swarms, mut last, mut again) = (Assignment::new(), 0, Assignment::new());
            for (block, (come, go)) in blocks.into_iter().enumerate() {
                let mut chance = Chance::new(seed ^ block as u64);
                for _ in 0..go {
                    let ids: Vec<SwarmId> = swarms.keys().copied().collect();
                    let gone = take_one(&mut swarms, &ids, &mut chance);
                    again.values_mut().for_each(|nodes| nodes.retain(|node| Some(*node) != gone));
                }
                let newcomers: Vec<NodeKey> = (last..last + come).map(node).collect();
                last += come;
                let before: usize = swarms.values().map(Vec::len).sum();
                assign(&mut swarms, &newcomers, seed.wrapping_add(block as u64));
                assign(&mut again, &newcomers, seed.wrapping_add(block as u64));
                prop_assert_eq!(&swarms, &again, "the same seed gives the same swarms");
                let nodes: BTreeSet<NodeKey> = swarms.values().flatten().copied().collect();
                prop_assert_eq!(nodes.len(), before + newcomers.len(), "each node is in one swarm");
                prop_assert_eq!(swarms.values().map(Vec::len).sum::<usize>(), nodes.len());
                if swarms.len() > 1 {
                    prop_assert!(swarms.values().all(|nodes| nodes.len() >= SIZE_MIN), "{:?}", by_size(&swarms));
                }
                prop_assert!(!swarms.contains_key(&SwarmId::UNASSIGNED));
                // What is spared is less than what a new swarm takes: ten nodes each, on average, from the third on.
                prop_assert!(excess(&swarms) < SIZE_NEW + MARGIN * swarms.len());
            }
        }
    }
}
