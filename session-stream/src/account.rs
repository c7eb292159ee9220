//! Who may: accounts, the namespaces of their mailboxes, and the signatures that open them. Neighbours: `store` (what
//! is kept under an account), `swarm` (who keeps it), `rpc` (asks here before it does anything).
//!
//! [`id`] reads an account, [`namespace`] knows each namespace's rules, [`subaccount`] is the token an owner hands to
//! others, [`auth`] verifies a request, [`hash`] names a message.

pub mod auth;
pub mod hash;
pub mod id;
pub mod namespace;
pub mod subaccount;

pub use auth::Proof;
pub use id::{Account, Network};
pub use namespace::{Namespace, Scope};
pub use subaccount::{Access, Token};
