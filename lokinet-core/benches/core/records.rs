//! Builds, handshakes and signed things: what strangers can make a node spend, one by one. Neighbours: `chain` lends
//! whole relays.

use super::chain::{BACK, Chain, NOW, answer, request};
use core::time::Duration;
use criterion::{BatchSize, Criterion};
use lokinet_core::crypto::blind;
use lokinet_core::crypto::exchange::{self, Secret};
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::link::Ticket;
use lokinet_core::path::build::Building;
use lokinet_core::time::Now;
use lokinet_core::wire::build::{self, BUILD, Header, Purpose, REPLY, RIDER, TOKEN};
use lokinet_core::wire::contact::Contact;
use lokinet_core::wire::id::{PathId, RelayId, SessionId};
use lokinet_core::wire::introset::{Envelope, Introset, Lease};
use lokinet_core::wire::session::{self, Caller};
use std::hint::black_box;

const LIFETIME: Duration = Duration::from_secs(1200);

pub(crate) fn bench(c: &mut Criterion) {
    keys(c);
    record(c);
    admission(c);
    introset(c);
    contact(c);
    handshake(c);
}

fn keys(c: &mut Criterion) {
    let mut group = c.benchmark_group("hybrid exchange");
    let mut chance = Chance::new([1; 32]);
    let secret = Secret::generate(&mut chance);
    let (ciphertext, _) = exchange::encapsulate(secret.public(), &mut chance).unwrap();
    let mut other = chance.fork("keys");
    group.bench_function("make a key", |b| b.iter(|| Secret::generate(&mut other)));
    group.bench_function("encapsulate", |b| b.iter(|| exchange::encapsulate(secret.public(), &mut chance)));
    group.bench_function("decapsulate", |b| b.iter(|| secret.decapsulate(black_box(&ciphertext))));
    group.finish();
}

fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("build record");
    let mut chance = Chance::new([2; 32]);
    let secret = Secret::generate(&mut chance);
    let header = Header {
        ephemeral: Box::new(*secret.public()),
        next: None,
        back: PathId(1),
        lifetime: 1200,
        minute: 5,
        depth: 1,
        suite: Suite::Aes,
        purpose: Purpose::General,
    };
    let (mut body, _) = build::seal_record(secret.public(), &header, &[0; RIDER], &mut chance).unwrap();
    build::pad(&mut body, BUILD, &mut chance);
    group.bench_function("seal", |b| {
        b.iter(|| build::seal_record(secret.public(), &header, &[0; RIDER], &mut chance));
    });
    group.bench_function("open", |b| b.iter(|| build::open_record(&secret, black_box(&body))));
    group.finish();
}

/// Everything one hop does for one build, from the request's bytes to its answer's, and the client's share.
fn admission(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    let mut chance = Chance::new([3; 32]);
    let mut chain = Chain::new(3);
    let contacts = chain.contacts.clone();
    group.bench_function("client makes one over 3 hops", |b| {
        b.iter(|| Building::begin(contacts.clone(), Purpose::General, None, LIFETIME, NOW, &mut chance).unwrap());
    });
    let mut knocked = 0u32;
    for (what, hops) in [("pivot", 1), ("middle", 2)] {
        // The last relays of the row, so that the one measured is what it is called.
        let mut over = |relay: usize| {
            let hops = contacts[relay..relay + hops].to_vec();
            Building::begin(hops, Purpose::General, None, LIFETIME, NOW, &mut chance).unwrap().1.slice(1..)
        };
        let netdb = &chain.netdb;
        let relay = &mut chain.relays[1];
        group.bench_function(format!("relay admits one as {what}"), |b| {
            let admit = |body: bytes::Bytes| {
                // One each 5 ms: as often as a neighbour may.
                knocked += 1;
                let mono = NOW.mono + Duration::from_millis(5) * knocked;
                let now = Now { mono, ..NOW };
                relay.transit.build(BACK, Ticket(1), &body, netdb, &mut relay.links, now);
                if hops > 1 {
                    let (ticket, _) = request(&mut relay.links);
                    let link = relay.links.ended(ticket);
                    let deeper = bytes::Bytes::from_static(&[0; REPLY]);
                    relay.transit.reply(ticket, Some(deeper), link, &mut relay.links, now.mono);
                }
                let reply = answer(&mut relay.transit);
                assert_eq!(reply.len(), REPLY);
            };
            b.iter_batched(|| over(1), admit, BatchSize::LargeInput);
        });
    }
    let (accepted, refused) = chain.relays[1].transit.builds;
    assert!(refused == 0, "{refused} builds were refused, {accepted} accepted");
    group.finish();
}

fn introset(c: &mut Criterion) {
    let mut group = c.benchmark_group("introset");
    let mut chance = Chance::new([4; 32]);
    let identity = Identity::generate(&mut chance);
    let lease = Lease { pivot: RelayId([7; 32]), token: [8; TOKEN], until: NOW.wall.plus(LIFETIME) };
    let introset = Introset { handshake: Box::new(*Secret::generate(&mut chance).public()), leases: vec![lease; 4] };
    let (period, until) = (blind::period(NOW.wall), NOW.wall.plus(LIFETIME));
    let signed = introset.publish(&identity, period, 1, until, &mut chance).unwrap();
    let envelope = Envelope::verify(signed.clone(), NOW.wall).unwrap();
    let address = identity.public();
    group.bench_function("publish", |b| {
        b.iter(|| introset.publish(&identity, period, 1, until, &mut chance));
    });
    group.bench_function("verify (keeper)", |b| b.iter(|| Envelope::verify(signed.clone(), NOW.wall)));
    group.bench_function("open (caller)", |b| b.iter(|| envelope.open(black_box(&address))));
    group.finish();
}

fn contact(c: &mut Criterion) {
    let mut group = c.benchmark_group("contact");
    let chain = Chain::new(1);
    let (signed, netid) = (chain.contacts[0].signed.clone(), chain.netdb.netid());
    group.bench_function("verify", |b| b.iter(|| Contact::verify(signed.clone(), netid, NOW.wall)));
    group.finish();
}

fn handshake(c: &mut Criterion) {
    let mut group = c.benchmark_group("session handshake");
    let mut chance = Chance::new([5; 32]);
    let (service, caller) = (Identity::generate(&mut chance), Identity::generate(&mut chance));
    let key = Secret::generate(&mut chance);
    let about = Caller { session: SessionId(1), time: NOW.wall, suite: Suite::Aes, address: None };
    let address = service.public();
    for (what, identity) in [("anonymous", None), ("authenticated", Some(&caller))] {
        let calling = session::call(&address, key.public(), about, identity, &mut chance).unwrap();
        let (_, answering) = session::answer(&address, &key, &calling.hello).unwrap();
        let (welcome, _) = answering.welcome(SessionId(2), &mut chance).unwrap();
        group.bench_function(format!("caller calls, {what}"), |b| {
            b.iter(|| session::call(&address, key.public(), about, identity, &mut chance));
        });
        group.bench_function(format!("service answers, {what}"), |b| {
            b.iter(|| {
                let (_, answering) = session::answer(&address, &key, black_box(&calling.hello)).unwrap();
                answering.welcome(SessionId(2), &mut chance)
            });
        });
        group.bench_function(format!("caller opens the welcome, {what}"), |b| {
            b.iter(|| calling.open(black_box(&welcome)));
        });
    }
    group.finish();
}
