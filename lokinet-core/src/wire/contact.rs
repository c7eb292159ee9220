//! A relay's contact: where it listens and which onion key it opens builds with, signed by itself. A contact is bytes
//! until it is verified; only [`Contact`], which [`Contact::verify`] alone can make, enters the netdb. Neighbours:
//! `registry` says whether the signer is a relay at all, `netdb` keeps them.

use crate::crypto::exchange;
use crate::crypto::kdf;
use crate::crypto::key::{self, Identity, SIGNATURE};
use crate::time::Wall;
use crate::wire::addrs::{ADDRS, Addrs};
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::control::Name;
use crate::wire::id::RelayId;
use bytes::Bytes;
use core::time::Duration;

/// Encoded length, in bytes.
pub const CONTACT: usize = 1 + NETID + 32 + exchange::PUBLIC + 8 + 8 + 1 + ADDRS + SIGNATURE;
/// Length of a network's name on the wire, padded with zeros, in bytes.
pub const NETID: usize = 8;
/// How long a contact is believed after it was signed.
pub const LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// How far in the future a contact may have been signed.
pub const SKEW: Duration = Duration::from_secs(600);

const VERSION: u8 = 1;
const PURPOSE: &str = "contact";

/// A network's name, as the wire carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetId(pub [u8; NETID]);

impl NetId {
    /// From text of 1 to 8 bytes.
    pub fn new(text: &str) -> Option<NetId> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > NETID || bytes.contains(&0) {
            return None;
        }
        let mut id = [0; NETID];
        id[..bytes.len()].copy_from_slice(bytes);
        Some(NetId(id))
    }
}

/// What a relay says about itself.
#[derive(Clone, Debug)]
pub struct Card {
    /// Its network.
    pub netid: NetId,
    /// The key that opens build records; its tag names it.
    pub onion: Box<[u8; exchange::PUBLIC]>,
    /// When it was signed, in seconds.
    pub published: Wall,
    /// When it stops counting.
    pub expires: Wall,
    /// Whether the relay has AES instructions and so prefers AES-256-GCM layers.
    pub aes: bool,
    /// Where it listens.
    pub addrs: Addrs,
}

/// A verified contact.
#[derive(Clone, Debug)]
pub struct Contact {
    /// Who.
    pub id: RelayId,
    /// What it says.
    pub card: Card,
    /// The signed bytes, to be passed on unchanged.
    pub signed: Bytes,
    /// What it is named by in lists.
    pub name: Name,
}

fn name(id: &RelayId, signed: &[u8]) -> Name {
    let (whose, what) = (&id.0, kdf::digest("contact name", &[signed]));
    core::array::from_fn(|i| if i < 4 { whose[i] } else { what[i] })
}

impl Contact {
    /// Signs what a relay says about itself.
    pub fn sign(identity: &Identity, card: Card) -> Contact {
        let mut writer = Writer::new(CONTACT);
        writer.u8(VERSION).bytes(&card.netid.0).bytes(&identity.public()).bytes(card.onion.as_slice());
        writer.u64(card.published.secs()).u64(card.expires.secs()).u8(card.aes.into());
        card.addrs.write(&mut writer);
        let mut bytes = writer.done();
        let signature = identity.sign(PURPOSE, &bytes);
        bytes.extend_from_slice(&signature);
        let id = RelayId(identity.public());
        Contact { name: name(&id, &bytes), id, card, signed: bytes.into() }
    }

    /// Reads a contact and verifies shape, network, times and signature, in that order.
    ///
    /// # Errors
    /// It is not a contact that counts now in this network.
    pub fn verify(signed: Bytes, netid: NetId, now: Wall) -> Result<Contact, Malformed> {
        let mut reader = Reader::new(&signed);
        let version = reader.u8()?;
        let network = NetId(reader.array()?);
        if version != VERSION || network != netid {
            return Err(Malformed);
        }
        let id = RelayId(reader.array()?);
        let onion = Box::new(reader.array()?);
        let (published, expires) = (Wall::from_secs(reader.u64()?), Wall::from_secs(reader.u64()?));
        let aes = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed),
        };
        let addrs = Addrs::read(&mut reader)?;
        let signature = reader.array()?;
        reader.end()?;
        let lived = expires.millis().saturating_sub(published.millis());
        if published > now.plus(SKEW) || expires <= now || u128::from(lived) > LIFETIME.as_millis() || addrs.is_empty()
        {
            return Err(Malformed);
        }
        if !key::verify(&id.0, PURPOSE, &signed[..CONTACT - SIGNATURE], &signature) {
            return Err(Malformed);
        }
        let name = name(&id, &signed);
        Ok(Contact { name, id, card: Card { netid, onion, published, expires, aes, addrs }, signed })
    }
}

/// The four bytes by which a record says which onion key it was made for.
pub fn onion_tag(onion: &[u8; exchange::PUBLIC]) -> [u8; 4] {
    let digest = crate::crypto::kdf::digest("onion key tag", &[onion]);
    [digest[0], digest[1], digest[2], digest[3]]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::crypto::random::Chance;

    fn signed() -> (Contact, NetId) {
        let mut chance = Chance::new([1; 32]);
        let netid = NetId::new("devnet").unwrap();
        let card = Card {
            netid,
            onion: Box::new(*exchange::Secret::generate(&mut chance).public()),
            published: Wall::from_secs(1_000_000),
            expires: Wall::from_secs(1_000_000).plus(LIFETIME),
            aes: true,
            addrs: Addrs::from_list(&["10.1.0.1:1090".parse().unwrap()]),
        };
        (Contact::sign(&Identity::from_seed(&[2; 32]), card), netid)
    }

    #[test]
    fn a_contact_is_verified_or_does_not_exist() {
        let (contact, netid) = signed();
        assert_eq!(contact.signed.len(), CONTACT);
        let now = Wall::from_secs(1_000_100);
        let read = Contact::verify(contact.signed.clone(), netid, now).unwrap();
        assert_eq!((read.id, read.card.addrs), (contact.id, contact.card.addrs));
        assert!(Contact::verify(contact.signed.clone(), NetId::new("lokinet").unwrap(), now).is_err());
        assert!(Contact::verify(contact.signed.clone(), netid, Wall::from_secs(900_000)).is_err(), "from the future");
        assert!(Contact::verify(contact.signed.clone(), netid, Wall::from_secs(1_200_000)).is_err(), "expired");
        for at in (0..CONTACT).step_by(97).chain([CONTACT - 1]) {
            let mut bent = contact.signed.to_vec();
            bent[at] ^= 4;
            assert!(Contact::verify(bent.into(), netid, now).is_err(), "byte {at}");
        }
        let mut long = contact.signed.to_vec();
        long.push(0);
        assert!(Contact::verify(long.into(), netid, now).is_err());
    }
}
