//! What the store's operator has to know: the file, what is wrong with it, and what to do. Callers are told less.
//! Neighbours: `store` (notes it), `node` (hands it on).

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::{Error, Store};

/// An error and its file; its words are for the operator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {}", path.display(), remedy(error))]
pub struct Trouble {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub error: Error,
}

fn remedy(error: &Error) -> String {
    match error {
        Error::Capped => {
            "the message store has reached its cap, new messages are refused. Raise --store-size, or wait \
                          until messages expire"
                .to_owned()
        }
        Error::DiskFull => "the disk is full, every change is refused and nothing is lost. Make room".to_owned(),
        Error::Damaged => {
            "the message store is damaged. Stop the node and copy the file away if you want to look at it, \
                           then start once with --move-damaged-store-aside: it is renamed, a new one is begun, and the \
                           swarm's other members fill it again"
                .to_owned()
        }
        Error::Failed(why) => {
            format!("the message store does not work ({why}), changes are refused and nothing is lost. See to the disk")
        }
    }
}

/// Where the store is, and what was wrong since somebody asked last.
pub(super) struct Notes {
    path: PathBuf,
    last: Mutex<Option<Error>>,
}

impl Notes {
    pub(super) fn new(path: PathBuf) -> Notes {
        Notes { path, last: Mutex::new(None) }
    }
}

impl Store {
    /// Remembers an error for the operator.
    pub(super) fn note(&self, error: Error) -> Error {
        *self.notes.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        error
    }

    /// What was wrong since this was asked last.
    pub fn trouble(&self) -> Option<Trouble> {
        let error = self.notes.last.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Trouble { path: self.notes.path.clone(), error })
    }
}
