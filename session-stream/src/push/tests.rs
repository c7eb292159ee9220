//! Who may subscribe, what is answered to whom may not, and who is told what.

use std::net::Ipv4Addr;

use ed25519_dalek::{Signer, SigningKey};

use super::*;
use crate::account::{Access, hash};
use crate::store::CAP_DEFAULT;
use crate::swarm::NodeKey;

const WALL: u64 = 1_760_000_000_000;
const TIME: i64 = 1_760_000_000;
const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

/// A node alone, what it keeps, and its subscriptions.
struct House {
    subscriptions: Subscriptions,
    store: Store,
    swarms: Swarms,
    now: Duration,
}

impl House {
    fn new() -> House {
        House {
            subscriptions: Subscriptions::default(),
            store: Store::in_memory(CAP_DEFAULT).unwrap(),
            swarms: Swarms::new(NodeKey([1; 32])),
            now: Duration::ZERO,
        }
    }

    fn ask(&mut self, conn: u64, request: &Value) -> Value {
        let (store, swarms) = (&self.store, &self.swarms);
        let desk = Desk { store, swarms, network: Network::Main, now: self.now, wall: WALL };
        bt::read(&self.subscriptions.monitor(Conn(conn), IP, &bt::write(request), &desk, || true)).unwrap()
    }

    fn stored(&mut self, message: &Message) -> Vec<(u64, Value)> {
        let (store, swarms) = (&self.store, &self.swarms);
        let desk = Desk { store, swarms, network: Network::Main, now: self.now, wall: WALL };
        let pushes = self.subscriptions.stored(message, &desk);
        pushes.into_iter().map(|push| (push.conn.0, bt::read(&push.body).unwrap())).collect()
    }

    fn list(&mut self, nodes: &[(u8, u64)]) -> Vec<Push> {
        let hex = |byte: &u8| data_encoding::HEXLOWER.encode(&[*byte; 32]);
        let states: Vec<_> = nodes
            .iter()
            .map(|(byte, swarm)| {
                serde_json::json!({
                    "service_node_pubkey": hex(byte), "pubkey_ed25519": hex(byte), "pubkey_x25519": hex(byte),
                    "public_ip": "10.0.0.1", "storage_port": 1, "storage_lmq_port": 2, "swarm_id": swarm,
                })
            })
            .collect();
        let list = serde_json::json!({"service_node_states": states, "height": 1, "hardfork": 19});
        self.swarms.take(list.to_string().as_bytes()).unwrap();
        self.subscriptions.listed(&self.swarms)
    }
}

fn account(key: &SigningKey) -> Account {
    Account::new(Account::GROUP, key.verifying_key().to_bytes())
}

fn request(key: &SigningKey, namespaces: &[i16], data: bool) -> Vec<(&'static str, Value)> {
    let boxes: Vec<Namespace> = namespaces.iter().copied().map(Namespace).collect();
    let signature = key.sign(signed(&account(key), TIME, data, &boxes).as_bytes());
    vec![
        ("d", if data { 1u64.into() } else { Value::Null }),
        ("n", Value::List(namespaces.iter().map(|namespace| (*namespace).into()).collect())),
        ("p", Value::Bytes(account(key).0.to_vec())),
        ("s", Value::Bytes(signature.to_bytes().to_vec())),
        ("t", TIME.into()),
    ]
}

fn with(mut request: Vec<(&'static str, Value)>, name: &'static str, value: Value) -> Value {
    request.retain(|(there, _)| *there != name);
    request.push((name, value));
    Value::dict(request)
}

fn errcode(answer: &Value) -> Option<&Value> {
    answer.field("errcode")
}

fn message(account: Account, namespace: i16, data: &[u8]) -> Message {
    let namespace = Namespace(namespace);
    let hash = hash::of(&account, namespace, data);
    Message { account, namespace, hash, timestamp: WALL, expiry: WALL + 1000, data: data.to_vec() }
}

#[test]
fn what_is_signed_is_upstreams() {
    let mut id = [0xab; 33];
    (id[0], id[32]) = (5, 0xcd);
    let boxes = [Namespace(-5), Namespace(0), Namespace(23)];
    let expected = format!("MONITOR05{}cd17000000001-5,0,23", "ab".repeat(31));
    assert_eq!(signed(&Account(id), 1_700_000_000, true, &boxes), expected);
}

#[test]
fn a_subscriber_is_told_of_the_boxes_it_named() {
    let (mut house, owner) = (House::new(), key(1));
    let answer = house.ask(7, &Value::dict(request(&owner, &[-5, 0, 23], false)));
    assert_eq!(bt::write(&answer), b"d7:successi1ee");
    let told = house.stored(&message(account(&owner), 23, b"hello"));
    let hash = hash::of(&account(&owner), Namespace(23), b"hello");
    let expected = [
        ("@", Value::Bytes(account(&owner).0.to_vec())),
        ("h", Value::Bytes(hash.into_bytes())),
        ("n", 23i16.into()),
        ("t", WALL.into()),
        ("z", (WALL + 1000).into()),
    ];
    assert_eq!(told, [(7, Value::dict(expected))]);
    assert_eq!(house.stored(&message(account(&owner), 22, b"hello")), [], "another box");
    assert_eq!(house.stored(&message(account(&key(2)), 23, b"hello")), [], "another account");
}

#[test]
fn a_session_id_subscribes_with_the_key_it_is_made_of() {
    let (mut house, owner) = (House::new(), key(1));
    let id = Account::new(Account::SESSION, owner.verifying_key().to_montgomery().to_bytes());
    let signature = owner.sign(signed(&id, TIME, false, &[Namespace(0)]).as_bytes());
    let mut entries = request(&owner, &[0], false);
    entries.retain(|(name, _)| !["p", "s"].contains(name));
    entries.push(("P", Value::Bytes(owner.verifying_key().to_bytes().to_vec())));
    let request = with(entries, "s", Value::Bytes(signature.to_bytes().to_vec()));
    assert!(house.ask(1, &request).field("success").is_some());
    assert_eq!(house.stored(&message(id, 0, b"x")).len(), 1);
}

#[test]
fn each_mistake_has_its_number() {
    let (mut house, owner) = (House::new(), key(1));
    let good = || request(&owner, &[0, 1], false);
    let int = |number: i64| Value::Int(number.into());
    let short = || Value::Bytes(vec![1; 7]);
    let list = |numbers: &[i64]| Value::List(numbers.iter().copied().map(int).collect());
    for (name, value, code) in [
        ("n", Value::Null, 1),
        ("n", list(&[]), 1),
        ("n", list(&[40_000]), 1),
        ("n", list(&[1, 0]), 3),
        ("n", list(&[0, 0]), 3),
        ("p", Value::Null, 1),
        ("p", short(), 2),
        ("P", short(), 2),
        ("P", Value::Bytes(vec![1; 32]), 1),
        ("S", Value::Bytes(vec![1; 64]), 1),
        ("d", int(2), 1),
        ("s", Value::Null, 1),
        ("s", short(), 5),
        ("s", Value::Bytes(vec![1; 64]), 5),
        ("d", int(1), 5),
        ("t", Value::Null, 1),
        ("t", int(TIME - 14 * 86_400 - 1), 4),
        ("t", int(TIME + 86_400 + 1), 4),
        ("t", int(i64::MIN), 4),
        ("t", int(TIME + 1), 5),
    ] {
        let answer = house.ask(1, &with(good(), name, value.clone()));
        assert_eq!(errcode(&answer), Some(&int(code)), "{name} = {value:?}: {answer:?}");
    }
    assert!(house.subscriptions.is_empty());
    // Two mistakes: the one that is met first upstream.
    let two = with(request(&owner, &[1, 0], false), "s", short());
    assert_eq!(errcode(&house.ask(1, &two)), Some(&int(3)));
}

#[test]
fn a_list_is_answered_with_a_list_and_anything_else_with_one_refusal() {
    let (mut house, owner) = (House::new(), key(1));
    let good = Value::dict(request(&owner, &[0], false));
    let bad = with(request(&owner, &[0], false), "t", Value::Null);
    let Value::List(answers) = house.ask(1, &Value::List(vec![bad, good])) else { panic!() };
    assert_eq!(answers.iter().map(|answer| errcode(answer).is_some()).collect::<Vec<_>>(), [true, false]);
    for other in [Value::Int(1), Value::List(vec![Value::Int(1)]), Value::Bytes(b"x".to_vec())] {
        assert_eq!(errcode(&house.ask(1, &other)), Some(&Value::Int(1)));
    }
}

#[test]
fn asking_again_adds_up_and_begins_anew() {
    let (mut house, owner) = (House::new(), key(1));
    house.ask(1, &Value::dict(request(&owner, &[0, 5], false)));
    house.now = LIFE - Duration::from_secs(1);
    house.ask(1, &Value::dict(request(&owner, &[-3, 5], true)));
    assert_eq!(house.subscriptions.len(), 1);
    house.now = LIFE + Duration::from_secs(1);
    for namespace in [-3, 0, 5] {
        let told = house.stored(&message(account(&owner), namespace, b"x"));
        assert_eq!(told.len(), 1, "{namespace}");
        assert!(told[0].1.field("~").is_some(), "once asked for, data comes with all");
    }
    house.now += LIFE;
    assert_eq!(house.stored(&message(account(&owner), 0, b"x")), [], "it was not renewed");
    house.subscriptions.pass(house.now);
    assert!(house.subscriptions.is_empty());
}

#[test]
fn each_connection_is_told_as_it_asked_until_it_closes() {
    let (mut house, owner) = (House::new(), key(1));
    house.ask(1, &Value::dict(request(&owner, &[0], true)));
    house.ask(2, &Value::dict(request(&owner, &[0], false)));
    let told = house.stored(&message(account(&owner), 0, b"x"));
    assert_eq!(
        told.iter().map(|(conn, said)| (*conn, said.field("~").is_some())).collect::<Vec<_>>(),
        [(1, true), (2, false)]
    );
    house.subscriptions.closed(Conn(1));
    assert_eq!(house.stored(&message(account(&owner), 0, b"y")).len(), 1);
}

fn token_request(owner: &SigningKey, member: &SigningKey, access: Access, namespaces: &[i16]) -> (Token, Value) {
    let token = Token::new(Account::GROUP, access, false, member.verifying_key().to_bytes());
    let boxes: Vec<Namespace> = namespaces.iter().copied().map(Namespace).collect();
    let mut entries = request(owner, namespaces, false);
    entries.push(("S", Value::Bytes(owner.sign(&token.0).to_bytes().to_vec())));
    entries.push(("T", Value::Bytes(token.0.to_vec())));
    let signature = member.sign(signed(&account(owner), TIME, false, &boxes).as_bytes());
    (token, with(entries, "s", Value::Bytes(signature.to_bytes().to_vec())))
}

#[test]
fn a_token_subscribes_until_it_is_revoked() {
    let (mut house, owner, member) = (House::new(), key(1), key(2));
    let (_, request) = token_request(&owner, &member, Access::WRITE, &[0]);
    assert_eq!(errcode(&house.ask(1, &request)), Some(&Value::Int(5)), "it cannot read");
    let (token, request) = token_request(&owner, &member, Access::READ, &[-11, 0]);
    assert!(house.ask(1, &request).field("success").is_some());
    assert_eq!(house.stored(&message(account(&owner), 0, b"x")).len(), 1);
    house.store.revoke(&account(&owner), &[token], WALL).unwrap();
    assert_eq!(errcode(&house.ask(2, &request)), Some(&Value::Int(5)), "revoked tokens do not subscribe");
    let told = house.stored(&message(account(&owner), -11, b"you are out"));
    assert!(told[0].1.field("h").is_some(), "it may still learn that it was revoked");
    let told = house.stored(&message(account(&owner), 0, b"y"));
    assert_eq!(told.len(), 1);
    assert_eq!(errcode(&told[0].1), Some(&Value::Int(5)));
    assert!(house.subscriptions.is_empty());
}

#[test]
fn who_watches_an_account_that_moves_is_told_where() {
    let (mut house, owner) = (House::new(), key(1));
    house.ask(1, &Value::dict(request(&owner, &[0], false)));
    assert_eq!(house.list(&[]), [], "while no swarm is known, nothing ends");
    assert_eq!(house.list(&[(1, 7), (2, 7)]), []);
    let ended = house.list(&[(1, 8), (2, map_of(&owner))]);
    assert_eq!((ended[0].conn, ended[0].command), (Conn(1), "monitor_ended"));
    let said = bt::read(&ended[0].body).unwrap();
    assert_eq!(errcode(&said), Some(&Value::Int(6)));
    assert_eq!(said.field("@"), Some(&Value::Bytes(account(&owner).0.to_vec())));
    let Some(Value::List(snodes)) = said.field("snodes") else { panic!() };
    assert_eq!(snodes[0].field("pubkey_ed25519"), Some(&Value::Bytes("02".repeat(32).into_bytes())));
    assert!(house.subscriptions.is_empty());
    let answer = house.ask(1, &Value::dict(request(&owner, &[0], false)));
    assert_eq!((errcode(&answer), answer.field("swarm")), (Some(&Value::Int(6)), said.field("swarm")));
}

/// A swarm that lies where the account does.
fn map_of(owner: &SigningKey) -> u64 {
    crate::swarm::map::place(&account(owner).0)
}

#[test]
fn there_is_an_end_to_subscriptions() {
    let mut subscriptions = Subscriptions::default();
    let one = request(&key(1), &[0], false);
    let request = |number: usize| {
        let mut id = [3; 33];
        id[1..9].copy_from_slice(&number.to_be_bytes());
        Request::read(&with(one.clone(), "p", Value::Bytes(id.to_vec()))).unwrap()
    };
    let mut number = 0;
    let mut fill = |subscriptions: &mut Subscriptions, conn: u64, ip: u8, more: usize| {
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, ip));
        let mut done = 0;
        while done < more && subscriptions.subscribe(Conn(conn), ip, request(number), Duration::ZERO).is_ok() {
            (done, number) = (done + 1, number + 1);
        }
        done
    };
    assert_eq!(fill(&mut subscriptions, 1, 1, usize::MAX), SUBSCRIPTIONS_MAX_CONN);
    assert_eq!(fill(&mut subscriptions, 2, 1, usize::MAX), SUBSCRIPTIONS_MAX_CONN);
    assert_eq!(fill(&mut subscriptions, 3, 1, usize::MAX), SUBSCRIPTIONS_MAX_ADDRESS - 2 * SUBSCRIPTIONS_MAX_CONN);
    let rest = SUBSCRIPTIONS_MAX - SUBSCRIPTIONS_MAX_ADDRESS;
    let others: usize = (2..10).map(|ip| fill(&mut subscriptions, 10 + u64::from(ip), ip, usize::MAX)).sum();
    assert_eq!(others, rest);
    subscriptions.closed(Conn(1));
    assert_eq!(subscriptions.len(), SUBSCRIPTIONS_MAX - SUBSCRIPTIONS_MAX_CONN);
    assert_eq!(fill(&mut subscriptions, 4, 1, 3), 3, "who leaves makes room");
}
