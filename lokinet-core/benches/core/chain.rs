//! Relays linked in a row, with a client before the first: the machines of the core joined by plain function calls
//! where life has sockets. Neighbours: `cells` sends through it, `records` knocks at its doors.

use core::time::Duration;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::link::{Action as LinkAction, LinkId, LinkUp, Links, Role, Ticket};
use lokinet_core::netdb::Netdb;
use lokinet_core::path::{PathKey, Paths};
use lokinet_core::time::{Now, Time, Wall};
use lokinet_core::transit::admit::OnionKeys;
use lokinet_core::transit::{Action, Transit};
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::build::Purpose;
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::contact::{Card, Contact, LIFETIME, NetId};
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::registry::{self, Listing, Registry};
use std::net::SocketAddr;
use std::sync::Arc;

/// The link towards the client, and the link away from it.
pub(crate) const BACK: LinkId = LinkId(1);
pub(crate) const ON: LinkId = LinkId(2);

/// What time it is in here.
pub(crate) const NOW: Now = Now { mono: Time::from_nanos(1_000_000_000), wall: Wall::from_secs(1_800_000_000) };

/// One relay's machines.
pub(crate) struct Relay {
    pub(crate) links: Links,
    pub(crate) transit: Transit,
}

/// A client, relays in a row, and what all of them know.
pub(crate) struct Chain {
    pub(crate) client: Links,
    pub(crate) paths: Paths,
    pub(crate) relays: Vec<Relay>,
    pub(crate) contacts: Vec<Arc<Contact>>,
    pub(crate) netdb: Netdb,
}

impl Chain {
    /// So many relays, linked one after another; the first to a client.
    pub(crate) fn new(count: u8) -> Chain {
        let mut chance = Chance::new([7; 32]);
        let netid = NetId::new("bench").unwrap();
        let (authority, identities) = (Identity::generate(&mut chance), identities(count, &mut chance));
        let listings: Vec<Listing> = identities
            .iter()
            .map(|identity| Listing { id: RelayId(identity.public()), operator: 0, hint: Addrs::default() })
            .collect();
        let until = NOW.wall.plus(LIFETIME);
        let signed = registry::sign(netid, 1, NOW.wall, until, &listings, core::slice::from_ref(&authority));
        let registry = Registry::verify(signed, netid, &[authority.public()], 1, NOW.wall).unwrap();
        let mut netdb = Netdb::new(netid, true, registry);
        let (mut relays, mut contacts) = (Vec::new(), Vec::new());
        for (number, identity) in identities.iter().enumerate() {
            let keys = OnionKeys::generate(&mut chance, NOW.wall);
            let card = Card {
                netid,
                onion: Box::new(*keys.public()),
                published: NOW.wall,
                expires: until,
                aes: true,
                addrs: Addrs::from_list(&[addr(number as u8 + 1)]),
            };
            let contact = Contact::sign(identity, card);
            netdb.learn(&contact.signed, NOW.wall);
            relays
                .push(Relay { links: Links::default(), transit: Transit::new(contact.id, keys, chance.fork("relay")) });
            contacts.push(Arc::new(contact));
        }
        let mut client = Links::default();
        let ids: Vec<RelayId> = contacts.iter().map(|contact| contact.id).collect();
        up(&mut client, BACK, ids[0], Role::Initiator, 0);
        // Known as a relay, so that a bench is not turned away for knocking too often.
        relays[0].links.up(&linked(BACK, RelayId([9; 32]), Role::Responder, 0), true, NOW.mono);
        for number in 1..ids.len() {
            up(&mut relays[number - 1].links, ON, ids[number], Role::Initiator, number as u8);
            up(&mut relays[number].links, BACK, ids[number - 1], Role::Responder, number as u8);
        }
        let paths = Paths::new(chance.fork("paths"), Duration::from_secs(1200));
        Chain { client, paths, relays, contacts, netdb }
    }

    /// Builds a path over all relays; it lives when this returns.
    pub(crate) fn path(&mut self) -> PathKey {
        let contacts = self.contacts.clone();
        let key = self
            .paths
            .build(contacts, Purpose::General, None, Duration::from_secs(1200), &mut self.client, NOW)
            .unwrap();
        let (ticket, body) = request(&mut self.client);
        let reply = self.knock(0, body.slice(1..));
        assert!(self.paths.reply(ticket, Some(reply), Some(BACK), NOW.mono, &mut |_, _| {}));
        assert!(self.paths.live(key).is_some(), "the path was not built");
        key
    }

    /// So many full cells that one more client of the first relay sends over all of them, sealed, end to end.
    pub(crate) fn flood(&mut self, number: u8, cells: usize) -> Vec<u8> {
        let (link, mut links) = (LinkId(100 + u64::from(number)), Links::default());
        let exporter = 100 + number;
        up(&mut links, link, self.contacts[0].id, Role::Initiator, exporter);
        self.relays[0].links.up(&linked(link, RelayId([exporter; 32]), Role::Responder, exporter), true, NOW.mono);
        let mut paths = Paths::new(Chance::new([exporter; 32]), Duration::from_secs(1200));
        let (contacts, life) = (self.contacts.clone(), Duration::from_secs(1200));
        let key = paths.build(contacts, Purpose::General, None, life, &mut links, NOW).unwrap();
        let (ticket, body) = request(&mut links);
        let reply = self.knock_from(link, 0, body.slice(1..));
        assert!(paths.reply(ticket, Some(reply), Some(link), NOW.mono, &mut |_, _| {}));
        let mut sent = Vec::new();
        for _ in 0..cells {
            assert!(paths.send(key, Size::Full, &mut links, NOW.mono, |body| body.fill(1)));
            let (_, size, _, bytes) = links.take_run().unwrap();
            sent.extend_from_slice(&bytes);
            links.give_back(link, size, bytes);
        }
        sent
    }

    fn knock(&mut self, at: usize, body: bytes::Bytes) -> bytes::Bytes {
        self.knock_from(BACK, at, body)
    }

    fn knock_from(&mut self, link: LinkId, at: usize, body: bytes::Bytes) -> bytes::Bytes {
        let relay = &mut self.relays[at];
        relay.transit.build(link, Ticket(u64::MAX), &body, &self.netdb, &mut relay.links, NOW);
        if at + 1 < self.relays.len() {
            let (ticket, body) = request(&mut self.relays[at].links);
            let deeper = self.knock(at + 1, body.slice(1..));
            let relay = &mut self.relays[at];
            let link = relay.links.ended(ticket);
            relay.transit.reply(ticket, Some(deeper), link, &mut relay.links, NOW.mono);
        }
        answer(&mut self.relays[at].transit)
    }
}

/// The one request that links want sent.
pub(crate) fn request(links: &mut Links) -> (Ticket, bytes::Bytes) {
    match links.actions().pop() {
        Some(LinkAction::Request { ticket, body, .. }) => (ticket, body),
        other => panic!("{other:?}"),
    }
}

/// The one answer that a relay wants given.
pub(crate) fn answer(transit: &mut Transit) -> bytes::Bytes {
    match transit.actions().pop() {
        Some(Action::Answer(_, Some(reply))) => reply,
        other => panic!("{other:?}"),
    }
}

fn identities(count: u8, chance: &mut Chance) -> Vec<Identity> {
    (0..count).map(|_| Identity::generate(chance)).collect()
}

fn up(links: &mut Links, link: LinkId, peer: RelayId, role: Role, number: u8) {
    links.up(&linked(link, peer, role, number), true, NOW.mono);
}

fn linked(link: LinkId, peer: RelayId, role: Role, number: u8) -> LinkUp {
    let exporter = [number; 32].into();
    LinkUp { link, dial: None, peer, role, exporter, suite: Suite::Aes, remote: addr(number) }
}

fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, number, 0, 1], 1090))
}
