//! Names of things on the wire that are not addresses: who a relay is, which path a cell belongs to. Small copyable
//! values with a silent `Debug`, so that a stray log line cannot name anybody. Neighbours: `address` prints relay ids
//! for people; every other wire file carries these.

use core::fmt;

/// A relay's long-term Ed25519 public key, and so its name everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub [u8; 32]);

impl fmt::Debug for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayId(..)")
    }
}

impl RelayId {
    /// The XOR distance to a 32-byte position, as storage and look-ups order relays by it.
    pub fn distance(&self, position: &[u8; 32]) -> [u8; 32] {
        core::array::from_fn(|i| self.0[i] ^ position[i])
    }
}

/// A path's name on one link: chosen at random by the client, different on every link, the same in both directions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PathId(pub u32);

/// A caller's name at the pivot, inside the service's path; 0 on the caller's own path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallerId(pub u32);

/// A conversation's name in its receiver's table; 0 stands for "not agreed yet" (handshake fragments).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u32);
