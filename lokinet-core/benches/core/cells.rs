//! The data plane: what one cell costs at each place it passes. Sizes are UDP payloads, so that throughput reads as what
//! a wire would carry. Neighbours: `chain` lends whole relays.

use super::chain::{BACK, Chain, NOW};
use criterion::{BatchSize, Criterion, Throughput};
use lokinet_core::crypto::onion::{Opener, Order, Sealer};
use lokinet_core::crypto::seal::Suite;
use lokinet_core::crypto::window::Window;
use lokinet_core::link::Role;
use lokinet_core::link::channel::Channel;
use lokinet_core::path::layers::Layers;
use lokinet_core::wire::cell::{Kind, MAX_HOPS, Size};
use lokinet_core::wire::id::PathId;
use lokinet_core::wire::session;
use std::hint::black_box;
use zeroize::Zeroizing;

const SUITES: [(&str, Suite); 2] = [("aes", Suite::Aes), ("chacha", Suite::ChaCha)];
/// Cells in one measured batch, as GRO would bring them.
const BATCH: usize = 64;

pub(crate) fn bench(c: &mut Criterion) {
    link(c);
    onion(c);
    session(c);
    window(c);
    client_sends(c);
    relay_forwards(c);
}

fn link(c: &mut Criterion) {
    let mut group = c.benchmark_group("link cell");
    for (name, suite) in SUITES {
        for size in [Size::Small, Size::Full] {
            let len = size.datagram();
            group.throughput(Throughput::Bytes(len as u64));
            let mut channel = Channel::new(suite, Role::Initiator, &[1; 32]);
            let mut cell = vec![0; len];
            group.bench_function(format!("seal {name} {len}"), |b| {
                b.iter(|| channel.seal(0, PathId(7), black_box(&mut cell), NOW.mono));
            });
            let mut sender = Channel::new(suite, Role::Initiator, &[1; 32]);
            let mut receiver = Channel::new(suite, Role::Responder, &[1; 32]);
            group.bench_function(format!("open {name} {len}"), |b| {
                let sealed = || {
                    let mut cell = vec![0; len];
                    sender.seal(0, PathId(7), &mut cell, NOW.mono);
                    cell
                };
                let open = |cell: &mut Vec<u8>| assert!(receiver.open(0, cell, NOW.mono).is_ok());
                b.iter_batched_ref(sealed, open, BatchSize::SmallInput);
            });
        }
    }
    group.finish();
}

fn onion(c: &mut Criterion) {
    let mut group = c.benchmark_group("onion layer");
    let len = Size::Full.layer(3);
    group.throughput(Throughput::Bytes(len as u64));
    for (name, suite) in SUITES {
        for (what, order) in [("scrambled", Order::Scrambled), ("plain", Order::Plain)] {
            let mut sealer = Sealer::new(suite, &[2; 32], order);
            let mut layer = vec![0; len];
            group.bench_function(format!("seal {name} {what} (client down, relay up)"), |b| {
                b.iter(|| sealer.seal(black_box(&mut layer), NOW.mono));
            });
        }
        let (mut sealer, mut opener) = (Sealer::new(suite, &[3; 32], Order::Scrambled), Opener::new(suite, &[3; 32]));
        group.bench_function(format!("open {name} (relay down, client up)"), |b| {
            let sealed = || {
                let mut layer = vec![0; len];
                sealer.seal(&mut layer, NOW.mono);
                layer
            };
            let open = |layer: &mut Vec<u8>| assert!(opener.open(layer, NOW.mono).is_ok());
            b.iter_batched_ref(sealed, open, BatchSize::SmallInput);
        });
    }
    for hops in [2, 3, MAX_HOPS] {
        let secret = |i: usize, way: u8| Zeroizing::new([i as u8 * 2 + way; 32]);
        let mut layers = Layers::new((0..hops).map(|i| (Suite::Aes, [secret(i, 0), secret(i, 1)])));
        let mut onion = vec![0; Size::Full.onion()];
        group.throughput(Throughput::Bytes(Size::Full.payload() as u64));
        group.bench_function(format!("client wraps {hops} layers aes"), |b| {
            b.iter(|| layers.wrap(&mut onion, Size::Full, hops - 1, Kind::Data, NOW.mono, |_| {}));
        });
    }
    group.finish();
}

fn session(c: &mut Criterion) {
    let mut group = c.benchmark_group("session layer");
    let len = session::layer(Size::Full);
    group.throughput(Throughput::Bytes(len as u64));
    let sealer = || Sealer::new(Suite::Aes, &[4; 32], Order::Plain);
    let (mut alone, mut layer) = (sealer(), vec![0; len]);
    group.bench_function("seal aes", |b| b.iter(|| alone.seal(black_box(&mut layer), NOW.mono)));
    let (mut sealer, mut opener) = (sealer(), Opener::new(Suite::Aes, &[4; 32]));
    group.bench_function("open aes", |b| {
        let sealed = || {
            let mut layer = vec![0; len];
            sealer.seal(&mut layer, NOW.mono);
            layer
        };
        let open = |layer: &mut Vec<u8>| assert!(opener.open(layer, NOW.mono).is_ok());
        b.iter_batched_ref(sealed, open, BatchSize::SmallInput);
    });
    group.finish();
}

fn window(c: &mut Criterion) {
    let mut group = c.benchmark_group("replay window");
    group.throughput(Throughput::Elements(1));
    let (mut window, mut counter) = (Window::default(), 0u64);
    group.bench_function("check and mark, in order", |b| {
        b.iter(|| {
            counter += 1;
            let fresh = window.is_fresh(black_box(counter));
            window.mark(counter);
            fresh
        });
    });
    group.finish();
}

/// From a body to the sealed datagram: three layers and the link.
fn client_sends(c: &mut Criterion) {
    let mut chain = Chain::new(3);
    let key = chain.path();
    let mut group = c.benchmark_group("client");
    group.throughput(Throughput::Bytes((BATCH * Size::Full.datagram()) as u64));
    group.bench_function("sends 64 full cells over 3 hops", |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                chain.paths.send(key, Size::Full, &mut chain.client, NOW.mono, |body| body.fill(1));
            }
            while let Some((_, size, link, bytes)) = chain.client.take_run() {
                chain.client.give_back(link, size, bytes);
            }
        });
    });
    group.finish();
}

/// The whole of what a relay in the middle does, but for the system calls.
fn relay_forwards(c: &mut Criterion) {
    let mut chain = Chain::new(3);
    let key = chain.path();
    let Chain { client, paths, relays, .. } = &mut chain;
    let relay = &mut relays[0];
    let mut group = c.benchmark_group("relay");
    for size in [Size::Small, Size::Full] {
        let len = size.datagram();
        group.throughput(Throughput::Bytes((BATCH * len) as u64));
        group.bench_function(format!("forwards 64 cells of {len}: open, peel, seal"), |b| {
            let sealed = || {
                for _ in 0..BATCH {
                    paths.send(key, size, client, NOW.mono, |body| body.fill(1));
                }
                let mut run = Vec::new();
                while let Some((_, size, link, bytes)) = client.take_run() {
                    run.extend_from_slice(&bytes);
                    client.give_back(link, size, bytes);
                }
                run
            };
            let forward = |run: &mut Vec<u8>| {
                for datagram in run.chunks_mut(len) {
                    let (link, path, size, onion) = relay.links.open(datagram, NOW.mono).unwrap();
                    assert_eq!(link, BACK);
                    assert!(relay.transit.cell(link, path, size, onion, &mut relay.links, NOW.mono));
                }
                let mut sent = 0;
                while let Some((_, size, link, bytes)) = relay.links.take_run() {
                    sent += bytes.len();
                    relay.links.give_back(link, size, bytes);
                }
                assert_eq!(sent, BATCH * len, "cells were dropped");
            };
            b.iter_batched_ref(sealed, forward, BatchSize::SmallInput);
        });
    }
    group.finish();
}
