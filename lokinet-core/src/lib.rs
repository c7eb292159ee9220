//! The onion router as a library: pure floors and one thin driver.
//!
//! One idea: **the protocol is a machine that never touches the world.** It is told what happened and what time it is,
//! and it answers with what to do. Floors look down only; each line below may use what stands under it:
//!
//! ```text
//! 6  driver            tokio, quinn, UDP, clock, disk          the only floor that acts (cargo feature "driver")
//! 5  node              the machines wired together             wiring only
//! 4  flow              IP packets, leased addresses, DNS answers
//! 3  session           conversations with .loki; publishing
//! 2  path | transit    paths we own | hops we lend to strangers
//! 1  netdb | link      whom we know | whom we touch
//! 0  wire over crypto  every byte | every key; time beside them
//! ```

pub mod crypto;
#[cfg(feature = "driver")]
pub mod driver;
pub mod flow;
pub mod link;
pub mod netdb;
pub mod node;
pub mod path;
pub mod queue;
pub mod session;
pub mod shared;
pub mod spec;
pub mod time;
pub mod transit;
pub mod wire;
