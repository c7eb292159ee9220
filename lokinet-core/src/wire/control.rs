//! Control messages between a client and a hop of its own path: what the bodies of `Control` layers say once their
//! fragments are together. The client asks, the hop answers under the same message number; a hop may also tell without
//! being asked. Neighbours: `fragment` carries them, `path::live` and `transit` are the two ends.

use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::contact::CONTACT;
use crate::wire::id::{CallerId, RelayId};
use bytes::Bytes;

/// Most contacts one answer brings.
pub const CONTACTS_MAX: usize = 16;

/// Most contacts one answer names, by [`Name`]s.
pub const NAMES_MAX: usize = 3000;
/// What a contact is named by in a list: the first 4 bytes of its relay's id, and 4 of a digest of the signed bytes.
pub type Name = [u8; 8];

/// Client to hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Are you there?
    Ping,
    /// Fetch the introset under this blinded key from that relay.
    Find {
        /// The relay that may store it.
        at: RelayId,
        /// The blinded key.
        key: [u8; 32],
    },
    /// Give this introset to that relay.
    Store {
        /// The relay that is to store it.
        at: RelayId,
        /// The signed introset.
        introset: Bytes,
    },
    /// This path is over; no answer.
    Close,
    /// The names of the contacts you know whose ids follow this one.
    Names {
        /// Where to go on.
        after: RelayId,
    },
    /// The contacts with these names, at most [`CONTACTS_MAX`].
    Named(Vec<Name>),
}

/// Hop to client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tell {
    /// Here.
    Pong,
    /// The introset, if that relay has one: it was asked, and must know.
    Found(Option<Bytes>),
    /// Whether that relay keeps it.
    Stored(bool),
    /// Signed contacts, those of the named ones that the hop has.
    Contacts(Vec<Bytes>),
    /// The path ends at this hop: what lay behind it is gone.
    Closed,
    /// The other half of a join is gone (0 on a caller's path).
    JoinEnded(CallerId),
    /// Whether that relay has an introset is not known: it could not be reached, said nothing of sense, or is too young to
    /// have been given what there is.
    Unknown,
    /// Names of contacts, by id; fewer than [`NAMES_MAX`] mean that these were the last.
    Names(Vec<Name>),
}

impl Ask {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Ask::Ping => writer.u8(1),
            Ask::Find { at, key } => writer.u8(2).bytes(&at.0).bytes(key),
            Ask::Store { at, introset } => writer.u8(3).bytes(&at.0).bytes(introset),
            Ask::Names { after } => writer.u8(4).bytes(&after.0),
            Ask::Close => writer.u8(5),
            Ask::Named(names) => writer.u8(6).bytes(names.as_flattened()),
        };
        writer.done()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Not a message we know.
    pub fn decode(bytes: &[u8]) -> Result<Ask, Malformed> {
        let mut reader = Reader::new(bytes);
        let ask = match reader.u8()? {
            1 => Ask::Ping,
            2 => Ask::Find { at: RelayId(reader.array()?), key: reader.array()? },
            3 => {
                let at = RelayId(reader.array()?);
                return Ok(Ask::Store { at, introset: Bytes::copy_from_slice(reader.rest()) });
            }
            4 => Ask::Names { after: RelayId(reader.array()?) },
            5 => Ask::Close,
            6 => return names(reader.rest(), CONTACTS_MAX).map(Ask::Named),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(ask)
    }
}

impl Tell {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Tell::Pong => writer.u8(1),
            Tell::Found(introset) => writer.u8(2).bytes(introset.as_deref().unwrap_or_default()),
            Tell::Stored(kept) => writer.u8(3).u8((*kept).into()),
            Tell::Contacts(contacts) => {
                writer.u8(4);
                contacts.iter().fold(&mut writer, |writer, contact| writer.bytes(contact))
            }
            Tell::Closed => writer.u8(5),
            Tell::JoinEnded(caller) => writer.u8(6).u32(caller.0),
            Tell::Unknown => writer.u8(8),
            Tell::Names(names) => writer.u8(7).bytes(names.as_flattened()),
        };
        writer.done()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Not a message we know.
    pub fn decode(bytes: &[u8]) -> Result<Tell, Malformed> {
        let mut reader = Reader::new(bytes);
        let tell = match reader.u8()? {
            1 => Tell::Pong,
            2 => {
                let introset = reader.rest();
                return Ok(Tell::Found((!introset.is_empty()).then(|| Bytes::copy_from_slice(introset))));
            }
            3 => match reader.u8()? {
                0 => Tell::Stored(false),
                1 => Tell::Stored(true),
                _ => return Err(Malformed),
            },
            4 => {
                let (contacts, rest) = reader.rest().as_chunks::<CONTACT>();
                if !rest.is_empty() || contacts.len() > CONTACTS_MAX {
                    return Err(Malformed);
                }
                return Ok(Tell::Contacts(contacts.iter().map(|c| Bytes::copy_from_slice(c)).collect()));
            }
            5 => Tell::Closed,
            6 => Tell::JoinEnded(CallerId(reader.u32()?)),
            8 => Tell::Unknown,
            7 => return names(reader.rest(), NAMES_MAX).map(Tell::Names),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(tell)
    }
}

fn names(bytes: &[u8], most: usize) -> Result<Vec<Name>, Malformed> {
    let (names, rest) = bytes.as_chunks();
    if names.len() > most || !rest.is_empty() {
        return Err(Malformed);
    }
    Ok(names.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzzer: 255 values meant "stored".
    #[test]
    fn yes_and_no_have_one_spelling_each() {
        let spelt: Vec<u8> = (0..=255).filter(|byte| Tell::decode(&[3, *byte]).is_ok()).collect();
        assert_eq!(spelt, [0, 1]);
        for kept in [false, true] {
            assert_eq!(Tell::decode(&Tell::Stored(kept).encode()), Ok(Tell::Stored(kept)));
        }
    }
}
