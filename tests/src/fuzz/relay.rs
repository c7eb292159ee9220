//! An honest relay among strangers: all its neighbours and all its clients are one, who knows every key but the
//! relay's own link secrets. He builds paths, ends them, speaks out of turn, asks, stores, lies and floods, with
//! layers that are right. Neighbours: `stage` is the border, `client` the other trade.

use super::feed::Feed;
use super::network::{self, NET, RELAYS, fresh_contact};
use super::records::IDENTITY;
use super::stage::Stage;
use bytes::Bytes;
use core::time::Duration;
use lokinet_core::crypto::blind;
use lokinet_core::crypto::exchange::{PUBLIC, Secret};
use lokinet_core::crypto::onion::{BODY_AT, Opener, Order, Sealer, TYPE_AT};
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::{Suite, TAG};
use lokinet_core::flow::question::Kind as Type;
use lokinet_core::link::{LinkId, Ticket};
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::build::{self, BUILD, Header, Opening, Purpose, REPLY, RIDER, Status, TOKEN};
use lokinet_core::wire::cell::{Kind, MAX_HOPS, Size};
use lokinet_core::wire::control::Ask;
use lokinet_core::wire::fragment;
use lokinet_core::wire::id::{PathId, RelayId};
use lokinet_core::wire::introset::{Introset, Lease};
use lokinet_core::wire::request::Request;
use std::collections::BTreeSet;

/// Most moves of one story.
const MOVES: usize = 400;
/// Most paths the stranger remembers.
const PATHS: usize = 16;

/// A build that was asked for.
struct Asked {
    ticket: Ticket,
    link: LinkId,
    header: Header,
    ephemeral: Secret,
    opening: Opening,
}

/// A path whose one hop the relay is, from its client's side.
struct Path {
    link: LinkId,
    back: PathId,
    depth: u8,
    next: Option<PathId>,
    sealer: Sealer,
    opener: Opener,
}

/// The relay and what the stranger has at it.
struct Story {
    stage: Stage,
    chance: Chance,
    asked: Vec<Asked>,
    paths: Vec<Path>,
    /// The last build's bytes, to be sent again.
    last: Bytes,
    /// Names under which paths were to go on.
    onward: BTreeSet<PathId>,
    reach: Reach,
}

/// How far a story came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// Builds the relay accepted.
    pub accepted: usize,
    /// Builds it refused in words.
    pub refused: usize,
    /// Cells that came up its paths, and opened.
    pub cells: usize,
}

/// One story.
pub fn run(bytes: &[u8]) {
    story(bytes);
}

/// One story, and how far it came.
pub fn story(bytes: &[u8]) -> Reach {
    let mut feed = Feed::new(bytes);
    let mut story = Story {
        stage: Stage::new(network::relay()),
        chance: Chance::new([5; 32]),
        asked: Vec::new(),
        paths: Vec::new(),
        last: Bytes::new(),
        onward: BTreeSet::new(),
        reach: Reach::default(),
    };
    story.stage.link(RelayId([100; 32]), None);
    story.stage.link(RelayId(NET.relays[1].public()), None);
    for _ in 0..MOVES {
        if feed.is_empty() {
            break;
        }
        story.step(&mut feed);
        story.look();
    }
    let reach = story.reach;
    story.stage.end();
    reach
}

impl Story {
    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.byte() % 16 {
            0..=3 => self.build(feed),
            4..=6 => self.cell_down(feed),
            7 | 8 => self.cell_up(feed),
            9 | 10 => self.ask(feed),
            11 => {
                // What the next hop would say: the relay does not read it.
                let (at, fill) = (feed.below(8), feed.byte());
                self.stage.reply(at, Some(vec![fill; REPLY].into()));
            }
            12 => {
                let relay = RELAYS - 1 - feed.below(RELAYS - 1);
                let peer = RelayId(NET.relays[relay].public());
                let dial = self.stage.dials.iter().position(|(_, wanted)| *wanted == peer);
                let dial = dial.map(|at| self.stage.dials.remove(at).0);
                if self.stage.links.len() < 12 {
                    self.stage.link(peer, dial);
                }
            }
            13 if feed.one_in(4) => {
                let name = String::from_utf8_lossy(feed.slice()).to_lowercase();
                self.stage.question(name, Type::Any);
            }
            _ => self.stage.move_any(feed),
        }
    }

    fn link(&self, feed: &mut Feed<'_>) -> LinkId {
        let links = &self.stage.links;
        if links.is_empty() { LinkId(0) } else { links[feed.below(links.len())].id }
    }

    fn build(&mut self, feed: &mut Feed<'_>) {
        let link = self.link(feed);
        let shape = feed.byte();
        if shape >= 250 {
            let again = self.last.clone();
            self.stage.ask(link, again);
            return;
        }
        let depth = if shape & 1 == 0 { 1 } else { 2 + (shape >> 1) % 3 };
        let token = [feed.byte() % 4; TOKEN];
        let purpose = [Purpose::General, Purpose::Host(token), Purpose::Join(token)][usize::from(shape >> 3) % 3];
        let number = feed.byte();
        let relay = usize::from(number) % (RELAYS + 1);
        let next_id = NET.relays.get(relay).map_or(RelayId([99; 32]), |relay| RelayId(relay.public()));
        let addrs = Addrs::from_list(&[network::address(relay.max(usize::from(number >> 5)))]);
        let ephemeral = Secret::generate(&mut self.chance);
        let minute = self.stage.now.wall.secs() / 60 + u64::from(feed.byte() / 16);
        let header = Header {
            ephemeral: Box::new(if shape & 0x40 == 0 { *ephemeral.public() } else { [number; PUBLIC] }),
            next: (depth > 1).then_some((next_id, addrs, PathId(u32::from(number)))),
            back: PathId(u32::from(feed.byte() % 16)),
            lifetime: feed.number() as u16,
            minute: minute as u32,
            depth,
            suite: if shape & 0x80 == 0 { Suite::Aes } else { Suite::ChaCha },
            purpose: if depth == 1 { purpose } else { Purpose::General },
        };
        let deeper = vec![feed.byte(); usize::from(depth - 1) * build::RECORD + RIDER];
        self.onward.extend(header.next.map(|(.., path)| path));
        let sealed = build::seal_record(NET.onions[0].public(), &header, &deeper, &mut self.chance);
        let Some((mut body, opening)) = sealed else { return };
        build::pad(&mut body, BUILD, &mut self.chance);
        self.last = Request::Build(body.into()).encode();
        let ticket = self.stage.ask(link, self.last.clone());
        self.asked.push(Asked { ticket, link, header, ephemeral, opening });
    }

    /// A cell on one of his paths, its layer as right as he likes.
    fn cell_down(&mut self, feed: &mut Feed<'_>) {
        let (choice, size) = (feed.byte(), if feed.one_in(2) { Size::Full } else { Size::Small });
        if self.paths.is_empty() || choice >= 240 {
            let (link, path) = (self.link(feed), PathId(u32::from(choice % 16)));
            return self.stage.cell(link, feed.below(8), path, size, feed.slice());
        }
        let kind = [Kind::Pass, Kind::Data, Kind::Control, Kind::Control, Kind::Cover][feed.below(5)] as u8;
        let mut bodies = vec![feed.slice().to_vec()];
        if kind == Kind::Control as u8 && choice & 0x10 == 0 {
            let ask = self.control(feed);
            bodies = fragment::split(u32::from(feed.byte()), &ask.encode(), size.payload());
        }
        let at = usize::from(choice) % self.paths.len();
        for body in bodies {
            let path = &mut self.paths[at];
            let mut onion = vec![0; size.onion()];
            let end = size.layer(path.depth.into()) - TAG;
            let length = body.len().min(end - BODY_AT);
            onion[TYPE_AT] = if choice & 0x20 == 0 { kind } else { choice };
            onion[BODY_AT..BODY_AT + length].copy_from_slice(&body[..length]);
            path.sealer.seal(&mut onion[..end + TAG], self.stage.now.mono);
            let (link, back) = (path.link, path.back);
            self.stage.cell(link, 0, back, size, &onion);
        }
    }

    fn control(&mut self, feed: &mut Feed<'_>) -> Ask {
        let at = NET.relays.get(feed.below(RELAYS + 1)).map_or(RelayId([98; 32]), |relay| RelayId(relay.public()));
        match feed.byte() % 6 {
            0 => Ask::Ping,
            1 => Ask::Find {
                at,
                key: blind::public(&IDENTITY.public(), blind::period(self.stage.now.wall)).unwrap_or_default(),
            },
            2 => Ask::Store { at, introset: self.introset(feed) },
            3 => Ask::Store { at, introset: Bytes::copy_from_slice(feed.slice()) },
            4 => Ask::Names { after: RelayId([feed.byte(); 32]) },
            _ => Ask::Close,
        }
    }

    fn introset(&mut self, feed: &mut Feed<'_>) -> Bytes {
        let now = self.stage.now.wall;
        let lease = Lease { pivot: RelayId(NET.relays[0].public()), token: [1; TOKEN], until: now };
        let introset = Introset { handshake: Box::new([feed.byte(); PUBLIC]), leases: vec![lease; feed.below(7)] };
        let period = (blind::period(now) + u64::from(feed.byte() % 4)).saturating_sub(1);
        let until = now.plus(Duration::from_secs(feed.number() as u64));
        introset.publish(&IDENTITY, period, feed.byte().into(), until, &mut self.chance).unwrap_or_default()
    }

    /// A cell from the other side of one of his paths.
    fn cell_up(&mut self, feed: &mut Feed<'_>) {
        let size = if feed.one_in(2) { Size::Full } else { Size::Small };
        let next: Vec<PathId> = self.paths.iter().filter_map(|path| path.next).collect();
        let path = if next.is_empty() { PathId(feed.byte().into()) } else { next[feed.below(next.len())] };
        let link = self.link(feed);
        self.stage.cell(link, feed.below(8), path, size, feed.slice());
    }

    fn ask(&mut self, feed: &mut Feed<'_>) {
        let link = self.link(feed);
        let request = match feed.byte() % 6 {
            0 => Request::Contacts { after: RelayId([feed.byte(); 32]) },
            1 => Request::Store(self.introset(feed)),
            2 => Request::Find {
                key: blind::public(&IDENTITY.public(), blind::period(self.stage.now.wall)).unwrap_or_default(),
            },
            3 => Request::Gossip(fresh_contact(feed.below(RELAYS), feed.byte().into())),
            4 => Request::Clock,
            _ => Request::Build(Bytes::copy_from_slice(feed.slice())),
        };
        self.stage.ask(link, request.encode());
    }

    /// Reads what the relay said: accepted paths, and cells that must open.
    fn look(&mut self) {
        for (ticket, body) in core::mem::take(&mut self.stage.seen.answers) {
            let Some(at) = self.asked.iter().position(|asked| asked.ticket == ticket) else { continue };
            let asked = self.asked.remove(at);
            if let Some(body) = body {
                self.answered(asked, &body);
            }
        }
        for (link, wire, size, mut onion) in core::mem::take(&mut self.stage.seen.cells) {
            let Some(path) = self.paths.iter_mut().find(|path| path.link == link && path.back == wire) else {
                continue;
            };
            let layer = &mut onion[..size.layer(path.depth.into())];
            if path.opener.open(layer, self.stage.now.mono).is_err() {
                // A path that has ended may have left its name to one that goes on there.
                assert!(self.onward.contains(&wire), "a layer its client cannot open");
                continue;
            }
            assert!(Kind::from_byte(layer[TYPE_AT]).is_some());
            self.reach.cells += 1;
        }
        self.stage.seen.packets.clear();
        self.stage.seen.names.clear();
    }

    fn answered(&mut self, asked: Asked, reply: &Bytes) {
        let Asked { link, header, ephemeral, opening, .. } = asked;
        assert_eq!(reply.len(), REPLY, "a reply of another length");
        let opened = build::open_reply(&opening, header.depth, reply);
        let (status, ciphertext, _) = opened.expect("a reply its client cannot open");
        if status != Status::Accepted {
            self.reach.refused += 1;
            return;
        }
        self.reach.accepted += 1;
        // A name that is used again is another path's.
        self.paths.retain(|other| (other.link, other.back) != (link, header.back));
        // Under a key of which nobody has the secret, the relay seals what nobody can open.
        let own = *header.ephemeral == *ephemeral.public();
        let Some(shared) = ephemeral.decapsulate(&ciphertext).filter(|_| own) else { return };
        let [forward, backward] = opening.layers(&RelayId(NET.relays[0].public()), &ciphertext, &shared);
        let path = Path {
            link,
            back: header.back,
            depth: header.depth,
            next: header.next.map(|(.., path)| path),
            sealer: Sealer::new(header.suite, &forward, Order::Scrambled),
            opener: Opener::new(header.suite, &backward),
        };
        if self.paths.len() >= PATHS {
            self.paths.remove(0);
        }
        assert!(usize::from(path.depth) <= MAX_HOPS);
        self.paths.push(path);
    }
}
