//! What members of a swarm compare: for each message, alive or gone, a [`Mark`] that says which state of it is the newer;
//! and for each other node, how far it has been told. Neighbours: `transfer` (carries the marks), `messages` and
//! `revocations` (number every change in one journal).
//!
//! A message's version counts its lives in the upper half, odd while it is there and even when it is gone, and the moves
//! of its expiry within a life in the lower half. The higher version is right, whatever clocks say: who missed a deletion
//! has the lower one, who stores a message again after its deletion has the higher one. What is gone is remembered until
//! the last copy that anybody may hold has expired.

use rusqlite::{Connection, OptionalExtension, params};

use super::messages::{self, Message};
use super::revocations::Revocation;
use super::{Error, Journal, Store};
use crate::account::{Account, Namespace, Token};

/// One life of a message, in versions.
const LIFE: u32 = 32;

/// Highest version that is believed; nobody deletes and stores a message that often.
pub const VERSION_MAX: i64 = 1 << 56;

/// A message's state at a member; times in milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Whose.
    pub account: Account,
    /// In which box.
    pub namespace: Namespace,
    /// Its name.
    pub hash: String,
    /// Which of two states is the newer: the higher.
    pub version: i64,
    /// When it is gone, if it is there.
    pub expiry: u64,
    /// The latest time that anybody may believe it is gone at.
    pub until: u64,
}

/// Something that changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A message came, its expiry moved, or it went.
    Message(Mark),
    /// A token was revoked, or that was taken back.
    Revocation(Revocation),
}

impl Mark {
    /// Whether the message is gone.
    pub fn is_gone(&self) -> bool {
        is_gone(self.version)
    }
}

impl Entry {
    /// Whose it is.
    pub fn account(&self) -> &Account {
        match self {
            Entry::Message(mark) => &mark.account,
            Entry::Revocation(revocation) => &revocation.account,
        }
    }
}

fn is_gone(version: i64) -> bool {
    (version >> LIFE) % 2 == 0
}

/// The version of a message that is stored, when it was gone at `before`, or never here.
pub(super) fn reborn(before: Option<i64>) -> i64 {
    ((before.unwrap_or(0) >> LIFE) + 1) << LIFE
}

/// Forgets that a message is gone; at which version it was.
pub(super) fn dig_out(
    db: &Connection,
    account: &Account,
    namespace: Namespace,
    hash: &str,
) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("DELETE FROM gone WHERE account = ?1 AND hash = ?2 AND namespace = ?3 RETURNING version")?
        .query_row(params![account.0, hash, namespace.0], |row| row.get(0))
        .optional()
}

/// What is known here of a message.
enum Known {
    Nothing,
    There { id: i64, version: i64, expiry: u64 },
    Gone { version: i64 },
}

fn known(db: &Connection, account: &Account, namespace: Namespace, hash: &str) -> rusqlite::Result<Known> {
    let key = params![account.0, hash, namespace.0];
    let mut there = db.prepare_cached(
        "SELECT id, version, expiry FROM messages WHERE account = ?1 AND hash = ?2 AND namespace = ?3",
    )?;
    let there =
        there.query_row(key, |row| Ok(Known::There { id: row.get(0)?, version: row.get(1)?, expiry: row.get(2)? }));
    if let Some(there) = there.optional()? {
        return Ok(there);
    }
    let mut gone = db.prepare_cached("SELECT version FROM gone WHERE account = ?1 AND hash = ?2 AND namespace = ?3")?;
    let gone = gone.query_row(key, |row| Ok(Known::Gone { version: row.get(0)? })).optional()?;
    Ok(gone.unwrap_or(Known::Nothing))
}

impl Store {
    /// Drawn when the file was made.
    pub fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    /// The number of the last change.
    pub fn last_change(&self) -> i64 {
        self.journal.0
    }

    /// What changed after the change numbered `after`, in order, each with its number: at most `count`.
    ///
    /// # Errors
    /// The store does not work.
    pub fn changes(&self, after: i64, count: usize) -> Result<Vec<(i64, Entry)>, Error> {
        let mut there = self.db.prepare_cached(
            "SELECT seq, account, namespace, hash, version, expiry, until FROM messages WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let mut gone = self.db.prepare_cached(
            "SELECT seq, account, namespace, hash, version, 0, until FROM gone WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let mut revoked = self.db.prepare_cached(
            "SELECT seq, account, token, version, at FROM revocations WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let mut changes = Vec::new();
        for marks in [&mut there, &mut gone] {
            let rows = marks.query_map(params![after, count], |row| {
                let mark = Mark {
                    account: Account(row.get(1)?),
                    namespace: Namespace(row.get(2)?),
                    hash: row.get(3)?,
                    version: row.get(4)?,
                    expiry: row.get(5)?,
                    until: row.get(6)?,
                };
                Ok((row.get(0)?, Entry::Message(mark)))
            })?;
            changes.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        let rows = revoked.query_map(params![after, count], |row| {
            let (account, token) = (Account(row.get(1)?), Token(row.get(2)?));
            Ok((row.get(0)?, Entry::Revocation(Revocation { account, token, version: row.get(3)?, at: row.get(4)? })))
        })?;
        changes.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        // Each table gave its first ones: of all of them, the first so many are complete.
        changes.sort_unstable_by_key(|(seq, _)| *seq);
        changes.truncate(count);
        Ok(changes)
    }

    /// A message with its version and latest expiry, if it is there.
    ///
    /// # Errors
    /// The store does not work.
    pub fn copy_of(&self, mark: &Mark) -> Result<Option<(Mark, Message)>, Error> {
        let mut find = self.db.prepare_cached(
            "SELECT account, namespace, hash, timestamp, expiry, data, version, until FROM messages
             WHERE account = ?1 AND hash = ?2 AND namespace = ?3",
        )?;
        let copy = find.query_row(params![mark.account.0, mark.hash, mark.namespace.0], |row| {
            let message = messages::message(row, 0)?;
            let mark = Mark { version: row.get(6)?, expiry: message.expiry, until: row.get(7)?, ..mark.clone() };
            Ok((mark, message))
        });
        Ok(copy.optional()?)
    }

    /// Learns the state of a message at another member; whether the message itself is wanted. Whoever is not `trusted`
    /// can only tell of messages that nothing is known of.
    ///
    /// # Errors
    /// The store does not work.
    pub fn learn(&mut self, mark: &Mark, trusted: bool, now: u64) -> Result<bool, Error> {
        self.write(|db, journal| {
            let (newer, gone) = (mark.version, mark.is_gone());
            match known(db, &mark.account, mark.namespace, &mark.hash)? {
                Known::Nothing if gone => {
                    if trusted && mark.until > now {
                        remember_gone(db, journal, mark)?;
                    }
                    Ok(false)
                }
                Known::Nothing => Ok(mark.expiry > now),
                _ if !trusted => Ok(false),
                Known::There { id, version, .. } if gone => {
                    if newer > version {
                        db.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id])?;
                        remember_gone(db, journal, mark)?;
                    }
                    Ok(false)
                }
                Known::There { id, version, expiry } => {
                    if newer > version || (newer == version && mark.expiry > expiry) {
                        db.prepare_cached(
                            "UPDATE messages SET expiry = ?2, until = max(until, ?3), version = ?4, seq = ?5 WHERE id = ?1",
                        )?
                        .execute(params![id, mark.expiry, mark.until, newer, journal.next()])?;
                    }
                    Ok(false)
                }
                Known::Gone { version } if gone => {
                    if newer > version {
                        remember_gone(db, journal, mark)?;
                    }
                    Ok(false)
                }
                Known::Gone { version } => Ok(newer > version && mark.expiry > now),
            }
        })
    }

    /// Takes a message that another member held, at its state there; whether it was not here before.
    ///
    /// # Errors
    /// The store is full, or does not work.
    pub fn take(&mut self, mark: &Mark, message: &Message, trusted: bool, now: u64) -> Result<bool, Error> {
        if !self.learn(mark, trusted, now)? {
            return Ok(false);
        }
        self.room_for(message)?;
        self.write(|db, journal| {
            dig_out(db, &mark.account, mark.namespace, &mark.hash)?;
            messages::insert(db, journal, message, (mark.version, mark.until))?;
            Ok(true)
        })
    }

    /// How far `peer` has been told of what lies in `span`: in which epoch of its own, up to which change.
    ///
    /// # Errors
    /// The store does not work.
    pub fn cursor(&self, peer: &[u8; 32], span: &[u8; 24]) -> Result<Option<([u8; 16], i64)>, Error> {
        let mut find = self.db.prepare_cached("SELECT epoch, seq FROM cursors WHERE peer = ?1 AND span = ?2")?;
        Ok(find.query_row(params![peer, span], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    /// Remembers how far `peer` has been told.
    ///
    /// # Errors
    /// The store does not work.
    pub fn move_cursor(&mut self, peer: &[u8; 32], span: &[u8; 24], epoch: &[u8; 16], seq: i64) -> Result<(), Error> {
        self.write(|db, _| {
            db.prepare_cached("INSERT OR REPLACE INTO cursors (peer, span, epoch, seq) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![peer, span, epoch, seq])?;
            Ok(())
        })
    }

    /// Accounts of which anything is known, in order, above `after`: at most `count`.
    ///
    /// # Errors
    /// The store does not work.
    pub fn accounts(&self, after: Option<Account>, count: usize) -> Result<Vec<Account>, Error> {
        // Each step is a jump in three indices, however much an account holds.
        let mut next = self.db.prepare_cached(
            "SELECT min(account) FROM (SELECT min(account) AS account FROM messages WHERE account > ?1 UNION ALL
             SELECT min(account) FROM gone WHERE account > ?1 UNION ALL
             SELECT min(account) FROM revocations WHERE account > ?1)",
        )?;
        let (mut accounts, mut last) = (Vec::new(), after.map_or(Vec::new(), |account| account.0.to_vec()));
        while accounts.len() < count {
            let found: Option<[u8; Account::LEN]> = next.query_row(params![last], |row| row.get(0))?;
            let Some(found) = found else { break };
            accounts.push(Account(found));
            last = found.to_vec();
        }
        Ok(accounts)
    }
}

fn remember_gone(db: &Connection, journal: &mut Journal, mark: &Mark) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO gone (account, hash, namespace, until, version, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET until = max(until, excluded.until), version = excluded.version, seq = excluded.seq",
    )?
    .execute(params![mark.account.0, mark.hash, mark.namespace.0, mark.until, mark.version, journal.next()])?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
