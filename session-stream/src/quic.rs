//! QUIC as Session speaks it, the same at both ends: raw Ed25519 keys instead of certificates, an application protocol
//! that says who may call, and streams of commands and answers. Neighbours: `serve` (accepts, and dials other nodes),
//! `client` (dials), `frame` (what the streams carry).
//!
//! [`tls`] is the handshake, [`hello`] what a server must know before it begins one, [`stream`] a BT request stream.

pub mod hello;
pub mod stream;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};

/// The protocol clients call a storage node by.
pub const CLIENTS: &[u8] = b"oxenstorage";
/// The protocol storage nodes call each other by.
pub const NODES: &[u8] = b"oxenstorage-sn";

/// Why a connection is closed, or a stream reset, as numbers that libquic knows.
pub mod code {
    use quinn::VarInt;

    /// Nothing is wrong.
    pub const GOODBYE: VarInt = VarInt::from_u32(0);
    /// Two nodes dialled each other at once, and this connection is one too many.
    pub const ONE_TOO_MANY: VarInt = VarInt::from_u32(6);
    /// Only nodes on the list may speak this protocol.
    pub const NOT_A_NODE: VarInt = VarInt::from_u32(7);
    /// Pushes pile up here: this subscriber does not read.
    pub const TOO_SLOW: VarInt = VarInt::from_u32(8);
    /// Too many connections from one address, or altogether.
    pub const TOO_MANY: VarInt = VarInt::from_u32(9);
    /// A stream cannot go on.
    pub const STREAM: VarInt = VarInt::from_u32(777_000_100);
    /// A stream brought what is no frame.
    pub const FRAMING: VarInt = VarInt::from_u32(777_000_105);
}

/// How long a handshake may take.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client's connection lives without a packet.
pub const CLIENT_IDLE: Duration = Duration::from_secs(30);
/// How long a connection between nodes lives without a packet.
pub const NODE_IDLE: Duration = Duration::from_secs(60);
/// How often a node shows that it is there.
pub const NODE_KEEP_ALIVE: Duration = Duration::from_secs(15);

const CONNECTION_WINDOW: u32 = 15 << 20;
const STREAM_WINDOW: u32 = 6 << 20;
const STREAMS: u32 = 32;

/// The transport parameters of Session's nodes and clients.
pub fn transport(idle: Duration, keep_alive: Option<Duration>) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(u64::from(STREAM_WINDOW))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(keep_alive);
    transport
}

/// An endpoint on a UDP socket of its own; with a server's configuration it also accepts.
///
/// # Errors
/// The address is not ours, or taken.
pub fn endpoint(bind: SocketAddr, server: Option<ServerConfig>) -> io::Result<Endpoint> {
    let socket = std::net::UdpSocket::bind(bind)?;
    Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))
}
