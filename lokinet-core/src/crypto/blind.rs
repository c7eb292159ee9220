//! Blinded keys: whoever knows a service's address can compute the key its introset is published under in a given
//! period, and nobody else can link two periods or come back to the address. The construction is Tor's (rend-spec-v3,
//! appendix A): `A' = h·A` with a clamped hash `h`. Neighbours: `wire::introset` signs with it, `netdb` stores by it.

use crate::crypto::kdf;
use crate::crypto::key::{Identity, SIGNATURE};
use core::time::Duration;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use sha2::{Digest, Sha512};

/// How long one blinded key is used.
pub const PERIOD: Duration = Duration::from_secs(24 * 3600);

/// The number of the period that a wall time lies in.
pub fn period(wall: crate::time::Wall) -> u64 {
    wall.secs() / PERIOD.as_secs()
}

/// A secret key for one period.
pub struct Blinded {
    secret: ExpandedSecretKey,
    public: [u8; 32],
}

/// The public key a service publishes under in `period`; `None` when `address` is not a curve point.
pub fn public(address: &[u8; 32], period: u64) -> Option<[u8; 32]> {
    blind_public(address, &factor(address, period))
}

impl Blinded {
    /// The owner's secret for `period`.
    pub fn new(identity: &Identity, period: u64) -> Option<Blinded> {
        let address = identity.public();
        Blinded::with_factor(identity, &factor(&address, period))
    }

    fn with_factor(identity: &Identity, factor: &[u8; 32]) -> Option<Blinded> {
        let root = ExpandedSecretKey::from(identity.secret().as_bytes());
        let scalar = root.scalar * Scalar::from_bytes_mod_order(clamp_integer(*factor));
        // A prefix of its own: the nonce of a blinded signature must not be the nonce of a root one.
        let prefix: [u8; 64] = Sha512::new()
            .chain_update(b"lokinet onion v1 blinded prefix")
            .chain_update(root.hash_prefix)
            .chain_update(factor)
            .finalize()
            .into();
        let mut hash_prefix = [0; 32];
        hash_prefix.copy_from_slice(&prefix[..32]);
        let public = blind_public(&identity.public(), factor)?;
        Some(Blinded { secret: ExpandedSecretKey { scalar, hash_prefix }, public })
    }

    /// The blinded public key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Signs for a purpose; [`key::verify`](super::key::verify) checks it against [`Blinded::public`].
    pub fn sign(&self, purpose: &str, message: &[u8]) -> Option<[u8; SIGNATURE]> {
        let key = VerifyingKey::from_bytes(&self.public).ok()?;
        Some(raw_sign::<Sha512>(&self.secret, &kdf::digest(purpose, &[message]), &key).to_bytes())
    }
}

fn factor(address: &[u8; 32], period: u64) -> [u8; 32] {
    kdf::digest("blind", &[address, &period.to_be_bytes(), &PERIOD.as_secs().to_be_bytes()])
}

fn blind_public(address: &[u8; 32], factor: &[u8; 32]) -> Option<[u8; 32]> {
    let point = CompressedEdwardsY(*address).decompress()?;
    if point.is_small_order() || !point.is_torsion_free() {
        return None;
    }
    Some((point * Scalar::from_bytes_mod_order(clamp_integer(*factor))).compress().to_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::crypto::key;

    fn hex(text: &str) -> [u8; 32] {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    /// Tor's vector (rend-spec-v3; shared facts §7): the hash is given, not derived.
    #[test]
    fn tor_vector() {
        let identity = Identity::from_seed(&hex("d0989d830e03e14ef6af71a0a1fc8838acfcd89506549f3edbb0f53ac90e4790"));
        assert_eq!(identity.public(), hex("4a343f9ef3da3d8007c709f92f72d376565a4c13dfb8cec853770a99bc06a7c0"));
        let hash = hex("64adde17693392259ca3d785a52d3aa5a39cdb9957ac54144f11a990a0cacbfe");
        let blinded = Blinded::with_factor(&identity, &hash).unwrap();
        assert_eq!(blinded.public(), hex("13a6615b786403d48a88aa0d89df0846b32fa9bba8cce1ac4caec9d2f135d133"));
        assert_eq!(
            blinded.secret.scalar.to_bytes(),
            hex("9602ba168740b7b6c90f857bdca9139d1bf50154d1d18f75064d4cea33c4c600")
        );
    }

    #[test]
    fn owner_and_caller_agree_and_periods_differ() {
        let identity = Identity::from_seed(&[5; 32]);
        for period in [0, 1, 20_000] {
            let blinded = Blinded::new(&identity, period).unwrap();
            assert_eq!(Some(blinded.public()), public(&identity.public(), period));
            let signature = blinded.sign("introset", b"x").unwrap();
            assert!(key::verify(&blinded.public(), "introset", b"x", &signature));
            assert!(!key::verify(&identity.public(), "introset", b"x", &signature));
        }
        assert_ne!(public(&identity.public(), 1), public(&identity.public(), 2));
    }

    #[test]
    fn small_order_addresses_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(public(&one, 1), None);
    }
}
