//! Connection ids that only their maker can tell from chance: 4 pseudo-random bytes and 4 bytes of a keyed hash over
//! them. To the eye they look like a cell's channel id; to quinn they let a stray cell of a forgotten channel be known
//! as not ours, so that it is not answered with a stateless reset. Neighbours: `quic` gives one to each endpoint.

use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;
use sha2::{Digest, Sha256};
use std::io;
use std::time::Duration;

/// Makes and recognises the ids of one endpoint.
#[derive(Clone)]
pub(super) struct Keyed {
    key: [u8; 32],
    made: u64,
}

impl Keyed {
    pub(super) fn from_os() -> io::Result<Keyed> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        Ok(Keyed { key, made: 0 })
    }

    fn hash(&self, what: u8, of: &[u8]) -> [u8; 4] {
        let digest = Sha256::new().chain_update(self.key).chain_update([what]).chain_update(of).finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }
}

impl ConnectionIdGenerator for Keyed {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made += 1;
        let mut id = [0; 8];
        let nonce = self.hash(0, &self.made.to_le_bytes());
        id[..4].copy_from_slice(&nonce);
        id[4..].copy_from_slice(&self.hash(1, &nonce));
        ConnectionId::new(&id)
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        match cid.split_at_checked(4) {
            Some((nonce, tag)) if tag == self.hash(1, nonce) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
