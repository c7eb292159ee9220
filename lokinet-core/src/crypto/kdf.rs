//! Key derivation: HKDF-SHA-256 (RFC 5869) and SHA-256 with labels. Every label begins with the protocol's name and
//! version, and every part is preceded by its length, so no two uses can collide. Neighbours: every other crypto file.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const PROTOCOL: &[u8] = b"lokinet onion v1";

/// Derives `N` bytes (at most 8160) from a uniformly random secret for the use that `label` and `parts` name.
pub fn expand<const N: usize>(secret: &[u8; 32], label: &str, parts: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32) };
    let mut out = Zeroizing::new([0; N]);
    let info = framed(label, parts);
    // A 32-byte key and at most 8160 bytes: neither call can refuse.
    if let Ok(key) = Hkdf::<Sha256>::from_prk(secret) {
        let refused = key.expand(&info, out.as_mut_slice()).is_err();
        debug_assert!(!refused);
    }
    out
}

/// Mixes secrets that need not be uniform into one 32-byte key, bound to a transcript.
pub fn extract(transcript: &[u8; 32], secrets: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut input = Zeroizing::new(Vec::with_capacity(secrets.iter().map(|s| s.len() + 4).sum()));
    for secret in secrets {
        input.extend_from_slice(&(secret.len() as u32).to_be_bytes());
        input.extend_from_slice(secret);
    }
    let (key, _) = Hkdf::<Sha256>::extract(Some(transcript), &input);
    Zeroizing::new(key.into())
}

/// SHA-256 over labelled parts.
pub fn digest(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(framed(label, parts)).into()
}

fn framed(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + parts.iter().map(|p| p.len() + 4).sum::<usize>());
    for part in [PROTOCOL, label.as_bytes()].into_iter().chain(parts.iter().copied()) {
        bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(digest("t", &[b"ab", b"c"]), digest("t", &[b"a", b"bc"]));
        assert_ne!(digest("t", &[b"x"]), digest("u", &[b"x"]));
        assert_ne!(*expand::<32>(&[1; 32], "t", &[b"ab"]), *expand::<32>(&[1; 32], "t", &[b"a", b"b"]));
    }
}
