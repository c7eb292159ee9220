//! `--net`: how bad the wire shall be. It is read and checked, and then refused: the kernel's own means (netem) is missing in
//! some kernels, so that impairments will be made in user space, and that is still to come.

use crate::trouble::{Outcome, Trouble};

const FORM: &str = "--net latency=20ms,jitter=2ms,loss=0.5%,rate=100mbit";

/// Refuses, for the reason that fits.
pub fn refuse(text: &str) -> Outcome<()> {
    for part in text.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let fine = match name {
            "latency" | "jitter" => number(value, &["us", "ms", "s"]),
            "loss" => number(value, &["%"]).filter(|loss| *loss <= 100.0),
            "rate" => number(value, &["kbit", "mbit", "gbit"]),
            _ => None,
        };
        if fine.is_none() {
            return Err(Trouble::refusal(format!("--net: {part:?} is not understood; the form is {FORM}")));
        }
    }
    Err(Trouble::refusal(format!(
        "--net {text}: not yet. Some kernels have no netem, so devnet will delay and drop in user space, and that is still \
         to come; leave --net out for a perfect wire"
    )))
}

fn number(value: &str, units: &[&str]) -> Option<f64> {
    let bare = units.iter().find_map(|unit| value.strip_suffix(unit))?;
    bare.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_wish_is_refused_as_not_yet_and_a_bad_one_by_its_name() {
        let good = refuse("latency=20ms,jitter=2ms,loss=0.5%,rate=100mbit").unwrap_err();
        assert!(good.what.contains("not yet") && good.code == 2);
        for bad in ["latency=20", "loss=101%", "rate=fast", "colour=red", "", "latency=-1ms"] {
            let said = refuse(bad).unwrap_err().what;
            assert!(said.contains("is not understood"), "{said}");
        }
    }
}
