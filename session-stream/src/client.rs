//! A client: finds an account's swarm, stores and retrieves, and is told of messages as they come. It speaks QUIC to the
//! nodes, whether the host reaches them directly or, by their `.snode` names, through the router; or it sends onion
//! requests over HTTPS. Neighbours: `quic` and `http` (the sockets), `serve` (the other end).
//!
//! [`owner`] signs, [`link`] is a connection to one node, [`watch`] a subscription that stays, [`onion`] the way without
//! a router.

pub mod link;
pub mod onion;
pub mod owner;
pub mod watch;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use quinn::Endpoint;
use serde_json::{Value as Json, json};

pub use link::Link;
pub use onion::OnionWay;
pub use owner::Owner;
pub use watch::{Message, Watch};

/// How long a call may take.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A node, and how to reach it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// Its Ed25519 key, which it must prove.
    pub key: [u8; 32],
    /// A name or an address; names are resolved by the host.
    pub host: String,
    /// UDP.
    pub port: u16,
}

/// How members of a swarm are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// At their public addresses.
    Address,
    /// By their `.snode` names, which the host's resolver must know: through the router.
    Router,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node could be reached; why the last one could not.
    #[error("no node could be reached: {0}")]
    Unreachable(String),
    /// A node says no, with HTTP's status.
    #[error("{status}: {words}")]
    Refused {
        /// As HTTP's.
        status: u16,
        /// A sentence.
        words: String,
        /// What it says besides, if it does.
        body: Json,
    },
    /// A node's answer makes no sense.
    #[error("the node's answer makes no sense: {0}")]
    Senseless(&'static str),
}

/// A message that was stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its name.
    pub hash: String,
    /// How many members of the swarm have it.
    pub members: usize,
}

/// A part of a mailbox.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// In the order in which they were stored.
    pub messages: Vec<Message>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// A client of the storage network; clones share everything.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    seeds: Vec<Target>,
    route: Route,
    /// What is known of swarms, by account.
    swarms: std::sync::Mutex<BTreeMap<[u8; 33], Vec<Target>>>,
    links: tokio::sync::Mutex<BTreeMap<[u8; 32], Arc<Link>>>,
}

/// Swarms that are remembered; the rest is asked for again.
const SWARMS_MAX: usize = 1024;

impl Client {
    /// A client that begins by asking `seeds` who is in which swarm.
    ///
    /// # Errors
    /// The host gives no UDP socket.
    pub fn new(seeds: Vec<Target>, route: Route) -> io::Result<Client> {
        let endpoint = crate::quic::endpoint(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), None)?;
        let (swarms, links) = (std::sync::Mutex::default(), tokio::sync::Mutex::default());
        Ok(Client(Arc::new(Shared { endpoint, seeds, route, swarms, links })))
    }

    /// The members of an account's swarm.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn swarm(&self, account: &[u8; 33]) -> Result<Vec<Target>, ClientError> {
        if let Some(known) = self.known(account) {
            return Ok(known);
        }
        let asked = self.ask_any(&self.0.seeds, "get_swarm", &json!({"pubkey": HEXLOWER.encode(account)})).await?;
        self.learn(account, &asked).ok_or(ClientError::Senseless("the swarm has no members"))
    }

    /// Stores a message in an owner's own mailbox, or, as anybody may, in another's public inbox.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn store(
        &self,
        to: &Recipient<'_>,
        namespace: i16,
        data: &[u8],
        ttl: Duration,
    ) -> Result<Stored, ClientError> {
        let timestamp = wall();
        let mut params = json!({
            "pubkey": HEXLOWER.encode(&to.account()), "namespace": namespace, "timestamp": timestamp,
            "ttl": u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX), "data": BASE64.encode(data),
        });
        if let Recipient::Owner(owner) = to {
            owner.sign_into(&mut params, &format!("store{}{timestamp}", signed(namespace)));
        }
        let answer = self.ask(&to.account(), "store", &params).await?;
        let hash = answer["hash"].as_str().ok_or(ClientError::Senseless("no hash"))?.to_owned();
        let members = answer["swarm"]
            .as_object()
            .map_or(0, |swarm| swarm.values().filter(|member| member.get("failed").is_none()).count());
        Ok(Stored { hash, members })
    }

    /// What is in a namespace of the owner's mailbox, behind the message named `after`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retrieve(&self, owner: &Owner, namespace: i16, after: Option<&str>) -> Result<Page, ClientError> {
        let timestamp = wall();
        let mut params = json!({
            "pubkey": owner.account().hex(), "namespace": namespace, "timestamp": timestamp,
            "last_hash": after.unwrap_or_default(),
        });
        owner.sign_into(&mut params, &format!("retrieve{}{timestamp}", signed(namespace)));
        let answer = self.ask(&owner.account().0, "retrieve", &params).await?;
        let messages = answer["messages"].as_array().ok_or(ClientError::Senseless("no messages"))?;
        let read = |message: &Json| {
            Some(Message {
                namespace,
                hash: message["hash"].as_str()?.to_owned(),
                timestamp: message["timestamp"].as_u64()?,
                expiry: message["expiration"].as_u64()?,
                data: BASE64.decode(message["data"].as_str()?.as_bytes()).ok()?,
            })
        };
        let messages = messages.iter().map(read).collect::<Option<_>>();
        let messages = messages.ok_or(ClientError::Senseless("a message without all its fields"))?;
        Ok(Page { messages, more: answer["more"] == true })
    }

    /// Everything behind the message named `after`, page by page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retrieve_all(
        &self,
        owner: &Owner,
        namespace: i16,
        after: Option<&str>,
    ) -> Result<Vec<Message>, ClientError> {
        let mut all: Vec<Message> = Vec::new();
        loop {
            let after = all.last().map(|message| message.hash.clone()).or(after.map(str::to_owned));
            let page = self.retrieve(owner, namespace, after.as_deref()).await?;
            let end = !page.more || page.messages.is_empty();
            all.extend(page.messages);
            if end {
                return Ok(all);
            }
        }
    }

    /// Is told of every message in these namespaces, those that come while no node is connected included.
    pub fn watch(&self, owner: &Arc<Owner>, namespaces: &[i16]) -> Watch {
        watch::start(self.clone(), owner.clone(), namespaces)
    }

    /// Calls any method at a member of the account's swarm; one that says it is another swarm's is believed, once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ask(&self, account: &[u8; 33], method: &str, params: &Json) -> Result<Json, ClientError> {
        let members = self.swarm(account).await?;
        match self.ask_any(&members, method, params).await {
            Err(ClientError::Refused { status: 421, body, .. }) => {
                let members = self.learn(account, &body);
                let members = members.ok_or(ClientError::Senseless("the account is elsewhere, but nobody is there"))?;
                self.ask_any(&members, method, params).await
            }
            Err(error @ ClientError::Unreachable(_)) => {
                // The swarm may have changed altogether: ask anew next time.
                self.forget(account);
                Err(error)
            }
            answered => answered,
        }
    }

    /// Asks one node after the other, beginning anywhere, until one answers.
    async fn ask_any(&self, nodes: &[Target], method: &str, params: &Json) -> Result<Json, ClientError> {
        let mut last = ClientError::Unreachable("there is none to ask".into());
        let mut first = [0; 4];
        let _ = getrandom::fill(&mut first); // without chance it is always the same one
        let begin = usize::try_from(u32::from_le_bytes(first)).unwrap_or(0) % nodes.len().max(1);
        for node in nodes[begin.min(nodes.len())..].iter().chain(&nodes[..begin.min(nodes.len())]) {
            match self.ask_one(node, method, params).await {
                Err(error @ ClientError::Unreachable(_)) => last = error,
                Err(error @ ClientError::Refused { status: 500.., .. }) => last = error,
                answered => return answered,
            }
        }
        Err(last)
    }

    async fn ask_one(&self, node: &Target, method: &str, params: &Json) -> Result<Json, ClientError> {
        self.link(node).await?.call(method, params).await
    }

    /// The connection to a node, made if there is none.
    async fn link(&self, node: &Target) -> Result<Arc<Link>, ClientError> {
        let alive = |links: &BTreeMap<[u8; 32], Arc<Link>>| links.get(&node.key).filter(|link| link.lives()).cloned();
        if let Some(link) = alive(&*self.0.links.lock().await) {
            return Ok(link);
        }
        let link = Arc::new(Link::connect(&self.0.endpoint, node).await?);
        let mut links = self.0.links.lock().await;
        links.retain(|_, link| link.lives());
        Ok(alive(&links).unwrap_or_else(|| {
            links.insert(node.key, link.clone());
            link
        }))
    }

    fn known(&self, account: &[u8; 33]) -> Option<Vec<Target>> {
        self.0.swarms.lock().unwrap_or_else(PoisonError::into_inner).get(account).cloned()
    }

    /// Takes in what a node says of a swarm; nothing if it says nothing.
    fn learn(&self, account: &[u8; 33], said: &Json) -> Option<Vec<Target>> {
        let members: Vec<Target> =
            said["snodes"].as_array()?.iter().filter_map(|snode| target(snode, self.0.route)).collect();
        if members.is_empty() {
            return None;
        }
        let mut swarms = self.0.swarms.lock().unwrap_or_else(PoisonError::into_inner);
        if swarms.len() >= SWARMS_MAX {
            swarms.pop_first();
        }
        swarms.insert(*account, members.clone());
        Some(members)
    }

    fn forget(&self, account: &[u8; 33]) {
        self.0.swarms.lock().unwrap_or_else(PoisonError::into_inner).remove(account);
    }
}

/// Whose mailbox a message goes to.
#[derive(Clone, Copy)]
pub enum Recipient<'a> {
    /// Our own: signed.
    Owner(&'a Owner),
    /// Anybody's public inbox.
    Anybody([u8; 33]),
}

impl Recipient<'_> {
    fn account(&self) -> [u8; 33] {
        match self {
            Recipient::Owner(owner) => owner.account().0,
            Recipient::Anybody(account) => *account,
        }
    }
}

/// A member as `get_swarm` describes it.
fn target(snode: &Json, route: Route) -> Option<Target> {
    let key = HEXLOWER_PERMISSIVE.decode(snode["pubkey_ed25519"].as_str()?.as_bytes()).ok()?.try_into().ok()?;
    let number = |name: &str| match &snode[name] {
        Json::String(text) => text.parse().ok(),
        number => number.as_u64().and_then(|number| u16::try_from(number).ok()),
    };
    let port = number("port_quic").or_else(|| number("port_omq"))?;
    let host = match route {
        Route::Address => &snode["ip"],
        Route::Router => &snode["address"],
    };
    Some(Target { key, host: host.as_str()?.to_owned(), port })
}

/// A namespace in a signed text: the first one is not written.
fn signed(namespace: i16) -> String {
    if namespace == 0 { String::new() } else { namespace.to_string() }
}

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods)] // a client asks its host what time it is
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
