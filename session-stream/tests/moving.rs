//! Swarms that change: members die and come back, join, lose their disks, and whole swarms are founded and dissolved.
//! Whatever happens, every member ends up with what a client was told is kept, and without what it was told is gone.
//! Neighbours: `town` (the swarms).
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::Signer;
use serde_json::{Value as Json, json};
use session_stream::account::{Access, Account, Namespace, Token};
use session_stream::bt;
use session_stream::node::io::{Body, Conn, Input, Origin};
use session_stream::push::signed;
use session_stream::swarm::map::place;
use session_stream::value::Value;
use town::{FOUNDED, Owner, Town, base64, key};

/// Boxes of every kind: inbox, ordinary, one that outlives revocation.
const BOXES: [i16; 4] = [0, 2, 42, -11];

/// Two swarms opposite each other.
const NORTH: u64 = 1 << 62;
const SOUTH: u64 = 3 << 62;

/// A directory in memory where the system has one, gone when the test ends.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str, seed: u64) -> Directory {
        let shm = PathBuf::from("/dev/shm");
        let base = if shm.is_dir() { shm } else { std::env::temp_dir() };
        let path = base.join(format!("session-{name}-{seed}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An account that lies in this half of the circle.
fn owner_in(swarm: u64) -> Owner {
    let here = |owner: &Owner| (place(&owner.account.0) < 1 << 63) == (swarm < 1 << 63);
    (1..=255).map(Owner::group).find(here).unwrap()
}

fn store(town: &mut Town, entry: usize, owner: &Owner, namespace: i16, data: &[u8]) -> String {
    let params = owner.message(town, namespace, data);
    let (status, body) = town.json(entry, "store", &params);
    assert_eq!(status, 200, "{body}");
    body["hash"].as_str().unwrap().to_owned()
}

fn delete(town: &mut Town, entry: usize, owner: &Owner, hash: &str) {
    let params = owner.signed(&["delete", hash], json!({"messages": [hash]}));
    let (status, body) = town.json(entry, "delete", &params);
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["swarm"][town.houses[entry].hex()]["deleted"], json!([hash]));
}

fn shorten(town: &mut Town, entry: usize, owner: &Owner, hash: &str, expiry: u64) {
    let more = json!({"messages": [hash], "expiry": expiry, "shorten": true});
    let params = owner.signed(&["expire", "shorten", &expiry.to_string(), hash], more);
    let (status, body) = town.json(entry, "expire", &params);
    assert_eq!(status, 200, "{body}");
}

fn token(member: u8) -> Token {
    Token::new(Account::GROUP, Access::READ, false, key(b'm', member).verifying_key().to_bytes())
}

fn revoke(town: &mut Town, entry: usize, owner: &Owner, member: u8, back: bool) {
    let (now, token) = (town.wall(), token(member));
    let (method, name) = if back { ("unrevoke_subaccount", "unrevoke") } else { ("revoke_subaccount", "revoke") };
    let mut params = json!({"pubkey": owner.account.hex(), "timestamp": now, name: base64(&token.0)});
    let message = [method.as_bytes(), now.to_string().as_bytes(), &token.0].concat();
    params["signature"] = base64(&owner.key.sign(&message).to_bytes()).into();
    let (status, body) = town.json(entry, method, &params);
    assert_eq!(status, 200, "{body}");
}

/// Whether a node lets a member read with its token: 200 or 401.
fn reads(town: &mut Town, number: usize, owner: &Owner, member: u8) -> u16 {
    let (now, token) = (town.wall(), token(member));
    let params = json!({
        "pubkey": owner.account.hex(), "namespace": 2, "timestamp": now,
        "signature": base64(&key(b'm', member).sign(format!("retrieve2{now}").as_bytes()).to_bytes()),
        "subaccount": base64(&token.0), "subaccount_sig": base64(&owner.key.sign(&token.0).to_bytes()),
    });
    town.json(number, "retrieve", &params).0
}

/// What a client finds at a node: each message with its box and expiry.
fn contents(town: &mut Town, number: usize, owner: &Owner) -> BTreeSet<(i16, String, u64)> {
    let mut found = BTreeSet::new();
    for namespace in BOXES {
        let params = owner.look(town, namespace, json!({"max_size": -1}));
        let (status, body) = town.json(number, "retrieve", &params);
        assert_eq!((status, &body["more"]), (200, &json!(false)), "{body}");
        for message in body["messages"].as_array().unwrap() {
            let hash = message["hash"].as_str().unwrap().to_owned();
            found.insert((namespace, hash, message["expiration"].as_u64().unwrap()));
        }
    }
    found
}

/// Every one of these nodes holds the same; what.
fn agreed(town: &mut Town, numbers: impl IntoIterator<Item = usize>, owner: &Owner) -> BTreeSet<(i16, String, u64)> {
    let all: BTreeMap<usize, _> = numbers.into_iter().map(|number| (number, contents(town, number, owner))).collect();
    let (_, first) = all.first_key_value().unwrap();
    for (number, other) in &all {
        assert_eq!(other, first, "node {number} holds something else");
    }
    first.clone()
}

fn hashes(contents: &BTreeSet<(i16, String, u64)>) -> BTreeSet<String> {
    contents.iter().map(|(_, hash, _)| hash.clone()).collect()
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn a_minority_that_was_away_gets_what_it_missed() {
    for seed in 0..64 {
        let directory = Directory::new("minority", seed);
        let mut town = Town::in_files(seed, &[NORTH; 5], directory.0.clone());
        let owner = owner_in(NORTH);
        let before: Vec<String> =
            (0u8..4).map(|number| store(&mut town, 0, &owner, BOXES[usize::from(number)], &[number])).collect();
        revoke(&mut town, 0, &owner, 1, false);
        revoke(&mut town, 0, &owner, 2, false);
        let away = [usize::try_from(seed).unwrap() % 4 + 1, 0];
        away.into_iter().for_each(|number| town.kill(number));
        let entry = (1..5).find(|number| !away.contains(number)).unwrap();
        town.loss = 200;
        let soon = town.wall() + 30_000;
        let during: Vec<String> = (10u8..14).map(|number| store(&mut town, entry, &owner, 42, &[number])).collect();
        delete(&mut town, entry, &owner, &before[0]);
        shorten(&mut town, entry, &owner, &before[1], soon);
        revoke(&mut town, entry, &owner, 3, false);
        revoke(&mut town, entry, &owner, 1, true);
        town.pass(minutes(2));
        // They come back while much still gets lost, and one that was there is killed in the middle of it.
        away.into_iter().for_each(|number| town.restart(number));
        town.pass(Duration::from_secs(1));
        town.kill(entry);
        town.pass(Duration::from_secs(20));
        town.restart(entry);
        town.loss = 0;
        town.pass(minutes(2));
        let found = hashes(&agreed(&mut town, 0..5, &owner));
        let expected: BTreeSet<String> = before[2..].iter().chain(&during).cloned().collect();
        assert_eq!(found, expected, "seed {seed}");
        for number in 0..5 {
            let may = [1, 2, 3].map(|member| reads(&mut town, number, &owner, member));
            assert_eq!(may, [200, 401, 401], "seed {seed}, node {number}");
        }
    }
}

#[test]
fn who_stores_again_what_was_deleted_has_it_everywhere() {
    for seed in 0..16 {
        let directory = Directory::new("again", seed);
        let mut town = Town::in_files(seed, &[NORTH; 3], directory.0.clone());
        let owner = owner_in(NORTH);
        let hash = store(&mut town, 0, &owner, 2, b"x");
        town.kill(2);
        delete(&mut town, 0, &owner, &hash);
        town.pass(Duration::from_secs(1));
        assert_eq!(store(&mut town, 1, &owner, 2, b"x"), hash);
        town.restart(2);
        town.pass(minutes(1));
        assert_eq!(hashes(&agreed(&mut town, 0..3, &owner)), BTreeSet::from([hash]));
    }
}

#[test]
fn a_newcomer_is_told_everything_though_both_sides_die_meanwhile() {
    for seed in 0..32 {
        let directory = Directory::new("newcomer", seed);
        let mut town = Town::in_files(seed, &[NORTH; 5], directory.0.clone());
        let owner = owner_in(NORTH);
        for number in 0u8..24 {
            let data = vec![number; 1000];
            store(&mut town, usize::from(number) % 5, &owner, BOXES[usize::from(number) % 4], &data);
        }
        revoke(&mut town, 0, &owner, 1, false);
        let kept = agreed(&mut town, 0..5, &owner);
        town.loss = 200;
        let newcomer = town.add(NORTH, Some(directory.0.join("newcomer.db")));
        town.publish();
        town.pass(Duration::from_millis(40 * (seed % 8)));
        town.kill(newcomer);
        town.kill(0);
        town.restart(newcomer);
        town.pass(Duration::from_millis(100));
        town.restart(0);
        town.loss = 0;
        town.pass(minutes(1));
        assert_eq!(contents(&mut town, newcomer, &owner), kept, "seed {seed}");
        assert_eq!(reads(&mut town, newcomer, &owner, 1), 401);
        assert_eq!(reads(&mut town, newcomer, &owner, 2), 200);
    }
}

#[test]
fn a_newcomer_takes_more_than_one_batch() {
    let mut town = Town::new(1, &[NORTH; 2]);
    let owner = owner_in(NORTH);
    // 200 big messages: three batches.
    for number in 0u8..200 {
        store(&mut town, 0, &owner, 2, &vec![number; 70_000]);
    }
    let newcomer = town.add(NORTH, None);
    town.publish();
    town.pass(minutes(1));
    assert_eq!(owner.mailbox(&mut town, newcomer, 2).len(), 200);
}

#[test]
fn who_lost_its_disk_is_told_everything_again() {
    for seed in 0..16 {
        // In memory: who is killed comes back with nothing.
        let mut town = Town::new(seed, &[NORTH; 3]);
        let owner = owner_in(NORTH);
        let hash = store(&mut town, 0, &owner, 2, b"x");
        revoke(&mut town, 0, &owner, 1, false);
        town.pass(minutes(1));
        town.kill(1);
        town.restart(1);
        town.pass(minutes(1));
        assert_eq!(hashes(&agreed(&mut town, 0..3, &owner)), BTreeSet::from([hash]));
        assert_eq!(reads(&mut town, 1, &owner, 1), 401);
    }
}

#[test]
fn a_dissolved_swarm_hands_over_what_it_kept() {
    for seed in 0..32 {
        let directory = Directory::new("dissolved", seed);
        let swarms = [NORTH, NORTH, NORTH, SOUTH, SOUTH, SOUTH];
        let mut town = Town::in_files(seed, &swarms, directory.0.clone());
        let (north, quiet) = (owner_in(NORTH), (1..=255).rev().map(Owner::group));
        let quiet = quiet.into_iter().find(|owner| place(&owner.account.0) < 1 << 63).unwrap();
        let kept: Vec<String> =
            BOXES.iter().map(|namespace| store(&mut town, 0, &north, *namespace, b"kept")).collect();
        let deleted = store(&mut town, 0, &north, 2, b"deleted");
        town.pass(Duration::from_secs(1));
        // One of them misses the deletion, and is still away when the swarm dissolves.
        town.kill(2);
        delete(&mut town, 0, &north, &deleted);
        // An account that holds nothing has revocations all the same.
        revoke(&mut town, 0, &quiet, 1, false);
        let params = north.message(&town, 2, b"misdirected");
        assert_eq!(town.json(3, "store", &params).0, 421);
        (0..3).for_each(|number| town.houses[number].swarm = SOUTH);
        town.loss = 200;
        town.publish();
        town.pass(Duration::from_secs(u64::from(seed % 2 == 0) * 20));
        town.restart(2);
        town.pass(Duration::from_secs(5));
        town.loss = 0;
        town.pass(minutes(2));
        let found = hashes(&agreed(&mut town, 0..6, &north));
        assert_eq!(found, kept.iter().cloned().collect(), "seed {seed}");
        for number in 0..6 {
            assert_eq!(reads(&mut town, number, &quiet, 1), 401, "seed {seed}, node {number}");
        }
    }
}

#[test]
fn a_founded_swarm_gets_what_is_now_its_own() {
    for seed in 0..16 {
        let mut town = Town::new(seed, &[NORTH; 6]);
        let (north, south) = (owner_in(NORTH), owner_in(SOUTH));
        let here = store(&mut town, 0, &north, 2, b"here");
        let there = store(&mut town, 0, &south, 2, b"there");
        (3..6).for_each(|number| town.houses[number].swarm = SOUTH);
        let newcomer = town.add(SOUTH, None);
        town.publish();
        town.pass(minutes(2));
        assert_eq!(hashes(&agreed(&mut town, 3..=newcomer, &south)), BTreeSet::from([there]));
        assert_eq!(hashes(&agreed(&mut town, 0..3, &north)), BTreeSet::from([here]));
        let params = north.look(&town, 2, json!({}));
        assert_eq!(town.json(newcomer, "retrieve", &params).0, 421);
    }
}

fn quic(conn: u64) -> Origin {
    Origin::Quic(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), Conn(conn))
}

/// Subscribes on a connection of a node; what it is answered.
fn monitor(town: &mut Town, number: usize, conn: u64, owner: &Owner, namespaces: &[i16]) -> Value {
    let time = i64::try_from(town.wall() / 1000).unwrap();
    let boxes: Vec<Namespace> = namespaces.iter().copied().map(Namespace).collect();
    let signature = owner.key.sign(signed(&owner.account, time, true, &boxes).as_bytes());
    let request = Value::dict([
        ("d", 1u64.into()),
        ("n", Value::List(namespaces.iter().map(|namespace| (*namespace).into()).collect())),
        ("p", Value::Bytes(owner.account.0.to_vec())),
        ("s", Value::Bytes(signature.to_bytes().to_vec())),
        ("t", time.into()),
    ]);
    let ticket = town.begin_from(number, quic(conn), "monitor", bt::write(&request));
    let (200, Body::Raw(answer)) = town.answer(ticket) else { panic!() };
    bt::read(&answer).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    let Some(Value::Bytes(bytes)) = value.field(name) else { panic!("{name} in {value:?}") };
    str::from_utf8(bytes).unwrap()
}

#[test]
fn a_subscriber_hears_of_each_message_once_from_each_member() {
    let mut town = Town::new(1, &[NORTH; 3]);
    let owner = owner_in(NORTH);
    for number in 0..3 {
        assert!(monitor(&mut town, number, 5, &owner, &[0, 2]).field("success").is_some());
    }
    let hash = store(&mut town, 0, &owner, 2, b"x");
    store(&mut town, 1, &owner, 2, b"x");
    store(&mut town, 1, &owner, 42, b"another box");
    town.pass(minutes(1));
    let told: Vec<(usize, &str)> = town.pushes.iter().map(|(number, _, command, _)| (*number, *command)).collect();
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 3, "by each member");
    assert_eq!(told.len(), 3, "once: {told:?}");
    for (_, conn, _, body) in &town.pushes {
        let said = bt::read(body).unwrap();
        assert_eq!((*conn, text(&said, "h"), text(&said, "~")), (Conn(5), &hash[..], "x"));
    }
    town.input(0, Input::Closed(Conn(5)));
    town.pushes.clear();
    store(&mut town, 1, &owner, 2, b"y");
    assert!(town.pushes.iter().all(|(number, ..)| *number != 0), "nobody is there any more");
}

#[test]
fn a_member_that_missed_a_message_tells_its_subscribers_when_it_learns_of_it() {
    let mut town = Town::new(1, &[NORTH; 3]);
    let owner = owner_in(NORTH);
    monitor(&mut town, 2, 5, &owner, &[2]);
    town.houses[2].reachable = false;
    let hash = store(&mut town, 0, &owner, 2, b"x");
    assert!(town.pushes.is_empty());
    town.houses[2].reachable = true;
    town.pass(minutes(1));
    let said: Vec<Value> = town.pushes.iter().map(|(.., body)| bt::read(body).unwrap()).collect();
    assert_eq!(said.iter().map(|said| text(said, "h")).collect::<Vec<_>>(), [hash]);
}

#[test]
fn a_subscriber_follows_its_account_to_another_swarm() {
    let mut town = Town::new(1, &[NORTH, NORTH, SOUTH, SOUTH]);
    let owner = owner_in(NORTH);
    monitor(&mut town, 0, 5, &owner, &[2]);
    let refused = monitor(&mut town, 2, 5, &owner, &[2]);
    assert_eq!(refused.field("errcode"), Some(&Value::Int(6)));
    // North's first member is decommissioned.
    town.houses[0].swarm = u64::MAX;
    town.publish();
    let [(0, Conn(5), "monitor_ended", body)] = &town.pushes[..] else { panic!("{:?}", town.pushes) };
    let said = bt::read(body).unwrap();
    assert_eq!(said.field("errcode"), Some(&Value::Int(6)));
    assert_eq!(said.field("@"), Some(&Value::Bytes(owner.account.0.to_vec())));
    let Some(Value::List(snodes)) = said.field("snodes") else { panic!() };
    let next = town.houses.iter().position(|house| house.hex() == text(&snodes[0], "pubkey_ed25519")).unwrap();
    assert_eq!(next, 1);
    town.pushes.clear();
    assert!(monitor(&mut town, next, 6, &owner, &[2]).field("success").is_some());
    store(&mut town, 1, &owner, 2, b"x");
    let told: Vec<(usize, Conn, &str)> = town.pushes.iter().map(|push| (push.0, push.1, push.2)).collect();
    assert_eq!(told, [(1, Conn(6), "notify")]);
}

#[test]
fn subscriptions_cost_calls_and_come_by_quic_only() {
    let mut town = Town::new(1, &[NORTH]);
    let owner = owner_in(NORTH);
    let ticket = town.begin(0, "monitor", "de");
    assert_eq!(town.answer(ticket), (400, Body::Text("no method monitor".into())));
    let time = i64::try_from(FOUNDED / 1000).unwrap();
    let request = Value::dict([("p", Value::Bytes(owner.account.0.to_vec())), ("t", time.into())]);
    let many = Value::List(vec![request; 1000]);
    let ticket = town.begin_from(0, quic(1), "monitor", bt::write(&many));
    let (200, Body::Raw(answer)) = town.answer(ticket) else { panic!() };
    let Value::List(answers) = bt::read(&answer).unwrap() else { panic!() };
    let limited = answers.iter().filter(|answer| text(answer, "error").contains("Too many requests")).count();
    assert_eq!(limited, 400, "600 are in the bucket");
    let ticket = town.begin_from(0, quic(2), "monitor", "de");
    assert_eq!(town.answer(ticket).0, 429, "and none is left for another connection from there");
    let _: Json = Json::Null;
}
