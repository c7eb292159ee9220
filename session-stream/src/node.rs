//! The machine: one storage node, told what happened and what time it is, answering with what to do. Neighbours: `rpc`,
//! `push`, `transfer` and `onion` (what it wires together), `serve` (which does what it says with real sockets).

pub mod io;
