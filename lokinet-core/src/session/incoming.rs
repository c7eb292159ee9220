//! What comes up a path for us: the cells of open conversations, and the handshakes of new ones, as caller and as
//! called. Neighbours: `session` holds the tables, `outgoing` is what we do of our own accord; `answer`, `call` and
//! `convo` open what arrives.

use super::convo::{self, Convo, Route};
use super::{
    Action, COLLECTING_MAX, CONVOS_MAX, HANDSHAKE_FRAGMENTS, Joining, Remote, Road, Sessions, answer, publish,
};
use crate::path::{Arrived, PathKey};
use crate::time::Time;
use crate::wire::fragment::Fragment;
use crate::wire::id::{CallerId, SessionId};
use crate::wire::introset;
use crate::wire::packet::Stripped;
use crate::wire::session::{self, Frame, HELLO, WELCOME};

impl Sessions {
    /// A `Data` body came up a path; `deliver` gets each IP packet in it.
    pub fn arrived(
        &mut self,
        arrived: Arrived<'_>,
        road: &mut Road<'_>,
        deliver: &mut impl FnMut(Remote, Stripped<'_>),
    ) {
        let Arrived { path, body } = arrived;
        let Ok((caller, id, _)) = session::header(body) else { return };
        if id.0 == 0 {
            return self.handshake(path, caller, &body[session::HEADER..], road);
        }
        let Some(convo) = self.convos.get_mut(&id) else {
            self.dropped += 1;
            return;
        };
        let layer = &mut body[session::HEADER..];
        if !convo.open(layer, road.now.mono) {
            self.dropped += 1;
            return;
        }
        self.prove(id, road.now.mono);
        let Some(convo) = self.convos.get_mut(&id) else { return };
        let remote = convo.remote;
        let mut closed = false;
        let mut echo = None;
        let (mut packets, mut here, mut asked) = (false, false, false);
        let mut met = None;
        for frame in session::read_frames(convo::frames_of(layer)) {
            match frame {
                Frame::Packet(packet) => {
                    packets = true;
                    deliver(remote, packet);
                }
                Frame::Probe(number) => echo = Some(number),
                Frame::Echo(_) => {}
                Frame::Close => closed = true,
                Frame::Here => here = true,
                Frame::Where => asked = true,
                Frame::Met(leases) => met = introset::leases(leases).ok(),
            }
        }
        convo.heard(Route { path, caller }, packets, here, road.now.mono);
        if let Some(number) = echo {
            // An answer asks for none: two silent ends would probe each other for ever.
            convo.say(Route { path, caller }, &Frame::Echo(number), false, road);
        }
        if asked && !convo.caller {
            let leases = introset::leases_bytes(&publish::leases(road));
            convo.say(Route { path, caller }, &Frame::Met(&leases), false, road);
        }
        if let Some(leases) = met.filter(|_| convo.caller) {
            convo.refreshed(leases, road.now.mono);
        }
        self.soonest = self.soonest.min(convo.next_wake());
        if closed {
            self.close(id, false, road);
        }
    }

    /// The first authentic cell proves the other end has the keys: only now may it take an older one's place.
    fn prove(&mut self, id: SessionId, now: Time) {
        let Some(convo) = self.convos.get_mut(&id).filter(|convo| !convo.proven) else { return };
        convo.proven = true;
        let remote = convo.remote;
        self.succeed(remote, id, now);
        self.actions.push(Action::Open(remote));
    }

    /// Decides which conversation counts, when there are two with one remote; the other only listens until it is idle.
    fn succeed(&mut self, remote: Remote, new: SessionId, now: Time) {
        let old = self.by_remote.get(&remote).copied().filter(|old| *old != new);
        let own = self.address();
        let (Some(old), Remote::Address(theirs)) = (old, remote) else {
            self.by_remote.insert(remote, new);
            return;
        };
        let caller = |convo: &Convo| if convo.caller { own } else { theirs };
        // Both may have called at once. Then both ends must decide alike, whatever each of them heard first.
        let stays = match (self.convos.get(&old), self.convos.get(&new)) {
            (Some(old), Some(new)) => {
                old.proven && !old.is_silent(now) && old.caller != new.caller && caller(old) < caller(new)
            }
            _ => false,
        };
        let (winner, loser) = if stays { (old, new) } else { (new, old) };
        self.by_remote.insert(remote, winner);
        for (id, retired) in [(winner, false), (loser, true)] {
            if let Some(convo) = self.convos.get_mut(&id) {
                convo.retired = retired;
            }
        }
    }

    fn handshake(&mut self, path: PathKey, caller: CallerId, bytes: &[u8], road: &mut Road<'_>) {
        let Some(fragment) = Fragment::decode(bytes).ok().filter(|f| f.count <= HANDSHAKE_FRAGMENTS) else { return };
        if self.collecting.len() >= COLLECTING_MAX && !self.collecting.contains_key(&(path, caller)) {
            self.collecting.pop_first();
        }
        let Some(message) = self.collecting.entry((path, caller)).or_default().take(fragment) else { return };
        self.collecting.remove(&(path, caller));
        match message.len() {
            HELLO => self.hello(Route { path, caller }, &message, road),
            WELCOME => self.welcome(path, &message, road),
            _ => self.dropped += 1,
        }
    }

    fn hello(&mut self, route: Route, hello: &[u8], road: &mut Road<'_>) {
        let room = self.convos.len() < CONVOS_MAX;
        match self.answering.answer(&self.identity.public(), hello, room, &mut self.chance, road.now) {
            answer::Heard::New { session, .. } if self.convos.contains_key(&session) => self.dropped += 1,
            answer::Heard::New { caller, welcome, secrets, session } => {
                let remote = caller.address.map_or(Remote::Anonymous(session.0), Remote::Address);
                let now = road.now.mono;
                let convo = Convo::new(remote, false, caller.session, caller.suite, &secrets, route, now);
                self.soonest = self.soonest.min(convo.next_wake());
                self.convos.insert(session, convo);
                self.by_remote.entry(remote).or_insert(session);
                convo::say_handshake(route, &welcome, &mut self.chance, road);
            }
            answer::Heard::Again(welcome) => convo::say_handshake(route, &welcome, &mut self.chance, road),
            answer::Heard::Nothing => self.dropped += 1,
        }
    }

    fn welcome(&mut self, path: PathKey, welcome: &[u8], road: &mut Road<'_>) {
        let Some(Joining::Call(address)) = self.joining.get(&path).copied() else { return };
        let Some(call) = self.calls.get_mut(&address) else { return };
        let opened = call.welcome(welcome).filter(|(_, _, session)| !self.convos.contains_key(session));
        let Some((theirs, secrets, session)) = opened else {
            self.dropped += 1;
            return;
        };
        let Some(call) = self.calls.remove(&address) else { return };
        let remote = Remote::Address(address);
        let route = Route { path, caller: CallerId(0) };
        let mut convo = Convo::new(remote, true, theirs, self.suite, &secrets, route, road.now.mono);
        let (queued, leases, handshake) = call.finish();
        (convo.leases, convo.handshake) = (leases, handshake);
        convo.proven = true;
        self.soonest = self.soonest.min(convo.next_wake());
        self.convos.insert(session, convo);
        // What the call joined beside this path stays as the conversation's standby.
        let mine: Vec<PathKey> = self
            .joining
            .iter()
            .filter(|(_, joining)| matches!(joining, Joining::Call(to) if *to == address))
            .map(|(key, _)| *key)
            .collect();
        for key in mine {
            self.joining.insert(key, Joining::Convo(session));
            if key != path && road.paths.live(key).is_some() {
                self.standby(session, key, road);
            }
        }
        self.succeed(remote, session, road.now.mono);
        self.actions.push(Action::Open(remote));
        for queued in &queued {
            self.send(remote, queued.packet(), road);
        }
        // Even with nothing to say: the service believes in us once it has opened a cell of ours.
        if let Some(convo) = self.convos.get_mut(&session)
            && convo.frames.is_empty()
        {
            let probe = Frame::Probe(self.chance.nonzero());
            convo.say(route, &probe, true, road);
            self.soonest = self.soonest.min(convo.next_wake());
        }
        self.flush(road);
    }

    pub(super) fn standby(&mut self, session: SessionId, path: PathKey, road: &mut Road<'_>) {
        let Some(convo) = self.convos.get_mut(&session) else { return };
        let route = Route { path, caller: CallerId(0) };
        convo.add_route(route);
        // The service learns of the route by hearing from it.
        let probe = Frame::Probe(self.chance.nonzero());
        convo.say(route, &probe, true, road);
        self.soonest = self.soonest.min(convo.next_wake());
    }
}
