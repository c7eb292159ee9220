//! The other side of a client's path, all its hops at once: how relays accept a build, open what comes down and wrap
//! what goes up. Neighbours: `client` walks it.

use super::network::Network;
use lokinet_core::crypto::exchange;
use lokinet_core::crypto::onion::{BODY_AT, Opener, Order, Sealer, TYPE_AT};
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::TAG;
use lokinet_core::link::LinkId;
use lokinet_core::time::Time;
use lokinet_core::wire::build::{self, BUILD, Status};
use lokinet_core::wire::cell::{Kind, Size};
use lokinet_core::wire::contact::onion_tag;
use lokinet_core::wire::fragment::Assembler;
use lokinet_core::wire::id::{PathId, RelayId};

/// A path of the client's.
pub struct Route {
    link: LinkId,
    wire: PathId,
    hops: Vec<(Sealer, Opener)>,
    rider: Vec<u8>,
    /// Each hop's pieces of questions.
    pub control: Vec<Assembler>,
    /// Whatever is joined's pieces of handshakes.
    pub handshake: Assembler,
}

/// Opens every record of a build and accepts it at every hop: the path, and the reply to the client. `None` when a
/// record is for no relay of this network.
pub fn accept(build: &[u8], net: &Network, link: LinkId, chance: &mut Chance) -> Option<(Route, Vec<u8>)> {
    let (mut body, mut hops, mut replies, mut wire) = (build.to_vec(), Vec::new(), Vec::new(), None);
    loop {
        build::pad(&mut body, BUILD, chance);
        let (tag, _) = build::peek(&body).ok()?;
        let relay = net.onions.iter().position(|onion| onion_tag(onion.public()) == tag)?;
        let (header, deeper, opening) = build::open_record(&net.onions[relay], &body)?;
        wire.get_or_insert(header.back);
        let (ciphertext, shared) = exchange::encapsulate(&header.ephemeral, chance)?;
        let [forward, backward] = opening.layers(&RelayId(net.relays[relay].public()), &ciphertext, &shared);
        hops.push((Sealer::new(header.suite, &backward, Order::Plain), Opener::new(header.suite, &forward)));
        replies.push((opening, header.depth, ciphertext));
        body = deeper.to_vec();
        if header.next.is_none() {
            break;
        }
    }
    let mut reply = Vec::new();
    for (opening, depth, ciphertext) in replies.iter().rev() {
        reply = build::seal_reply(opening, *depth, Status::Accepted, Some((ciphertext, &reply)), chance);
    }
    let control = hops.iter().map(|_| Assembler::default()).collect();
    let route = Route { link, wire: wire?, hops, rider: body, control, handshake: Assembler::default() };
    Some((route, reply))
}

impl Route {
    /// Its link and name there.
    pub fn first(&self) -> (LinkId, PathId) {
        (self.link, self.wire)
    }

    /// How many hops it has.
    pub fn len(&self) -> usize {
        self.hops.len()
    }

    /// The message that rode with the build.
    pub fn rider(&self) -> Option<Vec<u8>> {
        let (length, rest) = self.rider.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        rest.get(..length).filter(|rider| !rider.is_empty()).map(<[u8]>::to_vec)
    }

    /// Opens what came down: the hop it is for, what it is, and its body.
    pub fn unwrap<'a>(&mut self, onion: &'a mut [u8], size: Size, now: Time) -> (usize, Kind, &'a [u8]) {
        let hops = self.hops.len();
        for (at, (_, opener)) in self.hops.iter_mut().enumerate() {
            let end = BODY_AT * at + size.layer(hops - at);
            let layer = &mut onion[BODY_AT * at..end];
            assert!(opener.open(layer, now).is_ok(), "a layer that its hop cannot open");
            match Kind::from_byte(layer[TYPE_AT]).expect("an honest client's kind") {
                Kind::Pass => {}
                kind => return (at, kind, &onion[BODY_AT * (at + 1)..end - TAG]),
            }
        }
        panic!("a cell for nobody")
    }

    /// Wraps what goes up from a hop (the last, when there are not so many).
    pub fn wrap(&mut self, hop: usize, size: Size, kind: Kind, body: &[u8], now: Time) -> Vec<u8> {
        let (hops, mut onion) = (self.hops.len(), vec![0; size.onion()]);
        let from = hop.min(hops - 1);
        for at in (0..=from).rev() {
            let layer = &mut onion[BODY_AT * at..BODY_AT * at + size.layer(hops - at)];
            layer[TYPE_AT] = if at == from { kind } else { Kind::Pass } as u8;
            if at == from {
                let length = body.len().min(layer.len() - BODY_AT - TAG);
                layer[BODY_AT..BODY_AT + length].copy_from_slice(&body[..length]);
            }
            self.hops[at].0.seal(layer, now);
        }
        onion
    }
}
