//! What a stranger may throw at us, as functions from bytes: one for each decoder, two for whole nodes, one for a whole
//! town. Each panics when it finds a fault and says nothing otherwise. `tests/fuzz` lets libFuzzer look for bytes that
//! do it, `tests/tests/corpus.rs` replays what is kept there. Neighbours: `seeds` makes the first bytes with the real
//! encoders, `feed` turns bytes into choices.

pub mod client;
pub mod feed;
mod hops;
mod host;
mod layers;
mod network;
mod packet;
mod records;
pub mod relay;
pub mod seeds;
mod stage;
mod town;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 20] = [
    ("address", host::address),
    ("cell", layers::cell),
    ("client", client::run),
    ("contact", records::contact),
    ("control", records::control),
    ("dns", host::dns),
    ("fragment", packet::fragment),
    ("frames", packet::frames),
    ("handshake", records::handshake),
    ("ini", host::ini),
    ("introset", records::introset),
    ("offload", packet::offload),
    ("onion", layers::onion),
    ("packet", packet::packet),
    ("record", records::record),
    ("registry", records::registry),
    ("relay", relay::run),
    ("request", records::request),
    ("saved", records::saved),
    ("town", town::run),
];

/// Runs one target by name.
///
/// # Panics
/// There is no such target, or the bytes found a fault.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(bytes);
}
