//! How hops are drawn: by the intended weights, judged by χ², and never two on one path that belong together.

use lokinet_core::crypto::random::Chance;
use lokinet_core::netdb::Netdb;
use lokinet_core::netdb::select::{Want, select};
use lokinet_core::time::Wall;
use lokinet_core::wire::contact::Contact;
use lokinet_core::wire::id::RelayId;
use lokinet_tests::row::{Founder, found};
use lokinet_tests::statistics::{chi_squared, chi_squared_bound};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

const DRAWS: usize = 8000;

fn v4(a: u8, b: u8, c: u8) -> SocketAddr {
    SocketAddr::from(([a, b, c, 1], 1090))
}

fn v6(net: u16, host: u16) -> SocketAddr {
    SocketAddr::from(([0xfd00, net, 0, 0, 0, 0, 0, host], 1090))
}

/// Relays of which many belong together: by /16, by /32, by operator.
fn entangled() -> (Netdb, Vec<Arc<Contact>>) {
    let founders: Vec<Founder> = (0..36u8)
        .map(|n| Founder {
            addrs: match n % 3 {
                0 => vec![v4(10, n / 6, n)],
                1 => vec![v4(20, n, 0), v6(u16::from(n) / 9, n.into())],
                _ => vec![v4(30, n, 0)],
            },
            operator: if n % 3 == 2 { 1 + u32::from(n) / 12 } else { 0 },
            aes: true,
        })
        .collect();
    let founded = found(&founders, &mut Chance::new([5; 32]), Wall::from_secs(1_800_000_000));
    (founded.netdb, founded.contacts)
}

#[test]
fn a_path_never_repeats_a_relay_a_net_or_an_operator() {
    let (netdb, contacts) = entangled();
    let mut chance = Chance::new([6; 32]);
    let mut drawn = BTreeMap::<RelayId, usize>::new();
    let guards: Vec<RelayId> = contacts.iter().take(3).map(|contact| contact.id).collect();
    for round in 0..DRAWS {
        let guards = if round % 2 == 0 { &guards[..] } else { &[] };
        let want = Want { hops: 3 + round % 2, guards, pivot: None, avoid: &[], rather_not: &[] };
        let path = select(&netdb, &want, &mut chance).unwrap();
        assert_eq!(path.len(), want.hops);
        for (at, one) in path.iter().enumerate() {
            *drawn.entry(one.id).or_default() += 1;
            for other in &path[at + 1..] {
                let operators = (netdb.registry().operator(&one.id), netdb.registry().operator(&other.id));
                assert_ne!(one.id, other.id, "a relay twice");
                assert!(operators.0 != operators.1 || operators.0 == Some(0), "an operator twice");
                let nets = |contact: &Contact| -> Vec<Vec<u8>> {
                    let net = |addr: &SocketAddr| match addr {
                        SocketAddr::V4(v4) => v4.ip().octets()[..2].to_vec(),
                        SocketAddr::V6(v6) => v6.ip().octets()[..4].to_vec(),
                    };
                    contact.card.addrs.list().iter().map(net).collect()
                };
                let theirs = nets(other);
                assert!(!nets(one).iter().any(|net| theirs.contains(net)), "a net twice");
            }
        }
    }
    assert_eq!(drawn.len(), 36, "some relays are never drawn");
}

/// Relays that failed lately are drawn less, by 1 + 1023 / (1 + score); pivot and middle alike.
#[test]
fn hops_are_drawn_by_the_intended_weights() {
    let founders: Vec<Founder> =
        (0..24u8).map(|n| Founder { addrs: vec![v4(10, n, 0)], operator: 0, aes: true }).collect();
    let founded = found(&founders, &mut Chance::new([8; 32]), Wall::from_secs(1_800_000_000));
    let (mut netdb, contacts) = (founded.netdb, founded.contacts);
    for (number, contact) in contacts.iter().enumerate().skip(12) {
        // Some failed once, some often, and some have worked since.
        (0..number - 11).for_each(|_| netdb.profile.failed(contact.id));
        (0..number % 7).for_each(|_| netdb.profile.worked(&contact.id));
    }
    let guard = contacts[0].id;
    let weight = |id: &RelayId| 1.0 + f64::from(1023 / (1 + netdb.profile.score(id)));
    let weights: BTreeMap<RelayId, f64> = contacts
        .iter()
        .filter(|contact| contact.id != guard)
        .map(|contact| (contact.id, weight(&contact.id).floor()))
        .collect();
    let mut chance = Chance::new([9; 32]);
    let mut judge = |pivot: Option<RelayId>, place: usize, out: &[RelayId]| {
        let mut counts = BTreeMap::<RelayId, f64>::new();
        for _ in 0..DRAWS {
            let want = Want { hops: 3, guards: &[guard], pivot, avoid: &[], rather_not: &[] };
            *counts.entry(select(&netdb, &want, &mut chance).unwrap()[place].id).or_default() += 1.0;
        }
        let rest: Vec<(&RelayId, f64)> =
            weights.iter().filter(|(id, _)| !out.contains(id)).map(|(id, w)| (id, *w)).collect();
        let total: f64 = rest.iter().map(|(_, weight)| weight).sum();
        // What is to be drawn hardly ever is put together: χ² wants at least a few of each.
        let (mut seen, mut expected) = (vec![0.0], vec![0.0]);
        for (id, weight) in rest {
            let (count, hoped) = (counts.remove(id).unwrap_or(0.0), DRAWS as f64 * weight / total);
            if hoped < 8.0 {
                seen[0] += count;
                expected[0] += hoped;
            } else {
                seen.push(count);
                expected.push(hoped);
            }
        }
        if expected[0] == 0.0 {
            seen.remove(0);
            expected.remove(0);
        }
        assert!(counts.is_empty(), "somebody was drawn who must not be");
        let (chi, bound) = (chi_squared(&seen, &expected), chi_squared_bound(seen.len() - 1));
        println!("place {place}: χ² = {chi:.1} over {} kinds (bound {bound:.1})", seen.len());
        assert!(chi < bound, "not the intended weights");
    };
    judge(None, 2, &[]);
    judge(Some(contacts[1].id), 1, &[contacts[1].id]);
}
