//! Floor 0: every byte that leaves the process has its shape here, and only here. Layouts are fixed, integers are
//! big-endian, lengths are checked before anything is believed, and nothing may follow the last field.

pub mod address;
pub mod addrs;
pub mod batch;
pub mod build;
pub mod cell;
pub mod codec;
pub mod contact;
pub mod control;
pub mod fragment;
pub mod id;
pub mod introset;
pub mod packet;
pub mod registry;
pub mod request;
pub mod session;
