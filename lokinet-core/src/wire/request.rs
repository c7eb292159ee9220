//! Requests between neighbours, one QUIC stream each: a kind byte and a body. Replies have no kind, since the stream
//! says what was asked. Neighbours: `build` is one body; `node` hands each kind to its machine.

use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::contact::CONTACT;
use crate::wire::id::{PathId, RelayId};
use bytes::Bytes;

/// What one neighbour asks of the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Open this build record; the reply is [`REPLY`](super::build::REPLY) bytes.
    Build(Bytes),
    /// Contacts whose ids follow this one; the reply is whole contacts, end to end, empty after the last.
    Contacts {
        /// Where to go on.
        after: RelayId,
    },
    /// Keep this introset; the reply is one byte, 1 when it is kept.
    Store(Bytes),
    /// The introset under this blinded key; the reply is it, or empty.
    Find {
        /// The blinded key.
        key: [u8; 32],
    },
    /// A contact you may not know yet; the reply is one byte, 1 when it counts.
    Gossip(Bytes),
    /// What time is it? The reply is the wall clock in milliseconds, 8 bytes.
    Clock,
    /// The link by which these paths came to me is gone: nothing will follow; the reply is one byte, 1.
    Ended(Vec<PathId>),
}

/// Most paths one request ends.
pub const ENDED_MAX: usize = 1024;

impl Request {
    /// The stream's bytes.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        match self {
            Request::Build(body) => writer.u8(1).bytes(body),
            Request::Contacts { after } => writer.u8(2).bytes(&after.0),
            Request::Store(introset) => writer.u8(3).bytes(introset),
            Request::Find { key } => writer.u8(4).bytes(key),
            Request::Gossip(contact) => writer.u8(5).bytes(contact),
            Request::Clock => writer.u8(6),
            Request::Ended(paths) => paths.iter().fold(writer.u8(7), |writer, path| writer.u32(path.0)),
        };
        writer.done().into()
    }

    /// Reads a stream's bytes without copying the long bodies.
    ///
    /// # Errors
    /// Not a request we know.
    pub fn decode(bytes: &Bytes) -> Result<Request, Malformed> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let body = bytes.slice(1..);
        let request = match kind {
            1 => return Ok(Request::Build(body)),
            2 => Request::Contacts { after: RelayId(reader.array()?) },
            3 => return Ok(Request::Store(body)),
            4 => Request::Find { key: reader.array()? },
            5 => return Ok(Request::Gossip(body)),
            6 => Request::Clock,
            7 => {
                let (paths, rest) = reader.rest().as_chunks::<4>();
                if paths.is_empty() || paths.len() > ENDED_MAX || !rest.is_empty() {
                    return Err(Malformed);
                }
                return Ok(Request::Ended(paths.iter().map(|path| PathId(u32::from_be_bytes(*path))).collect()));
            }
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok(request)
    }
}

/// Cuts a `Contacts` reply into contacts; nothing when it is not whole contacts.
pub fn contacts(reply: &Bytes) -> Vec<Bytes> {
    if !reply.len().is_multiple_of(CONTACT) {
        return Vec::new();
    }
    (0..reply.len() / CONTACT).map(|i| reply.slice(i * CONTACT..(i + 1) * CONTACT)).collect()
}
