//! The registry's list of nodes, as `get_service_nodes` answers it: who serves, under which keys, where, and in which
//! swarm. It comes from the operator's own oxend or file, so what is wrong in it is said with its place; nothing of a
//! wrong list is used. Neighbours: `swarm` (holds the newest good one), `change` (what two of them differ in).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::Value as Json;

use super::map::SwarmId;

/// Longest list, in nodes; the network has a fifth of it.
pub const NODES_MAX: usize = 10_000;
/// Longest list, in bytes of JSON.
pub const LIST_BYTES_MAX: usize = 32 << 20;

/// A node's Ed25519 key: its name among nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub [u8; 32]);

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// A node that is paid for and has shown its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its Ed25519 key.
    pub key: NodeKey,
    /// The key it is registered under; its `.snode` address spells this one.
    pub legacy: [u8; 32],
    /// Its X25519 key, which onion requests are sealed to.
    pub x25519: [u8; 32],
    /// Where it is.
    pub ip: Ipv4Addr,
    /// HTTPS, TCP.
    pub https: u16,
    /// QUIC, UDP; the registry calls it the OMQ port.
    pub quic: u16,
    /// Its swarm; [`SwarmId::UNASSIGNED`] while it is decommissioned.
    pub swarm: SwarmId,
    /// The storage server's version it last reported, if it did.
    pub version: [u8; 3],
}

/// One list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct List {
    /// The block it was made at.
    pub height: u64,
    /// That block's hash, as the registry writes it.
    pub block_hash: String,
    /// The hard fork and the revision in it.
    pub hard_fork: (u16, u16),
    /// Everybody, by key.
    pub nodes: BTreeMap<NodeKey, Node>,
    /// Entries left out: not fully paid for, or without keys or an address yet.
    pub skipped: usize,
}

/// Why a list cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// No object at all.
    #[error("the list of nodes is no JSON object: it should be the `result` of get_service_nodes")]
    NotJson,
    /// The list is longer than we read.
    #[error("the list of nodes is too long: at most {NODES_MAX} nodes in {LIST_BYTES_MAX} bytes are read")]
    TooLong,
    /// A field of the whole.
    #[error("the list of nodes has no usable `{0}`: ask get_service_nodes for that field, or write it into the file")]
    Field(&'static str),
    /// A field of one node.
    #[error("node {0} in the list of nodes (counted from 0) has an unusable `{1}`: correct it, or leave the node out")]
    Node(usize, &'static str),
}

impl List {
    /// Reads the `result` of `get_service_nodes`; nothing when it says that nothing changed.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(json: &[u8]) -> Result<Option<List>, BadList> {
        if json.len() > LIST_BYTES_MAX {
            return Err(BadList::TooLong);
        }
        let result: Json = serde_json::from_slice(json).map_err(|_| BadList::NotJson)?;
        if !result.is_object() {
            return Err(BadList::NotJson);
        }
        if result["unchanged"] == true {
            return Ok(None);
        }
        let states = result["service_node_states"].as_array().ok_or(BadList::Field("service_node_states"))?;
        if states.len() > NODES_MAX {
            return Err(BadList::TooLong);
        }
        let mut list = List {
            height: result["height"].as_u64().ok_or(BadList::Field("height"))?,
            block_hash: result["block_hash"].as_str().unwrap_or_default().to_owned(),
            hard_fork: (
                small(&result["hardfork"]).ok_or(BadList::Field("hardfork"))?,
                small(&result["snode_revision"]).unwrap_or(0),
            ),
            nodes: BTreeMap::new(),
            skipped: 0,
        };
        for (at, state) in states.iter().enumerate() {
            match Node::read(state).map_err(|field| BadList::Node(at, field))? {
                None => list.skipped += 1,
                Some(node) => {
                    if list.nodes.insert(node.key, node).is_some() {
                        return Err(BadList::Node(at, "pubkey_ed25519"));
                    }
                }
            }
        }
        Ok(Some(list))
    }

    /// The swarms there are, sorted.
    pub fn swarms(&self) -> Vec<SwarmId> {
        let assigned = self.nodes.values().map(|node| node.swarm).filter(|swarm| *swarm != SwarmId::UNASSIGNED);
        assigned.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A node's swarm; none when it is in none, or not on the list.
    pub fn swarm_of(&self, node: &NodeKey) -> Option<SwarmId> {
        self.nodes.get(node).map(|node| node.swarm).filter(|swarm| *swarm != SwarmId::UNASSIGNED)
    }
}

impl Node {
    /// Reads one entry; nothing when it does not serve yet. The error is the field's name.
    fn read(state: &Json) -> Result<Option<Node>, &'static str> {
        if state["funded"] == false {
            return Ok(None);
        }
        let legacy = key(state, "service_node_pubkey")?.ok_or("service_node_pubkey")?;
        let (Some(ed25519), Some(x25519)) = (key(state, "pubkey_ed25519")?, key(state, "pubkey_x25519")?) else {
            return Ok(None);
        };
        let ip = match state["public_ip"].as_str() {
            None | Some("") => return Ok(None),
            Some(ip) => ip.parse::<Ipv4Addr>().map_err(|_| "public_ip")?,
        };
        let (https, quic) = (port(state, "storage_port")?, port(state, "storage_lmq_port")?);
        // A node that has not yet sent a proof of life stands there with zeros.
        if ip.is_unspecified() || https == 0 || quic == 0 {
            return Ok(None);
        }
        let swarm = state["swarm_id"].as_u64().map(SwarmId).ok_or("swarm_id")?;
        let version = version(state);
        Ok(Some(Node { key: NodeKey(ed25519), legacy, x25519, ip, https, quic, swarm, version }))
    }
}

/// A key in hexadecimal; nothing when it is absent or empty.
fn key(state: &Json, name: &'static str) -> Result<Option<[u8; 32]>, &'static str> {
    match &state[name] {
        Json::Null => Ok(None),
        Json::String(hex) if hex.is_empty() => Ok(None),
        Json::String(hex) => {
            let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| name)?;
            bytes.try_into().map(Some).map_err(|_| name)
        }
        _ => Err(name),
    }
}

/// A port; zero when it is absent.
fn port(state: &Json, name: &'static str) -> Result<u16, &'static str> {
    if state[name].is_null() { Ok(0) } else { small(&state[name]).ok_or(name) }
}

/// `storage_server_version`. Nothing depends on it: what cannot be read is zero.
fn version(state: &Json) -> [u8; 3] {
    let parts = &state["storage_server_version"];
    [0, 1, 2].map(|at| parts[at].as_u64().unwrap_or(0).try_into().unwrap_or(u8::MAX))
}

fn small(number: &Json) -> Option<u16> {
    number.as_u64()?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(byte: u8, swarm: u64) -> Json {
        let key = |kind: u8| data_encoding::HEXLOWER.encode(&[kind ^ byte; 32]);
        json!({
            "service_node_pubkey": key(0x80), "pubkey_ed25519": key(0), "pubkey_x25519": key(0x40),
            "public_ip": format!("10.0.0.{byte}"), "storage_port": 22021, "storage_lmq_port": 22020,
            "swarm_id": swarm, "funded": true, "staking_requirement": 1.5,
        })
    }

    fn list(states: &[Json]) -> Json {
        json!({"service_node_states": states, "height": 1500, "block_hash": "ab12", "hardfork": 19, "snode_revision": 5})
    }

    fn read(json: &Json) -> Result<Option<List>, BadList> {
        List::read(json.to_string().as_bytes())
    }

    #[test]
    fn a_node_is_read_with_its_keys_ports_and_swarm() {
        let list = read(&list(&[state(1, 5), state(2, u64::MAX)])).unwrap().unwrap();
        assert_eq!((list.height, list.hard_fork, list.block_hash.as_str()), (1500, (19, 5), "ab12"));
        let node = &list.nodes[&NodeKey([1; 32])];
        assert_eq!((node.legacy, node.x25519, node.swarm), ([0x81; 32], [0x41; 32], SwarmId(5)));
        assert_eq!((node.ip, node.https, node.quic), (Ipv4Addr::new(10, 0, 0, 1), 22021, 22020));
        assert_eq!(list.swarms(), [SwarmId(5)], "a node without a swarm makes none");
    }

    #[test]
    fn who_does_not_serve_yet_is_left_out() {
        let without = |field: &str, value: Json| {
            let mut state = state(1, 5);
            state[field] = value;
            state
        };
        for state in [
            without("funded", json!(false)),
            without("pubkey_ed25519", json!("")),
            without("pubkey_x25519", Json::Null),
            without("public_ip", json!("0.0.0.0")),
            without("storage_port", json!(0)),
        ] {
            let list = read(&list(std::slice::from_ref(&state))).unwrap().unwrap();
            assert_eq!((list.nodes.len(), list.skipped), (0, 1), "{state}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let broken = |field: &str, value: Json| {
            let mut state = state(2, 5);
            state[field] = value;
            read(&list(&[self::state(1, 5), state])).unwrap_err()
        };
        assert_eq!(broken("pubkey_ed25519", json!("zz")), BadList::Node(1, "pubkey_ed25519"));
        assert_eq!(broken("pubkey_ed25519", json!("01".repeat(32))), BadList::Node(1, "pubkey_ed25519"), "twice");
        assert_eq!(broken("storage_port", json!(65536)), BadList::Node(1, "storage_port"));
        assert_eq!(broken("public_ip", json!("::1")), BadList::Node(1, "public_ip"));
        assert_eq!(broken("swarm_id", json!(-1)), BadList::Node(1, "swarm_id"));
        let mut whole = list(&[]);
        whole["height"] = Json::Null;
        assert_eq!(read(&whole), Err(BadList::Field("height")));
        assert_eq!(read(&json!({})), Err(BadList::Field("service_node_states")));
        assert_eq!(List::read(b"[1]"), Err(BadList::NotJson));
        assert_eq!(List::read(b"{"), Err(BadList::NotJson));
        assert!(BadList::Node(1, "swarm_id").to_string().contains("node 1"));
    }

    #[test]
    fn a_list_has_an_end() {
        assert_eq!(read(&list(&vec![Json::Null; NODES_MAX + 1])), Err(BadList::TooLong));
        assert_eq!(List::read(&vec![b' '; LIST_BYTES_MAX + 1]), Err(BadList::TooLong));
    }

    #[test]
    fn nothing_new_is_no_list() {
        assert_eq!(read(&json!({"unchanged": true, "height": 3})), Ok(None));
    }
}
