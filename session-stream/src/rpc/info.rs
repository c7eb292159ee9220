//! What a node says of itself, of the network and of the registry. Neighbours: `swarm` (knows the nodes).

use super::fields::{Fields, Read};
use super::{Desk, Reply, VERSION};
use crate::account::Account;
use crate::value::Value;

/// `info`.
pub fn info(desk: &Desk<'_>) -> Reply {
    let version = Value::List(VERSION.map(Value::from).to_vec());
    let said = [("version", version), ("timestamp", desk.now.into())];
    Reply::dict(said.into_iter().chain(desk.common()))
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
    Reply::dict(desk.swarms.described(&account.0).into_iter().chain(desk.common()))
}

/// `oxend_request`: what is asked of the registry.
pub struct Registry {}
