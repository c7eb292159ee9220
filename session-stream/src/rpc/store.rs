//! `store`: a message is put into a box, at every member of the swarm. Neighbours: `store::messages` (keeps it), `push`
//! (tells its subscribers).

use super::fields::{self, Bad, Fields, Read, carried_proof, required};
use super::{Desk, Done, Everywhere, Reply};
use crate::account::{Access, Account, Namespace, Proof, hash};
use crate::store::{Error, Message, Stored};
use crate::value::{Form, Value};

/// Most bytes of a message.
pub const DATA_MAX: usize = 76_800;

/// How long a message may be kept, in milliseconds: at least, at most where everybody may put in, at most elsewhere.
pub const TTL_MIN: u64 = 10_000;
/// See [`TTL_MIN`].
pub const TTL_MAX_PUBLIC: u64 = 14 * DAY;
/// See [`TTL_MIN`].
pub const TTL_MAX: u64 = 30 * DAY;

const DAY: u64 = 24 * 60 * 60 * 1000;

/// How far ahead of ours a sender's clock may be, in milliseconds, and how long ago a message may have expired.
const CLOCK: u64 = 10_000;

/// A message and who may put it there.
pub struct Put {
    account: Account,
    namespace: Namespace,
    timestamp: u64,
    expiry: u64,
    data: Vec<u8>,
    signed: Option<(Proof, u64)>,
}

impl Put {
    /// Reads the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Fields<'_>) -> Read<Put> {
        let time = "integer timestamp (in milliseconds)";
        let (expiry, sig_timestamp) = (fields.time("expiry")?, fields.time("sig_timestamp")?);
        let namespace = fields.namespace("namespace")?.unwrap_or_default();
        let timestamp = required("timestamp", fields.loose("timestamp", time)?)?;
        let ttl = fields.loose("ttl", "positive integer")?;
        let expiry = match (expiry, ttl) {
            (Some(_), Some(_)) => return Err("Cannot specify both 'expiry' and 'ttl'".into()),
            (None, None) => return Err("Required field 'expiry' or 'ttl' missing".into()),
            (Some(expiry), None) => expiry,
            (None, Some(ttl)) => timestamp.saturating_add(ttl),
        };
        let account = fields.account_or_old("Pubkey must be 66 hex digits (33 bytes) long")?;
        let signed = match fields.raw("signature")? {
            Some(_) => Some((fields.proof(&account)?, sig_timestamp.unwrap_or(timestamp))),
            None => None,
        };
        let data = data(fields)?;
        Ok(Put { account, namespace, timestamp, expiry, data, signed })
    }
}

fn data(fields: &Fields<'_>) -> Read<Vec<u8>> {
    let too_long = || Bad(format!("Message body exceeds maximum allowed length of {DATA_MAX} bytes"));
    let raw = required("data", fields.raw("data")?)?;
    let data = match fields.form {
        Form::Bt => raw.to_vec(),
        Form::Json if raw.len() > DATA_MAX / 3 * 4 => {
            return Err(if fields::is_base64(raw) { too_long() } else { NOT_BASE64.into() });
        }
        Form::Json => fields::base64(raw).ok_or(NOT_BASE64)?,
    };
    if data.len() > DATA_MAX { Err(too_long()) } else { Ok(data) }
}

const NOT_BASE64: &str = "Invalid 'data' value: not base64 encoded";

impl Everywhere for Put {
    fn method(&self) -> &'static str {
        "store"
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn admit(&self, desk: &Desk<'_>) -> Result<(), Reply> {
        let public = self.namespace.is_public_inbox();
        let ttl = self.expiry.checked_sub(self.timestamp);
        if !ttl.is_some_and(|ttl| (TTL_MIN..=if public { TTL_MAX_PUBLIC } else { TTL_MAX }).contains(&ttl)) {
            return Err(Reply::text(403, "Provided expiry/TTL is not valid."));
        }
        // What the way from the first member took is added, as for signatures.
        let clock = CLOCK + desk.tolerance() - super::TOLERANCE;
        if self.timestamp > desk.now + clock || self.expiry < desk.now.saturating_sub(clock) {
            return Err(Reply::text(406, "Timestamp error: check your clock"));
        }
        if public {
            return Ok(());
        }
        let Some((proof, time)) = &self.signed else {
            let text = format!("store: signature required to store to namespace {}", self.namespace.0);
            return Err(Reply::text(401, text));
        };
        if !desk.is_now(*time) {
            return Err(Reply::text(406, "store signature timestamp too far from current time"));
        }
        // What is put into a public outbox takes out what was there.
        let outbox = self.namespace.is_public_outbox();
        let access = if outbox { Access::WRITE.and(Access::DELETE) } else { Access::WRITE };
        let message = format!("store{}{time}", self.namespace.signed());
        if !desk.proven(&self.account, proof, access, message.as_bytes()) {
            return Err(Reply::text(401, "store signature verification failed"));
        }
        Ok(())
    }

    fn carried(&self) -> Value {
        let mut carried = carried_proof(&self.account, self.signed.as_ref().map(|(proof, _)| proof));
        carried.extend(self.signed.as_ref().map(|(_, time)| ("sig_timestamp", (*time).into())));
        if self.namespace != Namespace::DEFAULT {
            carried.push(("namespace", self.namespace.0.into()));
        }
        carried.extend([
            ("timestamp", self.timestamp.into()),
            ("expiry", self.expiry.into()),
            ("data", Value::Bytes(self.data.clone())),
        ]);
        Value::dict(carried)
    }

    fn run(&self, desk: &mut Desk<'_>) -> Result<Done, Error> {
        let hash = hash::of(&self.account, self.namespace, &self.data);
        let message = Message {
            account: self.account,
            namespace: self.namespace,
            hash: hash.clone(),
            timestamp: self.timestamp,
            expiry: self.expiry,
            data: self.data.clone(),
        };
        let stored = desk.store.put(&message, desk.now)?;
        let mut done = Done::default();
        let mut say = |name: &str, value| done.entry.insert(name.to_owned(), value);
        say("signature", desk.receipt(hash.as_bytes()));
        say("hash", hash.clone().into());
        match stored {
            Stored::New => say("expiry", self.expiry.into()),
            Stored::Already(until) => {
                say("already", true.into());
                say("expiry", until.into())
            }
        };
        if !desk.forwarded {
            // Clients of old look for the time here.
            say("t", desk.now.into());
            done.top.insert("hash".to_owned(), hash.into());
        }
        done.stored = (stored == Stored::New).then_some(message);
        Ok(done)
    }
}
