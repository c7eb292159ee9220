//! One conversation: its keys, its routes and the frames that wait for a full cell. A route is a path and, on a
//! service's path, the caller's id there. The caller leads: the service answers where the caller last spoke. Either
//! end that hears nothing probes every route and goes on by the one that answers. Neighbours: `session` keeps the
//! table, `crypto::onion` is the sealed layer.

use super::{IDLE, LOST, ROUTES, Remote, Road, STALE, Shut};
use crate::crypto::onion::{BODY_AT, Opener, Order, Sealer, TYPE_AT};
use crate::crypto::random::Chance;
use crate::crypto::seal::{Suite, TAG};
use crate::path::PathKey;
use crate::time::Time;
use crate::wire::build::TOKEN;
use crate::wire::cell::{Kind, Size};
use crate::wire::fragment;
use crate::wire::id::{CallerId, SessionId};
use crate::wire::introset::Lease;
use crate::wire::packet::Stripped;
use crate::wire::session::{self, Frame, Secrets};
use core::time::Duration;

/// Hearing nothing for so long after sending makes a conversation probe; longer where round trips are long.
pub const SILENCE: Duration = Duration::from_millis(400);
/// So long the route in use has to answer before the others are asked; longer where round trips are long.
pub const TURN: Duration = Duration::from_millis(100);
/// Between two probes.
pub const PROBE_EVERY: Duration = Duration::from_millis(300);
/// Hearing nothing for so long after all were asked means that no route works: the service is looked up anew.
pub const MISSING: Duration = Duration::from_millis(300);
/// Most routes a conversation keeps.
pub const ROUTES_MAX: usize = 8;
/// A route that will last for less than this wants a successor.
pub const FRESH: Duration = Duration::from_secs(120);
/// So long before its end a route is left for a better one.
pub const HAND_OVER: Duration = Duration::from_secs(20);
/// A caller who has not shown the keys by then is forgotten.
pub const PROOF: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(5);
const PROBE_LAST: Duration = Duration::from_secs(5);

/// A way to the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Our path.
    pub path: PathKey,
    /// Whom the pivot is to hand it to: 0 on our own joined path.
    pub caller: CallerId,
}

/// Who knows where a service can be met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knows {
    /// It itself, by a route that works.
    Service,
    /// The keepers of its introset.
    Keepers,
}

/// A conversation with keys.
pub struct Convo {
    /// The other end.
    pub remote: Remote,
    /// Whether we called.
    pub caller: bool,
    theirs: SessionId,
    sealer: Sealer,
    opener: Opener,
    /// Best first, with whether anything ever came by it; the first is in use.
    routes: Vec<(Route, bool)>,
    /// Frames that wait for the end of the batch.
    pub frames: Vec<u8>,
    /// How many packets are among them.
    pub waiting_packets: u64,
    /// Packets that went into links, and packets lost for want of a route or of room.
    pub packets: (u64, u64),
    /// Whether the other end has shown that it has the keys.
    pub proven: bool,
    /// Another conversation with the same remote took its place: it only listens.
    pub retired: bool,
    /// Where the service can be met (callers).
    pub leases: Vec<Lease>,
    /// The key the service was called by; another one is that of a later life (callers).
    pub handshake: [u8; 32],
    /// When the leases were known to be the service's last word, and who has been asked for news since they grew old.
    learnt: Time,
    asked: Option<Knows>,
    /// The edition of our leases that the caller was told last (services).
    pub told: u64,
    /// Leases tried since the list was last refreshed.
    pub tried: Vec<[u8; TOKEN]>,
    /// Leases that led nowhere.
    shut: Vec<Shut>,
    /// Until then, or until there are new ones, no lease is tried: one of them turned out to be of the past.
    outdated: Time,
    /// Not before this may another path be joined.
    pub rejoin_at: Time,
    born: Time,
    used: Time,
    waiting: Option<Time>,
    /// The round trip of our own part of the way, when we last began to wait.
    round: Duration,
    probed: Time,
    /// Probes since we began to wait.
    probes: u32,
    look: Time,
    refreshes: u32,
}

impl Convo {
    /// A conversation whose handshake is done.
    pub fn new(
        remote: Remote,
        caller: bool,
        theirs: SessionId,
        suite: Suite,
        secrets: &Secrets,
        route: Route,
        now: Time,
    ) -> Convo {
        let [up, down] = secrets;
        let (ours, other) = if caller { (up, down) } else { (down, up) };
        Convo {
            remote,
            caller,
            theirs,
            sealer: Sealer::new(suite, ours, Order::Plain),
            opener: Opener::new(suite, other),
            routes: vec![(route, true)],
            frames: Vec::new(),
            waiting_packets: 0,
            packets: (0, 0),
            proven: false,
            retired: false,
            leases: Vec::new(),
            handshake: [0; 32],
            learnt: now,
            asked: None,
            told: 0,
            tried: Vec::new(),
            shut: Vec::new(),
            outdated: Time::default(),
            rejoin_at: now,
            born: now,
            used: now,
            waiting: None,
            round: Duration::ZERO,
            probed: now,
            probes: 0,
            look: now,
            refreshes: 0,
        }
    }

    /// The route in use.
    pub fn active(&self) -> Option<Route> {
        self.routes.first().map(|(route, _)| *route)
    }

    /// All routes, best first.
    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.routes.iter().map(|(route, _)| *route)
    }

    /// Routes that will last a while, of those we joined; none does while nothing comes by any.
    pub fn fresh_routes(&self, road: &Road<'_>) -> usize {
        let soon = road.now.mono + FRESH;
        let fresh = |route: &Route| road.paths.live(route.path).is_some_and(|live| live.expires() > soon);
        if self.is_missing(road.now.mono) { 0 } else { self.routes().filter(fresh).count() }
    }

    /// Leaves the route in use when its end is near and another one that works lasts longer (callers).
    pub fn hand_over(&mut self, road: &mut Road<'_>) {
        let ends = |route: &Route| road.paths.live(route.path).map(|live| live.expires());
        let Some(end) = self.active().and_then(|route| ends(&route)).filter(|end| *end <= road.now.mono + HAND_OVER)
        else {
            return;
        };
        let best = (1..self.routes.len()).filter(|at| self.routes[*at].1).max_by_key(|at| ends(&self.routes[*at].0));
        if let Some(at) = best.filter(|at| ends(&self.routes[*at].0) > Some(end)) {
            self.flush(road);
            self.routes.swap(0, at);
            let route = self.routes[0].0;
            self.say(route, &Frame::Here, false, road);
        }
    }

    /// Adds a packet, sending the cell it no longer fits into. False when it cannot be sent at all.
    pub fn push(&mut self, packet: Stripped<'_>, road: &mut Road<'_>) -> bool {
        self.used = road.now.mono;
        if self.routes.is_empty() {
            return false;
        }
        let (frame, limit) = (Frame::Packet(packet), session::frames(Size::Full));
        let mut fits = frame.write(&mut self.frames, limit);
        if !fits {
            self.flush(road);
            fits = frame.write(&mut self.frames, limit);
        }
        self.waiting_packets += u64::from(fits);
        fits
    }

    /// Sends the waiting frames on the route in use.
    pub fn flush(&mut self, road: &mut Road<'_>) {
        let mut sent = false;
        if let (Some(route), false) = (self.active(), self.frames.is_empty()) {
            let frames = core::mem::take(&mut self.frames);
            sent = self.cell(route, &frames, true, road);
            self.frames = frames;
        }
        self.frames.clear();
        let packets = core::mem::take(&mut self.waiting_packets);
        if sent {
            self.packets.0 += packets;
        } else {
            self.packets.1 += packets;
        }
    }

    /// Sends one frame at once on one route; `asks` when silence after it would mean something.
    pub fn say(&mut self, route: Route, frame: &Frame<'_>, asks: bool, road: &mut Road<'_>) {
        let mut bytes = Vec::with_capacity(16);
        if frame.write(&mut bytes, session::frames(Size::Full)) {
            self.cell(route, &bytes, asks, road);
        }
    }

    /// Sends one frame on every route.
    pub fn say_everywhere(&mut self, frame: &Frame<'_>, asks: bool, road: &mut Road<'_>) {
        for (route, _) in self.routes.clone() {
            self.say(route, frame, asks, road);
        }
    }

    fn cell(&mut self, route: Route, frames: &[u8], asks: bool, road: &mut Road<'_>) -> bool {
        let size = if frames.len() <= session::frames(Size::Small) { Size::Small } else { Size::Full };
        let now = road.now.mono;
        let (theirs, sealer) = (self.theirs, &mut self.sealer);
        let sent = road.paths.send(route.path, size, road.links, now, |body| {
            body[..4].copy_from_slice(&route.caller.0.to_be_bytes());
            body[4..session::HEADER].copy_from_slice(&theirs.0.to_be_bytes());
            let layer = &mut body[session::HEADER..];
            layer[TYPE_AT] = Kind::Data as u8;
            layer[BODY_AT..BODY_AT + frames.len()].copy_from_slice(frames);
            sealer.seal(layer, now);
        });
        if sent && asks && self.waiting.is_none() {
            self.waiting = Some(now);
            self.probes = 0;
            self.round = road.paths.live(route.path).map_or(Duration::ZERO, |live| live.round_trip());
            self.look = self.look.min(now + self.silence());
        }
        sent
    }

    /// Opens a layer in place; false when it is not the other end's.
    pub fn open(&mut self, layer: &mut [u8], now: Time) -> bool {
        self.opener.open(layer, now).is_ok()
    }

    /// Something authentic came by this route: packets, or the caller's word that it is the one to answer on.
    pub fn heard(&mut self, route: Route, packets: bool, here: bool, now: Time) {
        if packets {
            self.used = now;
        }
        let silent = self.is_silent(now);
        self.add_route(route);
        if let Some(at) = self.routes.iter().position(|(known, _)| *known == route) {
            self.routes[at].1 = true;
            if silent || (!self.caller && (packets || here)) {
                self.routes.swap(0, at);
            }
        }
        if self.is_missing(now) {
            self.refreshes = 0;
        }
        // What comes by another route says nothing of the one in use, where the answer should have come.
        if self.active() == Some(route)
            && let Some(since) = self.waiting.take()
        {
            // Had the leases been others when it heard what we said then, it would have told us.
            self.learnt = self.learnt.max(since);
        }
    }

    /// Knows one more route. On one path there is one: a later join of the same caller there replaces the earlier.
    pub fn add_route(&mut self, route: Route) {
        if let Some((known, heard)) = self.routes.iter_mut().find(|(known, _)| known.path == route.path) {
            *heard &= *known == route;
            *known = route;
            return;
        }
        if self.routes.len() >= ROUTES_MAX {
            self.routes.pop();
        }
        self.routes.push((route, false));
    }

    /// A path is gone.
    pub fn drop_path(&mut self, path: PathKey) {
        if self.routes().any(|route| route.path == path) {
            self.routes.retain(|(route, _)| route.path != path);
            self.look = Time::default();
            if self.routes.is_empty() {
                self.rejoin_at = Time::default();
            }
        }
    }

    /// A route is gone.
    pub fn drop_route(&mut self, gone: Route) {
        self.routes.retain(|(route, _)| *route != gone);
    }

    /// Whether the other end has not been heard for too long since we spoke.
    pub fn is_silent(&self, now: Time) -> bool {
        self.waiting.is_some_and(|since| now.since(since) >= self.silence())
    }

    fn silence(&self) -> Duration {
        SILENCE.max(self.round * 3)
    }

    /// How long the route in use has to answer before the others are asked.
    fn turn(&self) -> Duration {
        TURN.max(self.round * 5 / 2)
    }

    /// Whether so long that no route can be working.
    pub fn is_missing(&self, now: Time) -> bool {
        let missing = self.silence() + self.turn() + MISSING.max(self.round * 3);
        self.routes.is_empty() || self.waiting.is_some_and(|since| now.since(since) >= missing)
    }

    /// Whether nobody has used it for long, or its caller never showed that it has the keys.
    pub fn is_idle(&self, now: Time) -> bool {
        now.since(self.used) >= if self.retired { LOST } else { IDLE }
            || (!self.proven && now.since(self.born) >= PROOF)
    }

    /// Whether the other end is gone. A service that has lost its routes cannot tell: its caller, who alone can make new
    /// ones, may have nothing to say and know nothing of it.
    pub fn is_lost(&self, now: Time) -> bool {
        let stranded = !self.caller && self.routes.is_empty();
        !stranded && self.waiting.is_some_and(|since| now.since(since) >= LOST)
    }

    /// Asks for a sign of life: on the route in use first, and on every one when that does not answer. Asked all at once,
    /// the quickest would win, though the one in use may be sound and the other near its end.
    pub fn probe(&mut self, frame: &Frame<'_>, road: &mut Road<'_>) {
        let now = road.now.mono;
        if self.probes > 0 && now.since(self.probed) < self.probe_pause(now) {
            return;
        }
        self.probes += 1;
        self.probed = now;
        match self.active() {
            Some(route) if self.probes == 1 => self.say(route, frame, true, road),
            _ => self.say_everywhere(frame, true, road),
        }
    }

    /// The longer the silence, the rarer the probes.
    fn probe_pause(&self, now: Time) -> Duration {
        let silent = self.waiting.map_or(Duration::ZERO, |since| now.since(since));
        if self.probes == 1 { self.turn() } else { (silent / 8).clamp(PROBE_EVERY, PROBE_LAST) }
    }

    /// The service's leases anew: those tried in vain may be tried again, and news at once.
    pub fn refreshed(&mut self, leases: Vec<Lease>, now: Time) {
        let news = leases.iter().any(|lease| !self.leases.iter().any(|old| old.token == lease.token));
        if news {
            self.outdated = now;
        }
        if news || self.asked.take().is_some() {
            self.rejoin_at = now;
            self.look = now;
        }
        Shut::keep(&mut self.shut, &leases);
        self.leases = leases;
        self.learnt = now;
        self.tried.clear();
    }

    /// Whether a lease is worth a path: not tried already, and not known to lead nowhere.
    pub fn is_open(&self, lease: &Lease, now: Time) -> bool {
        now >= self.outdated && !self.tried.contains(&lease.token) && !Shut::any(&self.shut, lease, now)
    }

    /// A lease led nowhere. When its pivot has forgotten it, the others are as old, and news is better waited for.
    pub fn shut(&mut self, shut: Shut, now: Time) {
        if shut.is_for_ever() {
            self.outdated = now + STALE;
        }
        self.shut.push(shut);
    }

    /// Whether the leases have grown old: the paths behind them come and go.
    pub fn is_stale(&self, now: Time) -> bool {
        now.since(self.learnt) >= STALE
    }

    /// Asks the service where else it can be met.
    pub fn ask_where(&mut self, road: &mut Road<'_>) {
        if let Some(route) = self.active() {
            self.say(route, &Frame::Where, true, road);
        }
    }

    /// Whether to wait before another path is joined; not for an answer that would have to come by a route that fell
    /// silent.
    pub fn waits(&self, now: Time) -> bool {
        now < self.rejoin_at && !(self.asked == Some(Knows::Service) && self.is_missing(now))
    }

    /// Whether to ask for the leases anew before one is used: the service while a route works, else its keepers; each
    /// once, and then the old ones must do.
    pub fn ask_anew(&mut self, now: Time) -> bool {
        let who = if self.is_missing(now) { Knows::Keepers } else { Knows::Service };
        let stale = self.is_stale(now);
        core::mem::replace(&mut self.asked, stale.then_some(who)) != Some(who) && stale
    }

    /// How long to wait before the introset is fetched once more, when this time brings nothing.
    pub fn refresh_pause(&mut self, now: Time) -> Duration {
        self.refreshes += 1;
        if self.is_missing(now) {
            Duration::from_millis(300) * (1 << self.refreshes.saturating_sub(8).min(4))
        } else {
            Duration::from_secs(1) * (1 << self.refreshes.min(6))
        }
    }

    /// Sets the time of the next look.
    pub fn rest(&mut self, now: Time) {
        if self.routes.is_empty() {
            self.waiting.get_or_insert(now);
        }
        self.look = match self.waiting {
            Some(since) if now.since(since) >= self.silence() => now + self.probe_pause(now),
            Some(since) => since + self.silence(),
            None => now + LOOK,
        };
        let short = self.routes.len() < ROUTES || self.is_missing(now);
        if self.caller && !self.retired && short && self.rejoin_at > now {
            self.look = self.look.min(self.rejoin_at);
        }
    }

    /// When to look after it.
    pub fn next_wake(&self) -> Time {
        self.look
    }
}

/// The frames in an opened layer.
pub fn frames_of(layer: &[u8]) -> &[u8] {
    layer.get(BODY_AT..layer.len().saturating_sub(TAG)).unwrap_or_default()
}

/// Sends a handshake message in as many full cells as it needs.
pub fn say_handshake(route: Route, message: &[u8], chance: &mut Chance, road: &mut Road<'_>) {
    let room = Size::Full.payload() - session::HEADER;
    for piece in fragment::split(chance.nonzero(), message, room) {
        road.paths.send(route.path, Size::Full, road.links, road.now.mono, |body| {
            body[..4].copy_from_slice(&route.caller.0.to_be_bytes());
            body[session::HEADER..session::HEADER + piece.len()].copy_from_slice(&piece);
        });
    }
}
