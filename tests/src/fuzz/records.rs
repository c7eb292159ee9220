//! Records: builds, contacts, introsets, registries, handshakes, questions and answers, and what lies on our own disk.
//! Each is read twice: the bytes as they are, and the bytes as someone would send them who has the key to sign or seal
//! them. What is accepted must be what its encoder writes. Neighbours: `layers` holds what is sealed cell by cell.

use super::feed::Feed;
use super::network::NET;
use bytes::Bytes;
use lokinet_core::crypto::blind::{self, Blinded};
use lokinet_core::crypto::exchange::{self, CIPHERTEXT, PUBLIC, Secret};
use lokinet_core::crypto::kdf;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::{self, TAG};
use lokinet_core::netdb::guards::Guards;
use lokinet_core::time::Wall;
use lokinet_core::transit::admit::OnionKeys;
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::build::{self, BUILD, HEADER, RECORD, REPLY_SLOT, RIDER, Status};
use lokinet_core::wire::cell::MAX_HOPS;
use lokinet_core::wire::contact::{self, Contact, NETID, NetId};
use lokinet_core::wire::control::{Ask, Tell};
use lokinet_core::wire::introset::{Envelope, INSIDE, INTROSET, MAX_LEASES};
use lokinet_core::wire::registry::{self, Listing, Registry};
use lokinet_core::wire::request::{self, Request};
use lokinet_core::wire::session;
use std::sync::LazyLock;

/// What time it is in here.
pub const NOW: Wall = Wall::from_secs(1_800_000_000);
/// The network's name in here.
pub const NETWORK: NetId = NetId(*b"fuzz\0\0\0\0");

/// The identity whose key the stranger has.
pub static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::from_seed(&[1; 32]));
/// A key to open records with.
pub static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::generate(&mut Chance::new([2; 32])));

/// A build record, and a hop's reply.
pub fn record(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let mut chance = Chance::new([3; 32]);
    if feed.one_in(2) {
        let mut raw = feed.rest().to_vec();
        assert!(build::open_record(&SECRET, &raw).is_none());
        raw.resize(BUILD, 0);
        assert!(build::open_record(&SECRET, &raw).is_none(), "a record opened that nobody sealed");
        return;
    }
    let (bend, mut plain) = (feed.byte(), feed.rest().to_vec());
    plain.resize(HEADER, 0);
    let (ciphertext, shared) = exchange::encapsulate(SECRET.public(), &mut chance).expect("a good key");
    let mut record = contact::onion_tag(SECRET.public()).to_vec();
    record.extend_from_slice(ciphertext.as_slice());
    let transcript = kdf::digest("build record", &[&record, &plain]);
    let mut sealed = plain.clone();
    seal::once(&shared, "build header", &record, &mut sealed);
    record.extend_from_slice(&sealed);
    // The depth's place in a header: before the suite, the purpose and the token.
    let depth = plain[HEADER - build::TOKEN - 3];
    let deeper = usize::from(depth).clamp(1, MAX_HOPS) - 1;
    let mut inner = vec![0x5a; deeper * RECORD + RIDER];
    seal::once(&shared, "build deeper", &transcript, &mut inner);
    record.extend_from_slice(&inner);
    build::pad(&mut record, BUILD, &mut chance);
    let Some((header, deeper, opening)) = build::open_record(&SECRET, &record) else { return };
    assert!((1..=MAX_HOPS as u8).contains(&header.depth) && (header.depth == 1) == header.next.is_none());
    assert!(deeper.iter().all(|byte| *byte == 0x5a));
    let (again, _) = build::seal_record(SECRET.public(), &header, &deeper, &mut chance).expect("a good key");
    let mut again_padded = again.clone();
    build::pad(&mut again_padded, BUILD, &mut chance);
    let (second, ..) = build::open_record(&SECRET, &again_padded).expect("our own record");
    assert!(second.next == header.next && second.purpose == header.purpose && second.suite == header.suite);
    assert_eq!((second.back, second.lifetime, second.minute), (header.back, header.lifetime, header.minute));
    assert!(second.ephemeral == header.ephemeral);
    // A hop's reply, bent.
    let inside = vec![bend; (usize::from(header.depth) - 1) * REPLY_SLOT];
    let accepted = Some((&[1; CIPHERTEXT], inside.as_slice()));
    let mut reply = build::seal_reply(&opening, header.depth, Status::Accepted, accepted, &mut chance);
    let at = bend as usize % (usize::from(header.depth) * REPLY_SLOT);
    reply[at] ^= bend;
    let opened = build::open_reply(&opening, header.depth, &reply);
    assert_eq!(opened.is_some_and(|(status, _, deeper)| status == Status::Accepted && deeper == inside), bend == 0);
    assert!(build::open_reply(&opening, header.depth % 4 + 1, &reply).is_none(), "a reply of another length");
}

/// A relay's contact.
pub fn contact(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let signs = !feed.one_in(2);
    let mut body = feed.rest().to_vec();
    if signs {
        body.resize(contact::CONTACT - 64, 0);
        body[1 + NETID..1 + NETID + 32].copy_from_slice(&IDENTITY.public());
        let signature = IDENTITY.sign("contact", &body);
        body.extend_from_slice(&signature);
    }
    let Ok(contact) = Contact::verify(body.clone().into(), NETWORK, NOW) else { return };
    if !signs {
        assert!(NET.contacts.contains(&contact.signed), "a contact that nobody signed");
        return;
    }
    assert!(contact.card.expires > NOW && !contact.card.addrs.is_empty());
    let again = Contact::sign(&IDENTITY, contact.card);
    assert_eq!(again.signed, body, "a contact with two encodings");
}

/// The registry.
pub fn registry(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let mode = feed.byte();
    let mut body = feed.rest().to_vec();
    let authority = Identity::from_seed(&[9; 32]);
    let signs = mode & 1 == 1;
    if signs {
        let signature = authority.sign("registry", &body);
        let signers = if mode & 2 == 0 { 1 } else { 2 };
        body.push(signers);
        for _ in 0..signers {
            body.extend_from_slice(&authority.public());
            body.extend_from_slice(&signature);
        }
    }
    let verified = |threshold| Registry::verify(body.clone().into(), NETWORK, &[authority.public()], threshold, NOW);
    assert!(verified(2).is_err(), "one authority counted twice");
    let Ok(registry) = verified(1) else { return };
    assert!(signs, "a registry that nobody signed");
    let listing = |(id, hint): (&_, &Addrs)| {
        assert!(registry.lists(id));
        Listing { id: *id, operator: registry.operator(id).expect("listed"), hint: *hint }
    };
    let listings: Vec<Listing> = registry.relays().map(listing).collect();
    assert_eq!(listings.len(), registry.len());
    let from = Wall::from_secs(u64::from_be_bytes(core::array::from_fn(|i| body[17 + i])));
    let again = registry::sign(NETWORK, registry.serial, from, registry.until, &listings, &[]);
    // Without the count of signers, which is 0 in ours.
    let length = again.len() - 1;
    assert_eq!(again[..17], body[..17]);
    assert_eq!(again[33..length], body[33..length], "a registry with two encodings");
}

/// An introset, seen by a relay and by a caller.
pub fn introset(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let mode = feed.byte();
    if mode & 1 == 0 {
        let signed = Bytes::copy_from_slice(feed.rest());
        assert!(Envelope::verify(signed, NOW).is_err(), "an introset that nobody signed");
        return;
    }
    // As a service would that wants to harm those who look for it.
    let off = usize::from(mode >> 1) % 3;
    let period = blind::period(NOW) + off as u64 - 1;
    let (blinded, address) = (Blinded::new(&IDENTITY, period).expect("a good key"), IDENTITY.public());
    let (revision, until, salt) = (feed.wide(), feed.wide(), [5; 16]);
    let mut front = vec![1];
    front.extend_from_slice(&blinded.public());
    for number in [period, revision, until] {
        front.extend_from_slice(&number.to_be_bytes());
    }
    front.extend_from_slice(&salt);
    let mut inside = feed.rest().to_vec();
    inside.resize(INSIDE, 0);
    let reader = kdf::extract(&kdf::digest("introset reader", &[&period.to_be_bytes(), &salt]), &[&address]);
    seal::once(&reader, "introset", &front, &mut inside);
    front.extend_from_slice(&inside);
    let signature = blinded.sign("introset", &front).expect("a good key");
    front.extend_from_slice(&signature);
    assert_eq!(front.len(), INTROSET);
    let Ok(envelope) = Envelope::verify(front.into(), NOW) else { return };
    assert!(envelope.until > NOW && envelope.revision == revision && envelope.key == blinded.public());
    assert!(envelope.open(&Identity::from_seed(&[4; 32]).public()).is_none());
    if let Some(introset) = envelope.open(&address) {
        assert!(introset.leases.len() <= MAX_LEASES);
    }
}

/// A handshake's two messages, from a caller who may sign and a service that may lie.
pub fn handshake(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let mut chance = Chance::new([6; 32]);
    let address = Identity::from_seed(&[8; 32]).public();
    let mode = feed.byte();
    if mode & 1 == 0 {
        let mut hello = feed.rest().to_vec();
        assert!(session::answer(&address, &SECRET, &hello).is_none());
        hello.resize(session::HELLO, 0);
        assert!(session::answer(&address, &SECRET, &hello).is_none(), "a hello that nobody sealed");
        return;
    }
    let (ciphertext, shared) = exchange::encapsulate(SECRET.public(), &mut chance).expect("a good key");
    let mut hello = ciphertext.to_vec();
    if mode & 2 == 0 {
        hello.extend_from_slice(SECRET.public());
    } else {
        hello.extend_from_slice(&feed.exactly(PUBLIC));
    }
    let inside_len = session::HELLO - hello.len() - TAG;
    let mut inside = feed.exactly(inside_len);
    if mode & 4 != 0 {
        let said = kdf::digest("hello said", &[&address, &hello, &inside[..14]]);
        inside[14..46].copy_from_slice(&IDENTITY.public());
        inside[46..110].copy_from_slice(&IDENTITY.sign("session hello", &said));
    }
    let signed = inside[13] == 1;
    seal::once(&shared, "hello", &kdf::digest("hello front", &[&address, &hello]), &mut inside);
    hello.extend_from_slice(&inside);
    let Some((caller, answering)) = session::answer(&address, &SECRET, &hello) else { return };
    assert!(caller.session.0 != 0 && caller.address.is_some() == signed);
    assert!(!signed || caller.address == Some(IDENTITY.public()), "a caller who did not sign");
    let Some((welcome, _)) = answering.welcome(lokinet_core::wire::id::SessionId(7), &mut chance) else { return };
    assert_eq!(welcome.len(), session::WELCOME);
    // And a welcome for a call of our own, bent by what is left.
    let about = session::Caller { address: None, ..caller };
    let calling = session::call(&address, SECRET.public(), about, None, &mut chance).expect("a good key");
    let (_, answering) = session::answer(&address, &SECRET, &calling.hello).expect("our own hello");
    let (mut welcome, ours) =
        answering.welcome(lokinet_core::wire::id::SessionId(7), &mut chance).expect("our own key");
    let (at, flip) = (feed.below(welcome.len()), feed.byte());
    welcome[at] ^= flip;
    let opened = calling.open(&welcome);
    assert_eq!(opened.as_ref().map(|(_, secrets)| secrets), (flip == 0).then_some(&ours));
}

/// Control messages.
pub fn control(bytes: &[u8]) {
    if let Ok(ask) = Ask::decode(bytes) {
        assert_eq!(ask.encode(), bytes, "a question with two encodings");
    }
    if let Ok(tell) = Tell::decode(bytes) {
        assert_eq!(tell.encode(), bytes, "an answer with two encodings");
    }
}

/// Requests between neighbours, and the contacts in a reply.
pub fn request(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(request) = Request::decode(&bytes) {
        assert_eq!(request.encode(), bytes, "a request with two encodings");
    }
    let contacts = request::contacts(&bytes);
    assert!(contacts.is_empty() || contacts.concat() == bytes, "contacts that were not there");
}

/// What lies on our own disk, after anything may have happened to it.
pub fn saved(bytes: &[u8]) {
    if let Ok(guards) = Guards::decode(bytes) {
        assert!(guards.ids().len() <= 64);
        assert!(Guards::decode(&guards.encode()).is_ok_and(|again| again.ids() == guards.ids()));
    }
    if let Ok(mut keys) = OnionKeys::decode(bytes) {
        assert!(OnionKeys::decode(&keys.encode()).is_ok_and(|again| again.public() == keys.public()));
        keys.rotate(&mut Chance::new([1; 32]), NOW);
    }
}
