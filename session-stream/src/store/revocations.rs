//! The revocations' table: which tokens an owner took back. It knows nothing of messages, so an empty mailbox forgets
//! nothing. Neighbours: `store` (its transaction), `account::auth` (asks), `transfer` (reads it through).

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, Journal, Store};
use crate::account::{Account, Token};

/// Tokens an account can have revoked at a time; the longest revoked give way.
pub const REVOCATIONS_MAX: usize = 50;

impl Store {
    /// Revokes these; one that was revoked before counts as newly revoked.
    ///
    /// # Errors
    /// The store does not work.
    pub fn revoke(&mut self, account: &Account, tokens: &[Token], now: u64) -> Result<(), Error> {
        self.write(|db, journal| {
            for token in tokens {
                // The next odd number, and a new place among the others.
                let version = (version(db, account, token)?.unwrap_or(0) + 1) | 1;
                put(db, journal, (account, token), version, now)?;
            }
            trim(db, account)
        })
    }

    /// Takes revocations back; of how many.
    ///
    /// # Errors
    /// The store does not work.
    pub fn unrevoke(&mut self, account: &Account, tokens: &[Token], now: u64) -> Result<usize, Error> {
        self.write(|db, journal| {
            let mut count = 0;
            for token in tokens {
                if let Some(version) = version(db, account, token)?.filter(|version| version % 2 == 1) {
                    put(db, journal, (account, token), version + 1, now)?;
                    count += 1;
                }
            }
            trim(db, account)?;
            Ok(count)
        })
    }

    /// Whether a token is revoked.
    ///
    /// # Errors
    /// The store does not work.
    pub fn is_revoked(&self, account: &Account, token: &Token) -> Result<bool, Error> {
        let version = version(&self.db, account, token).map_err(|error| self.note(error.into()))?;
        Ok(version.is_some_and(|version| version % 2 == 1))
    }

    /// What an account has revoked, longest first.
    ///
    /// # Errors
    /// The store does not work.
    pub fn revoked(&self, account: &Account) -> Result<Vec<Token>, Error> {
        let mut find = self
            .db
            .prepare_cached("SELECT token FROM revocations WHERE account = ?1 AND version % 2 = 1 ORDER BY at, id")?;
        let tokens = find.query_map(params![account.0], |row| Ok(Token(row.get(0)?)))?;
        Ok(tokens.collect::<rusqlite::Result<_>>()?)
    }

    /// Learns what another member knows of a token: odd versions revoke it, the higher version is right. Whether it was
    /// news.
    ///
    /// # Errors
    /// The store does not work.
    pub fn learn_revocation(&mut self, told: &Revocation) -> Result<bool, Error> {
        let Revocation { account, token, version: newer, at } = told;
        self.write(|db, journal| {
            if version(db, account, token)?.is_some_and(|own| own >= *newer) {
                return Ok(false);
            }
            put(db, journal, (account, token), *newer, *at)?;
            trim(db, account)?;
            Ok(true)
        })
    }
}

/// What a member knows of a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// Whose.
    pub account: Account,
    /// Which.
    pub token: Token,
    /// Odd if it is revoked, even if that was taken back; the higher one is the newer.
    pub version: i64,
    /// When, in milliseconds since 1970: the newest ones stay.
    pub at: u64,
}

fn version(db: &Connection, account: &Account, token: &Token) -> rusqlite::Result<Option<i64>> {
    let mut find = db.prepare_cached("SELECT version FROM revocations WHERE account = ?1 AND token = ?2")?;
    find.query_row(params![account.0, token.0], |row| row.get(0)).optional()
}

fn put(
    db: &Connection,
    journal: &mut Journal,
    (account, token): (&Account, &Token),
    version: i64,
    at: u64,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO revocations (account, token, at, version, seq) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![account.0, token.0, at, version, journal.next()])?;
    Ok(())
}

/// The newest stay, of those that are revoked and of those that were: who missed that must still learn it.
fn trim(db: &Connection, account: &Account) -> rusqlite::Result<()> {
    for odd in [0, 1] {
        db.prepare_cached(
            "DELETE FROM revocations WHERE id IN (SELECT id FROM revocations WHERE account = ?1 AND version % 2 = ?2
             ORDER BY at DESC, id DESC LIMIT -1 OFFSET ?3)",
        )?
        .execute(params![account.0, odd, REVOCATIONS_MAX])?;
    }
    Ok(())
}
