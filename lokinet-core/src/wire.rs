//! Floor 0: every byte that leaves the process has its shape here, and only here.
pub mod batch;
pub mod id;
