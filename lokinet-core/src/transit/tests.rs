//! A relay's door as a client finds it that is greedy or shows things twice. Neighbours: `transit` and `admit` are tested
//! here with real records; whole paths are tested in the simulated world.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::crypto::exchange::{SEED, Secret};
use crate::crypto::seal::Suite;
use crate::link::{LinkUp, Role};
use crate::netdb::testing::known;
use crate::time::Wall;
use crate::wire::build::{Header, Opening, RIDER};
use crate::wire::codec::Writer;
use zeroize::Zeroizing;

/// A relay, and a client that is linked with it.
struct Door {
    transit: Transit,
    links: Links,
    netdb: Netdb,
    onion: [u8; crate::crypto::exchange::PUBLIC],
    chance: Chance,
    now: Now,
    ticket: u64,
}

const CLIENT: LinkId = LinkId(1);
const OTHER: LinkId = LinkId(2);

impl Door {
    fn new() -> Door {
        let now = Now { mono: Time::from_nanos(0), wall: Wall::from_secs(1_700_000_000) };
        let seed = Zeroizing::new([5; SEED]);
        let onion = *Secret::from_seed(seed.clone()).public();
        let mut saved = Writer::default();
        saved.u64(now.wall.secs()).bytes(seed.as_slice());
        let keys = admit::OnionKeys::decode(&saved.done()).unwrap();
        let mut links = Links::default();
        for link in [CLIENT, OTHER] {
            let (peer, role, suite) = (RelayId([link.0 as u8; 32]), Role::Responder, Suite::Aes);
            let (exporter, remote) = ([link.0 as u8; 32].into(), "10.9.0.1:1".parse().unwrap());
            assert!(links.up(&LinkUp { link, dial: None, peer, role, exporter, suite, remote }, false, now.mono));
        }
        let transit = Transit::new(RelayId([77; 32]), keys, Chance::new([6; 32]));
        Door { transit, links, netdb: known(4), onion, chance: Chance::new([7; 32]), now, ticket: 0 }
    }

    fn wait(&mut self, time: Duration) {
        self.now = Now { mono: self.now.mono + time, wall: self.now.wall.plus(time) };
    }

    /// A build of one hop, to live as long as it may.
    fn record(&mut self) -> (Bytes, Opening) {
        let header = self.header();
        self.seal(&header)
    }

    fn header(&mut self) -> Header {
        Header {
            ephemeral: Box::new(*Secret::generate(&mut self.chance).public()),
            next: None,
            back: PathId(self.chance.nonzero()),
            lifetime: 3600,
            minute: build::told_minute(self.now.wall),
            depth: 1,
            suite: Suite::Aes,
            purpose: Purpose::General,
        }
    }

    fn seal(&mut self, header: &Header) -> (Bytes, Opening) {
        let mut body = vec![0; RIDER];
        if header.depth > 1 {
            let deeper = self.header();
            body = build::seal_record(&self.onion, &deeper, &body, &mut self.chance).unwrap().0;
        }
        let (mut body, opening) = build::seal_record(&self.onion, header, &body, &mut self.chance).unwrap();
        build::pad(&mut body, BUILD, &mut self.chance);
        (body.into(), opening)
    }

    /// What the client is told; nothing when it is not answered.
    fn shown(&mut self, link: LinkId, (body, opening): &(Bytes, Opening)) -> Option<Status> {
        self.ticket += 1;
        self.transit.build(link, Ticket(self.ticket), body, &self.netdb, &mut self.links, self.now);
        match self.transit.actions().pop() {
            Some(Action::Answer(_, reply)) => Some(build::open_reply(opening, 1, &reply?).unwrap().0),
            _ => panic!("every build is answered at once"),
        }
    }
}

impl Door {
    /// A hop that came by a link: the path's name on it.
    fn path(&mut self, link: LinkId, purpose: Purpose) -> PathId {
        let mut header = self.header();
        header.purpose = purpose;
        let (record, back) = (self.seal(&header), header.back);
        assert_eq!(self.shown(link, &record), Some(Status::Accepted));
        back
    }

    /// On which links cells leave.
    fn leaving(&mut self) -> Vec<LinkId> {
        let mut links = Vec::new();
        while let Some((_, size, link, cells)) = self.links.take_run() {
            links.push(link);
            self.links.give_back(link, size, cells);
        }
        links
    }
}

/// A service's path broke somewhere before its pivot, who would keep callers on it to its lifetime.
#[test]
fn callers_hear_at_once_that_the_services_path_has_ended() {
    let mut door = Door::new();
    let token = [3; build::TOKEN];
    let service = door.path(CLIENT, Purpose::Host(token));
    door.path(OTHER, Purpose::Join(token));
    let now = door.now.mono;
    door.transit.ended(OTHER, &[service], &mut door.links, now);
    assert_eq!((door.transit.len(), door.leaving()), (2, vec![]), "one who is not on the path ended it");
    door.transit.ended(CLIENT, &[service], &mut door.links, now);
    assert_eq!((door.transit.len(), door.leaving()), (1, vec![OTHER]), "the caller is told");
    door.path(CLIENT, Purpose::Host(token));
}

/// The hop between passes it on, and a build that waits for its reply is not ended with the link that was to carry it.
#[test]
fn a_lost_link_ends_what_came_by_it_and_spares_a_build_that_is_sent_again() {
    let mut door = Door::new();
    let next = door.netdb.contacts().next().unwrap().clone();
    let up = |link: u64| LinkUp {
        link: LinkId(link),
        dial: None,
        peer: next.id,
        role: Role::Initiator,
        suite: Suite::Aes,
        exporter: [link as u8; 32].into(),
        remote: next.card.addrs.list()[0],
    };
    assert!(door.links.up(&up(5), true, door.now.mono));
    let mut header = door.header();
    (header.depth, header.next) = (2, Some((next.id, next.card.addrs, PathId(77))));
    let record = door.seal(&header);
    door.ticket += 1;
    door.transit.build(CLIENT, Ticket(door.ticket), &record.0, &door.netdb, &mut door.links, door.now);
    let sent = door.links.actions();
    let [crate::link::Action::Request { ticket, link: LinkId(5), .. }] = sent[..] else { panic!("{sent:?}") };

    let now = door.now.mono;
    door.links.down(LinkId(5));
    door.transit.link_down(LinkId(5), &mut door.links, now);
    assert!(door.links.again(ticket, now) && door.transit.len() == 1 && door.leaving().is_empty());
    assert!(door.links.up(&up(6), true, now));
    door.links.actions();
    let link = door.links.ended(ticket);
    assert_eq!(link, Some(LinkId(6)));
    let reply = Bytes::from(vec![0; build::REPLY]);
    assert!(door.transit.reply(ticket, Some(reply), link, &mut door.links, now));
    let Some(Action::Answer(_, Some(reply))) = door.transit.actions().pop() else { panic!("no answer") };
    assert_eq!(build::open_reply(&record.1, 2, &reply).unwrap().0, Status::Accepted);

    door.transit.link_down(CLIENT, &mut door.links, now);
    let told = door.transit.actions();
    assert!(matches!(&told[..], [Action::Ended(LinkId(6), paths)] if *paths == [PathId(77)]), "{told:?}");
    assert!(door.transit.is_empty());
}

#[test]
fn a_build_is_admitted_once() {
    let mut door = Door::new();
    let record = door.record();
    assert_eq!(door.shown(CLIENT, &record), Some(Status::Accepted));
    for link in [CLIENT, OTHER] {
        assert_eq!(door.shown(link, &record), None, "shown twice and answered twice");
    }
    door.wait(Duration::from_secs(60 * 21));
    let fresh = door.record();
    assert_eq!(door.shown(CLIENT, &fresh), Some(Status::Accepted));
    assert_eq!(door.shown(CLIENT, &record), Some(Status::WrongTime), "old, and remembered no more");
    assert_eq!(door.transit.len(), 2);
}

#[test]
fn a_greedy_client_is_slowed_and_then_refused_and_others_are_not() {
    let mut door = Door::new();
    let mut accepted = 0;
    for round in 0..60 {
        let mut answered = 0;
        loop {
            let record = door.record();
            match door.shown(CLIENT, &record) {
                None => break,
                Some(status) => {
                    answered += 1;
                    accepted += usize::from(status == Status::Accepted);
                    assert!(status == Status::Accepted || accepted == HOPS_OF_CLIENT, "{status:?} after {accepted}");
                }
            }
        }
        let (burst, rate) = admit::CLIENT_RATE;
        assert_eq!(answered, if round == 0 { burst } else { 20 * rate }, "round {round}");
        door.wait(Duration::from_secs(20));
    }
    assert_eq!((accepted, door.transit.len()), (HOPS_OF_CLIENT, HOPS_OF_CLIENT));
    let record = door.record();
    assert_eq!(door.shown(OTHER, &record), Some(Status::Accepted));
    // Who leaves makes room.
    let now = door.now.mono;
    door.transit.link_down(CLIENT, &mut door.links, now);
    assert_eq!((door.transit.len(), door.transit.brought.len()), (1, 1));
    assert_eq!(door.shown(CLIENT, &record), None);
    let record = door.record();
    assert_eq!(door.shown(CLIENT, &record), Some(Status::Accepted));
}
