//! What is wrong with a configuration, said so that the reader can mend it: the place, the fault and the remedy.
//! Neighbours: every file of `config` makes these; `lokinet check` and the start of the daemon print them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A line of a file; line 0 stands for the file as a whole.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<Path>,
    /// The line, counted from 1.
    pub line: usize,
}

impl Place {
    /// The file as a whole.
    pub fn whole(file: &Path) -> Place {
        Place { file: file.into(), line: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// One fault of a configuration, or one thing in it that has no effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Complaint {
    /// A complaint about a place.
    pub fn new(place: &Place, what: impl Into<String>, remedy: impl Into<String>) -> Complaint {
        Complaint { place: place.clone(), what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.remedy)
    }
}

impl std::error::Error for Complaint {}

/// Everything said about a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Complaints {
    /// Why it cannot be used.
    pub errors: Vec<Complaint>,
    /// What has no effect in it, or an effect that may surprise.
    pub warnings: Vec<Complaint>,
}

impl Complaints {
    /// One more reason why it cannot be used.
    pub fn error(&mut self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.errors.push(Complaint::new(place, what, remedy));
    }

    /// One more thing to know.
    pub fn warn(&mut self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Complaint::new(place, what, remedy));
    }

    /// In the order in which a reader goes through the files.
    pub fn sorted(mut self) -> Complaints {
        self.errors.sort_by(|a, b| a.place.cmp(&b.place));
        self.warnings.sort_by(|a, b| a.place.cmp(&b.place));
        self
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            let line_break = if at == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}
