//! The revocations' table: which tokens an owner took back. It knows nothing of messages, so an empty mailbox forgets
//! nothing. Neighbours: `store` (its transaction), `account::auth` (asks), `transfer` (reads it through).

use rusqlite::params;

use super::{Error, Store};
use crate::account::{Account, Token};

/// Tokens an account can have revoked at a time; the longest revoked give way.
pub const REVOCATIONS_MAX: usize = 50;

impl Store {
    /// Revokes these; one that was revoked before counts as newly revoked.
    ///
    /// # Errors
    /// The store does not work.
    pub fn revoke(&mut self, account: &Account, tokens: &[Token]) -> Result<(), Error> {
        self.write(|db| {
            let mut insert =
                db.prepare_cached("INSERT OR REPLACE INTO revocations (account, token) VALUES (?1, ?2)")?;
            for token in tokens {
                insert.execute(params![account.0, token.0])?;
            }
            db.prepare_cached(
                "DELETE FROM revocations WHERE account = ?1 AND id <=
                 (SELECT id FROM revocations WHERE account = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![account.0, REVOCATIONS_MAX])?;
            Ok(())
        })
    }

    /// Takes revocations back; of how many.
    ///
    /// # Errors
    /// The store does not work.
    pub fn unrevoke(&mut self, account: &Account, tokens: &[Token]) -> Result<usize, Error> {
        self.write(|db| {
            let mut delete = db.prepare_cached("DELETE FROM revocations WHERE account = ?1 AND token = ?2")?;
            tokens.iter().try_fold(0, |count, token| Ok(count + delete.execute(params![account.0, token.0])?))
        })
    }

    /// Whether a token is revoked.
    ///
    /// # Errors
    /// The store does not work.
    pub fn is_revoked(&self, account: &Account, token: &Token) -> Result<bool, Error> {
        let mut find = self.db.prepare_cached("SELECT 1 FROM revocations WHERE account = ?1 AND token = ?2")?;
        Ok(find.exists(params![account.0, token.0])?)
    }

    /// What an account has revoked, longest first.
    ///
    /// # Errors
    /// The store does not work.
    pub fn revoked(&self, account: &Account) -> Result<Vec<Token>, Error> {
        let mut find = self.db.prepare_cached("SELECT token FROM revocations WHERE account = ?1 ORDER BY id")?;
        let tokens = find.query_map(params![account.0], |row| Ok(Token(row.get(0)?)))?;
        Ok(tokens.collect::<rusqlite::Result<_>>()?)
    }

    /// Reads through everything that is revoked, for whom it moves to: at most `count` above the number `after`, in
    /// order, each with its number.
    ///
    /// # Errors
    /// The store does not work.
    pub fn walk_revocations(&self, after: i64, count: usize) -> Result<Vec<(i64, Account, Token)>, Error> {
        let mut find =
            self.db.prepare_cached("SELECT id, account, token FROM revocations WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let rows =
            find.query_map(params![after, count], |row| Ok((row.get(0)?, Account(row.get(1)?), Token(row.get(2)?))))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
