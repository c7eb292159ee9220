//! What a node is told and what it answers with: the whole border between the protocol and the world. Everything here
//! is a plain value; nothing here acts. Neighbours: `driver` turns sockets, clocks and TUN into these values, the
//! simulated world does the same with a queue, and `node` carries them to the machines below.

pub use crate::crypto::seal::Suite;
use crate::flow::question::{Answer, Question};
pub use crate::link::{DialId, LinkId, LinkUp, Role, Ticket};
pub use crate::transit::hop::HopRef;
use crate::wire::batch::Packets;
use crate::wire::id::RelayId;
use crate::wire::registry::Registry;
use bytes::Bytes;
use core::time::Duration;
use std::net::SocketAddr;

/// The TLS exporter label under which the driver draws [`LinkUp::exporter`]; the context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-lokinet-cells-v1";

/// Consecutive datagrams of one size from one sender, as GRO delivers them. All of them carry a channel id this node
/// knows ([`Node::is_cell`](super::Node::is_cell)); the last one may be shorter.
pub struct Run<'a> {
    /// The sender.
    pub from: SocketAddr,
    /// The datagrams, end to end; opened in place.
    pub bytes: &'a mut [u8],
    /// Size of each but the last.
    pub segment: usize,
}

/// Why the other side of a request gave no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoReply {
    /// It refused: the stream was reset.
    Refused,
    /// It stayed silent for the request's time.
    TimedOut,
    /// The link went down.
    LinkLost,
}

/// Something happened.
pub enum Input<'a> {
    /// A link is up, in either direction.
    LinkUp(LinkUp),
    /// A dial came to nothing.
    DialFailed {
        /// Which one.
        dial: DialId,
    },
    /// A link is gone.
    LinkDown {
        /// Which one.
        link: LinkId,
    },
    /// The peer's address changed and the new one has been validated (clients only; relays do not move).
    LinkMoved {
        /// Which one.
        link: LinkId,
        /// Where it is now.
        remote: SocketAddr,
    },
    /// The other side opened a stream and sent this whole body.
    Request {
        /// The link it came on.
        link: LinkId,
        /// The driver's number; answered once with [`Output::Answer`].
        ticket: Ticket,
        /// The body, at most [`REQUEST_MAX`] bytes.
        body: Bytes,
    },
    /// A request of ours ended.
    Reply {
        /// Our number.
        ticket: Ticket,
        /// The reply's body, or why there is none.
        result: Result<Bytes, NoReply>,
    },
    /// Sealed cells arrived.
    Cells(&'a mut [Run<'a>]),
    /// A worker found a cell for this node's own hop on a path ([`Work::Control`](super::worker::Work::Control)).
    Control {
        /// Which hop.
        hop: HopRef,
        /// What the client put into it.
        body: Vec<u8>,
    },
    /// Programs sent IP packets into the TUN device.
    Packets(&'a mut Packets),
    /// A program asks for a name of ours.
    Dns {
        /// The asker's number; answered once with [`Output::Dns`].
        ticket: Ticket,
        /// What it asks.
        question: Question,
    },
    /// An edition of the registry, verified; a node takes only newer ones than it has.
    Registry(Registry),
    /// 32 fresh bytes from the operating system, to be mixed into every generator.
    Entropy(zeroize::Zeroizing<[u8; 32]>),
    /// The time named by `next_wake` has come.
    Wake,
    /// Say goodbye: close paths and take back what was published, before the driver stops.
    Stop,
}

/// Silence after which a link between relays is lost.
pub const RELAY_IDLE: Duration = Duration::from_secs(15);
/// How often the relay that dialled says that it is still there.
pub const RELAY_ALIVE: Duration = Duration::from_secs(5);
/// Silence after which a client's link is lost.
pub const CLIENT_IDLE: Duration = Duration::from_secs(45);
/// How often a client says that it is still there.
pub const CLIENT_ALIVE: Duration = Duration::from_secs(15);
/// Largest request body, in bytes.
pub const REQUEST_MAX: usize = 16 * 1024;
/// Largest reply body, in bytes.
pub const REPLY_MAX: usize = 512 * 1024;
/// Requests one peer may have open at once (quinn's limit of bidirectional streams).
pub const REQUESTS_OPEN: u32 = 128;

/// The key a dial proves itself with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkKey {
    /// The relay's identity.
    Identity,
    /// A key made for this link alone and forgotten with it.
    Throwaway,
}

/// Something to do.
pub enum Output<'a> {
    /// Open a link; ends in `LinkUp` or `DialFailed`.
    Dial {
        /// Our number.
        dial: DialId,
        /// The key the peer must prove.
        peer: RelayId,
        /// Where to try, in order.
        addrs: Vec<SocketAddr>,
        /// Whom to be.
        key: LinkKey,
    },
    /// Close a link; no `LinkDown` follows.
    Hangup {
        /// Which one.
        link: LinkId,
    },
    /// Open a stream, send this body, wait for the reply; ends in `Reply`.
    Request {
        /// On which link.
        link: LinkId,
        /// Our number.
        ticket: Ticket,
        /// The body.
        body: Bytes,
        /// How long to wait.
        patience: Duration,
    },
    /// Answer a request of the other side, or refuse it with `None` (the stream is reset).
    Answer {
        /// The driver's number.
        ticket: Ticket,
        /// The reply.
        body: Option<Bytes>,
    },
    /// Send sealed cells: equal sizes, one destination, ready for one GSO call per 44 of them.
    Transmit {
        /// Where to.
        to: SocketAddr,
        /// Size of each.
        segment: usize,
        /// The datagrams, end to end.
        bytes: &'a [u8],
    },
    /// Write these IP packets to the TUN device.
    Deliver(&'a mut Packets),
    /// The answer to a name question.
    Dns {
        /// The asker's number.
        ticket: Ticket,
        /// What to tell it.
        answer: Answer,
    },
    /// Keep this across restarts.
    Save(Save),
    /// Something a person or service manager may want to know.
    Event(Event),
}

/// A record to keep on disk, written whole or not at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Save {
    /// A relay's signed contact: `nodedb/<first hex digit>/<id>.signed`. `None` deletes it.
    Contact {
        /// Whose.
        id: RelayId,
        /// The signed bytes.
        signed: Option<Bytes>,
    },
    /// Our own signed contact (relays): `self.signed`.
    OwnContact(Bytes),
    /// Onion keys and when they were made (relays): `onion.keys`, owner-only.
    OnionKeys(zeroize::Zeroizing<Vec<u8>>),
    /// The guards we settled on: `guards`.
    Guards(Bytes),
    /// Who failed us and who did not: `profiles.dat`.
    Profiles(Bytes),
    /// The newest edition of the registry that we took: `registry.signed`.
    Registry(Bytes),
}

/// What was kept by an earlier run; every part may be empty and each is verified again.
#[derive(Clone, Default)]
pub struct Saved {
    /// Signed contacts from `nodedb/`.
    pub contacts: Vec<Bytes>,
    /// `self.signed`.
    pub own: Option<Bytes>,
    /// `onion.keys`.
    pub onion_keys: Option<zeroize::Zeroizing<Vec<u8>>>,
    /// `guards`.
    pub guards: Option<Bytes>,
    /// `profiles.dat`.
    pub profiles: Option<Bytes>,
    /// `registry.signed`. Whoever makes the node begins with it when it is newer than the edition that he was given
    /// ([`Registry::or_kept`]).
    pub registry: Option<Bytes>,
}

/// Milestones, for the log, sd_notify and `devnet`. None of them is caused by one user's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Client: the first path is live. Relay: its contact is known to another relay.
    Ready,
    /// The service's introset is stored by at least one relay, for the first time in this run.
    Published,
    /// The registry's time is over and no newer edition came; the node goes on with the old one. Once for each edition.
    RegistryExpired,
    /// An edition of the registry was shown that is older than ours, or another one of the same serial; it was not taken.
    RegistryRefused,
    /// Our wall clock disagrees with our peers' by this many seconds (positive: we are ahead).
    ClockSkew(i64),
}

/// Why the node wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// A link's dial, back-off or idle time.
    Link,
    /// A path's build, probe, renewal or end.
    Path,
    /// A conversation's handshake, probe or end.
    Session,
    /// Publishing, looking up, or forgetting records.
    Netdb,
    /// A hop we lend reached its end.
    Transit,
}
