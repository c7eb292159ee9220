//! Vectors of whole records: the directory's, builds, conversations, and the messages between them. Neighbours: `main`
//! holds the keys and layers they are sealed with.

use super::{NOW, Page, identity, relay_at, secret};
use core::time::Duration;
use lokinet_core::crypto::blind;
use lokinet_core::crypto::exchange::{self, CIPHERTEXT};
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::wire::build::{self, BUILD, Header, Purpose, RIDER, Status, TOKEN};
use lokinet_core::wire::contact::{Card, Contact, LIFETIME, NetId};
use lokinet_core::wire::control::{Ask, Tell};
use lokinet_core::wire::fragment;
use lokinet_core::wire::id::{CallerId, PathId, RelayId, SessionId};
use lokinet_core::wire::introset::{Envelope, Introset, Lease};
use lokinet_core::wire::packet::Stripped;
use lokinet_core::wire::registry::{self, Listing, Registry};
use lokinet_core::wire::request::Request;
use lokinet_core::wire::session::{self, Caller, Frame};

fn card(netid: NetId) -> Card {
    let (published, expires) = (NOW, NOW.plus(LIFETIME));
    Card { netid, onion: Box::new(*secret(4).public()), published, expires, aes: true, addrs: relay_at(1) }
}

#[test]
fn directory() {
    let mut page = Page::new(
        "The directory's records (spec chapter 20), network 'vectors', at 1767225600. Identities' seeds are n n n .., onion
         keys are drawn from a chance seeded with 04 04 ..",
    );
    let netid = NetId::new("vectors").unwrap();
    let contact = Contact::sign(&identity(3), card(netid));
    page.bytes("contact of identity 3", &contact.signed);
    page.bytes("contact of identity 3, beginning", &contact.signed[..41]);
    page.bytes("contact of identity 3, end", &contact.signed[contact.signed.len() - 105..]);
    let listing = |n: u8| Listing { id: RelayId(identity(n).public()), operator: n.into(), hint: relay_at(n) };
    let authorities = [identity(8), identity(9)];
    let until = NOW.plus(LIFETIME);
    let signed = registry::sign(netid, 5, NOW, until, &[listing(3), listing(4)], &authorities);
    page.bytes("registry 5 of identities 3 and 4, signed by 8 and 9", &signed);
    Registry::verify(signed, netid, &authorities.map(|a| a.public()), 2, NOW).unwrap();
    let lease = |n: u8| Lease { pivot: RelayId([n; 32]), token: [n; TOKEN], until: NOW.plus(Duration::from_secs(600)) };
    let introset = Introset { handshake: Box::new(*secret(4).public()), leases: vec![lease(1), lease(2)] };
    let (period, until) = (blind::period(NOW), NOW.plus(Duration::from_secs(900)));
    let signed = introset.publish(&identity(1), period, 6, until, &mut Chance::new([7; 32])).unwrap();
    page.bytes("introset 6 of identity 1, chance 07 07 ..", &signed);
    page.bytes("introset 6 of identity 1, beginning", &signed[..73]);
    page.bytes("introset 6 of identity 1, signature", &signed[signed.len() - 64..]);
    assert_eq!(Envelope::verify(signed, NOW).unwrap().open(&identity(1).public()), Some(introset));
    page.hold("directory.txt");
}

fn header(depth: u8) -> Header {
    Header {
        ephemeral: Box::new(*secret(20 + depth).public()),
        next: (depth > 1).then(|| (RelayId([depth; 32]), relay_at(depth), PathId(depth.into()))),
        back: PathId(u32::from(depth) + 1),
        lifetime: 1200,
        minute: 29_453_760,
        depth,
        suite: Suite::Aes,
        purpose: if depth == 1 { Purpose::Join([8; TOKEN]) } else { Purpose::General },
    }
}

#[test]
fn builds() {
    let mut page = Page::new(
        "A path build over two hops and its reply (spec chapter 50). Onion keys are drawn from chances seeded with 0b 0b ..
         (pivot) and 0c 0c .. (first hop), ephemeral keys from 15 15 .. and 16 16 .., everything else from 05 05 ..;
         the rider is all 5a.",
    );
    let mut chance = Chance::new([5; 32]);
    let (pivot, _) = build::seal_record(secret(11).public(), &header(1), &[0x5a; RIDER], &mut chance).unwrap();
    page.bytes("the pivot's record", &pivot);
    page.bytes("the pivot's record, first 64 bytes", &pivot[..64]);
    let (mut body, ours) = build::seal_record(secret(12).public(), &header(2), &pivot, &mut chance).unwrap();
    build::pad(&mut body, BUILD, &mut chance);
    page.bytes("the whole build", &body);
    let (first, deeper, opened) = build::open_record(&secret(12), &body).unwrap();
    assert!(deeper[..] == pivot[..] && first.next == header(2).next);
    let (ciphertext, shared) = exchange::encapsulate(&first.ephemeral, &mut chance).unwrap();
    for (opening, who) in [(&ours, "client"), (&opened, "hop")] {
        let [forward, backward] = opening.layers(&RelayId([2; 32]), &ciphertext, &shared);
        page.bytes(&format!("the first hop's layer secret, forward, at the {who}"), &forward[..]);
        page.bytes(&format!("the first hop's layer secret, backward, at the {who}"), &backward[..]);
    }
    let mut reply = Vec::new();
    for (opening, depth, status) in
        [(&opened, 1, Status::Accepted), (&opened, 2, Status::Accepted), (&opened, 2, Status::Busy)]
    {
        let accepted = (status == Status::Accepted).then_some((&*ciphertext, reply.as_slice()));
        let sealed = build::seal_reply(opening, depth, status, accepted, &mut chance);
        page.bytes(&format!("reply at depth {depth}, {status:?}"), &sealed);
        assert_eq!(build::open_reply(&ours, depth, &sealed).unwrap().0, status);
        reply = sealed;
    }
    assert_eq!(ciphertext.len(), CIPHERTEXT);
    page.hold("builds.txt");
}

#[test]
fn sessions() {
    let mut page = Page::new(
        "A conversation's handshake (spec chapter 70): identity 2 (or nobody) calls identity 1. The service's handshake key
         is drawn from a chance seeded with 04 04 .., everything else from 06 06 ..",
    );
    let key = secret(4);
    for (caller, who) in [(None, "anonymous"), (Some(identity(2)), "identity 2")] {
        let mut chance = Chance::new([6; 32]);
        let address = caller.as_ref().map(Identity::public);
        let about = Caller { session: SessionId(5), time: NOW, suite: Suite::Aes, address };
        let calling = session::call(&identity(1).public(), key.public(), about, caller.as_ref(), &mut chance).unwrap();
        page.bytes(&format!("{who}: hello"), &calling.hello);
        page.bytes(&format!("{who}: hello, last 64 bytes"), &calling.hello[calling.hello.len() - 64..]);
        page.bytes(&format!("{who}: name of the hello"), calling.name());
        let (_, answering) = session::answer(&identity(1).public(), &key, &calling.hello).unwrap();
        let (welcome, [up, down]) = answering.welcome(SessionId(9), &mut chance).unwrap();
        page.bytes(&format!("{who}: welcome"), &welcome);
        page.bytes(&format!("{who}: welcome, last 64 bytes"), &welcome[welcome.len() - 64..]);
        page.bytes(&format!("{who}: secret, caller to service"), &up[..]);
        page.bytes(&format!("{who}: secret, service to caller"), &down[..]);
        assert_eq!(calling.open(&welcome), Some((SessionId(9), [up, down])));
    }
    let mut frames = Vec::new();
    for frame in [
        Frame::Packet(Stripped { bytes: b"packet", partial: false }),
        Frame::Probe(1),
        Frame::Echo(2),
        Frame::Here,
        Frame::Where,
        Frame::Met(b"leases"),
        Frame::Close,
    ] {
        frame.write(&mut frames, 1000);
    }
    page.bytes("frames: packet 'packet', probe 1, echo 2, here, where, met 'leases', close", &frames);
    page.hold("sessions.txt");
}

#[test]
fn messages() {
    let mut page = Page::new("Control messages, requests and fragments (spec chapters 50 and 60). Ids are n n n ..");
    let (at, bytes) = (RelayId([1; 32]), bytes::Bytes::from_static(b"bytes"));
    for (name, ask) in [
        ("ping", Ask::Ping),
        ("find 02 02 .. at 1", Ask::Find { at, key: [2; 32] }),
        ("store 'bytes' at 1", Ask::Store { at, introset: bytes.clone() }),
        ("names after 1", Ask::Names { after: at }),
        ("named 02 02 ..", Ask::Named(vec![[2; 8]])),
        ("close", Ask::Close),
    ] {
        page.bytes(&format!("ask: {name}"), ask.encode());
    }
    for (name, tell) in [
        ("pong", Tell::Pong),
        ("found nothing", Tell::Found(None)),
        ("found 'bytes'", Tell::Found(Some(bytes.clone()))),
        ("stored", Tell::Stored(true)),
        ("not stored", Tell::Stored(false)),
        ("no contacts", Tell::Contacts(Vec::new())),
        ("closed", Tell::Closed),
        ("join 7 ended", Tell::JoinEnded(CallerId(7))),
        ("names", Tell::Names(vec![[2; 8], [3; 8]])),
    ] {
        page.bytes(&format!("tell: {name}"), tell.encode());
    }
    for (name, request) in [
        ("build 'bytes'", Request::Build(bytes.clone())),
        ("contacts after 1", Request::Contacts { after: at }),
        ("store 'bytes'", Request::Store(bytes.clone())),
        ("find 02 02 ..", Request::Find { key: [2; 32] }),
        ("gossip 'bytes'", Request::Gossip(bytes)),
        ("clock", Request::Clock),
        ("path 7 ended", Request::Ended(vec![PathId(7)])),
    ] {
        page.bytes(&format!("request: {name}"), request.encode());
    }
    for (number, piece) in fragment::split(7, b"a message in pieces", 16).iter().enumerate() {
        page.bytes(&format!("fragment {number} of message 7, 'a message in pieces', room 16"), piece);
    }
    page.hold("messages.txt");
}
