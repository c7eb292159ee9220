//! First inputs for every target, made by the real encoders, so that a fuzzer begins inside the door and not before it.
//! Neighbours: `tests/tests/corpus.rs` writes them where `tests/fuzz` finds them.

use super::network::{NET, address};
use super::records::{IDENTITY, NETWORK, NOW, SECRET};
use crate::world::packet;
use bytes::Bytes;
use core::time::Duration;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use lokinet_core::crypto::exchange::PUBLIC;
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::build::{HEADER, TOKEN};
use lokinet_core::wire::contact::{CONTACT, LIFETIME};
use lokinet_core::wire::control::{Ask, Tell};
use lokinet_core::wire::fragment;
use lokinet_core::wire::id::{CallerId, RelayId};
use lokinet_core::wire::registry::{self, Listing};
use lokinet_core::wire::request::Request;
use lokinet_core::wire::session::Frame;
use std::str::FromStr;

/// The seeds of a target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "address" => texts(&[
            "7okic5x5do3uh3usttnqz9ek3uuoemdrwzto1hciwim9f947or6y.loki",
            "www.8zfiwpgonsu5zpddpxwdurxyb19x6r96xy4qbikff99jwsziws9y.snode.",
            "foo.localhost.loki",
            "xn--bcher-kva.loki",
            "1.10.10.10.in-addr.arpa.",
            "4.3.2.1.4.3.2.1.8.8.8.8.e.e.e.e.f.e.d.c.b.a.9.8.7.6.5.4.3.2.1.0.ip6.arpa",
        ]),
        "record" => vec![vec![0; 40], build(1, 0), build(4, 0), build(1, 9)],
        "cell" | "onion" => vec![vec![0, 0, 1, 0, 0, 2, 0], sequence(7), sequence(40), sequence(90)],
        "client" => {
            let mut all = stories(&[5, 5, 14, 7, 5, 9, 11, 6, 10, 13, 16, 0, 8, 17, 12]);
            all.extend([conversation(7), conversation(4), conversation(1)]);
            all
        }
        "relay" => {
            let mut all = stories(&[0, 4, 9, 1, 11, 7, 2, 5, 12, 3, 6, 10, 14, 8, 15]);
            all.push(lent());
            all
        }
        "contact" => vec![[&[0], &NET.contacts[0][..]].concat(), [&[1], &NET.contacts[1][..CONTACT - 64]].concat()],
        "control" => control(),
        "dns" => dns(),
        "fragment" => vec![fragments(1), fragments(3), fragments(20)],
        "frames" => vec![frames(), vec![1, 0, 9, 5, 0, 0]],
        "handshake" => vec![vec![0; 9], handshake(1), handshake(5), handshake(7)],
        "ini" => texts(&[include_str!("../../../etc/lokinet.ini"), INI]),
        "introset" => vec![vec![0; 9], introset(1), introset(5), introset(3)],
        "offload" => packets()
            .iter()
            .map(|packet| [&[0, 4, 0, packet.len() as u8], packet.as_slice(), packet].concat())
            .collect(),
        "packet" => packets(),
        "registry" => vec![registry_file(1), registry_file(3)],
        "request" => requests(),
        "saved" => vec![NET.saved_onions.clone(), [[1; 32].as_slice(), &[0; 8]].concat()],
        "town" => vec![vec![1], vec![2, 0, 1, 0, 4, 7, 1, 1, 12, 1, 12, 7], vec![3, 3, 9, 5, 0, 60, 3, 9, 7, 0]],
        _ => Vec::new(),
    }
}

const INI: &str = "[router]\nnetid=fuzz\n[network]\nhops=3\npaths=4\nmapaddr=\
    7okic5x5do3uh3usttnqz9ek3uuoemdrwzto1hciwim9f947or6y.loki:172.16.0.9\nifaddr=172.16.0.1/16\nsrv=_x._tcp 1 2 80 \
    a.loki\nreachable=true\n[dns]\nbind=127.3.2.1:53\nupstream=1.1.1.1\n[bind]\ninbound=1.1.1.1:1090\neth0=1090\n\
    [logging]\nlevel=info\n[registry]\nauthority=d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n";

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A build's choices: a sealed header, `bend` for the reply.
fn build(depth: u8, bend: u8) -> Vec<u8> {
    let mut header = SECRET.public().to_vec();
    header.extend_from_slice(&[1; 32]);
    header.extend_from_slice(&[10, 1, 0, 1, 4, 0x42]);
    header.extend_from_slice(&[0; 18]);
    header.extend_from_slice(&[0, 0, 0, 5, 0, 0, 0, 6, 4, 0xb0, 1, 2, 3, 4, depth, 1, u8::from(depth == 1)]);
    header.extend_from_slice(&[0; TOKEN]);
    assert_eq!(header.len(), HEADER);
    if depth == 1 {
        header[PUBLIC + 32..PUBLIC + 38].fill(0);
    }
    [&[1, bend], &header[..]].concat()
}

/// Moves one after another, so that each kind comes up.
fn sequence(length: u8) -> Vec<u8> {
    (0..length).flat_map(|n| [n, 1, n, 3, 2, n / 2]).collect()
}

fn stories(moves: &[u8]) -> Vec<Vec<u8>> {
    let story = |salt: u8| -> Vec<u8> {
        let each = |(at, what): (usize, &u8)| [*what, salt.wrapping_mul(at as u8), salt, at as u8, 0, 0];
        [salt].into_iter().chain(moves.iter().cycle().take(90).enumerate().flat_map(each)).collect()
    };
    (0..6).map(|n| story(n * 37)).chain([[&[7, 5, 5, 5, 5][..], moves].concat()]).collect()
}

/// A client that builds its paths, publishes, calls and is called, and gets a packet; `shape` is the client's.
fn conversation(shape: u8) -> Vec<u8> {
    let serve = |times: usize| [3, 3, 6, 0, 3].repeat(times);
    let ping = packet::ping([1, 2, 3, 4].into(), [5, 6, 7, 8].into(), 1, 2, b"hello");
    // Without its addresses, as conversations carry it.
    let stripped = [&ping[..12], &ping[20..]].concat();
    let talk = |at: u8| [vec![11, at, 1, 3, 0], with_length(&stripped), vec![2, 7, 4, 1, 200, 0]].concat();
    [
        vec![shape],
        serve(40),
        vec![14, 0, 0],
        serve(12),
        vec![9, 0, 0, 0, 0],
        serve(3),
        (0..4).flat_map(|route| [10, route, 0, route, 9]).collect(),
        serve(3),
        talk(0),
        talk(1),
        vec![16, 0, 0, 3, 1, 2, 3],
        serve(3),
        talk(0),
    ]
    .concat()
}

/// A relay that is a service's pivot, a caller's, and a middle; then everything is said on each path, and the link ends.
fn lent() -> Vec<u8> {
    let build = |shape: u8, number: u8, back: u8| vec![0, 0, shape, 1, number, 0, back, 4, 176, 0];
    let cells = |path: u8| -> Vec<u8> {
        let kinds =
            (0..5).flat_map(|kind| [vec![4, path | 0x10, 0, kind], with_length(&[0, 0, 0, 0, 1, 2, 3])].concat());
        // Ping, find, store, contacts, close; what follows each is what it is made of, and its number.
        let asks: [&[u8]; 5] = [&[0, 7], &[1, 8], &[2, 1, 2, 1, 1, 0, 3, 9], &[4, 0, 10], &[5, 11]];
        let asks = asks.into_iter().flat_map(|ask| [&[4, path, 0, 2, 0, 0, 0], ask].concat());
        kinds.chain(asks).collect()
    };
    [
        build(8, 0, 1),
        build(16, 0, 2),
        build(0, 0, 3),
        build(1, 1, 4),
        [11, 0, 7].repeat(4),
        vec![7, 0, 0, 1, 0, 0, 3, 1, 2, 3],
        cells(0),
        cells(1),
        cells(2),
        cells(3),
        build(8, 0, 1),
        build(9, 0, 1),
        build(24, 0, 5),
    ]
    .concat()
}

fn control() -> Vec<Vec<u8>> {
    let at = RelayId([1; 32]);
    let asks = [
        Ask::Ping,
        Ask::Find { at, key: [2; 32] },
        Ask::Store { at, introset: Bytes::from_static(b"introset") },
        Ask::Names { after: at },
        Ask::Named(vec![[1; 8]; 3]),
        Ask::Close,
    ];
    let contacts = NET.contacts[..1].to_vec();
    let tells = [Tell::Found(None), Tell::Stored(true), Tell::Contacts(contacts), Tell::JoinEnded(CallerId(5))];
    asks.iter().map(Ask::encode).chain(tells.iter().map(Tell::encode)).collect()
}

fn requests() -> Vec<Vec<u8>> {
    let body = Bytes::from_static(b"body");
    let requests = [
        Request::Build(body.clone()),
        Request::Contacts { after: RelayId([1; 32]) },
        Request::Store(body.clone()),
        Request::Find { key: [1; 32] },
        Request::Gossip(body),
        Request::Clock,
        Request::Ended(vec![lokinet_core::wire::id::PathId(7)]),
    ];
    let encoded = requests.iter().map(|request| request.encode().to_vec());
    encoded.chain([NET.contacts[0].to_vec()]).collect()
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn dns() -> Vec<Vec<u8>> {
    let message = |name: &str, kind, edns: bool| {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_str(name).expect("a name"), kind));
        if edns {
            message.set_edns(Edns::new());
        }
        message.to_vec().expect("a message")
    };
    let queries = [
        message("localhost.loki.", RecordType::A, false),
        message("LocalHost.loki.", RecordType::TXT, true),
        message("example.org.", RecordType::HTTPS, true),
        message("1.0.16.172.in-addr.arpa.", RecordType::PTR, false),
    ];
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 172, 16, 0, 9];
    let inputs = queries
        .iter()
        .enumerate()
        .map(|(n, query)| [vec![n as u8 * 5 + 3], with_length(query), query.clone(), record.to_vec()].concat());
    inputs.collect()
}

fn fragments(kilobytes: usize) -> Vec<u8> {
    let pieces = fragment::split(7, &vec![5; kilobytes * 1000], 1300);
    let mut out: Vec<u8> = pieces.iter().rev().flat_map(|piece| with_length(piece)).collect();
    out.extend([0; 9]);
    out
}

fn frames() -> Vec<u8> {
    let mut out = Vec::new();
    for frame in [
        Frame::Packet(lokinet_core::wire::packet::Stripped { bytes: &[1, 2, 3], partial: false }),
        Frame::Probe(7),
        Frame::Echo(8),
        Frame::Here,
        Frame::Where,
        Frame::Met(&[7; 112]),
        Frame::Close,
    ] {
        frame.write(&mut out, 1000);
    }
    out
}

fn handshake(mode: u8) -> Vec<u8> {
    let mut inside = vec![0, 0, 0, 5, 0, 0, 1, 2, 3, 4, 5, 6, 1, u8::from(mode & 4 != 0)];
    inside.resize(128, 0);
    let key = if mode & 2 == 0 { Vec::new() } else { with_length(SECRET.public()) };
    [vec![mode], key, with_length(&inside), vec![0, 9, 0]].concat()
}

fn introset(mode: u8) -> Vec<u8> {
    let until = NOW.plus(Duration::from_secs(900)).secs();
    let mut out = vec![mode];
    out.extend_from_slice(&1u64.to_be_bytes());
    out.extend_from_slice(&until.to_be_bytes());
    out.extend_from_slice(&[9; PUBLIC]);
    out.push(2);
    for lease in 0..2 {
        out.extend_from_slice(&[lease; 32 + TOKEN]);
        out.extend_from_slice(&until.to_be_bytes());
    }
    out
}

fn registry_file(mode: u8) -> Vec<u8> {
    let listing = |n: u8| Listing {
        id: RelayId([n; 32]),
        operator: n.into(),
        hint: if n == 1 { Addrs::default() } else { Addrs::from_list(&[address(n.into())]) },
    };
    let listings: Vec<Listing> = (1..4).map(listing).collect();
    let signed = registry::sign(NETWORK, 3, NOW, NOW.plus(LIFETIME), &listings, core::slice::from_ref(&*IDENTITY));
    // Without the signers: the target signs.
    [&[mode], &signed[..signed.len() - 1 - 96]].concat()
}

fn packets() -> Vec<Vec<u8>> {
    let (a, b) = ([172, 16, 0, 1].into(), [172, 16, 0, 2].into());
    let whole = [packet::udp((a, 5), (b, 7), b"hello"), packet::ping(a, b, 1, 2, b"odd")];
    let mut error = vec![0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 172, 16, 0, 1, 172, 16, 0, 2, 3, 1, 0, 0, 0, 0, 0, 0];
    error.extend_from_slice(&whole[0][..28]);
    let mut six = vec![0x60, 0, 0, 0, 0, 24, 0, 64, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 172, 16, 0, 1];
    six.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 172, 16, 0, 2]);
    six.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0, 0, 5, 0, 7, 0, 8, 1, 1]);
    let mut tcp = vec![0x46, 0, 0, 44, 1, 1, 0x20, 0, 64, 6, 0, 0, 172, 16, 0, 1, 172, 16, 0, 2, 1, 1, 1, 0];
    tcp.extend_from_slice(&[0, 80, 1, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 4, 4, 9, 9, 0, 0]);
    let all: Vec<Vec<u8>> = whole.into_iter().chain([error, six, tcp]).collect();
    // As programs send them, and without their addresses, as strangers do.
    let stripped: Vec<Vec<u8>> = all
        .iter()
        .map(|packet| {
            let (at, length) = if packet[0] >> 4 == 6 { (8, 32) } else { (12, 8) };
            [&packet[..at], &packet[at + length..]].concat()
        })
        .collect();
    all.into_iter().chain(stripped).collect()
}
