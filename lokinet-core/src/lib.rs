//! The onion router as a library.
#[cfg(feature = "driver")]
pub mod driver;
pub mod flow;
pub mod node;
pub mod time;
pub mod wire;
