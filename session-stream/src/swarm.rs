//! Who keeps which account: the registry's nodes, their swarms, and our place among them. Neighbours: `rpc` (sends a
//! caller to the right swarm), `push` and `transfer` (act when the swarms change), `node` (hands the lists in).
//!
//! [`list`] reads what the registry says, [`map`] finds an account's swarm, [`change`] is what two lists differ in,
//! [`Swarms`] holds the newest list and answers. [`assign`] is the registry's part, for private networks.

pub mod assign;
pub mod change;
pub mod list;
pub mod map;

use std::collections::VecDeque;
use std::sync::LazyLock;

use data_encoding::{Encoding, HEXLOWER, Specification};

pub use change::{Change, Ours};
pub use list::{BadList, Node, NodeKey};
pub use map::{Span, SwarmId};

use crate::value::Value;
use list::List;

/// base32z, in which `.snode` addresses are spelled.
static BASE32Z: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("ybndrfg8ejkmcpqxot1uwisza345h769");
    specification.encoding().expect("32 different symbols make an encoding")
});

/// Past lists that are remembered: who kept an account then may still tell of it.
const BEFORE_MAX: usize = 8;

/// The newest good list, and where we stand in it.
pub struct Swarms {
    me: NodeKey,
    list: List,
    /// Sorted.
    swarms: Vec<SwarmId>,
    /// The lists and swarms there were before somebody changed places, the newest last.
    before: VecDeque<(List, Vec<SwarmId>)>,
}

impl Swarms {
    /// Before the first list: no swarm is known, so none is ours.
    pub fn new(me: NodeKey) -> Swarms {
        Swarms { me, list: List::default(), swarms: Vec::new(), before: VecDeque::new() }
    }

    /// Takes the registry's newest list, JSON as it came, in the place of the last one; what it changes, or nothing when
    /// it says so itself. A list of an older block, as a registry that starts over gives, is taken like any other.
    ///
    /// # Errors
    /// What is wrong with it; the last one then stays.
    pub fn take(&mut self, json: &[u8]) -> Result<Option<Change>, BadList> {
        let Some(list) = List::read(json)? else { return Ok(None) };
        let change = Change::between(&self.list, &list, &self.me);
        let (swarms, last) = (list.swarms(), std::mem::replace(&mut self.list, list));
        let moved =
            last.nodes.iter().any(|(key, node)| self.list.swarm_of(key).unwrap_or(SwarmId::UNASSIGNED) != node.swarm);
        let last_swarms = std::mem::replace(&mut self.swarms, swarms);
        if moved {
            if self.before.len() == BEFORE_MAX {
                self.before.pop_front();
            }
            self.before.push_back((last, last_swarms));
        }
        Ok(Some(change))
    }

    /// Our own key.
    pub fn me(&self) -> NodeKey {
        self.me
    }

    /// The swarm that keeps the account; none while none is known.
    pub fn swarm_of(&self, account: &[u8; 33]) -> Option<SwarmId> {
        map::nearest(&self.swarms, map::place(account))
    }

    /// Our swarm; none while we are in none.
    pub fn mine(&self) -> Option<SwarmId> {
        self.list.swarm_of(&self.me)
    }

    /// Whether the account is kept by our swarm.
    pub fn keeps(&self, account: &[u8; 33]) -> bool {
        self.mine().is_some_and(|mine| self.swarm_of(account) == Some(mine))
    }

    /// Whether the account was kept by this node's swarm before somebody changed places, not too long ago.
    pub fn kept_before(&self, node: &NodeKey, account: &[u8; 33]) -> bool {
        self.before.iter().any(|(list, swarms)| {
            list.swarm_of(node).is_some_and(|swarm| map::nearest(swarms, map::place(account)) == Some(swarm))
        })
    }

    /// The part of the circle that a swarm keeps; none when there is no such swarm.
    pub fn span(&self, swarm: SwarmId) -> Option<Span> {
        Span::of(&self.swarms, swarm)
    }

    /// Who is in a swarm, by key; we too, if it is ours.
    pub fn members(&self, swarm: SwarmId) -> impl Iterator<Item = &Node> {
        self.list.nodes.values().filter(move |node| node.swarm == swarm && swarm != SwarmId::UNASSIGNED)
    }

    /// The others in our swarm, by key; nobody while we are in none.
    pub fn others(&self) -> impl Iterator<Item = &Node> {
        let mine = self.mine().unwrap_or(SwarmId::UNASSIGNED);
        self.members(mine).filter(|node| node.key != self.me)
    }

    /// A node of the list, in a swarm or not.
    pub fn node(&self, key: &NodeKey) -> Option<&Node> {
        self.list.nodes.get(key)
    }

    /// Every node of the list, by key.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.list.nodes.values()
    }

    /// The hard fork and the revision in it, as `hf` in answers.
    pub fn hard_fork(&self) -> (u16, u16) {
        self.list.hard_fork
    }

    /// The block of the newest list.
    pub fn height(&self) -> u64 {
        self.list.height
    }

    /// Its hash, as the registry writes it.
    pub fn block_hash(&self) -> &str {
        &self.list.block_hash
    }

    /// What `get_swarm` answers, and who is asked for a stranger's account: `snodes` and `swarm`. No swarm is written as
    /// [`SwarmId::UNASSIGNED`] with nobody in it.
    pub fn described(&self, account: &[u8; 33]) -> [(&'static str, Value); 2] {
        let swarm = self.swarm_of(account).unwrap_or(SwarmId::UNASSIGNED);
        let snodes = self.members(swarm).map(Node::described).collect();
        [("snodes", Value::List(snodes)), ("swarm", swarm.to_string().into())]
    }
}

impl Node {
    /// The node as clients read it.
    fn described(&self) -> Value {
        Value::dict([
            ("address", format!("{}.snode", BASE32Z.encode(&self.legacy)).into()),
            ("ip", self.ip.to_string().into()),
            ("port", self.https.to_string().into()),
            ("port_https", self.https.into()),
            ("port_omq", self.quic.into()),
            ("port_quic", self.quic.into()),
            ("pubkey_ed25519", HEXLOWER.encode(&self.key.0).into()),
            ("pubkey_legacy", HEXLOWER.encode(&self.legacy).into()),
            ("pubkey_x25519", HEXLOWER.encode(&self.x25519).into()),
        ])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::value::Form;

    /// A list of nodes: each its key's byte and its swarm.
    fn list(nodes: &[(u8, u64)]) -> Vec<u8> {
        let states: Vec<_> = nodes
            .iter()
            .map(|(byte, swarm)| {
                let key = |kind: u8| HEXLOWER.encode(&[kind ^ byte; 32]);
                json!({
                    "service_node_pubkey": key(0x80), "pubkey_ed25519": key(0), "pubkey_x25519": key(0x40),
                    "public_ip": "10.0.0.1", "storage_port": 22021, "storage_lmq_port": 22020, "swarm_id": swarm,
                })
            })
            .collect();
        json!({"service_node_states": states, "height": 1, "hardfork": 19}).to_string().into_bytes()
    }

    /// The account at this place of the circle.
    fn account(place: u64) -> [u8; 33] {
        let mut account = [0; 33];
        account[0] = 5;
        account[25..].copy_from_slice(&place.to_be_bytes());
        account
    }

    #[test]
    fn an_account_is_ours_when_our_swarm_is_nearest() {
        let mut swarms = Swarms::new(NodeKey([1; 32]));
        assert!(!swarms.keeps(&account(90)), "nothing is ours before the first list");
        swarms.take(&list(&[(1, 100), (2, 100), (3, 200), (4, u64::MAX)])).unwrap();
        assert_eq!(swarms.mine(), Some(SwarmId(100)));
        assert!(swarms.keeps(&account(90)) && !swarms.keeps(&account(190)));
        assert!(swarms.others().map(|node| node.key).eq([NodeKey([2; 32])]));
        assert_eq!(swarms.nodes().count(), 4);
        swarms.take(&list(&[(1, u64::MAX), (2, 100)])).unwrap();
        assert_eq!(swarms.mine(), None, "decommissioned");
        assert_eq!(swarms.others().count(), 0);
    }

    #[test]
    fn a_bad_list_changes_nothing() {
        let mut swarms = Swarms::new(NodeKey([1; 32]));
        swarms.take(&list(&[(1, 100)])).unwrap();
        assert!(swarms.take(&list(&[(2, 200), (2, 200)])).is_err());
        assert_eq!(swarms.take(br#"{"unchanged":true}"#), Ok(None));
        assert_eq!(swarms.mine(), Some(SwarmId(100)));
    }

    #[test]
    fn who_kept_an_account_before_is_known() {
        let mut swarms = Swarms::new(NodeKey([1; 32]));
        swarms.take(&list(&[(1, 100), (2, 200)])).unwrap();
        assert!(!swarms.kept_before(&NodeKey([2; 32]), &account(200)), "that is now, not before");
        swarms.take(&list(&[(1, 100), (2, 100)])).unwrap();
        swarms.take(&list(&[(1, 100), (2, 100), (3, 100)])).unwrap();
        assert!(swarms.kept_before(&NodeKey([2; 32]), &account(200)), "a newcomer moves nobody");
        assert!(!swarms.kept_before(&NodeKey([2; 32]), &account(100)));
        assert!(!swarms.kept_before(&NodeKey([3; 32]), &account(200)));
    }

    #[test]
    fn a_client_is_told_who_keeps_its_account() {
        let mut swarms = Swarms::new(NodeKey([1; 32]));
        swarms.take(&list(&[(0, 0xabc)])).unwrap();
        let said = String::from_utf8(Value::dict(swarms.described(&account(1))).write(Form::Json)).unwrap();
        for part in [
            r#""address":"onyebyryonyebyryonyebyryonyebyryonyebyryonyebyryonyy.snode""#,
            r#""ip":"10.0.0.1","port":"22021","port_https":22021,"port_omq":22020,"port_quic":22020"#,
            &format!(r#""pubkey_ed25519":"{}""#, "00".repeat(32)),
            &format!(r#""pubkey_legacy":"{}""#, "80".repeat(32)),
            &format!(r#""pubkey_x25519":"{}""#, "40".repeat(32)),
            r#""swarm":"abc""#,
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn no_swarm_is_said_as_none() {
        let said = Value::dict(Swarms::new(NodeKey([1; 32])).described(&account(1))).write(Form::Json);
        assert_eq!(said, br#"{"snodes":[],"swarm":"ffffffffffffffff"}"#);
    }
}
