//! What moves cells of the paths through this relay: for every name of a path on a link one leg, down from the client's side
//! or up towards it. Each direction of a hop is a value of its own with its own lock, held by the run of cells, so that cores
//! may share them; what is said on them is decided by `transit`, which installs, joins and removes. Neighbours: `hop` is the
//! same path seen by the control plane, `node::worker` runs cells through legs.

use super::hop::HopRef;
use crate::crypto::onion::{BODY_AT, Opener, Sealer, TYPE_AT};
use crate::crypto::seal::TAG;
use crate::link::{Egress, LinkId};
use crate::time::Time;
use crate::wire::cell::{Kind, Size};
use crate::wire::id::{CallerId, PathId};
use core::ops::Range;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All legs, by the link their cells come from and the path's name on it.
pub type Legs = HashMap<(LinkId, PathId), Leg>;

/// One direction of one path here.
#[derive(Clone)]
pub enum Leg {
    /// Takes a layer off what comes from the client's side.
    Down(Arc<Down>),
    /// Adds a layer to what comes from the pivot's side.
    Up(Arc<Up>),
}

/// Where what was taken out of a layer goes.
pub(super) enum To {
    /// Nowhere: the pivot of a path for questions, or a middle hop whose next one is not linked yet.
    Nobody,
    /// On by this link under this name.
    Next(LinkId, PathId),
    /// Up to the service, which knows the caller by this.
    Service(Arc<Up>, CallerId),
    /// Up to whichever caller it names.
    Callers(HashMap<u32, Arc<Up>>),
}

/// The way down.
pub struct Down {
    pub(super) hop: HopRef,
    depth: u8,
    opens: Mutex<Opens>,
}

struct Opens {
    opener: Opener,
    /// Whether its client ever sent a cell.
    used: bool,
    to: To,
}

/// The way up.
pub struct Up {
    pub(super) hop: usize,
    link: LinkId,
    path: PathId,
    depth: u8,
    sealer: Mutex<Sealer>,
}

/// What became of a cell.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    /// It is on its way.
    On,
    /// It was nothing but cover, and for this hop.
    Cover,
    /// It was forged, repeated, or led nowhere.
    Dropped,
    /// It is for this hop: a piece of a question, here in the onion.
    Control(HopRef, Range<usize>),
}

/// A leg, locked for a run of cells.
pub enum Held<'a> {
    /// Down.
    Down(&'a Down, HeldOpens<'a>),
    /// Up.
    Up(&'a Up, MutexGuard<'a, Sealer>),
}

/// What a held way down holds.
pub struct HeldOpens<'a>(MutexGuard<'a, Opens>);

impl Down {
    pub(super) fn new(hop: HopRef, depth: u8, opener: Opener) -> Down {
        Down { hop, depth, opens: Mutex::new(Opens { opener, used: false, to: To::Nobody }) }
    }

    fn hold(&self) -> MutexGuard<'_, Opens> {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets where its cells go.
    pub(super) fn lead(&self, to: To) {
        self.hold().to = to;
    }

    /// Whether its client ever sent a cell.
    pub(super) fn is_used(&self) -> bool {
        self.hold().used
    }

    /// A caller has come, or gone.
    pub(super) fn caller(&self, caller: CallerId, up: Option<Arc<Up>>) {
        if let To::Callers(callers) = &mut self.hold().to {
            match up {
                Some(up) => callers.insert(caller.0, up),
                None => callers.remove(&caller.0),
            };
        }
    }
}

impl Up {
    pub(super) fn new(hop: usize, (link, path): (LinkId, PathId), depth: u8, sealer: Sealer) -> Up {
        Up { hop, link, path, depth, sealer: Mutex::new(sealer) }
    }

    fn hold(&self) -> MutexGuard<'_, Sealer> {
        self.sealer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds our layer around what `fill` writes as the whole body, and stages the cell towards the client.
    pub(super) fn wrap(
        &self,
        size: Size,
        kind: Kind,
        out: &mut impl Egress,
        now: Time,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        self.wrap_held(&mut self.hold(), size, kind, out, now, fill)
    }

    fn wrap_held(
        &self,
        sealer: &mut Sealer,
        size: Size,
        kind: Kind,
        out: &mut impl Egress,
        now: Time,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let layer = size.layer(self.depth.into());
        out.put(self.link, self.path, size, now, |onion| {
            onion[TYPE_AT] = kind as u8;
            fill(&mut onion[BODY_AT..layer - TAG]);
            sealer.seal(&mut onion[..layer], now);
            onion[layer..].fill(0);
        })
    }
}

impl Leg {
    /// The place of its hop.
    pub(super) fn hop(&self) -> usize {
        match self {
            Leg::Down(down) => down.hop.index,
            Leg::Up(up) => up.hop,
        }
    }

    /// Locks it for a run of cells.
    pub fn hold(&self) -> Held<'_> {
        match self {
            Leg::Down(down) => Held::Down(down, HeldOpens(down.hold())),
            Leg::Up(up) => Held::Up(up, up.hold()),
        }
    }
}

impl Held<'_> {
    /// Does with a cell what is to be done with it; its onion was opened by the link.
    pub fn pass(&mut self, size: Size, onion: &mut [u8], out: &mut impl Egress, now: Time) -> Passed {
        match self {
            Held::Up(up, sealer) => {
                let inner = &onion[..size.layer(usize::from(up.depth) - 1)];
                up.wrap_held(sealer, size, Kind::Pass, out, now, |body| body.copy_from_slice(inner));
                Passed::On
            }
            Held::Down(down, opens) => opens.0.pass(down, size, onion, out, now),
        }
    }
}

impl Opens {
    fn pass(&mut self, down: &Down, size: Size, onion: &mut [u8], out: &mut impl Egress, now: Time) -> Passed {
        let layer = &mut onion[..size.layer(down.depth.into())];
        if self.opener.open(layer, now).is_err() {
            return Passed::Dropped;
        }
        self.used = true;
        let kind = Kind::from_byte(layer[TYPE_AT]);
        let within = BODY_AT..layer.len() - TAG;
        let body = &mut layer[within.clone()];
        match (kind, &self.to) {
            (Some(Kind::Pass), To::Next(next, wire)) => {
                out.put(*next, *wire, size, now, |onion| super::write(onion, body));
            }
            (Some(Kind::Data), To::Service(service, caller)) => {
                body[..4].copy_from_slice(&caller.0.to_be_bytes());
                service.wrap(size, Kind::Data, out, now, |to| to.copy_from_slice(body));
            }
            (Some(Kind::Data), To::Callers(callers)) => {
                let caller = u32::from_be_bytes([body[0], body[1], body[2], body[3]]);
                let Some(up) = callers.get(&caller) else { return Passed::Dropped };
                body[..4].fill(0);
                up.wrap(size, Kind::Data, out, now, |to| to.copy_from_slice(body));
            }
            (Some(Kind::Control), _) => return Passed::Control(down.hop, within),
            (Some(Kind::Cover), _) => return Passed::Cover,
            _ => return Passed::Dropped,
        }
        Passed::On
    }
}
