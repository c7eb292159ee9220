//! What a node is made from: already parsed, verified and in memory. Neighbours: the daemon reads files into it, the
//! simulated world invents it.

use super::io::Saved;
use crate::crypto::key::Identity;
use crate::flow::lease::Range;
use crate::wire::addrs::Addrs;
use crate::wire::contact::NetId;
use crate::wire::id::RelayId;
use crate::wire::registry::Registry;
use bytes::Bytes;
use core::time::Duration;

/// A node's configuration.
pub struct Config {
    /// The network's name.
    pub netid: NetId,
    /// Whether relays may have private addresses.
    pub private: bool,
    /// Who is a relay.
    pub registry: Registry,
    /// Signed contacts to begin with.
    pub bootstraps: Vec<Bytes>,
    /// What an earlier run kept.
    pub saved: Saved,
    /// Whether this machine has AES instructions.
    pub aes: bool,
    /// What it is to be.
    pub trade: Trade,
}

/// Client or relay.
pub enum Trade {
    /// Anonymous, with a TUN device and perhaps a published service.
    Client(Box<ClientConfig>),
    /// Registered, carrying others' paths.
    Relay(Box<RelayConfig>),
}

/// A client's part.
pub struct ClientConfig {
    /// The `.loki` identity.
    pub identity: Identity,
    /// Whether to publish an introset and be called.
    pub reachable: bool,
    /// Hops from us to a pivot, 1 to 4.
    pub hops: usize,
    /// Paths to keep.
    pub paths: usize,
    /// How long a path lives.
    pub lifetime: Duration,
    /// The only first hops to use; empty lets the node choose its guards.
    pub strict: Vec<RelayId>,
    /// The TUN device's addresses, and whence remotes get theirs.
    pub range: Range,
    /// Fixed local addresses of remotes.
    pub mapaddr: Vec<([u8; 32], std::net::Ipv4Addr)>,
    /// Service records of ours.
    pub srv: Vec<crate::flow::dns::SrvRecord>,
    /// The network's name as configured, for `netid.localhost.loki`.
    pub netid: String,
}

/// A relay's part.
pub struct RelayConfig {
    /// The registered key.
    pub identity: Identity,
    /// Where it listens, as others see it.
    pub addrs: Addrs,
}
