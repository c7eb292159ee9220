//! `delete`, `delete_all` and `delete_before`: messages are taken out, at every member of the swarm. Neighbours:
//! `store::messages` (takes them out).

use super::fields::{Fields, Read, carried_proof, required};
use super::{Desk, Done, Everywhere, Reply};
use crate::account::{Access, Account, Proof, Scope};
use crate::store::Error;
use crate::value::Value;

/// `delete`: these messages.
pub struct Delete {
    account: Account,
    proof: Proof,
    hashes: Vec<String>,
    must: bool,
}

impl Delete {
    /// Reads the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Fields<'_>) -> Read<Delete> {
        let account = fields.account()?;
        let proof = fields.proof(&account)?;
        Ok(Delete { account, proof, hashes: fields.hashes()?, must: fields.flag("required")? })
    }
}

impl Everywhere for Delete {
    fn method(&self) -> &'static str {
        "delete"
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn admit(&self, desk: &Desk<'_>) -> Result<(), Reply> {
        let message = format!("delete{}", self.hashes.concat());
        if desk.proven(&self.account, &self.proof, Access::DELETE, message.as_bytes()) {
            Ok(())
        } else {
            Err(Reply::text(401, "delete_msgs signature verification failed"))
        }
    }

    fn carried(&self) -> Value {
        let hashes = self.hashes.iter().map(|hash| hash.as_str().into()).collect();
        Value::dict(
            carried_proof(&self.account, Some(&self.proof)).into_iter().chain([("messages", Value::List(hashes))]),
        )
    }

    fn run(&self, desk: &mut Desk<'_>) -> Result<Done, Error> {
        let deleted = desk.store.delete(&self.account, &self.hashes, desk.now)?;
        let said = [self.account.hex(), self.hashes.concat(), deleted.concat()].concat();
        let deleted = deleted.into_iter().map(Value::from).collect();
        Ok(Done::saying([("deleted", Value::List(deleted)), ("signature", desk.receipt(said.as_bytes()))]))
    }

    fn names(&self) -> usize {
        self.hashes.len()
    }

    fn must_delete(&self) -> bool {
        self.must
    }
}

/// `delete_all` and `delete_before`: a box or all, up to a time.
pub struct Clear {
    account: Account,
    proof: Proof,
    scope: Scope,
    until: Until,
}

enum Until {
    /// Everything; signed at this time.
    Now(u64),
    /// What was sent then or earlier.
    Before(u64),
}

impl Clear {
    /// Reads the parameters of `delete_all`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn all(fields: &Fields<'_>) -> Read<Clear> {
        Clear::read(fields, "timestamp", Until::Now)
    }

    /// Reads the parameters of `delete_before`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn before(fields: &Fields<'_>) -> Read<Clear> {
        Clear::read(fields, "before", Until::Before)
    }

    fn read(fields: &Fields<'_>, time: &str, until: impl FnOnce(u64) -> Until) -> Read<Clear> {
        let account = fields.account()?;
        let proof = fields.proof(&account)?;
        let until = until(required(time, fields.time(time)?)?);
        Ok(Clear { account, proof, scope: fields.scope("namespace")?, until })
    }
}

impl Everywhere for Clear {
    fn method(&self) -> &'static str {
        match self.until {
            Until::Now(_) => "delete_all",
            Until::Before(_) => "delete_before",
        }
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn admit(&self, desk: &Desk<'_>) -> Result<(), Reply> {
        let time = match self.until {
            Until::Now(time) if !desk.is_now(time) => {
                return Err(Reply::text(406, "delete_all timestamp too far from current time"));
            }
            Until::Before(time) if time > desk.now + desk.tolerance() => {
                return Err(Reply::text(401, "delete_before timestamp too far in the future"));
            }
            Until::Now(time) | Until::Before(time) => time,
        };
        let method = self.method();
        let message = format!("{method}{}{time}", self.scope.signed());
        if desk.proven(&self.account, &self.proof, Access::DELETE, message.as_bytes()) {
            Ok(())
        } else {
            Err(Reply::text(401, format!("{method} signature verification failed")))
        }
    }

    fn carried(&self) -> Value {
        let time = match self.until {
            Until::Now(time) => ("timestamp", time.into()),
            Until::Before(time) => ("before", time.into()),
        };
        let carried = carried_proof(&self.account, Some(&self.proof)).into_iter();
        Value::dict(carried.chain([time, ("namespace", self.scope.carried())]))
    }

    fn run(&self, desk: &mut Desk<'_>) -> Result<Done, Error> {
        let (time, before) = match self.until {
            Until::Now(time) => (time, None),
            Until::Before(time) => (time, Some(time)),
        };
        let deleted = desk.store.clear(&self.account, self.scope, before, desk.now)?;
        Ok(desk.affected("deleted", self.scope, deleted, &format!("{}{time}", self.account.hex())))
    }
}
