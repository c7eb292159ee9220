//! "Did you mean": the known word nearest to one that was mistyped.

/// The candidate that differs least from `word`, if it differs little enough to have been meant.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(LONGEST + 1).collect();
    if word.len() > LONGEST {
        return None;
    }
    let allowed = (word.len() / 3).clamp(1, 3);
    let far = |candidate: &str| distance(&word, &candidate.chars().collect::<Vec<char>>());
    let best = candidates.map(|candidate| (far(candidate), candidate)).min();
    best.filter(|(far, _)| *far <= allowed).map(|(_, candidate)| candidate)
}

/// No name of ours is longer.
const LONGEST: usize = 40;

/// How many letters must be put in, left out, changed or swapped with a neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_hand_are_understood_and_other_words_are_not() {
        let known = ["hops", "paths", "keyfile", "ifaddr", "strict-connect"];
        for (typed, meant) in [
            ("hop", Some("hops")),
            ("ohps", Some("hops")),
            ("KeyFile", Some("keyfile")),
            ("key-file", Some("keyfile")),
            ("strict_conect", Some("strict-connect")),
            ("ifadr", Some("ifaddr")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known.into_iter()), meant, "{typed}");
        }
        assert_eq!(nearest(&"h".repeat(1 << 20), known.into_iter()), None);
    }
}
