//! Path builds: one record per hop, truly nested, and the layered reply. Every hop opens its own record, sees nothing
//! of the others, and passes on a body of the same total size. Shapes, sizes and the sealing that both ends must do
//! alike stand here (spec chapter 50). Neighbours: `path::build` makes records, `transit::admit` opens them.

use crate::crypto::exchange::{self, CIPHERTEXT, PUBLIC, Secret, Shared};
use crate::crypto::kdf;
use crate::crypto::random::Chance;
use crate::crypto::seal::{self, Suite, TAG};
use crate::time::Wall;
use crate::wire::addrs::{ADDRS, Addrs};
use crate::wire::cell::MAX_HOPS;
use crate::wire::codec::{Malformed, Reader, Writer};
use crate::wire::contact::onion_tag;
use crate::wire::id::{PathId, RelayId};
use core::time::Duration;
use zeroize::Zeroizing;

/// A lease's random token, by which a caller's path is joined to a service's, in bytes.
pub const TOKEN: usize = 16;
/// A record's header, in bytes.
pub const HEADER: usize = PUBLIC + 32 + ADDRS + 4 + 4 + 2 + 4 + 1 + 1 + 1 + TOKEN;
/// What one hop adds to a build: key tag ‖ ciphertext ‖ header ‖ two tags, in bytes.
pub const RECORD: usize = 4 + CIPHERTEXT + HEADER + TAG + TAG;
/// The message that rides along to the service behind the pivot, or random bytes, in bytes.
pub const RIDER: usize = 2560;
/// A whole build, whatever the number of hops, in bytes.
pub const BUILD: usize = MAX_HOPS * RECORD + RIDER;
/// What makes the key of each reply its own, in bytes.
pub const SALT: usize = 16;
/// What one hop adds to a reply: salt ‖ status ‖ ciphertext ‖ tag, in bytes.
pub const REPLY_SLOT: usize = SALT + 1 + CIPHERTEXT + TAG;
/// A whole reply, whatever the number of hops, in bytes.
pub const REPLY: usize = MAX_HOPS * REPLY_SLOT;

/// Lifetimes are told in whole steps of this.
pub const LIFETIME_STEP: Duration = Duration::from_secs(300);
/// Times are told in whole steps of so many minutes.
pub const MINUTE_STEP: u64 = 5;

/// What a path's last hop is to do with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Carry control messages only: storing, finding, learning.
    General,
    /// A service's inbound path: callers who show this token are joined to it.
    Host([u8; TOKEN]),
    /// A caller's path: join it to the service's path of this token.
    Join([u8; TOKEN]),
}

/// What a client tells one hop.
#[derive(Clone)]
pub struct Header {
    /// The client's ephemeral key, for the reply.
    pub ephemeral: Box<[u8; PUBLIC]>,
    /// The next hop, where it listens, and the path's name on the link to it; `None` at the pivot.
    pub next: Option<(RelayId, Addrs, PathId)>,
    /// The path's name on the link it came by.
    pub back: PathId,
    /// How long the hop is to be kept, in seconds, as [`told_lifetime`] says it.
    pub lifetime: u16,
    /// The client's wall clock in minutes, as [`told_minute`] says it.
    pub minute: u32,
    /// How many layers end at or behind this hop; the pivot is 1.
    pub depth: u8,
    /// The AEAD of this hop's layers.
    pub suite: Suite,
    /// For the pivot; [`Purpose::General`] for every other hop.
    pub purpose: Purpose,
}

impl Header {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new(HEADER);
        let (id, addrs, forward) = self.next.unwrap_or((RelayId([0; 32]), Addrs::default(), PathId(0)));
        let (flag, token) = match self.purpose {
            Purpose::General => (0, [0; TOKEN]),
            Purpose::Host(token) => (1, token),
            Purpose::Join(token) => (2, token),
        };
        writer.bytes(self.ephemeral.as_slice()).bytes(&id.0);
        addrs.write(&mut writer);
        writer.u32(self.back.0).u32(forward.0).u16(self.lifetime).u32(self.minute).u8(self.depth);
        writer.u8(self.suite.code()).u8(flag).bytes(&token);
        Zeroizing::new(writer.done())
    }

    fn decode(bytes: &[u8]) -> Result<Header, Malformed> {
        let mut reader = Reader::new(bytes);
        let ephemeral = Box::new(reader.array()?);
        let (id, addrs) = (RelayId(reader.array()?), Addrs::read(&mut reader)?);
        let (back, forward) = (PathId(reader.u32()?), PathId(reader.u32()?));
        let (lifetime, minute, depth) = (reader.u16()?, reader.u32()?, reader.u8()?);
        let suite = Suite::from_code(reader.u8()?).ok_or(Malformed)?;
        let (flag, token) = (reader.u8()?, reader.array()?);
        reader.end()?;
        let purpose = match flag {
            0 => Purpose::General,
            1 => Purpose::Host(token),
            2 => Purpose::Join(token),
            _ => return Err(Malformed),
        };
        let pivot = depth == 1;
        if depth == 0 || usize::from(depth) > MAX_HOPS || (!pivot && (addrs.is_empty() || purpose != Purpose::General))
        {
            return Err(Malformed);
        }
        let next = (!pivot).then_some((id, addrs, forward));
        Ok(Header { ephemeral, next, back, lifetime, minute, depth, suite, purpose })
    }
}

/// A path's lifetime as all its hops are told it: rounded up, since it is the same for all of them and an odd number of
/// seconds would tell two of them that they are on one path. The client ends the path earlier itself.
pub fn told_lifetime(lifetime: Duration) -> u16 {
    let steps = lifetime.as_millis().div_ceil(LIFETIME_STEP.as_millis());
    (steps * u128::from(LIFETIME_STEP.as_secs())).min(u16::MAX.into()) as u16
}

/// The wall clock as all hops are told it: to the nearest five minutes, so that only clocks that are far off differ from
/// everybody's.
pub fn told_minute(wall: Wall) -> u32 {
    ((wall.secs() / 60 + MINUTE_STEP / 2) / MINUTE_STEP * MINUTE_STEP) as u32
}

/// What both ends of a record share once it is sealed or opened.
#[derive(Clone)]
pub struct Opening {
    shared: Shared,
    transcript: [u8; 32],
}

impl Opening {
    /// The secret of the hop's layers, from both encapsulations and everything said: forward, then backward.
    pub fn layers(
        &self,
        relay: &RelayId,
        ciphertext: &[u8; CIPHERTEXT],
        ephemeral: &Shared,
    ) -> [Zeroizing<[u8; 32]>; 2] {
        let transcript = kdf::digest("hop", &[&self.transcript, &relay.0, ciphertext]);
        let master = kdf::extract(&transcript, &[self.shared.as_slice(), ephemeral.as_slice()]);
        [kdf::expand(&master, "layer forward", &[]), kdf::expand(&master, "layer backward", &[])]
    }

    fn reply_key(&self, salt: &[u8; SALT]) -> Shared {
        kdf::expand(&self.shared, "reply salt", &[salt])
    }
}

/// Seals one record around what lies deeper (the next hop's record, or the rider); `None` when the hop's onion key is
/// malformed.
pub fn seal_record(
    onion: &[u8; PUBLIC],
    header: &Header,
    deeper: &[u8],
    chance: &mut Chance,
) -> Option<(Vec<u8>, Opening)> {
    let (ciphertext, shared) = exchange::encapsulate(onion, chance)?;
    let mut record = Vec::with_capacity(RECORD + deeper.len());
    record.extend_from_slice(&onion_tag(onion));
    record.extend_from_slice(ciphertext.as_slice());
    let mut sealed = header.encode();
    let transcript = kdf::digest("build record", &[&record, &sealed]);
    seal::once(&shared, "build header", &record, &mut sealed);
    record.extend_from_slice(&sealed);
    let mut inner = deeper.to_vec();
    seal::once(&shared, "build deeper", &transcript, &mut inner);
    record.extend_from_slice(&inner);
    Some((record, Opening { shared, transcript }))
}

/// The key tag of a build, and the ciphertext by which replays are known.
pub fn peek(build: &[u8]) -> Result<([u8; 4], [u8; CIPHERTEXT]), Malformed> {
    if build.len() != BUILD {
        return Err(Malformed);
    }
    let mut reader = Reader::new(build);
    Ok((reader.array()?, reader.array()?))
}

/// Opens the record at the front of a build.
pub fn open_record(secret: &Secret, build: &[u8]) -> Option<(Header, Zeroizing<Vec<u8>>, Opening)> {
    let (_, ciphertext) = peek(build).ok()?;
    let shared = secret.decapsulate(&ciphertext)?;
    let (front, rest) = build.split_at(4 + CIPHERTEXT);
    let (sealed, rest) = rest.split_at(HEADER + TAG);
    let plain = seal::open_once(&shared, "build header", front, sealed)?;
    let header = Header::decode(&plain).ok()?;
    let transcript = kdf::digest("build record", &[front, &plain]);
    let len = usize::from(header.depth - 1) * RECORD + RIDER + TAG;
    let deeper = seal::open_once(&shared, "build deeper", &transcript, rest.get(..len)?)?;
    Some((header, deeper, Opening { shared, transcript }))
}

/// A hop's verdict on a build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The hop is made.
    Accepted,
    /// Too much to do.
    Busy,
    /// The next hop is no relay of the registry, or its address is not acceptable.
    BadNext,
    /// The next hop did not answer.
    Unreachable,
    /// The path's name is taken on this link.
    Taken,
    /// No service path has this token.
    NoSuchJoin,
    /// The build's time is not ours.
    WrongTime,
}

const STATUSES: [Status; 7] = [
    Status::Accepted,
    Status::Busy,
    Status::BadNext,
    Status::Unreachable,
    Status::Taken,
    Status::NoSuchJoin,
    Status::WrongTime,
];

/// Seals a hop's reply around the next hop's. Without an acceptance there is neither ciphertext nor deeper reply, and
/// random bytes stand in for both.
pub fn seal_reply(
    opening: &Opening,
    depth: u8,
    status: Status,
    accepted: Option<(&[u8; CIPHERTEXT], &[u8])>,
    chance: &mut Chance,
) -> Vec<u8> {
    let inside = usize::from(depth.saturating_sub(1)) * REPLY_SLOT;
    let mut reply = vec![0; 1 + CIPHERTEXT + inside];
    chance.fill(&mut reply);
    reply[0] = STATUSES.iter().position(|s| *s == status).unwrap_or(1) as u8;
    if let Some((ciphertext, deeper)) = accepted {
        reply[1..1 + CIPHERTEXT].copy_from_slice(ciphertext);
        let len = inside.min(deeper.len());
        reply[1 + CIPHERTEXT..1 + CIPHERTEXT + len].copy_from_slice(&deeper[..len]);
    }
    // A build may come again after our replay cache is gone: the salt sees to it that no key seals two replies.
    let salt: [u8; SALT] = chance.bytes();
    seal::once(&opening.reply_key(&salt), "build reply", &opening.transcript, &mut reply);
    reply.splice(..0, salt);
    pad(&mut reply, REPLY, chance);
    reply
}

/// Opens a hop's reply: its verdict, its ciphertext, and the deeper reply. `None` when it is not this hop's.
pub fn open_reply(opening: &Opening, depth: u8, reply: &[u8]) -> Option<(Status, Box<[u8; CIPHERTEXT]>, Vec<u8>)> {
    let (salt, sealed) = reply.get(..usize::from(depth) * REPLY_SLOT)?.split_first_chunk::<SALT>()?;
    let plain = seal::open_once(&opening.reply_key(salt), "build reply", &opening.transcript, sealed)?;
    let mut reader = Reader::new(&plain);
    let status = *STATUSES.get(usize::from(reader.u8().ok()?))?;
    let ciphertext = Box::new(reader.array().ok()?);
    Some((status, ciphertext, reader.rest().to_vec()))
}

/// Fills up with fresh random bytes: a stale or forwarded pad would link two hops.
pub fn pad(body: &mut Vec<u8>, total: usize, chance: &mut Chance) {
    let from = body.len().min(total);
    body.resize(total, 0);
    chance.fill(&mut body[from..]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header(depth: u8, secret: &Secret) -> Header {
        let addrs = Addrs::from_list(&["10.1.0.1:1090".parse().unwrap()]);
        Header {
            ephemeral: Box::new(*secret.public()),
            next: (depth > 1).then_some((RelayId([depth; 32]), addrs, PathId(depth.into()))),
            back: PathId(77),
            lifetime: 1200,
            minute: 5,
            depth,
            suite: Suite::Aes,
            purpose: if depth == 1 { Purpose::Join([8; TOKEN]) } else { Purpose::General },
        }
    }

    /// Spec chapter 50 prints these numbers.
    #[test]
    fn the_sizes_of_the_spec() {
        assert_eq!((HEADER, RECORD, BUILD, REPLY_SLOT, REPLY), (1305, 2461, 12404, 1153, 4612));
    }

    #[test]
    fn four_nested_records_open_one_by_one_and_replies_come_back() {
        let mut chance = Chance::new([1; 32]);
        let secrets: Vec<Secret> = (0..4).map(|_| Secret::generate(&mut chance)).collect();
        let mut body = vec![0x5a; RIDER];
        let mut openings = Vec::new();
        for depth in 1..=4u8 {
            let secret = &secrets[usize::from(4 - depth)];
            let (record, opening) = seal_record(secret.public(), &header(depth, secret), &body, &mut chance).unwrap();
            openings.insert(0, opening);
            body = record;
        }
        let mut relays = Vec::new();
        for (i, secret) in secrets.iter().enumerate() {
            pad(&mut body, BUILD, &mut chance);
            assert!(open_record(&secrets[(i + 1) % 4], &body).is_none(), "only its own hop opens a record");
            let (header, deeper, opening) = open_record(secret, &body).unwrap();
            assert_eq!(usize::from(header.depth), 4 - i);
            body = deeper.to_vec();
            relays.push(opening);
        }
        assert_eq!(body, vec![0x5a; RIDER]);
        let mut reply = Vec::new();
        for (i, opening) in relays.iter().enumerate().rev() {
            reply =
                seal_reply(opening, 4 - i as u8, Status::Accepted, Some((&[i as u8; CIPHERTEXT], &reply)), &mut chance);
            assert_eq!(reply.len(), REPLY);
        }
        for (i, opening) in openings.iter().enumerate() {
            let (status, ciphertext, deeper) = open_reply(opening, 4 - i as u8, &reply).unwrap();
            assert_eq!((status, ciphertext[5]), (Status::Accepted, i as u8));
            reply = deeper;
        }
    }

    /// After a restart a relay may be shown a build it has opened before: the one who keeps both replies must learn
    /// nothing from them.
    #[test]
    fn two_replies_to_one_build_share_no_key() {
        let mut chance = Chance::new([3; 32]);
        let secret = Secret::generate(&mut chance);
        let (mut body, ours) = seal_record(secret.public(), &header(1, &secret), &[1; RIDER], &mut chance).unwrap();
        pad(&mut body, BUILD, &mut chance);
        let (_, _, theirs) = open_record(&secret, &body).unwrap();
        let ciphertext = [7; CIPHERTEXT];
        let mut reply = || seal_reply(&theirs, 1, Status::Accepted, Some((&ciphertext, &[])), &mut chance);
        let (one, other) = (reply(), reply());
        assert!(one != other, "what is said twice looks the same twice");
        let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(same < REPLY / 20, "{same} bytes of two replies are equal: one key sealed both");
        for reply in [one, other] {
            assert_eq!(open_reply(&ours, 1, &reply).unwrap().1[..], ciphertext);
        }
    }

    /// All hops of a path are told the same; so must all paths that begin within some minutes be.
    #[test]
    fn what_all_hops_are_told_is_what_everybody_says() {
        let lifetimes: std::collections::BTreeSet<u16> =
            (960_000..=1_200_000).step_by(777).map(|ms| told_lifetime(Duration::from_millis(ms))).collect();
        assert_eq!(lifetimes.into_iter().collect::<Vec<_>>(), [1200]);
        assert_eq!(told_lifetime(Duration::from_secs(1201)), 1500);
        let now = Wall::from_secs(1_767_225_600 + 5 * 60);
        for off in [0, 60, 119] {
            assert_eq!(told_minute(now.plus(Duration::from_secs(off))), told_minute(now));
            assert_eq!(told_minute(Wall::from_secs(now.secs() - off)), told_minute(now));
        }
    }

    #[test]
    fn a_bent_build_opens_nowhere() {
        let mut chance = Chance::new([2; 32]);
        let secret = Secret::generate(&mut chance);
        let (mut body, _) = seal_record(secret.public(), &header(1, &secret), &[1; RIDER], &mut chance).unwrap();
        let used = body.len();
        pad(&mut body, BUILD, &mut chance);
        for at in (4..used).step_by(101) {
            let mut bent = body.clone();
            bent[at] ^= 1;
            assert!(open_record(&secret, &bent).is_none(), "byte {at}");
        }
    }
}
