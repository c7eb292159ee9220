//! One conversation: its keys, its routes and the frames that wait for a full cell. A route is a path and, on a
//! service's path, the caller's id there. The caller leads: the service answers where the caller last spoke. Either
//! end that hears nothing probes every route and goes on by the one that answers. Neighbours: `session` keeps the
//! table, `crypto::onion` is the sealed layer.

use super::{IDLE, LOST, Remote, Road};
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
use crate::wire::session::{self, Frame, Secrets};
use core::time::Duration;

/// Hearing nothing for so long after sending makes a conversation probe.
pub const SILENCE: Duration = Duration::from_millis(600);
/// Between two probes.
pub const PROBE_EVERY: Duration = Duration::from_millis(300);
/// Most routes a conversation keeps.
pub const ROUTES_MAX: usize = 8;
const LOOK: Duration = Duration::from_secs(5);

/// A way to the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Our path.
    pub path: PathKey,
    /// Whom the pivot is to hand it to: 0 on our own joined path.
    pub caller: CallerId,
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
    /// Best first; the first is in use.
    routes: Vec<Route>,
    /// Frames that wait for the end of the batch.
    pub frames: Vec<u8>,
    /// Whether the other end has shown that it has the keys.
    pub proven: bool,
    /// Where the service can be met (callers).
    pub leases: Vec<Lease>,
    /// Leases tried since the list was last refreshed.
    pub tried: Vec<[u8; TOKEN]>,
    /// Not before this may another path be joined.
    pub rejoin_at: Time,
    used: Time,
    last_heard: Time,
    waiting: Option<Time>,
    probed: Time,
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
            routes: vec![route],
            frames: Vec::new(),
            proven: false,
            leases: Vec::new(),
            tried: Vec::new(),
            rejoin_at: now,
            used: now,
            last_heard: now,
            waiting: None,
            probed: now,
            look: now,
            refreshes: 0,
        }
    }

    /// The route in use.
    pub fn active(&self) -> Option<Route> {
        self.routes.first().copied()
    }

    /// All routes.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Routes that will last a while, of those we joined.
    pub fn fresh_routes(&self, road: &Road<'_>) -> usize {
        let soon = road.now.mono + Duration::from_secs(120);
        self.routes.iter().filter(|r| road.paths.live(r.path).is_some_and(|live| live.expires() > soon)).count()
    }

    /// Adds a frame, sending the cell it no longer fits into. False when it cannot be sent at all.
    pub fn push(&mut self, frame: &Frame<'_>, road: &mut Road<'_>) -> bool {
        self.used = road.now.mono;
        if self.routes.is_empty() {
            return false;
        }
        let limit = session::frames(Size::Full);
        if frame.write(&mut self.frames, limit) {
            return true;
        }
        self.flush(road);
        frame.write(&mut self.frames, limit)
    }

    /// Sends the waiting frames on the route in use.
    pub fn flush(&mut self, road: &mut Road<'_>) {
        if let (Some(route), false) = (self.active(), self.frames.is_empty()) {
            let frames = core::mem::take(&mut self.frames);
            self.cell(route, &frames, road);
            self.frames = frames;
        }
        self.frames.clear();
    }

    /// Sends one frame at once on one route.
    pub fn say(&mut self, route: Route, frame: &Frame<'_>, road: &mut Road<'_>) {
        let mut bytes = Vec::with_capacity(16);
        if frame.write(&mut bytes, session::frames(Size::Full)) {
            self.cell(route, &bytes, road);
        }
    }

    /// Sends one frame on every route.
    pub fn say_everywhere(&mut self, frame: &Frame<'_>, road: &mut Road<'_>) {
        for route in self.routes.clone() {
            self.say(route, frame, road);
        }
    }

    fn cell(&mut self, route: Route, frames: &[u8], road: &mut Road<'_>) {
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
        if sent && self.waiting.is_none() {
            self.waiting = Some(now);
            self.look = self.look.min(now + SILENCE);
        }
    }

    /// Opens a layer in place; false when it is not the other end's.
    pub fn open(&mut self, layer: &mut [u8], now: Time) -> bool {
        self.opener.open(layer, now).is_ok()
    }

    /// Something authentic came by this route.
    pub fn heard(&mut self, route: Route, packets: bool, now: Time) {
        if packets {
            self.used = now;
        }
        let silent = self.is_silent(now);
        self.add_route(route);
        if let Some(at) = self.routes.iter().position(|r| *r == route)
            && at > 0
            && (silent || (packets && !self.caller))
        {
            self.routes.swap(0, at);
        }
        self.last_heard = now;
        self.waiting = None;
        self.refreshes = 0;
    }

    /// Knows one more route.
    pub fn add_route(&mut self, route: Route) {
        if self.routes.contains(&route) {
            return;
        }
        if self.routes.len() >= ROUTES_MAX {
            self.routes.pop();
        }
        self.routes.push(route);
    }

    /// A path is gone.
    pub fn drop_path(&mut self, path: PathKey) {
        if self.routes.iter().any(|route| route.path == path) {
            self.routes.retain(|route| route.path != path);
            self.look = Time::default();
        }
    }

    /// A route is gone.
    pub fn drop_route(&mut self, gone: Route) {
        self.routes.retain(|route| *route != gone);
    }

    /// Whether the other end has not been heard for too long since we spoke.
    pub fn is_silent(&self, now: Time) -> bool {
        self.waiting.is_some_and(|since| now.since(since) >= SILENCE)
    }

    /// Whether nobody has used it for long.
    pub fn is_idle(&self, now: Time) -> bool {
        now.since(self.used) >= IDLE
    }

    /// Whether the other end is gone.
    pub fn is_lost(&self, now: Time) -> bool {
        self.waiting.is_some_and(|since| now.since(since) >= LOST)
    }

    /// Asks for a sign of life on every route, not too often.
    pub fn probe(&mut self, frame: &Frame<'_>, road: &mut Road<'_>) {
        if road.now.mono.since(self.probed) >= PROBE_EVERY {
            self.probed = road.now.mono;
            self.say_everywhere(frame, road);
        }
    }

    /// How long to wait before the introset is fetched anew.
    pub fn refresh_pause(&mut self, routes: usize) -> Duration {
        self.refreshes += 1;
        let floor = if routes == 0 { Duration::from_millis(500) } else { Duration::from_secs(20) };
        floor * (1 << self.refreshes.min(5))
    }

    /// Sets the time of the next look.
    pub fn rest(&mut self, now: Time) {
        self.look = match self.waiting {
            Some(since) if now.since(since) >= SILENCE => now + PROBE_EVERY,
            Some(since) => (since + SILENCE).min(now + LOOK),
            None => now + LOOK,
        };
        if self.caller && self.routes.is_empty() {
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
