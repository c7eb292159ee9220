//! A path being built: nested records out, layered reply back, then [`Building`] *becomes* [`Live`]. Neighbours:
//! `wire::build` seals and opens, `netdb::select` chose the hops, `path` sends the request.

use super::live::Live;
use crate::crypto::exchange::Secret;
use crate::crypto::random::Chance;
use crate::crypto::seal::Suite;
use crate::link::LinkId;
use crate::path::layers::Layers;
use crate::time::{Now, Time};
use crate::wire::addrs::Addrs;
use crate::wire::build::{self, BUILD, Header, Opening, Purpose, RIDER, Status};
use crate::wire::cell::{MAX_HOPS, Size};
use crate::wire::contact::Contact;
use crate::wire::id::{PathId, RelayId};
use crate::wire::request::Request;
use bytes::Bytes;
use core::time::Duration;
use std::sync::Arc;

/// A build that takes so long may still succeed, but is not waited for.
pub const SLOW: Duration = Duration::from_millis(1000);
/// Most cells kept that arrive before the reply.
pub const HELD_MAX: usize = 8;

struct Asked {
    contact: Arc<Contact>,
    suite: Suite,
    ephemeral: Secret,
    opening: Opening,
}

/// A build under way.
pub struct Building {
    asked: Vec<Asked>,
    hops: Vec<Arc<Contact>>,
    wire: PathId,
    purpose: Purpose,
    expires: Time,
    began: Time,
    slow: bool,
    held: Vec<(Size, Vec<u8>)>,
}

impl Building {
    /// Makes the records and the request to the first hop.
    pub fn begin(
        hops: Vec<Arc<Contact>>,
        purpose: Purpose,
        rider: Option<&[u8]>,
        lifetime: Duration,
        now: Now,
        chance: &mut Chance,
    ) -> Option<(Building, Bytes)> {
        if hops.is_empty() || hops.len() > MAX_HOPS {
            return None;
        }
        let wires: Vec<PathId> = hops.iter().map(|_| PathId(chance.nonzero())).collect();
        let mut body = Vec::with_capacity(RIDER);
        if let Some(rider) = rider {
            body.extend_from_slice(&(rider.len() as u16).to_be_bytes());
            body.extend_from_slice(rider);
        } else {
            body.extend_from_slice(&[0, 0]);
        }
        build::pad(&mut body, RIDER, chance);
        let mut asked: Vec<Asked> = Vec::with_capacity(hops.len());
        for (i, contact) in hops.iter().enumerate().rev() {
            let ephemeral = Secret::generate(chance);
            let suite = if contact.card.aes { Suite::Aes } else { Suite::ChaCha };
            let next: Option<(RelayId, Addrs, PathId)> =
                hops.get(i + 1).map(|next| (next.id, next.card.addrs, wires[i + 1]));
            let header = Header {
                ephemeral: Box::new(*ephemeral.public()),
                next,
                back: wires[i],
                lifetime: build::told_lifetime(lifetime),
                minute: build::told_minute(now.wall),
                depth: (hops.len() - i) as u8,
                suite,
                purpose: if i + 1 == hops.len() { purpose } else { Purpose::General },
            };
            let (record, opening) = build::seal_record(&contact.card.onion, &header, &body, chance)?;
            body = record;
            asked.push(Asked { contact: contact.clone(), suite, ephemeral, opening });
        }
        asked.reverse();
        build::pad(&mut body, BUILD, chance);
        let (wire, expires, began) = (wires[0], now.mono + lifetime, now.mono);
        let building = Building { asked, hops, wire, purpose, expires, began, slow: false, held: Vec::new() };
        Some((building, Request::Build(body.into()).encode()))
    }

    /// The first hop.
    pub fn first(&self) -> &Arc<Contact> {
        &self.hops[0]
    }

    /// All hops, first hop first.
    pub fn hops(&self) -> &[Arc<Contact>] {
        &self.hops
    }

    /// The path's name on the first link.
    pub fn wire(&self) -> PathId {
        self.wire
    }

    /// What the pivot is to do.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// When it will have taken so long that others should be begun beside it; `None` once that has been noted.
    pub fn slow_at(&self) -> Option<Time> {
        (!self.slow).then_some(self.began + SLOW)
    }

    /// Notes that it takes long.
    pub fn note_slow(&mut self) {
        self.slow = true;
    }

    /// Keeps a cell that came before the reply; false when there are too many.
    pub fn hold(&mut self, size: Size, onion: &[u8]) -> bool {
        let room = self.held.len() < HELD_MAX;
        if room {
            self.held.push((size, onion.to_vec()));
        }
        room
    }

    /// How many cells are kept.
    pub fn held(&self) -> u64 {
        self.held.len() as u64
    }

    /// Opens the layered reply: the live path and the cells that came early.
    ///
    /// # Errors
    /// The index of the hop that refused, or whose reply is missing, and what was said of it.
    #[allow(clippy::type_complexity)]
    pub fn finish(
        self,
        reply: Option<&[u8]>,
        link: Option<LinkId>,
        now: Time,
    ) -> Result<(Live, Vec<(Size, Vec<u8>)>), (usize, Option<Status>)> {
        let mut reply = reply.ok_or((0, None))?.to_vec();
        let hops = self.asked.len();
        let mut secrets = Vec::with_capacity(hops);
        for (i, asked) in self.asked.iter().enumerate() {
            let (status, ciphertext, deeper) =
                build::open_reply(&asked.opening, (hops - i) as u8, &reply).ok_or((i, None))?;
            match status {
                Status::Accepted => {}
                // This hop speaks of the next one.
                Status::Unreachable | Status::BadNext => return Err(((i + 1).min(hops - 1), Some(status))),
                _ => return Err((i, Some(status))),
            }
            let shared = asked.ephemeral.decapsulate(&ciphertext).ok_or((i, None))?;
            secrets.push((asked.suite, asked.opening.layers(&asked.contact.id, &ciphertext, &shared)));
            reply = deeper;
        }
        let layers = Layers::new(secrets.into_iter());
        let link = link.ok_or((0, None))?;
        let round_trip = now.since(self.began);
        let live = Live::new(layers, self.hops, (link, self.wire), self.purpose, self.expires, round_trip, now);
        Ok((live, self.held))
    }
}
