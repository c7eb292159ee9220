//! Colluding hops compare the counters that they unmask: nothing in those of the first hop tells which are those of the
//! third. Times are left out, and so is how many cells there were: those are told by traffic itself.

use lokinet_core::crypto::kdf;
use lokinet_core::crypto::onion::{BODY_AT, COUNTER, Opener, TYPE_AT};
use lokinet_core::crypto::seal::{Mask, Suite, TAG};
use lokinet_core::path::layers::Layers;
use lokinet_core::time::Time;
use lokinet_core::wire::cell::{Kind, Size};
use lokinet_tests::statistics::{chi_squared, chi_squared_bound, information_bound, matching, mutual_information};
use zeroize::Zeroizing;

const PATHS: usize = 1000;
const CELLS: usize = 192;
const HOPS: usize = 3;
const NOW: Time = Time::from_nanos(1);

/// The secret of one direction of one hop of one path.
fn secret(path: usize, hop: usize, way: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(kdf::digest("eyes", &[&path.to_be_bytes(), &hop.to_be_bytes(), &[way]]))
}

fn suite(path: usize, hop: usize) -> Suite {
    if (path + hop).is_multiple_of(3) { Suite::ChaCha } else { Suite::Aes }
}

/// A relay's end of one hop, which writes down the counters it unmasks.
struct Hop {
    opener: Opener,
    mask: Mask,
}

impl Hop {
    fn new(path: usize, hop: usize) -> Hop {
        let (suite, secret) = (suite(path, hop), secret(path, hop, 0));
        Hop { opener: Opener::new(suite, &secret), mask: Mask::new(suite, &kdf::expand(&secret, "layer header", &[])) }
    }

    /// Opens its layer and moves what is in it to the front: the counter, and what kind it was.
    fn open(&mut self, onion: &mut [u8], size: Size, depth: usize) -> (u64, Option<Kind>) {
        let layer = &mut onion[..size.layer(depth)];
        let mask = self.mask.mask(&layer[COUNTER..]);
        let counter = layer[..COUNTER].iter().zip(mask).fold(0, |n, (byte, mask)| n << 8 | u64::from(byte ^ mask));
        self.opener.open(layer, NOW).unwrap();
        let kind = Kind::from_byte(layer[TYPE_AT]);
        onion.copy_within(BODY_AT..size.layer(depth) - TAG, 0);
        onion[size.layer(depth) - BODY_AT - TAG..].fill(0);
        (counter, kind)
    }
}

/// The counters of every hop of many paths: of each path, for each hop, those of the same cells in the same order.
fn counters() -> Vec<[Vec<u64>; HOPS]> {
    let path = |path: usize| {
        let secrets = (0..HOPS).map(|hop| (suite(path, hop), [secret(path, hop, 0), secret(path, hop, 1)]));
        let mut layers = Layers::new(secrets);
        let mut hops: [Hop; HOPS] = core::array::from_fn(|hop| Hop::new(path, hop));
        let mut seen: [Vec<u64>; HOPS] = Default::default();
        for _ in 0..CELLS {
            let mut onion = vec![0; Size::Small.onion()];
            layers.wrap(&mut onion, Size::Small, HOPS - 1, Kind::Data, NOW, |_| {});
            for (hop, machine) in hops.iter_mut().enumerate() {
                seen[hop].push(machine.open(&mut onion, Size::Small, HOPS - hop).0);
            }
        }
        seen
    };
    (0..PATHS).map(path).collect()
}

#[test]
fn counters_of_hops_say_nothing_about_each_other() {
    let all = counters();
    // Every pair of hops, and of a counter the low bits that are scrambled, the middle, the epoch, and the last step.
    for (near, far) in [(0, 1), (1, 2), (0, 2)] {
        type Field = fn(&[u64], usize) -> usize;
        let fields: [(&str, Field); 4] = [
            ("low bits", |c, at| (c[at] & 15) as usize),
            ("scrambled bits", |c, at| (c[at] >> 2 & 15) as usize),
            ("step", |c, at| (c[at].wrapping_sub(c[at - 1]) & 15) as usize),
            ("step's size", |c, at| (c[at].wrapping_sub(c[at - 1]) >> 2 & 15) as usize),
        ];
        for (name, field) in fields {
            let pairs: Vec<(usize, usize)> = all
                .iter()
                .flat_map(|hops| (1..CELLS).map(|at| (field(&hops[near], at), field(&hops[far], at))))
                .collect();
            let (told, bound) = (mutual_information(&pairs, 16), information_bound(pairs.len(), 16));
            println!("hops {} and {}, {name}: {told:.6} bits of 4 (bound {bound:.6})", near + 1, far + 1);
            assert!(told < bound, "{name}: {told} bits");
        }
        // Once per path: where each hop began.
        for (name, shift) in [("first sequence", 6), ("epoch", 16), ("epoch's end", 36)] {
            let begin = |c: &[u64]| (c[0] >> shift & 7) as usize;
            let pairs: Vec<(usize, usize)> = all.iter().map(|hops| (begin(&hops[near]), begin(&hops[far]))).collect();
            let (told, bound) = (mutual_information(&pairs, 8), information_bound(pairs.len(), 8));
            println!("hops {} and {}, {name}: {told:.4} bits of 3 (bound {bound:.4})", near + 1, far + 1);
            assert!(told < bound, "{name}: {told} bits");
        }
    }
}

/// What Lokinet's nonces had: an XOR that is the same for every cell of a path. And its like by subtraction.
#[test]
fn no_xor_and_no_difference_of_counters_stays_the_same() {
    for hops in counters() {
        for (near, far) in [(0, 1), (1, 2), (0, 2)] {
            let pairs = || hops[near].iter().zip(&hops[far]);
            let most = |of: &dyn Fn(u64, u64) -> u64| {
                let mut all: Vec<u64> = pairs().map(|(a, b)| of(*a, *b)).collect();
                all.sort_unstable();
                all.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap()
            };
            // Within a block of 64, two permutations agree in a handful of places.
            for (name, most) in [("XOR", most(&|a, b| a ^ b)), ("difference", most(&|a, b| a.wrapping_sub(b)))] {
                assert!(most <= CELLS / 6, "one {name} stands behind {most} of {CELLS} cells");
            }
        }
    }
}

#[test]
fn a_trained_decoder_matches_colluding_hops_no_better_than_chance() {
    const AMONG: usize = 10;
    let all = counters();
    let pairs: Vec<(Vec<u64>, Vec<u64>)> = all.iter().map(|hops| (hops[0].clone(), hops[2].clone())).collect();
    let share = matching(&pairs, AMONG);
    // Chance is a tenth; of 500 trials it has a standard deviation of 1.3 of a hundred.
    println!(
        "a trained decoder finds the true partner among {AMONG} in {:.1} % of 500 trials (chance 10 %)",
        share * 100.0
    );
    assert!(share < 0.16, "the decoder is right in {share} of all trials");
    // The same decoder on counters as they would be with one XOR per path, and with one difference per path.
    let broken = |f: fn(u64, u64) -> u64| -> f64 {
        let pairs: Vec<_> = all
            .iter()
            .map(|hops| (hops[0].clone(), hops[0].iter().map(|counter| f(*counter, hops[2][0])).collect()))
            .collect();
        matching(&pairs, AMONG)
    };
    let (xor, difference) = (broken(|a, b| a ^ b), broken(|a, b| a.wrapping_add(b)));
    println!("on counters with an XOR in common {:.0} %, with a difference {:.0} %", xor * 100.0, difference * 100.0);
    assert!(xor > 0.95 && difference > 0.95, "the decoder is blind");
}

/// All four kinds, to the pivot: a hop that is not addressed sees one kind, one length, and bytes like chance.
#[test]
fn kinds_look_alike_to_hops_that_are_not_addressed() {
    for size in [Size::Small, Size::Full] {
        for kind in [Kind::Data, Kind::Control, Kind::Cover] {
            let mut counts = [[0.0; 256]; HOPS - 1];
            for path in 0..40 {
                let secrets = (0..HOPS).map(|hop| (suite(path, hop), [secret(path, hop, 0), secret(path, hop, 1)]));
                let mut layers = Layers::new(secrets);
                let mut hops: Vec<Hop> = (0..HOPS).map(|hop| Hop::new(path, hop)).collect();
                for _ in 0..25 {
                    let mut onion = vec![0; size.onion()];
                    // A close is a short control message, a cover nothing at all: mostly zeros before they are sealed.
                    layers.wrap(&mut onion, size, HOPS - 1, kind, NOW, |body| body[..9].fill(kind as u8));
                    for (hop, machine) in hops.iter_mut().enumerate() {
                        let (_, opened) = machine.open(&mut onion, size, HOPS - hop);
                        let last = hop + 1 == HOPS;
                        assert_eq!(opened, Some(if last { kind } else { Kind::Pass }));
                        if !last {
                            let body = &onion[..size.layer(HOPS - hop - 1)];
                            body.iter().for_each(|byte| counts[hop][usize::from(*byte)] += 1.0);
                        }
                    }
                }
            }
            for (hop, counts) in counts.iter().enumerate() {
                let expected = [counts.iter().sum::<f64>() / 256.0; 256];
                let (chi, bound) = (chi_squared(counts, &expected), chi_squared_bound(255));
                println!("hop {} sees {kind:?} in {size:?} cells with χ² = {chi:.0} (bound {bound:.0})", hop + 1);
                assert!(chi < bound, "the bytes are not like chance");
            }
        }
    }
}
