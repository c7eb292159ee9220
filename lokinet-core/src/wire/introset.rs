//! Introsets: how a service says where it can be met. Signed under the key blinded for the period, readable only by
//! those who know the address, of one size whatever is inside. Relays that store it see [`Envelope`] and no more.
//! Neighbours: `session::publish` makes them, `netdb::shelf` keeps them for others, `session::call` reads them.

use crate::crypto::blind::{self, Blinded};
use crate::crypto::exchange::PUBLIC;
use crate::crypto::kdf;
use crate::crypto::key::{self, Identity, SIGNATURE};
use crate::crypto::random::Chance;
use crate::crypto::seal::{self, TAG};
use crate::time::Wall;
use crate::wire::build::TOKEN;
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::id::RelayId;
use bytes::Bytes;
use core::time::Duration;

/// Most leases an introset names.
pub const MAX_LEASES: usize = 6;
/// The sealed part before sealing, padded to this length, in bytes.
pub const INSIDE: usize = 2048;
/// A whole introset, in bytes.
pub const INTROSET: usize = 1 + 32 + 8 + 8 + 8 + SALT + INSIDE + TAG + SIGNATURE;
/// The longest an introset may be valid.
pub const LIFETIME: Duration = Duration::from_secs(3600);

const SALT: usize = 16;
const VERSION: u8 = 1;
const PURPOSE: &str = "introset";

/// One place to meet the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The relay at the end of the service's path.
    pub pivot: RelayId,
    /// What to show there.
    pub token: [u8; TOKEN],
    /// When the path ends.
    pub until: Wall,
}

/// What callers learn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introset {
    /// The key that session handshakes are sealed to.
    pub handshake: Box<[u8; PUBLIC]>,
    /// Where to meet.
    pub leases: Vec<Lease>,
}

/// What anybody sees.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The blinded key it is stored under.
    pub key: [u8; 32],
    /// The period the key belongs to.
    pub period: u64,
    /// Rises with every edition; relays refuse older ones.
    pub revision: u64,
    /// When it stops counting.
    pub until: Wall,
    salt: [u8; SALT],
    /// The signed bytes.
    pub signed: Bytes,
}

impl Introset {
    /// Seals and signs for one period; `None` only if the identity's key cannot be blinded (it then has no curve
    /// point).
    pub fn publish(
        &self,
        identity: &Identity,
        period: u64,
        revision: u64,
        until: Wall,
        chance: &mut Chance,
    ) -> Option<Bytes> {
        let blinded = Blinded::new(identity, period)?;
        let mut inside = Writer::new(INSIDE + TAG);
        inside.bytes(self.handshake.as_slice()).u8(self.leases.len().min(MAX_LEASES) as u8);
        inside.bytes(&leases_bytes(&self.leases));
        inside.pad(INSIDE);
        let salt: [u8; SALT] = chance.bytes();
        let mut writer = Writer::new(INTROSET);
        writer.u8(VERSION).bytes(&blinded.public()).u64(period).u64(revision).u64(until.secs()).bytes(&salt);
        let mut bytes = writer.done();
        let mut inside = inside.done();
        seal::once(&reading_key(&identity.public(), period, &salt), "introset", &bytes, &mut inside);
        bytes.extend_from_slice(&inside);
        let signature = blinded.sign(PURPOSE, &bytes)?;
        bytes.extend_from_slice(&signature);
        Some(bytes.into())
    }
}

impl Envelope {
    /// Reads and verifies what a relay can see: shape, times, signature, in that order.
    ///
    /// # Errors
    /// It does not count now.
    pub fn verify(signed: Bytes, now: Wall) -> Result<Envelope, Malformed> {
        let mut reader = Reader::new(&signed);
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let key = reader.array()?;
        let (period, revision, until) = (reader.u64()?, reader.u64()?, Wall::from_secs(reader.u64()?));
        let salt = reader.array()?;
        reader.bytes(INSIDE + TAG)?;
        let signature = reader.array()?;
        reader.end()?;
        let adjacent = blind::period(now).abs_diff(period) <= 1;
        if !adjacent || until <= now || until > now.plus(LIFETIME + Duration::from_secs(600)) {
            return Err(Malformed);
        }
        if !key::verify(&key, PURPOSE, &signed[..INTROSET - SIGNATURE], &signature) {
            return Err(Malformed);
        }
        Ok(Envelope { key, period, revision, until, salt, signed })
    }

    /// Opens it with the address it was published for; `None` when it is another's.
    pub fn open(&self, address: &[u8; 32]) -> Option<Introset> {
        if blind::public(address, self.period)? != self.key {
            return None;
        }
        let front = 1 + 32 + 8 + 8 + 8 + SALT;
        let sealed = self.signed.get(front..front + INSIDE + TAG)?;
        let inside = seal::open_once(
            &reading_key(address, self.period, &self.salt),
            "introset",
            self.signed.get(..front)?,
            sealed,
        )?;
        let mut reader = Reader::new(&inside);
        let handshake = Box::new(reader.array().ok()?);
        let count = usize::from(reader.u8().ok()?);
        if count > MAX_LEASES {
            return None;
        }
        let leases = (0..count).map(|_| Lease::read(&mut reader)).collect::<Result<_, _>>().ok()?;
        Some(Introset { handshake, leases })
    }
}

impl Lease {
    fn read(reader: &mut Reader<'_>) -> Result<Lease, Malformed> {
        let (pivot, token) = (RelayId(reader.array()?), reader.array()?);
        Ok(Lease { pivot, token, until: Wall::from_secs(reader.u64()?) })
    }
}

/// Leases one after the other, at most [`MAX_LEASES`].
pub fn leases_bytes(leases: &[Lease]) -> Vec<u8> {
    let mut writer = Writer::default();
    for lease in leases.iter().take(MAX_LEASES) {
        writer.bytes(&lease.pivot.0).bytes(&lease.token).u64(lease.until.secs());
    }
    writer.done()
}

/// Reads leases until nothing is left.
///
/// # Errors
/// A piece of one, or too many.
pub fn leases(bytes: &[u8]) -> Result<Vec<Lease>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut leases = Vec::new();
    while !reader.is_empty() {
        if leases.len() == MAX_LEASES {
            return Err(Malformed);
        }
        leases.push(Lease::read(&mut reader)?);
    }
    Ok(leases)
}

fn reading_key(address: &[u8; 32], period: u64, salt: &[u8; SALT]) -> zeroize::Zeroizing<[u8; 32]> {
    kdf::extract(&kdf::digest("introset reader", &[&period.to_be_bytes(), salt]), &[address])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_opens_it_and_relays_see_an_envelope() {
        let mut chance = Chance::new([1; 32]);
        let identity = Identity::from_seed(&[2; 32]);
        let now = Wall::from_secs(20_000 * 86_400 + 500);
        let lease = Lease { pivot: RelayId([7; 32]), token: [8; TOKEN], until: now.plus(Duration::from_secs(600)) };
        let introset = Introset { handshake: Box::new([9; PUBLIC]), leases: vec![lease; 4] };
        let period = blind::period(now);
        let until = now.plus(Duration::from_secs(900));
        let signed = introset.publish(&identity, period, 3, until, &mut chance).unwrap();
        assert_eq!(signed.len(), INTROSET);
        let envelope = Envelope::verify(signed.clone(), now).unwrap();
        assert_eq!(envelope.open(&identity.public()), Some(introset.clone()));
        assert_eq!(envelope.open(&Identity::from_seed(&[3; 32]).public()), None);
        assert!(!signed.windows(32).any(|w| w == identity.public()));
        assert!(Envelope::verify(signed.clone(), until).is_err(), "expired");
        for at in (0..INTROSET).step_by(53) {
            let mut bent = signed.to_vec();
            bent[at] ^= 1;
            assert!(Envelope::verify(bent.into(), now).is_err(), "byte {at}");
        }
        let next = introset.publish(&identity, period + 1, 3, until, &mut chance).unwrap();
        let next = Envelope::verify(next, now).unwrap();
        assert_ne!(next.key, envelope.key, "periods cannot be linked by key");
    }
}
