//! The onion router as a host's service: what the `lokinet` program is made of.
//!
//! `cli` reads what was asked. The daemon is `run`, which wires `config` and `keyfile` (what the owner wants), `tun` and
//! `dns` (what programs see), `control` (what its owner asks) and `notify` (what systemd asks) around the core's driver;
//! `assemble` makes the node from files. `devnet` runs whole networks of it.

pub mod assemble;
pub mod cli;
pub mod config;
pub mod control;
pub mod devnet;
pub mod dns;
pub mod keyfile;
mod log;
mod notify;
pub mod run;
pub mod trouble;
pub mod tun;
pub mod view;
