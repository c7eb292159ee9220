//! A storm on one relay, all of it from one hostile client at once: builds without end, links by the hundred, handshakes
//! left half open, requests too long, too slow or never read, introsets and contacts that nobody asked for, and noise
//! that looks like cells. Played inside a node by the lab's own program. Neighbours: `stranger` opens the links.

use super::stranger;
use bytes::Bytes;
use core::time::Duration;
use lokinet_core::crypto::random::Chance;
use lokinet_core::driver;
use lokinet_core::node::io::{REPLY_MAX, REQUEST_MAX};
use lokinet_core::path::build::Building;
use lokinet_core::wire::build::Purpose;
use lokinet_core::wire::contact::{Contact, NetId};
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::request::{self, Request};
use quinn::{Connection, Endpoint};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

/// Links that ask, that build, and that are slow. More than one place may have are tried.
const LINKS: (usize, usize, usize) = (80, 30, 60);
/// Between two acts of one link.
const PAUSE: Duration = Duration::from_millis(20);

/// What was done, so that the lab can tell a storm from a breeze.
#[derive(Default)]
struct Done {
    links: AtomicU64,
    refused: AtomicU64,
    builds: AtomicU64,
    requests: AtomicU64,
    answers: AtomicU64,
    half_open: AtomicU64,
    noise: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Rages at a relay for so many seconds: `storm ADDRESS SECONDS`. Says what it did.
#[allow(clippy::print_stdout, reason = "the lab reads it")]
pub fn rage(words: &[String]) -> ExitCode {
    let relay = words.first().and_then(|word| word.parse::<SocketAddr>().ok());
    let seconds = words.get(1).and_then(|word| word.parse().ok());
    let (Some(relay), Some(seconds)) = (relay, seconds) else { return ExitCode::FAILURE };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let done = Arc::new(Done::default());
    runtime.block_on(storm(relay, Duration::from_secs(seconds), done.clone()));
    let all = [
        ("links", &done.links),
        ("links refused", &done.refused),
        ("builds", &done.builds),
        ("requests", &done.requests),
        ("answers", &done.answers),
        ("half-open handshakes", &done.half_open),
        ("noise", &done.noise),
    ];
    let all = all.map(|(name, number)| format!("\"{name}\": {}", number.load(Ordering::Relaxed)));
    println!("{{{}}}", all.join(", "));
    ExitCode::SUCCESS
}

async fn storm(relay: SocketAddr, time: Duration, done: Arc<Done>) {
    let end = Instant::now() + time;
    let Ok(endpoint) = Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))) else { return };
    let mut chance = Chance::new([7; 32]);
    let (askers, builders, sluggards) = LINKS;
    let mut all = Vec::new();
    for number in 0..askers + builders + sluggards {
        let (endpoint, done, seed) = (endpoint.clone(), done.clone(), chance.bytes());
        all.push(tokio::spawn(async move {
            sleep(PAUSE * number as u32).await;
            while Instant::now() < end {
                match stranger::link(&endpoint, relay, &seed, 1 << 12).await {
                    Some(link) => {
                        count(&done.links);
                        let mut chance = Chance::new(seed);
                        if number < askers {
                            ask(&link, &mut chance, end, &done).await;
                        } else if number < askers + builders {
                            build(&link, &mut chance, end, &done).await;
                        } else {
                            dawdle(&link, end, &done).await;
                        }
                    }
                    None => count(&done.refused),
                }
                sleep(PAUSE * 10).await;
            }
        }));
    }
    all.push(tokio::spawn(half_open(relay, end, done.clone())));
    all.push(tokio::spawn(noise(relay, end, done.clone())));
    for part in all {
        let _ = part.await;
    }
}

/// Everything that can be asked and much that cannot, whole and at length; half of the answers are never read.
async fn ask(link: &Connection, chance: &mut Chance, end: Instant, done: &Done) {
    let mut kept = Vec::new();
    while Instant::now() < end && link.close_reason().is_none() {
        let kind = 1 + chance.below(8) as u8;
        let length = [0, 33, 2203, REQUEST_MAX, REQUEST_MAX + 1, 8 * REQUEST_MAX][chance.below(6) as usize];
        let mut body = vec![kind; length + 1];
        body.iter_mut().skip(1).for_each(|byte| *byte = chance.below(256) as u8);
        if chance.below(3) == 0 {
            body = Request::Contacts { after: RelayId([0; 32]) }.encode().to_vec();
        }
        let opened = tokio::time::timeout(PAUSE * 10, link.open_bi()).await;
        let Ok(Ok((mut send, mut receive))) = opened else {
            kept.clear(); // as many as there may be are open and unread
            continue;
        };
        count(&done.requests);
        let _ = tokio::time::timeout(PAUSE * 10, send.write_all(&body)).await;
        let _ = send.finish();
        if chance.below(2) == 0 {
            kept.push((send, receive));
        } else if let Ok(Ok(_)) = tokio::time::timeout(PAUSE * 10, receive.read_to_end(REPLY_MAX)).await {
            count(&done.answers);
        }
        sleep(PAUSE).await;
    }
}

/// Real paths over all relays that this one knows, begun as fast as it can be and never used.
async fn build(link: &Connection, chance: &mut Chance, end: Instant, done: &Done) {
    let Some(reply) = asked(link, &Request::Contacts { after: RelayId([0; 32]) }.encode()).await else { return };
    let now = driver::now();
    let Some(netid) = NetId::new("devnet") else { return };
    let known = request::contacts(&reply).into_iter();
    let relays: Vec<Arc<Contact>> =
        known.filter_map(|c| Contact::verify(c, netid, now.wall).ok()).map(Arc::new).collect();
    let Some(peer) = relays.iter().position(|relay| relay.card.addrs.list().contains(&link.remote_address())) else {
        return;
    };
    while Instant::now() < end && link.close_reason().is_none() {
        let mut hops = vec![relays[peer].clone()];
        let others = relays.iter().enumerate().filter(|(at, _)| *at != peer).map(|(_, relay)| relay.clone());
        hops.extend(others.take(chance.below(3) as usize));
        let life = Duration::from_secs(3600);
        let begun = Building::begin(hops, Purpose::Host(chance.bytes()), None, life, driver::now(), chance);
        let Some((_, body)) = begun else { return };
        count(&done.builds);
        if asked(link, &body).await.is_some() {
            count(&done.answers);
        }
        sleep(PAUSE).await;
    }
}

async fn asked(link: &Connection, body: &Bytes) -> Option<Bytes> {
    let (mut send, mut receive) = link.open_bi().await.ok()?;
    send.write_all(body).await.ok()?;
    send.finish().ok()?;
    let reply = tokio::time::timeout(PAUSE * 50, receive.read_to_end(REPLY_MAX)).await.ok()?;
    reply.ok().map(Bytes::from)
}

/// Opens as many streams as may be open, and gives each a byte now and then.
async fn dawdle(link: &Connection, end: Instant, done: &Done) {
    let mut streams = Vec::new();
    while Instant::now() < end && link.close_reason().is_none() {
        if let Ok(Ok(stream)) = tokio::time::timeout(PAUSE, link.open_bi()).await {
            count(&done.requests);
            streams.push(stream);
        }
        for (send, _) in &mut streams {
            let _ = tokio::time::timeout(PAUSE, send.write(&[1; 100])).await;
        }
        sleep(PAUSE * 5).await;
    }
}

/// Handshakes that nobody will finish, each from a port of its own.
async fn half_open(relay: SocketAddr, end: Instant, done: Arc<Done>) {
    let mut seed = [9_u8; 32];
    while Instant::now() < end {
        let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { continue };
        for _ in 0..8 {
            seed[0] = seed[0].wrapping_add(1);
            for packet in stranger::first_packets(relay, &seed) {
                let _ = socket.send_to(&packet, relay).await;
            }
            count(&done.half_open);
        }
        sleep(PAUSE).await;
    }
}

/// Datagrams of both cells' sizes that look like cells, and some that look like nothing.
async fn noise(relay: SocketAddr, end: Instant, done: Arc<Done>) {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { return };
    let mut chance = Chance::new([11; 32]);
    let mut bytes = [0; 1440];
    while Instant::now() < end {
        for _ in 0..50 {
            for chunk in bytes.as_chunks_mut::<32>().0.iter_mut().take(2) {
                *chunk = chance.bytes();
            }
            bytes[0] = (bytes[0] & 0x3f) | 0x40;
            let length = [384, 1440, 1440, 40][chance.below(4) as usize];
            let _ = socket.send_to(&bytes[..length], relay).await;
            count(&done.noise);
        }
        sleep(PAUSE).await;
    }
}
