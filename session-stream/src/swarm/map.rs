//! Which swarm keeps an account: both are points on a circle of 2^64, and the nearest swarm has it. Neighbours: `list`
//! (which swarms there are), `assign` (where new ones are put).

/// A swarm's name and its place on the circle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwarmId(pub u64);

impl SwarmId {
    /// What a node in no swarm carries. An account may well lie there; a swarm cannot.
    pub const UNASSIGNED: SwarmId = SwarmId(u64::MAX);
}

impl std::fmt::Display for SwarmId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl std::fmt::Debug for SwarmId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "swarm {self}")
    }
}

/// An account's place on the circle: its key's four words, one over the other. The prefix byte says nothing.
pub fn place(account: &[u8; 33]) -> u64 {
    let (words, _) = account[1..].as_chunks::<8>();
    words.iter().fold(0, |place, word| place ^ u64::from_be_bytes(*word))
}

/// The swarm nearest to `place`; in the middle between two, the one to the left. `swarms` are sorted.
pub fn nearest(swarms: &[SwarmId], place: u64) -> Option<SwarmId> {
    let (first, last) = (*swarms.first()?, *swarms.last()?);
    let behind = swarms.partition_point(|swarm| swarm.0 < place);
    let right = swarms.get(behind).copied().unwrap_or(first);
    let left = if behind == 0 { last } else { swarms[behind - 1] };
    // Across the seam of the circle the distances wrap, as everything here does.
    let (to_right, to_left) = (right.0.wrapping_sub(place), place.wrapping_sub(left.0));
    Some(if to_right < to_left { right } else { left })
}

/// The part of the circle that a swarm keeps, named by the swarm and its neighbours on both sides: while these are the
/// same, so is the part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    left: SwarmId,
    swarm: SwarmId,
    right: SwarmId,
}

impl Span {
    /// The part that `swarm` keeps among these, which are sorted; nothing when it is none of them.
    pub fn of(swarms: &[SwarmId], swarm: SwarmId) -> Option<Span> {
        let at = swarms.binary_search(&swarm).ok()?;
        let left = swarms[(at + swarms.len() - 1) % swarms.len()];
        Some(Span { left, swarm, right: swarms[(at + 1) % swarms.len()] })
    }

    /// As it is kept on disk.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (place, id) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([self.left, self.swarm, self.right]) {
            *place = id.0.to_be_bytes();
        }
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn place_of(hex: &str) -> u64 {
        place(&HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap())
    }

    #[test]
    fn an_account_lies_where_upstream_has_it() {
        for (account, at) in [
            ("053506f4a71324b7dd114eddbf4e311f39dde243e1f2cb97c40db1961f70ebaae8", 17_589_930_838_143_112_648),
            ("05cf27da303a50ac8c4b2d43d27259505c9bcd73fc21cf2a57902c3d050730b604", 10_370_619_079_776_428_163),
            ("03d3511706b8b34f6e8411bf07bd22ba6b2435ca56846fbccf6eb1e166a6cd15cc", 2_144_983_569_669_512_198),
            ("ff0f06693428fca9102a451e3f28d9cc743d8ea60a89ab6aa69eb119470c11cbd3", 9_690_840_703_409_570_833),
            ("05ffba630924aa1224bb930dde21c0d11bf004608f2812217f8ac812d6c7e3ad48", 4_532_060_000_165_252_872),
            ("05eeeeeeeeeeeeeeee777777777777777711111111111111118888888888888888", 0),
            ("050123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 0),
            ("05fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe", 1),
            ("05ffffffffffffffffffffffffffffffffffffffffffffffff7fffffffffffffff", 1 << 63),
            ("05000000000000000000000000000000000000000000000000ffffffffffffffff", u64::MAX),
            ("050000000000000000000000000000000000000000000000000123456789abcdef", 0x0123_4567_89ab_cdef),
        ] {
            assert_eq!(place_of(account), at, "{account}");
        }
    }

    fn nearest_of(swarms: &[u64], place: u64) -> u64 {
        let swarms: Vec<SwarmId> = swarms.iter().copied().map(SwarmId).collect();
        nearest(&swarms, place).unwrap().0
    }

    #[test]
    fn the_nearest_swarm_keeps_it_and_the_left_one_in_the_middle() {
        let swarms = [100, 200, 300, 399, 498, 596, 694];
        for (place, swarm) in [
            (100, 100),
            (200, 200),
            (498, 498),
            (0, 100),
            (1, 100),
            (0x8000_0000_0000_0000, 694),
            (0xa000_0000_0000_0000, 100),
            (u64::MAX, 100),
            (u64::MAX - 1, 100),
            (149, 100),
            (150, 100),
            (151, 200),
            (249, 200),
            (250, 200),
            (251, 300),
            (349, 300),
            (350, 399),
            (448, 399),
            (449, 498),
            (546, 498),
            (547, 498),
            (548, 596),
            (645, 596),
            (646, 694),
            (0x8000_0000_0000_018c, 694),
            (0x8000_0000_0000_018d, 694),
            (0x8000_0000_0000_018e, 100),
        ] {
            assert_eq!(nearest_of(&swarms, place), swarm, "{place:#x}");
        }
    }

    #[test]
    fn the_seam_of_the_circle_is_no_edge() {
        let last = 20u64.wrapping_neg();
        let swarms = [100, 200, 300, 399, 498, 596, 694, last];
        assert_eq!(nearest_of(&swarms, 39), last);
        assert_eq!(nearest_of(&swarms, 40), last);
        assert_eq!(nearest_of(&swarms, 41), 100);
        let with_zero = [0, 100, last];
        assert_eq!(nearest_of(&with_zero, u64::MAX), 0);
        assert_eq!(nearest_of(&with_zero, u64::MAX - 1), 0);
    }

    #[test]
    fn one_swarm_keeps_all_and_none_nothing() {
        assert_eq!(nearest_of(&[7], 7), 7);
        assert_eq!(nearest_of(&[7], u64::MAX / 2), 7);
        assert_eq!(nearest(&[], 7), None);
    }

    proptest! {
        #[test]
        fn a_place_stays_where_it_is_while_the_neighbours_do(
            swarms in prop::collection::btree_set(any::<u64>(), 1..20), other: u64, place: u64,
        ) {
            let sorted = |swarms: &std::collections::BTreeSet<u64>| swarms.iter().copied().map(SwarmId).collect::<Vec<_>>();
            let (before, mut more) = (sorted(&swarms), swarms);
            more.insert(other);
            let after = sorted(&more);
            let swarm = nearest(&before, place).unwrap();
            if Span::of(&before, swarm) == Span::of(&after, swarm) {
                prop_assert_eq!(nearest(&after, place), Some(swarm));
            }
        }

        #[test]
        fn no_swarm_is_nearer(swarms in prop::collection::btree_set(any::<u64>(), 1..20), place: u64) {
            let swarms: Vec<u64> = swarms.into_iter().collect();
            let distance = |swarm: u64| swarm.wrapping_sub(place).min(place.wrapping_sub(swarm));
            let nearest = swarms.iter().map(|swarm| distance(*swarm)).min().unwrap();
            prop_assert_eq!(distance(nearest_of(&swarms, place)), nearest);
        }
    }
}
