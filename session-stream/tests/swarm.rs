//! A swarm whose members are slow, wrong, lost or dead: what a client is told of each, and what is kept. Neighbours:
//! `town` (the swarm).
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use session_stream::bt;
use session_stream::node::io::{AskError, Input, Output, Ticket};
use session_stream::value::{Form, Value};
use town::{FOUNDED, Owner, Town};

/// Calls a node of the town and stands in for its only other member: what is asked, and the answer once it is given.
fn asked_then(town: &mut Town, method: &str, params: &Json, reply: Option<Result<Bytes, AskError>>) -> (Bytes, Json) {
    let now = town.told();
    let origin = session_stream::node::io::Origin::Https(town::CLIENT);
    let node = town.houses[0].node.as_mut().unwrap();
    let body = params.to_string().into();
    node.handle(Input::Call { ticket: Ticket(1), origin, method: method.to_owned(), body }, now);
    let (outputs, _) = node.commit();
    let [Output::Ask { ticket, peer, method: "storage_cc", body, patience }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!((*peer, *patience), (town.houses[1].id(), Duration::from_secs(5)));
    let node = town.houses[0].node.as_mut().unwrap();
    match reply {
        Some(reply) => node.handle(Input::Reply { ticket: *ticket, reply }, now),
        None => {
            let late = |after| session_stream::node::io::Now { mono: now.mono + Duration::from_millis(after), ..now };
            assert_eq!(node.next_wake(), Some(late(5000).mono));
            node.handle(Input::Wake, late(4999));
            assert_eq!(node.commit().0, [], "patience");
            node.handle(Input::Wake, late(5000));
        }
    }
    let (outputs, _) = node.commit();
    let [Output::Answer { ticket: Ticket(1), status: 200, body: session_stream::node::io::Body::Dict(answer) }] =
        &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    node.handle(Input::Reply { ticket: *ticket, reply: Ok("de".into()) }, now);
    assert_eq!(node.commit().0, [], "who answers twice, or late, is not heard");
    (body.clone(), serde_json::from_slice(answer).unwrap())
}

#[test]
fn members_are_asked_in_bt_for_the_very_same() {
    let mut town = Town::new(1, &[7, 7]);
    let owner = Owner::session(1);
    let params = owner.message(&town, -5, b"\xffhello");
    let (asked, _) = asked_then(&mut town, "store", &params, Some(Ok("de".into())));
    let Ok(Value::List(parts)) = bt::read(&asked) else { panic!() };
    let [Value::Bytes(method), Value::Bytes(payload)] = &parts[..] else { panic!() };
    assert_eq!(&method[..], b"store");
    let bytes = |name: &str| data_encoding::BASE64.decode(params[name].as_str().unwrap().as_bytes()).unwrap();
    let expected = Value::dict([
        ("data", Value::Bytes(b"\xffhello".to_vec())),
        ("expiry", (FOUNDED + 86_400_000).into()),
        ("namespace", (-5i16).into()),
        ("pubkey", Value::Bytes(owner.account.0.to_vec())),
        ("pubkey_ed25519", Value::Bytes(owner.key.verifying_key().to_bytes().to_vec())),
        ("sig_timestamp", FOUNDED.into()),
        ("signature", Value::Bytes(bytes("signature"))),
        ("timestamp", FOUNDED.into()),
    ]);
    assert_eq!(payload[..], expected.write(Form::Bt));
}

#[test]
fn what_a_member_says_or_does_not_say_is_told() {
    let owner = Owner::session(1);
    let refused = |words: &str| Some(Err(AskError::Refused(words.to_owned().into())));
    for (reply, expected) in [
        (None, json!({"failed": true, "timeout": true})),
        (Some(Err(AskError::Timeout)), json!({"failed": true, "timeout": true})),
        (Some(Err(AskError::Unreachable)), json!({"failed": true, "timeout": true})),
        (refused("401 Unauthorized\n\nno"), json!({"failed": true, "code": "401", "reason": "no"})),
        (refused("gibberish"), json!({"failed": true, "bad_peer_response": true})),
        (Some(Ok("".into())), json!({"failed": true, "bad_peer_response": true})),
        (Some(Ok("le".into())), json!({"failed": true, "bad_peer_response": true})),
        (Some(Ok("{}".into())), json!({"failed": true, "bad_peer_response": true})),
        (
            Some(Ok([b"l".to_vec(), b"le".repeat(300_000), b"e".to_vec()].concat().into())),
            json!({"failed": true, "bad_peer_response": true}),
        ),
        (Some(Ok("d4:hash1:x9:signature2:hie".into())), json!({"hash": "x", "signature": "aGk="})),
        (Some(Ok("d6:failedi1e13:query_failurei1ee".into())), json!({"failed": true, "query_failure": true})),
    ] {
        let mut town = Town::new(1, &[7, 7]);
        let params = owner.message(&town, 5, b"x");
        let (_, body) = asked_then(&mut town, "store", &params, reply.clone());
        assert_eq!(body["swarm"][town.houses[1].hex()], expected, "{reply:?}");
        assert!(body["swarm"][town.houses[0].hex()].get("failed").is_none());
    }
}

#[test]
fn a_call_between_nodes_is_checked_as_if_a_client_made_it() {
    let mut town = Town::new(1, &[7, 7]);
    let (owner, peer) = (Owner::group(1), town.houses[1].id());
    let mut carry = |method: &str, params: Value, from| {
        let parts = vec![method.into(), Value::Bytes(params.write(Form::Bt))];
        let body = Value::List(parts).write(Form::Bt);
        let ticket = town.begin_from(0, session_stream::node::io::Origin::Peer(from), "storage_cc", body);
        let (status, body) = town.answer(ticket);
        match body {
            session_stream::node::io::Body::Dict(body) => (status, String::from_utf8_lossy(&body).into_owned()),
            session_stream::node::io::Body::Text(text) => (status, text),
            session_stream::node::io::Body::Raw(_) => panic!(),
        }
    };
    let clear = |signed: u64, signer: &Owner| {
        use ed25519_dalek::Signer;
        let signature = signer.key.sign(format!("delete_all{signed}").as_bytes()).to_bytes();
        Value::dict([
            ("pubkey", Value::Bytes(owner.account.0.to_vec())),
            ("signature", Value::Bytes(signature.to_vec())),
            ("timestamp", signed.into()),
        ])
    };
    let late = "delete_all timestamp too far from current time".to_owned();
    assert_eq!(carry("delete_all", clear(FOUNDED - 70_001, &owner), peer), (406, late));
    let (status, body) = carry("delete_all", clear(FOUNDED - 70_000, &owner), peer);
    assert_eq!(status, 200, "what the way took is added");
    assert!(body.starts_with("d7:deletedle9:signature64:"), "neither time nor hard fork: {body}");
    let forged = "delete_all signature verification failed".to_owned();
    assert_eq!(carry("delete_all", clear(FOUNDED, &Owner::group(2)), peer), (401, forged));
    let here = "invalid request: received invalid forwarded non-forwardable request".to_owned();
    assert_eq!(carry("info", Value::dict::<&str>([]), peer), (400, here));
    assert_eq!(carry("nothing", Value::dict::<&str>([]), peer), (400, "no method nothing".to_owned()));
    let stranger = session_stream::node::io::NodeKey([9; 32]);
    assert_eq!(
        carry("delete_all", clear(FOUNDED, &owner), stranger),
        (403, "you are not on my list of nodes".to_owned())
    );
}

#[test]
fn a_member_out_of_the_swarm_sends_nobody_astray() {
    let mut town = Town::new(1, &[7, 7]);
    let owner = Owner::group(1);
    let params = owner.message(&town, 5, b"x");
    // The second one has heard of another list: there the account's swarm is not its own.
    town.houses[1].swarm = 1 << 63;
    let list = town.list();
    town.input(1, Input::Nodes(list));
    let (status, body) = town.json(0, "store", &params);
    assert_eq!(status, 200);
    let entry = &body["swarm"][town.houses[1].hex()];
    assert!(entry["code"] == "421" || entry.get("hash").is_some(), "{entry}");
}

/// Five members, each with its own file: half of what they ask each other is lost, and one after another is killed.
#[test]
fn what_a_client_was_told_is_kept_is_kept_through_kills_and_losses() {
    for seed in 0..3 {
        let directory = std::env::temp_dir().join(format!("session-swarm-{seed}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let mut town = Town::in_files(seed, &[7; 5], directory.clone());
        let owner = Owner::session(1);
        town.loss = 250;
        let mut promised: Vec<BTreeSet<Vec<u8>>> = vec![BTreeSet::new(); 5];
        for round in 0u8..30 {
            let entry = usize::from(round) % 5;
            let data = vec![round, u8::try_from(seed).unwrap()];
            let params = owner.message(&town, 3, &data);
            let ticket = town.begin(entry, "store", params.to_string());
            // Now and then somebody else is killed while it is being asked.
            let victim = (entry + 2) % 5;
            if round % 3 == 0 {
                town.kill(victim);
            }
            let (status, session_stream::node::io::Body::Dict(body)) = town.answer(ticket) else { panic!() };
            assert_eq!(status, 200);
            let body: Json = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["swarm"].as_object().unwrap().len(), 5, "every member is accounted for");
            for (number, promised) in promised.iter_mut().enumerate() {
                if body["swarm"][town.houses[number].hex()].get("hash").is_some() {
                    promised.insert(data.clone());
                }
            }
            if round % 3 == 0 {
                town.restart(victim);
            }
        }
        town.loss = 0;
        let receipts: usize = promised.iter().map(BTreeSet::len).sum();
        assert!((60..150).contains(&receipts), "some were lost, and most were not: {receipts}");
        for (number, promised) in promised.iter().enumerate() {
            town.kill(number);
            town.restart(number);
            let found: BTreeSet<Vec<u8>> = owner.mailbox(&mut town, number, 3).into_iter().collect();
            assert!(found.is_superset(promised), "member {number} signed for what it has not");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
