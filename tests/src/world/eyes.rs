//! What an onlooker could see: every datagram on every wire, every request and reply that two machines exchanged
//! inside their links, and what a relay finds when it has opened link, build and layer. Recorded only when asked for,
//! because it is everything. Neighbours: `cells`, `quic` and `glass` show it things; the tests of the eyes look.

use bytes::Bytes;
use lokinet_core::time::Time;
use lokinet_core::wire::build::{Header, Purpose};
use lokinet_core::wire::cell::{Kind, Size};
use lokinet_core::wire::id::{PathId, RelayId};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// A datagram as it was sent, whether or not it arrived.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// When it was sent.
    pub at: Time,
    /// The sender.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A request or a reply, which only the two ends of a link can read.
#[derive(Clone, Debug)]
pub struct Body {
    /// When it was sent.
    pub at: Time,
    /// The sender.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// Whether it is a reply.
    pub reply: bool,
    /// All of it.
    pub bytes: Bytes,
}

/// Everything seen since the eyes were opened.
#[derive(Clone, Default, Debug)]
pub struct Eyes {
    pub(super) open: bool,
    /// Datagrams, in the order of sending.
    pub datagrams: Vec<Datagram>,
    /// Requests and replies, in the order of sending.
    pub bodies: Vec<Body>,
    /// Links that came up: the dialler's address, then the dialled one's.
    pub links: Vec<(Time, SocketAddr, SocketAddr)>,
}

impl Eyes {
    /// Who exchanged anything at all with this address, sorted, once each.
    pub fn neighbours(&self, of: SocketAddr) -> Vec<SocketAddr> {
        let datagrams = self.datagrams.iter().map(|d| (d.from, d.to));
        let bodies = self.bodies.iter().map(|b| (b.from, b.to));
        let links = self.links.iter().map(|(_, from, to)| (*from, *to));
        let mut all: Vec<SocketAddr> = datagrams
            .chain(bodies)
            .chain(links)
            .filter_map(|(from, to)| match (from == of, to == of) {
                (true, _) => Some(to),
                (_, true) => Some(from),
                _ => None,
            })
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// Everything that the machine at this address was sent or could read: datagrams and bodies.
    pub fn shown_to(&self, reader: SocketAddr) -> impl Iterator<Item = &[u8]> {
        let datagrams = self.datagrams.iter().filter(move |d| d.to == reader).map(|d| d.bytes.as_slice());
        let bodies = self.bodies.iter().filter(move |b| b.to == reader).map(|b| b.bytes.as_ref());
        datagrams.chain(bodies)
    }
}

/// Most cells of one hop and direction that are kept whole.
pub const KEPT: usize = 24;

/// What relays in glass saw, hop after hop in the order of their builds.
pub type Views = Arc<Mutex<Vec<Hop>>>;

/// A cell as it came or went, its link opened.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Full or small.
    pub size: Size,
    /// What follows the path id.
    pub onion: Vec<u8>,
}

/// A cell whose layer the relay opened, or made.
#[derive(Clone, Debug)]
pub struct Opened {
    /// When, by the relay's clock.
    pub at: Time,
    /// Full or small.
    pub size: Size,
    /// What follows the path id, with the layer closed.
    pub onion: Vec<u8>,
    /// What the layer says it is.
    pub kind: Option<Kind>,
    /// What is in it.
    pub body: Vec<u8>,
}

/// All that one relay saw of one path through it.
#[derive(Clone)]
pub struct Hop {
    /// The relay's name in the world.
    pub relay: String,
    /// The key of the neighbour towards the client.
    pub peer: RelayId,
    /// The path's name on the link to it.
    pub back: PathId,
    /// The next relay, and the path's name on the link to it.
    pub next: Option<(RelayId, PathId)>,
    /// Layers that end here or behind.
    pub depth: u8,
    /// Seconds.
    pub lifetime: u16,
    /// What the pivot is to do.
    pub purpose: Purpose,
    /// The client's key for this hop.
    pub ephemeral: Vec<u8>,
    /// When the build came, by the relay's clock.
    pub at: Time,
    /// The build that came.
    pub build_in: Bytes,
    /// What its record held for the next hop; at the pivot the rider.
    pub deeper: Vec<u8>,
    /// The build that was passed on.
    pub build_out: Option<Bytes>,
    /// The next hop's reply.
    pub reply_in: Option<Bytes>,
    /// The reply that was given.
    pub reply_out: Option<Bytes>,
    /// Whether it was a yes.
    pub accepted: bool,
    /// Counters of cells from the client, unmasked.
    pub counters: Vec<u64>,
    /// Cells from the client.
    pub down_in: Vec<Opened>,
    /// Cells to the next hop.
    pub down_out: Vec<Cell>,
    /// Cells from the next hop.
    pub up_in: Vec<Cell>,
    /// Cells towards the client.
    pub up_out: Vec<Opened>,
}

impl Hop {
    pub(super) fn new(relay: &str, peer: RelayId, header: &Header, body: Bytes, deeper: Vec<u8>, at: Time) -> Hop {
        Hop {
            relay: relay.to_owned(),
            peer,
            back: header.back,
            next: header.next.map(|(relay, _, wire)| (relay, wire)),
            depth: header.depth,
            lifetime: header.lifetime,
            purpose: header.purpose,
            ephemeral: header.ephemeral.to_vec(),
            at,
            build_in: body,
            deeper,
            build_out: None,
            reply_in: None,
            reply_out: None,
            accepted: false,
            counters: Vec::new(),
            down_in: Vec::new(),
            down_out: Vec::new(),
            up_in: Vec::new(),
            up_out: Vec::new(),
        }
    }

    /// Everything that came, from either side, as it was inside the link.
    pub fn came(&self) -> impl Iterator<Item = &[u8]> {
        let bodies = [Some(&self.build_in), self.reply_in.as_ref()];
        let down = self.down_in.iter().map(|cell| cell.onion.as_slice());
        let up = self.up_in.iter().map(|cell| cell.onion.as_slice());
        bodies.into_iter().flatten().map(|body| body.as_ref()).chain(down).chain(up)
    }

    /// Everything that went, to either side.
    pub fn went(&self) -> impl Iterator<Item = &[u8]> {
        let bodies = [self.build_out.as_ref(), self.reply_out.as_ref()];
        let down = self.down_out.iter().map(|cell| cell.onion.as_slice());
        let up = self.up_out.iter().map(|cell| cell.onion.as_slice());
        bodies.into_iter().flatten().map(|body| body.as_ref()).chain(down).chain(up)
    }

    /// Everything that came out of what it opened: the record's key and inside, and the bodies of cells.
    pub fn opened(&self) -> impl Iterator<Item = &[u8]> {
        let bodies = self.down_in.iter().map(|cell| cell.body.as_slice());
        let made = self.up_out.iter().map(|cell| cell.body.as_slice());
        [self.ephemeral.as_slice(), &self.deeper].into_iter().chain(bodies).chain(made)
    }

    /// All of these.
    pub fn everything(&self) -> impl Iterator<Item = &[u8]> {
        self.came().chain(self.went()).chain(self.opened())
    }
}

/// Hops put together to whole paths, guard first: what only those know who know every relay. A build that one relay
/// passed on is the build that came to the next.
pub fn paths(hops: &[Hop]) -> Vec<Vec<&Hop>> {
    let by_build: BTreeMap<&[u8], &Hop> = hops.iter().map(|hop| (hop.build_in.as_ref(), hop)).collect();
    let passed: HashSet<&[u8]> = hops.iter().filter_map(|hop| hop.build_out.as_deref()).collect();
    let firsts = hops.iter().filter(|hop| !passed.contains(hop.build_in.as_ref()));
    let follow = |first| {
        core::iter::successors(Some(first), |hop: &&Hop| by_build.get(hop.build_out.as_deref()?).copied()).collect()
    };
    firsts.map(follow).filter(|path: &Vec<&Hop>| path.iter().all(|hop| hop.accepted)).collect()
}

/// Bytes of a string that two onlookers may not share.
pub const STRING: usize = 8;

/// Every string of a view, sorted, save those with so many zeros that they are padding.
pub fn strings<'a>(view: impl Iterator<Item = &'a [u8]>) -> Vec<[u8; STRING]> {
    let mut all: Vec<u64> = Vec::new();
    for bytes in view {
        for window in bytes.windows(STRING).filter(|window| window.iter().filter(|byte| **byte == 0).count() < 3) {
            all.push(window.iter().fold(0, |string, byte| string << 8 | u64::from(*byte)));
        }
    }
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(u64::to_be_bytes).collect()
}

/// A string that both views have, if there is one.
pub fn shared(one: &[[u8; STRING]], other: &[[u8; STRING]]) -> Option<[u8; STRING]> {
    let (few, many) = if one.len() < other.len() { (one, other) } else { (other, one) };
    few.iter().find(|string| many.binary_search(string).is_ok()).copied()
}
