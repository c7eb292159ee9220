//! `revoke_subaccount`, `unrevoke_subaccount` and `revoked_subaccounts`: an owner takes tokens back, and only the owner
//! may. Neighbours: `account::subaccount` (what a token is), `store::revocations` (keeps them).

use std::collections::BTreeMap;

use super::fields::{Bad, Fields, Read, carried_proof, required};
use super::{Desk, Done, Everywhere, Here, Reply};
use crate::account::{Access, Account, Proof, Token};
use crate::store::Error;
use crate::store::revocations::REVOCATIONS_MAX;
use crate::value::{Form, Value};

/// Some tokens, to be taken back or given back.
pub struct Tokens {
    account: Account,
    proof: Proof,
    timestamp: u64,
    tokens: Vec<Token>,
    back: bool,
}

impl Tokens {
    /// Reads the parameters of `revoke_subaccount`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn revoke(fields: &Fields<'_>) -> Read<Tokens> {
        Tokens::read(fields, false)
    }

    /// Reads the parameters of `unrevoke_subaccount`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn unrevoke(fields: &Fields<'_>) -> Read<Tokens> {
        Tokens::read(fields, true)
    }

    fn read(fields: &Fields<'_>, back: bool) -> Read<Tokens> {
        let account = fields.account()?;
        let proof = fields.owners_proof(&account)?;
        let name = if back { "unrevoke" } else { "revoke" };
        let raw = required(name, fields.strings(name)?)?;
        if raw.len() > REVOCATIONS_MAX {
            let text = format!("invalid {name}: cannot {name} more than {REVOCATIONS_MAX} subaccounts at once");
            return Err(Bad(text));
        }
        let bad = || match fields.form {
            Form::Json => Bad(format!("invalid {name}: expected base64 or hex-encoded subaccount tag")),
            Form::Bt => Bad(format!("invalid {name} subaccount: invalid subaccount tag length")),
        };
        let tokens = raw.into_iter().map(|raw| fields.token(raw).ok_or_else(bad)).collect::<Read<_>>()?;
        let timestamp = required("timestamp", fields.time("timestamp")?)?;
        Ok(Tokens { account, proof, timestamp, tokens, back })
    }

    /// What stands behind the words in both signatures: when, and which.
    fn subject(&self) -> Vec<u8> {
        let mut subject = self.timestamp.to_string().into_bytes();
        self.tokens.iter().for_each(|token| subject.extend(token.0));
        subject
    }
}

impl Everywhere for Tokens {
    fn method(&self) -> &'static str {
        if self.back { "unrevoke_subaccount" } else { "revoke_subaccount" }
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn admit(&self, desk: &Desk<'_>) -> Result<(), Reply> {
        let message = [self.method().as_bytes(), &self.subject()].concat();
        owner_says(desk, self.method(), self.timestamp, (&self.account, &self.proof), &message)
    }

    fn carried(&self) -> Value {
        let tokens = self.tokens.iter().map(|token| Value::Bytes(token.0.to_vec())).collect();
        let name = if self.back { "unrevoke" } else { "revoke" };
        let carried = carried_proof(&self.account, Some(&self.proof)).into_iter();
        Value::dict(carried.chain([("timestamp", self.timestamp.into()), (name, Value::List(tokens))]))
    }

    fn run(&self, desk: &mut Desk<'_>) -> Result<Done, Error> {
        let count = if self.back {
            u64::try_from(desk.store.unrevoke(&self.account, &self.tokens, desk.now)?).map_or(Value::Null, Value::from)
        } else {
            desk.store.revoke(&self.account, &self.tokens, desk.now)?;
            Value::Null
        };
        let receipt = desk.receipt(&[self.account.hex().as_bytes(), &self.subject()].concat());
        Ok(Done::saying([("count", count), ("signature", receipt)]))
    }
}

/// `revoked_subaccounts`: which tokens are revoked.
pub struct Revoked {
    account: Account,
    proof: Proof,
    timestamp: u64,
}

impl Revoked {
    /// Reads the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Fields<'_>) -> Read<Revoked> {
        let account = fields.account()?;
        let proof = fields.owners_proof(&account)?;
        Ok(Revoked { account, proof, timestamp: required("timestamp", fields.time("timestamp")?)? })
    }
}

impl Here for Revoked {
    fn account(&self) -> &Account {
        &self.account
    }

    fn look(&self, desk: &Desk<'_>) -> Result<BTreeMap<String, Value>, Reply> {
        let method = "revoked_subaccounts";
        let message = format!("{method}{}", self.timestamp);
        owner_says(desk, method, self.timestamp, (&self.account, &self.proof), message.as_bytes())?;
        let tokens = desk.store.revoked(&self.account).map_err(|_| {
            let whose = self.account.hint();
            Reply::text(500, format!("Internal Server Error. Could not retrieve revoked_subaccounts for {whose}"))
        })?;
        let tokens = tokens.into_iter().map(|token| Value::Bytes(token.0.to_vec())).collect();
        Ok(desk.with_common([("revoked_subaccounts", Value::List(tokens))]))
    }
}

/// Whether the owner says so, now.
fn owner_says(
    desk: &Desk<'_>,
    method: &str,
    time: u64,
    (account, proof): (&Account, &Proof),
    message: &[u8],
) -> Result<(), Reply> {
    if !desk.is_now(time) {
        return Err(Reply::text(406, format!("{method} timestamp too far from current time")));
    }
    if !desk.proven(account, proof, Access::NONE, message) {
        return Err(Reply::text(401, format!("{method} signature verification failed")));
    }
    Ok(())
}
