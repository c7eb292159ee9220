//! The configuration's doors, opened for the fuzzers in `tests` alone: a file's bytes to settings or complaints, with
//! interfaces that need no host. Neighbours: `ini` reads, `settle` judges.

use super::{Complaint, Complaints, Place, Role, ini};
use std::net::IpAddr;
use std::path::Path;

/// Whether the bytes of `t.ini` are a configuration; if not, every complaint as people see it.
///
/// # Errors
/// Every complaint.
pub fn settle(text: &[u8], role: Role) -> Result<(), Vec<String>> {
    let path = Path::new("t.ini");
    let files = vec![ini::parse(path, text)];
    let interfaces = |name: &str| -> Option<Vec<IpAddr>> { (name == "eth0").then(|| vec![[1, 1, 1, 1].into()]) };
    super::settle(files, role, Path::new("/nonexistent"), Place::whole(path), Complaints::default(), &interfaces)
        .map(|_| ())
        .map_err(|complaints| complaints.errors.iter().map(Complaint::to_string).collect())
}
