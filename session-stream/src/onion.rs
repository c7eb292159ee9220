//! Onion requests: a call in layers, one for each node on its way, so that who asks is known to the first only and what
//! is asked to the last. Pure: bytes in, bytes out, nonces from a generator that is given. Neighbours: `node` (carries
//! what is peeled), `client` (wraps), a server's own process ([`server`]).
//!
//! [`hop`] reads an onion and takes one layer off, [`cipher`] is what the layers are made of, [`wrap`] puts them on,
//! [`server`] is what a server behind the last node reads and writes.

pub mod cipher;
pub mod hop;
pub mod server;
pub mod wrap;

pub use cipher::{Cipher, Shared};
pub use hop::{Layer, Onion, Refusal, ReplyTo, peel};

/// Longest onion, and longest plaintext, in bytes.
pub const ONION_MAX: usize = 10 << 20;

/// Splits `N ‖ N bytes ‖ rest`, N being 4 bytes, little-endian; nothing when N says more than there is.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// What [`split`] splits.
pub fn join(first: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + first.len() + rest.len());
    // Nothing here is longer than ONION_MAX, and what were longer would be refused by who reads it.
    out.extend_from_slice(&u32::try_from(first.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(first);
    out.extend_from_slice(rest);
    out
}
