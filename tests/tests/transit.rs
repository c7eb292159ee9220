//! A relay and three clients with paths of one hop, without a world around them: what one of them sends must never come
//! out at a stranger's, nor hold up what another sends; by the node's own hand or by workers'.

#![allow(clippy::unwrap_used)]

use core::time::Duration;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::link::{self, LinkId, LinkUp, Links, Role, Ticket};
use lokinet_core::netdb::Netdb;
use lokinet_core::node::worker::{MESSAGES_MAX, Tally, Work, Worker};
use lokinet_core::path::{PathKey, Paths};
use lokinet_core::time::{Now, Time, Wall};
use lokinet_core::transit::admit::OnionKeys;
use lokinet_core::transit::{Action, Transit};
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::build::{Purpose, TOKEN};
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::contact::{Card, Contact, NetId};
use lokinet_core::wire::control::Ask;
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::registry::{self, Listing, Registry};
use lokinet_core::wire::request::Request;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
        assert!(links.up(&up(self.contact.id, Role::Initiator), true, Time::default()));
        assert!(self.links.up(&up(RelayId([number; 32]), Role::Responder), false, Time::default()));
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

impl Relay {
    fn worker(&mut self, shard: usize, tally: &Arc<Tally>) -> Worker {
        Worker::new(self.links.share(), self.transit.share(), tally.clone(), shard, Chance::new([shard as u8; 32]))
    }
}

impl Client {
    /// So many numbered full cells, sealed, end to end.
    fn cells(&mut self, key: PathKey, count: u32, now: Now) -> Vec<u8> {
        for number in 0..count {
            let fill = |body: &mut [u8]| body[8..12].copy_from_slice(&number.to_be_bytes());
            assert!(self.paths.send(key, Size::Full, &mut self.links, now.mono, fill));
        }
        self.staged()
    }

    fn staged(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((_, size, link, bytes)) = self.links.take_run() {
            all.extend_from_slice(&bytes);
            self.links.give_back(link, size, bytes);
        }
        all
    }

    /// The number in each cell that came, by the caller whose it is, as far as they are authentic.
    fn opened(&mut self, cells: &mut [u8], now: Now) -> Vec<(u32, u32)> {
        let mut numbers = Vec::new();
        for datagram in cells.chunks_mut(Size::Full.datagram()) {
            let (link, path, size, onion) = self.links.open(datagram, now.mono).unwrap();
            let Some(arrived) = self.paths.receive(link, path, size, onion, now.mono) else { continue };
            let word = |at: usize| u32::from_be_bytes(arrived.body[at..at + 4].try_into().unwrap());
            numbers.push((word(0), word(8)));
        }
        numbers
    }
}

fn place(number: u8) -> SocketAddr {
    ([10, 9, 9, number], 1000).into()
}

/// Gives a worker cells as GRO would bring them: up to 44 in a message.
fn give(worker: &mut Worker, cells: &[u8], now: Now) {
    for message in cells.chunks(44 * Size::Full.datagram()) {
        worker.take(message.to_vec(), message.len(), Size::Full.datagram(), now.mono, &mut |_| {
            panic!("a stray datagram")
        });
    }
}

#[test]
fn a_worker_passes_what_is_passed_and_hands_up_what_is_the_nodes() {
    let mut relay = relay();
    let (mut host, mut caller) = (relay.client(1), relay.client(2));
    relay.path(&mut host, Purpose::Host(SERVICE), at(1));
    let calling = relay.path(&mut caller, Purpose::Join(SERVICE), at(2));
    let tally = Arc::new(Tally::default());
    let mut worker = relay.worker(1, &tally);
    let cells = caller.cells(calling, 100, at(3));
    give(&mut worker, &cells, at(3));
    caller.paths.ask(calling, &Ask::Ping, &mut caller.links, at(3).mono).unwrap();
    let question = caller.staged();
    worker.take(question.clone(), question.len(), question.len(), at(3).mono, &mut |_| panic!());
    let (mut sent, mut asked) = (Vec::new(), Vec::new());
    while !worker.is_idle() {
        worker.work(at(4).mono, &mut |work| match work {
            Work::Transmit { to, segment, bytes } => {
                assert_eq!((to, segment), (place(1), Size::Full.datagram()));
                sent.extend_from_slice(bytes);
            }
            Work::Control { hop, body } => asked.push((hop, body.to_vec())),
        });
    }
    let numbers: Vec<u32> = host.opened(&mut sent, at(4)).iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "all, in order");
    let [(hop, body)] = &asked[..] else { panic!("{} cells are the node's", asked.len()) };
    relay.transit.control(*hop, body, &mut relay.links, at(5).mono);
    let (to, _, _, pong) = relay.links.take_run().unwrap();
    assert_eq!((to, pong.len()), (place(2), Size::Small.datagram()), "and the caller is answered");
    // Shown again, and bent: nothing comes of either.
    let mut bent = caller.cells(calling, 1, at(6));
    bent[700] ^= 1;
    give(&mut worker, &[cells, bent].concat(), at(6));
    worker.work(at(6).mono, &mut |_| panic!("a forged or repeated cell was passed"));
    assert_eq!(tally.unopened.load(Ordering::Relaxed), 101);
    // A datagram that no channel made is somebody else's, wherever it stands.
    let mut strays = 0;
    worker.take(vec![0x40; 5000], 5000, 1440, at(6).mono, &mut |stray| strays += stray.len());
    assert_eq!(strays, 5000);
    // The path ends; what waits for it goes with it.
    give(&mut worker, &caller.cells(calling, 3, at(7)), at(7));
    relay.transit.link_down(caller.link, &mut relay.links, at(7).mono);
    worker.work(at(7).mono, &mut |_| panic!("a path that has ended still carries"));
    assert_eq!(tally.misled.load(Ordering::Relaxed), 3);
}

/// One path sends more than the relay can do for a second, another pings: the ping never waits for the flood, and of the
/// flood as much is carried as can be.
#[test]
fn a_greedy_path_holds_up_nobody_but_itself() {
    let mut relay = relay();
    let (mut host, mut greedy, mut quiet) = (relay.client(1), relay.client(2), relay.client(3));
    relay.path(&mut host, Purpose::Host(SERVICE), at(1));
    let flooding = relay.path(&mut greedy, Purpose::Join(SERVICE), at(2));
    let pinging = relay.path(&mut quiet, Purpose::Join(SERVICE), at(2));
    let tally = Arc::new(Tally::default());
    let mut worker = relay.worker(1, &tally);
    // This relay takes 20 µs for a cell and is sent 60 a millisecond, where it can do 50.
    let time = |us: u64| Now { mono: Time::from_nanos(us * 1_000), ..at(3) };
    let (mut carried, mut asked, mut waits, mut now_us) = (0, Vec::new(), Vec::new(), 3_000_u64);
    let mut ping_id = None;
    for millis in 3..1_003 {
        now_us = now_us.max(millis * 1_000);
        if millis % 20 == 3 {
            give(&mut worker, &quiet.cells(pinging, 1, time(millis * 1_000)), time(millis * 1_000));
            asked.push(now_us);
        }
        if ping_id.is_some() {
            give(&mut worker, &greedy.cells(flooding, 60, time(millis * 1_000)), time(millis * 1_000));
        }
        while now_us < (millis + 1) * 1_000 && !worker.is_idle() {
            let mut sent = Vec::new();
            worker.work(time(now_us).mono, &mut |work| match work {
                Work::Transmit { bytes, .. } => sent.extend_from_slice(bytes),
                Work::Control { .. } => panic!(),
            });
            now_us += 20 * (sent.len() / Size::Full.datagram()) as u64;
            for (caller, _) in host.opened(&mut sent, time(now_us)) {
                carried += 1;
                if caller == *ping_id.get_or_insert(caller) {
                    waits.push(now_us - asked[waits.len()]);
                }
            }
        }
    }
    let worst = *waits.iter().max().unwrap();
    assert!(waits.len() >= 49, "{} of {} pings came through", waits.len(), asked.len());
    assert!(worst <= 5_000, "a ping waited {worst} µs");
    assert!(carried > 45_000, "{carried} cells were carried");
    let waited = tally.waited.load(Ordering::Relaxed);
    assert!(waited > 0 && worker.waiting() <= MESSAGES_MAX * 60, "{waited} dropped, {} wait", worker.waiting());
}

/// While others keep a relay busy without a break, a cell that goes where nobody else's go fills no run. It leaves at once
/// all the same.
#[test]
fn a_run_that_does_not_fill_leaves_in_time() {
    let mut relay = relay();
    let (mut host, mut far) = (relay.client(1), relay.client(4));
    let (mut greedy, mut quiet) = (relay.client(2), relay.client(3));
    relay.path(&mut host, Purpose::Host(SERVICE), at(1));
    relay.path(&mut far, Purpose::Host([8; TOKEN]), at(1));
    let flooding = relay.path(&mut greedy, Purpose::Join(SERVICE), at(2));
    let pinging = relay.path(&mut quiet, Purpose::Join([8; TOKEN]), at(2));
    let mut worker = relay.worker(1, &Arc::default());
    let time = |us: u64| Now { mono: Time::from_nanos(us * 1_000), ..at(3) };
    let mut now = 3_000;
    for ping in 0..20 {
        give(&mut worker, &quiet.cells(pinging, 1, time(now)), time(now));
        let asked = now;
        let mut answered = false;
        while !answered {
            give(&mut worker, &greedy.cells(flooding, 150, time(now)), time(now));
            worker.work(time(now).mono, &mut |work| match work {
                Work::Transmit { to, .. } => answered |= to == place(4),
                Work::Control { .. } => panic!(),
            });
            assert!(worker.waiting() > 0, "the relay was not busy");
            assert!(now <= asked + 1_000, "ping {ping} waits for the flood, which goes elsewhere");
            now += 200;
        }
    }
}

/// Two workers on two threads, one relay: callers on both speak with the same service at once, each keeps its order, and not
/// one cell is lost or repeated.
#[test]
fn workers_share_a_relay() {
    const EACH: u32 = 3_000;
    let mut relay = relay();
    let (mut host, mut callers) = (relay.client(1), [relay.client(2), relay.client(3)]);
    relay.path(&mut host, Purpose::Host(SERVICE), at(1));
    let tally = Arc::new(Tally::default());
    let mut jobs = Vec::new();
    for (number, caller) in callers.iter_mut().enumerate() {
        let key = relay.path(caller, Purpose::Join(SERVICE), at(2));
        jobs.push((relay.worker(number + 1, &tally), caller.cells(key, EACH, at(3))));
    }
    // What both send, in the order in which it leaves.
    let wire = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (mut worker, cells) in jobs {
            let wire = &wire;
            scope.spawn(move || {
                for some in cells.chunks(100 * Size::Full.datagram()) {
                    give(&mut worker, some, at(4));
                    while !worker.is_idle() {
                        worker.work(at(4).mono, &mut |work| match work {
                            Work::Transmit { bytes, .. } => wire.lock().unwrap().extend_from_slice(bytes),
                            Work::Control { .. } => panic!(),
                        });
                    }
                }
            });
        }
    });
    let mut numbers = BTreeMap::<u32, Vec<u32>>::new();
    for (caller, number) in host.opened(&mut wire.into_inner().unwrap(), at(5)) {
        numbers.entry(caller).or_default().push(number);
    }
    assert_eq!(numbers.len(), 2);
    assert!(
        numbers.values().all(|numbers| *numbers == (0..EACH).collect::<Vec<_>>()),
        "lost, repeated or out of order"
    );
}
