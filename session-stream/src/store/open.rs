//! Opening the store's file, whatever state it is in. Neighbours: `store` (works with it), `serve::config` (says where
//! it is).

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::trouble::Notes;
use super::{Journal, SLACK, Store};

/// The layout this program writes; an older one is brought up to it, a newer one is refused.
const LAYOUT: i64 = 1;

/// What makes layout 1.
const TABLES: &str = "
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account BLOB NOT NULL,
    namespace INTEGER NOT NULL,
    hash TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    expiry INTEGER NOT NULL,
    until INTEGER NOT NULL,
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_hash ON messages (account, hash, namespace);
CREATE INDEX messages_box ON messages (account, namespace, id);
CREATE INDEX messages_expiry ON messages (expiry);
CREATE UNIQUE INDEX messages_seq ON messages (seq);
CREATE TABLE gone (
    account BLOB NOT NULL,
    hash TEXT NOT NULL,
    namespace INTEGER NOT NULL,
    until INTEGER NOT NULL,
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (account, hash, namespace)
) STRICT, WITHOUT ROWID;
CREATE INDEX gone_until ON gone (until);
CREATE UNIQUE INDEX gone_seq ON gone (seq);
CREATE TABLE revocations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account BLOB NOT NULL,
    token BLOB NOT NULL,
    at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    UNIQUE (account, token)
) STRICT;
CREATE UNIQUE INDEX revocations_seq ON revocations (seq);
CREATE TABLE cursors (
    peer BLOB PRIMARY KEY,
    span BLOB NOT NULL,
    epoch BLOB NOT NULL,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
INSERT INTO facts VALUES ('epoch', randomblob(16));
";

/// What to do with a damaged file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damaged {
    /// Leave it and stop.
    Refuse,
    /// The operator said so: rename it and begin anew.
    MoveAside,
}

/// Why the store cannot be opened; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no SQLite file any more, or its tables are not ours.
    #[error(
        "{}: the message store is damaged ({why}). Copy the file away if you want to look at it, then start once with \
         --move-damaged-store-aside: it is renamed, a new one is begun, and the swarm's other members fill it again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In SQLite's words.
        why: String,
    },
    /// A newer program wrote it.
    #[error(
        "{}: the message store has layout {found}, this program knows layouts up to {LAYOUT}. Run the newer program \
         that wrote it, or name another file",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// Somebody else has it open.
    #[error("{}: the message store is in use by another process. Stop that one, or name another file", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The disk has no room even for an empty store.
    #[error("{}: the disk is full. Make room, or name a file on another one", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be opened or made.
    #[error(
        "{}: the message store cannot be opened ({why}). See that its directory exists and that this user may write \
         there",
        path.display()
    )]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// In the system's words.
        why: String,
    },
}

impl Store {
    /// Opens the file, or makes it. `cap` is in bytes: how much it may hold.
    ///
    /// # Errors
    /// As [`OpenError`]; a damaged file is renamed rather than refused if `damaged` says so.
    pub fn open(path: &Path, cap: u64, damaged: Damaged) -> Result<Store, OpenError> {
        match Store::attempt(path, cap) {
            Err(OpenError::Damaged { .. }) if damaged == Damaged::MoveAside => {
                move_aside(path).map_err(|why| OpenError::Unreachable { path: path.into(), why: why.to_string() })?;
                Store::attempt(path, cap)
            }
            opened => opened,
        }
    }

    /// A store that is gone when it is dropped.
    ///
    /// # Errors
    /// No memory is left.
    pub fn in_memory(cap: u64) -> Result<Store, OpenError> {
        let path = Path::new(":memory:");
        Store::prepare(Connection::open_in_memory(), path, cap).map_err(|failure| failure.told_of(path))
    }

    fn attempt(path: &Path, cap: u64) -> Result<Store, OpenError> {
        // Without SQLite's own locks: one process, one thread. Links are followed, but names are never read as URIs.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Store::prepare(Connection::open_with_flags(path, flags), path, cap).map_err(|failure| failure.told_of(path))
    }

    fn prepare(db: rusqlite::Result<Connection>, path: &Path, cap: u64) -> Result<Store, Failure> {
        let db = db?;
        db.set_prepared_statement_cache_capacity(64);
        // Another process may be just ending; longer than that it is not.
        db.busy_timeout(Duration::from_secs(1))?;
        // Exclusive: nobody else touches the file while we hold it, and there is no shared memory file to lose.
        db.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -65536;
             PRAGMA journal_size_limit = 67108864;",
        )?;
        let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        match found {
            0 if tables == 0 => {
                db.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {LAYOUT}; COMMIT"))?;
            }
            0 => return Err(Failure::Foreign),
            LAYOUT => {}
            newer => return Err(Failure::Newer(newer)),
        }
        // Every table is touched once, so that damage is met now and not by the first caller. What was numbered last may
        // be gone, but no peer has acknowledged a higher number than it saw.
        let (last, epoch) = db.query_row(
            "SELECT max((SELECT ifnull(max(seq), 0) FROM messages), (SELECT ifnull(max(seq), 0) FROM gone),
                        (SELECT ifnull(max(seq), 0) FROM revocations), (SELECT ifnull(max(seq), 0) FROM cursors)),
                    (SELECT value FROM facts WHERE name = 'epoch'), (SELECT min(expiry) FROM messages)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let page: u64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
        db.pragma_update_and_check(None, "max_page_count", (cap + SLACK) / page, |_| Ok(()))?;
        Ok(Store {
            db,
            cap,
            page,
            epoch,
            journal: Journal(last),
            writing: false,
            undone: None,
            notes: Notes::new(path.to_owned()),
        })
    }
}

/// Renames the file and its journals to the first free `.damaged-N`.
fn move_aside(path: &Path) -> std::io::Result<()> {
    let beside = |end: &str| PathBuf::from(format!("{}{end}", path.display()));
    let mut number = 1;
    while beside(&format!(".damaged-{number}")).exists() {
        number += 1;
    }
    for journal in ["-wal", "-shm"] {
        if beside(journal).exists() {
            std::fs::rename(beside(journal), beside(&format!(".damaged-{number}{journal}")))?;
        }
    }
    std::fs::rename(path, beside(&format!(".damaged-{number}")))
}

enum Failure {
    Sqlite(rusqlite::Error),
    Newer(i64),
    Foreign,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sqlite(error)
    }
}

impl Failure {
    fn told_of(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        let error = match self {
            Failure::Newer(found) => return OpenError::Newer { path, found },
            Failure::Foreign => return OpenError::Damaged { path, why: "its tables are another program's".to_owned() },
            Failure::Sqlite(error) => error,
        };
        let why = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
            Some(ErrorCode::DiskFull) => OpenError::DiskFull { path },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                OpenError::Unreachable { path, why }
            }
            Some(ErrorCode::SystemIoFailure) => OpenError::Unreachable { path, why },
            _ => OpenError::Damaged { path, why },
        }
    }
}
