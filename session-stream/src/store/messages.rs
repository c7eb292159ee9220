//! The messages' table: put in, looked through, changed and swept. Neighbours: `store` (its transaction), `rpc` (each
//! method of it is one of these).

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Error, Journal, Store, replica};
use crate::account::{Account, Namespace, Scope};

/// Rows swept away at a time, so that a sweep never holds a caller up.
const SWEEP: usize = 2000;

/// What a message costs an answer beside its data, in bytes.
const OVERHEAD: usize = 100;

/// A message; times in milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Whose.
    pub account: Account,
    /// In which box.
    pub namespace: Namespace,
    /// Its name: [`hash::of`](crate::account::hash::of) the three other things that make it.
    pub hash: String,
    /// When it was sent, as its sender says.
    pub timestamp: u64,
    /// When it is gone.
    pub expiry: u64,
    /// What.
    pub data: Vec<u8>,
}

/// What became of a message that was put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// It was not there.
    New,
    /// It was, and is kept until then: the later of both expiries.
    Already(u64),
}

/// Which expiries a change may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Every one.
    Set,
    /// Later ones.
    Shorten,
    /// Those that are sooner by more than a hundredth of the message's life.
    Extend,
}

impl Store {
    /// Puts a message in. In a public outbox it takes the place of every other.
    ///
    /// # Errors
    /// The store is full, or does not work.
    pub fn put(&mut self, message: &Message, now: u64) -> Result<Stored, Error> {
        self.room_for(message)?;
        self.write(|db, journal| {
            let Message { account, namespace, hash, expiry, .. } = message;
            let mut found = db.prepare_cached(
                "SELECT id, expiry FROM messages WHERE account = ?1 AND hash = ?2 AND namespace = ?3",
            )?;
            let there: Option<(i64, u64)> = found
                .query_row(params![account.0, hash, namespace.0], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match there {
                Some((id, until)) if until > now => {
                    if *expiry > until {
                        move_expiry(db, journal, id, *expiry)?;
                    }
                    return Ok(Stored::Already(until.max(*expiry)));
                }
                // It has expired and only waits for the sweep: who stores it again stores it anew.
                Some((id, _)) => bury(db, journal, id)?,
                None => {}
            }
            if namespace.is_public_outbox() {
                let mut others = db.prepare_cached("SELECT id FROM messages WHERE account = ?1 AND namespace = ?2")?;
                let others = others.query_map(params![account.0, namespace.0], |row| row.get(0))?;
                for id in others.collect::<rusqlite::Result<Vec<i64>>>()? {
                    bury(db, journal, id)?;
                }
            }
            let before = replica::dig_out(db, account, *namespace, hash)?;
            insert(db, journal, message, (replica::reborn(before), *expiry))?;
            Ok(Stored::New)
        })
    }

    /// Whether one more message fits.
    pub(super) fn room_for(&self, message: &Message) -> Result<(), Error> {
        let full = self.size()? + message.data.len() as u64 > self.cap;
        if full { Err(self.note(Error::Capped)) } else { Ok(()) }
    }

    /// The messages of a box in the order they came, those after `after` if that is still there, else all: at most
    /// `count`, and at most `size` bytes as JSON writes them but always one; and whether there are more.
    ///
    /// # Errors
    /// The store does not work.
    pub fn look(
        &self,
        account: &Account,
        namespace: Namespace,
        after: Option<&str>,
        count: Option<usize>,
        size: usize,
        now: u64,
    ) -> Result<(Vec<Message>, bool), Error> {
        self.page(account, namespace, after, count, size, now).map_err(|error| self.note(error.into()))
    }

    fn page(
        &self,
        account: &Account,
        namespace: Namespace,
        after: Option<&str>,
        count: Option<usize>,
        size: usize,
        now: u64,
    ) -> rusqlite::Result<(Vec<Message>, bool)> {
        let after: Option<i64> = match after {
            None => None,
            Some(hash) => self
                .db
                .prepare_cached("SELECT id FROM messages WHERE account = ?1 AND hash = ?2 AND namespace = ?3")?
                .query_row(params![account.0, hash, namespace.0], |row| row.get(0))
                .optional()?,
        };
        let mut rows = self.db.prepare_cached(
            "SELECT account, namespace, hash, timestamp, expiry, data FROM messages
             WHERE account = ?1 AND namespace = ?2 AND id > ?3 AND expiry > ?4 ORDER BY id",
        )?;
        let mut rows = rows.query(params![account.0, namespace.0, after.unwrap_or(0), now])?;
        let (mut messages, mut spent) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let message = message(row, 0)?;
            spent += OVERHEAD + message.hash.len() + message.data.len() * 4 / 3;
            let full = count.is_some_and(|count| messages.len() >= count) || (!messages.is_empty() && spent > size);
            if full {
                return Ok((messages, true));
            }
            messages.push(message);
        }
        Ok((messages, false))
    }

    /// Takes these out; which of them were there, sorted.
    ///
    /// # Errors
    /// The store does not work.
    pub fn delete(&mut self, account: &Account, hashes: &[String], now: u64) -> Result<Vec<String>, Error> {
        let mut gone = self.write(|db, journal| {
            let mut find =
                db.prepare_cached("SELECT id FROM messages WHERE account = ?1 AND hash = ?2 AND expiry > ?3")?;
            let mut gone = Vec::new();
            for hash in hashes {
                let ids = find.query_map(params![account.0, hash, now], |row| row.get(0))?;
                let ids = ids.collect::<rusqlite::Result<Vec<i64>>>()?;
                if !ids.is_empty() {
                    gone.push(hash.clone());
                }
                for id in ids {
                    bury(db, journal, id)?;
                }
            }
            Ok(gone)
        })?;
        gone.sort();
        Ok(gone)
    }

    /// Takes out what was sent at `before` or earlier, everything if that is none; what it was, sorted by hash.
    ///
    /// # Errors
    /// The store does not work.
    pub fn clear(
        &mut self,
        account: &Account,
        scope: Scope,
        before: Option<u64>,
        now: u64,
    ) -> Result<Vec<(Namespace, String)>, Error> {
        let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        self.write(|db, journal| {
            affected(db, (account, scope, now), "timestamp <= ?4", before, |id| bury(db, journal, id))
        })
    }

    /// Brings every later expiry forward to `expiry`; whose, sorted by hash.
    ///
    /// # Errors
    /// The store does not work.
    pub fn expire_all(
        &mut self,
        account: &Account,
        scope: Scope,
        expiry: u64,
        now: u64,
    ) -> Result<Vec<(Namespace, String)>, Error> {
        let time = i64::try_from(expiry).unwrap_or(i64::MAX);
        self.write(|db, journal| {
            affected(db, (account, scope, now), "expiry > ?4", time, |id| move_expiry(db, journal, id, expiry))
        })
    }

    /// Moves the expiries of these messages, each to its own; which were moved where, sorted by hash. A message named
    /// twice is moved as its last mention says.
    ///
    /// # Errors
    /// The store does not work.
    pub fn expire<'a>(
        &mut self,
        account: &Account,
        messages: impl IntoIterator<Item = (&'a str, u64)>,
        change: Change,
        now: u64,
    ) -> Result<BTreeMap<String, u64>, Error> {
        self.write(|db, journal| {
            let moves = match change {
                Change::Set => "?1 >= 0",
                Change::Shorten => "expiry > ?1",
                Change::Extend => "?1 - expiry > (expiry - timestamp) / 100",
            };
            let mut find = db.prepare_cached(&format!(
                "SELECT id FROM messages WHERE account = ?2 AND hash = ?3 AND expiry > ?4 AND {moves}"
            ))?;
            let mut moved = BTreeMap::new();
            for (hash, expiry) in messages {
                let ids = find.query_map(params![expiry, account.0, hash, now], |row| row.get(0))?;
                for id in ids.collect::<rusqlite::Result<Vec<i64>>>()? {
                    move_expiry(db, journal, id, expiry)?;
                    moved.insert(hash.to_owned(), expiry);
                }
            }
            Ok(moved)
        })
    }

    /// When these messages expire; those that are not there are left out.
    ///
    /// # Errors
    /// The store does not work.
    pub fn expiries<'a>(
        &self,
        account: &Account,
        hashes: impl IntoIterator<Item = &'a String>,
        now: u64,
    ) -> Result<BTreeMap<String, u64>, Error> {
        let mut find = self
            .db
            .prepare_cached("SELECT max(expiry) FROM messages WHERE account = ?1 AND hash = ?2 AND expiry > ?3")?;
        let mut expiries = BTreeMap::new();
        for hash in hashes {
            let expiry: Option<u64> = find.query_row(params![account.0, hash, now], |row| row.get(0))?;
            expiries.extend(expiry.map(|expiry| (hash.clone(), expiry)));
        }
        Ok(expiries)
    }

    /// Takes some of what has expired out of the file; whether there may be more. What somebody else may still hold with
    /// a later expiry is remembered as gone until then.
    ///
    /// # Errors
    /// The store does not work.
    pub fn sweep(&mut self, now: u64) -> Result<bool, Error> {
        let swept = self.write(|db, journal| {
            let mut shortened = db.prepare_cached(
                "SELECT id FROM messages WHERE id IN (SELECT id FROM messages WHERE expiry <= ?1 LIMIT ?2) AND until > ?1",
            )?;
            let shortened = shortened.query_map(params![now, SWEEP], |row| row.get(0))?;
            let shortened = shortened.collect::<rusqlite::Result<Vec<i64>>>()?;
            for id in &shortened {
                bury(db, journal, *id)?;
            }
            let mut swept = db
                .prepare_cached("DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE expiry <= ?1 LIMIT ?2)")?;
            let mut forget = db.prepare_cached(
                "DELETE FROM gone WHERE (account, hash, namespace) IN
                 (SELECT account, hash, namespace FROM gone WHERE until <= ?1 LIMIT ?2)",
            )?;
            let messages = shortened.len() + swept.execute(params![now, SWEEP])?;
            Ok(messages.max(forget.execute(params![now, SWEEP])?))
        })?;
        Ok(swept >= SWEEP)
    }
}

/// Puts a message in, with its version and the latest expiry anybody may know it by.
pub(super) fn insert(
    db: &Connection,
    journal: &mut Journal,
    message: &Message,
    (version, until): (i64, u64),
) -> rusqlite::Result<()> {
    let Message { account, namespace, hash, timestamp, expiry, data } = message;
    db.prepare_cached(
        "INSERT INTO messages (account, namespace, hash, timestamp, expiry, until, version, seq, data)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![account.0, namespace.0, hash, timestamp, expiry, until, version, journal.next(), data])?;
    Ok(())
}

/// Takes a message out, and remembers that it is gone.
fn bury(db: &Connection, journal: &mut Journal, id: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO gone (account, hash, namespace, until, version, seq)
         SELECT account, hash, namespace, until, ((version >> 32) + 1) << 32, ?2 FROM messages WHERE id = ?1",
    )?
    .execute(params![id, journal.next()])?;
    db.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Moves a message's expiry.
fn move_expiry(db: &Connection, journal: &mut Journal, id: i64, expiry: u64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE messages SET expiry = ?2, until = max(until, ?2), version = version + 1, seq = ?3 WHERE id = ?1",
    )?
    .execute(params![id, expiry, journal.next()])?;
    Ok(())
}

/// A message from six columns, the first of which is `at`.
pub(super) fn message(row: &Row<'_>, at: usize) -> rusqlite::Result<Message> {
    Ok(Message {
        account: Account(row.get(at)?),
        namespace: Namespace(row.get(at + 1)?),
        hash: row.get(at + 2)?,
        timestamp: row.get(at + 3)?,
        expiry: row.get(at + 4)?,
        data: row.get(at + 5)?,
    })
}

/// Does `what` to the messages of a box or of the whole mailbox that have not expired and for which `which` holds of ?4,
/// `time`; where they were and what they are, sorted by hash.
fn affected(
    db: &Connection,
    (account, scope, now): (&Account, Scope, u64),
    which: &str,
    time: i64,
    mut what: impl FnMut(i64) -> rusqlite::Result<()>,
) -> rusqlite::Result<Vec<(Namespace, String)>> {
    let namespace = match scope {
        Scope::One(namespace) => Some(namespace.0),
        Scope::All => None,
    };
    let mut find = db.prepare_cached(&format!(
        "SELECT hash, namespace, id FROM messages WHERE account = ?1 AND namespace = ifnull(?2, namespace)
         AND expiry > ?3 AND {which} ORDER BY hash"
    ))?;
    let rows = find.query_map(params![account.0, namespace, now, time], |row| {
        Ok((Namespace(row.get(1)?), row.get::<_, String>(0)?, row.get(2)?))
    })?;
    let found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut affected = Vec::with_capacity(found.len());
    for (namespace, hash, id) in found {
        what(id)?;
        affected.push((namespace, hash));
    }
    Ok(affected)
}
