//! What is kept: messages and revocations, in one SQLite file. Neighbours: `rpc` (asks for everything here), `transfer`
//! (reads it through for new members), `node` (commits).
//!
//! Writes gather in one transaction until [`Store::commit`], so that a hundred of them cost one fsync; whoever
//! acknowledges one before that is wrong. Nothing is served that has expired, whether or not it was swept away yet.
//! [`messages`] and [`revocations`] are the two tables, [`replica`] is what members compare of them, [`open`] is how a
//! file is met that is damaged, newer or in use.

pub mod messages;
pub mod open;
pub mod replica;
pub mod revocations;
mod trouble;

use rusqlite::{Connection, ErrorCode};

pub use messages::{Change, Message, Stored};
pub use open::{Damaged, OpenError};
pub use trouble::Trouble;

/// How much a store may hold unless its operator says otherwise: 10 GiB.
pub const CAP_DEFAULT: u64 = 10 << 30;

/// What may be held beyond the cap: room for revocations and deletions when the store is full.
const SLACK: u64 = 64 << 20;

/// The store of one node.
pub struct Store {
    db: Connection,
    cap: u64,
    page: u64,
    /// Drawn when the file was made: whoever has told us something knows by it whether we can still know.
    epoch: [u8; 16],
    journal: Journal,
    writing: bool,
    /// What undid writes of this transaction that somebody believes in.
    undone: Option<Error>,
    notes: trouble::Notes,
}

/// Numbers every change, so that who has seen one has seen all before it.
struct Journal(i64);

impl Journal {
    fn next(&mut self) -> i64 {
        self.0 += 1;
        self.0
    }
}

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It holds as much as it may.
    #[error("the message store has reached its cap")]
    Capped,
    /// The disk holds as much as it can.
    #[error("the disk that holds the message store is full")]
    DiskFull,
    /// What is in the file makes no sense.
    #[error("the message store is damaged")]
    Damaged,
    /// Anything else, in SQLite's words.
    #[error("the message store failed: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Error::DiskFull,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Damaged,
            _ => Error::Failed(error.to_string()),
        }
    }
}

impl Store {
    /// Keeps everything written since the last time: when this returns, it survives a crash.
    ///
    /// # Errors
    /// Nothing of it is kept.
    pub fn commit(&mut self) -> Result<(), Error> {
        if let Some(undone) = self.undone.take() {
            self.abandon();
            return Err(undone);
        }
        if !self.writing {
            return Ok(());
        }
        if let Err(error) = self.db.execute_batch("COMMIT") {
            self.abandon();
            return Err(self.note(error.into()));
        }
        self.writing = false;
        Ok(())
    }

    /// Takes back everything written since the last commit.
    fn abandon(&mut self) {
        // Nothing is left to take back when SQLite has done it itself.
        let _ = self.db.execute_batch("ROLLBACK");
        self.writing = false;
    }

    /// Does `change` as a whole or not at all, within the transaction that the next commit keeps.
    fn write<T>(&mut self, change: impl FnOnce(&Connection, &mut Journal) -> rusqlite::Result<T>) -> Result<T, Error> {
        if let Some(undone) = &self.undone {
            return Err(undone.clone());
        }
        self.try_write(change).map_err(|error| self.note(error))
    }

    fn try_write<T>(
        &mut self,
        change: impl FnOnce(&Connection, &mut Journal) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        if !self.writing {
            self.db.execute_batch("BEGIN IMMEDIATE")?;
            self.writing = true;
        }
        self.db.execute_batch("SAVEPOINT change")?;
        let done = change(&self.db, &mut self.journal);
        if self.db.is_autocommit() {
            // A full disk may undo the whole transaction, and with it what others were promised.
            let error = done.err().map_or(Error::Failed("the transaction was lost".to_owned()), Error::from);
            self.undone = Some(error.clone());
            return Err(error);
        }
        if done.is_err() {
            self.db.execute_batch("ROLLBACK TO change")?;
        }
        self.db.execute_batch("RELEASE change")?;
        Ok(done?)
    }

    /// Bytes in use, of those that the file occupies.
    ///
    /// # Errors
    /// The store does not work.
    pub fn size(&self) -> Result<u64, Error> {
        let pages = |what| self.db.pragma_query_value(None, what, |row| row.get::<_, u64>(0));
        Ok((pages("page_count")? - pages("freelist_count")?) * self.page)
    }
}
