//! `retrieve` and `get_expiries`: looking into a mailbox. Neighbours: `store::messages` (pages through a box).

use std::collections::BTreeMap;

use super::fields::{Fields, Read, required};
use super::{Desk, Here, Reply};
use crate::account::{Access, Account, Namespace, Proof, hash};
use crate::store::Message;
use crate::value::Value;

/// Most bytes of messages in an answer, counted as JSON writes them.
pub const SIZE_MAX: usize = 7_800_000;

/// The part of [`SIZE_MAX`] who asks for no size is given.
const SHARE: i64 = -5;

/// A box, from where on, how much of it, and who may look.
pub struct Retrieve {
    account: Account,
    namespace: Namespace,
    signed: Option<(Proof, u64)>,
    after: Option<String>,
    count: Option<usize>,
    size: usize,
}

impl Retrieve {
    /// Reads the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Fields<'_>) -> Read<Retrieve> {
        let account = fields.account_or_old("Pubkey must be 66 hex digits (33 bytes) long")?;
        let namespace = fields.namespace("namespace")?;
        let timestamp = fields.time("timestamp")?;
        let shown = timestamp.is_some() || ["signature", "pubkey_ed25519"].iter().any(|n| fields.value(n).is_some());
        let signed = if shown || namespace.is_some_and(|namespace| !namespace.reads_freely()) {
            Some((fields.proof(&account)?, required("timestamp", timestamp)?))
        } else {
            None
        };
        let (after, old) = (fields.text("last_hash")?, fields.text("lastHash")?);
        if after.is_some() && old.is_some() {
            return Err("Cannot specify both 'last_hash' and 'lastHash'".into());
        }
        let after = after.or(old).filter(|hash| !hash.is_empty());
        match after {
            Some(text) if text.len() != hash::LEN => return Err("Invalid last_hash: expected base64 (43 chars)".into()),
            Some(text) if !hash::is_one(text.as_bytes()) => return Err("Invalid last_hash: not base64".into()),
            _ => {}
        }
        let (count, size) = limits(fields.integer("max_count")?, fields.integer("max_size")?);
        let namespace = namespace.unwrap_or_default();
        Ok(Retrieve { account, namespace, signed, after: after.map(str::to_owned), count, size })
    }
}

/// How many messages and bytes are wanted: 0 is no wish, a negative size is that part of the most there can be.
fn limits(count: Option<i64>, size: Option<i64>) -> (Option<usize>, usize) {
    let count = count.filter(|count| *count != 0);
    let size = size.filter(|size| *size != 0).or(if count.is_none() { Some(SHARE) } else { None });
    let size = match size {
        None => SIZE_MAX,
        Some(part @ ..0) => usize::try_from(part.unsigned_abs()).map_or(0, |part| SIZE_MAX / part),
        Some(size) => usize::try_from(size).unwrap_or(SIZE_MAX).min(SIZE_MAX),
    };
    (count.and_then(|count| usize::try_from(count).ok()), size)
}

impl Here for Retrieve {
    fn account(&self) -> &Account {
        &self.account
    }

    fn share(&mut self, parts: usize) {
        self.size = self.size.min(SIZE_MAX / parts);
    }

    fn look(&self, desk: &Desk<'_>) -> Result<BTreeMap<String, Value>, Reply> {
        self.admit(desk)?;
        let found =
            desk.store.look(&self.account, self.namespace, self.after.as_deref(), self.count, self.size, desk.now);
        let (messages, more) = found.map_err(|_| {
            let whose = self.account.hint();
            Reply::text(500, format!("Internal Server Error. Could not retrieve messages for {whose}"))
        })?;
        let messages = messages.into_iter().map(described).collect();
        Ok(desk.with_common([("messages", Value::List(messages)), ("more", more.into())]))
    }
}

impl Retrieve {
    fn admit(&self, desk: &Desk<'_>) -> Result<(), Reply> {
        let Some((proof, time)) = &self.signed else {
            let open = self.namespace.reads_freely();
            return if open { Ok(()) } else { Err(Reply::text(401, "retrieve: request signature required")) };
        };
        if !desk.is_now(*time) {
            return Err(Reply::text(406, "retrieve timestamp too far from current time"));
        }
        let message = format!("retrieve{}{time}", self.namespace.signed());
        let proven = if self.namespace.outlives_revocation() {
            proof.holds(&self.account, desk.network, Access::READ, message.as_bytes(), |_| false)
        } else {
            desk.proven(&self.account, proof, Access::READ, message.as_bytes())
        };
        if proven { Ok(()) } else { Err(Reply::text(401, "retrieve signature verification failed")) }
    }
}

fn described(message: Message) -> Value {
    Value::dict([
        ("hash", message.hash.into()),
        ("timestamp", message.timestamp.into()),
        ("expiration", message.expiry.into()),
        ("data", Value::Bytes(message.data)),
    ])
}

/// Some messages, and who may ask.
pub struct Expiries {
    account: Account,
    hashes: Vec<String>,
    proof: Proof,
    timestamp: u64,
}

impl Expiries {
    /// Reads the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Fields<'_>) -> Read<Expiries> {
        let account = fields.account()?;
        let proof = fields.proof(&account)?;
        let timestamp = required("timestamp", fields.time("timestamp")?)?;
        let hashes = required("messages", fields.strings("messages")?)?;
        if hashes.is_empty() {
            return Err("messages does not contain any message hashes".into());
        }
        let hashes = hashes.into_iter().map(|hash| String::from_utf8_lossy(hash).into_owned()).collect();
        Ok(Expiries { account, hashes, proof, timestamp })
    }
}

impl Here for Expiries {
    fn account(&self) -> &Account {
        &self.account
    }

    fn names(&self) -> usize {
        self.hashes.len()
    }

    fn look(&self, desk: &Desk<'_>) -> Result<BTreeMap<String, Value>, Reply> {
        if !desk.is_now(self.timestamp) {
            return Err(Reply::text(406, "get_expiries timestamp too far from current time"));
        }
        let message = format!("get_expiries{}{}", self.timestamp, self.hashes.concat());
        if !desk.proven(&self.account, &self.proof, Access::READ, message.as_bytes()) {
            return Err(Reply::text(401, "get_expiries signature verification failed"));
        }
        let expiries = desk.store.expiries(&self.account, &self.hashes, desk.now);
        let expiries = expiries.map_err(|_| Reply::text(500, "request failed"))?;
        Ok([("expiries".to_owned(), Value::dict(expiries.into_iter().map(|(hash, at)| (hash, at.into()))))].into())
    }
}
