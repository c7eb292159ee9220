//! The stranger's conversations with the client, on either side of the call: hellos, welcomes, and any frames. Neighbours:
//! `client` holds the tables and what the client says.

use super::super::feed::Feed;
use super::super::records::{IDENTITY, SECRET};
use super::{REMEMBERED, Story, Talk};
use lokinet_core::crypto::onion::{BODY_AT, Opener, Order, Sealer, TYPE_AT};
use lokinet_core::crypto::seal::Suite;
use lokinet_core::wire::cell::{Kind, Size};
use lokinet_core::wire::fragment;
use lokinet_core::wire::id::{CallerId, SessionId};
use lokinet_core::wire::packet::Stripped;
use lokinet_core::wire::session::{self, Caller, Frame, WELCOME};

impl Story {
    /// Answers a hello, as the service that was called.
    pub(super) fn welcome(&mut self, feed: &mut Feed<'_>) {
        if self.hellos.is_empty() {
            return;
        }
        let (route, hello) = self.hellos.remove(feed.below(REMEMBERED) % self.hellos.len());
        let Some((caller, answering)) = session::answer(&IDENTITY.public(), &SECRET, &hello) else { return };
        let ours = SessionId(self.talks.len() as u32 + 1);
        let Some((mut welcome, [up, down])) = answering.welcome(ours, &mut self.chance) else { return };
        let (at, flip) = (feed.below(WELCOME), feed.byte().saturating_sub(200));
        welcome[at] ^= flip;
        self.handshake(route, CallerId(0), &welcome);
        self.begin(route, CallerId(0), caller.session, caller.suite, [&down, &up]);
    }

    /// Calls the client's service over one of its own paths.
    pub(super) fn call(&mut self, feed: &mut Feed<'_>) {
        let (Some(door), false) = (self.door.clone(), self.routes.is_empty()) else { return };
        let (route, caller, shape) =
            (feed.below(REMEMBERED) % self.routes.len(), CallerId(feed.byte().into()), feed.byte());
        let known = shape & 1 == 0;
        let about = Caller {
            session: SessionId(u32::from(feed.byte()) + 1),
            time: self.stage.now.wall,
            suite: if shape & 2 == 0 { Suite::Aes } else { Suite::ChaCha },
            address: known.then(|| IDENTITY.public()),
        };
        let identity = known.then_some(&*IDENTITY);
        let Some(calling) = session::call(&self.address, &door, about, identity, &mut self.chance) else { return };
        let hello = calling.hello.clone();
        self.calling.push((route, caller, calling));
        self.handshake(route, caller, &hello);
    }

    fn handshake(&mut self, route: usize, caller: CallerId, message: &[u8]) {
        for piece in fragment::split(9, message, Size::Full.payload() - session::HEADER) {
            let body = [&caller.0.to_be_bytes()[..], &[0; 4], &piece].concat();
            self.cell(route, usize::MAX, Size::Full, Kind::Data, &body);
        }
    }

    pub(super) fn begin(
        &mut self,
        route: usize,
        caller: CallerId,
        theirs: SessionId,
        suite: Suite,
        [ours, other]: [&[u8; 32]; 2],
    ) {
        if self.talks.len() < REMEMBERED {
            let (sealer, opener) = (Sealer::new(suite, ours, Order::Plain), Opener::new(suite, other));
            self.talks.push(Talk { route, caller, theirs, sealer, opener });
        }
    }

    /// Any frames in a conversation.
    pub(super) fn talk(&mut self, feed: &mut Feed<'_>) {
        if self.talks.is_empty() {
            return;
        }
        let at = feed.below(REMEMBERED) % self.talks.len();
        let size = if feed.one_in(4) { Size::Small } else { Size::Full };
        let (mut frames, limit) = (Vec::new(), session::frames(size));
        for _ in 0..feed.below(6) {
            let frame = match feed.byte() % 6 {
                kind @ (0 | 1) => Frame::Packet(Stripped { bytes: feed.slice(), partial: kind == 1 }),
                2 => Frame::Probe(feed.byte().into()),
                3 => Frame::Echo(feed.byte().into()),
                4 => Frame::Here,
                _ if feed.one_in(8) => Frame::Close,
                _ => Frame::Probe(0),
            };
            frame.write(&mut frames, limit);
        }
        if feed.one_in(4) {
            frames = feed.slice().to_vec();
        }
        frames.resize(limit, 0);
        let other_way = feed.byte();
        let talk = &mut self.talks[at];
        let mut layer = vec![0; session::layer(size)];
        layer[TYPE_AT] = Kind::Data as u8;
        layer[BODY_AT..BODY_AT + limit].copy_from_slice(&frames);
        talk.sealer.seal(&mut layer, self.stage.now.mono);
        let body = [&talk.caller.0.to_be_bytes()[..], &talk.theirs.0.to_be_bytes(), &layer].concat();
        let route = if other_way < 200 { talk.route } else { usize::from(other_way) };
        self.cell(route, usize::MAX, size, Kind::Data, &body);
    }
}
