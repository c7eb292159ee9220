//! Onions through the machine: over three nodes and back, to a server and back, and what is said when the way ends.
//! Neighbours: `town` (the nodes), `onion::wrap` (a client).
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::{Value as Json, json};
use session_stream::node::io::{AskError, Body, Input, Origin, Output, Ticket};
use session_stream::onion::wrap::{Destination, Hop, Opener, wrap};
use session_stream::onion::{Cipher, Onion};
use town::{CLIENT, House, Owner, Town};

fn hop(house: &House) -> Hop {
    let x25519 = house.key.verifying_key().to_montgomery().to_bytes();
    Hop { ed25519: house.id().0, x25519 }
}

fn path(town: &Town, numbers: &[usize]) -> Vec<Hop> {
    numbers.iter().map(|number| hop(&town.houses[*number])).collect()
}

/// Wraps a call for the last node of the path.
fn wrapped(path: &[Hop], method: &str, params: &Json) -> (Bytes, Opener) {
    let request = json!({"method": method, "params": params}).to_string();
    let mut chance = ChaCha20Rng::from_seed([1; 32]);
    wrap(path, &Destination::Node, request.as_bytes(), Cipher::XChaCha20, &mut chance).unwrap()
}

/// What an onion's answer says: status and body, text as it stands.
fn opened(opener: &Opener, answer: &[u8]) -> (u64, Json) {
    let said: Json = serde_json::from_slice(&opener.open(answer).unwrap()).unwrap();
    let body = said["body"].as_str().unwrap();
    (said["status"].as_u64().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| body.into()))
}

#[test]
fn a_call_goes_over_three_nodes_and_its_answer_comes_back() {
    let mut town = Town::new(1, &[7, 1 << 62, 1 << 63, 7]);
    let owner = Owner::session(1);
    let home = (0..4).find(|number| {
        let params = owner.look(&town, 2, json!({}));
        town.json(*number, "retrieve", &params).0 == 200
    });
    let home = home.unwrap();
    let way: Vec<usize> = (0..4).filter(|number| *number != home).take(2).chain([home]).collect();
    let path = path(&town, &way);
    let store = owner.message(&town, 2, b"hello");
    let (onion, opener) = wrapped(&path, "store", &store);
    let (status, answer) = town.call(way[0], "onion_req", onion);
    assert_eq!(status, 200);
    let (status, body) = opened(&opener, &answer);
    assert_eq!((status, body["hf"].clone()), (200, json!([19, 4])));
    assert_eq!(owner.mailbox(&mut town, home, 2), [b"hello"]);
    let look = owner.look(&town, 2, json!({}));
    let (onion, opener) = wrapped(&path, "retrieve", &look);
    let (_, answer) = town.call(way[0], "onion_req", onion);
    assert_eq!(opened(&opener, &answer).1["messages"][0]["data"], "aGVsbG8=");
    // What is wrong with the call is said by the last node, sealed as well.
    for (method, params, status, text) in [
        ("nothing", json!({}), 400, "no method nothing"),
        ("retrieve", json!({"pubkey": owner.account.hex()}), 401, "retrieve: request signature required"),
        ("store", json!([]), 400, "invalid json: no `params` field"),
    ] {
        let (onion, opener) = wrapped(&path, method, &params);
        let (code, answer) = town.call(way[0], "onion_req", onion);
        assert_eq!((code, opened(&opener, &answer)), (200, (status, text.into())));
    }
}

#[test]
fn neither_the_first_node_nor_the_second_sees_what_is_asked() {
    let mut town = Town::new(1, &[7, 8, 9]);
    let owner = Owner::session(1);
    let params = owner.message(&town, 2, b"a secret that is not short");
    let (onion, _) = wrapped(&path(&town, &[0, 1, 2]), "store", &params);
    let asked = |town: &mut Town, number: usize, input: Input| {
        let now = town.told();
        let node = town.houses[number].node.as_mut().unwrap();
        node.handle(input, now);
        let mut outputs =
            node.commit().0.into_iter().filter(|output| matches!(output, Output::Ask { method: "onion_request", .. }));
        let Some(Output::Ask { peer, body, .. }) = outputs.next() else { panic!("it goes on") };
        (peer, body)
    };
    let call = |origin, method: &str, body| Input::Call { ticket: Ticket(1), origin, method: method.to_owned(), body };
    let (second, body) = asked(&mut town, 0, call(Origin::Https(CLIENT), "onion_req", onion.clone()));
    assert_eq!(second, town.houses[1].id());
    let first = Origin::Peer(town.houses[0].id());
    let (third, last) = asked(&mut town, 1, call(first, "onion_request", body.clone()));
    assert_eq!(third, town.houses[2].id());
    let account = owner.account.hex();
    let sees = |seen: &Bytes, what: &[u8]| seen.windows(what.len()).any(|window| window == what);
    for seen in [&onion, &body, &last] {
        for what in [account.as_bytes(), &owner.account.0[1..], b"store", params["data"].as_str().unwrap().as_bytes()] {
            assert!(!sees(seen, what));
        }
    }
    // Nothing of a ciphertext comes through: 16 bytes of one layer are not in the next.
    let [outer, middle, inner] = [Onion::from_client(&onion), Onion::from_node(&body), Onion::from_node(&last)]
        .map(|onion| onion.unwrap().sealed);
    assert!(!middle.windows(16).any(|piece| sees(&outer, piece) || sees(&inner, piece)));
}

#[test]
fn where_the_way_ends_is_said() {
    let mut town = Town::new(1, &[7, 7, u64::MAX]);
    let nobody = Hop { ed25519: [9; 32], x25519: [9; 32] };
    let path = path(&town, &[0, 1, 2]);
    let (onion, _) = wrapped(&[path[0], nobody, path[1]], "info", &json!({}));
    let text = format!("Next node not found: {}", "09".repeat(32));
    assert_eq!(town.call(0, "onion_req", onion), (502, text.clone().into_bytes()));
    let (onion, _) = wrapped(&[path[0], path[1], nobody], "info", &json!({}));
    assert_eq!(
        town.call(0, "onion_req", onion),
        (502, text.into_bytes()),
        "the second says it, the first passes it on"
    );
    let (onion, _) = wrapped(&path, "info", &json!({}));
    let text = format!("Snode not ready: {}", town.houses[2].hex());
    assert_eq!(town.call(0, "onion_req", onion), (503, text.into_bytes()));
    let (onion, _) = wrapped(&[path[1]], "info", &json!({}));
    assert_eq!(town.call(0, "onion_req", onion), (400, b"Invalid ciphertext".to_vec()), "sealed for somebody else");
    assert_eq!(town.call(0, "onion_req", "x").0, 400);
    let (onion, _) = wrapped(&path[..2], "info", &json!({}));
    let before = town.now;
    town.kill(1);
    assert_eq!(town.call(0, "onion_req", onion.clone()), (504, b"Request time out".to_vec()));
    assert_eq!(town.now - before, Duration::from_secs(30));
    let now = town.told();
    let node = town.houses[0].node.as_mut().unwrap();
    for (error, status) in [
        (AskError::Unreachable, 502),
        (AskError::Refused("503 Service Unavailable\n\nNext hop congested".into()), 503),
        (AskError::Refused("nonsense".into()), 500),
    ] {
        let call = Input::Call {
            ticket: Ticket(1),
            origin: Origin::Https(CLIENT),
            method: "onion_req".into(),
            body: onion.clone(),
        };
        node.handle(call, now);
        let outputs = node.commit().0;
        let Some(Output::Ask { ticket, .. }) =
            outputs.iter().find(|output| matches!(output, Output::Ask { method: "onion_request", .. }))
        else {
            panic!("{outputs:?}")
        };
        node.handle(Input::Reply { ticket: *ticket, reply: Err(error) }, now);
        let answered = |output: &Output| matches!(output, Output::Answer { ticket: Ticket(1), status: code, .. } if *code == status);
        assert!(node.commit().0.iter().any(answered), "{status}");
    }
}

#[test]
fn a_layer_for_a_server_is_posted_there_and_its_answer_comes_back() {
    let mut town = Town::new(1, &[7, 7]);
    let server = Destination::Server {
        host: "files.example",
        target: "/oxen/v4/lsrpc",
        port: 443,
        protocol: "https",
        x25519: [9; 32],
    };
    let mut chance = ChaCha20Rng::from_seed([1; 32]);
    let (onion, _) = wrap(&path(&town, &[0, 1]), &server, b"request", Cipher::AesGcm, &mut chance).unwrap();
    for (reply, expected) in [
        (Ok((200, Bytes::from_static(b"\xff sealed"))), (200, b"\xff sealed".to_vec())),
        (Ok((404, Bytes::from_static(b"gone"))), (404, b"gone".to_vec())),
        (Err(AskError::Timeout), (504, b"Request time out".to_vec())),
        (Err(AskError::Unreachable), (502, b"The server cannot be reached".to_vec())),
    ] {
        let ticket = town.begin(0, "onion_req", onion.clone());
        town.pass(Duration::from_secs(1));
        let (poster, post, url, _) = town.posts.pop().unwrap();
        assert_eq!((poster, &url[..]), (1, "https://files.example:443/oxen/v4/lsrpc"));
        town.input(1, Input::Posted { ticket: post, reply });
        let (status, body) = town.answer(ticket);
        let body = match body {
            Body::Raw(bytes) | Body::Dict(bytes) => bytes.to_vec(),
            Body::Text(text) => text.into_bytes(),
        };
        assert_eq!((status, body), expected);
    }
}

#[test]
fn who_calls_too_often_is_told_so_whatever_the_way_in() {
    let text = "Too many requests, try again later";
    let quic = Origin::Quic(CLIENT, session_stream::node::io::Conn(1));
    for (origin, method) in [
        (Origin::Https(CLIENT), "info"),
        (quic, "monitor"),
        (quic, "snode_ping"),
        (Origin::Https(CLIENT), "onion_req"),
        (quic, "batch"),
    ] {
        let mut town = Town::new(1, &[7]);
        let mut limited = 0;
        for _ in 0..610 {
            let ticket = town.begin_from(0, origin, method, "");
            let answer = town.answer(ticket);
            limited += u32::from(answer == (429, Body::Text(text.to_owned())));
        }
        assert_eq!(limited, 10, "{method}");
        let other = Origin::Https([192, 0, 2, 9].into());
        let ticket = town.begin_from(0, other, "info", "");
        assert_eq!(town.answer(ticket).0, 200, "others are not limited");
        town.pass(Duration::from_millis(10));
        assert_eq!(town.call(0, "info", "").0, 200);
    }
}

#[test]
fn a_call_that_is_much_work_counts_as_many() {
    let owner = Owner::group(1);
    let hash = "A".repeat(43);
    let info = json!({"method": "info", "params": {}});
    let many = vec![hash.clone(); 6400];
    let delete = owner.signed(&["delete", &many.concat()], json!({"messages": many}));
    for (method, params, calls) in [
        ("batch", json!({"requests": vec![info.clone(); 20]}), 30),
        ("sequence", json!({"requests": vec![info; 20]}), 30),
        ("delete", delete, 6),
    ] {
        let mut town = Town::new(1, &[7]);
        let statuses: Vec<u16> = (0..=calls).map(|_| town.call(0, method, params.to_string()).0).collect();
        assert_eq!(statuses.iter().position(|status| *status == 429), Some(calls), "{method}");
    }
}

#[test]
fn a_long_answer_counts_as_many_calls() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    for number in 0..60u8 {
        let params = owner.message(&town, 2, &vec![number; 76_000]);
        let other = town.begin_from(0, Origin::Https([192, 0, 2, number].into()), "store", params.to_string());
        assert_eq!(town.answer(other).0, 200);
    }
    let look = owner.look(&town, 2, json!({"max_size": -1})).to_string();
    let statuses: Vec<u16> = (0..30).map(|_| town.call(0, "retrieve", look.clone()).0).collect();
    let first = statuses.iter().position(|status| *status == 429).unwrap();
    assert!((20..30).contains(&first), "{first} answers of six megabytes at once");
}

#[test]
fn a_node_that_sends_too_many_onions_is_limited_but_its_swarm_goes_on() {
    let mut town = Town::new(1, &[7, 7]);
    let peer = Origin::Peer(town.houses[1].id());
    let mut ask = |method: &str| {
        let ticket = town.begin_from(0, peer, method, "de");
        town.answer(ticket).0
    };
    let answers: Vec<u16> = (0..601).map(|_| ask("onion_request")).collect();
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 1);
    assert_eq!((0..700).filter(|_| ask("storage_cc") == 429).count(), 0);
}

#[test]
fn calls_that_wait_have_an_end() {
    let mut town = Town::new(1, &[7, 7]);
    town.houses[1].reachable = false;
    let owner = Owner::group(1);
    let params = owner.message(&town, 5, b"x").to_string();
    let mut refused = 0;
    let mut tickets = Vec::new();
    for number in 0..4200u32 {
        let origin = Origin::Https(std::net::Ipv4Addr::from(number / 100 + 1000).into());
        tickets.push(town.begin_from(0, origin, "store", params.clone()));
    }
    for ticket in tickets {
        let (status, _) = town.answer(ticket);
        refused += u32::from(status == 503);
    }
    assert_eq!(refused, 4200 - 4096);
    assert!(town.now >= Duration::from_secs(5), "the others waited for the member that does not answer");
    let ticket = town.begin(0, "store", params);
    assert_eq!(town.answer(ticket).0, 200, "and made room");
}

#[test]
fn nobody_fills_the_room_alone_and_onions_take_none_of_the_calls() {
    let mut town = Town::new(1, &[7, 7]);
    let (onion, _) = wrapped(&path(&town, &[0, 1]), "info", &json!({}));
    town.houses[1].reachable = false;
    let owner = Owner::group(1);
    let params = owner.message(&town, 5, b"x").to_string();
    let other = Origin::Https([192, 0, 2, 9].into());
    let mut tickets = Vec::new();
    for number in 0..520 {
        let (method, body) =
            if number % 2 == 0 { ("store", params.clone().into()) } else { ("onion_req", onion.clone()) };
        tickets.push((method, town.begin(0, method, body)));
    }
    let others = town.begin_from(0, other, "store", params);
    assert_eq!(town.answer(others).0, 200);
    let mut refused = std::collections::BTreeMap::new();
    for (method, ticket) in tickets {
        let (status, _) = town.answer(ticket);
        *refused.entry(method).or_insert(0) += u32::from(status == 503);
    }
    assert_eq!(refused, [("store", 4), ("onion_req", 4)].into());
}
