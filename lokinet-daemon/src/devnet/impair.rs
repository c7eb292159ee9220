//! `--net`: how bad the wire shall be, as a person writes it and as `status` shows it again. `link` does to frames what
//! is said here, one link for each node; `switch` holds the links.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is shown to who wrote something else.
const FORM: &str = "latency=20ms,jitter=2ms,loss=0.5%,rate=100mbit";
/// Units of time, in microseconds. `s` is the last, since the others end in it.
const TIME: &[(&str, u64)] = &[("us", 1), ("ms", 1_000), ("s", 1_000_000)];
/// Units of speed, in bits per second.
const SPEED: &[(&str, u64)] = &[("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
/// Units of chance, in millionths.
const CHANCE: &[(&str, u64)] = &[("%", 10_000)];
/// The longest time that makes sense: everything gives up before a minute is over.
const TIME_MAX: u64 = 60_000_000;
/// The fastest rate, in bits per second: the switch itself is slower.
const RATE_MAX: u64 = 10_000_000_000;
/// How long a frame waits at most where a rate is given and no queue, or CoDel.
const QUEUE: u64 = 100_000;
/// The queue that is kept short.
const CODEL: &str = "codel";
/// How many bytes a link holds at most, on their way and waiting.
pub const HELD_MAX: usize = 64 << 20;

/// What each node's link does to the frames the node sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Impairment {
    /// How long a frame is on its way, one way, in microseconds.
    latency: u64,
    /// By how much that varies, up and down, each frame anew and evenly; in microseconds, at most the latency.
    jitter: u64,
    /// How many of a million frames are lost, each by itself.
    pub loss: u32,
    /// How many bits a second leave the node; `None` for no limit.
    pub rate: Option<u64>,
    /// How long a frame waits at most for those before it to leave, in microseconds; where it would be longer it is dropped.
    queue: u64,
    /// Whether the queue is kept short by CoDel, as Linux does it before its own interfaces; else only a full one
    /// drops, as in many a modem.
    #[serde(default)]
    pub codel: bool,
    /// What the chance of loss and jitter is drawn from: the same seed, the same draws.
    pub seed: Option<u64>,
}

impl Impairment {
    /// How long a frame is on its way, one way.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.latency)
    }

    /// By how much that varies, up and down.
    pub fn jitter(&self) -> Duration {
        Duration::from_micros(self.jitter)
    }

    /// How long a frame waits at most to leave.
    pub fn queue(&self) -> Duration {
        Duration::from_micros(self.queue)
    }

    /// Whether the parts go together.
    fn check(&self, queued: bool) -> Result<(), String> {
        if self.jitter > self.latency {
            return Err(format!(
                "jitter={} is more than latency={}, and nothing arrives before it is sent; \
                 lower the jitter or raise the latency",
                amount(self.jitter, TIME),
                amount(self.latency, TIME)
            ));
        }
        let Some(rate) = self.rate else {
            return if queued {
                Err("queue= has no meaning without rate=: nothing waits; give a rate or leave the queue out".into())
            } else {
                Ok(())
            };
        };
        let held = u128::from(rate) * u128::from(self.latency + self.jitter + self.queue) / 8_000_000;
        if held > HELD_MAX as u128 {
            return Err(format!(
                "a link would have to hold {} MB (rate times latency, jitter and queue={}), and holds {} at most; \
                 lower one of them",
                held / 1_000_000,
                amount(self.queue, TIME),
                HELD_MAX / 1_000_000
            ));
        }
        Ok(())
    }
}

impl FromStr for Impairment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        let mut queue = None;
        let mut seen = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("{part:?} is no NAME=VALUE; the form is {FORM}"))?;
            if seen.contains(&name) {
                return Err(format!("{name}= is given twice; keep one"));
            }
            seen.push(name);
            match name {
                "latency" => wanted.latency = time(name, value)?,
                "jitter" => wanted.jitter = time(name, value)?,
                "queue" if value == CODEL => wanted.codel = true,
                "queue" => queue = Some(time(name, value)?),
                "loss" => wanted.loss = loss(value)?,
                "rate" => wanted.rate = Some(rate(value)?),
                "seed" => {
                    let seed = value.parse().map_err(|_| format!("seed={value} is no whole number, e.g. seed=7"))?;
                    wanted.seed = Some(seed);
                }
                _ => {
                    return Err(format!(
                        "{name}= is not known; there are latency=, jitter=, loss=, rate=, queue= and seed=, e.g. {FORM}"
                    ));
                }
            }
        }
        let queued = queue.is_some() || wanted.codel;
        if wanted.rate.is_some() || queued {
            wanted.queue = queue.unwrap_or(QUEUE);
            wanted.codel = queue.is_none();
        }
        wanted.check(queued)?;
        Ok(wanted)
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut part = |name: &str, value: u64, units| {
            if value > 0 {
                parts.push(format!("{name}={}", amount(value, units)));
            }
        };
        part("latency", self.latency, TIME);
        part("jitter", self.jitter, TIME);
        part("loss", self.loss.into(), CHANCE);
        part("rate", self.rate.unwrap_or(0), SPEED);
        if self.rate.is_some() {
            let time = amount(self.queue, TIME);
            parts.push(format!("queue={}", if self.codel { CODEL } else { &time }));
        }
        parts.extend(self.seed.map(|seed| format!("seed={seed}")));
        out.write_str(&parts.join(","))
    }
}

fn time(name: &str, value: &str) -> Result<u64, String> {
    let time = number(name, value, TIME, "20ms")?;
    if time > TIME_MAX {
        return Err(format!("{name}={value} is more than a minute, and every program would give up; take less"));
    }
    Ok(time)
}

fn loss(value: &str) -> Result<u32, String> {
    let loss = number("loss", value, CHANCE, "0.5%")?;
    u32::try_from(loss)
        .ok()
        .filter(|loss| *loss <= 1_000_000)
        .ok_or_else(|| format!("loss={value} is more than all there is; take 0% to 100%"))
}

fn rate(value: &str) -> Result<u64, String> {
    match number("rate", value, SPEED, "100mbit")? {
        0 => Err(format!(
            "rate={value} lets nothing pass; leave rate= out for no limit, or cut nodes off by `partition`"
        )),
        rate if rate > RATE_MAX => Err(format!(
            "rate={value} is more than the switch carries; take at most {}, or leave rate= out for no limit",
            amount(RATE_MAX, SPEED)
        )),
        rate => Ok(rate),
    }
}

/// A number with its unit, in the smallest unit's steps.
fn number(name: &str, value: &str, units: &[(&str, u64)], example: &str) -> Result<u64, String> {
    let known: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
    let found = units.iter().find_map(|(unit, worth)| Some((value.strip_suffix(unit)?, *worth)));
    let Some((digits, worth)) = found else {
        let known = known.join(", ");
        return Err(format!("{name}={value} has no unit that fits; write it like {name}={example} ({known})"));
    };
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit() || digit == b'.');
    let Some(number) = digits.parse::<f64>().ok().filter(|_| plain) else {
        return Err(format!(
            "{name}={value} is no number of at least zero with a unit; write it like {name}={example}"
        ));
    };
    let exact = number * worth as f64;
    if number > 0.0 && exact < 0.5 {
        return Err(format!("{name}={value} is too little to be made; the least is {}", amount(1, units)));
    }
    Ok(exact.round() as u64)
}

/// The amount in the largest unit of which there is at least one.
fn amount(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, worth)| value >= *worth).or(units.first());
    fits.map_or(String::new(), |(unit, worth)| format!("{}{unit}", value as f64 / *worth as f64))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Impairment {
        text.parse().unwrap()
    }

    #[test]
    fn what_the_help_shows() {
        let net = parse(FORM);
        assert_eq!((net.latency(), net.jitter()), (Duration::from_millis(20), Duration::from_millis(2)));
        assert_eq!((net.loss, net.rate, net.seed), (5_000, Some(100_000_000), None));
        assert_eq!(net.queue(), Duration::from_millis(100), "a rate brings a queue");
        assert_eq!(net.to_string(), "latency=20ms,jitter=2ms,loss=0.5%,rate=100mbit,queue=codel");
        assert!(
            net.codel
                && !parse("rate=1mbit,queue=100ms").codel
                && parse("queue=codel,rate=1mbit") == parse("rate=1mbit")
        );
    }

    #[test]
    fn every_unit() {
        assert_eq!(parse("latency=1.5s").latency(), Duration::from_millis(1500));
        assert_eq!(parse("latency=250us").latency(), Duration::from_micros(250));
        assert_eq!(parse("rate=56kbit").rate, Some(56_000));
        assert_eq!(parse("rate=2.5gbit,queue=5ms").rate, Some(2_500_000_000));
        assert_eq!(parse("rate=1mbit, queue=0ms, seed=7").to_string(), "rate=1mbit,queue=0us,seed=7");
        assert_eq!(parse("loss=100%").loss, 1_000_000);
        assert_eq!(parse("loss=0.07%").to_string(), "loss=0.07%");
        assert_eq!(parse("latency=20.5ms").to_string(), "latency=20.5ms");
    }

    #[test]
    fn a_bad_one_is_refused_by_its_name_and_with_a_remedy() {
        for (bad, says) in [
            ("", "the form is latency=20ms"),
            ("latency", "the form is latency=20ms"),
            ("colour=red", "colour= is not known; there are latency=, jitter="),
            ("latency=20", "latency=20 has no unit that fits; write it like latency=20ms (us, ms, s)"),
            ("latency=20m", "latency=20m has no unit"),
            ("latency=-1ms", "latency=-1ms is no number"),
            ("latency=ms", "latency=ms is no number"),
            ("latency=1e9ms", "latency=1e9ms is no number"),
            ("jitter=infms", "jitter=infms is no number"),
            ("latency=61s", "more than a minute"),
            ("latency=0.1us", "the least is 1us"),
            ("latency=1ms,latency=2ms", "latency= is given twice"),
            ("latency=1ms,jitter=2ms", "jitter=2ms is more than latency=1ms"),
            ("loss=0.5", "write it like loss=0.5% (%)"),
            ("loss=101%", "0% to 100%"),
            ("rate=fast", "write it like rate=100mbit (kbit, mbit, gbit)"),
            ("rate=0mbit", "lets nothing pass"),
            ("rate=11gbit", "at most 10gbit"),
            ("queue=10ms", "without rate="),
            ("queue=codel", "without rate="),
            ("rate=10gbit,latency=50ms", "lower one of them"),
            ("seed=x", "e.g. seed=7"),
        ] {
            let said = bad.parse::<Impairment>().unwrap_err();
            assert!(said.contains(says), "{bad:?} gets: {said}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_was_said(
            latency in 0..=TIME_MAX / 100, jitter in 0..=10_000u64, loss in 0..=1_000_000u32,
            rate in proptest::option::of(1..=100_000_000u64), seed: Option<u64>,
        ) {
            let queue = if rate.is_some() { QUEUE } else { 0 };
            let codel = rate.is_some();
            let net = Impairment { latency, jitter: jitter.min(latency), loss, rate, queue, codel, seed };
            prop_assume!(net != Impairment::default());
            prop_assert_eq!(parse(&net.to_string()), net);
        }

        #[test]
        fn no_text_makes_it_fall(text in "\\PC{0,40}") {
            let _ = text.parse::<Impairment>();
        }
    }
}
