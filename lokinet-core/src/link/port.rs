//! What of the links moves cells: each one's peer address and sealed channel, and which channel an id on a datagram belongs
//! to. All cores look at the same ports; the two ends of each sub-channel are locked by the run of cells, and as a core sends
//! by a sub-channel of its own and a peer's runs come to one core, nobody waits. Neighbours: `link` installs and removes,
//! `channel` seals and opens, `lane` is one core's side.

use super::LinkId;
use super::channel::{Channel, Receiving, SHARDS, Sending};
use crate::wire::cell::CHANNEL_ID;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::MutexGuard;

/// One link's way in and out.
pub struct Port {
    /// Where the peer is.
    pub(super) remote: SocketAddr,
    pub(super) channel: Channel,
}

/// All of them.
#[derive(Default)]
pub struct Ports {
    pub(super) by_link: BTreeMap<LinkId, Port>,
    pub(super) channels: HashMap<[u8; CHANNEL_ID], (LinkId, u8)>,
}

impl Ports {
    pub(super) fn insert(&mut self, link: LinkId, remote: SocketAddr, channel: Channel) {
        for (shard, id) in channel.receiving_ids().into_iter().enumerate() {
            self.channels.insert(id, (link, shard as u8));
        }
        self.by_link.insert(link, Port { remote, channel });
    }

    pub(super) fn remove(&mut self, link: LinkId) {
        let Some(port) = self.by_link.remove(&link) else { return };
        for channel in port.channel.receiving_ids() {
            self.channels.remove(&channel);
        }
    }

    /// Which channel a datagram belongs to, if to any.
    pub fn channel_of(&self, datagram: &[u8]) -> Option<(LinkId, u8)> {
        self.channels.get(channel_id(datagram)?).copied()
    }

    /// The receiving end of a sub-channel, for one run of cells.
    pub fn receiving(&self, link: LinkId, shard: u8) -> Option<MutexGuard<'_, Receiving>> {
        Some(self.by_link.get(&link)?.channel.receiving(shard.into()))
    }

    /// The sending end of a sub-channel, for one run of cells, and where they go.
    pub(super) fn sending(&self, link: LinkId, shard: usize) -> Option<(SocketAddr, MutexGuard<'_, Sending>)> {
        let port = self.by_link.get(&link)?;
        Some((port.remote, port.channel.sending(shard)))
    }

    /// How many channel ids there should be.
    pub(super) fn ids_due(&self) -> usize {
        self.by_link.len() * SHARDS
    }
}

/// The channel id of a datagram that could be a cell: those with a QUIC long header cannot.
pub fn channel_id(datagram: &[u8]) -> Option<&[u8; CHANNEL_ID]> {
    let id = datagram.get(1..)?.first_chunk::<CHANNEL_ID>()?;
    (datagram[0] & 0xc0 == 0x40).then_some(id)
}
