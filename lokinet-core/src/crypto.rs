//! Floor 0: every key. Primitives come from well-kept crates; what stands here is which of them are used, under which
//! labels, and in which order. Everything random takes its randomness as an argument (law 3). Neighbours: `wire` gives
//! the bytes their shape; `link`, `path`, `transit` and `session` hold the values made here.

pub mod blind;
pub mod exchange;
pub mod kdf;
pub mod key;
pub mod onion;
pub mod random;
pub mod seal;
pub mod window;
