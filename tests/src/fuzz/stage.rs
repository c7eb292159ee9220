//! The border of one honest node, with the stranger in the driver's place as far as a stranger can be there: he opens
//! and closes links, seals cells with the keys of those links, answers or does not, and moves the clocks. What the node
//! says is held against the laws of `node::io`. Neighbours: `relay` and `client` act on it.

use super::feed::Feed;
use super::network::{NET, RELAYS, address, beginning, linked};
use bytes::Bytes;
use core::time::Duration;
use lokinet_core::crypto::seal::Suite;
use lokinet_core::flow::question::{Answer, Kind, Question};
use lokinet_core::link::channel::Channel;
use lokinet_core::link::{DialId, LinkId, Role, Ticket};
use lokinet_core::node::io::{Input, NoReply, Output, REPLY_MAX, REQUEST_MAX, Run};
use lokinet_core::node::{Config, Node};
use lokinet_core::time::{Now, Wall};
use lokinet_core::wire::batch::Packets;
use lokinet_core::wire::cell::Size;
use lokinet_core::wire::id::{PathId, RelayId};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Most links the stranger keeps.
const LINKS: usize = 12;
/// Most outputs one input may cause.
const OUTPUTS: usize = 20_000;
/// Wakes at one instant that are too many.
const RESTLESS: usize = 200;
/// How much time one story may let pass in great strides: days of a client that builds paths in vain are found out in hours.
const LONG: Duration = Duration::from_secs(3 * 3600);

/// A link from the stranger's side.
pub struct End {
    /// Its number.
    pub id: LinkId,
    remote: SocketAddr,
    channel: Channel,
}

/// A request of the node's that waits.
pub struct Pending {
    /// Its number.
    pub ticket: Ticket,
    /// Where it went.
    pub link: LinkId,
    /// What it asks.
    pub body: Bytes,
}

/// What the node sent or gave since somebody looked.
#[derive(Default)]
pub struct Seen {
    /// Opened cells: link, path, size, onion.
    pub cells: Vec<(LinkId, PathId, Size, Vec<u8>)>,
    /// Answers to requests of others; `None` is a refusal.
    pub answers: Vec<(Ticket, Option<Bytes>)>,
    /// Packets for the TUN device.
    pub packets: Vec<Vec<u8>>,
    /// Answers to name questions.
    pub names: Vec<Answer>,
}

/// The node and all around it.
pub struct Stage {
    node: Node,
    /// Its clocks.
    pub now: Now,
    /// Links that are up.
    pub links: Vec<End>,
    /// Dials that have come to nothing yet.
    pub dials: Vec<(DialId, RelayId)>,
    /// Requests of the node's.
    pub pending: Vec<Pending>,
    /// What it did.
    pub seen: Seen,
    asked: BTreeSet<Ticket>,
    questions: BTreeSet<Ticket>,
    used: BTreeSet<Ticket>,
    /// Requests whose link was lost: each may go out once more under its ticket.
    lost: BTreeSet<Ticket>,
    next: u64,
    passed: Duration,
}

impl Stage {
    /// A node at its beginning.
    pub fn new(config: Config) -> Stage {
        let now = beginning();
        let mut stage = Stage {
            node: Node::new(config, [42; 32].into(), now),
            now,
            links: Vec::new(),
            dials: Vec::new(),
            pending: Vec::new(),
            seen: Seen::default(),
            asked: BTreeSet::new(),
            questions: BTreeSet::new(),
            used: BTreeSet::new(),
            lost: BTreeSet::new(),
            next: 1,
            passed: Duration::ZERO,
        };
        stage.tell(Input::Entropy([7; 32].into()));
        stage
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// One input, and judgement over every output.
    pub fn tell(&mut self, input: Input<'_>) {
        let Stage { node, now, links, dials, pending, seen, asked, questions, used, lost, .. } = self;
        let mut outputs = node.handle(input, *now);
        let mut count = 0;
        while let Some(output) = outputs.next() {
            count += 1;
            assert!(count < OUTPUTS, "one input, endless outputs");
            let alive = |link: &LinkId, links: &[End]| links.iter().any(|end| end.id == *link);
            match output {
                Output::Dial { dial, peer, addrs, .. } => {
                    assert!(!addrs.is_empty(), "a dial to nowhere");
                    dials.push((dial, peer));
                }
                Output::Hangup { link } => links.retain(|end| end.id != link),
                Output::Request { link, ticket, body, .. } => {
                    assert!(alive(&link, links), "a request on a dead link");
                    assert!(used.insert(ticket) || lost.remove(&ticket), "a ticket used twice");
                    assert!(body.len() <= REQUEST_MAX, "a request of {} bytes", body.len());
                    pending.push(Pending { ticket, link, body });
                }
                Output::Answer { ticket, body } => {
                    assert!(asked.remove(&ticket), "an answer nobody waits for");
                    assert!(body.as_ref().is_none_or(|body| body.len() <= REPLY_MAX), "an answer too long");
                    seen.answers.push((ticket, body));
                }
                Output::Transmit { to, segment, bytes } => {
                    let size = Size::of_datagram(segment).expect("a cell of no size");
                    assert!(!bytes.is_empty() && bytes.len().is_multiple_of(segment));
                    for cell in bytes.chunks(segment) {
                        let mut ends = links.iter_mut().filter(|end| end.remote == to);
                        let opened = ends.find_map(|end| {
                            let mut cell = cell.to_vec();
                            let (path, onion) = end.channel.open(0, &mut cell, now.mono).ok()?;
                            Some((end.id, path, size, onion.to_vec()))
                        });
                        seen.cells.push(opened.expect("a cell that its receiver cannot open"));
                    }
                }
                Output::Deliver(packets) => seen.packets.extend(packets.iter().map(<[u8]>::to_vec)),
                Output::Dns { ticket, answer } => {
                    assert!(questions.remove(&ticket), "a name answered twice");
                    seen.names.push(answer);
                }
                Output::Save(_) | Output::Event(_) => {}
            }
        }
        // Nobody answers on a link that is gone.
        let unheard: Vec<Ticket> =
            pending.iter().filter(|p| !links.iter().any(|end| end.id == p.link)).map(|p| p.ticket).collect();
        pending.retain(|p| !unheard.contains(&p.ticket));
        for ticket in unheard {
            self.lost.insert(ticket);
            self.tell(Input::Reply { ticket, result: Err(NoReply::LinkLost) });
        }
    }

    /// A link comes up: the dial at `dial` if there is one, else somebody calls.
    pub fn link_up(&mut self, feed: &mut Feed<'_>) {
        if self.links.len() >= LINKS {
            return;
        }
        let choice = feed.below(RELAYS + 3);
        let dial = if self.dials.is_empty() { None } else { Some(self.dials.remove(choice % self.dials.len())) };
        let stranger = RelayId([choice as u8 + 100; 32]);
        let called = NET.relays.get(choice).map_or(stranger, |relay| RelayId(relay.public()));
        let peer = dial.map_or(called, |(_, peer)| peer);
        self.link(peer, dial.map(|(dial, _)| dial));
    }

    /// A link with this peer comes up.
    pub fn link(&mut self, peer: RelayId, dial: Option<DialId>) {
        let number = self.number();
        let (id, mut exporter) = (LinkId(number), [1; 32]);
        exporter[..8].copy_from_slice(&number.to_be_bytes());
        let suite = if number.is_multiple_of(3) { Suite::ChaCha } else { Suite::Aes };
        let relay = NET.relays.iter().position(|relay| relay.public() == peer.0);
        let remote = relay.map_or(SocketAddr::from(([60, number as u8, 0, 1], 4000)), address);
        let role = if dial.is_some() { Role::Responder } else { Role::Initiator };
        self.links.push(End { id, remote, channel: Channel::new(suite, role, &exporter) });
        self.tell(Input::LinkUp(linked(id, dial, peer, exporter, suite, remote)));
    }

    /// A link goes down.
    pub fn link_down(&mut self, at: usize) {
        if at < self.links.len() {
            let link = self.links.remove(at).id;
            self.tell(Input::LinkDown { link });
        }
    }

    /// A neighbour asks; gives the number under which the answer will be seen.
    pub fn ask(&mut self, link: LinkId, body: Bytes) -> Ticket {
        let ticket = Ticket(self.number());
        self.asked.insert(ticket);
        self.tell(Input::Request { link, ticket, body });
        ticket
    }

    /// A program asks for a name.
    pub fn question(&mut self, name: String, kind: Kind) {
        let ticket = Ticket(self.number());
        self.questions.insert(ticket);
        self.tell(Input::Dns { ticket, question: Question { name, kind } });
    }

    /// A request of the node's ends.
    pub fn reply(&mut self, at: usize, body: Option<Bytes>) {
        if at < self.pending.len() {
            let ticket = self.pending.remove(at).ticket;
            self.tell(Input::Reply { ticket, result: body.ok_or(NoReply::Refused) });
        }
    }

    /// A cell whose link seal is right.
    pub fn cell(&mut self, link: LinkId, shard: usize, path: PathId, size: Size, onion: &[u8]) {
        let now = self.now.mono;
        let Some(end) = self.links.iter_mut().find(|end| end.id == link) else { return };
        let mut datagram = vec![0; size.datagram()];
        let room = Channel::onion(&mut datagram);
        let length = room.len().min(onion.len());
        room[..length].copy_from_slice(&onion[..length]);
        end.channel.seal(shard, path, &mut datagram, now);
        let from = end.remote;
        assert!(self.node.is_cell(&datagram), "a live link's cell is taken for QUIC's");
        self.tell(Input::Cells(&mut [Run { from, bytes: &mut datagram, segment: size.datagram() }]));
    }

    /// Datagrams that are no cells.
    pub fn noise(&mut self, feed: &mut Feed<'_>) {
        let segment = feed.below(1500);
        let mut bytes = feed.slice().to_vec();
        let from = address(9);
        let _ = self.node.is_cell(&bytes);
        self.tell(Input::Cells(&mut [Run { from, bytes: &mut bytes, segment }]));
    }

    /// Programs send packets.
    pub fn packets(&mut self, list: &[&[u8]]) {
        let mut packets = Packets::new();
        list.iter().for_each(|packet| packets.push(packet));
        self.tell(Input::Packets(&mut packets));
    }

    /// Time passes on both clocks, with wakes on the way as a driver gives them.
    pub fn pass(&mut self, time: Duration) {
        let time = if self.passed < LONG { time } else { time.min(Duration::from_millis(100)) };
        self.passed += time;
        let end = self.now.mono + time;
        let mut wakes = 0;
        while let Some((at, _)) = self.node.next_wake().filter(|(at, _)| *at <= end) {
            let step = at.since(self.now.mono);
            wakes = if step.is_zero() { wakes + 1 } else { 0 };
            assert!(wakes < RESTLESS, "woken {wakes} times at one instant");
            self.advance(step);
            self.tell(Input::Wake);
        }
        self.advance(end.since(self.now.mono));
    }

    fn advance(&mut self, by: Duration) {
        self.now = Now { mono: self.now.mono + by, wall: self.now.wall.plus(by) };
    }

    /// The wall clock jumps; the other does not notice.
    pub fn jump(&mut self, to: u64) {
        self.now.wall = Wall::from_millis(to);
        self.tell(Input::Wake);
    }

    /// The moves that are the same whatever the node is.
    pub fn move_any(&mut self, feed: &mut Feed<'_>) {
        match feed.byte() % 12 {
            0 | 1 => self.pass(Duration::from_millis(1 << (feed.byte() % 16))),
            2 => self.pass(Duration::from_secs(1 << (feed.byte() % 13))),
            3 => self.jump(if feed.byte() < 200 {
                self.now.wall.millis() ^ (1 << (feed.byte() % 24))
            } else {
                feed.wide()
            }),
            4 | 5 => self.link_up(feed),
            6 => self.link_down(feed.below(LINKS)),
            7 if !self.dials.is_empty() => {
                let (dial, _) = self.dials.remove(feed.below(LINKS) % self.dials.len());
                self.tell(Input::DialFailed { dial });
            }
            8 => self.noise(feed),
            9 => match feed.byte() % 4 {
                0 => self.tell(Input::Wake),
                1 => self.tell(Input::Entropy([feed.byte(); 32].into())),
                2 => self.tell(Input::DialFailed { dial: DialId(feed.wide()) }),
                _ => self.tell(Input::Reply { ticket: Ticket(feed.wide()), result: Ok(Bytes::new()) }),
            },
            10 => {
                let link = self.links.get(feed.below(LINKS)).map_or(LinkId(feed.wide()), |end| end.id);
                let body = Bytes::copy_from_slice(feed.slice());
                self.ask(link, body);
            }
            _ => {
                let at = feed.below(16);
                let body = if feed.one_in(4) { None } else { Some(Bytes::copy_from_slice(feed.slice())) };
                self.reply(at, body);
            }
        }
    }

    /// The end: nobody answers any more, and nobody may be left waiting.
    pub fn end(mut self) {
        let _ = self.node.report(self.now);
        for _ in 0..200 {
            if self.asked.is_empty() && self.questions.is_empty() && self.pending.is_empty() {
                break;
            }
            self.dials.drain(..).collect::<Vec<_>>().into_iter().for_each(|(dial, _)| {
                self.tell(Input::DialFailed { dial });
            });
            while !self.pending.is_empty() {
                self.reply(0, None);
            }
            self.pass(Duration::from_secs(1));
        }
        assert!(self.asked.is_empty(), "{} requests were never answered", self.asked.len());
        assert!(self.questions.is_empty(), "{} names were never answered", self.questions.len());
        self.tell(Input::Stop);
        let _ = self.node.key();
    }
}
