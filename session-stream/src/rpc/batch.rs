//! Calls that hold calls: `batch`, `sequence` and `ifelse`. Neighbours: `node` (runs what they hold).

use super::Call;

/// `ifelse`.
pub struct Branch {
    /// What is done if so.
    pub then: Option<Call>,
}
