//! Authenticated encryption: one key, a counter as nonce, in place. Bulk work is aws-lc's (AES instructions, VAES,
//! AVX-512); the node's own code never touches a round function. [`Key`] is for streams of cells, [`once`] and
//! [`open_once`] for records whose key is used a single time. Neighbours: `onion` and `link::channel` build on `Key`,
//! builds and handshakes on `once`.

use crate::crypto::kdf;
use aws_lc_rs::aead::quic::{AES_256, CHACHA20, HeaderProtectionKey};
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Length of an authentication tag, in bytes.
pub const TAG: usize = 16;

/// Which AEAD.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Suite {
    /// AES-256-GCM, where both ends have AES instructions.
    Aes,
    /// ChaCha20-Poly1305 elsewhere.
    ChaCha,
}

impl Suite {
    /// The suite's number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Suite::Aes => 1,
            Suite::ChaCha => 2,
        }
    }

    /// The suite a number stands for.
    pub fn from_code(code: u8) -> Option<Suite> {
        match code {
            1 => Some(Suite::Aes),
            2 => Some(Suite::ChaCha),
            _ => None,
        }
    }

    fn label(self) -> &'static [u8] {
        match self {
            Suite::Aes => b"aes-256-gcm",
            Suite::ChaCha => b"chacha20-poly1305",
        }
    }
}

/// An AEAD key with its nonce base; every counter value may be sealed once.
pub struct Key {
    key: LessSafeKey,
    iv: [u8; 12],
}

impl Key {
    /// The key a secret gives under `suite`.
    pub fn new(suite: Suite, secret: &[u8; 32]) -> Key {
        let key = kdf::expand::<32>(secret, "key", &[suite.label()]);
        let algorithm = match suite {
            Suite::Aes => &AES_256_GCM,
            Suite::ChaCha => &CHACHA20_POLY1305,
        };
        let iv = *kdf::expand::<12>(secret, "iv", &[suite.label()]);
        match UnboundKey::new(algorithm, key.as_slice()) {
            Ok(key) => Key { key: LessSafeKey::new(key), iv },
            Err(_) => unreachable!("32 bytes are a key of either suite"),
        }
    }

    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, c) in nonce[4..].iter_mut().zip(counter.to_be_bytes()) {
            *byte ^= c;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals in place: `bytes` is the plaintext followed by 16 bytes of room for the tag.
    pub fn seal(&self, counter: u64, aad: &[u8], bytes: &mut [u8]) {
        let Some(end) = bytes.len().checked_sub(TAG) else { return };
        let (plain, room) = bytes.split_at_mut(end);
        // The only refusal is a plaintext of many gigabytes.
        if let Ok(tag) = self.key.seal_in_place_separate_tag(self.nonce(counter), Aad::from(aad), plain) {
            room.copy_from_slice(tag.as_ref());
        }
    }

    /// Opens in place: `bytes` is the ciphertext followed by its tag; true when it is authentic. On false the bytes
    /// are worthless.
    #[must_use]
    pub fn open(&self, counter: u64, aad: &[u8], bytes: &mut [u8]) -> bool {
        self.key.open_in_place(self.nonce(counter), Aad::from(aad), bytes).is_ok()
    }
}

/// A header-protection key (RFC 9001 §5.4): a mask from a sample of the ciphertext.
pub struct Mask(HeaderProtectionKey);

impl Mask {
    /// The key a secret gives under `suite`.
    pub fn new(suite: Suite, secret: &[u8; 32]) -> Mask {
        let key = kdf::expand::<32>(secret, "header", &[suite.label()]);
        let algorithm = match suite {
            Suite::Aes => &AES_256,
            Suite::ChaCha => &CHACHA20,
        };
        match HeaderProtectionKey::new(algorithm, key.as_slice()) {
            Ok(key) => Mask(key),
            Err(_) => unreachable!("32 bytes are a key of either suite"),
        }
    }

    /// Five mask bytes from the first 16 bytes of `sample`.
    pub fn mask(&self, sample: &[u8]) -> [u8; 5] {
        sample.get(..16).and_then(|sample| self.0.new_mask(sample).ok()).unwrap_or_default()
    }
}

/// Seals a record under a key that is used for nothing else: appends the tag.
pub fn once(secret: &[u8; 32], label: &str, aad: &[u8], record: &mut Vec<u8>) {
    let key = Key::new(Suite::ChaCha, &kdf::expand::<32>(secret, "once", &[label.as_bytes()]));
    record.extend_from_slice(&[0; TAG]);
    key.seal(0, aad, record);
}

/// Opens what [`once`] sealed; `None` when it is not authentic.
pub fn open_once(secret: &[u8; 32], label: &str, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let end = sealed.len().checked_sub(TAG)?;
    let key = Key::new(Suite::ChaCha, &kdf::expand::<32>(secret, "once", &[label.as_bytes()]));
    let mut record = Zeroizing::new(sealed.to_vec());
    if !key.open(0, aad, &mut record) {
        return None;
    }
    record.truncate(end);
    Some(record)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn suites_round_trip_and_refuse_every_change() {
        for suite in [Suite::Aes, Suite::ChaCha] {
            let key = Key::new(suite, &[1; 32]);
            let mut cell = b"some plaintext..0123456789abcdef".to_vec();
            let plain = cell.clone();
            key.seal(7, b"head", &mut cell);
            for (counter, aad, flip) in
                [(7, b"head", None), (8, b"head", None), (7, b"hEad", None), (7, b"head", Some(3))]
            {
                let mut copy = cell.clone();
                if let Some(at) = flip {
                    copy[at as usize] ^= 0x10;
                }
                let good = counter == 7 && aad == b"head" && flip.is_none();
                assert_eq!(key.open(counter, aad, &mut copy), good);
                if good {
                    assert_eq!(copy[..16], plain[..16]);
                }
            }
        }
    }

    #[test]
    fn once_binds_label_and_aad() {
        let mut record = b"record".to_vec();
        once(&[2; 32], "a", b"x", &mut record);
        assert_eq!(open_once(&[2; 32], "a", b"x", &record).unwrap().as_slice(), b"record");
        assert!(open_once(&[2; 32], "b", b"x", &record).is_none());
        assert!(open_once(&[2; 32], "a", b"y", &record).is_none());
        assert!(open_once(&[2; 32], "a", b"x", &record[..10]).is_none());
    }
}
