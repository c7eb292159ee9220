//! A request for a subscription: read, and checked, in the order clients know from the storage server, so that whoever
//! made two mistakes hears of the same one first. Neighbours: `push` (keeps what is asked for).

use super::{Conn, Desk, NAMESPACES_MAX, Push};
use crate::account::{Access, Account, Namespace, Proof, Token, auth};
use crate::bt;
use crate::swarm::Swarms;
use crate::value::Value;

/// How old a signature may be, and how far ahead of our clock, in seconds.
const AGE_MAX: u64 = 14 * 24 * 60 * 60;
/// See [`AGE_MAX`].
const AHEAD_MAX: u64 = 24 * 60 * 60;

/// Why there is no subscription: the number clients know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Something is missing or of the wrong kind, or there is no room.
    Arguments = 1,
    /// The key, or the token, is none.
    Pubkey = 2,
    /// The boxes are not in order.
    Namespaces = 3,
    /// The signature is too old, or of the future.
    Timestamp = 4,
    /// The signature does not open the account.
    Signature = 5,
    /// The account is kept elsewhere.
    Swarm = 6,
}

/// A refusal and what is said of it.
#[derive(Debug)]
pub struct Refused {
    entries: Vec<(&'static str, Value)>,
}

impl Refused {
    pub fn new(refusal: Refusal, error: impl Into<String>) -> Refused {
        Refused { entries: vec![("errcode", (refusal as u16).into()), ("error", error.into().into())] }
    }

    pub fn args(error: &str) -> Refused {
        Refused::new(Refusal::Arguments, format!("Invalid arguments: {error}"))
    }

    /// The account is another swarm's: whose, and who that is.
    pub fn elsewhere(account: &Account, swarms: &Swarms) -> Refused {
        let mut refused = Refused::new(Refusal::Swarm, "This account is kept by another swarm");
        refused.entries.extend(swarms.described(&account.0));
        refused
    }

    /// As an answer.
    pub fn said(&self) -> Value {
        Value::dict(self.entries.iter().cloned())
    }

    /// As the end of a subscription.
    pub fn ended(&self, conn: Conn, account: &Account) -> Push {
        let whose = ("@", Value::Bytes(account.0.to_vec()));
        let body = bt::write(&Value::dict(self.entries.iter().cloned().chain([whose])));
        Push { conn, command: "monitor_ended", body: body.into() }
    }
}

/// What is asked for.
pub struct Request {
    /// Whose messages; a Session id is made of the key that was given.
    pub account: Account,
    /// Which boxes, ascending.
    pub namespaces: Vec<Namespace>,
    /// Whether the messages themselves are pushed, too.
    pub data: bool,
    /// Who asks, if it is not the owner.
    pub token: Option<Token>,
    proof: Proof,
    time: i64,
}

impl Request {
    /// Reads one.
    pub fn read(request: &Value) -> Result<Request, Refused> {
        let session = bytes(request, "P")?;
        let session =
            match session {
                Some(key) => Some(key.try_into().map_err(|_| {
                    Refused::new(Refusal::Pubkey, "Provided P= Session Ed25519 pubkey must be 32 bytes")
                })?),
                None => None,
            };
        let token = token(request)?;
        let data = match request.field("d") {
            None => false,
            Some(Value::Int(flag @ (0 | 1))) => *flag == 1,
            Some(_) => return Err(Refused::args("d= must be 0 or 1")),
        };
        let namespaces = namespaces(request)?;
        let account = match (bytes(request, "p")?, session) {
            (Some(_), Some(_)) => return Err(Refused::args("Cannot provide both p= and P= pubkey values")),
            (None, None) => return Err(Refused::args("Either p= or P= must be given")),
            (Some(id), None) => Some(Account(
                id.try_into().map_err(|_| Refused::new(Refusal::Pubkey, "Provided p= pubkey must be 33 bytes"))?,
            )),
            (None, Some(_)) => None,
        };
        let signature = bytes(request, "s")?.ok_or_else(|| Refused::args("required signature is missing"))?;
        let signature = signature
            .try_into()
            .map_err(|_| Refused::new(Refusal::Signature, "Provided s= signature must be 64 bytes"))?;
        let time = match request.field("t") {
            None => return Err(Refused::args("required signature timestamp is missing")),
            Some(Value::Int(time)) => i64::try_from(*time).map_err(|_| Refused::args("t= must be seconds"))?,
            Some(_) => return Err(Refused::args("t= must be seconds")),
        };
        let account = match (account, &session) {
            (Some(account), _) => account,
            // Only now, so that the other mistakes are met first.
            (None, Some(key)) => session_id(key).unwrap_or(Account::new(Account::SESSION, [0; 32])),
            (None, None) => return Err(Refused::args("Either p= or P= must be given")),
        };
        let proof = Proof { ed25519: session, signature, token };
        Ok(Request { account, namespaces, data, token: token.map(|(token, _)| token), proof, time })
    }

    /// Whether who asks may have it, now and here.
    pub fn check(&self, desk: &Desk<'_>) -> Result<(), Refused> {
        let now = i64::try_from(desk.wall / 1000).unwrap_or(i64::MAX);
        let why = match self.time {
            time if time < now.saturating_sub_unsigned(AGE_MAX) => Some("too old"),
            time if time > now.saturating_add_unsigned(AHEAD_MAX) => Some("in the future"),
            _ => None,
        };
        if let Some(why) = why {
            let error = format!("Invalid t= signature timestamp: timestamp is {why}");
            return Err(Refused::new(Refusal::Timestamp, error));
        }
        if self.proof.ed25519.as_ref().is_some_and(|key| session_id(key).is_none()) {
            return Err(Refused::new(Refusal::Pubkey, "Invalid P= ed25519 public key"));
        }
        if desk.swarms.swarm_of(&self.account.0).is_some() && !desk.swarms.keeps(&self.account.0) {
            return Err(Refused::elsewhere(&self.account, desk.swarms));
        }
        self.check_signatures(desk)
    }

    fn check_signatures(&self, desk: &Desk<'_>) -> Result<(), Refused> {
        let bad = |error| Err(Refused::new(Refusal::Signature, error));
        if let Some((token, signature)) = &self.proof.token {
            let owner = auth::owner(&self.account, desk.network, self.proof.ed25519);
            if !owner.is_some_and(|owner| token.opens(&self.account, Access::READ, &owner, signature)) {
                return bad("Subaccount verification failed");
            }
            let outlives = self.namespaces.iter().all(|namespace| namespace.outlives_revocation());
            if !outlives && desk.store.is_revoked(&self.account, token).unwrap_or(true) {
                return bad("Subaccount verification failed: the token was revoked");
            }
        }
        let message = signed(&self.account, self.time, self.data, &self.namespaces);
        if !self.proof.holds(&self.account, desk.network, Access::READ, message.as_bytes(), |_| false) {
            return bad("Signature verification failed");
        }
        Ok(())
    }
}

/// What is signed to subscribe; `time` is in seconds since 1970.
pub fn signed(account: &Account, time: i64, data: bool, namespaces: &[Namespace]) -> String {
    let namespaces: Vec<String> = namespaces.iter().map(|namespace| namespace.0.to_string()).collect();
    format!("MONITOR{}{time}{}{}", account.hex(), u8::from(data), namespaces.join(","))
}

/// The Session id that is made of an Ed25519 key.
fn session_id(key: &[u8; 32]) -> Option<Account> {
    let key = ed25519_dalek::VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak())?;
    Some(Account::new(Account::SESSION, key.to_montgomery().to_bytes()))
}

fn bytes<'a>(request: &'a Value, name: &str) -> Result<Option<&'a [u8]>, Refused> {
    match request.field(name) {
        None => Ok(None),
        Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
        Some(_) => Err(Refused::args(&format!("{name}= must be a string"))),
    }
}

fn token(request: &Value) -> Result<Option<(Token, [u8; 64])>, Refused> {
    let (signature, token) = match (bytes(request, "S")?, bytes(request, "T")?) {
        (None, None) => return Ok(None),
        (Some(signature), Some(token)) => (signature, token),
        _ => return Err(Refused::args("S= and T= must be given together")),
    };
    let signature = signature
        .try_into()
        .map_err(|_| Refused::new(Refusal::Pubkey, "Provided S subaccount signature must be 64 bytes"))?;
    let token =
        token.try_into().map_err(|_| Refused::new(Refusal::Pubkey, "Provided T subaccount token must be 36 bytes"))?;
    Ok(Some((Token(token), signature)))
}

fn namespaces(request: &Value) -> Result<Vec<Namespace>, Refused> {
    let bad = |error: &str| Refused::new(Refusal::Namespaces, format!("Invalid n= namespace list: {error}"));
    let list = match request.field("n") {
        Some(Value::List(list)) if !list.is_empty() => list,
        _ => return Err(Refused::args("n= must be a list of namespaces")),
    };
    if list.len() > NAMESPACES_MAX {
        return Err(bad("too many namespaces"));
    }
    let mut namespaces: Vec<Namespace> = Vec::with_capacity(list.len());
    for value in list {
        let Value::Int(number) = value else { return Err(Refused::args("n= must be a list of namespaces")) };
        let namespace = i16::try_from(*number).map_err(|_| Refused::args("n= namespace is out of range"))?;
        if namespaces.last().is_some_and(|last| last.0 >= namespace) {
            return Err(bad("namespaces must be ascending"));
        }
        namespaces.push(Namespace(namespace));
    }
    Ok(namespaces)
}
