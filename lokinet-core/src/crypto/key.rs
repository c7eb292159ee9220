//! Ed25519 identities (RFC 8032): whoever signs, signs for a named purpose. Verification is strict (no small-order
//! keys, no malleable signatures). Neighbours: `blind` derives period keys from an identity; `wire::contact`,
//! `wire::registry` and `wire::introset` say what is signed.

use crate::crypto::kdf;
use crate::crypto::random::Chance;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// Length of a signature, in bytes.
pub const SIGNATURE: usize = 64;

/// An Ed25519 secret key; erased when dropped, silent in `Debug`.
#[derive(Clone)]
pub struct Identity(SigningKey);

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Identity {
    /// The identity whose RFC 8032 seed this is.
    pub fn from_seed(seed: &[u8; 32]) -> Identity {
        Identity(SigningKey::from_bytes(seed))
    }

    /// A fresh identity.
    pub fn generate(chance: &mut Chance) -> Identity {
        Identity::from_seed(&chance.secret())
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `message` for `purpose`; a signature for one purpose is worth nothing for another.
    pub fn sign(&self, purpose: &str, message: &[u8]) -> [u8; SIGNATURE] {
        self.0.sign(&kdf::digest(purpose, &[message])).to_bytes()
    }

    pub(crate) fn secret(&self) -> &SigningKey {
        &self.0
    }
}

/// Whether `signature` is `public`'s, over `message`, for `purpose`.
pub fn verify(public: &[u8; 32], purpose: &str, message: &[u8], signature: &[u8; SIGNATURE]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else { return false };
    key.verify_strict(&kdf::digest(purpose, &[message]), &Signature::from_bytes(signature)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purpose_message_and_key_are_bound() {
        let identity = Identity::from_seed(&[3; 32]);
        let signature = identity.sign("contact", b"hello");
        assert!(verify(&identity.public(), "contact", b"hello", &signature));
        assert!(!verify(&identity.public(), "introset", b"hello", &signature));
        assert!(!verify(&identity.public(), "contact", b"hellp", &signature));
        assert!(!verify(&Identity::from_seed(&[4; 32]).public(), "contact", b"hello", &signature));
        assert_eq!(format!("{identity:?}"), "Identity(..)");
    }
}
