//! The network that the node targets live in: six registered relays whose secrets the stranger has, a service of his,
//! and the values a driver would make. Neighbours: `relay` and `client` put one honest node into it, `records` shares
//! its clock.

use super::records::{NETWORK, NOW};
use bytes::Bytes;
use core::time::Duration;
use lokinet_core::crypto::exchange::Secret;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::flow::lease::Range;
use lokinet_core::link::{DialId, LinkId, LinkUp, Role};
use lokinet_core::node::config::{ClientConfig, Config, RelayConfig, Trade};
use lokinet_core::node::io::Saved;
use lokinet_core::time::{Now, Time};
use lokinet_core::transit::admit::OnionKeys;
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::contact::{Card, Contact, LIFETIME};
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::registry::{self, Listing, Registry};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

/// How many relays are registered; relay 0 is the honest one in `relay`.
pub const RELAYS: usize = 6;

/// The relays and who says that they are.
pub struct Network {
    /// The relays' identities.
    pub relays: Vec<Identity>,
    /// The keys that open their build records.
    pub onions: Vec<Secret>,
    /// Their contacts.
    pub contacts: Vec<Bytes>,
    /// Who is a relay.
    pub registry: Registry,
    /// Relay 0's onion keys as it would have saved them.
    pub saved_onions: Vec<u8>,
}

/// The only network there is; making it takes longer than most inputs.
pub static NET: LazyLock<Network> = LazyLock::new(|| {
    let mut chance = Chance::new([11; 32]);
    let relays: Vec<Identity> = (0..RELAYS).map(|_| Identity::generate(&mut chance)).collect();
    let keys: Vec<OnionKeys> = (0..RELAYS).map(|_| OnionKeys::generate(&mut chance, NOW)).collect();
    // Saved keys begin with when they were made, in seconds; the secret's seed follows.
    let seed = |keys: &OnionKeys| keys.encode()[8..].try_into().map(zeroize::Zeroizing::new).expect("one key");
    let listing = |(number, relay): (usize, &Identity)| {
        let hint = Addrs::from_list(&[address(number)]);
        Listing { id: RelayId(relay.public()), operator: 0, hint }
    };
    let listings: Vec<Listing> = relays.iter().enumerate().map(listing).collect();
    let authority = Identity::from_seed(&[9; 32]);
    let until = NOW.plus(LIFETIME * 1000);
    let signed = registry::sign(NETWORK, 1, NOW, until, &listings, core::slice::from_ref(&authority));
    let registry = Registry::verify(signed, NETWORK, &[authority.public()], 1, NOW).expect("just signed");
    let contacts = relays.iter().zip(&keys).enumerate().map(|(n, (relay, keys))| contact(relay, n, keys.public(), 0));
    Network {
        contacts: contacts.collect(),
        onions: keys.iter().map(|keys| Secret::from_seed(seed(keys))).collect(),
        registry,
        saved_onions: keys[0].encode().to_vec(),
        relays,
    }
});

/// Where a relay is.
pub fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, number as u8, 0, 1], 1090))
}

fn contact(relay: &Identity, number: usize, onion: &[u8; lokinet_core::crypto::exchange::PUBLIC], age: u64) -> Bytes {
    let published = NOW.plus(Duration::from_secs(age));
    let (expires, addrs) = (published.plus(LIFETIME), Addrs::from_list(&[address(number)]));
    let card = Card { netid: NETWORK, onion: Box::new(*onion), published, expires, aes: true, addrs };
    Contact::sign(relay, card).signed
}

/// Another edition of a relay's contact, so many seconds younger.
pub fn fresh_contact(number: usize, age: u64) -> Bytes {
    contact(&NET.relays[number], number, NET.onions[number].public(), age)
}

/// A link as the driver reports it, seen from the node that did not dial unless `dial` says so.
pub fn linked(
    link: LinkId,
    dial: Option<DialId>,
    peer: RelayId,
    exporter: [u8; 32],
    suite: Suite,
    remote: SocketAddr,
) -> LinkUp {
    let role = if dial.is_some() { Role::Initiator } else { Role::Responder };
    #[allow(clippy::useless_conversion)] // secrets may come to have a type of their own
    LinkUp { link, dial, peer, role, exporter: exporter.into(), suite, remote }
}

/// The clocks at the beginning.
pub fn beginning() -> Now {
    Now { mono: Time::from_nanos(1_000_000_000), wall: NOW }
}

/// The honest relay, number 0.
pub fn relay() -> Config {
    let trade = RelayConfig { identity: NET.relays[0].clone(), addrs: Addrs::from_list(&[address(0)]) };
    let onion_keys = Some(zeroize::Zeroizing::new(NET.saved_onions.clone()));
    configuration(Trade::Relay(Box::new(trade)), Saved { onion_keys, ..Saved::default() }, 2)
}

/// The honest client.
pub fn client(reachable: bool, hops: usize) -> Config {
    let client = ClientConfig {
        identity: Identity::from_seed(&[21; 32]),
        reachable,
        hops,
        paths: 3,
        lifetime: Duration::from_secs(1200),
        strict: Vec::new(),
        range: Range::new(Ipv4Addr::new(172, 16, 0, 1), 16, "fd00::".parse().ok()).expect("room"),
        mapaddr: Vec::new(),
        srv: Vec::new(),
        netid: "fuzz".to_owned(),
    };
    configuration(Trade::Client(Box::new(client)), Saved::default(), RELAYS)
}

fn configuration(trade: Trade, saved: Saved, known: usize) -> Config {
    let bootstraps = NET.contacts[..known].to_vec();
    Config { netid: NETWORK, private: true, registry: NET.registry.clone(), bootstraps, saved, aes: true, trade }
}
