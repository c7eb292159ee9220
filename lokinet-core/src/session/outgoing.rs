//! What sessions do of their own accord: the steps of lookups and calls, and the care for conversations whose routes
//! fail or grow old. Neighbours: `session` holds the tables these steps work on; `lookup`, `call` and `convo` decide.

use super::call::Stage;
use super::convo::{self, Route};
use super::lookup::{Lookup, Outcome};
use super::{Action, Asked, Failed, Joining, REJOIN_PAUSE, ROUTES, Remote, Road, Sessions};
use crate::path::PathKey;
use crate::wire::id::{CallerId, RelayId, SessionId};
use crate::wire::introset::Lease;
use crate::wire::session::Frame;
use core::time::Duration;

impl Sessions {
    pub(super) fn look_up(&mut self, address: [u8; 32], road: &mut Road<'_>) {
        self.lookups.entry(address).or_insert_with(|| Lookup::new(address, road.now.mono));
        self.step_lookup(address, road);
    }

    pub(super) fn step_lookup(&mut self, address: [u8; 32], road: &mut Road<'_>) {
        let Some(lookup) = self.lookups.get_mut(&address) else { return };
        for (relay, ask) in lookup.questions(road.netdb, road.now) {
            let id = road.paths.any().and_then(|path| road.paths.ask(path, &ask, road.links, road.now.mono));
            match id {
                Some(id) => {
                    self.asked.insert(id, Asked::Lookup(address, relay));
                }
                None => lookup.unasked(&relay),
            }
        }
        match lookup.outcome(road.now) {
            Outcome::Waiting => {}
            Outcome::Found(introset) => {
                self.lookups.remove(&address);
                if let Some(id) = self.by_remote.get(&Remote::Address(address)).copied()
                    && let Some(convo) = self.convos.get_mut(&id)
                {
                    convo.leases = introset.leases.clone();
                }
                let identity = self.reachable.then_some(&self.identity);
                if let Some(call) = self.calls.get_mut(&address) {
                    call.found(&address, introset, identity, self.suite, &mut self.chance, road.now);
                }
                self.step_call(address, road);
            }
            Outcome::NotFound => {
                self.lookups.remove(&address);
                if self.calls.remove(&address).is_some() {
                    self.actions.push(Action::Failed(Remote::Address(address), Failed::NotFound));
                }
            }
        }
    }

    pub(super) fn step_call(&mut self, address: [u8; 32], road: &mut Road<'_>) {
        let Some(call) = self.calls.get_mut(&address) else { return };
        let step = call.step(road.now);
        for (lease, rider) in step.join {
            match road.join(&lease, rider.as_deref()) {
                Some(key) => {
                    call.joining(key);
                    self.joining.insert(key, Joining::Call(address));
                }
                None => call.unusable(),
            }
        }
        if let Some((path, hello)) = step.repeat {
            convo::say_handshake(Route { path, caller: CallerId(0) }, &hello, &mut self.chance, road);
        }
        match step.stage {
            Stage::Going => {}
            Stage::Refresh => self.look_up(address, road),
            Stage::Failed => {
                self.calls.remove(&address);
                self.end_joins(address, road);
                self.actions.push(Action::Failed(Remote::Address(address), Failed::Unreachable));
            }
        }
    }

    fn end_joins(&mut self, address: [u8; 32], road: &mut Road<'_>) {
        let mine: Vec<PathKey> = self
            .joining
            .iter()
            .filter(|(_, joining)| matches!(joining, Joining::Call(to) if *to == address))
            .map(|(key, _)| *key)
            .collect();
        for key in mine {
            self.joining.remove(&key);
            road.paths.close(key, road.links, road.now.mono);
        }
    }

    /// Looks after one conversation: probes when it is silent, keeps its routes fresh, ends it when it is over.
    pub(super) fn tend(&mut self, id: SessionId, road: &mut Road<'_>) {
        let now = road.now.mono;
        let Some(convo) = self.convos.get_mut(&id) else { return };
        if convo.is_idle(now) || convo.is_lost(now) {
            let polite = !convo.is_lost(now);
            return self.close(id, polite, road);
        }
        if convo.is_silent(now) {
            let probe = Frame::Probe(self.chance.nonzero());
            convo.probe(&probe, road);
        }
        if !convo.caller {
            convo.rest(now);
            return;
        }
        let joining = self.joining.values().filter(|j| matches!(j, Joining::Convo(c) if *c == id)).count();
        let convo_routes = convo.fresh_routes(road);
        let live_joins = convo.routes().len();
        let under_way = joining.saturating_sub(live_joins);
        let mut look = None;
        if convo_routes + under_way < ROUTES && now >= convo.rejoin_at {
            convo.rejoin_at = now + REJOIN_PAUSE;
            let used: Vec<RelayId> =
                convo.routes().iter().filter_map(|r| road.paths.live(r.path)).map(|l| l.pivot()).collect();
            let margin = road.now.wall.plus(Duration::from_secs(60));
            let mut usable: Vec<Lease> = convo
                .leases
                .iter()
                .filter(|lease| {
                    lease.until > margin && !used.contains(&lease.pivot) && !convo.tried.contains(&lease.token)
                })
                .copied()
                .collect();
            self.chance.shuffle(&mut usable);
            match usable.first() {
                Some(lease) => {
                    convo.tried.push(lease.token);
                    if let Some(key) = road.join(lease, None) {
                        self.joining.insert(key, Joining::Convo(id));
                    }
                }
                None => {
                    convo.tried.clear();
                    convo.rejoin_at = now + convo.refresh_pause(convo_routes);
                    if let Remote::Address(address) = convo.remote {
                        look = Some(address);
                    }
                }
            }
        }
        convo.rest(now);
        if let Some(address) = look {
            self.look_up(address, road);
        }
    }
}
