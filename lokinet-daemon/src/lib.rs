//! The onion router as a host's service: what the `lokinet` program is made of.

pub mod config;
pub mod devnet;
pub mod dns;
pub mod keyfile;
pub mod tun;
