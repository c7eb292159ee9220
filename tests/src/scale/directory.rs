//! What a directory of many relays costs one client, reckoned at the floors that do the work: every contact is signed,
//! told, cut into cells and verified for real, without the nodes around it. Neighbour: `scale`.

use super::process;
use lokinet_core::crypto::exchange::Secret;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::netdb::{Learned, Netdb};
use lokinet_core::time::Wall;
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::contact::{Card, Contact, LIFETIME, NetId};
use lokinet_core::wire::control::{CONTACTS_MAX, NAMES_MAX, Tell};
use lokinet_core::wire::fragment;
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::registry::{self, Listing, Registry};
use std::net::{Ipv4Addr, SocketAddr};

/// What it costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Relays.
    pub relays: usize,
    /// The signed registry, in bytes.
    pub registry: usize,
    /// Processor seconds for verifying the registry.
    pub registry_cpu: f64,
    /// All contacts, in bytes.
    pub contacts: usize,
    /// Processor seconds for verifying all contacts, once.
    pub cold_cpu: f64,
    /// Processor seconds for being told all of them again, nothing being new.
    pub again_cpu: f64,
    /// A round of learning over a path, when ten minutes' share of the contacts is new (each is, every six hours): what
    /// crosses the client's wire downwards, in bytes of UDP payload.
    pub over_path: usize,
}

/// Reckons it for so many relays; `None` when a registry or contact of our own making is refused, which is a bug.
pub fn cost(relays: usize) -> Option<Cost> {
    let netid = NetId::new(crate::world::town::NETID)?;
    let authority = Identity::from_seed(&[255; 32]);
    let wall = crate::world::BEGINNING;
    let identities: Vec<Identity> = (0..relays).map(identity).collect();
    let listing = |identity: &Identity| Listing { id: RelayId(identity.public()), operator: 0, hint: Addrs::default() };
    let listings: Vec<Listing> = identities.iter().map(listing).collect();
    let until = wall.plus(LIFETIME);
    let signed = registry::sign(netid, 1, wall, until, &listings, core::slice::from_ref(&authority));
    let registry_len = signed.len();
    let began = process::cpu_seconds();
    let registry = Registry::verify(signed, netid, &[authority.public()], 1, wall).ok()?;
    let registry_cpu = process::cpu_seconds() - began;
    let onion = Box::new(*Secret::generate(&mut Chance::new([9; 32])).public());
    let contact = |(n, identity): (usize, &Identity)| {
        let ip = Ipv4Addr::new(10, (n >> 8) as u8, n as u8, 1);
        let addrs = Addrs::from_list(&[SocketAddr::from((ip, 1090))]);
        let card = Card { netid, onion: onion.clone(), published: wall, expires: until, aes: true, addrs };
        Contact::sign(identity, card).signed
    };
    let contacts: Vec<_> = identities.iter().enumerate().map(contact).collect();
    let mut netdb = Netdb::new(netid, true, registry);
    let mut learn = |wall: Wall| {
        let began = process::cpu_seconds();
        let new = contacts.iter().filter(|contact| matches!(netdb.learn(contact, wall), Learned::New(_))).count();
        (new, process::cpu_seconds() - began)
    };
    let (new, cold_cpu) = learn(wall);
    let (newer, again_cpu) = learn(wall);
    let cells = |tell: Tell| fragment::split(1, &tell.encode(), Size::Full.payload()).len();
    let all = netdb.names(&RelayId([0; 32]), relays);
    let named: usize = all.chunks(NAMES_MAX).map(|page| cells(Tell::Names(page.to_vec()))).sum();
    let fresh: usize =
        contacts[..relays / 36].chunks(CONTACTS_MAX).map(|page| cells(Tell::Contacts(page.to_vec()))).sum();
    let over_path = (named + fresh) * Size::Full.datagram();
    let bytes = contacts.iter().map(|contact| contact.len()).sum();
    (new == relays && newer == 0).then_some(Cost {
        relays,
        registry: registry_len,
        registry_cpu,
        contacts: bytes,
        cold_cpu,
        again_cpu,
        over_path,
    })
}

fn identity(n: usize) -> Identity {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
    Identity::from_seed(&seed)
}
