//! The hybrid key encapsulation: X25519 (RFC 7748) beside ML-KEM-768 (FIPS 203), both always, so that a secret stays
//! closed while either holds. Both public keys and both ciphertexts are bound into the result, so neither half can be
//! stripped or swapped. Neighbours: `path::build` and `transit::admit` for hops, `session` for conversations.

use crate::crypto::kdf;
use crate::crypto::random::Chance;
use libcrux_ml_kem::mlkem768::{self, MlKem768Ciphertext, MlKem768KeyPair, MlKem768PublicKey};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroizing, optimization_barrier};

const X: usize = 32;
const M_PUBLIC: usize = 1184;
const M_SECRET: usize = 2400;
const M_CIPHERTEXT: usize = 1088;

/// Length of a hybrid public key: X25519 (32) ‖ ML-KEM-768 (1184), in bytes.
pub const PUBLIC: usize = X + M_PUBLIC;
/// Length of a hybrid ciphertext: X25519 ephemeral (32) ‖ ML-KEM-768 (1088), in bytes.
pub const CIPHERTEXT: usize = X + M_CIPHERTEXT;
/// Length of the seed a secret can be kept as, in bytes.
pub const SEED: usize = 32 + 64;

/// A shared secret; erased when dropped.
pub type Shared = Zeroizing<[u8; 32]>;

/// A hybrid secret key.
pub struct Secret {
    seed: Zeroizing<[u8; SEED]>,
    x: StaticSecret,
    /// On the heap, so that moving a secret leaves no copy behind.
    m: Box<MlKem768KeyPair>,
    public: Box<[u8; PUBLIC]>,
}

impl Secret {
    /// A fresh key.
    pub fn generate(chance: &mut Chance) -> Secret {
        Secret::from_seed(chance.secret())
    }

    /// The key made from 96 secret random bytes (X25519 scalar ‖ ML-KEM `d` ‖ `z`).
    pub fn from_seed(seed: Zeroizing<[u8; SEED]>) -> Secret {
        let (mut x_seed, mut m_seed) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 64]));
        x_seed.copy_from_slice(&seed[..32]);
        m_seed.copy_from_slice(&seed[32..]);
        let x = StaticSecret::from(*x_seed);
        let m = Box::new(mlkem768::generate_key_pair(*m_seed));
        let mut public = Box::new([0; PUBLIC]);
        public[..X].copy_from_slice(PublicKey::from(&x).as_bytes());
        public[X..].copy_from_slice(m.pk());
        Secret { seed, x, m, public }
    }

    /// The seed, for keeping it on disk.
    pub fn seed(&self) -> &[u8; SEED] {
        &self.seed
    }

    /// The public key.
    pub fn public(&self) -> &[u8; PUBLIC] {
        &self.public
    }

    /// The secret inside `ciphertext`. ML-KEM never refuses (a wrong one gives an unrelated secret); `None` only for a
    /// degenerate X25519 share.
    pub fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT]) -> Option<Shared> {
        let (x_part, m_part) = halves::<X, M_CIPHERTEXT, CIPHERTEXT>(ciphertext);
        let x_shared = self.x.diffie_hellman(&PublicKey::from(x_part));
        if !x_shared.was_contributory() {
            return None;
        }
        let m_shared = Zeroizing::new(mlkem768::decapsulate(self.m.private_key(), &MlKem768Ciphertext::from(m_part)));
        Some(combine(&m_shared, x_shared.as_bytes(), ciphertext, &self.public))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // libcrux's key has no drop of its own. The barrier keeps the compiler from taking the writing for useless.
        *self.m = MlKem768KeyPair::new([0; M_SECRET], [0; M_PUBLIC]);
        optimization_barrier(&*self.m);
    }
}

/// Makes a secret for the holder of `public`; `None` when the key is malformed.
pub fn encapsulate(public: &[u8; PUBLIC], chance: &mut Chance) -> Option<(Box<[u8; CIPHERTEXT]>, Shared)> {
    let (x_part, m_part) = halves::<X, M_PUBLIC, PUBLIC>(public);
    let m_public = MlKem768PublicKey::from(m_part);
    if !mlkem768::validate_public_key(&m_public) {
        return None;
    }
    let x = StaticSecret::from(*chance.secret::<32>());
    let x_shared = x.diffie_hellman(&PublicKey::from(x_part));
    if !x_shared.was_contributory() {
        return None;
    }
    let (m_ciphertext, m_shared) = mlkem768::encapsulate(&m_public, *chance.secret::<32>());
    let m_shared = Zeroizing::new(m_shared);
    let mut ciphertext = Box::new([0; CIPHERTEXT]);
    ciphertext[..X].copy_from_slice(PublicKey::from(&x).as_bytes());
    ciphertext[X..].copy_from_slice(m_ciphertext.as_slice());
    let shared = combine(&m_shared, x_shared.as_bytes(), &ciphertext, public);
    Some((ciphertext, shared))
}

fn combine(m: &[u8; 32], x: &[u8; 32], ciphertext: &[u8; CIPHERTEXT], public: &[u8; PUBLIC]) -> Shared {
    kdf::extract(&kdf::digest("hybrid", &[ciphertext, public]), &[m, x])
}

fn halves<const A: usize, const B: usize, const N: usize>(whole: &[u8; N]) -> ([u8; A], [u8; B]) {
    const { assert!(A + B == N) };
    let (mut a, mut b) = ([0; A], [0; B]);
    a.copy_from_slice(&whole[..A]);
    b.copy_from_slice(&whole[A..]);
    (a, b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_every_bit_counts() {
        let mut chance = Chance::new([1; 32]);
        let secret = Secret::generate(&mut chance);
        let (ciphertext, shared) = encapsulate(secret.public(), &mut chance).unwrap();
        assert_eq!(*secret.decapsulate(&ciphertext).unwrap(), *shared);
        let again = Secret::from_seed(Zeroizing::new(*secret.seed()));
        assert_eq!(*again.decapsulate(&ciphertext).unwrap(), *shared);
        for position in [0, 31, 32, 700, CIPHERTEXT - 1] {
            let mut bent = ciphertext.clone();
            bent[position] ^= 1;
            assert_ne!(secret.decapsulate(&bent).map(|s| *s), Some(*shared));
        }
    }

    #[test]
    fn a_stripped_half_is_refused_or_useless() {
        let mut chance = Chance::new([2; 32]);
        let secret = Secret::generate(&mut chance);
        let mut no_x = *secret.public();
        no_x[..32].fill(0);
        assert!(encapsulate(&no_x, &mut chance).is_none());
        let mut no_m = *secret.public();
        no_m[32..].fill(0xff);
        assert!(encapsulate(&no_m, &mut chance).is_none());
    }

    /// aws-lc's ML-KEM is the oracle: the two implementations open each other's ciphertexts.
    #[test]
    fn ml_kem_agrees_with_aws_lc() {
        use aws_lc_rs::kem::{DecapsulationKey, EncapsulationKey, ML_KEM_768};
        for round in 0..4u8 {
            let theirs = DecapsulationKey::generate(&ML_KEM_768).unwrap();
            let public = theirs.encapsulation_key().unwrap();
            let bytes: [u8; M_PUBLIC] = public.key_bytes().unwrap().as_ref().try_into().unwrap();
            let (ciphertext, ours) = mlkem768::encapsulate(&MlKem768PublicKey::from(bytes), [round; 32]);
            let opened = theirs.decapsulate(ciphertext.as_slice().as_slice().into()).unwrap();
            assert_eq!(opened.as_ref(), ours);

            let pair = mlkem768::generate_key_pair([round; 64]);
            let (their_ct, their_shared) =
                EncapsulationKey::new(&ML_KEM_768, pair.pk()).unwrap().encapsulate().unwrap();
            let ct: [u8; M_CIPHERTEXT] = their_ct.as_ref().try_into().unwrap();
            let shared = mlkem768::decapsulate(pair.private_key(), &MlKem768Ciphertext::from(ct));
            assert_eq!(their_shared.as_ref(), shared);
        }
    }
}
