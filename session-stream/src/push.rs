//! Who is told when a message comes: clients subscribe to boxes of an account over a connection that can be pushed to, and
//! hear of every new message at once. Neighbours: `account::auth` (whether they may), `swarm` (whether the account is
//! ours), `node` (stores, and pushes what is said here).
//!
//! There is one subscription for each connection and account, so that each message is told once on it, whatever was
//! asked for how often. Subscriptions live on the connection: they end with it, after [`LIFE`] unless renewed, when the
//! account moves to another swarm, and when the token that opened them is revoked.

mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::account::{Account, Namespace, Network, Token};
use crate::bt;
use crate::store::{Message, Store};
use crate::swarm::Swarms;
use crate::value::Value;
pub use request::{Refusal, signed};
use request::{Refused, Request};

/// How long a subscription lives unless it is renewed.
pub const LIFE: Duration = Duration::from_secs(65 * 60);

/// Subscriptions there can be; from one address; on one connection.
pub const SUBSCRIPTIONS_MAX: usize = 50_000;
/// See [`SUBSCRIPTIONS_MAX`].
pub const SUBSCRIPTIONS_MAX_ADDRESS: usize = 20_000;
/// See [`SUBSCRIPTIONS_MAX`].
pub const SUBSCRIPTIONS_MAX_CONN: usize = 10_000;

/// Boxes of an account that one connection can subscribe to.
pub const NAMESPACES_MAX: usize = 256;

/// Tokens that can have opened one subscription.
const TOKENS_MAX: usize = 8;

/// How often those that were not renewed are thrown away; they are told nothing before.
const SWEEP: Duration = Duration::from_secs(60);

/// A connection that can be pushed to. The driver numbers them and never uses a number again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conn(pub u64);

/// Something to push.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Push {
    /// To whom.
    pub conn: Conn,
    /// `notify` or `monitor_ended`.
    pub command: &'static str,
    /// A bt dictionary.
    pub body: Bytes,
}

/// What a request for subscriptions is judged by.
pub struct Desk<'a> {
    /// Which tokens are revoked.
    pub store: &'a Store,
    /// Who keeps which account.
    pub swarms: &'a Swarms,
    /// Which network's accounts.
    pub network: Network,
    /// The monotonic clock.
    pub now: Duration,
    /// Milliseconds since 1970.
    pub wall: u64,
}

/// The subscriptions.
#[derive(Default)]
pub struct Subscriptions {
    accounts: BTreeMap<Account, BTreeMap<Conn, Subscription>>,
    conns: BTreeMap<Conn, (IpAddr, BTreeSet<Account>)>,
    addresses: BTreeMap<IpAddr, usize>,
    count: usize,
    sweep_at: Duration,
}

struct Subscription {
    /// Sorted.
    namespaces: Box<[Namespace]>,
    data: bool,
    until: Duration,
    /// Who opened it; nobody if the owner did.
    tokens: Vec<Token>,
}

impl Subscriptions {
    /// Subscribes: a request, or a list of them, in bt; what is answered. `admits` is asked before each further request of
    /// a list: each costs as much as a call.
    pub fn monitor(
        &mut self,
        conn: Conn,
        ip: IpAddr,
        body: &[u8],
        desk: &Desk<'_>,
        mut admits: impl FnMut() -> bool,
    ) -> Bytes {
        let answer = match bt::read(body) {
            Ok(request @ Value::Dict(_)) => self.one(conn, ip, &request, desk),
            Ok(Value::List(requests)) if requests.iter().all(|request| matches!(request, Value::Dict(_))) => {
                let one = |(at, request)| match at == 0 || admits() {
                    true => self.one(conn, ip, request, desk),
                    false => Refused::args("Too many requests, try again later").said(),
                };
                Value::List(requests.iter().enumerate().map(one).collect())
            }
            Ok(Value::List(_)) => Refused::args("Failed to parse monitor.messages data value").said(),
            _ if matches!(body, [b'd' | b'l', .., b'e']) => {
                Refused::args("Failed to parse monitor.messages data value").said()
            }
            _ => Refused::args("monitor request takes a single bencoded dict or list parameter").said(),
        };
        bt::write(&answer).into()
    }

    fn one(&mut self, conn: Conn, ip: IpAddr, request: &Value, desk: &Desk<'_>) -> Value {
        let done = Request::read(request).and_then(|request| {
            request.check(desk)?;
            self.subscribe(conn, ip, request, desk.now)
        });
        match done {
            Ok(()) => Value::dict([("success", 1u64.into())]),
            Err(refused) => refused.said(),
        }
    }

    /// Adds a subscription, or adds to the one there is.
    fn subscribe(&mut self, conn: Conn, ip: IpAddr, request: Request, now: Duration) -> Result<(), Refused> {
        let Request { account, namespaces, data, token, .. } = request;
        let until = now + LIFE;
        if let Some(there) = self.accounts.get_mut(&account).and_then(|conns| conns.get_mut(&conn)) {
            let both: BTreeSet<Namespace> = there.namespaces.iter().copied().chain(namespaces).collect();
            if both.len() > NAMESPACES_MAX {
                return Err(Refused::new(Refusal::Namespaces, "Invalid n= namespace list: too many namespaces"));
            }
            there.namespaces = both.into_iter().collect();
            there.data |= data;
            there.until = until;
            match token {
                None => there.tokens.clear(),
                Some(token) if !there.tokens.is_empty() && !there.tokens.contains(&token) => {
                    there.tokens.truncate(TOKENS_MAX - 1);
                    there.tokens.insert(0, token);
                }
                Some(_) => {}
            }
            return Ok(());
        }
        let on_conn = self.conns.get(&conn).map_or(0, |(_, accounts)| accounts.len());
        let from_address = self.addresses.get(&ip).copied().unwrap_or(0);
        if self.count >= SUBSCRIPTIONS_MAX
            || on_conn >= SUBSCRIPTIONS_MAX_CONN
            || from_address >= SUBSCRIPTIONS_MAX_ADDRESS
        {
            return Err(Refused::args("Too many subscriptions"));
        }
        let tokens = token.into_iter().collect();
        let new = Subscription { namespaces: namespaces.into(), data, until, tokens };
        self.accounts.entry(account).or_default().insert(conn, new);
        self.conns.entry(conn).or_insert((ip, BTreeSet::new())).1.insert(account);
        *self.addresses.entry(ip).or_default() += 1;
        self.count += 1;
        Ok(())
    }

    /// A message is new here: who is told. Whose token was revoked since is told that instead.
    pub fn stored(&mut self, message: &Message, desk: &Desk<'_>) -> Vec<Push> {
        let Some(conns) = self.accounts.get(&message.account) else { return Vec::new() };
        let live = |subscription: &&Subscription| {
            subscription.until >= desk.now && subscription.namespaces.binary_search(&message.namespace).is_ok()
        };
        let (mut bare, mut whole) = (None, None);
        let (mut pushes, mut ended) = (Vec::new(), Vec::new());
        for (conn, subscription) in conns.iter().filter(|(_, subscription)| live(subscription)) {
            if !subscription.may(message.namespace, &message.account, desk.store) {
                ended.push(*conn);
                continue;
            }
            let body = if subscription.data { &mut whole } else { &mut bare };
            let body = body.get_or_insert_with(|| notification(message, subscription.data));
            pushes.push(Push { conn: *conn, command: "notify", body: body.clone() });
        }
        for conn in ended {
            self.drop_one(conn, &message.account);
            let refused = Refused::new(Refusal::Signature, "Subaccount token was revoked");
            pushes.push(refused.ended(conn, &message.account));
        }
        pushes
    }

    /// Who keeps what has changed: whoever watches an account that is not ours any more is told who has it now. While no
    /// swarm is known at all, nothing is changed.
    pub fn listed(&mut self, swarms: &Swarms) -> Vec<Push> {
        let lost = |account: &&Account| swarms.swarm_of(&account.0).is_some() && !swarms.keeps(&account.0);
        let lost: Vec<Account> = self.accounts.keys().filter(lost).copied().collect();
        let mut pushes = Vec::new();
        for account in lost {
            let refused = Refused::elsewhere(&account, swarms);
            let conns: Vec<Conn> = self.accounts.get(&account).into_iter().flatten().map(|(conn, _)| *conn).collect();
            for conn in conns {
                self.drop_one(conn, &account);
                pushes.push(refused.ended(conn, &account));
            }
        }
        pushes
    }

    /// A connection ended.
    pub fn closed(&mut self, conn: Conn) {
        let accounts = self.conns.get(&conn).map(|(_, accounts)| accounts.clone()).unwrap_or_default();
        for account in accounts {
            self.drop_one(conn, &account);
        }
    }

    /// Lets time pass: what was not renewed ends.
    pub fn pass(&mut self, now: Duration) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP;
        let over = |(account, conns): (&Account, &BTreeMap<Conn, Subscription>)| {
            let over = conns.iter().filter(|(_, subscription)| subscription.until < now);
            over.map(|(conn, _)| (*conn, *account)).collect::<Vec<_>>()
        };
        let over: Vec<(Conn, Account)> = self.accounts.iter().flat_map(over).collect();
        for (conn, account) in over {
            self.drop_one(conn, &account);
        }
    }

    /// When time matters next.
    pub fn next_wake(&self) -> Option<Duration> {
        (self.count > 0).then_some(self.sweep_at)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn drop_one(&mut self, conn: Conn, account: &Account) {
        let Some(conns) = self.accounts.get_mut(account) else { return };
        if conns.remove(&conn).is_none() {
            return;
        }
        if conns.is_empty() {
            self.accounts.remove(account);
        }
        self.count -= 1;
        let Some((ip, accounts)) = self.conns.get_mut(&conn) else { return };
        let ip = *ip;
        accounts.remove(account);
        if accounts.is_empty() {
            self.conns.remove(&conn);
        }
        if let Some(count) = self.addresses.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&ip);
            }
        }
    }
}

impl Subscription {
    /// Whether a message of this box may be told: the owner asked, or somebody whose token still counts there.
    fn may(&self, namespace: Namespace, account: &Account, store: &Store) -> bool {
        let counts = |token: &Token| !store.is_revoked(account, token).unwrap_or(true);
        self.tokens.is_empty() || namespace.outlives_revocation() || self.tokens.iter().any(counts)
    }
}

/// What subscribers are told of a message.
fn notification(message: &Message, data: bool) -> Bytes {
    let said = Value::dict([
        ("@", Value::Bytes(message.account.0.to_vec())),
        ("h", message.hash.as_str().into()),
        ("n", message.namespace.0.into()),
        ("t", message.timestamp.into()),
        ("z", message.expiry.into()),
        ("~", if data { Value::Bytes(message.data.clone()) } else { Value::Null }),
    ]);
    bt::write(&said).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
