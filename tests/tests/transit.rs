//! A relay and three clients with paths of one hop, without a world around them: what one of them sends must never come
//! out at a stranger's.

#![allow(clippy::unwrap_used)]

use core::time::Duration;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::link::{self, LinkId, LinkUp, Links, Role, Ticket};
use lokinet_core::netdb::Netdb;
use lokinet_core::path::{PathKey, Paths};
use lokinet_core::time::{Now, Time, Wall};
use lokinet_core::transit::admit::OnionKeys;
use lokinet_core::transit::{Action, Transit};
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::build::{Purpose, TOKEN};
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::contact::{Card, Contact, NetId};
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::registry::{self, Listing, Registry};
use lokinet_core::wire::request::Request;
use std::sync::Arc;

const SERVICE: [u8; TOKEN] = [5; TOKEN];

fn at(millis: u64) -> Now {
    Now { mono: Time::from_nanos(millis * 1_000_000), wall: Wall::from_millis(1_000_000_000 + millis) }
}

/// A client with its end of the link to the relay.
struct Client {
    paths: Paths,
    links: Links,
    link: LinkId,
}

struct Relay {
    transit: Transit,
    links: Links,
    netdb: Netdb,
    contact: Arc<Contact>,
    tickets: u64,
}

fn relay() -> Relay {
    let (netid, identity, authority) =
        (NetId::new("test").unwrap(), Identity::from_seed(&[1; 32]), Identity::from_seed(&[255; 32]));
    let id = RelayId(identity.public());
    let listing = Listing { id, operator: 0, hint: Addrs::default() };
    let now = at(0).wall;
    let until = now.plus(Duration::from_secs(3600));
    let signed = registry::sign(netid, 1, now, until, &[listing], core::slice::from_ref(&authority));
    let registry = Registry::verify(signed, netid, &[authority.public()], 1, now).unwrap();
    let keys = OnionKeys::generate(&mut Chance::new([9; 32]), now);
    let addrs = Addrs::from_list(&["10.1.0.1:1090".parse().unwrap()]);
    let card = Card { netid, onion: Box::new(*keys.public()), published: now, expires: until, aes: true, addrs };
    let contact = Arc::new(Contact::sign(&identity, card));
    let transit = Transit::new(id, keys, Chance::new([1; 32]));
    Relay { transit, links: Links::default(), netdb: Netdb::new(netid, true, registry), contact, tickets: 0 }
}

impl Relay {
    fn client(&mut self, number: u8) -> Client {
        let link = LinkId(number.into());
        let up = |peer, role| LinkUp {
            link,
            dial: None,
            peer,
            role,
            exporter: [number; 32].into(),
            suite: Suite::Aes,
            remote: ([10, 9, 9, number], 1000).into(),
        };
        let mut links = Links::default();
        assert!(links.up(&up(self.contact.id, Role::Initiator), true));
        assert!(self.links.up(&up(RelayId([number; 32]), Role::Responder), false));
        let paths = Paths::new(Chance::new([number; 32]), Duration::from_secs(600));
        Client { paths, links, link }
    }

    fn path(&mut self, client: &mut Client, purpose: Purpose, now: Now) -> PathKey {
        let hops = vec![self.contact.clone()];
        let key = client.paths.build(hops, purpose, None, Duration::MAX, &mut client.links, now).unwrap();
        let Some(link::Action::Request { ticket, body, .. }) = client.links.actions().pop() else {
            panic!("no request")
        };
        let Ok(Request::Build(body)) = Request::decode(&body) else { panic!("not a build") };
        self.tickets += 1;
        self.transit.build(client.link, Ticket(self.tickets), &body, &self.netdb, &mut self.links, now);
        let Some(Action::Answer(_, reply)) = self.transit.actions().pop() else { panic!("no answer") };
        let link = client.links.ended(ticket);
        assert!(client.paths.reply(ticket, reply, link, now.mono, &mut |_, blamed| assert_eq!(blamed, None)));
        assert!(client.paths.live(key).is_some());
        key
    }

    /// Carries what a client has staged to the relay; the links on which the relay then has something to send.
    fn carry(&mut self, client: &mut Client, now: Now) -> Vec<LinkId> {
        while let Some((_, size, _, mut bytes)) = client.links.take_run() {
            for datagram in bytes.chunks_mut(size.datagram()) {
                let (link, path, size, onion) = self.links.open(datagram, now.mono).unwrap();
                self.transit.cell(link, path, size, onion, &mut self.links, now.mono);
            }
        }
        core::iter::from_fn(|| self.links.take_run()).map(|(_, _, link, _)| link).collect()
    }
}

#[test]
fn a_caller_of_an_ended_service_reaches_nobody() {
    let mut relay = relay();
    let (mut host, mut caller, mut stranger) = (relay.client(1), relay.client(2), relay.client(3));
    let hosting = relay.path(&mut host, Purpose::Host(SERVICE), at(1));
    let calling = relay.path(&mut caller, Purpose::Join(SERVICE), at(2));
    let say = |client: &mut Client, now: Now| {
        assert!(client.paths.send(calling, Size::Small, &mut client.links, now.mono, |body| body.fill(7)));
    };
    say(&mut caller, at(3));
    assert_eq!(relay.carry(&mut caller, at(4)), [host.link], "a joined caller reaches the service");
    host.paths.close(hosting, &mut host.links, at(5).mono);
    assert_eq!(relay.carry(&mut host, at(5)), [caller.link], "the caller is told");
    // The place of the service's path is now another client's, who hosts too.
    relay.path(&mut stranger, Purpose::Host([6; TOKEN]), at(6));
    say(&mut caller, at(7));
    assert_eq!(relay.carry(&mut caller, at(8)), [], "a stranger was given what was meant for the service");
    caller.paths.close(calling, &mut caller.links, at(9).mono);
    assert_eq!(relay.carry(&mut caller, at(9)), [], "a stranger was told of somebody else's caller");
    assert_eq!(relay.transit.len(), 1);
}
