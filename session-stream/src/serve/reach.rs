//! Testing that other nodes can be reached: every ten seconds or so one of them, over HTTPS and over QUIC as a client
//! would, and those that failed again until they answer. Results go to the registry if there is one, and to the log.
//! Neighbours: `list` (the registry), `peers` (the list).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use quinn::{ClientConfig, Endpoint};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::https::PUBKEY_HEADER;
use super::list::Registry;
use super::peers::Peers;
use crate::http::{Http, Reach, Trust};
use crate::node::io::NodeKey;
use crate::quic::stream::{Budget, RequestStream};
use crate::quic::tls::{self, Identity};
use crate::quic::{CLIENT_IDLE, CLIENTS, code, transport};
use crate::swarm::Node;

/// A test of somebody new comes about this often.
pub const EVERY: Duration = Duration::from_secs(10);
/// Somebody who failed n times is tested again after n intervals, but no later than after so many.
const RETEST_MAX: u32 = 12;
/// How long each half of a test may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Retests at a time.
const RETESTS: usize = 4;

/// What testing takes.
pub struct Tester {
    /// Whom there is to test.
    pub peers: Arc<Peers>,
    /// Where tests leave from.
    pub endpoint: Endpoint,
    /// Tests HTTPS.
    pub http: Http,
    /// Whom results are told.
    pub registry: Option<Registry>,
    /// Chooses.
    pub chance: ChaCha20Rng,
    /// Ourselves, who are not tested.
    pub me: NodeKey,
    /// How often somebody new is tested, about; [`EVERY`] in life.
    pub every: Duration,
}

/// Somebody who failed.
struct Failing {
    times: u32,
    again: Instant,
}

impl Tester {
    /// Tests until the task is dropped.
    pub async fn run(mut self) {
        let mut failing: BTreeMap<NodeKey, Failing> = BTreeMap::new();
        let mut round: Vec<NodeKey> = Vec::new();
        loop {
            // Between 0.4 and 1.6 of it, so that nodes do not test in step.
            sleep(self.every * 4 / 10 + self.every * (self.chance.next_u32() % 1200) / 1000).await;
            // Who is in no swarm has no business testing others.
            let list = self.peers.list();
            if !self.peers.in_swarm() {
                continue;
            }
            failing.retain(|key, _| list.nodes.contains_key(key));
            let now = Instant::now();
            let due = failing.iter().filter(|(_, failing)| failing.again <= now).map(|(key, _)| *key);
            let due: Vec<NodeKey> = due.take(RETESTS).collect();
            for key in due.into_iter().chain(self.next(&mut round)) {
                let Some(node) = list.nodes.get(&key) else { continue };
                let passed = self.test(node).await;
                self.report(node, passed, &mut failing).await;
            }
        }
    }

    /// The next of a shuffled round over everybody.
    fn next(&mut self, round: &mut Vec<NodeKey>) -> Option<NodeKey> {
        if round.is_empty() {
            *round = self.peers.list().nodes.keys().copied().filter(|key| *key != self.me).collect();
            for at in (1..round.len()).rev() {
                round.swap(at, usize::try_from(self.chance.next_u64() % (at as u64 + 1)).unwrap_or(at));
            }
        }
        round.pop()
    }

    /// Both halves of a test.
    async fn test(&self, node: &Node) -> bool {
        let https = timeout(PATIENCE, https(&self.http, node));
        let quic = timeout(PATIENCE, quic(&self.endpoint, node));
        let (https, quic) = tokio::join!(https, quic);
        https == Ok(true) && quic.ok().flatten().is_some()
    }

    async fn report(&self, node: &Node, passed: bool, failing: &mut BTreeMap<NodeKey, Failing>) {
        if passed {
            if failing.remove(&node.key).is_some() {
                tracing::info!("node {:?} can be reached again", node.key);
            }
        } else {
            let times = failing.get(&node.key).map_or(1, |failing| failing.times + 1);
            if times == 1 {
                tracing::warn!("node {:?} cannot be reached over HTTPS and QUIC", node.key);
            }
            let again = Instant::now() + self.every * times.min(RETEST_MAX);
            failing.insert(node.key, Failing { times, again });
        }
        if let Some(registry) = &self.registry {
            let result = json!({"type": "storage", "pubkey": HEXLOWER.encode(&node.legacy), "passed": passed});
            if let Err(error) = registry.call("report_peer_status", result).await {
                tracing::debug!("{error}");
            }
        }
    }
}

/// Whether a node answers over HTTPS, and as whom.
async fn https(http: &Http, node: &Node) -> bool {
    let url = format!("https://{}/ping_test/v1", SocketAddr::from((node.ip, node.https)));
    let post = Some((Bytes::new(), "application/octet-stream"));
    let Ok(response) = http.ask(&url, post, 4096, Trust::Nobody, Reach::Anywhere).await else { return false };
    let said = response.headers.get(PUBKEY_HEADER).map(|value| value.as_bytes());
    response.status == 200 && said == Some(BASE64.encode(&node.legacy).as_bytes())
}

/// Whether a node answers over QUIC, with its key, as it would a client.
async fn quic(endpoint: &Endpoint, node: &Node) -> Option<()> {
    let mut config = ClientConfig::new(tls::client(Some(&Identity::throwaway().ok()?), node.key.0, CLIENTS).ok()?);
    config.transport_config(Arc::new(transport(CLIENT_IDLE, None)));
    let addr = SocketAddr::from((node.ip, node.quic));
    let connection = endpoint.connect_with(config, addr, tls::SERVER_NAME).ok()?.await.ok()?;
    let (commands, _nobody) = mpsc::channel(1);
    let stream = RequestStream::open(&connection, commands, &Budget::new(4096)).await.ok()?;
    let pong = stream.request("snode_ping", Bytes::new(), PATIENCE).await.ok();
    connection.close(code::GOODBYE, b"");
    pong.filter(|pong| &pong[..] == b"pong").map(|_| ())
}
