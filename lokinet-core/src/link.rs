//! Floor 1: whom we touch. A [`Links`] keeps every QUIC connection the driver reports, the sealed cell channel beside
//! each, our dials and their back-off, and the requests that wait for a link or a reply. It acts by leaving
//! [`Action`]s. Neighbours: `channel` seals and opens cells; above, `path` and `transit` put cells into links; `netdb`
//! is on the same floor and unknown here.

mod census;
pub mod channel;
mod egress;
pub mod lane;
pub mod port;
pub mod request;
pub mod stage;

use crate::crypto::seal::Suite;
use crate::shared::Shared;
use crate::time::Time;
use crate::wire::cell::Size;
use crate::wire::id::{PathId, RelayId};
use channel::{Channel, Dropped};
use core::time::Duration;
pub use egress::Egress;
use port::Ports;
use request::{AGAIN_MAX, Queued};
use stage::Stage;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use zeroize::Zeroizing;

/// A link as the driver numbers it; never reused within a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// One attempt of ours to open a link; numbered by the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialId(pub u64);

/// One request that waits for its reply. Requests of ours are numbered by the node, requests of others by the driver;
/// the two number spaces do not meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Which end of the QUIC connection we are; bound into every channel key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// We dialled.
    Initiator,
    /// We were dialled.
    Responder,
}

/// A QUIC connection whose handshake is complete and whose peer has proved its key.
#[derive(Clone)]
pub struct LinkUp {
    /// The driver's number for it.
    pub link: LinkId,
    /// Our attempt that it fulfils; `None` when they dialled us.
    pub dial: Option<DialId>,
    /// The raw public key the peer proved in TLS. It is a relay's id only when the registry lists it.
    pub peer: RelayId,
    /// Which end we are.
    pub role: Role,
    /// 32 bytes from the TLS exporter.
    pub exporter: Zeroizing<[u8; 32]>,
    /// The cell channel's suite, agreed by ALPN (see spec chapter 30).
    pub suite: Suite,
    /// Where the peer's datagrams come from.
    pub remote: SocketAddr,
}

/// Most cells staged for one peer before the rest is dropped; the driver drains after every input.
pub const STAGED_MAX: usize = 8192;
/// Most links at once.
pub const LINKS_MAX: usize = 8192;
/// Most dials under way at once.
pub const DIALS_MAX: usize = 256;
/// Most places remembered that could not be reached lately.
pub const UNREACHED_MAX: usize = 4096;
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LAST: Duration = Duration::from_secs(8);

/// What the link floor wants done.
#[derive(Debug)]
pub enum Action {
    /// Open a link.
    Dial {
        /// Our number.
        dial: DialId,
        /// The key the peer must prove.
        peer: RelayId,
        /// Where.
        addrs: Vec<SocketAddr>,
    },
    /// Close a link.
    Hangup(LinkId),
    /// Send a request.
    Request {
        /// On which link.
        link: LinkId,
        /// Our number.
        ticket: Ticket,
        /// Its bytes.
        body: bytes::Bytes,
        /// How long to wait.
        patience: Duration,
    },
    /// A request will have no reply, since there is no link for it.
    Unanswered(Ticket),
}

/// One live link.
pub struct Link {
    /// The key the peer proved.
    pub peer: RelayId,
    /// Whether the peer is a relay of the registry.
    pub relay: bool,
    /// Which end we are.
    pub role: Role,
    /// Where the peer is.
    pub remote: SocketAddr,
    staged: [Stage; 2],
}

impl Link {
    fn staged_cells(&self) -> u64 {
        let cells = |size: Size| (self.staged[size as usize].len() / size.datagram()) as u64;
        cells(Size::Small) + cells(Size::Full)
    }
}

/// A dial is known by whom and where: an address that a stranger gave us for a relay speaks for nobody else's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    peer: RelayId,
    addrs: Vec<SocketAddr>,
}

/// Every link, dial and channel id of a node.
#[derive(Default)]
pub struct Links {
    live: BTreeMap<LinkId, Link>,
    /// The newest link to each relay. Clients are no neighbours to ask.
    by_peer: BTreeMap<RelayId, LinkId>,
    ports: Shared<Ports>,
    dials: BTreeMap<DialId, Place>,
    backoff: BTreeMap<Place, (Time, Duration)>,
    dirty: VecDeque<(LinkId, Size)>,
    next_dial: u64,
    requests: request::Requests,
    actions: Vec<Action>,
    /// Cells dropped because a peer's stage was full, or the link gone.
    pub dropped: u64,
    /// Cells put into links, and cells given out to be sent.
    pub cells: (u64, u64),
}

impl Links {
    /// Takes in a link; true when it is kept. A second link with the same relay is kept too (both may have dialled at
    /// once), and the newer is used.
    pub fn up(&mut self, up: &LinkUp, relay: bool, now: Time) -> bool {
        if self.live.len() >= LINKS_MAX || self.live.contains_key(&up.link) {
            self.actions.push(Action::Hangup(up.link));
            if let Some(dial) = up.dial.filter(|dial| self.dials.remove(dial).is_some()) {
                self.unanswer(&dial);
            }
            return false;
        }
        if let Some(place) = up.dial.and_then(|dial| self.dials.remove(&dial)) {
            self.backoff.remove(&place);
        }
        let channel = Channel::new(up.suite, up.role, &up.exporter);
        let (peer, role, remote) = (up.peer, up.role, up.remote);
        self.ports.change(|ports| ports.insert(up.link, remote, channel));
        self.live.insert(up.link, Link { peer, relay, role, remote, staged: Default::default() });
        if relay {
            self.by_peer.insert(peer, up.link);
        }
        let others = self.dials.iter().filter(|(_, place)| place.peer == peer).map(|(dial, _)| *dial);
        let dials: Vec<DialId> = up.dial.into_iter().chain(others).collect();
        for queued in dials.iter().flat_map(|dial| self.requests.unqueue(dial)).collect::<Vec<_>>() {
            self.send(up.link, queued, now);
        }
        true
    }

    fn send(&mut self, link: LinkId, request: Queued, now: Time) {
        let (ticket, body, patience) = (request.ticket, request.body.clone(), request.until.since(now));
        if self.requests.is_full(link) {
            self.actions.push(Action::Unanswered(ticket));
        } else {
            self.requests.sent(request, link);
            self.actions.push(Action::Request { link, ticket, body, patience });
        }
    }

    /// Forgets a link that is gone.
    pub fn down(&mut self, id: LinkId) -> Option<Link> {
        let link = self.live.remove(&id)?;
        self.dropped += link.staged_cells();
        self.ports.change(|ports| ports.remove(id));
        if self.by_peer.get(&link.peer) == Some(&id) {
            self.by_peer.remove(&link.peer);
            let other = self.live.iter().rev().find(|(_, other)| other.peer == link.peer).map(|(id, _)| *id);
            other.map(|other| self.by_peer.insert(link.peer, other));
        }
        Some(link)
    }

    /// Who is a relay has changed: links whose peer became one are treated so; those whose peer is none any more are
    /// given back, to be closed.
    pub fn relist(&mut self, listed: impl Fn(&RelayId) -> bool) -> Vec<LinkId> {
        let mut gone = Vec::new();
        for (id, link) in &mut self.live {
            match (link.relay, listed(&link.peer)) {
                (true, false) => gone.push(*id),
                (false, true) => {
                    link.relay = true;
                    self.by_peer.insert(link.peer, *id);
                }
                _ => {}
            }
        }
        gone
    }

    /// A validated new address of a client.
    pub fn moved(&mut self, id: LinkId, remote: SocketAddr) {
        if let Some(link) = self.live.get_mut(&id).filter(|link| !link.relay) {
            link.remote = remote;
            self.ports.change(|ports| ports.by_link.get_mut(&id).map(|port| port.remote = remote));
        }
    }

    /// A dial came to nothing: what waited for it is unanswered, and the next attempt waits longer.
    pub fn dial_failed(&mut self, dial: DialId, now: Time) -> Option<RelayId> {
        let place = self.dials.remove(&dial)?;
        let peer = place.peer;
        self.unanswer(&dial);
        let wait = self.backoff.get(&place).map_or(BACKOFF_FIRST, |(_, wait)| (*wait * 2).min(BACKOFF_LAST));
        if self.backoff.len() >= UNREACHED_MAX {
            self.backoff.retain(|_, (until, _)| now < *until);
        }
        if self.backoff.len() < UNREACHED_MAX {
            self.backoff.insert(place, (now + wait, wait));
        }
        Some(peer)
    }

    fn unanswer(&mut self, dial: &DialId) {
        for queued in self.requests.unqueue(dial) {
            self.actions.push(Action::Unanswered(queued.ticket));
        }
    }

    /// Asks a relay something: at once when linked, after dialling otherwise. Unanswered at once while backing off.
    /// Dialling costs patience, too: else whoever waits for us would blame us for whom we wait for.
    pub fn request(
        &mut self,
        peer: RelayId,
        addrs: Vec<SocketAddr>,
        body: bytes::Bytes,
        patience: Duration,
        now: Time,
    ) -> Ticket {
        let ticket = self.requests.ticket();
        let place = Place { peer, addrs };
        self.post(Queued { ticket, place, body, until: now + patience, again: AGAIN_MAX }, now);
        ticket
    }

    /// Asks whoever is at the other end of this very link; unanswered when it is gone.
    pub fn request_on(&mut self, link: LinkId, body: bytes::Bytes, patience: Duration, now: Time) -> Ticket {
        let ticket = self.requests.ticket();
        match self.live.get(&link).map(|link| link.peer) {
            Some(peer) => {
                let place = Place { peer, addrs: Vec::new() };
                self.send(link, Queued { ticket, place, body, until: now + patience, again: 0 }, now);
            }
            None => self.actions.push(Action::Unanswered(ticket)),
        }
        ticket
    }

    fn post(&mut self, request: Queued, now: Time) {
        let (ticket, place) = (request.ticket, request.place.clone());
        if let Some(link) = self.by_peer.get(&place.peer).copied() {
            self.send(link, request, now);
        } else if !self.dial(place.peer, place.addrs, now).is_some_and(|dial| self.requests.queue(dial, request)) {
            self.actions.push(Action::Unanswered(ticket));
        }
    }

    /// The link under a request of ours was lost: true when the request goes out again, under the same ticket. The link
    /// must be known to be down, or it would be used once more.
    pub fn again(&mut self, ticket: Ticket, now: Time) -> bool {
        let request = self.requests.lost(ticket, now);
        request.map(|request| self.post(request, now)).is_some()
    }

    /// When to call [`Links::wake`].
    pub fn next_wake(&self) -> Option<Time> {
        self.requests.next_due()
    }

    /// Ends what has waited long enough for its dial.
    pub fn wake(&mut self, now: Time) {
        while let Some(ticket) = self.requests.overdue(now) {
            self.actions.push(Action::Unanswered(ticket));
        }
    }

    /// A request ended: the link it went out on. Two relays may have two links (both dialled at once), and a path runs
    /// on the one that carried its build.
    pub fn ended(&mut self, ticket: Ticket) -> Option<LinkId> {
        self.requests.ended(ticket).filter(|link| self.live.contains_key(link))
    }

    /// The link a request of ours went out on.
    pub fn link_of(&self, ticket: Ticket) -> Option<LinkId> {
        self.requests.link_of(ticket)
    }

    /// Starts a dial unless one to there is under way, or too soon, or too many are; the dial from which a link may come.
    pub fn dial(&mut self, peer: RelayId, addrs: Vec<SocketAddr>, now: Time) -> Option<DialId> {
        let place = Place { peer, addrs };
        if let Some((dial, _)) = self.dials.iter().find(|(_, other)| **other == place) {
            return Some(*dial);
        }
        let early = self.backoff.get(&place).is_some_and(|(until, _)| now < *until);
        if place.addrs.is_empty() || early || self.dials.len() >= DIALS_MAX {
            return None;
        }
        let dial = DialId(self.next_dial);
        self.next_dial += 1;
        self.actions.push(Action::Dial { dial, peer, addrs: place.addrs.clone() });
        self.dials.insert(dial, place);
        Some(dial)
    }

    /// Closes a link of ours. What waits for a reply on it has ended with it.
    pub fn hang_up(&mut self, id: LinkId) {
        if self.down(id).is_some() {
            self.requests.give_up(id);
            self.actions.push(Action::Hangup(id));
        }
    }

    /// What is to be done; empties the list.
    pub fn actions(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.actions)
    }

    /// Which channel a datagram belongs to, if to any.
    pub fn channel_of(&self, datagram: &[u8]) -> Option<(LinkId, u8)> {
        self.ports.look(|ports| ports.channel_of(datagram))
    }

    /// Opens a received datagram in place: the link, the path's name, and the onion.
    ///
    /// # Errors
    /// Why it is dropped.
    pub fn open<'a>(
        &mut self,
        datagram: &'a mut [u8],
        now: Time,
    ) -> Result<(LinkId, PathId, Size, &'a mut [u8]), Dropped> {
        let (id, shard) = self.channel_of(datagram).ok_or(Dropped::Unknown)?;
        let size = Size::of_datagram(datagram.len()).ok_or(Dropped::Size)?;
        self.ports.change(|ports| {
            let port = ports.by_link.get_mut(&id).ok_or(Dropped::Unknown)?;
            let (path, onion) = port.channel.open(usize::from(shard), datagram, now)?;
            Ok((id, path, size, onion))
        })
    }

    /// The ports, to be shared with other cores. They send by any sub-channel but the first, which is ours.
    pub fn share(&mut self) -> Arc<RwLock<Ports>> {
        self.ports.share()
    }

    /// The next run of sealed cells to send, lent until it is given back with [`Links::give_back`].
    pub fn take_run(&mut self) -> Option<(SocketAddr, Size, LinkId, Stage)> {
        loop {
            // First staged, first sent: the last cells of a burst must not overtake it.
            let (id, size) = self.dirty.pop_front()?;
            if let Some(link) = self.live.get_mut(&id) {
                let run = core::mem::take(&mut link.staged[size as usize]);
                self.cells.1 += (run.len() / size.datagram()) as u64;
                return Some((link.remote, size, id, run));
            }
        }
    }

    /// Gives a sent run's buffer back, so that its memory is used again.
    pub fn give_back(&mut self, id: LinkId, size: Size, mut bytes: Stage) {
        bytes.clear();
        if let Some(link) = self.live.get_mut(&id)
            && link.staged[size as usize].is_empty()
        {
            link.staged[size as usize] = bytes;
        }
    }

    /// The live link to a relay.
    pub fn to(&self, peer: &RelayId) -> Option<LinkId> {
        self.by_peer.get(peer).copied()
    }

    /// A live link.
    pub fn get(&self, id: LinkId) -> Option<&Link> {
        self.live.get(&id)
    }

    /// All live links, by number.
    pub fn iter(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.live.iter().map(|(id, link)| (*id, link))
    }

    /// How many of the live links are with relays.
    pub fn relays(&self) -> usize {
        self.by_peer.values().filter(|id| self.live.get(id).is_some_and(|link| link.relay)).count()
    }

    /// How many receiving channel ids are known (bounded by links and shards).
    pub fn channel_ids(&self) -> usize {
        self.ports.look(|ports| {
            debug_assert_eq!(ports.channels.len(), ports.ids_due());
            ports.channels.len()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn place(n: u8) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([10, n, 0, 1], 1090))]
    }

    fn up(links: &mut Links, link: u64, dial: Option<DialId>, peer: RelayId, relay: bool) {
        let up = LinkUp {
            link: LinkId(link),
            dial,
            peer,
            role: Role::Initiator,
            exporter: [link as u8; 32].into(),
            suite: Suite::Aes,
            remote: place(1)[0],
        };
        assert!(links.up(&up, relay, Time::from_nanos(0)));
    }

    fn ask(links: &mut Links, peer: RelayId, addrs: Vec<SocketAddr>, now: Time) -> Ticket {
        links.request(peer, addrs, bytes::Bytes::from_static(b"?"), PATIENCE, now)
    }

    fn dialled(links: &mut Links) -> Vec<DialId> {
        let dials = links.actions().into_iter();
        dials.filter_map(|action| if let Action::Dial { dial, .. } = action { Some(dial) } else { None }).collect()
    }

    /// A stranger names a relay we do not know and an address where nobody is: that is no reason to refuse others, who
    /// know the right one.
    #[test]
    fn a_false_address_spoils_no_true_one() {
        let (mut links, peer, now) = (Links::default(), RelayId([1; 32]), Time::from_nanos(0));
        let lied = ask(&mut links, peer, place(66), now);
        let honest = ask(&mut links, peer, place(1), now);
        let dials = dialled(&mut links);
        assert_eq!(dials.len(), 2, "the honest request waits for the false address");
        links.dial_failed(dials[0], now);
        assert!(matches!(links.actions()[..], [Action::Unanswered(ticket)] if ticket == lied));
        up(&mut links, 7, Some(dials[1]), peer, true);
        assert!(matches!(links.actions()[..], [Action::Request { ticket, .. }] if ticket == honest));
        links.down(LinkId(7));
        ask(&mut links, peer, place(66), now);
        assert!(dialled(&mut links).is_empty(), "a place that failed just now is dialled again");
        ask(&mut links, peer, place(1), now);
        assert_eq!(dialled(&mut links).len(), 1);
    }

    #[test]
    fn a_clients_link_is_asked_nothing() {
        let (mut links, client, now) = (Links::default(), RelayId([2; 32]), Time::from_nanos(0));
        up(&mut links, 7, None, client, false);
        let ticket = ask(&mut links, client, Vec::new(), now);
        assert!(matches!(links.actions()[..], [Action::Unanswered(refused)] if refused == ticket));
    }

    #[test]
    fn open_requests_and_dials_are_bounded() {
        let (mut links, peer, now) = (Links::default(), RelayId([1; 32]), Time::from_nanos(0));
        up(&mut links, 7, None, peer, true);
        let tickets: Vec<Ticket> = (0..request::SENT_MAX + 10).map(|_| ask(&mut links, peer, place(1), now)).collect();
        let sent = links.actions().iter().filter(|action| matches!(action, Action::Request { .. })).count();
        assert_eq!(sent, request::SENT_MAX);
        links.ended(tickets[0]);
        ask(&mut links, peer, place(1), now);
        assert!(matches!(links.actions()[..], [Action::Request { .. }]), "a reply makes room for a request");

        for n in 0..DIALS_MAX + 10 {
            let mut id = [9; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            ask(&mut links, RelayId(id), place(1), now);
        }
        assert_eq!(dialled(&mut links).len(), DIALS_MAX);
    }

    /// A neighbour that died took the request with it; the one that came back in its place never saw it.
    #[test]
    fn a_request_whose_link_is_lost_goes_out_again_over_a_fresh_one() {
        let (mut links, peer, now) = (Links::default(), RelayId([1; 32]), Time::from_nanos(0));
        up(&mut links, 7, None, peer, true);
        let ticket = ask(&mut links, peer, place(1), now);
        links.actions();
        links.down(LinkId(7));
        let late = now + PATIENCE / 4;
        assert!(links.again(ticket, late));
        let dials = dialled(&mut links);
        assert_eq!(dials.len(), 1);
        up(&mut links, 8, Some(dials[0]), peer, true);
        assert!(
            matches!(links.actions()[..], [Action::Request { link: LinkId(8), ticket: again, .. }] if again == ticket)
        );
        assert_eq!(links.ended(ticket), Some(LinkId(8)), "and a path runs on the link that carried its build");
    }

    #[test]
    fn a_request_is_not_sent_again_for_ever_nor_over_a_link_that_we_closed() {
        let (mut links, peer, now) = (Links::default(), RelayId([1; 32]), Time::from_nanos(0));
        up(&mut links, 0, None, peer, true);
        let ticket = ask(&mut links, peer, place(1), now);
        let mut sent = 0;
        for link in 1..10 {
            links.down(LinkId(link - 1));
            sent += usize::from(links.again(ticket, now));
            up(&mut links, link, None, peer, true);
            links.dials.clear();
        }
        assert_eq!(sent, usize::from(AGAIN_MAX), "after so many losses it has ended");

        let ticket = ask(&mut links, peer, place(1), now);
        links.hang_up(LinkId(9));
        assert!(!links.again(ticket, now), "who closes a link wants nothing more of it");
    }

    /// Whoever waits for us must not blame us for a relay that does not answer our dial.
    #[test]
    fn a_dial_costs_no_more_than_the_requests_patience() {
        let (mut links, peer, now) = (Links::default(), RelayId([1; 32]), Time::from_nanos(0));
        let ticket = ask(&mut links, peer, place(1), now);
        let dials = dialled(&mut links);
        assert_eq!(links.next_wake(), Some(now + PATIENCE));
        links.wake(now + PATIENCE);
        assert!(matches!(links.actions()[..], [Action::Unanswered(late)] if late == ticket));
        up(&mut links, 7, Some(dials[0]), peer, true);
        assert!(links.actions().is_empty() && links.next_wake().is_none(), "it is sent after it has ended");
    }
}
