//! What Session's clients and nodes speak: storage, swarms, push, onion requests and files, with QUIC at both ends.
//!
//! As in `lokinet-core`, the hard part is a machine that is told what happened and what time it is, and answers with
//! what to do: [`node`]. It keeps its messages in SQLite ([`store`]), in a file in life and in memory in a simulated
//! swarm. Floors look down only; each line below may use what stands under it:
//!
//! ```text
//! 5  serve | client | registry   sockets: HTTPS, QUIC, the node list; a client's connections; a private network's list
//! 4  quic, http       how either end speaks over a socket
//! 3  node             the machine: calls in, answers, questions to peers and pushes out    wiring only
//! 2  rpc | push | transfer | onion    what a call does | who is told | what moves house | layers of a request
//! 1  store | swarm over account       what is kept | who keeps it; who may
//! 0  value, bt, frame                 every byte
//! ```

pub mod account;
pub mod bt;
pub mod client;
pub mod frame;
pub mod http;
pub mod node;
pub mod onion;
pub mod push;
pub mod quic;
pub mod registry;
pub mod rpc;
pub mod serve;
pub mod store;
pub mod swarm;
pub mod transfer;
pub mod value;
