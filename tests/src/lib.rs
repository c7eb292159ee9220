//! What the tests share: the simulated world, in which real nodes live on one clock and one queue (`person` uses
//! it as a program would), relays in a `row` without a world, what `statistics` say about what was seen, and the labs,
//! in which real daemons live in namespaces. The scenarios themselves are in `tests/tests`, benches in `tests/bench`.
//! `fuzz` is what strangers may throw at us; `tests/fuzz` throws it.

/// How to write a scenario; its example is compiled and run as a test.
#[doc = include_str!("../README.md")]
pub mod guide {}

pub mod fuzz;
pub mod lab;
pub mod person;
pub mod row;
pub mod scale;
pub mod statistics;
pub mod villain;
pub mod world;
