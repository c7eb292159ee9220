//! Recorded traffic in the hands of a thief of keys: with every relay's onion key, or with every X25519 secret, or with
//! every ML-KEM secret, it stays closed. And an exchange whose one half was stripped ends where it began.

use libcrux_ml_kem::mlkem768::{self, MlKem768Ciphertext};
use lokinet_core::crypto::exchange::{self, CIPHERTEXT, PUBLIC, Secret};
use lokinet_core::crypto::kdf;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::onion::{Opener, Order, Sealer};
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::path::Paths;
use lokinet_core::time::{Time, Wall};
use lokinet_core::wire::build::{self, BUILD, Header, Opening, Purpose, RIDER};
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::id::SessionId;
use lokinet_core::wire::session::{self, Caller};
use lokinet_tests::row::{LIFETIME_OF_PATHS, Row, stolen};
use x25519_dalek::{PublicKey, StaticSecret};

const PATHS: u16 = 300;
const HOPS: usize = 3;

/// What somebody recorded of one hop of a path, with every link open.
struct Record {
    hop: usize,
    build: Vec<u8>,
    reply: Vec<u8>,
    /// The first layer that came down.
    layer: Vec<u8>,
    /// What the client alone had: its key for this hop. For showing that the rest is right.
    ephemeral: Secret,
}

/// A path's builds, replies and first cell, recorded at each hop.
fn record(row: &mut Row, number: u16) -> Vec<Record> {
    let mut seed = [4; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    row.paths = Paths::new(Chance::new(seed), LIFETIME_OF_PATHS);
    let key = row.path(Purpose::General).expect("a path");
    let ephemerals = twin(row, seed);
    let now = row.now.mono;
    assert!(row.paths.send(key, Size::Small, &mut row.client, now, |body| body.fill(7)));
    let mut cell = row.sent().pop().unwrap();
    let mut records = Vec::new();
    for (hop, ephemeral) in ephemerals.into_iter().enumerate() {
        let (build, reply) = (row.builds[hop].to_vec(), row.replies[hop].to_vec());
        let layer = cell.onion[..Size::Small.layer(HOPS - hop)].to_vec();
        records.push(Record { hop, build, reply, layer, ephemeral });
        row.lower(hop, &cell);
        if hop + 1 < HOPS {
            cell = row.down(hop).pop().unwrap();
        }
    }
    records
}

/// The client's keys for its hops, drawn again from the same chance in the same order.
fn twin(row: &Row, seed: [u8; 32]) -> Vec<Secret> {
    let mut chance = Chance::new(seed);
    chance.between(LIFETIME_OF_PATHS.mul_f32(0.8), LIFETIME_OF_PATHS);
    (0..HOPS).for_each(|_| {
        chance.nonzero();
    });
    build::pad(&mut vec![0; 2], RIDER, &mut chance);
    let draw = |contact: &std::sync::Arc<lokinet_core::wire::contact::Contact>| {
        let ephemeral = Secret::generate(&mut chance);
        exchange::encapsulate(&contact.card.onion, &mut chance).expect("a sound key");
        ephemeral
    };
    let mut ephemerals: Vec<Secret> = row.network.contacts.iter().rev().map(draw).collect();
    ephemerals.reverse();
    ephemerals
}

/// What a record gives to who holds the relay's onion key: header, reply ciphertext, and what seals both.
fn open(onion: &Secret, record: &Record) -> (Header, Box<[u8; CIPHERTEXT]>, Opening) {
    let (header, _, opening) = build::open_record(onion, &record.build).expect("the key that it is sealed to");
    let (_, share, _) = build::open_reply(&opening, header.depth, &record.reply).expect("the same key");
    (header, share, opening)
}

/// Whether the layer opens under what follows from this for the client's exchange.
fn opens(row: &Row, record: &Record, opened: &(Header, Box<[u8; CIPHERTEXT]>, Opening), shared: &[u8; 32]) -> bool {
    let (header, share, opening) = opened;
    let shared = zeroize::Zeroizing::new(*shared);
    let secrets = opening.layers(&row.network.contacts[record.hop].id, share, &shared);
    let now = row.now.mono;
    secrets.iter().any(|secret| Opener::new(header.suite, secret).open(&mut record.layer.clone(), now).is_ok())
}

fn x_half(secret: &Secret, ciphertext: &[u8; CIPHERTEXT]) -> [u8; 32] {
    let scalar: [u8; 32] = secret.seed()[..32].try_into().unwrap();
    let theirs: [u8; 32] = ciphertext[..32].try_into().unwrap();
    StaticSecret::from(scalar).diffie_hellman(&PublicKey::from(theirs)).to_bytes()
}

fn m_half(secret: &Secret, ciphertext: &[u8; CIPHERTEXT]) -> [u8; 32] {
    let pair = mlkem768::generate_key_pair(secret.seed()[32..].try_into().unwrap());
    mlkem768::decapsulate(pair.private_key(), &MlKem768Ciphertext::try_from(&ciphertext[32..]).unwrap())
}

/// As the protocol puts the halves together.
fn combine(m: &[u8; 32], x: &[u8; 32], ciphertext: &[u8; CIPHERTEXT], public: &[u8; PUBLIC]) -> [u8; 32] {
    *kdf::extract(&kdf::digest("hybrid", &[ciphertext, public]), &[m, x])
}

#[test]
fn stolen_onion_keys_open_no_recorded_path() {
    let mut row = Row::new(HOPS, [0; 32]);
    let onions: Vec<Secret> = row.network.keys.iter().map(stolen).collect();
    let mut tried = 0;
    for number in 0..PATHS {
        for record in record(&mut row, number) {
            let opened = open(&onions[record.hop], &record);
            let (header, share, _) = &opened;
            assert_eq!(header.ephemeral.as_slice(), record.ephemeral.public(), "the twin has lost step");
            // With the client's key, which is gone by now, the layer opens: what follows is not closed by mistake.
            let truth = record.ephemeral.decapsulate(share).unwrap();
            assert!(opens(&row, &record, &opened, &truth));
            // All that the thief can make of the rest.
            let mut guesses: Vec<[u8; 32]> = vec![[0; 32], header.ephemeral[..32].try_into().unwrap()];
            let (_, first) = build::peek(&record.build).unwrap();
            for onion in &onions {
                for ciphertext in [&first, &**share] {
                    guesses.extend(onion.decapsulate(ciphertext).map(|shared| *shared));
                    let halves = (m_half(onion, ciphertext), x_half(onion, ciphertext));
                    guesses.push(combine(&halves.0, &halves.1, ciphertext, &header.ephemeral));
                    guesses.push(combine(&[0; 32], &halves.1, ciphertext, &header.ephemeral));
                    guesses.extend([halves.0, halves.1]);
                }
            }
            tried += guesses.len();
            assert!(!guesses.iter().any(|guess| opens(&row, &record, &opened, guess)), "a recorded layer opened");
        }
    }
    println!("{tried} secrets that follow from onion keys opened none of {} recorded layers", u32::from(PATHS) * 3);
}

/// One half broken: the thief has every X25519 secret there ever was, and the onion keys too. Or every ML-KEM secret.
#[test]
fn recorded_traffic_stays_closed_when_one_half_of_the_exchange_is_broken() {
    let mut row = Row::new(HOPS, [0; 32]);
    let onions: Vec<Secret> = row.network.keys.iter().map(stolen).collect();
    for number in 0..PATHS {
        for record in record(&mut row, number) {
            let onion = &onions[record.hop];
            let opened = open(onion, &record);
            let (header, share, _) = &opened;
            let (x, m) = (x_half(&record.ephemeral, share), m_half(&record.ephemeral, share));
            let both = combine(&m, &x, share, &header.ephemeral);
            assert!(opens(&row, &record, &opened, &both), "this is not how the halves are put together");
            let (other_x, other_m) = (x_half(onion, share), m_half(onion, share));
            for m in [[0; 32], x, other_m] {
                assert!(!opens(&row, &record, &opened, &combine(&m, &x, share, &header.ephemeral)), "by X25519 alone");
            }
            for x in [[0; 32], m, other_x] {
                assert!(!opens(&row, &record, &opened, &combine(&m, &x, share, &header.ephemeral)), "by ML-KEM alone");
            }
            assert!(!opens(&row, &record, &opened, &x) && !opens(&row, &record, &opened, &m));
        }
    }
}

/// The record itself: with one half of the onion key it does not open, and says nothing of where the path goes.
#[test]
fn one_half_of_an_onion_key_opens_no_record() {
    let mut row = Row::new(HOPS, [0; 32]);
    let onions: Vec<Secret> = row.network.keys.iter().map(stolen).collect();
    for record in record(&mut row, 0) {
        let onion = &onions[record.hop];
        assert!(build::open_record(onion, &record.build).is_some());
        for half in [0..32, 32..96] {
            let mut seed = zeroize::Zeroizing::new(*onion.seed());
            seed[half].fill(0x55);
            assert!(build::open_record(&Secret::from_seed(seed), &record.build).is_none(), "half a key opened it");
        }
    }
}

/// A public key without its post-quantum half; as a middleman would leave it who can break the other one.
fn stripped(public: &[u8; PUBLIC]) -> [u8; PUBLIC] {
    let mut stripped = *public;
    stripped[32..].fill(0xff);
    stripped
}

#[test]
fn a_build_without_its_post_quantum_half_ends_at_once() {
    let mut row = Row::new(HOPS, [0; 32]);
    let mut chance = Chance::new([6; 32]);
    let contact = row.network.contacts[2].clone();
    let header = |ephemeral: [u8; PUBLIC]| Header {
        ephemeral: Box::new(ephemeral),
        next: None,
        back: lokinet_core::wire::id::PathId(5),
        lifetime: 600,
        minute: (row.now.wall.secs() / 60) as u32,
        depth: 1,
        suite: Suite::Aes,
        purpose: Purpose::General,
    };
    // The relay's key: the client does not even begin.
    let ephemeral = Secret::generate(&mut chance);
    let whole = header(*ephemeral.public());
    assert!(build::seal_record(&stripped(&contact.card.onion), &whole, &[1; RIDER], &mut chance).is_none());
    // The client's key for the reply: the relay does not answer. With the whole key it does.
    let without = header(stripped(ephemeral.public()));
    for (header, accepted) in [(without, false), (whole, true)] {
        let (mut body, opening) = build::seal_record(&contact.card.onion, &header, &[1; RIDER], &mut chance).unwrap();
        build::pad(&mut body, BUILD, &mut chance);
        let reply = row.knock(2, body.into());
        assert_eq!(reply.is_some(), accepted, "a build without its post-quantum half was answered");
        let Some(reply) = reply else { continue };
        let (_, share, _) = build::open_reply(&opening, 1, &reply).unwrap();
        // The relay's share: without the half nobody, the relay neither, has what the client then takes for the secret.
        let mut bare = share.clone();
        bare[32..].fill(0);
        let taken = ephemeral.decapsulate(&bare).unwrap();
        let known = [[0; 32], x_half(&ephemeral, &bare)]
            .map(|m| combine(&m, &x_half(&ephemeral, &bare), &bare, ephemeral.public()));
        assert!(!known.contains(&taken));
        let clients = opening.layers(&contact.id, &bare, &taken);
        let relays = opening.layers(&contact.id, &share, &ephemeral.decapsulate(&share).unwrap());
        let mut layer = vec![0; Size::Small.layer(1)];
        Sealer::new(Suite::Aes, &clients[0], Order::Scrambled).seal(&mut layer, Time::default());
        assert!(Opener::new(Suite::Aes, &relays[0]).open(&mut layer, Time::default()).is_err());
    }
}

#[test]
fn a_conversation_without_its_post_quantum_half_ends_at_once() {
    let mut chance = Chance::new([7; 32]);
    let (service, handshake) = (Identity::from_seed(&[8; 32]).public(), Secret::generate(&mut chance));
    let caller =
        Caller { session: SessionId(9), time: Wall::from_secs(1_800_000_000), suite: Suite::Aes, address: None };
    assert!(session::call(&service, &stripped(handshake.public()), caller, None, &mut chance).is_none());
    let calling = session::call(&service, handshake.public(), caller, None, &mut chance).unwrap();
    let (_, answering) = session::answer(&service, &handshake, &calling.hello).unwrap();
    let (welcome, _) = answering.welcome(SessionId(3), &mut chance).unwrap();
    assert!(calling.open(&welcome).is_some());
    // On the way: the service's ciphertext, the caller's key, the answer's ciphertext, each without that half.
    for part in [32..CIPHERTEXT, CIPHERTEXT + 32..CIPHERTEXT + PUBLIC] {
        for fill in [0, 0xff] {
            let mut hello = calling.hello.clone();
            hello[part.clone()].fill(fill);
            assert!(session::answer(&service, &handshake, &hello).is_none(), "a stripped hello was answered");
        }
    }
    for fill in [0, 0xff] {
        let mut bare = welcome.clone();
        bare[8 + 32..8 + CIPHERTEXT].fill(fill);
        assert!(calling.open(&bare).is_none(), "a stripped welcome was believed");
    }
}
