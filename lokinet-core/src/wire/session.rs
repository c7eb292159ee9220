//! What two ends of a conversation send each other through a pivot: the `Data` body. The pivot sees the caller id and
//! swaps it; everything else is the ends' own.
//!
//! ```text
//! caller id (4) ‖ session id (4) ‖ session layer (crypto::onion)      an open conversation
//! caller id (4) ‖ 0 (4)          ‖ fragment of Hello or Welcome       the handshake
//! ```
//!
//! Inside a session layer stand frames: type (1) ‖ length (2) ‖ bytes, until type 0 or the end. Neighbours: `session`
//! is the ends, `transit::join` the pivot, `fragment` cuts the handshake.

use crate::crypto::exchange::{self, CIPHERTEXT, PUBLIC, Secret, Shared};
use crate::crypto::kdf;
use crate::crypto::key::{self, Identity, SIGNATURE};
use crate::crypto::onion::OVERHEAD;
use crate::crypto::random::Chance;
use crate::crypto::seal::{self, Suite, TAG};
use crate::time::Wall;
use crate::wire::cell::Size;
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::id::{CallerId, SessionId};
use crate::wire::packet::Stripped;
use zeroize::Zeroizing;

/// Caller id ‖ session id, in bytes.
pub const HEADER: usize = 8;
/// Frame type ‖ length, in bytes.
pub const FRAME: usize = 3;
/// A handshake's first message, in bytes.
pub const HELLO: usize = CIPHERTEXT + PUBLIC + HELLO_INSIDE + TAG;
/// A handshake's second message, in bytes.
pub const WELCOME: usize = 8 + CIPHERTEXT + WELCOME_INSIDE + TAG;

const HELLO_INSIDE: usize = 4 + 8 + 1 + 1 + 32 + SIGNATURE + 18;
const WELCOME_INSIDE: usize = 4 + 12;
const PURPOSE: &str = "session hello";

/// The session layer in a cell of this size, in bytes.
pub const fn layer(size: Size) -> usize {
    size.payload() - HEADER
}

/// What frames may fill in a cell of this size, in bytes.
pub const fn frames(size: Size) -> usize {
    layer(size) - OVERHEAD
}

/// The two ids at the front of a `Data` body.
///
/// # Errors
/// It is shorter than that.
pub fn header(body: &[u8]) -> Result<(CallerId, SessionId, &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    Ok((CallerId(reader.u32()?), SessionId(reader.u32()?), reader.rest()))
}

/// One frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// An IP packet without its addresses.
    Packet(Stripped<'a>),
    /// Answer this, by the way it came.
    Probe(u32),
    /// The answer.
    Echo(u32),
    /// The conversation is over.
    Close,
    /// From now on answer by the way this came.
    Here,
    /// Where else can you be met?
    Where,
    /// There: leases, one after the other.
    Met(&'a [u8]),
}

impl Frame<'_> {
    /// Appends the frame; false, and nothing is appended, when it does not fit into `limit`.
    pub fn write(&self, to: &mut Vec<u8>, limit: usize) -> bool {
        let number;
        let (kind, bytes): (u8, &[u8]) = match self {
            Frame::Packet(packet) => (if packet.partial { 6 } else { 1 }, packet.bytes),
            Frame::Probe(n) => {
                number = n.to_be_bytes();
                (2, &number)
            }
            Frame::Echo(n) => {
                number = n.to_be_bytes();
                (3, &number)
            }
            Frame::Close => (4, &[]),
            Frame::Here => (5, &[]),
            Frame::Where => (7, &[]),
            Frame::Met(leases) => (8, leases),
        };
        if to.len() + FRAME + bytes.len() > limit {
            return false;
        }
        to.push(kind);
        to.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        to.extend_from_slice(bytes);
        true
    }
}

/// The frames of a body, in order; ends at padding and at the first mistake.
pub fn read_frames(body: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut reader = Reader::new(body);
    core::iter::from_fn(move || {
        let kind = reader.u8().ok().filter(|kind| *kind != 0)?;
        let bytes = reader.short().ok()?;
        let number = || bytes.try_into().ok().map(u32::from_be_bytes);
        match kind {
            1 | 6 => Some(Frame::Packet(Stripped { bytes, partial: kind == 6 })),
            2 => number().map(Frame::Probe),
            3 => number().map(Frame::Echo),
            4 if bytes.is_empty() => Some(Frame::Close),
            5 if bytes.is_empty() => Some(Frame::Here),
            7 if bytes.is_empty() => Some(Frame::Where),
            8 => Some(Frame::Met(bytes)),
            _ => None,
        }
    })
}

/// What a caller says of itself in its hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// How the service is to call this conversation.
    pub session: SessionId,
    /// When the hello was made.
    pub time: Wall,
    /// The AEAD the caller wants.
    pub suite: Suite,
    /// Who, proved by a signature; `None` stays anonymous.
    pub address: Option<[u8; 32]>,
}

/// A caller's side of a handshake under way.
pub struct Calling {
    /// The hello's bytes, to be sent and sent again.
    pub hello: Vec<u8>,
    ephemeral: Secret,
    shared: Shared,
    caller: Caller,
}

/// Both directions' secrets: caller to service, then service to caller.
pub type Secrets = [Zeroizing<[u8; 32]>; 2];

/// Begins a handshake with the service at `address` whose introset gave `handshake`; `None` when that key is
/// malformed. `identity` makes the call an authenticated one.
pub fn call(
    address: &[u8; 32],
    handshake: &[u8; PUBLIC],
    caller: Caller,
    identity: Option<&Identity>,
    chance: &mut Chance,
) -> Option<Calling> {
    let (ciphertext, shared) = exchange::encapsulate(handshake, chance)?;
    let ephemeral = Secret::generate(chance);
    let mut hello = ciphertext.to_vec();
    hello.extend_from_slice(ephemeral.public());
    let mut writer = Writer::new(HELLO_INSIDE + TAG);
    writer.u32(caller.session.0).u64(caller.time.millis()).u8(caller.suite.code()).u8(identity.is_some().into());
    let mut inside = writer.done();
    let said = kdf::digest("hello said", &[address, &hello, &inside]);
    match identity {
        Some(identity) => {
            inside.extend_from_slice(&identity.public());
            inside.extend_from_slice(&identity.sign(PURPOSE, &said));
        }
        None => inside.extend_from_slice(&[0; 32 + SIGNATURE]),
    }
    inside.resize(HELLO_INSIDE, 0);
    seal::once(&shared, "hello", &kdf::digest("hello front", &[address, &hello]), &mut inside);
    hello.extend_from_slice(&inside);
    Some(Calling { hello, ephemeral, shared, caller })
}

/// A service's side: opens a hello; `None` when it is not for this key and address or its signature is false.
pub fn answer(address: &[u8; 32], handshake: &Secret, hello: &[u8]) -> Option<(Caller, Answering)> {
    if hello.len() != HELLO {
        return None;
    }
    let mut reader = Reader::new(hello);
    let ciphertext = Box::new(reader.array::<CIPHERTEXT>().ok()?);
    let ephemeral = Box::new(reader.array::<PUBLIC>().ok()?);
    let front = &hello[..CIPHERTEXT + PUBLIC];
    let shared = handshake.decapsulate(&ciphertext)?;
    let inside = seal::open_once(&shared, "hello", &kdf::digest("hello front", &[address, front]), reader.rest())?;
    let mut reader = Reader::new(&inside);
    let (session, time) = (SessionId(reader.u32().ok()?), Wall::from_millis(reader.u64().ok()?));
    let suite = Suite::from_code(reader.u8().ok()?)?;
    let signed = match reader.u8().ok()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let (public, signature) = (reader.array().ok()?, reader.array().ok()?);
    let said = kdf::digest("hello said", &[address, front, &inside[..14]]);
    if session.0 == 0 || (signed && !key::verify(&public, PURPOSE, &said, &signature)) {
        return None;
    }
    let caller = Caller { session, time, suite, address: signed.then_some(public) };
    Some((caller, Answering { shared, ephemeral, digest: kdf::digest("hello", &[hello]) }))
}

/// A service's side of a handshake under way.
pub struct Answering {
    shared: Shared,
    ephemeral: Box<[u8; PUBLIC]>,
    /// Names the hello, for the replay cache.
    pub digest: [u8; 32],
}

impl Answering {
    /// Makes the welcome and the conversation's secrets; `None` when the caller's key is malformed.
    pub fn welcome(&self, session: SessionId, chance: &mut Chance) -> Option<(Vec<u8>, Secrets)> {
        let (ciphertext, shared) = exchange::encapsulate(&self.ephemeral, chance)?;
        let (confirm, secrets) = secrets(&self.digest, &ciphertext, &self.shared, &shared);
        let mut inside = Writer::new(WELCOME_INSIDE + TAG).u32(session.0).pad(WELCOME_INSIDE).done();
        seal::once(&confirm, "welcome", &[], &mut inside);
        let mut welcome = self.digest[..8].to_vec();
        welcome.extend_from_slice(ciphertext.as_slice());
        welcome.extend_from_slice(&inside);
        Some((welcome, secrets))
    }
}

impl Calling {
    /// How welcomes for this call begin.
    pub fn name(&self) -> [u8; 8] {
        let digest = kdf::digest("hello", &[&self.hello]);
        core::array::from_fn(|i| digest[i])
    }

    /// What we said of ourselves.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Opens a welcome: the service's name for the conversation, and its secrets.
    pub fn open(&self, welcome: &[u8]) -> Option<(SessionId, Secrets)> {
        let digest = kdf::digest("hello", &[&self.hello]);
        if welcome.len() != WELCOME || welcome[..8] != digest[..8] {
            return None;
        }
        let mut reader = Reader::new(&welcome[8..]);
        let ciphertext = reader.array().ok()?;
        let shared = self.ephemeral.decapsulate(&ciphertext)?;
        let (confirm, secrets) = secrets(&digest, &ciphertext, &self.shared, &shared);
        let inside = seal::open_once(&confirm, "welcome", &[], reader.rest())?;
        let session = SessionId(Reader::new(&inside).u32().ok()?);
        (session.0 != 0).then_some((session, secrets))
    }
}

fn secrets(hello: &[u8; 32], ciphertext: &[u8; CIPHERTEXT], first: &Shared, second: &Shared) -> (Shared, Secrets) {
    let master = kdf::extract(&kdf::digest("session", &[hello, ciphertext]), &[first.as_slice(), second.as_slice()]);
    let up = kdf::expand(&master, "session to service", &[]);
    (kdf::expand(&master, "session confirm", &[]), [up, kdf::expand(&master, "session to caller", &[])])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Spec chapter 70 prints these numbers; the TUN's MTU of 1280 must fit with its frame.
    #[test]
    fn the_sizes_of_the_spec() {
        assert_eq!((frames(Size::Full), frames(Size::Small)), (1289, 233));
        assert!(FRAME + 1280 <= frames(Size::Full));
        assert_eq!((HELLO, WELCOME), (2480, 1160));
        const { assert!(HELLO + 2 <= crate::wire::build::RIDER) };
    }

    #[test]
    fn authenticated_and_anonymous_handshakes() {
        let mut chance = Chance::new([1; 32]);
        let (service, caller) = (Identity::from_seed(&[2; 32]), Identity::from_seed(&[3; 32]));
        let key = Secret::generate(&mut chance);
        for identity in [None, Some(&caller)] {
            let about = Caller {
                session: SessionId(5),
                time: Wall::from_secs(9),
                suite: Suite::Aes,
                address: identity.map(Identity::public),
            };
            let calling = call(&service.public(), key.public(), about, identity, &mut chance).unwrap();
            assert_eq!(calling.hello.len(), HELLO);
            let (heard, answering) = answer(&service.public(), &key, &calling.hello).unwrap();
            assert_eq!(heard, about);
            let (welcome, theirs) = answering.welcome(SessionId(6), &mut chance).unwrap();
            assert_eq!(welcome.len(), WELCOME);
            let (session, ours) = calling.open(&welcome).unwrap();
            assert_eq!((session, &ours), (SessionId(6), &theirs));
            assert!(answer(&caller.public(), &key, &calling.hello).is_none(), "another service's address");
            for at in 0..HELLO {
                let mut bent = calling.hello.clone();
                bent[at] ^= 1 << (at % 8);
                assert!(answer(&service.public(), &key, &bent).is_none(), "byte {at}");
            }
            for at in 0..WELCOME {
                let mut bent = welcome.clone();
                bent[at] ^= 1 << (at % 8);
                assert!(calling.open(&bent).is_none(), "byte {at}");
            }
        }
    }

    fn packet(bytes: &[u8]) -> Stripped<'_> {
        Stripped { bytes, partial: bytes.len() == 3 }
    }

    #[test]
    fn frames_round_trip_and_stop_at_padding() {
        let mut body = Vec::new();
        assert!(Frame::Packet(packet(&[1, 2, 3])).write(&mut body, 233));
        assert!(Frame::Probe(7).write(&mut body, 233));
        assert!(Frame::Here.write(&mut body, 233));
        assert!(Frame::Close.write(&mut body, 233));
        assert!(!Frame::Packet(packet(&[0; 230])).write(&mut body, 233));
        body.resize(233, 0);
        let read: Vec<Frame<'_>> = read_frames(&body).collect();
        assert_eq!(read, [Frame::Packet(packet(&[1, 2, 3])), Frame::Probe(7), Frame::Here, Frame::Close]);
    }
    /// What a frame says may be said in one way only: room for a body is room for what nobody asked for.
    #[test]
    fn a_frame_that_says_all_by_its_type_has_no_body() {
        for kind in [4, 5] {
            assert_eq!(read_frames(&[kind, 0, 0]).count(), 1);
            assert_eq!(read_frames(&[kind, 0, 1, 7, 2, 0, 4, 0, 0, 0, 1]).count(), 0, "type {kind} with a body");
        }
    }

    #[test]
    fn a_caller_is_signed_or_anonymous_and_nothing_else() {
        let mut chance = Chance::new([4; 32]);
        let (service, key) = (Identity::from_seed(&[2; 32]), Secret::generate(&mut chance));
        let about = Caller { session: SessionId(5), time: Wall::from_secs(9), suite: Suite::Aes, address: None };
        for flag in 0..=u8::MAX {
            let Calling { mut hello, shared, .. } =
                call(&service.public(), key.public(), about, None, &mut chance).unwrap();
            let inside = hello.split_off(CIPHERTEXT + PUBLIC);
            let front = kdf::digest("hello front", &[&service.public(), &hello]);
            let mut inside = seal::open_once(&shared, "hello", &front, &inside).unwrap().to_vec();
            assert_eq!(core::mem::replace(&mut inside[13], flag), 0);
            seal::once(&shared, "hello", &front, &mut inside);
            hello.extend_from_slice(&inside);
            let heard = answer(&service.public(), &key, &hello);
            assert_eq!(heard.map(|(caller, _)| caller.address), (flag == 0).then_some(None), "flag {flag}");
        }
    }
}
