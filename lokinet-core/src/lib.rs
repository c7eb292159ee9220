//! The onion router as a library.
pub mod crypto;
pub mod flow;
pub mod link;
pub mod netdb;
pub mod node;
pub mod path;
pub mod session;
pub mod time;
pub mod transit;
pub mod wire;
