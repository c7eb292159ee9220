//! The list of nodes: asked of the registry (oxend's JSON-RPC) every few seconds, or read from a file on private networks,
//! and again when the file changes. Neighbours: `swarm::list` (reads it), `peers` (who is where), `actor` (the machine is
//! told).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::actor::Actor;
use super::peers::Peers;
use crate::http::{Http, Reach, Trust};
use crate::node::io::Input;
use crate::swarm::list::{LIST_BYTES_MAX, List};

/// How often the registry is asked whether there is a new block.
const REGISTRY_EVERY: Duration = Duration::from_secs(5);
/// How often we look whether the file has changed.
const FILE_EVERY: Duration = Duration::from_secs(1);
/// How long the registry may take.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(20);
/// How often the registry is told that we are here.
pub const GREET_EVERY: Duration = Duration::from_secs(30);
/// How soon it is told again when it could not be told.
pub const GREET_AGAIN: Duration = Duration::from_secs(2);

/// Where the list comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file: the `result` of `get_service_nodes`, or its whole answer.
    File(PathBuf),
    /// A registry's address, `http://127.0.0.1:22023`.
    Registry(String),
}

/// The registry's JSON-RPC.
#[derive(Clone)]
pub struct Registry {
    /// Asks it.
    pub http: Http,
    /// Where it is.
    pub url: String,
}

impl Registry {
    /// Calls a method; its `result`.
    ///
    /// # Errors
    /// A sentence that names the URL.
    pub async fn call(&self, method: &str, params: Json) -> Result<Json, String> {
        let url = format!("{}/json_rpc", self.url.trim_end_matches('/'));
        let body = json!({"jsonrpc": "2.0", "id": "0", "method": method, "params": params}).to_string();
        let post = Some((body.into(), "application/json"));
        let asking = self.http.ask(&url, post, LIST_BYTES_MAX, Trust::Authorities, Reach::Anywhere);
        let response = match timeout(REGISTRY_PATIENCE, asking).await {
            Ok(asked) => asked.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("{url}: no answer in {} s", REGISTRY_PATIENCE.as_secs())),
        };
        let mut answer: Json =
            serde_json::from_slice(&response.body).map_err(|_| format!("{url}: the answer is no JSON"))?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => {
                Err(format!("{url}: {method} failed: {}", answer["error"]["message"].as_str().unwrap_or("no result")))
            }
        }
    }
}

/// Follows the list until the task is dropped. `again` has it read at once.
pub async fn follow(source: Source, http: Http, actor: Actor, peers: Arc<Peers>, again: Arc<Notify>) {
    let mut follower = Follower { source, http, last: String::new(), read_at: None, complained: String::new() };
    loop {
        match follower.newest().await {
            Ok(Some(result)) => match List::read(&result) {
                Ok(Some(list)) => {
                    follower.complained.clear();
                    tracing::info!(
                        "list of nodes at height {}: {} nodes, {} left out",
                        list.height,
                        list.nodes.len(),
                        list.skipped
                    );
                    follower.last.clone_from(&list.block_hash);
                    peers.listed(list);
                    actor.happened(Input::Nodes(result)).await;
                }
                Ok(None) => {}
                Err(bad) => follower.complain(&format!("{}: {bad}; the last good list stays", follower.name())),
            },
            Ok(None) => {}
            Err(error) => follower.complain(&error),
        }
        let every = if matches!(follower.source, Source::File(_)) { FILE_EVERY } else { REGISTRY_EVERY };
        tokio::select! {
            () = sleep(every) => {}
            () = again.notified() => follower.read_at = None,
        }
    }
}

struct Follower {
    source: Source,
    http: Http,
    /// The last list's block.
    last: String,
    /// The file's time and length when it was read.
    read_at: Option<(SystemTime, u64)>,
    complained: String,
}

impl Follower {
    fn name(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Registry(url) => url.clone(),
        }
    }

    /// Says what is wrong, once.
    fn complain(&mut self, why: &str) {
        if self.complained != why {
            tracing::warn!("{why}");
            self.complained = why.to_owned();
        }
    }

    /// The list, if it may have changed.
    async fn newest(&mut self) -> Result<Option<Bytes>, String> {
        match &self.source {
            Source::Registry(url) => {
                let registry = Registry { http: self.http.clone(), url: url.clone() };
                let params = json!({"fields": fields(), "poll_block_hash": self.last});
                Ok(Some(registry.call("get_service_nodes", params).await?.to_string().into()))
            }
            Source::File(path) => {
                let failed =
                    |error: std::io::Error| format!("{}: {error}; write the list of nodes there", path.display());
                let metadata = std::fs::metadata(path).map_err(failed)?;
                let stamp = (metadata.modified().map_err(failed)?, metadata.len());
                if self.read_at == Some(stamp) {
                    return Ok(None);
                }
                if metadata.len() > LIST_BYTES_MAX as u64 {
                    return Err(format!(
                        "{}: longer than {LIST_BYTES_MAX} bytes, which is no list of nodes",
                        path.display()
                    ));
                }
                let bytes = std::fs::read(path).map_err(failed)?;
                self.read_at = Some(stamp);
                let whole: Option<Json> = serde_json::from_slice(&bytes).ok();
                let result = whole.as_ref().and_then(|whole| whole.get("result")).map(Json::to_string);
                Ok(Some(result.map_or(bytes.into(), Bytes::from)))
            }
        }
    }
}

/// The fields of a node that we read.
fn fields() -> Json {
    let names = [
        "service_node_pubkey",
        "swarm_id",
        "storage_port",
        "public_ip",
        "height",
        "block_hash",
        "hardfork",
        "snode_revision",
        "funded",
        "pubkey_x25519",
        "pubkey_ed25519",
        "storage_lmq_port",
        "storage_server_version",
    ];
    names.into_iter().map(|name| (name.to_owned(), Json::from(true))).collect::<serde_json::Map<_, _>>().into()
}
