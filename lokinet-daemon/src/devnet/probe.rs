//! Asking a node's daemon at its control socket (JSON-RPC 2.0, a line each way): is it ready, what is its address, which path
//! does it use. Used by `up` to wait, by `status` and by `demo`.

use std::collections::BTreeMap;
use std::path::Path;

use data_encoding::{HEXLOWER, Specification};
use serde::Serialize;
use serde_json::Value;

use super::plan::{Plan, Role};

/// What a node says of itself.
#[derive(Clone, Debug, Default)]
pub struct NodeStatus {
    /// It can carry traffic.
    pub ready: bool,
    /// Its address can be found by others.
    pub published: bool,
    /// Its `.loki` address.
    pub loki: Option<String>,
}

impl NodeStatus {
    /// Whether a node of this role needs nothing more.
    pub fn suffices(&self, role: Role) -> bool {
        self.ready && (!role.is_site() || (self.published && self.loki.is_some()))
    }
}

/// Asks one method; `None` when nobody answers, or not with a result.
async fn ask(socket: &Path, method: &str) -> Option<Value> {
    crate::control::ask::ask(socket, method).await.ok()
}

/// Asks a node how it is.
pub async fn probe(socket: &Path) -> Option<NodeStatus> {
    let result = ask(socket, "llarp.get_status").await?;
    let is = |name: &str| result.get(name).and_then(Value::as_bool).unwrap_or(false);
    let loki = result.get("lokiAddress").and_then(Value::as_str).filter(|address| address.ends_with(".loki"));
    Some(NodeStatus { ready: is("ready"), published: is("published"), loki: loki.map(str::to_string) })
}

/// One path of a node.
#[derive(Clone, Debug, Serialize)]
pub struct Route {
    /// The relays, by their names in this network where known, the first hop first.
    pub hops: Vec<String>,
    /// The measured round trip.
    pub latency_ms: Option<f64>,
    /// What it is for: `general`, `inbound` or `rendezvous`.
    pub purpose: Option<String>,
    /// Whom it leads to, where the daemon says so.
    pub target: Option<String>,
}

/// The paths of a node, those to `target` first.
pub async fn paths(plan: &Plan, socket: &Path, target: &str) -> Vec<Route> {
    let Some(result) = ask(socket, "lokinet.paths").await else { return Vec::new() };
    let list = result.as_array().or_else(|| result.get("paths").and_then(Value::as_array));
    let names = relay_names(plan);
    let mut paths: Vec<Route> = list.into_iter().flatten().filter_map(|path| read_path(path, &names)).collect();
    paths.sort_by_key(|path| path.target.as_deref() != Some(target));
    paths
}

/// Everything a relay may be called by, with its name here.
fn relay_names(plan: &Plan) -> BTreeMap<String, String> {
    let mut spec = Specification::new();
    spec.symbols.push_str("ybndrfg8ejkmcpqxot1uwisza345h769");
    let base32z = spec.encoding().ok();
    let mut names = BTreeMap::new();
    for node in plan.nodes.iter().filter(|node| node.role == Role::Relay) {
        names.insert(node.v4.to_string(), node.name.clone());
        names.insert(node.hint().to_string(), node.name.clone());
        let Some(id) = &node.id else { continue };
        names.insert(id.clone(), node.name.clone());
        if let (Some(base32z), Ok(bytes)) = (&base32z, HEXLOWER.decode(id.as_bytes())) {
            names.insert(base32z.encode(&bytes), node.name.clone());
            names.insert(format!("{}.snode", base32z.encode(&bytes)), node.name.clone());
        }
    }
    names
}

fn read_path(path: &Value, names: &BTreeMap<String, String>) -> Option<Route> {
    let hops: Vec<String> = path.get("hops")?.as_array()?.iter().map(|hop| hop_name(hop, names)).collect();
    let latency_ms = path.get("latencyMs").and_then(Value::as_f64);
    let word = |name: &str| path.get(name).and_then(Value::as_str).map(str::to_string);
    let (purpose, target) = (word("purpose"), word("target"));
    (!hops.is_empty()).then_some(Route { hops, latency_ms, purpose, target })
}

fn hop_name(hop: &Value, names: &BTreeMap<String, String>) -> String {
    let words: Vec<&str> = match hop {
        Value::Object(fields) => fields.values().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    };
    let known = words.iter().find_map(|word| names.get(*word).cloned());
    known.or_else(|| words.first().map(ToString::to_string)).unwrap_or_else(|| "?".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hops_are_shown_by_their_names_here_however_the_daemon_calls_them() {
        let mut plan = Plan::new(Path::new("/tmp/d"), "/bin/true".into(), 3, 0, 0).expect("a plan");
        plan.nodes[2].id = Some("00".repeat(32));
        let names = relay_names(&plan);
        let snode = format!("{}.snode", "y".repeat(52));
        let said = json!({ "hops": [{ "ip": "10.1.0.1" }, "10.2.0.1:1090", { "router": snode }, "stranger"], "latencyMs": 12 });
        let path = read_path(&said, &names).expect("a path");
        assert_eq!(path.hops, ["relay1", "relay2", "relay3", "stranger"]);
        assert_eq!(path.latency_ms, Some(12.0));
    }
}
