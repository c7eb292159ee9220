//! Sealed cells and onion layers on a wire that bends, repeats, delays and reorders them. What opens is what was
//! sealed, once; what was changed does not. Neighbours: `records` does the same to whole records.

use super::feed::Feed;
use super::network::linked;
use core::time::Duration;
use lokinet_core::crypto::onion::{BODY_AT, OVERHEAD, Opener, Order, Sealer};
use lokinet_core::crypto::seal::{Suite, TAG};
use lokinet_core::link::channel::{Channel, SHARDS};
use lokinet_core::link::{LinkId, Links, Role};
use lokinet_core::time::Time;
use lokinet_core::wire::cell::{CHANNEL_ID, Size};
use lokinet_core::wire::id::{PathId, RelayId};
use std::net::Ipv4Addr;

/// Most things under way at once.
const UNDER_WAY: usize = 64;

fn suite(feed: &mut Feed<'_>) -> Suite {
    if feed.one_in(2) { Suite::Aes } else { Suite::ChaCha }
}

fn pause(feed: &mut Feed<'_>) -> Duration {
    Duration::from_millis(100 << (feed.byte() % 24))
}

/// A link's datagrams: to the node's table of links, from a peer that seals honestly over a wire that does not carry
/// honestly.
pub fn cell(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let suite = suite(&mut feed);
    let (exporter, link) = ([7; 32], LinkId(1));
    let mut peer = Channel::new(suite, Role::Initiator, &exporter);
    let mut links = Links::default();
    let remote = (Ipv4Addr::new(10, 1, 0, 1), 1090).into();
    links.up(&linked(link, None, RelayId([1; 32]), exporter, suite, remote), true, Time::default());
    let ids = Channel::new(suite, Role::Responder, &exporter).receiving_ids();
    let (mut now, mut sealed, mut made) = (Time::default(), Vec::new(), 0u32);
    while !feed.is_empty() {
        match feed.byte() % 5 {
            0 => now = now + pause(&mut feed),
            1 => {
                let size = if feed.one_in(2) { Size::Small } else { Size::Full };
                made += 1;
                let mut datagram = vec![0; size.datagram()];
                Channel::onion(&mut datagram).fill(made as u8);
                peer.seal(feed.below(SHARDS), PathId(made), &mut datagram, now);
                sealed.push((datagram, made, false));
                if sealed.len() > UNDER_WAY {
                    sealed.remove(0);
                }
            }
            2 if !sealed.is_empty() => {
                let at = feed.below(sealed.len());
                let (datagram, number, opened) = &mut sealed[at];
                let mut copy = datagram.clone();
                if let Ok((from, path, size, onion)) = links.open(&mut copy, now) {
                    assert_eq!((from, path, size.datagram()), (link, PathId(*number), datagram.len()));
                    assert!(onion.iter().all(|byte| *byte == *number as u8) && onion.len() == size.onion());
                    assert!(!*opened, "a cell opened twice");
                    *opened = true;
                }
            }
            3 if !sealed.is_empty() => {
                let at = feed.below(sealed.len());
                let mut bent = sealed[at].0.clone();
                let (byte, flip) = (feed.below(bent.len()), feed.byte().max(1));
                bent[byte] ^= flip;
                assert!(links.open(&mut bent, now).is_err(), "a bent cell opened");
            }
            _ => {
                let mut datagram = feed.slice().to_vec();
                if datagram.len() > CHANNEL_ID {
                    datagram[0] = datagram[0] & 0x3f | 0x40;
                    let shard = usize::from(datagram[1]) % SHARDS;
                    datagram[1..1 + CHANNEL_ID].copy_from_slice(&ids[shard]);
                }
                if datagram.len() > 200 {
                    datagram.resize(if datagram.len() > 600 { 1440 } else { 384 }, 0);
                }
                assert!(links.open(&mut datagram, now).is_err(), "a forged cell opened");
            }
        }
    }
    assert_eq!(links.channel_ids(), SHARDS);
}

/// One layer in one direction.
pub fn onion(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let (suite, order) = (suite(&mut feed), if feed.one_in(2) { Order::Scrambled } else { Order::Plain });
    let secret = [3; 32];
    let (mut sealer, mut opener) = (Sealer::new(suite, &secret, order), Opener::new(suite, &secret));
    let (mut now, mut sealed, mut made) = (Time::default(), Vec::new(), 0u32);
    while !feed.is_empty() {
        match feed.byte() % 5 {
            0 => now = now + pause(&mut feed),
            1 => {
                made += 1;
                let mut layer = vec![made as u8; OVERHEAD + feed.below(1400)];
                sealer.seal(&mut layer, now);
                sealed.push((layer, made, false));
                if sealed.len() > UNDER_WAY {
                    sealed.remove(0);
                }
            }
            2 if !sealed.is_empty() => {
                let at = feed.below(sealed.len());
                let (layer, number, opened) = &mut sealed[at];
                let mut copy = layer.clone();
                if opener.open(&mut copy, now).is_ok() {
                    assert!(copy[BODY_AT..copy.len() - TAG].iter().all(|byte| *byte == *number as u8));
                    assert!(!*opened, "a layer opened twice");
                    *opened = true;
                }
            }
            3 if !sealed.is_empty() => {
                let at = feed.below(sealed.len());
                let mut bent = sealed[at].0.clone();
                let (byte, flip) = (feed.below(bent.len()), feed.byte());
                if flip == 0 {
                    bent.truncate(byte);
                } else {
                    bent[byte] ^= flip;
                }
                assert!(opener.open(&mut bent, now).is_err(), "a bent layer opened");
            }
            _ => {
                let mut layer = feed.slice().to_vec();
                assert!(opener.open(&mut layer, now).is_err(), "a forged layer opened");
            }
        }
    }
}
