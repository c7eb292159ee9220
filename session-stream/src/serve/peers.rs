//! The other nodes: where the newest list says they are, and one connection to each, made when there is something to ask
//! and kept while both sides live. Two nodes that dial each other at once keep what the lower key dialled. Neighbours:
//! `list` (brings lists), `quic` (attends to connections), `actor` (asks).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::envelope;
use super::quic::Attendant;
use crate::node::io::{AskError, NodeKey};
use crate::quic::stream::{Budget, Command, RequestError, RequestStream};
use crate::quic::tls::{self, Identity};
use crate::quic::{NODE_IDLE, NODE_KEEP_ALIVE, NODES, code, transport};
use crate::swarm::list::List;
use crate::swarm::{Node, SwarmId};

/// How long a dial may take.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// How soon a peer is dialled again that did not answer, doubled each time up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_millis(500);
/// See [`BACK_OFF`].
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// How long a connection that is one too many may finish what is under way on it.
const FAREWELL: Duration = Duration::from_secs(20);
/// Streams for onion requests on each connection.
const ONION_STREAMS: usize = 4;
/// Onion requests that may wait on one of them.
const ONION_BACKLOG: usize = 64;

/// Everybody on the list.
pub struct Peers {
    me: NodeKey,
    identity: Identity,
    endpoint: Endpoint,
    budget: Budget,
    list: Mutex<Arc<List>>,
    table: Mutex<BTreeMap<NodeKey, Arc<Entry>>>,
    attendant: Mutex<Option<Attendant>>,
}

/// What is known of one peer.
struct Entry {
    link: Mutex<Option<Arc<Link>>>,
    /// Held while dialling, so that all who ask wait for the same dial.
    dialling: tokio::sync::Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    row: u32,
    wait_until: Option<Instant>,
}

/// A live connection and the streams we opened on it.
struct Link {
    connection: Connection,
    /// We dialled it.
    ours: bool,
    commands: mpsc::Sender<Box<Command>>,
    plain: tokio::sync::OnceCell<RequestStream>,
    data: tokio::sync::OnceCell<RequestStream>,
    onions: [tokio::sync::OnceCell<RequestStream>; ONION_STREAMS],
}

impl Peers {
    /// Nobody yet. Dials leave from `endpoint`, and prove `identity`.
    pub fn new(me: NodeKey, identity: Identity, endpoint: Endpoint, budget: Budget) -> Peers {
        let (list, table) = (Mutex::default(), Mutex::default());
        Peers { me, identity, endpoint, budget, list, table, attendant: Mutex::default() }
    }

    /// Says who attends to commands that come over connections we dial; before anything is asked, and with nobody at the
    /// end, for the attendant knows us too.
    pub fn attended_by(&self, attendant: Option<Attendant>) {
        *self.attendant.lock().unwrap_or_else(PoisonError::into_inner) = attendant;
    }

    /// Takes the newest list. Connections to nodes that are not on it any more are closed.
    pub fn listed(&self, list: List) {
        let mut table = self.table();
        table.retain(|key, entry| {
            let stays = list.nodes.contains_key(key);
            if !stays && let Some(link) = entry.current() {
                link.connection.close(code::NOT_A_NODE, b"you are not on the list of nodes");
            }
            stays
        });
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }

    /// The newest list.
    pub fn list(&self) -> Arc<List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Our own entry on it.
    pub fn own(&self) -> Option<Node> {
        self.list().nodes.get(&self.me).cloned()
    }

    /// Whether we are in a swarm.
    pub fn in_swarm(&self) -> bool {
        self.own().is_some_and(|own| own.swarm != SwarmId::UNASSIGNED)
    }

    /// Connections to other nodes that are up.
    pub fn connected(&self) -> usize {
        self.table().values().filter(|entry| entry.current().is_some()).count()
    }

    /// Asks a peer.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(
        &self,
        peer: NodeKey,
        method: &'static str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Bytes, AskError> {
        let asking = async {
            let link = self.link(peer).await.ok_or(AskError::Unreachable)?;
            let stream = link.stream(method, &self.budget).await?;
            match stream.request(method, body, patience).await {
                Ok(reply) => Ok(reply),
                Err(RequestError::Refused(words)) => Err(AskError::Refused(words)),
                Err(RequestError::Timeout) => Err(AskError::Timeout),
                Err(RequestError::Closed | RequestError::TooLong) => Err(AskError::Unreachable),
            }
        };
        timeout(patience, asking).await.unwrap_or(Err(AskError::Timeout))
    }

    /// A peer's connection to us; whether it is on the list. The commands on it go to `commands`.
    pub fn accepted(&self, peer: NodeKey, connection: &Connection, commands: mpsc::Sender<Box<Command>>) -> bool {
        if !self.list().nodes.contains_key(&peer) || peer == self.me {
            return false;
        }
        self.settle(peer, Link::new(connection.clone(), false, commands));
        true
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeKey, Arc<Entry>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, peer: NodeKey) -> Arc<Entry> {
        let new = || Arc::new(Entry { link: Mutex::default(), dialling: tokio::sync::Mutex::default() });
        self.table().entry(peer).or_insert_with(new).clone()
    }

    /// The connection to a peer, made if there is none.
    async fn link(&self, peer: NodeKey) -> Option<Arc<Link>> {
        let addr = self.list().nodes.get(&peer).map(|node| SocketAddr::from((node.ip, node.quic)))?;
        let entry = self.entry(peer);
        if let Some(link) = entry.current() {
            return Some(link);
        }
        let mut failures = entry.dialling.lock().await;
        if let Some(link) = entry.current() {
            return Some(link);
        }
        if failures.wait_until.is_some_and(|until| until > Instant::now()) {
            return None;
        }
        match timeout(DIAL_PATIENCE, self.dial(peer, addr)).await.ok().flatten() {
            Some(link) => {
                *failures = Failures::default();
                Some(link)
            }
            None => {
                let wait = (BACK_OFF * 2u32.saturating_pow(failures.row)).min(BACK_OFF_MAX);
                *failures = Failures { row: (failures.row + 1).min(16), wait_until: Some(Instant::now() + wait) };
                // It may have dialled us meanwhile.
                entry.current()
            }
        }
    }

    async fn dial(&self, peer: NodeKey, addr: SocketAddr) -> Option<Arc<Link>> {
        let mut config = ClientConfig::new(tls::client(Some(&self.identity), peer.0, NODES).ok()?);
        config.transport_config(Arc::new(transport(NODE_IDLE, Some(NODE_KEEP_ALIVE))));
        let connection = self.endpoint.connect_with(config, addr, tls::SERVER_NAME).ok()?.await.ok()?;
        let attendant = self.attendant.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let commands = attendant.attend_peer(peer, connection.clone());
        Some(self.settle(peer, Link::new(connection, true, commands)))
    }

    /// Decides which of two connections to a peer is kept; returns it.
    fn settle(&self, peer: NodeKey, new: Link) -> Arc<Link> {
        let new = Arc::new(new);
        let entry = self.entry(peer);
        let mut link = entry.link.lock().unwrap_or_else(PoisonError::into_inner);
        let old = link.take().filter(|old| old.lives());
        let (kept, surplus) = match old {
            None => (new, None),
            // Who dials again has lost the first one.
            Some(old) if old.ours == new.ours => (new, Some(old)),
            Some(old) if (self.me < peer) == old.ours => (old, Some(new)),
            Some(old) => (new, Some(old)),
        };
        *link = Some(kept.clone());
        if let Some(surplus) = surplus {
            tokio::spawn(async move {
                // Whatever ends it sooner, its socket must not be held any longer.
                let _ = timeout(FAREWELL, surplus.connection.closed()).await;
                surplus.connection.close(code::ONE_TOO_MANY, b"we have another connection");
            });
        }
        kept
    }
}

impl Entry {
    fn current(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|link| link.lives())
    }
}

impl Link {
    fn new(connection: Connection, ours: bool, commands: mpsc::Sender<Box<Command>>) -> Link {
        Link {
            connection,
            ours,
            commands,
            plain: tokio::sync::OnceCell::new(),
            data: tokio::sync::OnceCell::new(),
            onions: Default::default(),
        }
    }

    fn lives(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// The stream for a method: calls, data and onions do not wait for each other.
    async fn stream(&self, method: &str, budget: &Budget) -> Result<&RequestStream, AskError> {
        let waiting =
            |stream: &tokio::sync::OnceCell<RequestStream>| stream.get().map_or(0, RequestStream::outstanding);
        let cell = match method {
            "data" | "offer" => &self.data,
            "onion_request" => {
                let Some(least) = self.onions.iter().min_by_key(|stream| waiting(stream)) else {
                    return Err(AskError::Unreachable);
                };
                if waiting(least) >= ONION_BACKLOG {
                    let words = format!("503 {}\n\nNext hop congested", envelope::reason(503));
                    return Err(AskError::Refused(words.into()));
                }
                least
            }
            _ => &self.plain,
        };
        let open = || RequestStream::open(&self.connection, self.commands.clone(), budget);
        cell.get_or_try_init(open).await.map_err(|_| AskError::Unreachable)
    }
}
