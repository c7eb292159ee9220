//! `expire` and `expire_all`: messages are gone sooner or stay longer, at every member of the swarm. Neighbours:
//! `store::messages` (keeps the times).

use super::fields::{Fields, Read, carried_proof, required};
use super::store::TTL_MAX;
use super::{Desk, Done, Everywhere, Reply};
use crate::account::{Access, Account, Proof, Scope};
use crate::store::{Change, Error};
use crate::value::Value;

/// From here on messages can be given an expiry each.
const EACH_ITS_OWN: (u16, u16) = (19, 4);

/// `expire`: these messages, all at one time or each at its own.
pub struct Expire {
    account: Account,
    proof: Proof,
    hashes: Vec<String>,
    expiries: Vec<u64>,
    change: Change,
}

impl Expire {
    /// Reads the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Fields<'_>) -> Read<Expire> {
        let account = fields.account()?;
        let proof = fields.proof(&account)?;
        let expiries = required("expiry", fields.times("expiry")?)?;
        if expiries.is_empty() {
            return Err("'expiry' does not contain any expiration timestamps".into());
        }
        let change = match (fields.flag("shorten")?, fields.flag("extend")?) {
            (true, true) => return Err("cannot specify both 'shorten' and 'extend'".into()),
            (true, false) => Change::Shorten,
            (false, true) => Change::Extend,
            (false, false) => Change::Set,
        };
        let hashes = fields.hashes()?;
        if expiries.len() > 1 && expiries.len() != hashes.len() {
            return Err("'expiry' must be a single expiry, or the same length as 'messages'".into());
        }
        Ok(Expire { account, proof, hashes, expiries, change })
    }

    /// The times that are kept: not beyond what a message may be kept.
    fn kept(&self, desk: &Desk<'_>) -> Vec<u64> {
        self.expiries.iter().map(|expiry| (*expiry).min(desk.now + TTL_MAX)).collect()
    }

    /// Who may not delete may not shorten either: that comes to the same.
    fn extends_only(&self) -> bool {
        self.proof.token.as_ref().is_some_and(|(token, _)| !token.gives(Access::DELETE))
    }

    fn word(&self) -> &'static str {
        match self.change {
            Change::Set => "",
            Change::Shorten => "shorten",
            Change::Extend => "extend",
        }
    }
}

impl Everywhere for Expire {
    fn method(&self) -> &'static str {
        "expire"
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn names(&self) -> usize {
        self.hashes.len()
    }

    fn admit(&self, desk: &Desk<'_>) -> Result<(), Reply> {
        if self.expiries.len() > 1 && desk.swarms.hard_fork() < EACH_ITS_OWN {
            return Err(Reply::text(403, "expire: multiple expiries are not permitted before hardfork 19.4"));
        }
        if self.expiries.iter().any(|expiry| *expiry < desk.now.saturating_sub(desk.tolerance())) {
            return Err(Reply::text(401, "expire: timestamp should be >= current time"));
        }
        let message = ["expire", self.word(), &decimal(&self.expiries), &self.hashes.concat()].concat();
        if !desk.proven(&self.account, &self.proof, Access::WRITE, message.as_bytes()) {
            return Err(Reply::text(401, "expire: signature verification failed"));
        }
        if self.change == Change::Shorten && self.extends_only() {
            let text = "expire: shorten parameter cannot be used with this subaccount token (missing delete access)";
            return Err(Reply::text(400, text));
        }
        Ok(())
    }

    fn carried(&self) -> Value {
        let expiry = match self.expiries[..] {
            [one] => one.into(),
            _ => numbers(&self.expiries),
        };
        let hashes = self.hashes.iter().map(|hash| hash.as_str().into()).collect();
        let mut carried = carried_proof(&self.account, Some(&self.proof));
        carried.extend([("expiry", expiry), ("messages", Value::List(hashes))]);
        if self.change != Change::Set {
            carried.push((self.word(), true.into()));
        }
        Value::dict(carried)
    }

    fn run(&self, desk: &mut Desk<'_>) -> Result<Done, Error> {
        let kept = self.kept(desk);
        let change = if self.extends_only() { Change::Extend } else { self.change };
        let each = self.hashes.iter().map(String::as_str).zip(kept.iter().copied().cycle());
        let updated = desk.store.expire(&self.account, each, change, desk.now)?;
        let unchanged = match self.change {
            Change::Set => None,
            _ => {
                let others = self.hashes.iter().filter(|hash| !updated.contains_key(*hash));
                Some(desk.store.expiries(&self.account, others, desk.now)?)
            }
        };
        // With one time we say the one we tried; with many, those that are kept now, beside their messages.
        let (hashes, times): (Vec<String>, Vec<u64>) = updated.into_iter().unzip();
        let times = if kept.len() > 1 { times } else { kept.clone() };
        let mut said = [self.account.hex(), decimal(&times), self.hashes.concat(), hashes.concat()].concat();
        for (hash, expiry) in unchanged.iter().flatten() {
            said.push_str(&format!("{hash}{expiry}"));
        }
        let unchanged = unchanged.map(|unchanged| unchanged.into_iter().map(|(hash, expiry)| (hash, expiry.into())));
        Ok(Done::saying([
            ("expiry", if kept.len() > 1 { numbers(&times) } else { kept[0].into() }),
            ("updated", Value::List(hashes.into_iter().map(Value::from).collect())),
            ("unchanged", unchanged.map_or(Value::Null, Value::dict)),
            ("signature", desk.receipt(said.as_bytes())),
        ]))
    }
}

/// Numbers, one behind the other, as they stand in what is signed.
fn decimal(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect()
}

fn numbers(numbers: &[u64]) -> Value {
    Value::List(numbers.iter().map(|number| (*number).into()).collect())
}

/// `expire_all`: nothing in a box, or in all, stays longer than that.
pub struct ExpireAll {
    account: Account,
    proof: Proof,
    scope: Scope,
    expiry: u64,
}

impl ExpireAll {
    /// Reads the parameters.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Fields<'_>) -> Read<ExpireAll> {
        let account = fields.account()?;
        let proof = fields.proof(&account)?;
        let expiry = required("expiry", fields.time("expiry")?)?;
        Ok(ExpireAll { account, proof, scope: fields.scope("namespace")?, expiry })
    }
}

impl Everywhere for ExpireAll {
    fn method(&self) -> &'static str {
        "expire_all"
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn admit(&self, desk: &Desk<'_>) -> Result<(), Reply> {
        if self.expiry < desk.now.saturating_sub(desk.tolerance()) {
            return Err(Reply::text(406, "expire_all timestamp should be >= current time"));
        }
        let message = format!("expire_all{}{}", self.scope.signed(), self.expiry);
        if desk.proven(&self.account, &self.proof, Access::DELETE, message.as_bytes()) {
            Ok(())
        } else {
            Err(Reply::text(401, "expire_all signature verification failed"))
        }
    }

    fn carried(&self) -> Value {
        let carried = carried_proof(&self.account, Some(&self.proof)).into_iter();
        Value::dict(carried.chain([("expiry", self.expiry.into()), ("namespace", self.scope.carried())]))
    }

    fn run(&self, desk: &mut Desk<'_>) -> Result<Done, Error> {
        let updated = desk.store.expire_all(&self.account, self.scope, self.expiry, desk.now)?;
        Ok(desk.affected("updated", self.scope, updated, &format!("{}{}", self.account.hex(), self.expiry)))
    }
}
