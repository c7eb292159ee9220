//! A storage node in the world: its machine on a thread of its own, and around it HTTPS, QUIC, the other nodes, the list
//! of all nodes, and the tests whether they can be reached. Wiring only. Neighbours: `node` (the machine), the
//! `session-node` program (reads the command line and starts this).

pub mod actor;
pub mod clock;
pub mod envelope;
pub mod https;
pub mod keys;
pub mod list;
pub mod peers;
pub mod quic;
pub mod reach;
pub mod seats;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quinn::ServerConfig;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::account::Network;
use crate::http::{Http, Reach};
use crate::node::io::NodeKey;
use crate::node::{self, Node};
use crate::quic::stream::Budget;
use crate::quic::tls::{Identity, Keys7250};
use crate::quic::{CLIENTS, NODE_IDLE, NODES, code, endpoint, tls, transport};
use crate::store::{Damaged, Store};
use actor::{Actor, Means, Running};
use clock::Clock;
use list::{Registry, Source};
use peers::Peers;
use quic::Attendant;
use seats::Seats;

/// Bytes of requests and answers under way at once, over all connections.
const UNDER_WAY: usize = 256 << 20;
/// QUIC connections altogether.
const QUIC_MAX: usize = 16_384;
/// HTTPS connections from one address, and altogether.
const HTTPS_EACH_MAX: usize = 128;
/// See [`HTTPS_EACH_MAX`].
const HTTPS_MAX: usize = 4096;

/// What stops a node from starting: a sentence that names the file, address or option, and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(String);

impl Trouble {
    /// Says this.
    pub fn new(words: String) -> Trouble {
        Trouble(words)
    }
}

/// How a node is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the messages, the certificate and, unless named elsewhere, the key are.
    pub data_dir: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// Where to listen.
    pub bind: IpAddr,
    /// TCP; 0 is any.
    pub https_port: u16,
    /// UDP; 0 is any.
    pub quic_port: u16,
    /// Where the list of nodes comes from.
    pub source: Source,
    /// Whose accounts are kept.
    pub network: Network,
    /// Bytes the store may hold.
    pub store_max: u64,
    /// What to do with a damaged store.
    pub damaged: Damaged,
    /// QUIC connections from one address.
    pub quic_each_max: usize,
    /// Whether onion requests may go to servers on private addresses.
    pub private: bool,
    /// How often another node is tested, if they are.
    pub tests: Option<Duration>,
}

/// A node that runs.
pub struct Server {
    key: NodeKey,
    https: SocketAddr,
    quic: SocketAddr,
    endpoint: quinn::Endpoint,
    machine: Running,
    peers: Arc<Peers>,
    seats: Seats,
    again: Arc<Notify>,
    tasks: JoinSet<()>,
}

/// Starts a node; it runs until it is told to stop. Called inside a tokio runtime.
///
/// # Errors
/// Why not, and what to do.
pub async fn start(settings: Settings) -> Result<Server, Trouble> {
    let directory = &settings.data_dir;
    // What is in it is nobody else's business; a directory that is there already stays as its owner made it.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
        Trouble(format!("{}: {error}; make it, and let this user write there", directory.display()))
    })?;
    let key = keys::key(&settings.key)?;
    let me = NodeKey(key.verifying_key().to_bytes());
    let library = |error: rustls::Error| Trouble(format!("the TLS library does not work here: {error}"));
    let seed = Zeroizing::new(key.to_bytes());
    let identity = Identity::from_seed(&seed).map_err(library)?;
    let certificate = keys::certificate(directory)?;
    let http = Http::new().map_err(library)?;
    let store = Store::open(&directory.join("storage.db"), settings.store_max, settings.damaged)
        .map_err(|error| Trouble(error.to_string()))?;

    let listener = listen(SocketAddr::new(settings.bind, settings.https_port)).await?;
    let accept =
        tls::server(&identity, &[(NODES, Keys7250::Mandatory), (CLIENTS, Keys7250::Optional)]).map_err(library)?;
    let mut accept = ServerConfig::with_crypto(accept);
    accept.transport_config(Arc::new(transport(NODE_IDLE, None)));
    let at = SocketAddr::new(settings.bind, settings.quic_port);
    let endpoint = endpoint(at, Some(accept)).map_err(|error| taken("UDP", "--quic-port", at, &error))?;
    let bound =
        |at: std::io::Result<SocketAddr>| at.map_err(|error| Trouble(format!("a socket has no address: {error}")));
    let (https, quic) = (bound(listener.local_addr())?, bound(endpoint.local_addr())?);

    let budget = Budget::new(UNDER_WAY);
    let peers = Arc::new(Peers::new(me, identity, endpoint.clone(), budget.clone()));
    let clock = Clock::start();
    let node = Node::new(node::Config { key, network: settings.network, seed: random()? }, store, clock.now());
    let reach = if settings.private { Reach::Anywhere } else { Reach::Public };
    let means = Means { peers: peers.clone(), http: http.clone(), reach };
    let machine =
        actor::start(node, clock, means).map_err(|error| Trouble(format!("cannot start a thread: {error}")))?;
    let actor = machine.actor().clone();

    let seats = Seats::new(settings.quic_each_max, QUIC_MAX);
    let attendant = Attendant::new(actor.clone(), peers.clone(), seats.clone(), budget.clone());
    peers.attended_by(Some(attendant.clone()));
    let door = https::Door {
        actor: actor.clone(),
        peers: peers.clone(),
        key: me.0,
        seats: Seats::new(HTTPS_EACH_MAX, HTTPS_MAX),
        budget,
    };
    let again = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(attendant.accept(endpoint.clone()));
    tasks.spawn(door.accept(listener, TlsAcceptor::from(certificate)));
    let registry = match &settings.source {
        Source::File(_) => None,
        Source::Registry(url) => Some(Registry { http: http.clone(), url: url.clone() }),
    };
    tasks.spawn(list::follow(settings.source, http.clone(), actor, peers.clone(), again.clone()));
    if let Some(registry) = registry.clone() {
        tasks.spawn(greet(registry, me, https.port(), quic.port()));
    }
    if let Some(every) = settings.tests {
        let chance = ChaCha20Rng::from_seed(*random()?);
        let (peers, endpoint) = (peers.clone(), endpoint.clone());
        tasks.spawn(reach::Tester { peers, endpoint, http, registry, chance, me, every }.run());
    }
    Ok(Server { key: me, https, quic, endpoint, machine, peers, seats, again, tasks })
}

impl Server {
    /// The node's key.
    pub fn key(&self) -> NodeKey {
        self.key
    }

    /// Where HTTPS is served.
    pub fn https(&self) -> SocketAddr {
        self.https
    }

    /// Where QUIC is served.
    pub fn quic(&self) -> SocketAddr {
        self.quic
    }

    /// The way to the machine.
    pub fn actor(&self) -> &Actor {
        self.machine.actor()
    }

    /// The height of the newest list.
    pub fn height(&self) -> u64 {
        self.peers.list().height
    }

    /// Reads the list of nodes again now.
    pub fn reread(&self) {
        self.again.notify_one();
    }

    /// One line on how it is: never a name or an address.
    pub fn line(&self) -> String {
        let list = self.peers.list();
        let swarm = if self.peers.in_swarm() { "in a swarm" } else { "in no swarm yet" };
        let (nodes, up, clients) = (list.nodes.len(), self.peers.connected(), self.seats.taken());
        format!("v{} {swarm} | nodes/connected/clients: {nodes}/{up}/{clients}", env!("CARGO_PKG_VERSION"))
    }

    /// Stops accepting, says goodbye, and ends when what was accepted is on disk.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.peers.attended_by(None);
        self.machine.stop().await;
        self.endpoint.close(code::GOODBYE, b"this node stops");
        let _ = tokio::time::timeout(Duration::from_secs(2), self.endpoint.wait_idle()).await;
    }
}

async fn listen(at: SocketAddr) -> Result<TcpListener, Trouble> {
    TcpListener::bind(at).await.map_err(|error| taken("TCP", "--https-port", at, &error))
}

fn taken(kind: &str, option: &str, at: SocketAddr, error: &std::io::Error) -> Trouble {
    Trouble(format!("{kind} {at}: {error}; stop what listens there, or choose another place with --bind and {option}"))
}

fn random() -> Result<Zeroizing<[u8; 32]>, Trouble> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|_| Trouble("the system gives no random bytes".into()))?;
    Ok(seed)
}

/// Tells the registry that we are here, for as long as we are.
async fn greet(registry: Registry, me: NodeKey, https: u16, quic: u16) {
    let here = json!({
        "version": crate::rpc::VERSION, "https_port": https, "omq_port": quic,
        "pubkey_ed25519": data_encoding::HEXLOWER.encode(&me.0),
    });
    loop {
        let greeted = registry.call("storage_server_ping", here.clone()).await;
        if let Err(error) = &greeted {
            tracing::debug!("{error}");
        }
        tokio::time::sleep(if greeted.is_ok() { list::GREET_EVERY } else { list::GREET_AGAIN }).await;
    }
}
