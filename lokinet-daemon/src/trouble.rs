//! What went wrong, in words for the person at the terminal, and the exit code that goes with it.

use std::fmt::Display;

/// One sentence with its remedy.
#[derive(Debug)]
pub struct Trouble {
    /// The sentence.
    pub what: String,
    /// The exit code: 1 for what failed, 2 for what cannot be asked.
    pub code: u8,
}

/// A result whose error is for a person.
pub type Outcome<T> = Result<T, Trouble>;

impl Trouble {
    /// Something failed.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), code: 1 }
    }

    /// Something was asked that cannot be had.
    pub fn refusal(what: impl Into<String>) -> Self {
        Self { what: what.into(), code: 2 }
    }
}

/// Puts an error of the system after what we were about to do.
pub trait OrTrouble<T> {
    /// `what` names the thing and the file.
    fn or_trouble(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Display> OrTrouble<T> for Result<T, E> {
    fn or_trouble(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Trouble::new(format!("{}: {error}", what())))
    }
}
