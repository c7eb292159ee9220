//! A town by closed rule: relays, clients and services with names, keys and addresses that follow from the world's
//! seed and their numbers alone. The only place that makes real nodes. Neighbours: `world` houses them.

use super::eyes::Views;
use super::glass::Glass;
use super::machine::{Birth, Machine};
use super::{BEGINNING, Event, World};
use bytes::Bytes;
use core::time::Duration;
use ed25519_dalek::SigningKey;
use lokinet_core::crypto::key::Identity;
use lokinet_core::flow::lease::Range;
use lokinet_core::node::Node;
use lokinet_core::node::config::{self, ClientConfig, Config, RelayConfig};
use lokinet_core::node::io::Input;
use lokinet_core::time::Wall;
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::contact::NetId;
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::registry::{self, Listing, Refused, Registry};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use zeroize::Zeroizing;

/// Relays whose contacts everybody is given at birth.
pub const BOOTSTRAPS: usize = 3;
/// Authorities that sign the registry, and how many of them it needs.
pub const AUTHORITIES: (usize, usize) = (3, 2);
/// The network's id; private, so that private addresses are allowed.
pub const NETID: &str = "world";

/// What a node is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trade {
    /// Lends hops.
    Relay,
    /// Reaches services, and publishes nothing.
    Client,
    /// Is reached under its `.loki` address.
    Service,
}

/// Everything about a node that does not change from start to start.
#[derive(Clone)]
pub struct Papers {
    /// Its name in the world.
    pub name: String,
    /// What it is for.
    pub trade: Trade,
    /// Its Ed25519 seed: a relay's identity, a service's keyfile. Clients have none.
    pub identity: Option<Zeroizing<[u8; 32]>>,
    /// Where it is.
    pub addr: SocketAddr,
    /// What the Ed25519 seeds of the authorities that sign the registry are made from.
    pub authority: Zeroizing<[u8; 32]>,
    /// Every relay there is, sorted.
    pub registry: Vec<RelayId>,
    /// Its TUN device's own address.
    pub tun: Ipv4Addr,
}

impl World {
    /// A world with a town whose nodes have all been started.
    pub fn town(seed: u64, relays: usize, clients: usize, services: usize) -> World {
        let mut world = World::new(seed);
        world.settle(relays, clients, services);
        world
    }

    /// Founds `relay1…`, `client1…` and `service1…` and starts them; bootstraps first, one after another, so that
    /// everyone born later is given their contacts.
    pub fn settle(&mut self, relays: usize, clients: usize, services: usize) {
        self.settle_with(relays, clients, services, |_, node| Box::new(node));
    }

    /// The same with every relay in glass: what they see is found where it is written down.
    pub fn settle_in_glass(&mut self, relays: usize, clients: usize, services: usize) -> Views {
        let views = Views::default();
        let seen = views.clone();
        self.settle_with(relays, clients, services, move |name, node| match name.starts_with("relay") {
            true => Box::new(Glass::new(name, node, seen.clone())),
            false => Box::new(node),
        });
        views
    }

    /// Has whoever will be settled under this name be somebody else, with all other things equal.
    pub fn disguise(&mut self, name: &str, other: &str) {
        self.aliases.insert(name.to_owned(), other.to_owned());
    }

    /// The same with some nodes dressed up as something else, by name.
    pub fn settle_with(
        &mut self,
        relays: usize,
        clients: usize,
        services: usize,
        dress: impl Fn(&str, Node) -> Box<dyn Machine> + Clone + 'static,
    ) {
        let mut registry: Vec<RelayId> = (1..=relays).map(|n| key_of(&self.seed_of(&format!("relay{n}")))).collect();
        registry.sort();
        let trades = [(Trade::Relay, relays), (Trade::Client, clients), (Trade::Service, services)];
        for (trade, number) in trades.into_iter().flat_map(|(trade, count)| (1..=count).map(move |n| (trade, n))) {
            let name = name_of(trade, number);
            let identity = (trade != Trade::Client).then(|| self.seed_of(&name));
            let papers = Papers {
                trade,
                identity: identity.clone(),
                addr: address_of(trade, number),
                authority: self.seed_of("authority"),
                registry: registry.clone(),
                tun: Ipv4Addr::new(172, 16, 0, 1),
                name: name.clone(),
            };
            let key = identity.filter(|_| trade == Trade::Relay).map(|seed| key_of(&seed));
            let dress = dress.clone();
            self.add(&name, papers.addr, key, Box::new(move |birth| dress(&papers.name, bear(&papers, birth))));
            if trade == Trade::Relay && number <= BOOTSTRAPS {
                self.make_bootstrap(&name);
            }
        }
        for (trade, number) in trades.into_iter().flat_map(|(trade, count)| (1..=count).map(move |n| (trade, n))) {
            let name = name_of(trade, number);
            self.start(&name);
            if trade == Trade::Relay && number <= BOOTSTRAPS {
                self.run_until(|world| world.own_contact(&name).is_some(), Duration::from_secs(1));
            }
        }
    }

    /// The authority publishes a new edition of the registry, in which these relays are listed, and every living node
    /// is given it. It counts from the beginning, for so long.
    pub fn publish_registry(&mut self, serial: u64, relays: &[&str], lasts: Duration) {
        let all = self.hosts.iter().map(|host| host.name.clone()).collect::<Vec<_>>();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert!(self.show_registry(&all, serial, relays, lasts, AUTHORITIES.0), "all authorities do not suffice");
    }

    /// Somebody shows these nodes an edition that the last `signers` of the authorities have signed, and they do with it what
    /// a daemon does with its file. Whether it counts for anybody.
    pub fn show_registry(
        &mut self,
        to: &[&str],
        serial: u64,
        relays: &[&str],
        lasts: Duration,
        signers: usize,
    ) -> bool {
        let listed: Vec<RelayId> = relays.iter().filter_map(|name| self.key(name)).collect();
        let authorities = authorities(&self.seed_of("authority"));
        let signers = &authorities[AUTHORITIES.0 - signers..];
        let signed = sign(signers, serial, &listed, BEGINNING.plus(lasts));
        let Ok(registry) = verify(signed, &authorities, BEGINNING) else { return false };
        for name in to {
            let id = self.host(name);
            self.feed(id, Input::Registry(registry.clone()));
        }
        true
    }

    /// Lets time pass until every living node of the town is ready and every service has published, each in the life
    /// it lives now, at most `patience`; whether it came to that.
    pub fn awake(&mut self, patience: Duration) -> bool {
        // Only a milestone can make the difference.
        let mut told = None;
        let awake = |world: &World| told.replace(world.milestones) != Some(world.milestones) && world.is_awake();
        self.run_until(awake, patience)
    }

    fn is_awake(&self) -> bool {
        self.hosts.iter().filter(|host| host.machine.is_some()).all(|host| {
            let has = |wanted: Event| host.events.iter().any(|(at, event)| *at >= host.born && *event == wanted);
            has(Event::Ready) && (has(Event::Published) || !host.name.starts_with("service"))
        })
    }

    /// The secret that belongs to a name in this world.
    fn seed_of(&self, name: &str) -> Zeroizing<[u8; 32]> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        let mut mixed = [0; 32];
        mixed[..8].copy_from_slice(&self.seed.to_le_bytes());
        for (i, byte) in name.bytes().enumerate() {
            mixed[8 + i % 24] = mixed[8 + i % 24].rotate_left(3) ^ byte;
        }
        let mut secret = Zeroizing::new([0; 32]);
        ChaCha20Rng::from_seed(mixed).fill_bytes(&mut *secret);
        secret
    }
}

fn name_of(trade: Trade, number: usize) -> String {
    match trade {
        Trade::Relay => format!("relay{number}"),
        Trade::Client => format!("client{number}"),
        Trade::Service => format!("service{number}"),
    }
}

/// Relay n is at 10.n.0.1:1090, after 250 at 11.x, 12.x and so on; clients and services likewise in nets of their own.
/// Every node has a /16 to itself.
pub fn address_of(trade: Trade, number: usize) -> SocketAddr {
    let (net, port) = match trade {
        Trade::Relay => (10, 1090),
        Trade::Client => (60, 40_001),
        Trade::Service => (90, 50_001),
    };
    let (high, low) = ((number - 1) / 250, (number - 1) % 250 + 1);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new((net + high) as u8, low as u8, 0, 1)), port)
}

/// The public key of an Ed25519 seed.
fn key_of(seed: &[u8; 32]) -> RelayId {
    RelayId(SigningKey::from_bytes(seed).verifying_key().to_bytes())
}

fn authorities(seed: &[u8; 32]) -> Vec<Identity> {
    let seed = |number: u8| core::array::from_fn(|i| if i == 0 { seed[0] ^ number } else { seed[i] });
    (0..AUTHORITIES.0 as u8).map(|number| Identity::from_seed(&seed(number))).collect()
}

/// A registry, signed long ago.
fn sign(signers: &[Identity], serial: u64, relays: &[RelayId], until: Wall) -> Bytes {
    let listings: Vec<Listing> =
        relays.iter().map(|id| Listing { id: *id, operator: 0, hint: Addrs::default() }).collect();
    registry::sign(netid(), serial, Wall::from_secs(1), until, &listings, signers)
}

fn verify(signed: Bytes, authorities: &[Identity], now: Wall) -> Result<Registry, Refused> {
    let keys: Vec<[u8; 32]> = authorities.iter().map(Identity::public).collect();
    Registry::verify(signed, netid(), &keys, AUTHORITIES.1, now)
}

fn netid() -> NetId {
    NetId::new(NETID).expect("a short name")
}

/// Makes the node: configuration from its papers, chance, clocks and disk from its birth.
pub fn bear(papers: &Papers, birth: Birth) -> Node {
    // For long: scenarios that jump clocks stay inside.
    let until = Wall::from_secs(u32::MAX.into());
    let authorities = authorities(&papers.authority);
    let file = verify(sign(&authorities, 1, &papers.registry, until), &authorities, birth.now.wall);
    let keys: Vec<[u8; 32]> = authorities.iter().map(Identity::public).collect();
    let registry = file.expect("just signed").or_kept(birth.saved.registry.as_ref(), netid(), &keys, AUTHORITIES.1);
    // A client's identity is as fresh as its chance; a service's is its keyfile.
    let seed = papers.identity.clone().unwrap_or_else(|| Zeroizing::new(birth.seed.map(|byte| !byte)));
    let identity = Identity::from_seed(&seed);
    let trade = match papers.trade {
        Trade::Relay => {
            config::Trade::Relay(Box::new(RelayConfig { identity, addrs: Addrs::from_list(&[papers.addr]) }))
        }
        Trade::Client | Trade::Service => config::Trade::Client(Box::new(ClientConfig {
            identity,
            reachable: papers.trade == Trade::Service,
            hops: 3,
            paths: 4,
            lifetime: Duration::from_secs(1200),
            strict: Vec::new(),
            range: Range::new(papers.tun, 16, Some("fd00::".parse().expect("an address"))).expect("room"),
            mapaddr: Vec::new(),
            srv: Vec::new(),
            netid: NETID.to_owned(),
        })),
    };
    let config = Config {
        netid: netid(),
        private: true,
        registry,
        bootstraps: birth.bootstraps,
        saved: birth.saved,
        aes: true,
        trade,
    };
    Node::new(config, birth.seed.into(), birth.now)
}
