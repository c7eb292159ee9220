//! A registry for private networks, in the place of oxend: nodes come by themselves, swarms are assigned as on the public
//! network, and who is silent or cannot be reached loses its swarm until it is back. Neighbours: `swarm::assign` (the
//! rules), `serve::list` and `serve::reach` (what nodes ask and report), the `session-registry` program.
//!
//! It has no stakes and no blockchain: whoever can reach it is a node. Heights count changes.

pub mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use blake2::Blake2b;
use blake2::digest::Digest;
use blake2::digest::consts::U32;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::VerifyingKey;
use serde_json::{Value as Json, json};

use crate::swarm::assign::{Assignment, assign};
use crate::swarm::{NodeKey, SwarmId};

/// How often the list may change.
pub const BLOCK: Duration = Duration::from_secs(2);
/// How long a node may be silent.
const SILENT: Duration = Duration::from_secs(90);
/// How long a report counts.
const REPORT: Duration = Duration::from_secs(180);
/// Nodes there can be.
const NODES_MAX: usize = 1000;
/// The hard fork that is claimed, and the revision in it.
const HARD_FORK: (u16, u16) = (19, 5);

/// The nodes that have come.
#[derive(Default)]
pub struct Registry {
    nodes: BTreeMap<NodeKey, Entry>,
    swarms: Assignment,
    height: u64,
}

struct Entry {
    ip: Ipv4Addr,
    https: u16,
    quic: u16,
    version: Json,
    seen: Duration,
    /// What each other node last said: whether it can be reached.
    reports: BTreeMap<Ipv4Addr, (bool, Duration)>,
    /// A swarm somebody chose by hand.
    placed: Option<SwarmId>,
}

/// Why a call is refused: a sentence.
type Refused = String;

impl Registry {
    /// Answers a call that comes from `from`; its `result`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn call(&mut self, method: &str, params: &Json, from: Ipv4Addr, now: Duration) -> Result<Json, Refused> {
        match method {
            "get_service_nodes" => Ok(self.list(params)),
            "storage_server_ping" => self.ping(params, from, now),
            "report_peer_status" => self.report(params, from, now),
            "place" => self.place(params),
            other => Err(format!(
                "no method {other}: there are get_service_nodes, storage_server_ping, \
                                  report_peer_status and place"
            )),
        }
    }

    /// A node is there.
    fn ping(&mut self, params: &Json, from: Ipv4Addr, now: Duration) -> Result<Json, Refused> {
        let key = key(params, "pubkey_ed25519")?;
        VerifyingKey::from_bytes(&key.0).map_err(|_| "pubkey_ed25519 is no key")?;
        let port = |name: &str| {
            let port = params[name].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
            port.ok_or_else(|| format!("{name} is no port"))
        };
        let (https, quic) = (port("https_port")?, port("omq_port")?);
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&key) {
            return Err(format!("there are {NODES_MAX} nodes already"));
        }
        let entry = self.nodes.entry(key).or_insert_with(|| Entry {
            ip: from,
            https,
            quic,
            version: Json::Null,
            seen: now,
            reports: BTreeMap::new(),
            placed: None,
        });
        if (entry.ip, entry.https, entry.quic) != (from, https, quic) {
            (entry.ip, entry.https, entry.quic) = (from, https, quic);
            self.height += 1;
        }
        entry.version = params["version"].clone();
        entry.seen = now;
        Ok(json!({"status": "OK"}))
    }

    /// A node says whether another can be reached.
    fn report(&mut self, params: &Json, from: Ipv4Addr, now: Duration) -> Result<Json, Refused> {
        let passed = params["passed"].as_bool().ok_or("passed is neither true nor false")?;
        let name = params["pubkey"].as_str().unwrap_or_default();
        let key = NodeKey(bytes(name).ok_or("pubkey is no key")?);
        let entry = self.nodes.get_mut(&key).ok_or("there is no such node")?;
        if entry.reports.len() >= NODES_MAX {
            entry.reports.clear();
        }
        entry.reports.insert(from, (passed, now));
        Ok(json!({"status": "OK"}))
    }

    /// Somebody puts a node into a swarm by hand, or, without `swarm`, leaves it to the rules again.
    fn place(&mut self, params: &Json) -> Result<Json, Refused> {
        let key = key(params, "pubkey_ed25519")?;
        let swarm = match &params["swarm"] {
            Json::Null => None,
            swarm => Some(SwarmId(swarm.as_u64().ok_or("swarm is no number")?)),
        };
        let entry = self.nodes.get_mut(&key).ok_or("there is no such node")?;
        if entry.placed != swarm {
            entry.placed = swarm;
            self.height += 1;
        }
        Ok(json!({"status": "OK"}))
    }

    /// A block passes: who has come gets a swarm, who is gone loses it.
    pub fn block(&mut self, now: Duration) {
        let up: BTreeSet<NodeKey> = self
            .nodes
            .iter()
            .filter(|(_, entry)| entry.placed.is_none() && entry.is_up(now))
            .map(|(key, _)| *key)
            .collect();
        let before: BTreeSet<NodeKey> = self.swarms.values().flatten().copied().collect();
        if up == before {
            return;
        }
        self.height += 1;
        for nodes in self.swarms.values_mut() {
            nodes.retain(|node| up.contains(node));
        }
        // Nobody decides what becomes of a swarm in which nobody is left.
        self.swarms.retain(|_, nodes| !nodes.is_empty());
        let newcomers: Vec<NodeKey> = up.difference(&before).copied().collect();
        let hash = self.block_hash();
        let (seed, _) = hash.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        if !up.is_empty() {
            assign(&mut self.swarms, &newcomers, u64::from_le_bytes(*seed));
        }
    }

    /// The list, or that it is still the one of the block that is named.
    fn list(&self, params: &Json) -> Json {
        let hash = HEXLOWER.encode(&self.block_hash());
        let mut said = json!({
            "height": self.height, "block_hash": hash, "hardfork": HARD_FORK.0, "snode_revision": HARD_FORK.1,
            "status": "OK",
        });
        if params["poll_block_hash"] == *hash {
            said["unchanged"] = true.into();
            return said;
        }
        let swarms: BTreeMap<NodeKey, SwarmId> =
            self.swarms.iter().flat_map(|(id, nodes)| nodes.iter().map(|node| (*node, *id))).collect();
        let state = |(key, entry): (&NodeKey, &Entry)| {
            let swarm = entry.placed.or_else(|| swarms.get(key).copied()).unwrap_or(SwarmId::UNASSIGNED);
            let x25519 = VerifyingKey::from_bytes(&key.0).map(|key| key.to_montgomery().to_bytes()).unwrap_or_default();
            // A node's registered key is its Ed25519 one here.
            json!({
                "service_node_pubkey": HEXLOWER.encode(&key.0), "pubkey_ed25519": HEXLOWER.encode(&key.0),
                "pubkey_x25519": HEXLOWER.encode(&x25519), "public_ip": entry.ip.to_string(),
                "storage_port": entry.https, "storage_lmq_port": entry.quic, "swarm_id": swarm.0,
                "storage_server_version": entry.version, "funded": true, "active": swarm != SwarmId::UNASSIGNED,
            })
        };
        said["service_node_states"] = self.nodes.iter().map(state).collect();
        said
    }

    fn block_hash(&self) -> [u8; 32] {
        Blake2b::<U32>::digest(self.height.to_le_bytes()).into()
    }
}

impl Entry {
    /// Whether it may be in a swarm: it was heard of, and no majority of those who tried lately could not reach it.
    fn is_up(&self, now: Duration) -> bool {
        let lately = self.reports.values().filter(|(_, at)| *at + REPORT > now);
        let (tried, passed) = lately.fold((0, 0), |(tried, passed), (yes, _)| (tried + 1, passed + usize::from(*yes)));
        self.seen + SILENT > now && (tried < 2 || passed * 2 >= tried)
    }
}

fn key(params: &Json, name: &str) -> Result<NodeKey, Refused> {
    bytes(params[name].as_str().unwrap_or_default()).map(NodeKey).ok_or_else(|| format!("{name} is no key"))
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::swarm::list::List;

    fn node(number: u8) -> (NodeKey, String) {
        let key = SigningKey::from_bytes(&[number; 32]).verifying_key().to_bytes();
        (NodeKey(key), HEXLOWER.encode(&key))
    }

    fn ip(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, number, 0, 1)
    }

    fn ping(registry: &mut Registry, number: u8, now: u64) {
        let params =
            json!({"pubkey_ed25519": node(number).1, "https_port": 22021, "omq_port": 22020, "version": [0, 1, 0]});
        registry.call("storage_server_ping", &params, ip(number), Duration::from_secs(now)).unwrap();
    }

    fn list(registry: &mut Registry, now: u64) -> List {
        registry.block(Duration::from_secs(now));
        let said = registry.call("get_service_nodes", &json!({}), ip(1), Duration::from_secs(now)).unwrap();
        List::read(said.to_string().as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn who_comes_is_listed_with_address_and_swarm() {
        let mut registry = Registry::default();
        (1..=14).for_each(|number| ping(&mut registry, number, 0));
        let first = list(&mut registry, 0);
        assert_eq!((first.nodes.len(), first.swarms().len(), first.skipped), (14, 2, 0));
        let seven = &first.nodes[&node(7).0];
        assert_eq!((seven.ip, seven.https, seven.quic), (ip(7), 22021, 22020));
        let poll = json!({"poll_block_hash": first.block_hash});
        let said = registry.call("get_service_nodes", &poll, ip(1), Duration::ZERO).unwrap();
        assert_eq!(List::read(said.to_string().as_bytes()), Ok(None), "nothing is new");
    }

    #[test]
    fn who_is_silent_loses_its_swarm_until_it_is_back() {
        let mut registry = Registry::default();
        (1..=3).for_each(|number| ping(&mut registry, number, 0));
        assert_eq!(list(&mut registry, 0).swarms().len(), 1);
        (1..=2).for_each(|number| ping(&mut registry, number, 60));
        let after = list(&mut registry, 90);
        assert_eq!(after.swarm_of(&node(3).0), None);
        assert!(after.swarm_of(&node(1).0).is_some());
        ping(&mut registry, 3, 91);
        assert!(list(&mut registry, 92).swarm_of(&node(3).0).is_some());
    }

    #[test]
    fn whom_the_others_cannot_reach_loses_its_swarm_until_they_can() {
        let mut registry = Registry::default();
        (1..=4).for_each(|number| ping(&mut registry, number, 0));
        let report = |registry: &mut Registry, from, passed| {
            let params = json!({"type": "storage", "pubkey": node(4).1, "passed": passed});
            registry.call("report_peer_status", &params, ip(from), Duration::from_secs(1)).unwrap();
        };
        report(&mut registry, 1, false);
        assert!(list(&mut registry, 2).swarm_of(&node(4).0).is_some(), "one word is not enough");
        report(&mut registry, 2, false);
        assert!(list(&mut registry, 2).swarm_of(&node(4).0).is_none());
        report(&mut registry, 2, true);
        report(&mut registry, 1, true);
        assert!(list(&mut registry, 2).swarm_of(&node(4).0).is_some());
    }

    #[test]
    fn a_node_is_placed_by_hand() {
        let mut registry = Registry::default();
        (1..=2).for_each(|number| ping(&mut registry, number, 0));
        list(&mut registry, 0);
        let place = json!({"pubkey_ed25519": node(2).1, "swarm": 77});
        registry.call("place", &place, ip(1), Duration::ZERO).unwrap();
        assert_eq!(list(&mut registry, 1).swarm_of(&node(2).0), Some(SwarmId(77)));
        registry.call("place", &json!({"pubkey_ed25519": node(2).1}), ip(1), Duration::ZERO).unwrap();
        let back = list(&mut registry, 2);
        assert_eq!(back.swarm_of(&node(2).0), back.swarm_of(&node(1).0));
    }

    #[test]
    fn nonsense_is_refused_with_the_field() {
        let mut registry = Registry::default();
        let mut refused =
            |method: &str, params: Json| registry.call(method, &params, ip(1), Duration::ZERO).unwrap_err();
        assert!(refused("stake", json!({})).contains("no method stake"));
        assert!(refused("storage_server_ping", json!({"pubkey_ed25519": "00"})).contains("pubkey_ed25519"));
        let portless = json!({"pubkey_ed25519": node(1).1, "https_port": 0, "omq_port": 1});
        assert!(refused("storage_server_ping", portless).contains("https_port"));
    }
}
