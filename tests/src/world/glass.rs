//! A relay whose owner looks inside. A [`Glass`] stands between the world and a real relay: it holds the relay's onion
//! keys and link secrets, opens every build, layer and link itself, writes down what it sees, and seals everything
//! anew for the relay behind it, which notices nothing. So what an honest relay could know is recorded without a door
//! in the relay. Only a replayed build looks new to the relay behind. Neighbours: `eyes` says what is written down.

use super::eyes::{Cell, Hop, KEPT, Opened, Views};
use super::machine::Machine;
use super::{Input, Output, Report};
use bytes::Bytes;
use lokinet_core::crypto::exchange::{self, SEED, Secret};
use lokinet_core::crypto::kdf;
use lokinet_core::crypto::onion::{BODY_AT, COUNTER, Opener, Order, Sealer, TYPE_AT};
use lokinet_core::crypto::random::Chance;
use lokinet_core::crypto::seal::{Mask, TAG};
use lokinet_core::link::{Egress, LinkId, LinkUp, Links, Role, Ticket};
use lokinet_core::node::Node;
use lokinet_core::node::io::{Run, Save, Wake};
use lokinet_core::time::{Now, Time};
use lokinet_core::wire::build::{self, Header, Opening, Status};
use lokinet_core::wire::cell::Kind;
use lokinet_core::wire::contact::onion_tag;
use lokinet_core::wire::id::{PathId, RelayId};
use lokinet_core::wire::request::Request;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// A build that the relay behind is thinking about.
struct Pending {
    hop: usize,
    link: LinkId,
    header: Header,
    /// The client's record, and the one that stands for it.
    outer: Opening,
    inner: Opening,
    /// Whom the relay behind makes its share for.
    ephemeral: Secret,
}

/// Both directions of a hop, towards the client and towards the relay behind.
struct Layers {
    hop: usize,
    depth: usize,
    mask: Mask,
    from_client: Opener,
    to_node: Sealer,
    from_node: Opener,
    to_client: Sealer,
}

/// Everything but the relay.
struct Pane {
    own: RelayId,
    name: String,
    views: Views,
    chance: Chance,
    keys: BTreeMap<[u8; 4], Secret>,
    /// The world's links, and their other halves as the relay behind knows them.
    outer: Links,
    inner: Links,
    pending: BTreeMap<Ticket, Pending>,
    asked: BTreeMap<Ticket, usize>,
    layers: BTreeMap<(LinkId, PathId), Layers>,
    onward: BTreeMap<(LinkId, PathId), usize>,
}

/// A relay in glass.
pub struct Glass {
    node: Node,
    pane: Pane,
}

impl Glass {
    /// Puts a relay behind glass; what it sees is added to `views`.
    pub fn new(name: &str, node: Node, views: Views) -> Glass {
        let pane = Pane {
            own: node.key(),
            name: name.to_owned(),
            views,
            chance: Chance::new(kdf::digest("glass", &[name.as_bytes()])),
            keys: BTreeMap::new(),
            outer: Links::default(),
            inner: Links::default(),
            pending: BTreeMap::new(),
            asked: BTreeMap::new(),
            layers: BTreeMap::new(),
            onward: BTreeMap::new(),
        };
        Glass { node, pane }
    }
}

impl Machine for Glass {
    fn handle(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        let Glass { node, pane } = self;
        let mut feed = |pane: &mut Pane, input: Input<'_>| {
            let mut outputs = Node::handle(node, input, now);
            while let Some(output) = outputs.next() {
                pane.output(output, now, act);
            }
        };
        match input {
            Input::LinkUp(up) => {
                let behind = pane.link_up(&up);
                feed(pane, Input::LinkUp(behind));
            }
            Input::LinkDown { link } => {
                pane.outer.down(link);
                pane.inner.down(link);
                feed(pane, Input::LinkDown { link });
            }
            Input::LinkMoved { link, remote } => {
                pane.outer.moved(link, remote);
                feed(pane, Input::LinkMoved { link, remote });
            }
            Input::Request { link, ticket, body } => {
                let body = pane.build(link, ticket, &body, now).unwrap_or(body);
                feed(pane, Input::Request { link, ticket, body });
            }
            Input::Reply { ticket, result } => {
                if let (Some(hop), Ok(reply)) = (pane.asked.remove(&ticket), &result) {
                    pane.note(hop, |hop| hop.reply_in = Some(reply.clone()));
                }
                feed(pane, Input::Reply { ticket, result });
            }
            Input::Cells(runs) => {
                for run in runs {
                    for datagram in run.bytes.chunks_mut(run.segment.max(1)) {
                        pane.cell_in(datagram, now.mono);
                    }
                }
                while let Some((from, size, link, mut bytes)) = pane.inner.take_run() {
                    let run = Run { from, bytes: &mut bytes, segment: size.datagram() };
                    feed(pane, Input::Cells(&mut [run]));
                    pane.inner.give_back(link, size, bytes);
                }
            }
            other => feed(pane, other),
        }
        while let Some((to, size, link, bytes)) = pane.outer.take_run() {
            act(Output::Transmit { to, segment: size.datagram(), bytes: &bytes });
            pane.outer.give_back(link, size, bytes);
        }
    }

    fn next_wake(&self) -> Option<(Time, Wake)> {
        Node::next_wake(&self.node)
    }

    fn is_cell(&self, datagram: &[u8]) -> bool {
        self.pane.outer.channel_of(datagram).is_some()
    }

    fn report(&self, now: Now) -> Report {
        Node::report(&self.node, now)
    }
}

impl Pane {
    fn note(&self, hop: usize, write: impl FnOnce(&mut Hop)) {
        if let Some(hop) = self.views.lock().expect("no panic").get_mut(hop) {
            write(hop);
        }
    }

    /// The link as the relay behind is to know it: under another secret.
    fn link_up(&mut self, up: &LinkUp) -> LinkUp {
        let behind = LinkUp { exporter: kdf::digest("behind glass", &[up.exporter.as_slice()]).into(), ..up.clone() };
        let role = match up.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        self.outer.up(up, false, Time::default());
        self.inner.up(&LinkUp { role, ..behind.clone() }, false, Time::default());
        behind
    }

    /// A build came: looked into, and made anew with a key of ours for the relay's share.
    fn build(&mut self, link: LinkId, ticket: Ticket, body: &Bytes, now: Now) -> Option<Bytes> {
        let Ok(Request::Build(body)) = Request::decode(body) else { return None };
        let secret = self.keys.get(body.get(..4)?)?;
        let (header, deeper, outer) = build::open_record(secret, &body)?;
        let ephemeral = Secret::generate(&mut self.chance);
        let stand_in = Header { ephemeral: Box::new(*ephemeral.public()), ..header.clone() };
        let (mut record, inner) = build::seal_record(secret.public(), &stand_in, &deeper, &mut self.chance)?;
        build::pad(&mut record, build::BUILD, &mut self.chance);
        let peer = self.outer.get(link)?.peer;
        let mut views = self.views.lock().expect("no panic");
        let hop = views.len();
        views.push(Hop::new(&self.name, peer, &header, body.clone(), deeper.to_vec(), now.mono));
        drop(views);
        self.pending.insert(ticket, Pending { hop, link, header, outer, inner, ephemeral });
        Some(Request::Build(record.into()).encode())
    }

    fn output(&mut self, output: Output<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        match output {
            Output::Save(Save::OnionKeys(keys)) => {
                self.learn_keys(&keys);
                act(Output::Save(Save::OnionKeys(keys)));
            }
            Output::Hangup { link } => {
                self.outer.down(link);
                self.inner.down(link);
                act(Output::Hangup { link });
            }
            Output::Request { link, ticket, body, patience } => {
                self.request(link, ticket, &body);
                act(Output::Request { link, ticket, body, patience });
            }
            Output::Answer { ticket, body } => {
                let body = match self.pending.remove(&ticket) {
                    Some(pending) => body.map(|body| self.answer(pending, body)),
                    None => body,
                };
                act(Output::Answer { ticket, body });
            }
            Output::Transmit { bytes, segment, .. } => {
                for datagram in bytes.chunks(segment.max(1)) {
                    self.cell_out(&mut datagram.to_vec(), now.mono);
                }
            }
            other => act(other),
        }
    }

    fn learn_keys(&mut self, saved: &[u8]) {
        for key in saved.chunks_exact(8 + SEED) {
            let mut seed = Zeroizing::new([0; SEED]);
            seed.copy_from_slice(&key[8..]);
            let secret = Secret::from_seed(seed);
            self.keys.insert(onion_tag(secret.public()), secret);
        }
    }

    /// The relay passes a build on: it begins with what the record held.
    fn request(&mut self, link: LinkId, ticket: Ticket, body: &Bytes) {
        let Ok(Request::Build(body)) = Request::decode(body) else { return };
        let mut views = self.views.lock().expect("no panic");
        let hop = self.pending.values().map(|pending| pending.hop).find(|hop| body.starts_with(&views[*hop].deeper));
        let Some(hop) = hop else { return };
        views[hop].build_out = Some(body);
        if let Some((_, wire)) = views[hop].next {
            self.onward.insert((link, wire), hop);
        }
        self.asked.insert(ticket, hop);
    }

    /// The relay's verdict, sealed for the client; when it accepts, the hop's layers.
    fn answer(&mut self, pending: Pending, reply: Bytes) -> Bytes {
        let Pending { hop, link, header, outer, inner, ephemeral } = pending;
        let opened = build::open_reply(&inner, header.depth, &reply);
        let Some((status, share, deeper)) = opened else { return reply };
        let reply = if status == Status::Accepted {
            let shared = ephemeral.decapsulate(&share).expect("the relay's own share");
            let [down, up] = inner.layers(&self.own, &share, &shared);
            let (share, shared) = exchange::encapsulate(&header.ephemeral, &mut self.chance).expect("as before");
            let [from_client, to_client] = outer.layers(&self.own, &share, &shared);
            let mask = Mask::new(header.suite, &kdf::expand(&from_client, "layer header", &[]));
            let layers = Layers {
                hop,
                depth: header.depth.into(),
                mask,
                from_client: Opener::new(header.suite, &from_client),
                to_node: Sealer::new(header.suite, &down, Order::Scrambled),
                from_node: Opener::new(header.suite, &up),
                to_client: Sealer::new(header.suite, &to_client, Order::Plain),
            };
            self.layers.insert((link, header.back), layers);
            build::seal_reply(&outer, header.depth, status, Some((&share, &deeper)), &mut self.chance)
        } else {
            build::seal_reply(&outer, header.depth, status, None, &mut self.chance)
        };
        let reply = Bytes::from(reply);
        self.note(hop, |hop| {
            hop.accepted = status == Status::Accepted;
            hop.reply_out = Some(reply.clone());
        });
        self.asked.retain(|_, asked| *asked != hop);
        reply
    }

    /// A cell from the world.
    fn cell_in(&mut self, datagram: &mut [u8], now: Time) {
        let Ok((link, path, size, onion)) = self.outer.open(datagram, now) else { return };
        let came = onion.to_vec();
        if let Some(layers) = self.layers.get_mut(&(link, path)) {
            let layer = &mut onion[..size.layer(layers.depth)];
            let mask = layers.mask.mask(&layer[COUNTER..]);
            let counter =
                layer[..COUNTER].iter().zip(mask).fold(0u64, |n, (byte, mask)| n << 8 | u64::from(byte ^ mask));
            if layers.from_client.open(layer, now).is_err() {
                return;
            }
            let (kind, body) = (Kind::from_byte(layer[TYPE_AT]), layer[BODY_AT..layer.len() - TAG].to_vec());
            layers.to_node.seal(layer, now);
            let hop = layers.hop;
            self.note(hop, |hop| {
                hop.counters.push(counter);
                if hop.down_in.len() < KEPT {
                    hop.down_in.push(Opened { at: now, size, onion: came, kind, body });
                }
            });
        } else if let Some(hop) = self.onward.get(&(link, path)) {
            self.note(*hop, |hop| {
                if hop.up_in.len() < KEPT {
                    hop.up_in.push(Cell { size, onion: came });
                }
            });
        }
        let onion = &*onion;
        self.inner.put(link, path, size, now, |to| to.copy_from_slice(onion));
    }

    /// A cell from the relay behind.
    fn cell_out(&mut self, datagram: &mut [u8], now: Time) {
        let Ok((link, path, size, onion)) = self.inner.open(datagram, now) else { return };
        if let Some(layers) = self.layers.get_mut(&(link, path)) {
            let layer = &mut onion[..size.layer(layers.depth)];
            layers.from_node.open(layer, now).expect("the relay's own layer");
            let (kind, body) = (Kind::from_byte(layer[TYPE_AT]), layer[BODY_AT..layer.len() - TAG].to_vec());
            layers.to_client.seal(layer, now);
            let (hop, onion) = (layers.hop, onion.to_vec());
            self.note(hop, |hop| {
                if hop.up_out.len() < KEPT {
                    hop.up_out.push(Opened { at: now, size, onion, kind, body });
                }
            });
        } else if let Some(hop) = self.onward.get(&(link, path)) {
            let onion = onion.to_vec();
            self.note(*hop, |hop| {
                if hop.down_out.len() < KEPT {
                    hop.down_out.push(Cell { size, onion });
                }
            });
        }
        let onion = &*onion;
        self.outer.put(link, path, size, now, |to| to.copy_from_slice(onion));
    }
}
