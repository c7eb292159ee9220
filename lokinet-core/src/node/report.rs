//! A node's view of itself, for `lokinet status`, sd_notify and devnet: plain values, taken at one moment. It names
//! relays and our own paths, so it is for the machine's owner only and never goes to a log. Neighbours: `node` fills
//! it, the daemon prints it.

use crate::wire::id::RelayId;
use core::time::Duration;
use std::net::{Ipv4Addr, SocketAddr};

/// Everything a person may ask about a running node.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Whether this node is a relay.
    pub relay: bool,
    /// Whether [`Event::Ready`](super::io::Event::Ready) has been reached.
    pub ready: bool,
    /// Our `.loki` address (clients) or `.snode` address (relays).
    pub address: String,
    /// Whether our introset is stored at a relay.
    pub published: bool,
    /// Relays in the registry.
    pub registered: usize,
    /// Relays whose verified contact we hold.
    pub contacts: usize,
    /// Live links.
    pub links: Vec<LinkReport>,
    /// Our own paths (clients).
    pub paths: Vec<PathReport>,
    /// Our conversations (clients).
    pub sessions: Vec<SessionReport>,
    /// Paths that go through us (relays).
    pub transit: usize,
    /// Counters by name, in a fixed order: what came, what went, what was dropped and why.
    pub counters: Vec<(&'static str, u64)>,
}

impl Report {
    /// A counter by its name; 0 when there is none.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }
}

/// One link.
#[derive(Clone, Debug)]
pub struct LinkReport {
    /// The peer's key; a relay's id when `relay`.
    pub peer: RelayId,
    /// Whether the registry lists the peer.
    pub relay: bool,
    /// Where it is.
    pub remote: SocketAddr,
    /// Whether we dialled.
    pub dialled: bool,
}

impl LinkReport {
    pub(super) fn of(link: &crate::link::Link) -> LinkReport {
        let dialled = link.role == crate::link::Role::Initiator;
        LinkReport { peer: link.peer, relay: link.relay, remote: link.remote, dialled }
    }
}

/// One path of ours.
#[derive(Clone, Debug)]
pub struct PathReport {
    /// The relays, first hop first, pivot last, with their addresses.
    pub hops: Vec<(RelayId, Option<SocketAddr>)>,
    /// What it is for: `inbound`, `general` or `rendezvous`.
    pub purpose: &'static str,
    /// `building` or `live`.
    pub state: &'static str,
    /// Smoothed round trip to the pivot.
    pub round_trip: Option<Duration>,
    /// How long it lives on.
    pub remaining: Duration,
    /// Cells sent and received.
    pub cells: (u64, u64),
}

/// One conversation.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// The remote's `.loki` address; `None` for an anonymous caller.
    pub remote: Option<String>,
    /// The local address leased to it.
    pub lease: Option<Ipv4Addr>,
    /// Whether they called us.
    pub inbound: bool,
    /// `looking-up`, `calling` or `open`.
    pub state: &'static str,
    /// The relays of the path it uses now, first hop first.
    pub route: Vec<RelayId>,
}
