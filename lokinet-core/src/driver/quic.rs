//! Links over QUIC: dials, accepted connections, one bidirectional stream per request. Small tasks wait on quinn and
//! report to the loop through one bounded channel; the tables of links and open requests belong to the loop alone.
//! Every ticket is answered exactly once, also when a connection dies under it. Neighbours: `tls` below, `socket`
//! carries the packets, `driver` turns what is reported here into inputs.

use super::routes::{Route, Routes};
use super::tls::{self, Identity};
use crate::node::io::{
    CLIENT_ALIVE, CLIENT_IDLE, DialId, EXPORTER_LABEL, Input, LinkId, LinkKey, LinkUp, NoReply, RELAY_ALIVE,
    RELAY_IDLE, REPLY_MAX, REQUEST_MAX, REQUESTS_OPEN, Role, Suite, Ticket,
};
use crate::time::Time;
use crate::wire::id::RelayId;
use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionError, Endpoint, ReadError, ReadToEndError, RecvStream,
    SendStream, ServerConfig, TokioRuntime, TransportConfig, VarInt, WriteError,
};
use seat::Seat;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

mod cid;
mod seat;
#[cfg(test)]
mod tests;

/// Shortest time between two stateless resets of an endpoint: after a crash all neighbours want one within seconds, and
/// who floods us with what we have forgotten gets less back than he sent.
const RESETS_EVERY: Duration = Duration::from_millis(2);
/// Handshakes above which a stranger must first show that it receives at its address (Retry).
const RETRY_ABOVE: usize = 64;
/// Handshakes above which strangers are ignored.
const HANDSHAKES_OPEN: usize = 1024;
/// How long a stranger may take for its handshake, and we for one address of a dial.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(4);
/// How long the other side may take to send a request's body.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// How long the other side may take to fetch an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// Bodies being received at once, over all links.
const BODIES_ARRIVING: usize = 4096;
/// Bytes of answers on their way out at once, over all links.
const ANSWERS_LEAVING: usize = 64 << 20;
/// Reports that may wait for the loop.
const HAPPENED_WAITING: usize = 1024;
/// How long a moved peer must stay at its new address before we believe it. quinn shows the address before it is
/// validated and falls back after three probe timeouts, 3 s on a path whose round trip is unknown.
const MOVE_BELIEVED: Duration = Duration::from_secs(4);
/// The UDP payload every packet may have: a cell's size, which also crosses a 1492-byte underlay.
const PAYLOAD: u16 = 1440;

/// Close and reset codes; they say nothing.
const GOODBYE: VarInt = VarInt::from_u32(0);
const NO_ANSWER: VarInt = VarInt::from_u32(1);

/// What the tasks report to the loop.
pub(crate) enum Happened {
    Up(LinkUp, Connection, usize),
    DialFailed { dial: DialId },
    Down { link: LinkId },
    Request { link: LinkId, body: Bytes, answer: SendStream },
    Reply { ticket: Ticket, result: Result<Bytes, NoReply> },
}

/// What tasks and loop share.
struct Desk {
    happened: mpsc::Sender<Happened>,
    links: AtomicU64,
    seats: Arc<seat::Seats>,
    handshakes: Arc<AtomicUsize>,
    arriving: Arc<AtomicUsize>,
    leaving: Arc<AtomicUsize>,
    retried: AtomicU64,
    turned_away: AtomicU64,
}

/// A share of something bounded; given back when dropped.
struct Share(Arc<AtomicUsize>, usize);

impl Share {
    fn take(of: &Arc<AtomicUsize>, amount: usize, limit: usize) -> Option<Share> {
        let taken = of.fetch_add(amount, Ordering::Relaxed);
        let share = Share(of.clone(), amount); // gives back also when it was too much
        (taken + amount <= limit).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// One link, as the loop knows it.
struct Link {
    connection: Connection,
    socket: usize,
    responder: bool,
    remote: SocketAddr,
    moving: Option<(SocketAddr, Time)>,
}

/// All links and open requests.
pub(crate) struct Quic {
    endpoints: Vec<Endpoint>,
    identity: Option<Identity>,
    offers: &'static [Suite],
    /// How a relay dials, and how a client does.
    dialling: [Arc<TransportConfig>; 2],
    desk: Arc<Desk>,
    links: BTreeMap<LinkId, Link>,
    routes: Routes,
    open: BTreeMap<Ticket, (LinkId, SendStream)>,
    tickets: u64,
    asking: usize,
}

impl Quic {
    /// One endpoint per socket; with an identity, and the seed it grows from, they also accept. Must be called inside a
    /// tokio runtime.
    pub(crate) fn new(
        sockets: Vec<Arc<dyn AsyncUdpSocket>>,
        identity: Option<Identity>,
        seed: Option<Zeroizing<[u8; 32]>>,
        offers: &'static [Suite],
    ) -> io::Result<(Quic, mpsc::Receiver<Happened>)> {
        let (sender, receiver) = mpsc::channel(HAPPENED_WAITING);
        let desk = Arc::new(Desk {
            happened: sender,
            links: AtomicU64::new(1),
            seats: Arc::default(),
            handshakes: Arc::default(),
            arriving: Arc::default(),
            leaving: Arc::default(),
            retried: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        });
        let server = identity.as_ref().map(|identity| accepting(identity, offers)).transpose()?;
        let mut endpoints = Vec::new();
        let mut local = Vec::new();
        for (index, socket) in sockets.into_iter().enumerate() {
            let own = socket.local_addr()?;
            local.push(own);
            let keys = match &seed {
                Some(seed) => cid::Keys::of_relay(seed, own),
                None => cid::Keys::from_os()?,
            };
            let mut config = quinn::EndpointConfig::new(Arc::new(keys.resets()));
            config.grease_quic_bit(false); // the fixed bit stays set, as in cells
            config.min_reset_interval(RESETS_EVERY);
            let cids = keys.ids()?;
            config.cid_generator(move || Box::new(cids.clone()));
            let runtime = Arc::new(TokioRuntime);
            let endpoint = Endpoint::new_with_abstract_socket(config, server.clone(), socket, runtime)?;
            if server.is_some() {
                tokio::spawn(accept(endpoint.clone(), index, desk.clone()));
            }
            endpoints.push(endpoint);
        }
        let quic = Quic {
            endpoints,
            identity,
            offers,
            dialling: [(RELAY_IDLE, RELAY_ALIVE), (CLIENT_IDLE, CLIENT_ALIVE)]
                .map(|(idle, alive)| Arc::new(transport(Role::Initiator, idle, Some(alive)))),
            desk,
            links: BTreeMap::new(),
            routes: Routes::new(local.into()),
            open: BTreeMap::new(),
            tickets: 0,
            asking: 0,
        };
        Ok((quic, receiver))
    }

    /// Enters a report into the tables; what the node is to be told about it, if anything.
    pub(crate) fn take(&mut self, happened: Happened) -> Option<Input<'static>> {
        match happened {
            Happened::Up(up, connection, socket) => {
                let responder = up.role == Role::Responder;
                self.links.insert(up.link, Link { connection, socket, responder, remote: up.remote, moving: None });
                self.learn_route(up.link);
                Some(Input::LinkUp(up))
            }
            Happened::DialFailed { dial } => Some(Input::DialFailed { dial }),
            Happened::Down { link } => self.forget(link).map(|_| Input::LinkDown { link }),
            Happened::Request { link, body, answer } => {
                self.links.get(&link)?; // hung up since: the stream died with its connection
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.open.insert(ticket, (link, answer));
                Some(Input::Request { link, ticket, body })
            }
            Happened::Reply { ticket, result } => {
                self.asking = self.asking.saturating_sub(1);
                Some(Input::Reply { ticket, result })
            }
        }
    }

    /// Opens a link: each address in order, the first that proves the key wins.
    pub(crate) fn dial(&self, dial: DialId, peer: RelayId, addrs: Vec<SocketAddr>, key: LinkKey) {
        let (identity, transport) = match key {
            LinkKey::Identity => (self.identity.clone(), &self.dialling[0]),
            LinkKey::Throwaway => (Identity::throwaway().ok(), &self.dialling[1]),
        };
        let config = identity.and_then(|identity| tls::client(&identity, peer, self.offers).ok()).map(|crypto| {
            let mut config = ClientConfig::new(Arc::new(crypto));
            config.transport_config(transport.clone());
            // A token from an earlier link would tell the relay that two throw-away keys are one client.
            config.token_store(Arc::new(quinn::NoneTokenStore));
            config
        });
        let mut ways = Vec::new();
        for addr in addrs {
            if let Some(socket) = self.routes.socket_for(addr) {
                ways.push((addr, socket, self.endpoints[socket].clone()));
            }
        }
        let desk = self.desk.clone();
        tokio::spawn(async move {
            if let Some(config) = config {
                for (addr, socket, endpoint) in ways {
                    let Ok(connecting) = endpoint.connect_with(config.clone(), addr, "relay") else { continue };
                    if let Ok(Ok(connection)) = timeout(HANDSHAKE_PATIENCE, connecting).await {
                        return live(desk, connection, socket, Some(dial), None).await;
                    }
                }
            }
            let _ = desk.happened.send(Happened::DialFailed { dial }).await;
        });
    }

    /// Closes a link.
    pub(crate) fn hangup(&mut self, link: LinkId) {
        if let Some(link) = self.forget(link) {
            link.connection.close(GOODBYE, b"");
        }
    }

    /// Asks the other side; ends in one `Reply`.
    pub(crate) fn request(&mut self, link: LinkId, ticket: Ticket, body: Bytes, patience: Duration) {
        self.asking += 1;
        let connection = self.links.get(&link).map(|link| link.connection.clone());
        let desk = self.desk.clone();
        tokio::spawn(async move {
            let result = match connection {
                Some(connection) => ask(&connection, body, patience).await,
                None => Err(NoReply::LinkLost),
            };
            let _ = desk.happened.send(Happened::Reply { ticket, result }).await;
        });
    }

    /// Requests of ours whose reply has not been told yet.
    pub(crate) fn asking(&self) -> usize {
        self.asking
    }

    /// Answers a request of the other side, or refuses it.
    pub(crate) fn answer(&mut self, ticket: Ticket, body: Option<Bytes>) {
        let Some((_, mut stream)) = self.open.remove(&ticket) else { return };
        let share = body.and_then(|body| {
            let fits = body.len() <= REPLY_MAX;
            debug_assert!(fits, "an answer must fit into REPLY_MAX");
            fits.then(|| Share::take(&self.desk.leaving, body.len(), ANSWERS_LEAVING)).flatten().map(|s| (body, s))
        });
        let Some((body, share)) = share else {
            let _ = stream.reset(NO_ANSWER);
            return;
        };
        tokio::spawn(async move {
            let _share = share;
            match timeout(ANSWER_PATIENCE, stream.write_chunk(body)).await {
                Ok(Ok(())) => drop(stream.finish()),
                // Dropping a stream would end it as if it were whole.
                _ => drop(stream.reset(NO_ANSWER)),
            }
        });
    }

    /// Where cells to `to` leave from.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Whether any peer could move, so that [`Quic::moved`] is worth asking each second.
    pub(crate) fn may_move(&self) -> bool {
        self.links.values().any(|link| link.responder)
    }

    /// The peers that dialled us and have since moved. quinn announces no migration, so this asks each link; once a
    /// second is enough, since a move is believed only after some seconds.
    pub(crate) fn moved(&mut self, now: Time) -> Vec<(LinkId, SocketAddr)> {
        let mut moved = Vec::new();
        for (&id, link) in self.links.iter_mut().filter(|(_, link)| link.responder) {
            let seen = link.connection.remote_address();
            match link.moving {
                _ if seen == link.remote => link.moving = None,
                Some((to, since)) if to == seen => {
                    if now.since(since) >= MOVE_BELIEVED {
                        (link.remote, link.moving) = (seen, None);
                        moved.push((id, seen));
                    }
                }
                _ => link.moving = Some((seen, now)),
            }
        }
        for &(link, _) in &moved {
            self.routes.forget(link);
            self.learn_route(link);
        }
        moved
    }

    /// Strangers asked to show their address first, and strangers there was no room for.
    pub(crate) fn strangers(&self) -> (u64, u64) {
        (self.desk.retried.load(Ordering::Relaxed), self.desk.turned_away.load(Ordering::Relaxed))
    }

    /// Closes every link and waits a moment for the goodbyes to leave.
    pub(crate) async fn close(&self, patience: Duration) {
        for endpoint in &self.endpoints {
            endpoint.close(GOODBYE, b"");
        }
        let deadline = Instant::now() + patience;
        for endpoint in &self.endpoints {
            let _ = timeout_at(deadline, endpoint.wait_idle()).await;
        }
    }

    fn learn_route(&self, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let source = link.connection.local_ip().filter(|_| self.routes.has_several(link.socket));
        self.routes.learn(link.remote, Route { link: id, socket: link.socket, source });
    }

    fn forget(&mut self, id: LinkId) -> Option<Link> {
        let link = self.links.remove(&id)?;
        self.routes.forget_at(link.remote, id);
        self.open.retain(|_, (of, _)| *of != id);
        Some(link)
    }
}

/// How we accept: Retry when asked for, clients may move, no tokens that outlive a link.
fn accepting(identity: &Identity, offers: &[Suite]) -> io::Result<ServerConfig> {
    let crypto = tls::server(identity, offers).map_err(io::Error::other)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    server.validation_token_config(tokens);
    // The shorter idle time of the two sides counts: the dialler's says what kind of link it is.
    server.transport_config(Arc::new(transport(Role::Responder, CLIENT_IDLE, None)));
    server.migration(true);
    server.max_incoming(HANDSHAKES_OPEN).incoming_buffer_size(16 << 10).incoming_buffer_size_total(4 << 20);
    Ok(server)
}

fn transport(role: Role, idle: Duration, alive: Option<Duration>) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.initial_mtu(PAYLOAD).min_mtu(1200).mtu_discovery_config(None).pad_to_mtu(true).allow_spin(false);
    config.max_concurrent_bidi_streams(REQUESTS_OPEN.into()).max_concurrent_uni_streams(VarInt::from_u32(0));
    config.datagram_receive_buffer_size(None);
    config.max_idle_timeout(idle.try_into().ok()).keep_alive_interval(alive);
    config.send_window(1 << 20);
    // Who dials asks for large things; who is dialled may be dialled by thousands.
    let (stream, whole) = match role {
        Role::Initiator => (REPLY_MAX as u32, 1 << 20),
        Role::Responder => (32 << 10, 256 << 10),
    };
    config.stream_receive_window(VarInt::from_u32(stream)).receive_window(VarInt::from_u32(whole));
    config
}

/// Takes strangers in, as many as there is room for.
async fn accept(endpoint: Endpoint, socket: usize, desk: Arc<Desk>) {
    while let Some(stranger) = endpoint.accept().await {
        let Some(handshake) = Share::take(&desk.handshakes, 1, HANDSHAKES_OPEN) else {
            desk.turned_away.fetch_add(1, Ordering::Relaxed);
            stranger.ignore();
            continue;
        };
        if desk.handshakes.load(Ordering::Relaxed) > RETRY_ABOVE && !stranger.remote_address_validated() {
            desk.retried.fetch_add(1, Ordering::Relaxed);
            let _ = stranger.retry();
            continue;
        }
        let Some(seat) = desk.seats.take(stranger.remote_address().ip()) else {
            desk.turned_away.fetch_add(1, Ordering::Relaxed);
            stranger.refuse();
            continue;
        };
        let Ok(connecting) = stranger.accept() else { continue };
        let desk = desk.clone();
        tokio::spawn(async move {
            let connection = timeout(HANDSHAKE_PATIENCE, connecting).await;
            drop(handshake);
            if let Ok(Ok(connection)) = connection {
                live(desk, connection, socket, None, Some(seat)).await;
            }
        });
    }
}

/// A link from its first moment to its last.
async fn live(desk: Arc<Desk>, connection: Connection, socket: usize, dial: Option<DialId>, _seat: Option<Seat>) {
    let link = LinkId(desk.links.fetch_add(1, Ordering::Relaxed));
    let mut exporter = Zeroizing::new([0; 32]);
    let exported = connection.export_keying_material(exporter.as_mut_slice(), EXPORTER_LABEL, b"");
    let (Some(peer), Some(suite), Ok(())) = (tls::peer(&connection), tls::suite(&connection), exported) else {
        connection.close(GOODBYE, b"");
        if let Some(dial) = dial {
            let _ = desk.happened.send(Happened::DialFailed { dial }).await;
        }
        return;
    };
    let role = if dial.is_some() { Role::Initiator } else { Role::Responder };
    let up = LinkUp { link, dial, peer, role, exporter, suite, remote: connection.remote_address() };
    if desk.happened.send(Happened::Up(up, connection.clone(), socket)).await.is_err() {
        return;
    }
    while let Ok((mut answer, mut body)) = connection.accept_bi().await {
        let Some(share) = Share::take(&desk.arriving, 1, BODIES_ARRIVING) else {
            refuse(&mut answer, &mut body);
            continue;
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            let _share = share;
            match timeout(BODY_PATIENCE, body.read_to_end(REQUEST_MAX)).await {
                Ok(Ok(whole)) => {
                    let _ = desk.happened.send(Happened::Request { link, body: whole.into(), answer }).await;
                }
                _ => refuse(&mut answer, &mut body),
            }
        });
    }
    let _ = desk.happened.send(Happened::Down { link }).await;
}

/// One request of ours, from open to reply.
async fn ask(connection: &Connection, body: Bytes, patience: Duration) -> Result<Bytes, NoReply> {
    let deadline = Instant::now() + patience;
    let (mut request, mut reply) = match timeout_at(deadline, connection.open_bi()).await {
        Ok(opened) => opened.map_err(|_: ConnectionError| NoReply::LinkLost)?,
        Err(_) => return Err(NoReply::TimedOut),
    };
    let exchange = async {
        request.write_chunk(body).await.map_err(|error| match error {
            WriteError::ConnectionLost(_) => NoReply::LinkLost,
            _ => NoReply::Refused,
        })?;
        let _ = request.finish(); // fails only when they stopped the stream, and then reading says so
        let reply = reply.read_to_end(REPLY_MAX).await.map_err(|error| match error {
            ReadToEndError::Read(ReadError::ConnectionLost(_)) => NoReply::LinkLost,
            _ => NoReply::Refused,
        })?;
        Ok(Bytes::from(reply))
    };
    let result = timeout_at(deadline, exchange).await.unwrap_or(Err(NoReply::TimedOut));
    if result.is_err() {
        // Dropped half-written, a request would look whole to the other side.
        refuse(&mut request, &mut reply);
    }
    result
}

fn refuse(ours: &mut SendStream, theirs: &mut RecvStream) {
    let _ = ours.reset(NO_ANSWER);
    let _ = theirs.stop(NO_ANSWER);
}
