//! What the tests share: the simulated world, in which real nodes live on one clock and one queue. The scenarios
//! themselves are in `tests/tests`, benches in `tests/bench`.

pub mod person;
pub mod world;
