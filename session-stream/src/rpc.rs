//! What a call does. Neighbours: `account` and `store` (what it does it with), `node` (asks the swarm's other members
//! and answers).
//!
//! A call is read from its parameters ([`Call::read`]), whatever their notation, and refused then if they make no sense.
//! What changes a mailbox is done by every member of its swarm ([`Everywhere`]), what only looks is done here ([`Here`]);
//! `batch`, `sequence` and `ifelse` hold other calls and are taken apart by `node`. [`fields`] reads parameters, one file
//! each holds the methods that belong together, [`limit`] says who calls too often.

pub mod batch;
pub mod delete;
pub mod expire;
pub mod fields;
pub mod info;
pub mod limit;
pub mod retrieve;
pub mod revoke;
pub mod store;

use std::collections::BTreeMap;

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};

use crate::account::{Access, Account, Namespace, Network, Proof, Scope};
use crate::store::{Error, Message, Store};
use crate::swarm::Swarms;
use crate::value::{Form, Value};
use fields::Fields;

/// The storage server whose behaviour we keep: clients ask for it before they use what newer ones do.
pub const VERSION: [u16; 3] = [2, 11, 0];

/// How far a signature's time may be from ours, in milliseconds.
const TOLERANCE: u64 = 60_000;

/// The same when another member has checked it before us: what the way took is added.
const TOLERANCE_FORWARDED: u64 = 70_000;

/// Messages that can be looked for with the work of one call.
const NAMES: usize = 64;

/// A call whose parameters make sense.
pub enum Call {
    /// Changes a mailbox: every member of its swarm does it.
    Everywhere(Box<dyn Everywhere>),
    /// Looks into a mailbox: done here.
    Here(Box<dyn Here>),
    /// Version and time.
    Info,
    /// Who keeps this account.
    Swarm(Account),
    /// What the registry says.
    Registry(info::Registry),
    /// Every node, in few bytes.
    Nodes,
    /// All of these at once.
    Batch(Vec<Call>),
    /// These one after another, while they succeed.
    Sequence(Vec<Call>),
    /// One of two.
    Branch(Box<batch::Branch>),
}

/// A call that changes a mailbox.
pub trait Everywhere: Send {
    /// Its name between nodes.
    fn method(&self) -> &'static str;
    /// Whose mailbox.
    fn account(&self) -> &Account;
    /// Whether who calls may do it now.
    ///
    /// # Errors
    /// What it is told.
    fn admit(&self, desk: &Desk<'_>) -> Result<(), Reply>;
    /// Its parameters for the other members, which read bt.
    fn carried(&self) -> Value;
    /// Does it.
    ///
    /// # Errors
    /// The store cannot; nothing was done.
    fn run(&self, desk: &mut Desk<'_>) -> Result<Done, Error>;
    /// How many messages it names: each is looked for.
    fn names(&self) -> usize {
        0
    }
    /// Whether it is an error, to whom calls, that no member had anything to delete.
    fn must_delete(&self) -> bool {
        false
    }
}

/// What was done at one member.
#[derive(Default)]
pub struct Done {
    /// What this member says of it.
    pub entry: BTreeMap<String, Value>,
    /// What the answer says besides, at its top.
    pub top: BTreeMap<String, Value>,
    /// A message that was not there before: its subscribers are told.
    pub stored: Option<Message>,
}

impl Done {
    /// This member says so; what is nothing is not said.
    fn saying<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Done {
        let said = entries.into_iter().filter(|(_, value)| *value != Value::Null);
        Done { entry: said.map(|(name, value)| (name.to_owned(), value)).collect(), ..Done::default() }
    }
}

/// A call that looks into a mailbox.
pub trait Here: Send {
    /// Whose mailbox.
    fn account(&self) -> &Account;
    /// How many messages it names: each is looked for.
    fn names(&self) -> usize {
        0
    }
    /// Is content with one of so many parts of what an answer holds: as many look in one call.
    fn share(&mut self, _parts: usize) {}
    /// Looks.
    ///
    /// # Errors
    /// What who calls is told instead.
    fn look(&self, desk: &Desk<'_>) -> Result<BTreeMap<String, Value>, Reply>;
}

/// What a call is done with.
pub struct Desk<'a> {
    /// What is kept.
    pub store: &'a mut Store,
    /// Who keeps what.
    pub swarms: &'a Swarms,
    /// Our own key, which signs receipts.
    pub key: &'a SigningKey,
    /// Which network's accounts.
    pub network: Network,
    /// Milliseconds since 1970.
    pub now: u64,
    /// Whether another member has checked the call before us.
    pub forwarded: bool,
}

/// A status, as HTTP's, and a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// 200 if it was done.
    pub status: u16,
    /// What is said.
    pub body: Said,
}

/// A reply's body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// In the caller's form.
    Dict(Value),
    /// A sentence.
    Text(String),
    /// Bytes.
    Raw(Bytes),
}

impl Call {
    /// Reads the call of that name.
    ///
    /// # Errors
    /// What who calls is told: there is no such method, or what is wrong with the parameters.
    pub fn read(method: &str, params: &Value, form: Form, network: Network) -> Result<Call, Reply> {
        let fields = Fields::new(params, form, network)
            .ok_or_else(|| Reply::text(400, "invalid body: expected json or bt_dict"))?;
        match Call::known(method, &fields) {
            None => Err(Reply::text(400, format!("no method {method}"))),
            Some(call) => call.map_err(|bad| Reply::text(400, format!("invalid request: {}", bad.0))),
        }
    }

    /// How many plain calls it is as much work as.
    pub fn work(&self) -> usize {
        match self {
            Call::Everywhere(call) => 1 + call.names() / NAMES,
            Call::Here(call) => 1 + call.names() / NAMES,
            Call::Batch(calls) | Call::Sequence(calls) => calls.iter().map(Call::work).sum(),
            Call::Branch(branch) => branch.work(),
            Call::Info | Call::Swarm(_) | Call::Registry(_) | Call::Nodes => 1,
        }
    }

    /// Whether there is a method of that name.
    pub fn is_known(method: &str) -> bool {
        let nothing = Value::Dict(BTreeMap::new());
        Fields::new(&nothing, Form::Bt, Network::Main).is_some_and(|fields| Call::known(method, &fields).is_some())
    }

    /// The call of that name; nothing when there is none.
    pub(crate) fn known(method: &str, fields: &Fields<'_>) -> Option<Result<Call, fields::Bad>> {
        fn everywhere<T: Everywhere + 'static>(call: Result<T, fields::Bad>) -> Result<Call, fields::Bad> {
            call.map(|call| Call::Everywhere(Box::new(call)))
        }
        fn here<T: Here + 'static>(call: Result<T, fields::Bad>) -> Result<Call, fields::Bad> {
            call.map(|call| Call::Here(Box::new(call)))
        }
        Some(match method {
            "store" => everywhere(store::Put::read(fields)),
            "retrieve" => here(retrieve::Retrieve::read(fields)),
            "get_expiries" => here(retrieve::Expiries::read(fields)),
            "delete" => everywhere(delete::Delete::read(fields)),
            "delete_all" => everywhere(delete::Clear::all(fields)),
            "delete_before" => everywhere(delete::Clear::before(fields)),
            "expire" => everywhere(expire::Expire::read(fields)),
            "expire_all" => everywhere(expire::ExpireAll::read(fields)),
            "revoke_subaccount" => everywhere(revoke::Tokens::revoke(fields)),
            "unrevoke_subaccount" => everywhere(revoke::Tokens::unrevoke(fields)),
            "revoked_subaccounts" => here(revoke::Revoked::read(fields)),
            "batch" => batch::calls(fields).map(Call::Batch),
            "sequence" => batch::calls(fields).map(Call::Sequence),
            "ifelse" => batch::Branch::read(fields).map(|branch| Call::Branch(Box::new(branch))),
            "oxend_request" => info::Registry::read(fields).map(Call::Registry),
            "active_nodes_bin" => Ok(Call::Nodes),
            "info" => Ok(Call::Info),
            "get_swarm" | "get_snodes_for_pubkey" => info::swarm(fields).map(Call::Swarm),
            _ => return None,
        })
    }
}

impl Reply {
    /// A dictionary, done.
    pub fn dict(entries: impl IntoIterator<Item = (impl Into<String>, Value)>) -> Reply {
        Reply { status: 200, body: Said::Dict(Value::dict(entries)) }
    }

    /// A sentence.
    pub fn text(status: u16, text: impl Into<String>) -> Reply {
        Reply { status, body: Said::Text(text.into()) }
    }
}

impl Desk<'_> {
    /// Whether a signature made at `time` is new enough to count.
    fn is_now(&self, time: u64) -> bool {
        time.abs_diff(self.now) <= self.tolerance()
    }

    /// How far a signature's time may be from ours, in milliseconds.
    fn tolerance(&self) -> u64 {
        if self.forwarded { TOLERANCE_FORWARDED } else { TOLERANCE }
    }

    /// Whether the account, or whom it gave `access`, says `message`. What cannot be looked up counts as revoked.
    fn proven(&self, account: &Account, proof: &Proof, access: Access, message: &[u8]) -> bool {
        let revoked = |token: &_| self.store.is_revoked(account, token).unwrap_or(true);
        proof.holds(account, self.network, access, message, revoked)
    }

    /// Our signature over what we did.
    fn receipt(&self, done: &[u8]) -> Value {
        Value::Bytes(self.key.sign(done).to_bytes().to_vec())
    }

    /// What is said of messages that a sweeping call met, sorted by hash: a list of a box's, else a list for each box.
    /// The receipt is over `subject` and all hashes.
    fn affected(&self, name: &str, scope: Scope, met: Vec<(Namespace, String)>, subject: &str) -> Done {
        let hashes: String = met.iter().map(|(_, hash)| hash.as_str()).collect();
        let receipt = self.receipt([subject, &hashes].concat().as_bytes());
        let met = match scope {
            Scope::One(_) => Value::List(met.into_iter().map(|(_, hash)| hash.into()).collect()),
            Scope::All => {
                let mut boxes = BTreeMap::<String, Vec<Value>>::new();
                for (namespace, hash) in met {
                    boxes.entry(namespace.0.to_string()).or_default().push(hash.into());
                }
                Value::dict(boxes.into_iter().map(|(namespace, hashes)| (namespace, Value::List(hashes))))
            }
        };
        Done::saying([(name, met), ("signature", receipt)])
    }

    /// What most answers end with: our time and the network's hard fork.
    pub fn common(&self) -> [(&'static str, Value); 2] {
        let (hard, soft) = self.swarms.hard_fork();
        [("t", self.now.into()), ("hf", Value::List(vec![hard.into(), soft.into()]))]
    }

    /// An answer of these entries and the common ones.
    pub fn with_common(&self, said: impl IntoIterator<Item = (&'static str, Value)>) -> BTreeMap<String, Value> {
        said.into_iter().chain(self.common()).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What who asks the wrong swarm is told: the right one.
    pub fn misdirected(&self, account: &Account) -> Reply {
        let body = self.with_common(self.swarms.described(&account.0));
        Reply { status: 421, body: Said::Dict(Value::Dict(body)) }
    }
}
