//! What a layer is sealed with: X25519 (RFC 7748) between a key made for it and the node's own, and one of three ciphers
//! that clients have used over the years. Neighbours: `hop` (opens), `wrap` (seals), both for replies the other way round.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use rand_core::Rng;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Which cipher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cipher {
    /// AES-256-GCM under HMAC-SHA256 of the shared secret: `nonce 12 ‖ ciphertext ‖ tag 16`.
    AesGcm,
    /// XChaCha20-Poly1305 under BLAKE2b of the shared secret and both keys: `nonce 24 ‖ ciphertext ‖ tag 16`.
    XChaCha20,
    /// AES-256-CBC under the shared secret itself: `iv 16 ‖ ciphertext`, PKCS #7. It proves nothing; old clients use it.
    AesCbc,
}

impl Cipher {
    /// The cipher of this name.
    pub fn named(name: &str) -> Option<Cipher> {
        match name {
            "aes-gcm" | "gcm" => Some(Cipher::AesGcm),
            "xchacha20" | "xchacha20-poly1305" => Some(Cipher::XChaCha20),
            "aes-cbc" | "cbc" => Some(Cipher::AesCbc),
            _ => None,
        }
    }

    /// Its name, as clients write it.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::AesGcm => "aes-gcm",
            Cipher::XChaCha20 => "xchacha20",
            Cipher::AesCbc => "aes-cbc",
        }
    }
}

/// A cipher with its key, the same at both ends and for both directions. Erased when dropped.
pub struct Shared {
    cipher: Cipher,
    key: Zeroizing<[u8; 32]>,
}

impl Shared {
    /// The node's end: its secret, and the key a client made for it. Nothing for a degenerate key.
    pub fn at_node(cipher: Cipher, node: &StaticSecret, client: &[u8; 32]) -> Option<Shared> {
        let own = PublicKey::from(node).to_bytes();
        Shared::of(cipher, node, client, client, &own)
    }

    /// The client's end: the secret it made for this node, and the node's key. Nothing for a degenerate key.
    pub fn at_client(cipher: Cipher, client: &StaticSecret, node: &[u8; 32]) -> Option<Shared> {
        let own = PublicKey::from(client).to_bytes();
        Shared::of(cipher, client, node, &own, node)
    }

    fn of(
        cipher: Cipher,
        mine: &StaticSecret,
        theirs: &[u8; 32],
        client: &[u8; 32],
        node: &[u8; 32],
    ) -> Option<Shared> {
        let secret = mine.diffie_hellman(&PublicKey::from(*theirs));
        if !secret.was_contributory() {
            return None;
        }
        let mut key = Zeroizing::new([0; 32]);
        match cipher {
            Cipher::AesGcm => {
                let salted = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"LOKI"), secret.as_bytes());
                key.copy_from_slice(salted.as_ref());
            }
            Cipher::XChaCha20 => {
                let hash =
                    Blake2b::<U32>::new().chain_update(secret.as_bytes()).chain_update(client).chain_update(node);
                key.copy_from_slice(&hash.finalize());
            }
            Cipher::AesCbc => key.copy_from_slice(secret.as_bytes()),
        }
        Some(Shared { cipher, key })
    }

    /// Seals under a fresh nonce. Nothing only if the library refuses, which it has no reason to.
    pub fn seal(&self, plain: &[u8], chance: &mut impl Rng) -> Option<Vec<u8>> {
        match self.cipher {
            Cipher::AesGcm => {
                let mut nonce = [0; 12];
                chance.fill_bytes(&mut nonce);
                let mut sealed = [&nonce, plain].concat();
                let tag = self
                    .gcm()?
                    .seal_in_place_separate_tag(
                        Nonce::assume_unique_for_key(nonce),
                        Aad::empty(),
                        &mut sealed[nonce.len()..],
                    )
                    .ok()?;
                sealed.extend_from_slice(tag.as_ref());
                Some(sealed)
            }
            Cipher::XChaCha20 => {
                let mut nonce = [0; 24];
                chance.fill_bytes(&mut nonce);
                let sealed = self.xchacha().encrypt(&XNonce::from(nonce), plain).ok()?;
                Some([&nonce[..], &sealed].concat())
            }
            Cipher::AesCbc => {
                let mut iv = [0; 16];
                chance.fill_bytes(&mut iv);
                let key = UnboundCipherKey::new(&AES_256, &self.key[..]).ok()?;
                let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).ok()?;
                let mut sealed = plain.to_vec();
                key.less_safe_encrypt(&mut sealed, EncryptionContext::Iv128(FixedLength::from(iv))).ok()?;
                Some([&iv[..], &sealed].concat())
            }
        }
    }

    /// Opens what the other end sealed; nothing if it did not.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        match self.cipher {
            Cipher::AesGcm => {
                let (nonce, rest) = sealed.split_first_chunk()?;
                let mut plain = rest.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let length = self.gcm()?.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
                plain.truncate(length);
                Some(plain)
            }
            Cipher::XChaCha20 => {
                let (nonce, rest) = sealed.split_first_chunk::<24>()?;
                self.xchacha().decrypt(&XNonce::from(*nonce), rest).ok()
            }
            Cipher::AesCbc => {
                let (iv, rest) = sealed.split_first_chunk::<16>()?;
                let key = UnboundCipherKey::new(&AES_256, &self.key[..]).ok()?;
                let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
                let mut plain = rest.to_vec();
                let length = key.decrypt(&mut plain, DecryptionContext::Iv128(FixedLength::from(*iv))).ok()?.len();
                plain.truncate(length);
                Some(plain)
            }
        }
    }

    fn gcm(&self) -> Option<LessSafeKey> {
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.key[..]).ok()?))
    }

    fn xchacha(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.key).into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use data_encoding::HEXLOWER;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const ALL: [Cipher; 3] = [Cipher::AesGcm, Cipher::XChaCha20, Cipher::AesCbc];

    fn ends(cipher: Cipher) -> (Shared, Shared) {
        let (client, node) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
        let at_client = Shared::at_client(cipher, &client, PublicKey::from(&node).as_bytes()).unwrap();
        (at_client, Shared::at_node(cipher, &node, PublicKey::from(&client).as_bytes()).unwrap())
    }

    /// Made with Python's `cryptography` and `hashlib`, HChaCha20 by hand after its draft: client's secret 1…1, node's 2…2,
    /// nonces counting up from zero.
    #[test]
    fn what_others_seal_is_opened() {
        for (cipher, sealed) in [
            (Cipher::AesGcm, "000102030405060708090a0bdb3f834c0e5743c3aea1894e6a3160804d33967af2de07500a3f78"),
            (
                Cipher::XChaCha20,
                "000102030405060708090a0b0c0d0e0f1011121314151617bed5fd473bd0c271cad7525697e0ed7b77db820a6a7a16f1f6bbbc",
            ),
            (Cipher::AesCbc, "000102030405060708090a0b0c0d0e0f047c99b84762c6eed1accaa88e39bef4"),
        ] {
            let sealed = HEXLOWER.decode(sealed.as_bytes()).unwrap();
            let (client, node) = ends(cipher);
            assert_eq!(node.open(&sealed).unwrap(), b"Hello world", "{cipher:?}");
            assert_eq!(client.open(&sealed).unwrap(), b"Hello world", "{cipher:?}");
        }
    }

    #[test]
    fn sizes_grow_as_the_ancestors_do() {
        let mut chance = ChaCha20Rng::from_seed([3; 32]);
        for (cipher, more) in [(Cipher::AesGcm, 28), (Cipher::XChaCha20, 40), (Cipher::AesCbc, 29)] {
            let (client, node) = ends(cipher);
            let sealed = client.seal(&[7; 19], &mut chance).unwrap();
            assert_eq!(sealed.len(), 19 + more, "{cipher:?}");
            assert_eq!(node.open(&sealed).unwrap(), [7; 19]);
            assert_ne!(client.seal(&[7; 19], &mut chance).unwrap(), sealed);
        }
    }

    #[test]
    fn what_was_touched_or_cut_does_not_open() {
        let mut chance = ChaCha20Rng::from_seed([3; 32]);
        for cipher in [Cipher::AesGcm, Cipher::XChaCha20] {
            let (client, node) = ends(cipher);
            let sealed = client.seal(b"Hello world", &mut chance).unwrap();
            for at in 0..sealed.len() {
                let mut touched = sealed.clone();
                touched[at] ^= 1;
                assert_eq!(node.open(&touched), None, "{cipher:?} {at}");
                assert_eq!(node.open(&sealed[..at]), None, "{cipher:?} {at}");
            }
        }
        let (_, node) = ends(Cipher::AesCbc);
        assert_eq!(node.open(&[0; 16]), None);
        assert_eq!(node.open(&[0; 31]), None);
    }

    #[test]
    fn a_degenerate_key_shares_nothing() {
        for cipher in ALL {
            assert!(Shared::at_node(cipher, &StaticSecret::from([2; 32]), &[0; 32]).is_none());
        }
    }

    #[test]
    fn names_are_read_in_every_spelling() {
        for cipher in ALL {
            assert_eq!(Cipher::named(cipher.name()), Some(cipher));
        }
        assert_eq!(Cipher::named("gcm"), Some(Cipher::AesGcm));
        assert_eq!(Cipher::named("cbc"), Some(Cipher::AesCbc));
        assert_eq!(Cipher::named("xchacha20-poly1305"), Some(Cipher::XChaCha20));
        assert_eq!(Cipher::named("AES-GCM"), None);
    }
}
