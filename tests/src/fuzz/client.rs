//! An honest client, perhaps with a service of its own, in a network whose relays, services and callers are all one
//! stranger. He lets builds succeed as relays would, answers questions or lies, calls and is called, and sends up its
//! paths whatever he likes, with layers that are right. Neighbours: `hops` is his side of a path, `stage` the border.

mod talk;

use super::feed::Feed;
use super::hops::{Route, accept};
use super::network::{self, NET, RELAYS, fresh_contact};
use super::records::{IDENTITY, SECRET};
use super::stage::Stage;
use bytes::Bytes;
use core::time::Duration;
use lokinet_core::crypto::blind;
use lokinet_core::crypto::exchange::PUBLIC;
use lokinet_core::crypto::key::Identity;
use lokinet_core::crypto::onion::{Opener, Sealer};
use lokinet_core::crypto::random::Chance;
use lokinet_core::flow::question::Kind as Type;
use lokinet_core::wire::address::LokiAddress;
use lokinet_core::wire::build::TOKEN;
use lokinet_core::wire::cell::{Kind, Size};
use lokinet_core::wire::control::{Ask, Tell};
use lokinet_core::wire::fragment::{self, Fragment};
use lokinet_core::wire::id::{CallerId, RelayId, SessionId};
use lokinet_core::wire::introset::{Envelope, Introset, Lease};
use lokinet_core::wire::packet::View;
use lokinet_core::wire::request::Request;
use lokinet_core::wire::session::{self, Calling, HELLO, WELCOME};

/// Most moves of one story.
const MOVES: usize = 400;
/// Most of anything the stranger remembers.
const REMEMBERED: usize = 24;

/// A conversation of the stranger's with the client.
struct Talk {
    route: usize,
    caller: CallerId,
    /// What the client calls it.
    theirs: SessionId,
    sealer: Sealer,
    opener: Opener,
}

struct Story {
    stage: Stage,
    chance: Chance,
    /// The client's own address, once its identity is known to be this.
    address: [u8; 32],
    routes: Vec<Route>,
    /// Questions the client asked over its paths: route, message, question.
    asks: Vec<(usize, u32, Ask)>,
    /// Hellos that came over a path, and where.
    hellos: Vec<(usize, Vec<u8>)>,
    /// The client's published handshake key.
    door: Option<Box<[u8; PUBLIC]>>,
    /// Calls of the stranger's that wait for a welcome.
    calling: Vec<(usize, CallerId, Calling)>,
    talks: Vec<Talk>,
    reach: Reach,
}

/// How far a story came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// Paths the client built.
    pub paths: usize,
    /// Conversations, whoever called.
    pub talks: usize,
    /// Names that were answered.
    pub names: usize,
    /// Packets that came out of the tunnel.
    pub packets: usize,
}

/// One story.
pub fn run(bytes: &[u8]) {
    story(bytes);
}

/// One story, and how far it came.
pub fn story(bytes: &[u8]) -> Reach {
    let mut feed = Feed::new(bytes);
    let shape = feed.byte();
    let config = network::client(shape & 1 == 1, 1 + usize::from(shape >> 1) % 4);
    let mut story = Story {
        stage: Stage::new(config),
        chance: Chance::new([5; 32]),
        address: Identity::from_seed(&[21; 32]).public(),
        routes: Vec::new(),
        asks: Vec::new(),
        hellos: Vec::new(),
        door: None,
        calling: Vec::new(),
        talks: Vec::new(),
        reach: Reach::default(),
    };
    for _ in 0..MOVES {
        if feed.is_empty() {
            break;
        }
        story.step(&mut feed);
        story.look();
    }
    let reach = Reach { paths: story.routes.len(), talks: story.talks.len(), ..story.reach };
    story.stage.end();
    reach
}

impl Story {
    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.byte() % 20 {
            // As a good network would, in great strides.
            0..=4 => self.serve(feed),
            5 => {
                for _ in 0..8 {
                    self.serve(feed);
                    self.answer(feed);
                    self.look();
                }
            }
            6 | 7 => self.answer(feed),
            8 => self.tell_lies(feed),
            9 => self.welcome(feed),
            10 => self.call(feed),
            11..=13 => self.talk(feed),
            14 => self.name(feed),
            15 => {
                let packets: Vec<&[u8]> = (0..feed.below(5)).map(|_| feed.slice()).collect();
                self.stage.packets(&packets);
            }
            16 => self.program(feed),
            _ => self.stage.move_any(feed),
        }
    }

    /// Ends what waits as honest relays would: dials come up, requests are answered.
    fn serve(&mut self, feed: &mut Feed<'_>) {
        if !self.stage.dials.is_empty() && self.stage.links.len() < 12 {
            let (dial, peer) = self.stage.dials.remove(0);
            return self.stage.link(peer, Some(dial));
        }
        let Some(pending) = self.stage.pending.first() else {
            return self.stage.pass(Duration::from_millis(1 << (feed.byte() % 14)));
        };
        let (link, body) = (pending.link, pending.body.clone());
        let reply = match Request::decode(&body).expect("a request of an honest client") {
            Request::Build(build) => {
                let back = self.routes.len();
                let accepted = accept(&build, &NET, link, &mut self.chance);
                accepted.map(|(route, reply)| {
                    self.hellos.extend(route.rider().filter(|hello| hello.len() == HELLO).map(|hello| (back, hello)));
                    self.routes.push(route);
                    Bytes::from(reply)
                })
            }
            Request::Contacts { .. } => Some(NET.contacts.concat().into()),
            Request::Clock if !feed.one_in(4) => {
                Some(Bytes::copy_from_slice(&self.stage.now.wall.millis().to_be_bytes()))
            }
            Request::Clock => Some(Bytes::copy_from_slice(&feed.wide().to_be_bytes())),
            Request::Store(_) | Request::Find { .. } | Request::Gossip(_) | Request::Ended(_) => {
                panic!("a client tells its first hop")
            }
        };
        self.stage.reply(0, reply);
    }

    /// Answers a question that came over a path, as its pivot would.
    fn answer(&mut self, feed: &mut Feed<'_>) {
        if self.asks.is_empty() {
            return;
        }
        let (route, message, ask) = self.asks.remove(feed.below(REMEMBERED) % self.asks.len());
        let tell = match ask {
            Ask::Ping => Tell::Pong,
            Ask::Find { .. } => Tell::Found(self.introset(feed)),
            Ask::Store { introset, .. } => {
                let envelope = Envelope::verify(introset, self.stage.now.wall);
                let opened = envelope.ok().and_then(|envelope| envelope.open(&self.address));
                self.door = opened.map(|introset| introset.handshake).or(self.door.take());
                Tell::Stored(!feed.one_in(8))
            }
            Ask::Names { .. } => Tell::Names((0..RELAYS).map(|n| [n as u8; 8]).collect()),
            Ask::Named(_) => Tell::Contacts((0..RELAYS).map(|n| fresh_contact(n, feed.byte().into())).collect()),
            Ask::Close => return,
        };
        self.say(route, usize::MAX, message, &tell.encode());
    }

    /// An introset of the stranger's service, or what pretends to be one.
    fn introset(&mut self, feed: &mut Feed<'_>) -> Option<Bytes> {
        let (now, shape) = (self.stage.now.wall, feed.byte());
        if shape >= 230 {
            return (shape & 1 == 0).then(|| Bytes::copy_from_slice(feed.slice()));
        }
        let lease = |n: usize| Lease {
            pivot: NET.relays.get(n).map_or(RelayId([97; 32]), |relay| RelayId(relay.public())),
            token: [n as u8; TOKEN],
            until: now.plus(Duration::from_secs(if shape & 0x40 == 0 { 900 } else { 5 })),
        };
        let leases = (0..usize::from(shape) % 7).map(lease).collect();
        let handshake = Box::new(if shape & 0x20 == 0 { *SECRET.public() } else { [shape; PUBLIC] });
        let until = now.plus(Duration::from_secs(1200));
        Introset { handshake, leases }.publish(&IDENTITY, blind::period(now), shape.into(), until, &mut self.chance)
    }

    /// Any message from any hop.
    fn tell_lies(&mut self, feed: &mut Feed<'_>) {
        let (route, hop, message) = (feed.below(REMEMBERED), feed.below(4), feed.byte());
        let known = self.asks.get(usize::from(message)).map_or(u32::from(message), |(_, message, _)| *message);
        let tell = match feed.byte() % 8 {
            0 => Tell::Closed.encode(),
            1 => Tell::JoinEnded(CallerId(feed.byte().into())).encode(),
            2 => Tell::Contacts((0..feed.below(9)).map(|n| fresh_contact(n % RELAYS, n as u64)).collect()).encode(),
            3 => Tell::Found(self.introset(feed)).encode(),
            4 => {
                let kind = [Kind::Pass, Kind::Data, Kind::Control, Kind::Cover][feed.below(4)];
                return self.cell(route, hop, Size::Small, kind, feed.slice());
            }
            _ => feed.slice().to_vec(),
        };
        self.say(route, hop, known, &tell);
    }

    fn say(&mut self, route: usize, hop: usize, message: u32, tell: &[u8]) {
        for piece in fragment::split(message, tell, Size::Full.payload()) {
            self.cell(route, hop, Size::Full, Kind::Control, &piece);
        }
    }

    fn cell(&mut self, route: usize, hop: usize, size: Size, kind: Kind, body: &[u8]) {
        if self.routes.is_empty() {
            return;
        }
        let at = route % self.routes.len();
        let onion = self.routes[at].wrap(hop, size, kind, body, self.stage.now.mono);
        let (link, wire) = self.routes[at].first();
        self.stage.cell(link, 0, wire, size, &onion);
    }

    fn name(&mut self, feed: &mut Feed<'_>) {
        let kinds = [Type::A, Type::Aaaa, Type::Ptr, Type::Any, Type::Srv, Type::Txt, Type::Mx];
        let kind = kinds[feed.below(kinds.len())];
        let name = match feed.byte() % 5 {
            0..=2 => LokiAddress(IDENTITY.public()).to_string(),
            3 => format!("{}.{}", feed.byte(), LokiAddress(self.address)),
            _ => String::from_utf8_lossy(feed.slice()).to_lowercase(),
        };
        self.stage.question(name, kind);
    }

    /// A program sends something to whomever the last answers named.
    fn program(&mut self, feed: &mut Feed<'_>) {
        let to = [172, 16, 0, 2 + feed.byte() % 8];
        let payload = feed.slice();
        let packet =
            crate::world::packet::udp(([172, 16, 0, 1].into(), 5), (to.into(), 7), &payload[..payload.len().min(2000)]);
        self.stage.packets(&[&packet]);
    }

    /// Reads what the client sent, as every hop of its paths.
    fn look(&mut self) {
        for (link, wire, size, mut onion) in core::mem::take(&mut self.stage.seen.cells) {
            // The youngest path of that name; the client would not use one name for two at once.
            let Some(at) = self.routes.iter().rposition(|route| route.first() == (link, wire)) else { continue };
            let (hop, kind, body) = self.routes[at].unwrap(&mut onion, size, self.stage.now.mono);
            match kind {
                Kind::Control => {
                    let piece = Fragment::decode(body).expect("an honest client's fragment");
                    let message = piece.message;
                    if let Some(whole) = self.routes[at].control[hop].take(piece) {
                        let ask = Ask::decode(&whole).expect("an honest client's question");
                        assert!(hop + 1 == self.routes[at].len() || matches!(ask, Ask::Close | Ask::Ping));
                        self.asks.push((at, message, ask));
                    }
                }
                Kind::Data => {
                    let body = body.to_vec();
                    self.data(at, &body);
                }
                Kind::Pass | Kind::Cover => {}
            }
        }
        self.reach.packets += self.stage.seen.packets.len();
        self.reach.names += self.stage.seen.names.len();
        for packet in self.stage.seen.packets.drain(..) {
            assert!(View::new(&packet).is_ok(), "a malformed packet was delivered");
        }
        self.stage.seen.answers.clear();
        self.stage.seen.names.clear();
        self.asks.drain(..self.asks.len().saturating_sub(REMEMBERED));
        self.hellos.drain(..self.hellos.len().saturating_sub(REMEMBERED));
    }

    fn data(&mut self, route: usize, body: &[u8]) {
        let (caller, id, rest) = session::header(body).expect("room for a header");
        if id.0 != 0 {
            let talks = &mut self.talks;
            let now = self.stage.now.mono;
            let layer = rest.to_vec();
            // Whichever conversation it is, one that we know must open it.
            if let Some(talk) = talks.iter_mut().find(|talk| talk.caller == caller && talk.route == route) {
                let _ = talk.opener.open(&mut layer.clone(), now);
            }
            return;
        }
        let piece = Fragment::decode(rest).expect("an honest client's fragment");
        let Some(whole) = self.routes[route].handshake.take(piece) else { return };
        match whole.len() {
            HELLO => self.hellos.push((route, whole)),
            WELCOME => {
                let opened = self.calling.iter().position(|(.., calling)| calling.open(&whole).is_some());
                let Some(at) = opened else { return };
                let (route, caller, calling) = self.calling.remove(at);
                let Some((theirs, [up, down])) = calling.open(&whole) else { return };
                self.begin(route, caller, theirs, calling.caller().suite, [&up, &down]);
            }
            other => panic!("a handshake message of {other} bytes"),
        }
    }
}
