//! What sessions do of their own accord: the steps of lookups and calls, and the care for conversations whose routes
//! fail or grow old. Neighbours: `session` holds the tables these steps work on; `lookup`, `call` and `convo` decide.

use super::call::{self, Call, Stage};
use super::convo::{self, FRESH, HAND_OVER, ROUTES_MAX, Route};
use super::lookup::{self, Lookup, Outcome};
use super::{Action, Asked, CALLS_MAX, Failed, Joining, REJOIN_PAUSE, ROUTES, Remote, Road, Sessions};
use crate::crypto::random::Chance;
use crate::netdb::profile::FAILURE;
use crate::path::PathKey;
use crate::wire::build::Purpose;
use crate::wire::id::{CallerId, RelayId, SessionId};
use crate::wire::introset::{Introset, Lease};
use crate::wire::session::Frame;

impl Sessions {
    pub(super) fn look_up(&mut self, address: [u8; 32], road: &mut Road<'_>) {
        self.lookups.entry(address).or_insert_with(|| Lookup::new(address, road.now.mono));
        self.step_lookup(address, road);
    }

    pub(super) fn step_lookup(&mut self, address: [u8; 32], road: &mut Road<'_>) {
        let Some(lookup) = self.lookups.get_mut(&address) else { return };
        for (relay, ask) in lookup.questions(road.netdb, road.now) {
            let id =
                road.paths.any(road.now.mono).and_then(|path| road.paths.ask(path, &ask, road.links, road.now.mono));
            match id {
                Some(id) => {
                    self.asked.insert(id, Asked::Lookup(address, relay));
                }
                None => lookup.unasked(&relay),
            }
        }
        match lookup.outcome(road.now) {
            Outcome::Waiting => {}
            Outcome::Found(mut introset) => {
                arrange(&mut introset.leases, &mut self.chance, road);
                self.lookups.remove(&address);
                self.refreshed(address, &introset, road);
                let identity = self.reachable.then_some(&self.identity);
                if let Some(call) = self.calls.get_mut(&address) {
                    call.found(&address, introset, identity, self.suite, &mut self.chance, road.now);
                }
                self.step_call(address, road);
            }
            Outcome::Failed(why) => {
                self.lookups.remove(&address);
                if let Some(call) = self.calls.remove(&address) {
                    self.packets.2 += call.waiting();
                    self.end_joins(address, road);
                    self.actions.push(Action::Failed(Remote::Address(address), why));
                }
            }
        }
    }

    pub(super) fn step_call(&mut self, address: [u8; 32], road: &mut Road<'_>) {
        let Some(call) = self.calls.get_mut(&address) else { return };
        let step = call.step(road.now);
        for (lease, rider) in step.join {
            match road.join(&lease, rider.as_deref(), &call.paths()) {
                Some(key) => {
                    call.joining(key);
                    self.joining.insert(key, Joining::Call(address));
                }
                None => {
                    call.unusable();
                    self.actions.extend(is_news(&lease, road).then_some(Action::Unknown(lease.pivot)));
                }
            }
        }
        if let Some((path, hello)) = step.repeat {
            convo::say_handshake(Route { path, caller: CallerId(0) }, &hello, &mut self.chance, road);
        }
        match step.stage {
            Stage::Going => {}
            Stage::Refresh => {
                // What was joined led nowhere.
                self.end_joins(address, road);
                self.look_up(address, road);
            }
            Stage::Failed => {
                self.packets.2 += self.calls.remove(&address).map_or(0, |call| call.waiting());
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

    /// The introset of a service we talk with came in anew.
    fn refreshed(&mut self, address: [u8; 32], introset: &Introset, road: &Road<'_>) {
        let now = road.now.mono;
        let id = self.by_remote.get(&Remote::Address(address)).copied();
        let Some(convo) = id.and_then(|id| self.convos.get_mut(&id)).filter(|convo| convo.caller) else { return };
        if convo.is_missing(now) && call::name_of(introset) != convo.handshake && self.calls.len() < CALLS_MAX {
            // Silent, and published under another key: the service lives again and does not know us.
            self.calls.entry(address).or_insert_with(|| Call::new(now));
        }
        // What the service itself said of late is newer than what its keepers have.
        if convo.is_stale(now) || convo.is_missing(now) {
            convo.refreshed(introset.leases.clone(), now);
        }
        self.soonest = self.soonest.min(convo.next_wake());
    }

    /// Looks after one conversation: probes when it is silent, keeps its routes fresh, ends it when it is over.
    pub(super) fn tend(&mut self, id: SessionId, road: &mut Road<'_>) {
        let now = road.now.mono;
        let Some(convo) = self.convos.get_mut(&id) else { return };
        if convo.is_idle(now) || convo.is_lost(now) {
            let polite = convo.proven && !convo.is_lost(now);
            return self.close(id, polite, road);
        }
        if convo.is_silent(now) {
            let probe = Frame::Probe(self.chance.nonzero());
            convo.probe(&probe, road);
        }
        if convo.caller && !convo.retired {
            convo.hand_over(road);
            self.renew(id, road);
        }
        if let Some(convo) = self.convos.get_mut(&id) {
            convo.rest(now);
        }
    }

    /// Joins more paths when those that are joined will not last, or do not work.
    fn renew(&mut self, id: SessionId, road: &mut Road<'_>) {
        let now = road.now.mono;
        let Some(convo) = self.convos.get_mut(&id) else { return };
        let missing = convo.is_missing(now);
        let joined = self.joining.iter().filter(|(_, joining)| matches!(joining, Joining::Convo(c) if *c == id));
        let joined: Vec<PathKey> = joined.map(|(key, _)| *key).collect();
        let under_way = joined.iter().filter(|key| road.paths.live(**key).is_none()).count();
        // While nothing comes by any route, what is being built may be as dead as what was.
        if (convo.fresh_routes(road) + under_way >= ROUTES && !missing) || convo.waits(now) {
            return;
        }
        if convo.ask_anew(now) {
            convo.rejoin_at = now + lookup::GIVE_UP;
            match convo.remote {
                Remote::Address(address) if missing => self.look_up(address, road),
                _ => convo.ask_where(road),
            }
            return;
        }
        convo.rejoin_at = now + REJOIN_PAUSE;
        let known: Vec<(Purpose, RelayId)> = joined.iter().filter_map(|key| road.paths.errand(*key)).collect();
        let margin = road.now.wall.plus(if missing { HAND_OVER } else { FRESH * 3 / 2 });
        let is_usable = |lease: &&Lease| {
            lease.until > margin
                && convo.is_open(lease, now)
                && !known.iter().any(|(purpose, pivot)| {
                    *purpose == Purpose::Join(lease.token) || (!missing && *pivot == lease.pivot)
                })
        };
        let usable = convo.leases.iter().filter(is_usable).copied();
        let (news, mut usable): (Vec<Lease>, Vec<Lease>) = usable.partition(|lease| is_news(lease, road));
        self.actions.extend(news.first().map(|lease| Action::Unknown(lease.pivot)));
        arrange(&mut usable, &mut self.chance, road);
        // One at a time, unless nothing works: then what is joined may lead over the same dead relay.
        usable.truncate(if missing { ROUTES } else { 1 });
        let mut beside = joined.clone();
        for lease in &usable {
            convo.tried.push(lease.token);
            if let Some(key) = road.join(lease, None, &beside) {
                self.joining.insert(key, Joining::Convo(id));
                beside.push(key);
            }
        }
        if !usable.is_empty() {
            // Paths that led nowhere make room.
            for key in joined.iter().take((joined.len() + usable.len()).saturating_sub(ROUTES_MAX)) {
                road.paths.close(*key, road.links, now);
            }
        } else {
            convo.rejoin_at = now + convo.refresh_pause(now);
        }
        if (missing || usable.is_empty())
            && let Remote::Address(address) = convo.remote
        {
            self.look_up(address, road);
        }
    }
}

/// Puts leases in random order, those whose pivots failed us lately last.
fn arrange(leases: &mut [Lease], chance: &mut Chance, road: &Road<'_>) {
    chance.shuffle(leases);
    leases.sort_by_key(|lease| road.netdb.profile.score(&lease.pivot) / FAILURE);
}

/// Whether a lease's pivot is a relay that we have yet to hear of.
fn is_news(lease: &Lease, road: &Road<'_>) -> bool {
    road.netdb.contact(&lease.pivot).is_none() && road.netdb.registry().lists(&lease.pivot)
}
