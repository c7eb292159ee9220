//! A client and relays in a row, without a world around them: the machines of path, transit and link joined by plain
//! calls. Between every two of them sits a tap that shares a link with either, so that a test sees each onion as the
//! two see it, and can change it as a dishonest one of them would. Neighbours: `world` is the same with whole nodes.

use core::time::Duration;
use lokinet_core::crypto::exchange::{SEED, Secret};
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::link::{Action as LinkAction, Egress, LinkId, LinkUp, Links, Role, Ticket};
use lokinet_core::netdb::Netdb;
use lokinet_core::path::{PathKey, Paths};
use lokinet_core::time::{Now, Time, Wall};
use lokinet_core::transit::admit::OnionKeys;
use lokinet_core::transit::{Action, Transit};
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::build::Purpose;
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::contact::{Card, Contact, LIFETIME, NetId};
use lokinet_core::wire::control::Tell;
use lokinet_core::wire::id::{PathId, RelayId};
use lokinet_core::wire::registry::{self, Listing, Registry};
use lokinet_core::wire::request::Request;
use std::net::SocketAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The link towards the client, and the link away from it.
const BACK: LinkId = LinkId(1);
const ON: LinkId = LinkId(2);
/// How long every path of a row lives.
pub const LIFETIME_OF_PATHS: Duration = Duration::from_secs(1200);

/// What one relay of a network is.
pub struct Founder {
    /// Where it listens.
    pub addrs: Vec<SocketAddr>,
    /// Who runs it; 0 for nobody in particular.
    pub operator: u32,
    /// Whether it has AES instructions.
    pub aes: bool,
}

/// A network's relays with their secrets, and a directory that knows them all.
pub struct Founded {
    /// Everybody's contact, in the founders' order.
    pub contacts: Vec<Arc<Contact>>,
    /// Everybody's onion keys.
    pub keys: Vec<OnionKeys>,
    /// Who knows them all.
    pub netdb: Netdb,
}

/// Founds a network.
pub fn found(founders: &[Founder], chance: &mut Chance, wall: Wall) -> Founded {
    let netid = NetId::new("row").expect("a short name");
    let authority = Identity::generate(chance);
    let identities: Vec<Identity> = founders.iter().map(|_| Identity::generate(chance)).collect();
    let listings: Vec<Listing> = identities
        .iter()
        .zip(founders)
        .map(|(identity, founder)| Listing {
            id: RelayId(identity.public()),
            operator: founder.operator,
            hint: Addrs::default(),
        })
        .collect();
    let until = wall.plus(LIFETIME);
    let signed = registry::sign(netid, 1, wall, until, &listings, core::slice::from_ref(&authority));
    let registry = Registry::verify(signed, netid, &[authority.public()], 1, wall).expect("just signed");
    let mut netdb = Netdb::new(netid, true, registry);
    let (mut contacts, mut keys) = (Vec::new(), Vec::new());
    for (identity, founder) in identities.iter().zip(founders) {
        let onion = OnionKeys::generate(chance, wall);
        let card = Card {
            netid,
            onion: Box::new(*onion.public()),
            published: wall,
            expires: until,
            aes: founder.aes,
            addrs: Addrs::from_list(&founder.addrs),
        };
        let contact = Contact::sign(identity, card);
        netdb.learn(&contact.signed, wall);
        contacts.push(Arc::new(contact));
        keys.push(onion);
    }
    Founded { contacts, keys, netdb }
}

/// The secret behind the onion key that a relay publishes now: what a thief finds on its disk.
pub fn stolen(keys: &OnionKeys) -> Secret {
    let mut seed = Zeroizing::new([0; SEED]);
    seed.copy_from_slice(&keys.encode()[8..8 + SEED]);
    Secret::from_seed(seed)
}

/// A cell between two neighbours, as both of them see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The path's name on their link.
    pub path: PathId,
    /// Full or small.
    pub size: Size,
    /// The rest.
    pub onion: Vec<u8>,
}

/// One relay.
pub struct Relay {
    /// Its links: one back, one on.
    pub links: Links,
    /// Its hops.
    pub transit: Transit,
}

/// A build's or a reply's body on each link of a row, first link first.
pub type Bodies = Vec<bytes::Bytes>;

/// A client, relays in a row behind it, and a tap between every two.
pub struct Row {
    /// What time it is.
    pub now: Now,
    /// The client's link to the first relay.
    pub client: Links,
    /// The client's paths.
    pub paths: Paths,
    /// The relays, first hop first.
    pub relays: Vec<Relay>,
    /// What the network is.
    pub network: Founded,
    /// What the last build was on each link.
    pub builds: Bodies,
    /// What was replied to it on each link; fewer when somebody refused.
    pub replies: Bodies,
    /// Tap `n` is between relay `n` and whoever is before it.
    taps: Vec<Links>,
    /// What each relay sent back and on, until somebody looks.
    staged: Vec<[Vec<Cell>; 2]>,
    tickets: u64,
}

impl Row {
    /// So many relays and a client whose chance is this.
    pub fn new(count: usize, chance: [u8; 32]) -> Row {
        let now = Now { mono: Time::from_nanos(1_000_000_000), wall: Wall::from_secs(1_800_000_000) };
        let founders: Vec<Founder> =
            (0..count).map(|n| Founder { addrs: vec![address(n)], operator: 0, aes: n % 2 == 0 }).collect();
        let mut network = found(&founders, &mut Chance::new([7; 32]), now.wall);
        let keys = core::mem::take(&mut network.keys);
        let relays = keys.into_iter().enumerate().map(|(n, keys)| {
            let again = OnionKeys::decode(&keys.encode()).expect("its own keys");
            network.keys.push(again);
            Relay {
                links: Links::default(),
                transit: Transit::new(network.contacts[n].id, keys, Chance::new([n as u8; 32])),
            }
        });
        let mut row = Row {
            now,
            client: Links::default(),
            paths: Paths::new(Chance::new(chance), LIFETIME_OF_PATHS),
            relays: relays.collect(),
            taps: (0..count).map(|_| Links::default()).collect(),
            staged: (0..count).map(|_| Default::default()).collect(),
            builds: Vec::new(),
            replies: Vec::new(),
            tickets: 0,
            network,
        };
        for n in 0..count {
            let id = row.network.contacts[n].id;
            let before = if n == 0 { RelayId([9; 32]) } else { row.network.contacts[n - 1].id };
            let (near, far) = (n as u8 * 2 + 1, n as u8 * 2 + 2);
            let towards = if n == 0 { &mut row.client } else { &mut row.relays[n - 1].links };
            towards.up(&linked(ON, id, Role::Initiator, near), true, row.now.mono);
            row.taps[n].up(&linked(BACK, before, Role::Responder, near), true, row.now.mono);
            row.taps[n].up(&linked(ON, id, Role::Initiator, far), true, row.now.mono);
            // Known as a relay, so that the first is not turned away for knocking too often.
            row.relays[n].links.up(&linked(BACK, before, Role::Responder, far), true, row.now.mono);
        }
        row
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.now = Now { mono: self.now.mono + time, wall: self.now.wall.plus(time) };
    }

    /// Builds a path over all relays; `None` when it did not come to live.
    pub fn path(&mut self, purpose: Purpose) -> Option<PathKey> {
        self.pass(Duration::from_millis(10));
        let hops = self.network.contacts.clone();
        let key = self.paths.build(hops, purpose, None, Duration::MAX, &mut self.client, self.now)?;
        let (ticket, body) = request(&mut self.client)?;
        (self.builds, self.replies) = (Vec::new(), Vec::new());
        let reply = self.knock(0, body.slice(1..));
        self.replies.reverse();
        let link = self.client.ended(ticket);
        self.paths.reply(ticket, reply, link, self.now.mono, &mut |_, _| {});
        self.paths.actions();
        self.paths.live(key).is_some().then_some(key)
    }

    /// Has a relay asked for a hop, and those behind it: its reply.
    pub fn knock(&mut self, at: usize, body: bytes::Bytes) -> Option<bytes::Bytes> {
        self.builds.push(body.clone());
        self.tickets += 1;
        let (now, ticket) = (self.now, Ticket(u64::MAX - self.tickets));
        let relay = &mut self.relays[at];
        relay.transit.build(BACK, ticket, &body, &self.network.netdb, &mut relay.links, now);
        if let Some((ticket, body)) = request(&mut relay.links) {
            let Ok(Request::Build(body)) = Request::decode(&body) else { return None };
            let deeper = self.knock(at + 1, body);
            let relay = &mut self.relays[at];
            let link = relay.links.ended(ticket);
            relay.transit.reply(ticket, deeper, link, &mut relay.links, now.mono);
        }
        match self.relays[at].transit.actions().pop() {
            Some(Action::Answer(_, Some(reply))) => {
                self.replies.push(reply.clone());
                Some(reply)
            }
            _ => None,
        }
    }

    /// What the client sent that nobody has taken in yet.
    pub fn sent(&mut self) -> Vec<Cell> {
        let mut cells = Vec::new();
        while let Some((_, size, link, mut bytes)) = self.client.take_run() {
            cells.extend(opened(&mut self.taps[0], size, &mut bytes, self.now.mono));
            self.client.give_back(link, size, bytes);
        }
        cells
    }

    /// What relay `at` passed on to the next.
    pub fn down(&mut self, at: usize) -> Vec<Cell> {
        self.look(at);
        core::mem::take(&mut self.staged[at][1])
    }

    /// What relay `at` sent towards the client.
    pub fn up(&mut self, at: usize) -> Vec<Cell> {
        self.look(at);
        core::mem::take(&mut self.staged[at][0])
    }

    fn look(&mut self, at: usize) {
        while let Some((_, size, link, mut bytes)) = self.relays[at].links.take_run() {
            let side = usize::from(link == ON);
            let cells = opened(&mut self.taps[at + side], size, &mut bytes, self.now.mono);
            self.staged[at][side].extend(cells);
            self.relays[at].links.give_back(link, size, bytes);
        }
    }

    /// Gives relay `at` a cell that comes from the client's side.
    pub fn lower(&mut self, at: usize, cell: &Cell) {
        let datagram = sealed(&mut self.taps[at], ON, cell, self.now.mono);
        self.take(at, datagram);
    }

    /// Gives relay `at` a cell that comes from the next relay.
    pub fn raise(&mut self, at: usize, cell: &Cell) {
        let datagram = sealed(&mut self.taps[at + 1], BACK, cell, self.now.mono);
        self.take(at, datagram);
    }

    /// Gives relay `at` a datagram; whether its link opened it.
    pub fn take(&mut self, at: usize, mut datagram: Vec<u8>) -> bool {
        let (now, relay) = (self.now.mono, &mut self.relays[at]);
        let Ok((link, path, size, onion)) = relay.links.open(&mut datagram, now) else { return false };
        relay.transit.cell(link, path, size, onion, &mut relay.links, now);
        true
    }

    /// A datagram that carries a cell to relay `at`, sealed by its neighbour.
    pub fn datagram(&mut self, at: usize, cell: &Cell) -> Vec<u8> {
        sealed(&mut self.taps[at], ON, cell, self.now.mono)
    }

    /// Gives the client a cell; a data body that came out of it.
    pub fn arrive(&mut self, cell: &Cell) -> Option<Vec<u8>> {
        let mut datagram = sealed(&mut self.taps[0], BACK, cell, self.now.mono);
        let (link, path, size, onion) = self.client.open(&mut datagram, self.now.mono).ok()?;
        self.paths.receive(link, path, size, onion, self.now.mono).map(|arrived| arrived.body.to_vec())
    }

    /// Carries what the client sent to its end, untouched.
    pub fn settle_down(&mut self) {
        for cell in self.sent() {
            self.lower(0, &cell);
        }
        for at in 1..self.relays.len() {
            for cell in self.down(at - 1) {
                self.lower(at, &cell);
            }
        }
    }

    /// Carries what relays sent up to the client, untouched.
    pub fn settle_up(&mut self) {
        for at in (0..self.relays.len()).rev() {
            for cell in self.up(at) {
                match at {
                    0 => drop(self.arrive(&cell)),
                    _ => self.raise(at - 1, &cell),
                }
            }
        }
    }

    /// Has the pivot answer what it was asked.
    pub fn answer(&mut self, tell: &Tell) -> usize {
        let now = self.now.mono;
        let Some(pivot) = self.relays.last_mut() else { return 0 };
        let asked: Vec<_> = pivot.transit.actions();
        let mut answered = 0;
        for action in asked {
            if let Action::Asked(hop, message, _) = action {
                pivot.transit.tell(hop, message, tell, &mut pivot.links, now);
                answered += 1;
            }
        }
        answered
    }
}

/// The one request that links want sent, if there is one.
fn request(links: &mut Links) -> Option<(Ticket, bytes::Bytes)> {
    links.actions().into_iter().find_map(|action| match action {
        LinkAction::Request { ticket, body, .. } => Some((ticket, body)),
        _ => None,
    })
}

/// Opens what a neighbour of this tap sealed.
fn opened(tap: &mut Links, size: Size, run: &mut [u8], now: Time) -> Vec<Cell> {
    run.chunks_mut(size.datagram())
        .map(|datagram| {
            let (_, path, size, onion) = tap.open(datagram, now).expect("a cell that its neighbour sealed");
            Cell { path, size, onion: onion.to_vec() }
        })
        .collect()
}

fn sealed(tap: &mut Links, link: LinkId, cell: &Cell, now: Time) -> Vec<u8> {
    tap.put(link, cell.path, cell.size, now, |onion| onion.copy_from_slice(&cell.onion));
    let (_, size, link, staged) = tap.take_run().expect("just put");
    let bytes = staged.to_vec();
    tap.give_back(link, size, staged);
    bytes
}

fn linked(link: LinkId, peer: RelayId, role: Role, number: u8) -> LinkUp {
    let exporter = [number; 32];
    LinkUp {
        link,
        dial: None,
        peer,
        role,
        exporter: exporter.into(),
        suite: Suite::Aes,
        remote: address(number.into()),
    }
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, number as u8 + 1, 0, 1], 1090))
}
