//! Connection ids that only their maker can tell from chance, and what is answered to who still uses one that its maker
//! has forgotten. An id is 4 pseudo-random bytes and 4 bytes of a keyed hash over them: to the eye it looks like a
//! cell's channel id; to quinn a stray cell of a forgotten channel is known as not ours, and not answered. An id of ours
//! is answered with a stateless reset. A relay's two keys grow from its seed, so that after a crash it knows the ids of
//! its life before, and its neighbours learn at once that they speak to nobody. Neighbours: `quic` gives these to each
//! endpoint.

use crate::crypto::kdf;
use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;
use quinn_proto::crypto::{CryptoError, HmacKey};
use sha2::{Digest, Sha256};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use zeroize::Zeroizing;

/// The keys of one endpoint.
pub(super) struct Keys {
    ids: Zeroizing<[u8; 32]>,
    resets: Zeroizing<[u8; 32]>,
}

impl Keys {
    /// Those of a relay's endpoint, the same at every start. Each endpoint has its own: else one would answer for ids of
    /// another's living links, and whoever had seen such an id could have the answer end that link.
    pub(super) fn of_relay(seed: &[u8; 32], endpoint: SocketAddr) -> Keys {
        let place = endpoint.to_string();
        let key = |label| kdf::expand(seed, label, &[place.as_bytes()]);
        Keys { ids: key("connection ids"), resets: key("stateless resets") }
    }

    /// Those of a client's, forgotten with it.
    pub(super) fn from_os() -> io::Result<Keys> {
        Ok(Keys { ids: fresh()?, resets: fresh()? })
    }

    /// What makes and knows the endpoint's ids.
    pub(super) fn ids(&self) -> io::Result<Keyed> {
        Ok(Keyed { key: self.ids.clone(), life: fresh()?, made: 0 })
    }

    /// What makes its stateless resets.
    pub(super) fn resets(&self) -> Resets {
        Resets(self.resets.clone())
    }
}

fn fresh() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut_slice()).map_err(io::Error::other)?;
    Ok(key)
}

/// Makes and recognises the ids of one endpoint.
#[derive(Clone)]
pub(super) struct Keyed {
    key: Zeroizing<[u8; 32]>,
    /// Fresh at every start: an id, and the reset that belongs to it, never come again.
    life: Zeroizing<[u8; 32]>,
    made: u64,
}

fn hash(key: &[u8; 32], of: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(key).chain_update(of).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

impl ConnectionIdGenerator for Keyed {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made += 1;
        let mut id = [0; 8];
        let nonce = hash(&self.life, &self.made.to_le_bytes());
        id[..4].copy_from_slice(&nonce);
        id[4..].copy_from_slice(&hash(&self.key, &nonce));
        ConnectionId::new(&id)
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        match cid.split_at_checked(4) {
            Some((nonce, tag)) if tag == hash(&self.key, nonce) => Ok(()),
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

/// Makes the token that a stateless reset shows; the other side was told it, under TLS, with the id.
pub(super) struct Resets(Zeroizing<[u8; 32]>);

impl Resets {
    fn token(&self, id: &[u8]) -> Zeroizing<[u8; 32]> {
        kdf::expand(&self.0, "reset token", &[id])
    }
}

impl HmacKey for Resets {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.token(data).as_slice());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let token = self.token(data);
        let differ = token.iter().zip(signature).fold(0, |differ, (one, other)| differ | (one ^ other));
        if signature.len() == token.len() && differ == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_its_maker_knows_a_connection_id() {
        let (mut ours, theirs) = (Keys::from_os().unwrap().ids().unwrap(), Keys::from_os().unwrap().ids().unwrap());
        let (one, two) = (ours.generate_cid(), ours.generate_cid());
        assert_ne!(one, two);
        assert!(ours.validate(&one).is_ok() && ours.validate(&two).is_ok());
        assert!(theirs.validate(&one).is_err());
    }

    #[test]
    fn a_relay_that_starts_again_knows_its_ids_and_makes_none_of_them_again() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let (before, after) = (Keys::of_relay(&[1; 32], at(1090)), Keys::of_relay(&[1; 32], at(1090)));
        let (mut old, mut new) = (before.ids().unwrap(), after.ids().unwrap());
        let id = old.generate_cid();
        assert!(new.validate(&id).is_ok());
        assert_eq!(before.resets().token(&id), after.resets().token(&id));
        assert!((0..100).all(|_| new.generate_cid() != id));
        for other in [Keys::of_relay(&[1; 32], at(1091)), Keys::of_relay(&[2; 32], at(1090))] {
            assert!(other.ids().unwrap().validate(&id).is_err(), "another endpoint answers for our ids");
            assert_ne!(other.resets().token(&id), before.resets().token(&id));
        }
    }
}
