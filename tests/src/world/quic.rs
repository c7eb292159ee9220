//! QUIC connections as the border shows them: a dial that ends in `LinkUp` or `DialFailed`, requests that are each
//! answered once, and an end. Losses cost time instead of data, as retransmission would; a peer that died is noticed by
//! its silence, or, once it is back, by its not knowing us (a stateless reset). TLS itself is not here; labs test it.
//! Neighbours: `wire` says how long things take, `world` owns the queue.

use super::World;
use super::eyes::Body;
use super::queue::Happening;
use bytes::Bytes;
use core::time::Duration;
use lokinet_core::node::io::{
    CLIENT_ALIVE, CLIENT_IDLE, DialId, Input, LinkId, LinkKey, LinkUp, NoReply, RELAY_ALIVE, RELAY_IDLE, REPLY_MAX,
    REQUEST_MAX, REQUESTS_OPEN, Role, Suite, Ticket,
};
use lokinet_core::time::Time;
use lokinet_core::wire::id::RelayId;
use rand_core::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// How long one address is tried.
pub const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// What the cryptography of a handshake costs at each end.
const HANDSHAKE: Duration = Duration::from_millis(1);
/// First wait before a packet that met a cut wire or a dead host is sent again; doubles.
const AGAIN: Duration = Duration::from_millis(300);
/// First wait before a dial whose first flight was not answered sends it again; doubles (RFC 9002 §6.2.2).
const FIRST_PROBE: Duration = Duration::from_secs(1);
/// Bytes of a handshake flight (key shares of X25519MLKEM768).
const FLIGHT: usize = 2400;

/// All connections, attempts and requests of a world.
#[derive(Default)]
pub(super) struct Quic {
    numbers: u64,
    attempts: BTreeMap<u64, Attempt>,
    conns: BTreeMap<u64, Conn>,
    asks: BTreeMap<u64, Ask>,
}

impl Quic {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

struct Attempt {
    host: usize,
    dial: DialId,
    peer: RelayId,
    addrs: VecDeque<SocketAddr>,
    key: LinkKey,
    /// Which address is being tried; what belongs to an earlier one is late.
    round: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The handshake's last flight is still under way.
    Coming,
    Up,
    Gone,
}

struct End {
    host: usize,
    life: u32,
    link: LinkId,
    stage: Stage,
    /// The key this end proved.
    key: RelayId,
    /// Requests of this end that hold a stream, and those that wait for one.
    open: u32,
    waiting: VecDeque<u64>,
    /// What came before the handshake's last flight.
    early: Vec<Parcel>,
}

struct Conn {
    ends: [End; 2],
    exporter: [u8; 32],
    suite: Suite,
    /// Silence after which it is lost, and how often the dialler breaks its own.
    idle: Duration,
    alive: Duration,
    /// Since when the two cannot hear each other.
    broken: Option<Time>,
}

struct Ask {
    conn: u64,
    side: usize,
    ticket: Ticket,
    body: Bytes,
}

/// What travels inside a connection.
#[derive(Clone)]
pub(super) enum Parcel {
    Finished,
    Request(u64),
    Reply(u64, Option<Bytes>),
    Close,
}

/// Something in the queue that concerns connections.
#[derive(Clone)]
pub(super) enum Step {
    Call { attempt: u64, round: u32, tries: u32, to: usize },
    Knock { attempt: u64, round: u32, tries: u32, to: usize },
    Turned { attempt: u64, round: u32 },
    Welcome { attempt: u64, round: u32, to: usize, life: u32 },
    Failed { host: usize, life: u32, dial: DialId },
    Send { conn: u64, to: usize, parcel: Parcel, tries: u32 },
    Parcel { conn: u64, to: usize, parcel: Parcel },
    Idle { conn: u64 },
    Reset { conn: u64, to: usize },
    Alive { conn: u64 },
    Ended { ask: u64, result: Result<Bytes, NoReply> },
    Unasked { host: usize, life: u32, ticket: Ticket },
}

impl World {
    fn step_at(&mut self, at: Time, step: Step) {
        self.schedule(at, Happening::Quic(step));
    }

    // What machines want done. Nothing here calls a machine back; all of it goes through the queue.

    pub(super) fn dial(&mut self, host: usize, dial: DialId, peer: RelayId, addrs: Vec<SocketAddr>, key: LinkKey) {
        let target = addrs.first().and_then(|addr| self.addresses.get(addr)).copied();
        self.tell(host, target, "dial", 0, 0);
        let number = self.quic.number();
        self.quic.attempts.insert(number, Attempt { host, dial, peer, addrs: addrs.into(), key, round: 0 });
        self.next_address(number);
    }

    pub(super) fn hangup(&mut self, host: usize, link: LinkId) {
        let Some((conn, side)) = self.hosts[host].links.remove(&link) else {
            return self.tell(host, None, "hangup of a lost link", 0, 0);
        };
        let other = self.quic.conns.get(&conn).map(|c| c.ends[1 - side].host);
        self.tell(host, other, "hangup", 0, 0);
        if let Some(conn) = self.quic.conns.get_mut(&conn) {
            conn.ends[side].stage = Stage::Gone;
        }
        for ask in self.asks_of(conn, side) {
            self.step_at(self.now, Step::Ended { ask, result: Err(NoReply::LinkLost) });
        }
        // Sent at once and not through the queue: the process may end with its next breath.
        self.post(conn, 1 - side, Parcel::Close, 0);
        self.review(&[conn]);
    }

    pub(super) fn request(&mut self, host: usize, link: LinkId, ticket: Ticket, body: Bytes, patience: Duration) {
        self.must(body.len() <= REQUEST_MAX, host, "sends a request beyond REQUEST_MAX");
        self.must(!self.hosts[host].pending.contains_key(&ticket), host, "uses the ticket of a request under way");
        let Some((conn, side)) = self.hosts[host].links.get(&link).copied() else {
            self.tell(host, None, "request on a lost link", 1, body.len());
            self.hosts[host].pending.insert(ticket, 0);
            let life = self.hosts[host].life;
            return self.step_at(self.now, Step::Unasked { host, life, ticket });
        };
        let number = self.quic.number();
        self.hosts[host].pending.insert(ticket, number);
        let other = self.quic.conns.get(&conn).map(|c| c.ends[1 - side].host);
        self.tell(host, other, "request", 1, body.len());
        self.story.hear(&body);
        let kind = usize::from(body.first().copied().unwrap_or_default() & 7);
        self.asked[kind].0 += 1;
        self.asked[kind].1 += body.len() as u64;
        self.quic.asks.insert(number, Ask { conn, side, ticket, body });
        self.step_at(self.now + patience, Step::Ended { ask: number, result: Err(NoReply::TimedOut) });
        let Some(end) = self.quic.conns.get_mut(&conn).map(|c| &mut c.ends[side]) else { return };
        if end.open == REQUESTS_OPEN {
            end.waiting.push_back(number);
        } else {
            end.open += 1;
            self.post(conn, 1 - side, Parcel::Request(number), 0);
        }
    }

    pub(super) fn answer(&mut self, host: usize, ticket: Ticket, body: Option<Bytes>) {
        self.must(body.as_ref().is_none_or(|b| b.len() <= REPLY_MAX), host, "sends a reply beyond REPLY_MAX");
        let asked = self.hosts[host].asked.remove(&ticket);
        self.must(asked.is_some(), host, "answers a request twice, or one that nobody made");
        let Some((number, ask)) = asked.and_then(|(n, _)| Some((n, self.quic.asks.get(&n)?))) else {
            return self.tell(host, None, "answer too late", 0, 0);
        };
        let (conn, to) = (ask.conn, ask.side);
        let kind = usize::from(ask.body.first().copied().unwrap_or_default() & 7);
        self.asked[kind].1 += body.as_ref().map_or(0, Bytes::len) as u64;
        let other = self.quic.conns.get(&conn).map(|c| c.ends[to].host);
        self.tell(
            host,
            other,
            if body.is_some() { "reply" } else { "refusal" },
            1,
            body.as_ref().map_or(0, Bytes::len),
        );
        self.story.hear(body.as_deref().unwrap_or_default());
        self.post(conn, to, Parcel::Reply(number, body), 0);
    }

    // What the queue brings.

    pub(super) fn quic_step(&mut self, step: Step) {
        match step {
            Step::Call { attempt, round, tries, to } => self.call(attempt, round, tries, to),
            Step::Knock { attempt, round, tries, to } => self.knock(attempt, round, tries, to),
            Step::Turned { attempt, round } => {
                if self.quic.attempts.get(&attempt).is_some_and(|a| a.round == round) {
                    self.next_address(attempt);
                }
            }
            Step::Welcome { attempt, round, to, life } => self.welcome(attempt, round, to, life),
            Step::Failed { host, life, dial } => {
                if self.hosts[host].life == life {
                    self.tell(host, None, "dial failed", 0, 0);
                    self.feed(host, Input::DialFailed { dial });
                }
            }
            Step::Send { conn, to, parcel, tries } => self.post(conn, to, parcel, tries),
            Step::Parcel { conn, to, parcel } => self.parcel(conn, to, parcel),
            Step::Idle { conn } => {
                let broken = self.quic.conns.get(&conn).and_then(|c| c.broken);
                let idle = self.quic.conns.get(&conn).map(|c| c.idle).unwrap_or_default();
                if broken.is_some_and(|since| self.now.since(since) >= idle) {
                    self.lose(conn, 0);
                    self.lose(conn, 1);
                    self.quic.conns.remove(&conn);
                }
            }
            Step::Alive { conn } => {
                let wire = self.quic.conns.get(&conn).map(|c| (c.ends[0].host, c.ends[1].host));
                let takes = wire.and_then(|wire| self.wires.carry(wire, 64, self.now, &mut self.rng));
                if let Some(takes) = takes {
                    self.knock_on(conn, 1, takes);
                }
            }
            Step::Reset { conn, to } => {
                self.lose(conn, to);
                self.quic.conns.remove(&conn);
            }
            Step::Ended { ask, result } => self.ended(ask, result),
            Step::Unasked { host, life, ticket } => {
                if self.hosts[host].life == life && self.hosts[host].pending.remove(&ticket).is_some() {
                    self.feed(host, Input::Reply { ticket, result: Err(NoReply::LinkLost) });
                }
            }
        }
    }

    fn next_address(&mut self, number: u64) {
        let Some(attempt) = self.quic.attempts.get_mut(&number) else { return };
        attempt.round += 1;
        let (host, dial, round) = (attempt.host, attempt.dial, attempt.round);
        let Some(addr) = attempt.addrs.pop_front() else {
            self.quic.attempts.remove(&number);
            let life = self.hosts[host].life;
            return self.step_at(self.now, Step::Failed { host, life, dial });
        };
        self.step_at(self.now + DIAL_PATIENCE, Step::Turned { attempt: number, round });
        if let Some(to) = self.addresses.get(&addr).copied() {
            self.step_at(self.now, Step::Call { attempt: number, round, tries: 0, to });
        }
    }

    fn call(&mut self, number: u64, round: u32, tries: u32, to: usize) {
        let Some(attempt) = self.quic.attempts.get(&number).filter(|a| a.round == round) else { return };
        let wire = (attempt.host, to);
        match self.wires.carry(wire, FLIGHT, self.now, &mut self.rng) {
            Some(takes) => self.step_at(self.now + takes, Step::Knock { attempt: number, round, tries, to }),
            None => {
                let again = self.now + AGAIN * (1 << tries.min(6));
                self.step_at(again, Step::Call { attempt: number, round, tries: tries + 1, to });
            }
        }
    }

    /// The first flight reaches the dialled host. A dead host, or one that does not listen, says nothing.
    fn knock(&mut self, number: u64, round: u32, tries: u32, to: usize) {
        let Some(attempt) = self.quic.attempts.get(&number).filter(|a| a.round == round) else { return };
        let (host, wanted) = (attempt.host, attempt.peer);
        let Some(key) = self.hosts[to].key.filter(|_| self.hosts[to].machine.is_some()) else {
            let again = self.now + FIRST_PROBE * (1 << tries.min(6));
            return self.step_at(again, Step::Call { attempt: number, round, tries: tries + 1, to });
        };
        let Some(back) = self.wires.carry((to, host), FLIGHT, self.now, &mut self.rng) else { return };
        let (at, life) = (self.now + back + HANDSHAKE, self.hosts[to].life);
        if key == wanted {
            self.step_at(at, Step::Welcome { attempt: number, round, to, life });
        } else {
            self.step_at(at, Step::Turned { attempt: number, round });
        }
    }

    /// The dialled host's flight reaches the dialler, whose side is then up.
    fn welcome(&mut self, number: u64, round: u32, to: usize, life: u32) {
        let Some(attempt) = self.quic.attempts.get(&number).filter(|a| a.round == round) else { return };
        let (host, dial, peer, key) = (attempt.host, attempt.dial, attempt.peer, attempt.key);
        let (idle, alive) = match key {
            LinkKey::Identity => (RELAY_IDLE, RELAY_ALIVE),
            LinkKey::Throwaway => (CLIENT_IDLE, CLIENT_ALIVE),
        };
        self.quic.attempts.remove(&number);
        let key = match (key, self.hosts[host].key) {
            (LinkKey::Identity, Some(key)) => key,
            (LinkKey::Identity, None) => {
                return self.must(false, host, "dials with the identity of a relay and is none");
            }
            (LinkKey::Throwaway, _) => RelayId(self.draw()),
        };
        let exporter = self.draw();
        let aes = self.hosts[host].aes && self.hosts[to].aes;
        let suite = if aes { Suite::Aes } else { Suite::ChaCha };
        let conn = self.quic.number();
        let near = self.end(host, self.hosts[host].life, key, Stage::Up);
        let far = self.end(to, life, peer, Stage::Coming);
        let link = near.link;
        self.hosts[host].links.insert(link, (conn, 0));
        if self.hosts[to].life == life {
            self.hosts[to].links.insert(far.link, (conn, 1));
        }
        self.quic.conns.insert(conn, Conn { ends: [near, far], exporter, suite, idle, alive, broken: None });
        self.step_at(self.now, Step::Send { conn, to: 1, parcel: Parcel::Finished, tries: 0 });
        self.review(&[conn]);
        self.link_up(conn, 0, Some(dial));
    }

    fn end(&mut self, host: usize, life: u32, key: RelayId, stage: Stage) -> End {
        let link = LinkId(self.quic.number());
        End { host, life, link, stage, key, open: 0, waiting: VecDeque::new(), early: Vec::new() }
    }

    fn link_up(&mut self, conn: u64, side: usize, dial: Option<DialId>) {
        let Some(Conn { ends, exporter, suite, .. }) = self.quic.conns.get(&conn) else { return };
        let (own, other) = (&ends[side], &ends[1 - side]);
        let (host, whom) = (own.host, other.host);
        let up = LinkUp {
            link: own.link,
            dial,
            peer: other.key,
            role: if side == 0 { Role::Initiator } else { Role::Responder },
            exporter: (*exporter).into(),
            suite: *suite,
            remote: self.hosts[whom].addr,
        };
        self.tell(host, Some(whom), "link up", 0, 0);
        if self.eyes.open && side == 0 {
            self.eyes.links.push((self.now, self.hosts[host].addr, self.hosts[whom].addr));
        }
        self.feed(host, Input::LinkUp(up));
    }

    /// Sends something inside a connection, again and again while the wire is cut.
    fn post(&mut self, conn: u64, to: usize, parcel: Parcel, tries: u32) {
        let Some(c) = self.quic.conns.get(&conn) else { return };
        let sender = &c.ends[1 - to];
        if sender.life != self.hosts[sender.host].life || (sender.stage == Stage::Gone && !parcel.is_close()) {
            return;
        }
        let wire = (sender.host, c.ends[to].host);
        let body = match &parcel {
            Parcel::Request(ask) => self.quic.asks.get(ask).map(|a| a.body.clone()),
            Parcel::Reply(_, body) => body.clone(),
            Parcel::Finished | Parcel::Close => None,
        };
        let size = body.as_ref().map_or(64, |b| b.len() + 64);
        let Some(takes) = self.wires.carry(wire, size, self.now, &mut self.rng) else {
            let again = self.now + AGAIN * (1 << tries.min(6));
            return self.step_at(again, Step::Send { conn, to, parcel, tries: tries + 1 });
        };
        if let (true, Some(bytes)) = (self.eyes.open, body) {
            let reply = matches!(parcel, Parcel::Reply(..));
            let (from, to) = (self.hosts[wire.0].addr, self.hosts[wire.1].addr);
            self.eyes.bodies.push(Body { at: self.now, from, to, reply, bytes });
        }
        let waits = matches!(&parcel, Parcel::Request(ask) if self.quic.asks.contains_key(ask));
        if waits && self.hosts[wire.1].machine.is_none() {
            let again = self.now + AGAIN * (1 << tries.min(6));
            return self.step_at(again, Step::Send { conn, to, parcel, tries: tries + 1 });
        }
        self.step_at(self.now + takes, Step::Parcel { conn, to, parcel });
        self.knock_on(conn, to, takes);
    }

    /// A packet comes to a relay that was started again and knows nothing of the connection: it says so. Its ids and
    /// resets grow from its seed; a client's are forgotten with it, and it says nothing.
    fn knock_on(&mut self, conn: u64, to: usize, takes: Duration) {
        let Some(c) = self.quic.conns.get(&conn) else { return };
        let (near, far) = (c.ends[1 - to].host, &c.ends[to]);
        let forgot = far.life != self.hosts[far.host].life && self.hosts[far.host].key.is_some();
        if forgot && self.hosts[far.host].machine.is_some() {
            let wire = (far.host, near);
            if let Some(back) = self.wires.carry(wire, 64, self.now, &mut self.rng) {
                self.step_at(self.now + takes + back, Step::Reset { conn, to: 1 - to });
            }
        }
    }

    /// A process began: whoever dialled the one before says now and then that he is still there.
    pub(super) fn revive_links(&mut self, host: usize) {
        let dialled = |c: &Conn| c.ends[1].host == host && c.ends[0].stage == Stage::Up;
        let conns: Vec<(u64, Duration)> =
            self.quic.conns.iter().filter(|(_, c)| dialled(c)).map(|(number, c)| (*number, c.alive)).collect();
        for (conn, alive) in conns {
            let since = Duration::from_nanos(self.rng.next_u64() % alive.as_nanos() as u64);
            self.step_at(self.now + since, Step::Alive { conn });
        }
    }

    fn parcel(&mut self, conn: u64, to: usize, parcel: Parcel) {
        let Some(end) = self.quic.conns.get_mut(&conn).map(|c| &mut c.ends[to]) else { return };
        let (host, link) = (end.host, end.link);
        if end.life != self.hosts[host].life || end.stage == Stage::Gone {
            return;
        }
        if end.stage == Stage::Coming && !matches!(parcel, Parcel::Finished) {
            return end.early.push(parcel);
        }
        match parcel {
            Parcel::Finished => {
                end.stage = Stage::Up;
                let early = core::mem::take(&mut end.early);
                self.link_up(conn, to, None);
                for parcel in early {
                    self.step_at(self.now, Step::Parcel { conn, to, parcel });
                }
            }
            Parcel::Request(ask) => {
                let Some(body) = self.quic.asks.get(&ask).map(|a| a.body.clone()) else { return };
                let ticket = self.hosts[host].ticket();
                self.hosts[host].asked.insert(ticket, (ask, self.now));
                self.feed(host, Input::Request { link, ticket, body });
            }
            Parcel::Reply(ask, body) => self.ended(ask, body.ok_or(NoReply::Refused)),
            Parcel::Close => {
                self.lose(conn, to);
                self.quic.conns.remove(&conn);
            }
        }
    }

    /// A request has its end, whatever it is; the first end counts.
    fn ended(&mut self, number: u64, result: Result<Bytes, NoReply>) {
        let Some(Ask { conn, side, ticket, .. }) = self.quic.asks.remove(&number) else { return };
        let mut next = None;
        let mut host = None;
        if let Some(end) = self.quic.conns.get_mut(&conn).map(|c| &mut c.ends[side]) {
            host = Some(end.host);
            match end.waiting.iter().position(|waits| *waits == number) {
                Some(place) => drop(end.waiting.remove(place)),
                None => {
                    next = end.waiting.pop_front();
                    end.open -= u32::from(next.is_none());
                }
            }
        }
        if let Some(ask) = next {
            self.step_at(self.now, Step::Send { conn, to: 1 - side, parcel: Parcel::Request(ask), tries: 0 });
        }
        let Some(host) = host else { return };
        if self.hosts[host].pending.get(&ticket) == Some(&number) {
            self.hosts[host].pending.remove(&ticket);
            let what = match result {
                Ok(_) => "has its reply",
                Err(NoReply::Refused) => "was refused",
                Err(NoReply::TimedOut) => "waited in vain",
                Err(NoReply::LinkLost) => "lost the link",
            };
            self.tell(host, None, what, 0, 0);
            self.feed(host, Input::Reply { ticket, result });
        }
    }

    /// One end learns that the connection is gone. Whether its requests end before or after that is chance, as it is
    /// between two tasks of the real driver.
    fn lose(&mut self, conn: u64, side: usize) {
        let Some(c) = self.quic.conns.get_mut(&conn) else { return };
        let (host, link, whom) = (c.ends[side].host, c.ends[side].link, c.ends[1 - side].host);
        let was = core::mem::replace(&mut c.ends[side].stage, Stage::Gone);
        let alive = self.hosts[host].life == self.quic.conns[&conn].ends[side].life;
        let asks = self.asks_of(conn, side);
        if !alive || was == Stage::Gone {
            return;
        }
        self.hosts[host].links.remove(&link);
        let asks_first = self.rng.next_u32() & 1 == 0;
        if asks_first {
            asks.iter().for_each(|ask| self.ended(*ask, Err(NoReply::LinkLost)));
        }
        if was == Stage::Up {
            self.tell(host, Some(whom), "link down", 0, 0);
            self.feed(host, Input::LinkDown { link });
        }
        if !asks_first {
            asks.iter().for_each(|ask| self.ended(*ask, Err(NoReply::LinkLost)));
        }
    }

    fn asks_of(&self, conn: u64, side: usize) -> Vec<u64> {
        let Some(c) = self.quic.conns.get(&conn) else { return Vec::new() };
        let on_it = |number: &&u64| self.quic.asks.get(number).is_some_and(|a| a.conn == conn && a.side == side);
        let mut asks: Vec<u64> = self.hosts[c.ends[side].host].pending.values().filter(on_it).copied().collect();
        asks.sort_unstable();
        asks
    }

    // What the world does to connections.

    /// The other end of a link, when both ends have it: whose, and that host's number for it.
    pub(super) fn far_end(&self, host: usize, link: LinkId) -> Option<(usize, LinkId)> {
        let (conn, side) = self.hosts[host].links.get(&link)?;
        let far = &self.quic.conns.get(conn)?.ends[1 - side];
        let here = far.life == self.hosts[far.host].life && far.stage == Stage::Up;
        here.then_some((far.host, far.link))
    }

    /// All connections there are.
    pub(super) fn all_conns(&self) -> Vec<u64> {
        self.quic.conns.keys().copied().collect()
    }

    /// The connections a host has.
    pub(super) fn conns_of(&self, host: usize) -> Vec<u64> {
        self.hosts[host].links.values().map(|(conn, _)| *conn).collect()
    }

    /// After wires or lives changed: which of these connections are mute now, and which can speak again.
    pub(super) fn review(&mut self, conns: &[u64]) {
        for number in conns {
            let Some(conn) = self.quic.conns.get_mut(number) else { continue };
            let [a, b] = &conn.ends;
            let gone = conn.ends.iter().any(|e| e.life != self.hosts[e.host].life || e.stage == Stage::Gone);
            let cut = self.wires.between(a.host, b.host).cut || self.wires.between(b.host, a.host).cut;
            match (gone || cut, conn.broken) {
                (true, None) => {
                    conn.broken = Some(self.now);
                    let at = self.now + conn.idle;
                    self.step_at(at, Step::Idle { conn: *number });
                }
                (false, Some(_)) => conn.broken = None,
                _ => {}
            }
        }
    }

    /// A process ends and its operating system says nothing about it.
    pub(super) fn forget_links(&mut self, host: usize) {
        self.quic.attempts.retain(|_, attempt| attempt.host != host);
        let own: Vec<u64> = self.hosts[host].pending.values().copied().collect();
        for ask in own {
            self.quic.asks.remove(&ask);
        }
    }

    /// A process closes its connections before it ends.
    pub(super) fn close_links(&mut self, host: usize) {
        let links: Vec<LinkId> = self.hosts[host].links.keys().copied().collect();
        for link in links {
            let Some((conn, side)) = self.hosts[host].links.get(&link).copied() else { continue };
            // The last packets leave before the process does, so they are on the wire already.
            let Some(c) = self.quic.conns.get(&conn) else { continue };
            let wire = (host, c.ends[1 - side].host);
            if let Some(takes) = self.wires.carry(wire, 64, self.now, &mut self.rng) {
                self.step_at(self.now + takes, Step::Parcel { conn, to: 1 - side, parcel: Parcel::Close });
            }
        }
    }

    /// A client's address changed: its peers learn it one round trip later, once they have validated it.
    pub(super) fn move_links(&mut self, host: usize) {
        let links: Vec<(u64, usize)> = self.hosts[host].links.values().copied().collect();
        for (conn, side) in links {
            let Some(c) = self.quic.conns.get(&conn) else { continue };
            let (to, link, life) = (c.ends[1 - side].host, c.ends[1 - side].link, c.ends[1 - side].life);
            let round = self.wires.between(host, to).delay + self.wires.between(to, host).delay;
            let remote = self.hosts[host].addr;
            self.schedule(self.now + round, Happening::Moved { host: to, life, link, remote });
        }
    }
}

impl Parcel {
    fn is_close(&self) -> bool {
        matches!(self, Parcel::Close)
    }
}
