//! The registry: who is a relay at all. A list signed by at least `threshold` of the authorities a network's users
//! configure; a key that is not in it cannot be a hop, whatever contact it shows. Neighbours: `contact` is what listed
//! relays say of themselves; `netdb` holds the newest registry.

use crate::crypto::key::{self, Identity, SIGNATURE};
use crate::time::Wall;
use crate::wire::addrs::Addrs;
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::contact::{NETID, NetId};
use crate::wire::id::RelayId;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Most relays one registry lists.
pub const MAX_RELAYS: usize = 20_000;

const VERSION: u8 = 1;
const PURPOSE: &str = "registry";

/// One registered relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Its key.
    pub id: RelayId,
    /// Who runs it, by number; two relays of one operator are never on one path. 0 means "nobody else's".
    pub operator: u32,
    /// Where it can be reached before its contact is known; empty for most.
    pub hint: Addrs,
}

/// Why a registry does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It cannot be read.
    #[error("this is not a registry file")]
    Malformed,
    /// Another network's.
    #[error("it belongs to another network ([router] netid)")]
    OtherNetwork,
    /// Not yet or no longer valid.
    #[error("it is not valid now (expired, or the clock is wrong)")]
    OutOfTime,
    /// Too few authorities signed it.
    #[error("too few of the configured authorities have signed it ([registry] authority, threshold)")]
    TooFewSignatures,
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Refused {
        Refused::Malformed
    }
}

/// A verified registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// Rises with every edition.
    pub serial: u64,
    /// When it stops counting.
    pub until: Wall,
    relays: BTreeMap<RelayId, (u32, Addrs)>,
    /// The signed bytes.
    pub signed: Bytes,
}

impl Registry {
    /// Reads and verifies a registry: at least `threshold` (and at least one) of `authorities` must have signed it.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify(
        signed: Bytes,
        netid: NetId,
        authorities: &[[u8; 32]],
        threshold: usize,
        now: Wall,
    ) -> Result<Registry, Refused> {
        let (registry, from) = Registry::signed_by(signed, netid, authorities, threshold)?;
        if now < from || now >= registry.until {
            return Err(Refused::OutOfTime);
        }
        Ok(registry)
    }

    /// The newer of this edition and the one that an earlier run kept. That one must have its signatures still; its time
    /// may be over, since whoever can show us an old edition must gain nothing by making us start again.
    pub fn or_kept(self, kept: Option<&Bytes>, netid: NetId, authorities: &[[u8; 32]], threshold: usize) -> Registry {
        match kept.map(|kept| Registry::signed_by(kept.clone(), netid, authorities, threshold)) {
            Some(Ok((kept, _))) if kept.serial >= self.serial => kept,
            _ => self,
        }
    }

    /// An edition, and when it begins to count.
    fn signed_by(
        signed: Bytes,
        netid: NetId,
        authorities: &[[u8; 32]],
        threshold: usize,
    ) -> Result<(Registry, Wall), Refused> {
        let mut reader = Reader::new(&signed);
        if reader.u8()? != VERSION {
            return Err(Refused::Malformed);
        }
        if NetId(reader.array::<NETID>()?) != netid {
            return Err(Refused::OtherNetwork);
        }
        let (serial, from, until) = (reader.u64()?, Wall::from_secs(reader.u64()?), Wall::from_secs(reader.u64()?));
        let count = usize::from(reader.u16()?);
        if count > MAX_RELAYS {
            return Err(Refused::Malformed);
        }
        let mut relays = BTreeMap::new();
        for _ in 0..count {
            let id = RelayId(reader.array()?);
            let entry = (reader.u32()?, Addrs::read(&mut reader)?);
            if relays.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(Refused::Malformed);
            }
            relays.insert(id, entry);
        }
        let signers = usize::from(reader.u8()?);
        let end = signed.len().checked_sub(signers * (32 + SIGNATURE) + 1).ok_or(Refused::Malformed)?;
        let body = &signed[..end];
        let mut counted: Vec<[u8; 32]> = Vec::new();
        for _ in 0..signers {
            let (authority, signature) = (reader.array()?, reader.array()?);
            let known = authorities.contains(&authority) && !counted.contains(&authority);
            if known && key::verify(&authority, PURPOSE, body, &signature) {
                counted.push(authority);
            }
        }
        reader.end()?;
        if counted.len() < threshold.max(1) {
            return Err(Refused::TooFewSignatures);
        }
        Ok((Registry { serial, until, relays, signed }, from))
    }

    /// Whether this key is a relay's.
    pub fn lists(&self, id: &RelayId) -> bool {
        self.relays.contains_key(id)
    }

    /// The operator's number of a listed relay.
    pub fn operator(&self, id: &RelayId) -> Option<u32> {
        self.relays.get(id).map(|(operator, _)| *operator)
    }

    /// The address hint of a listed relay; empty for most.
    pub fn hint(&self, id: &RelayId) -> Option<Addrs> {
        self.relays.get(id).map(|(_, hint)| *hint)
    }

    /// All listed relays, by id, with their address hints.
    pub fn relays(&self) -> impl Iterator<Item = (&RelayId, &Addrs)> {
        self.relays.iter().map(|(id, (_, hint))| (id, hint))
    }

    /// How many relays are listed.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether it lists nobody.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }
}

/// Makes and signs a registry (authorities' side). Listings are sorted and repeated ids dropped.
pub fn sign(
    netid: NetId,
    serial: u64,
    from: Wall,
    until: Wall,
    listings: &[Listing],
    authorities: &[Identity],
) -> Bytes {
    let sorted: BTreeMap<RelayId, &Listing> = listings.iter().map(|l| (l.id, l)).collect();
    let mut writer = Writer::new(64 + sorted.len() * 64);
    writer.u8(VERSION).bytes(&netid.0).u64(serial).u64(from.secs()).u64(until.secs()).u16(sorted.len() as u16);
    for listing in sorted.values() {
        writer.bytes(&listing.id.0).u32(listing.operator);
        listing.hint.write(&mut writer);
    }
    let mut bytes = writer.done();
    let signatures: Vec<_> = authorities.iter().map(|a| (a.public(), a.sign(PURPOSE, &bytes))).collect();
    bytes.push(signatures.len() as u8);
    for (authority, signature) in signatures {
        bytes.extend_from_slice(&authority);
        bytes.extend_from_slice(&signature);
    }
    bytes.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn t_of_n_distinct_authorities() {
        let netid = NetId::new("devnet").unwrap();
        let authorities: Vec<Identity> = (1..=3u8).map(|i| Identity::from_seed(&[i; 32])).collect();
        let publics: Vec<[u8; 32]> = authorities.iter().map(Identity::public).collect();
        let listings: Vec<Listing> =
            (0..5u8).map(|i| Listing { id: RelayId([i; 32]), operator: i.into(), hint: Addrs::default() }).collect();
        let (from, until, now) = (Wall::from_secs(10), Wall::from_secs(100), Wall::from_secs(50));
        let two = sign(netid, 1, from, until, &listings, &authorities[..2]);
        let registry = Registry::verify(two.clone(), netid, &publics, 2, now).unwrap();
        assert_eq!(registry.len(), 5);
        assert!(registry.lists(&RelayId([3; 32])) && !registry.lists(&RelayId([9; 32])));
        let refused =
            |bytes: &Bytes, threshold, now| Registry::verify(bytes.clone(), netid, &publics, threshold, now).err();
        assert_eq!(refused(&two, 3, now), Some(Refused::TooFewSignatures));
        assert_eq!(refused(&two, 2, Wall::from_secs(100)), Some(Refused::OutOfTime));
        let doubled = sign(netid, 1, from, until, &listings, &[authorities[0].clone(), authorities[0].clone()]);
        assert_eq!(refused(&doubled, 2, now), Some(Refused::TooFewSignatures));
        let mut bent = two.to_vec();
        bent[60] ^= 1;
        assert!(refused(&bent.into(), 1, now).is_some());
        for cut in 0..two.len() {
            assert!(refused(&two.slice(..cut), 1, now).is_some(), "cut at {cut}");
        }
    }
}
