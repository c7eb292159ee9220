//! Test vectors: everything the wire and the keys are made of, from inputs that are written here. `tests/vectors` holds
//! what came out once; whoever changes it changes the protocol. `LOKINET_WRITE_VECTORS=1` writes it anew. What others
//! have published is held against them at the end. Neighbours: `wycheproof` holds the primitives below.

#![allow(clippy::unwrap_used)]

mod wire;

use core::fmt::Write;
use core::time::Duration;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use data_encoding::HEXLOWER;
use lokinet_core::crypto::blind::{self, Blinded};
use lokinet_core::crypto::exchange::{self, Secret};
use lokinet_core::crypto::kdf;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::onion::{BODY_AT, EPOCH_TIME, OVERHEAD, Opener, Order, Sealer, TYPE_AT};
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::{self, Key, Mask, Suite, TAG};
use lokinet_core::link::Role;
use lokinet_core::link::channel::Channel;
use lokinet_core::path::layers::Layers;
use lokinet_core::time::{Time, Wall};
use lokinet_core::wire::address::{self, LokiAddress};
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::cell::{Kind, Size};
use lokinet_core::wire::contact;
use lokinet_core::wire::id::{PathId, RelayId};
use std::fs;
use std::path::Path;

/// Longer values are written as their length and SHA-256.
const WHOLE: usize = 600;
const NOW: Wall = Wall::from_secs(1_767_225_600);
const SUITES: [(Suite, &str); 2] = [(Suite::Aes, "aes-256-gcm"), (Suite::ChaCha, "chacha20-poly1305")];

/// One file of vectors: what each line is, and its value.
struct Page(String);

impl Page {
    fn new(about: &str) -> Page {
        Page(about.lines().map(|line| format!("# {}\n", line.trim())).collect())
    }

    fn text(&mut self, name: &str, value: &str) {
        writeln!(self.0, "{name} = {value}").unwrap();
    }

    fn bytes(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        if value.len() <= WHOLE {
            self.text(name, &HEXLOWER.encode(value));
        } else {
            let digest = <sha2::Sha256 as sha2::Digest>::digest(value);
            self.text(name, &format!("{} bytes, sha-256 {}", value.len(), HEXLOWER.encode(&digest)));
        }
    }

    /// Compares with the file of that name, or writes it.
    fn hold(self, name: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
        if std::env::var_os("LOKINET_WRITE_VECTORS").is_some() {
            fs::write(&file, &self.0).unwrap();
        }
        let held = fs::read_to_string(&file).unwrap();
        for (number, (held, made)) in held.lines().zip(self.0.lines()).enumerate() {
            assert_eq!(held, made, "{name}:{}: the protocol has changed", number + 1);
        }
        assert_eq!(held.lines().count(), self.0.lines().count(), "{name}: lines are missing");
    }
}

fn counted<const N: usize>(from: u8) -> [u8; N] {
    core::array::from_fn(|i| from.wrapping_add(i as u8))
}

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

fn secret(number: u8) -> Secret {
    Secret::generate(&mut Chance::new([number; 32]))
}

fn relay_at(n: u8) -> Addrs {
    Addrs::from_list(&[format!("10.{n}.0.1:1090").parse().unwrap(), format!("[2620::{n}]:1090").parse().unwrap()])
}

#[test]
fn keys() {
    let mut page = Page::new(
        "Key derivation (spec chapter 10): HKDF-SHA-256 and SHA-256 over length-framed parts.
         The secret is 00 01 .. 1f, the parts are 'one' and 'two', the transcript is 20 21 .. 3f.",
    );
    let (input, transcript) = (counted::<32>(0), counted::<32>(32));
    page.bytes("digest, label 'test'", kdf::digest("test", &[b"one", b"two"]));
    page.bytes("expand to 42, label 'test'", &kdf::expand::<42>(&input, "test", &[b"one", b"two"])[..]);
    page.bytes("extract", &kdf::extract(&transcript, &[b"one", b"two"])[..]);
    for label in [
        "epoch",
        "ratchet",
        "scramble",
        "layer header",
        "layer forward",
        "layer backward",
        "channel",
        "channel ratchet",
        "channel header",
        "session to service",
        "session to caller",
        "session confirm",
    ] {
        page.bytes(&format!("expand to 32, label '{label}', no parts"), &kdf::expand::<32>(&input, label, &[])[..]);
    }
    for (suite, name) in SUITES {
        let mut sealed = [b"plain text".as_slice(), &[0; TAG]].concat();
        Key::new(suite, &input).seal(7, b"header", &mut sealed);
        page.bytes(&format!("{name}, counter 7, aad 'header', 'plain text'"), &sealed);
        page.bytes(&format!("{name}, header mask of 00 01 .. 0f"), Mask::new(suite, &input).mask(&counted::<16>(0)));
    }
    let mut once = b"record".to_vec();
    seal::once(&input, "test", b"header", &mut once);
    page.bytes("sealed once, label 'test', aad 'header', 'record'", &once);
    let mut chance = Chance::new(input);
    page.bytes("chance, first 48 bytes", chance.bytes::<48>());
    let mut fork = chance.fork("test");
    page.bytes("chance, fork 'test', 16 bytes", fork.bytes::<16>());
    chance.reseed(&transcript);
    page.bytes("chance, reseeded with the transcript, 16 bytes", chance.bytes::<16>());
    page.bytes("identity 01 01 .., public key", identity(1).public());
    page.bytes("identity 01 01 .., signature for 'test' over 'message'", identity(1).sign("test", b"message"));
    page.hold("keys.txt");
}

#[test]
fn exchanges() {
    let mut page = Page::new(
        "The hybrid exchange, X25519 beside ML-KEM-768 (spec chapter 10). The secret's seed is 00 01 .. 5f; the one who
         encapsulates draws from a chance seeded with 02 02 ..",
    );
    let secret = Secret::from_seed(zeroize::Zeroizing::new(counted(0)));
    page.bytes("public key", secret.public());
    page.bytes("public key, X25519", &secret.public()[..32]);
    page.bytes("onion key tag", contact::onion_tag(secret.public()));
    let (ciphertext, shared) = exchange::encapsulate(secret.public(), &mut Chance::new([2; 32])).unwrap();
    page.bytes("ciphertext", ciphertext.as_slice());
    page.bytes("ciphertext, X25519", &ciphertext[..32]);
    page.bytes("shared", &shared[..]);
    assert_eq!(secret.decapsulate(&ciphertext).unwrap(), shared);
    let mut bent = ciphertext.clone();
    bent[100] ^= 1;
    page.bytes(
        "shared, when byte 100 of the ciphertext has its lowest bit flipped",
        &secret.decapsulate(&bent).unwrap()[..],
    );
    page.hold("exchange.txt");
}

#[test]
fn addresses() {
    let mut page =
        Page::new("Addresses and blinded keys (spec chapters 10 and 70). The identities' seeds are n n n ..");
    for number in [1, 2] {
        let public = identity(number).public();
        page.text(&format!("identity {number}, service"), &LokiAddress(public).to_string());
        page.text(&format!("identity {number}, relay"), &address::snode(&RelayId(public)));
        for period in [0, 20_454, 20_455] {
            page.bytes(
                &format!("identity {number}, blinded for period {period}"),
                blind::public(&public, period).unwrap(),
            );
            let signature = Blinded::new(&identity(number), period).unwrap().sign("test", b"message").unwrap();
            page.bytes(&format!("identity {number}, period {period}, signature for 'test' over 'message'"), signature);
        }
    }
    page.text("period at 1767225600", &blind::period(NOW).to_string());
    page.hold("addresses.txt");
}

#[test]
fn layers() {
    let mut page = Page::new(
        "Onion layers (spec chapter 40). The secret is 00 01 .. 1f. Each layer has type 2 and the body 'layer n'; layers
         1 to 3 are sealed at once, layer 4 when the epoch has ended.",
    );
    for ((suite, name), (order, kind)) in SUITES
        .into_iter()
        .flat_map(|suite| [(suite, (Order::Scrambled, "client to hop")), (suite, (Order::Plain, "hop to client"))])
    {
        let mut sealer = Sealer::new(suite, &counted(0), order);
        let mut opener = Opener::new(suite, &counted(0));
        for number in 1..=4u32 {
            let now = Time::default() + if number == 4 { EPOCH_TIME } else { Duration::ZERO };
            let mut layer = vec![0; OVERHEAD + 7];
            layer[TYPE_AT] = Kind::Data as u8;
            layer[BODY_AT..BODY_AT + 7].copy_from_slice(format!("layer {number}").as_bytes());
            sealer.seal(&mut layer, now);
            page.bytes(&format!("{name}, {kind}, layer {number}"), &layer);
            opener.open(&mut layer, now).unwrap();
            assert_eq!(layer[BODY_AT..BODY_AT + 6], *b"layer ");
        }
    }
    let hops = (0..3u8).map(|n| (Suite::Aes, [counted(n * 2), counted(n * 2 + 1)].map(zeroize::Zeroizing::new)));
    let mut stack = Layers::new(hops);
    let mut onion = vec![0; Size::Small.onion()];
    stack.wrap(&mut onion, Size::Small, 2, Kind::Control, Time::default(), |body| body[..5].copy_from_slice(b"pivot"));
    page.bytes("three hops, secrets from n, small cell for the pivot, type 3, body 'pivot'", &onion);
    page.hold("layers.txt");
}

#[test]
fn channels() {
    let mut page = Page::new(
        "Cell channels (spec chapter 30). The TLS exporter gave 00 01 .. 1f. Cells are small, of path 7, their onion all
         5a; the first two of a sub-channel.",
    );
    for (suite, name) in SUITES {
        let (mut ours, theirs) =
            (Channel::new(suite, Role::Initiator, &counted(0)), Channel::new(suite, Role::Responder, &counted(0)));
        for (who, ids) in [("responder", theirs.receiving_ids()), ("initiator", ours.receiving_ids())] {
            for (shard, id) in ids.iter().enumerate() {
                page.bytes(&format!("{name}, the {who} receives shard {shard} as"), id);
            }
        }
        for (number, shard) in [(1, 0), (2, 0), (1, 3)] {
            let mut cell = vec![0; Size::Small.datagram()];
            Channel::onion(&mut cell).fill(0x5a);
            ours.seal(shard, PathId(7), &mut cell, Time::default());
            page.bytes(&format!("{name}, the initiator's shard {shard}, cell {number}"), &cell);
        }
    }
    page.hold("channels.txt");
}

// What others have published.

fn hex(text: &str) -> [u8; 32] {
    HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
}

/// `A' = h·A` with a clamped `h`, by hand.
fn blinded(address: [u8; 32], hash: [u8; 32]) -> [u8; 32] {
    let point = CompressedEdwardsY(address).decompress().unwrap();
    (point * Scalar::from_bytes_mod_order(clamp_integer(hash))).compress().to_bytes()
}

/// Tor's vector (rend-spec-v3) gives the hash, we derive ours from address and period under our own label. So the
/// construction is held by Tor's numbers, and ours against it; `crypto::blind` holds the secret half beside its code.
#[test]
fn blinding_is_tors_construction() {
    let address = hex("4a343f9ef3da3d8007c709f92f72d376565a4c13dfb8cec853770a99bc06a7c0");
    let hash = hex("64adde17693392259ca3d785a52d3aa5a39cdb9957ac54144f11a990a0cacbfe");
    assert_eq!(blinded(address, hash), hex("13a6615b786403d48a88aa0d89df0846b32fa9bba8cce1ac4caec9d2f135d133"));
    let seed = hex("d0989d830e03e14ef6af71a0a1fc8838acfcd89506549f3edbb0f53ac90e4790");
    assert_eq!(Identity::from_seed(&seed).public(), address);
    for period in [0u64, 1, 20_454] {
        let ours = kdf::digest("blind", &[&address, &period.to_be_bytes(), &86_400u64.to_be_bytes()]);
        assert_eq!(blind::public(&address, period), Some(blinded(address, ours)));
    }
}

/// The ancestor's addresses (shared facts §7), decoded here by hand: five bits a character, high bits first.
#[test]
fn base32z_is_the_ancestors() {
    let service = "7okic5x5do3uh3usttnqz9ek3uuoemdrwzto1hciwim9f947or6y";
    let relay = "8zfiwpgonsu5zpddpxwdurxyb19x6r96xy4qbikff99jwsziws9y";
    for text in [service, relay] {
        let digit = |c: char| "ybndrfg8ejkmcpqxot1uwisza345h769".find(c).unwrap();
        let bits: Vec<bool> =
            text.chars().flat_map(|c| (0..5).rev().map(move |bit| digit(c) >> bit & 1 == 1)).collect();
        let key: [u8; 32] =
            core::array::from_fn(|i| bits[i * 8..i * 8 + 8].iter().fold(0, |b, bit| b << 1 | u8::from(*bit)));
        assert_eq!(LokiAddress::parse(&format!("{text}.loki")), Some(LokiAddress(key)));
        assert_eq!(address::parse_snode(&format!("{text}.snode")), Some(RelayId(key)));
        assert_eq!(LokiAddress(key).to_string(), format!("{text}.loki"));
    }
}
