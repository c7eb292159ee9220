//! The log must not speak of users, and nothing in a world may be an error: this listens to every line above `debug` and
//! ends the run that writes what it must not. Neighbour: `world` hangs it up once per process.

use core::fmt::{Debug, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Once;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Hangs the listener up, where nobody else listens.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(tracing::subscriber::set_global_default(Listener)));
}

/// What is wrong with a line at this level; `None`: nothing.
pub fn breach(level: Level, line: &str) -> Option<&'static str> {
    if level > Level::INFO {
        return None;
    }
    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || ".:[]".contains(c)));
    let told = words.map(|word| word.trim_matches(['.', ':'])).find_map(told);
    told.or_else(|| (level == Level::ERROR).then_some("an error"))
}

/// What a word tells of somebody, if it does.
fn told(word: &str) -> Option<&'static str> {
    let ip = word.parse::<SocketAddr>().map(|addr| addr.ip()).or_else(|_| word.parse::<IpAddr>()).ok();
    if ip.is_some_and(|ip| !ip.is_loopback() && !ip.is_unspecified()) {
        return Some("an IP address");
    }
    if word.ends_with(".loki") || word.ends_with(".snode") {
        return Some("a name");
    }
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if word.len() >= 52 && word.chars().all(letters) {
        return Some("a key");
    }
    (word.len() >= 32 && word.chars().all(|c| c.is_ascii_hexdigit())).then_some("a key")
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let breach = breach(*event.metadata().level(), &line.0);
        assert!(breach.is_none(), "logged {}: {}", breach.unwrap_or_default(), line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{field} {value:?} ");
    }
}
