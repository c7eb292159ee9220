//! Everything that goes into the machine and comes out of it, as values. Neighbours: `node` (the machine), `serve` (the
//! real world around it), the tests' simulated swarm (a made one).
//!
//! Who drives the machine hands it inputs in any number, then calls `Node::commit`, and only then does what the outputs
//! say: nothing is acknowledged that is not on disk, and a hundred stores cost one fsync.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

pub use crate::push::Conn;
pub use crate::swarm::NodeKey;

/// What time it is. Timers go by `mono`, signatures and expiry by `wall`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Now {
    /// Since some moment before the start; never goes back.
    pub mono: Duration,
    /// Milliseconds since 1970, UTC, as far as the host knows.
    pub wall: u64,
}

/// Which call an answer belongs to. The driver numbers calls that come in, the machine questions that go out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// By which way a call came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// HTTPS from this address: calls are limited by address.
    Https(IpAddr),
    /// A client's QUIC connection: calls are limited by address, and it can be pushed to.
    Quic(IpAddr, Conn),
    /// The last layer of an onion request, peeled by the machine itself.
    Onion,
    /// Another node, proven by its key.
    Peer(NodeKey),
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Somebody calls. Every call is answered exactly once by [`Output::Answer`], unless its connection closes before.
    Call {
        /// The driver's number for it.
        ticket: Ticket,
        /// By which way.
        origin: Origin,
        /// `store`, `monitor`, `snode_ping`, `onion_req`; between nodes `storage_cc`, `offer`, `data`,
        /// `onion_request`.
        method: String,
        /// The parameters, JSON or bt by their first byte, or what else the method takes.
        body: Bytes,
    },
    /// A peer answered [`Output::Ask`], or it did not.
    Reply {
        /// The machine's number for the question.
        ticket: Ticket,
        /// The answer's body, or why there is none.
        reply: Result<Bytes, AskError>,
    },
    /// A server outside answered [`Output::Post`], or it did not: its status and body.
    Posted {
        /// The machine's number for it.
        ticket: Ticket,
        /// Status and body, or why there is none.
        reply: Result<(u16, Bytes), AskError>,
    },
    /// A connection ended; nothing can be pushed to it any more.
    Closed(Conn),
    /// The registry's list of nodes: `get_service_nodes`' result as it came, JSON.
    Nodes(Bytes),
    /// The time the machine asked to be woken at has come.
    Wake,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Answer a call.
    Answer {
        /// The call.
        ticket: Ticket,
        /// As HTTP's.
        status: u16,
        /// The body, written in the caller's form.
        body: Body,
    },
    /// Ask a peer, on the node-to-node protocol.
    Ask {
        /// The machine's number for the question.
        ticket: Ticket,
        /// Whom.
        peer: NodeKey,
        /// `storage_cc`, `offer`, `data`, `onion_request`, `snode_ping`.
        method: &'static str,
        /// What.
        body: Bytes,
        /// How long to wait for the answer.
        patience: Duration,
    },
    /// Post a request to a server outside, for the last layer of an onion request.
    Post {
        /// The machine's number for it.
        ticket: Ticket,
        /// `https://host:port/target`, checked.
        url: String,
        /// What.
        body: Bytes,
        /// How long to wait for the answer.
        patience: Duration,
    },
    /// Send a command on the connection's first stream and expect no answer.
    Push {
        /// To whom.
        conn: Conn,
        /// `notify` or `monitor_ended`.
        command: &'static str,
        /// A bt dictionary.
        body: Bytes,
    },
    /// A peer's key and addresses as the newest list has them; the driver connects when there is something to ask.
    Peers(Vec<Peer>),
}

/// A body and what it is, as far as HTTP's `Content-Type` and QUIC's envelope need to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// JSON or bt, already written; QUIC wraps it in a list with the status.
    Dict(Bytes),
    /// A sentence.
    Text(String),
    /// Bytes as they are.
    Raw(Bytes),
}

/// Why a question has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AskError {
    /// Patience ended.
    Timeout,
    /// No connection came about, or it broke.
    Unreachable,
    /// The peer says that it will not or cannot: its own words, not to be trusted.
    Refused(Bytes),
}

/// Where a peer is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Who it is.
    pub key: NodeKey,
    /// Its address, from the registry.
    pub ip: IpAddr,
    /// QUIC, UDP.
    pub quic: u16,
    /// HTTPS, TCP.
    pub https: u16,
}
