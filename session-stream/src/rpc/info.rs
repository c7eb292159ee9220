//! What a node says of itself, of the network and of the registry. Neighbours: `swarm` (knows the nodes).

use data_encoding::HEXLOWER;

use super::fields::{Bad, Fields, Read, required};
use super::{Desk, Reply, Said, VERSION};
use crate::account::Account;
use crate::swarm::Node;
use crate::value::{Form, Value};

/// `info`.
pub fn info(desk: &Desk<'_>) -> Reply {
    let version = Value::List(VERSION.map(Value::from).to_vec());
    Reply::dict(desk.with_common([("version", version), ("timestamp", desk.now.into())]))
}

/// Reads whose swarm is asked for.
///
/// # Errors
/// What is wrong with the parameters.
pub fn swarm(fields: &Fields<'_>) -> Read<Account> {
    fields.account_or_old("Pubkey must be 66 hex digits/33 bytes long")
}

/// `get_swarm`.
pub fn whose(account: &Account, desk: &Desk<'_>) -> Reply {
    Reply::dict(desk.with_common(desk.swarms.described(&account.0)))
}

/// `active_nodes_bin`: 51 bytes for each node that serves.
pub fn nodes(desk: &Desk<'_>) -> Reply {
    let mut bytes = Vec::new();
    for node in desk.swarms.nodes() {
        bytes.extend(node.key.0);
        bytes.extend(node.swarm.0.to_be_bytes());
        bytes.extend(node.ip.octets());
        bytes.extend(node.https.to_be_bytes());
        bytes.extend(node.quic.to_be_bytes());
        bytes.extend(node.version);
    }
    Reply { status: 200, body: Said::Raw(bytes.into()) }
}

/// `oxend_request`: what is asked of the registry.
pub enum Registry {
    /// Its nodes: these of their fields, all if none are named, and so many.
    Nodes(Vec<String>, usize),
    /// A name, which we cannot look up.
    Name,
}

impl Registry {
    /// Reads the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Fields<'_>) -> Read<Registry> {
        match required("endpoint", fields.text("endpoint")?)? {
            "ons_resolve" => return Ok(Registry::Name),
            "get_service_nodes" => {}
            other => return Err(Bad(format!("Invalid oxend endpoint '{other}'"))),
        }
        let params = match (fields.form, fields.value("params")) {
            (_, None) => return Ok(Registry::Nodes(Vec::new(), usize::MAX)),
            (Form::Json, Some(params)) => params.clone(),
            (Form::Bt, Some(_)) => {
                let text = fields.raw("params")?.unwrap_or_default();
                Value::read(Form::Json, text).map_err(|_| "oxend_request params field does not contain valid json")?
            }
        };
        let wanted = match params.field("fields") {
            Some(Value::Dict(dict)) => {
                dict.iter().filter(|(_, value)| **value != Value::Bool(false)).map(|(name, _)| name.clone()).collect()
            }
            Some(Value::List(list)) => list.iter().filter_map(|name| text(name).map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        let limit = match params.field("limit") {
            Some(Value::Int(limit @ 1..)) => usize::try_from(*limit).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        Ok(Registry::Nodes(wanted, limit))
    }

    /// What the registry said last, as far as we keep it.
    pub fn answer(&self, desk: &Desk<'_>) -> Reply {
        let Registry::Nodes(wanted, limit) = self else {
            return Reply::text(400, "ons_resolve is not answered here: this node knows no names");
        };
        let all = wanted.is_empty() || wanted.iter().any(|name| name == "all");
        let wanted = |name: &str| all || wanted.iter().any(|wanted| wanted == name);
        let states = desk
            .swarms
            .nodes()
            .take(*limit)
            .map(|node| Value::dict(state(node).into_iter().filter(|(name, _)| wanted(name))));
        let (hard, soft) = desk.swarms.hard_fork();
        let result = Value::dict([
            ("service_node_states", Value::List(states.collect())),
            ("height", desk.swarms.height().into()),
            ("block_hash", desk.swarms.block_hash().into()),
            ("hardfork", hard.into()),
            ("snode_revision", soft.into()),
            ("status", "OK".into()),
        ]);
        Reply::dict(desk.with_common([("result", result)]))
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// A node as the registry describes it.
fn state(node: &Node) -> [(&'static str, Value); 9] {
    [
        ("service_node_pubkey", HEXLOWER.encode(&node.legacy).into()),
        ("pubkey_ed25519", HEXLOWER.encode(&node.key.0).into()),
        ("pubkey_x25519", HEXLOWER.encode(&node.x25519).into()),
        ("public_ip", node.ip.to_string().into()),
        ("storage_port", node.https.into()),
        ("storage_lmq_port", node.quic.into()),
        ("swarm_id", node.swarm.0.into()),
        ("storage_server_version", Value::List(node.version.map(|part| u16::from(part).into()).to_vec())),
        ("funded", true.into()),
    ]
}
