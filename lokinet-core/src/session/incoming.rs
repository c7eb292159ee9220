//! What comes up a path for us: the cells of open conversations, and the handshakes of new ones, as caller and as
//! called. Neighbours: `session` holds the tables, `outgoing` is what we do of our own accord; `answer`, `call` and
//! `convo` open what arrives.

use super::convo::{self, Convo, Route};
use super::{
    Action, COLLECTING_MAX, CONVOS_MAX, HANDSHAKE_FRAGMENTS, Joining, Remote, Road, Sessions, answer, publish,
};
use crate::path::{Arrived, PathKey};
use crate::time::Time;
use crate::wire::fragment::{Assembler, Fragment};
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
        self.bodies.0 += 1;
        let Ok((caller, id, _)) = session::header(body) else {
            self.dropped += 1;
            return;
        };
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
        self.bodies.1 += 1;
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
        // Who speaks to us is told unasked what changed: when his routes end it is too late to ask.
        let edition = self.publishing.edition();
        if !convo.caller && (asked || convo.told != edition) {
            convo.told = edition;
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
        let Some(fragment) = Fragment::decode(bytes).ok().filter(|f| f.count <= HANDSHAKE_FRAGMENTS) else {
            self.dropped += 1;
            return;
        };
        self.bodies.2 += 1;
        let Some(message) = self.collect((path, caller), fragment) else { return };
        let counts = match message.len() {
            HELLO => self.hello(Route { path, caller }, &message, road),
            WELCOME => self.welcome(path, &message, road).is_some(),
            _ => false,
        };
        self.handshakes.0 += 1;
        if counts {
            self.handshakes.1 += 1;
        } else {
            self.handshakes.2 += 1;
        }
    }

    /// Puts a handshake's fragments together; the one begun first makes room for others.
    fn collect(&mut self, from: (PathKey, CallerId), fragment: Fragment<'_>) -> Option<Vec<u8>> {
        if self.collecting.len() >= COLLECTING_MAX && !self.collecting.contains_key(&from) {
            let oldest = self.collecting.iter().min_by_key(|(_, (begun, _))| *begun).map(|(from, _)| *from);
            oldest.map(|oldest| self.collecting.remove(&oldest));
        }
        self.collected += 1;
        let begun = self.collected;
        let (_, assembler) = self.collecting.entry(from).or_insert_with(|| (begun, Assembler::default()));
        let message = assembler.take(fragment)?;
        self.collecting.remove(&from);
        Some(message)
    }

    /// A caller's first message; whether it was answered.
    fn hello(&mut self, route: Route, hello: &[u8], road: &mut Road<'_>) -> bool {
        let room = self.convos.len() < CONVOS_MAX;
        match self.answering.answer(&self.identity.public(), hello, room, &mut self.chance, road.now) {
            answer::Heard::New { session, .. } if self.convos.contains_key(&session) => return false,
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
            answer::Heard::Nothing => return false,
        }
        true
    }

    /// A service's answer to a call of ours; `None` when it is none.
    fn welcome(&mut self, path: PathKey, welcome: &[u8], road: &mut Road<'_>) -> Option<()> {
        let Joining::Call(address) = self.joining.get(&path).copied()? else { return None };
        let call = self.calls.get_mut(&address)?;
        let opened = call.welcome(welcome).filter(|(_, _, session)| !self.convos.contains_key(session));
        let (theirs, secrets, session) = opened?;
        let call = self.calls.remove(&address)?;
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
            // It was taken when it was queued.
            if self.send(remote, queued.packet(), road) {
                self.packets.0 -= 1;
            } else {
                self.packets.2 += 1;
            }
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
        Some(())
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::crypto::key::Identity;
    use crate::crypto::random::Chance;
    use crate::crypto::seal::Suite;
    use crate::link::Links;
    use crate::netdb::testing::known;
    use crate::path::Paths;
    use crate::time::{Now, Wall};
    use crate::wire::session::Caller;

    /// Whose path has the lowest number is nobody's merit: the one begun first makes room.
    #[test]
    fn a_young_handshake_outlives_a_flood_of_older_ones() {
        let now = Now { mono: Time::from_nanos(0), wall: Wall::from_secs(1_000_000) };
        let identity = Identity::from_seed(&[1; 32]);
        let mut sessions = Sessions::new(identity, true, Suite::Aes, Chance::new([2; 32]), now);
        let half = |index| Fragment { message: 7, index, count: 2, bytes: b"half" };
        let stranger = |number: u64| (PathKey(1000 + number), CallerId(1));
        let honest = (PathKey(1), CallerId(1));
        (0..COLLECTING_MAX as u64).for_each(|n| assert!(sessions.collect(stranger(n), half(0)).is_none()));
        assert!(sessions.collect(honest, half(0)).is_none());
        (0..COLLECTING_MAX as u64 / 2).for_each(|n| assert!(sessions.collect(stranger(2000 + n), half(0)).is_none()));
        assert_eq!(sessions.collect(honest, half(1)).as_deref(), Some(&b"halfhalf"[..]));
        assert!(sessions.collect(stranger(0), half(1)).is_none(), "the oldest was kept");
        assert_eq!(sessions.collecting.len(), COLLECTING_MAX);
    }

    /// Whoever saw a hello may show it again, by any way and at any time. Its caller's clock is as far ahead as may be.
    #[test]
    fn a_repeated_hello_makes_no_second_conversation() {
        let at = |secs: u64| {
            let mono = Time::from_nanos(secs * 1_000_000_000);
            Now { mono, wall: Wall::from_secs(1_000_000 + secs) }
        };
        let identity = Identity::from_seed(&[1; 32]);
        let mut sessions = Sessions::new(identity, true, Suite::Aes, Chance::new([2; 32]), at(0));
        let mut chance = Chance::new([3; 32]);
        for caller in [None, Some(Identity::from_seed(&[4; 32]))] {
            let before = sessions.convos.len();
            let time = at(before as u64 * 4000).wall.plus(answer::SKEW);
            let about = Caller {
                session: SessionId(5),
                time,
                suite: Suite::Aes,
                address: caller.as_ref().map(Identity::public),
            };
            let (address, key) = (sessions.address(), *sessions.answering.public());
            let calling = session::call(&address, &key, about, caller.as_ref(), &mut chance).unwrap();
            let mut paths = Paths::new(Chance::new([5; 32]), core::time::Duration::from_secs(1200));
            let (mut links, netdb) = (Links::default(), known(4));
            for secs in (0..3600).step_by(7) {
                let now = at(before as u64 * 4000 + secs);
                let (paths, links) = (&mut paths, &mut links);
                let mut road = Road { paths, links, netdb: &netdb, guards: &[], hops: 3, now };
                let route = Route { path: PathKey(secs % 5), caller: CallerId(1 + secs as u32 % 3) };
                sessions.hello(route, &calling.hello, &mut road);
                assert_eq!(sessions.convos.len(), before + 1, "shown again after {secs} s");
            }
        }
    }
}
