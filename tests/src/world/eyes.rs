//! What an onlooker could see: every datagram on every wire, and every request and reply that two machines exchanged
//! inside their links. Recorded only when asked for, because it is everything. Neighbours: `cells` and `quic` show
//! it things; the tests of the laws of the eyes look.

use bytes::Bytes;
use lokinet_core::time::Time;
use std::net::SocketAddr;

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
