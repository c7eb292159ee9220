//! What numbers say about numbers: χ², mutual information, and a decoder that is trained to find which sequences belong
//! together. Neighbours: the tests of the eyes ask whether what relays see tells them anything.

/// χ² of counts against what was expected.
pub fn chi_squared(counts: &[f64], expected: &[f64]) -> f64 {
    counts.iter().zip(expected).map(|(n, e)| (n - e) * (n - e) / e).sum()
}

/// A value that χ² with so many degrees of freedom exceeds once in a hundred thousand times (Wilson and Hilferty).
pub fn chi_squared_bound(freedom: usize) -> f64 {
    let k = freedom as f64;
    let cube = 1.0 - 2.0 / (9.0 * k) + 4.265 * (2.0 / (9.0 * k)).sqrt();
    k * cube * cube * cube
}

/// Mutual information of pairs of values below `values`, in bits, less what chance alone would show.
pub fn mutual_information(pairs: &[(usize, usize)], values: usize) -> f64 {
    let n = pairs.len() as f64;
    let (mut joint, mut ones, mut others) = (vec![0.0; values * values], vec![0.0; values], vec![0.0; values]);
    for (one, other) in pairs {
        joint[one * values + other] += 1.0;
        ones[*one] += 1.0;
        others[*other] += 1.0;
    }
    let plain: f64 = (0..values * values)
        .filter(|at| joint[*at] > 0.0)
        .map(|at| joint[at] / n * (joint[at] * n / (ones[at / values] * others[at % values])).log2())
        .sum();
    // Miller and Madow: independent pairs show (a − 1)(b − 1) / 2n nats.
    let seen = |counts: &[f64]| counts.iter().filter(|count| **count > 0.0).count() as f64 - 1.0;
    plain - seen(&ones) * seen(&others) / (2.0 * n * core::f64::consts::LN_2)
}

/// The largest mutual information that independent pairs show, but once in a hundred thousand times, in bits.
pub fn information_bound(pairs: usize, values: usize) -> f64 {
    // 2n·ln 2 times the information is χ² with (a − 1)(b − 1) degrees of freedom.
    let freedom = (values - 1) * (values - 1);
    (chi_squared_bound(freedom) - freedom as f64) / (2.0 * pairs as f64 * core::f64::consts::LN_2)
}

/// Pearson's correlation.
pub fn correlation(one: &[f64], other: &[f64]) -> f64 {
    let n = one.len() as f64;
    let (a, b) = (one.iter().sum::<f64>() / n, other.iter().sum::<f64>() / n);
    let sum = |f: &dyn Fn(f64, f64) -> f64| one.iter().zip(other).map(|(x, y)| f(x - a, y - b)).sum::<f64>();
    let spread = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    if spread == 0.0 { 0.0 } else { sum(&|x, y| x * y) / spread }
}

/// What may betray that two sequences of counters were made for the same cells: equal differences, equal XORs, equal
/// steps, and correlations of the whole, of the low bits and of the steps.
pub fn likeness(one: &[u64], other: &[u64]) -> Vec<f64> {
    let n = one.len() as f64;
    let distinct = |f: &dyn Fn(u64, u64) -> u64| {
        let mut all: Vec<u64> = one.iter().zip(other).map(|(a, b)| f(*a, *b)).collect();
        all.sort_unstable();
        all.dedup();
        all.len() as f64 / n
    };
    let low = |all: &[u64], bits: u32| -> Vec<f64> { all.iter().map(|c| (c & ((1 << bits) - 1)) as f64).collect() };
    let steps = |all: &[u64]| -> Vec<f64> { all.windows(2).map(|w| w[1].wrapping_sub(w[0]) as i64 as f64).collect() };
    let same_bit = one.iter().zip(other).filter(|(a, b)| (*a ^ *b) & 1 == 0).count() as f64 / n;
    let (steps_one, steps_other) = (steps(one), steps(other));
    let same_step = steps_one.iter().zip(&steps_other).filter(|(a, b)| a == b).count() as f64 / n;
    vec![
        distinct(&|a, b| a ^ b),
        distinct(&|a, b| a.wrapping_sub(b)),
        distinct(&|a, b| (a ^ b) & 63),
        correlation(&low(one, 40), &low(other, 40)),
        correlation(&low(one, 6), &low(other, 6)),
        correlation(&low(one, 3), &low(other, 3)),
        correlation(&steps_one, &steps_other),
        same_bit,
        same_step,
    ]
}

/// A decoder that tells pairs which belong together from pairs which do not: logistic regression.
pub struct Decoder {
    middle: Vec<f64>,
    spread: Vec<f64>,
    weights: Vec<f64>,
}

impl Decoder {
    /// Trains on labelled features.
    pub fn train(examples: &[(Vec<f64>, bool)]) -> Decoder {
        let (width, n) = (examples[0].0.len(), examples.len() as f64);
        let middle: Vec<f64> =
            (0..width).map(|at| examples.iter().map(|(features, _)| features[at]).sum::<f64>() / n).collect();
        let spread: Vec<f64> = (0..width)
            .map(|at| examples.iter().map(|(features, _)| (features[at] - middle[at]).powi(2)).sum::<f64>() / n)
            .map(|square| square.sqrt().max(1e-9))
            .collect();
        let mut decoder = Decoder { middle, spread, weights: vec![0.0; width] };
        for _ in 0..400 {
            let mut slope = vec![0.0; width];
            for (features, together) in examples {
                let scaled = decoder.scale(features);
                let off = f64::from(u8::from(*together)) - 1.0 / (1.0 + (-decoder.weigh(&scaled)).exp());
                slope.iter_mut().zip(&scaled).for_each(|(slope, x)| *slope += off * x / n);
            }
            decoder.weights.iter_mut().zip(slope).for_each(|(weight, slope)| *weight += slope);
        }
        decoder
    }

    fn scale(&self, features: &[f64]) -> Vec<f64> {
        features.iter().enumerate().map(|(at, x)| (x - self.middle[at]) / self.spread[at]).collect()
    }

    fn weigh(&self, scaled: &[f64]) -> f64 {
        scaled.iter().zip(&self.weights).map(|(x, weight)| x * weight).sum()
    }

    /// How much the features speak for a pair that belongs together.
    pub fn score(&self, features: &[f64]) -> f64 {
        self.weigh(&self.scale(features))
    }
}

/// Trains a decoder on half of the pairs and has it pick, for each of the rest, the true partner out of `among`: the
/// share it gets right.
pub fn matching(pairs: &[(Vec<u64>, Vec<u64>)], among: usize) -> f64 {
    let (lessons, trials) = pairs.split_at(pairs.len() / 2);
    let other = |all: &[(Vec<u64>, Vec<u64>)], at: usize, by: usize| all[(at + by) % all.len()].1.clone();
    let mut examples = Vec::new();
    for (at, (one, partner)) in lessons.iter().enumerate() {
        examples.push((likeness(one, partner), true));
        examples.push((likeness(one, &other(lessons, at, 1)), false));
    }
    let decoder = Decoder::train(&examples);
    let right = trials.iter().enumerate().filter(|(at, (one, partner))| {
        let truth = decoder.score(&likeness(one, partner));
        // A tie is as good as a coin: it counts as wrong for half of the places.
        let beaten = (1..among).filter(|by| {
            let score = decoder.score(&likeness(one, &other(trials, *at, *by)));
            score > truth || (score == truth && (at + by) % 2 == 0)
        });
        beaten.count() == 0
    });
    right.count() as f64 / trials.len() as f64
}
