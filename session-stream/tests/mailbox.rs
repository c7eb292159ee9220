//! Storing and retrieving through the machine, in both notations, to the byte. Neighbours: `town` (the swarm).
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use std::time::Duration;

use ed25519_dalek::Signer;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use session_stream::account::hash;
use session_stream::account::namespace::Namespace;
use session_stream::rpc::retrieve::SIZE_MAX;
use session_stream::rpc::store::DATA_MAX;
use session_stream::value::{Form, Value};
use town::{FOUNDED, Owner, Town, base64};

const DAY: u64 = 86_400_000;

#[test]
fn what_is_stored_at_one_is_retrieved_at_each() {
    let mut town = Town::new(1, &[7, 7, 7]);
    let owner = Owner::session(1);
    let params = owner.message(&town, 2, b"hello");
    let (status, body) = town.json(0, "store", &params);
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["swarm"].as_object().unwrap().len(), 3);
    assert_eq!(body["hf"], json!([19, 4]));
    for number in 0..3 {
        assert_eq!(owner.mailbox(&mut town, number, 2), [b"hello"]);
    }
}

#[test]
fn an_answer_in_json_is_this_to_the_byte() {
    let mut town = Town::new(1, &[7, 7]);
    let owner = Owner::group(1);
    let account = owner.account.hex();
    let store = format!(r#"{{"pubkey":"{account}","timestamp":"{FOUNDED}","ttl":"60000","data":"aGVsbG8="}}"#);
    let (status, body) = town.call(0, "store", store.clone());
    let hash = hash::of(&owner.account, Namespace::DEFAULT, b"hello");
    let expiry = FOUNDED + 60_000;
    let expected = |already: &str, now| {
        let entry = |number: usize, end: &str| {
            let house: &town::House = &town.houses[number];
            let receipt = base64(&house.key.sign(hash.as_bytes()).to_bytes());
            format!(r#""{}":{{{already}"expiry":{expiry},"hash":"{hash}","signature":"{receipt}"{end}}}"#, house.hex())
        };
        let mut entries = [entry(0, &format!(r#","t":{now}"#)), entry(1, "")];
        entries.sort();
        format!(r#"{{"hash":"{hash}","hf":[19,4],"swarm":{{{}}},"t":{now}}}"#, entries.join(","))
    };
    assert_eq!((status, String::from_utf8(body).unwrap()), (200, expected("", FOUNDED)));
    let (now, again) = (town.wall(), expected(r#""already":true,"#, town.wall()));
    assert_eq!(String::from_utf8(town.call(0, "store", store).1).unwrap(), again);
    let look = owner.signed(&["retrieve", &now.to_string()], json!({"timestamp": now}));
    let now = town.wall();
    let (_, body) = town.call(1, "retrieve", look.to_string());
    let expected = format!(
        r#"{{"hf":[19,4],"messages":[{{"data":"aGVsbG8=","expiration":{expiry},"hash":"{hash}","timestamp":{FOUNDED}}}],"more":false,"t":{now}}}"#
    );
    assert_eq!(String::from_utf8(body).unwrap(), expected);
}

#[test]
fn an_answer_in_bt_is_this_to_the_byte() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::session(1);
    let sign = |text: String| Value::Bytes(owner.key.sign(text.as_bytes()).to_bytes().to_vec());
    let common = || {
        [
            ("pubkey", Value::Bytes(owner.account.0.to_vec())),
            ("pubkey_ed25519", Value::Bytes(owner.key.verifying_key().to_bytes().to_vec())),
            ("namespace", 42u64.into()),
            ("timestamp", FOUNDED.into()),
        ]
    };
    let store = common().into_iter().chain([
        ("data", Value::Bytes(b"\xff\0hello".to_vec())),
        ("expiry", (FOUNDED + 60_000).into()),
        ("signature", sign(format!("store42{FOUNDED}"))),
    ]);
    let (status, body) = town.call(0, "store", Value::dict(store).write(Form::Bt));
    let hash = hash::of(&owner.account, Namespace(42), b"\xff\0hello");
    let (hex, expiry) = (town.houses[0].hex(), FOUNDED + 60_000);
    let receipt = town.houses[0].key.sign(hash.as_bytes()).to_bytes();
    let expected = [
        format!("d4:hash43:{hash}2:hfli19ei4ee5:swarmd64:{hex}d6:expiryi{expiry}e4:hash43:{hash}9:signature64:")
            .as_bytes(),
        &receipt,
        format!("1:ti{FOUNDED}eee1:ti{FOUNDED}ee").as_bytes(),
    ]
    .concat();
    assert_eq!((status, body), (200, expected));
    let look = common().into_iter().chain([("signature", sign(format!("retrieve42{FOUNDED}")))]);
    let (status, body) = town.call(0, "retrieve", Value::dict(look).write(Form::Bt));
    let expected = [
        &b"d2:hfli19ei4ee8:messagesld4:data7:\xff\0hello"[..],
        format!("10:expirationi{expiry}e4:hash43:{hash}9:timestampi{FOUNDED}eee4:morei0e1:ti{FOUNDED}ee").as_bytes(),
    ]
    .concat();
    assert_eq!((status, body), (200, expected));
}

/// A message's parameters with some changed or, by `null`, left out.
fn but(mut params: Json, changes: Json) -> Json {
    for (name, value) in changes.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

#[test]
fn what_is_wrong_with_a_message_is_said_in_these_words() {
    let mut town = Town::new(1, &[7]);
    let (owner, stranger) = (Owner::session(1), Owner::session(2));
    let good = owner.message(&town, 42, b"hello");
    let now = FOUNDED;
    let unsigned = json!({"signature": null, "pubkey_ed25519": null});
    let group = owner.account.hex().replacen("05", "03", 1);
    let cases = [
        (unsigned, 401, "store: signature required to store to namespace 42"),
        (
            json!({"signature": stranger.message(&town, 42, b"")["signature"]}),
            401,
            "store signature verification failed",
        ),
        (json!({"data": "aGVsbG9v", "sig_timestamp": now + 1}), 401, "store signature verification failed"),
        (json!({"sig_timestamp": now - 60_001}), 406, "store signature timestamp too far from current time"),
        (json!({"sig_timestamp": now + 60_001}), 406, "store signature timestamp too far from current time"),
        (json!({"timestamp": now + 10_001}), 406, "Timestamp error: check your clock"),
        (json!({"timestamp": now - 30_000, "ttl": 19_999}), 406, "Timestamp error: check your clock"),
        (json!({"ttl": 9_999}), 403, "Provided expiry/TTL is not valid."),
        (json!({"ttl": 30 * DAY + 1}), 403, "Provided expiry/TTL is not valid."),
        (json!({"namespace": 0, "ttl": 14 * DAY + 1}), 403, "Provided expiry/TTL is not valid."),
        (json!({"ttl": null, "expiry": now - 1}), 403, "Provided expiry/TTL is not valid."),
        (json!({"ttl": null}), 400, "invalid request: Required field 'expiry' or 'ttl' missing"),
        (json!({"expiry": now + 20_000}), 400, "invalid request: Cannot specify both 'expiry' and 'ttl'"),
        (json!({"ttl": "a while"}), 400, "invalid request: Invalid value given for 'ttl': \"a while\""),
        (json!({"ttl": -5}), 400, "invalid request: Invalid value given for 'ttl': expected positive integer"),
        (
            json!({"ttl": null, "expiry": 999_999_999}),
            400,
            "invalid request: Invalid timestamp for 'expiry': timestamp must be in milliseconds",
        ),
        (json!({"timestamp": null}), 400, "invalid request: Required field 'timestamp' missing"),
        (json!({"pubkey": null}), 400, "invalid request: Required field 'pubkey' missing"),
        (json!({"pubKey": owner.account.hex()}), 400, "invalid request: Cannot specify both 'pubkey' and 'pubKey'"),
        (json!({"pubkey": "05abcd"}), 400, "invalid request: Pubkey must be 66 hex digits (33 bytes) long"),
        (json!({"pubkey": group}), 400, "invalid request: pubkey_ed25519 is only permitted for 05[...] pubkeys"),
        (
            json!({"pubkey_ed25519": "ab"}),
            400,
            "invalid request: Invalid pubkey_ed25519: expected 64 hex char or 32 byte pubkey",
        ),
        (
            json!({"signature": "short"}),
            400,
            "invalid request: invalid signature: expected base64 encoded Ed25519 signature",
        ),
        (json!({"data": null}), 400, "invalid request: Required field 'data' missing"),
        (json!({"data": "not base64!"}), 400, "invalid request: Invalid 'data' value: not base64 encoded"),
        (json!({"data": 5}), 400, "invalid request: Invalid value given for 'data': expected string"),
        (json!({"namespace": 32768}), 400, "invalid request: Invalid value given for 'namespace': value out of range"),
        (
            json!({"namespace": "0"}),
            400,
            "invalid request: Invalid value given for 'namespace': expected 16-bit integer",
        ),
    ];
    for (changes, status, text) in cases {
        let params = but(good.clone(), changes.clone());
        assert_eq!(town.json(0, "store", &params), (status, text.into()), "{changes}");
    }
    assert_eq!(owner.mailbox(&mut town, 0, 42), Vec::<Vec<u8>>::new(), "nothing of it was stored");
    // The same good message with what is allowed changed.
    for changes in
        [json!({"sig_timestamp": now}), json!({"ttl": "60000", "timestamp": now.to_string()}), json!({"unknown": [1]})]
    {
        assert_eq!(town.json(0, "store", &but(good.clone(), changes)).0, 200);
    }
    assert_eq!(owner.mailbox(&mut town, 0, 42), [b"hello"]);
}

#[test]
fn a_message_has_a_longest_length() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::session(1);
    let longest = owner.message(&town, 0, &vec![7; DATA_MAX]);
    assert_eq!(town.json(0, "store", &longest).0, 200);
    let longer = owner.message(&town, 0, &vec![7; DATA_MAX + 1]);
    let text = "invalid request: Message body exceeds maximum allowed length of 76800 bytes";
    assert_eq!(town.json(0, "store", &longer), (400, text.into()));
    assert_eq!(owner.mailbox(&mut town, 0, 0), [vec![7; DATA_MAX]]);
}

#[test]
fn what_is_wrong_with_a_look_is_said_in_these_words() {
    let mut town = Town::new(1, &[7]);
    let (owner, stranger) = (Owner::session(1), Owner::session(2));
    let good = owner.look(&town, 42, json!({}));
    let cases = [
        (
            json!({"signature": null, "pubkey_ed25519": null, "timestamp": null, "namespace": null}),
            401,
            "retrieve: request signature required",
        ),
        (json!({"signature": null}), 400, "invalid request: Required field 'signature' missing"),
        (json!({"timestamp": null}), 400, "invalid request: Required field 'timestamp' missing"),
        (
            json!({"signature": stranger.look(&town, 42, json!({}))["signature"]}),
            401,
            "retrieve signature verification failed",
        ),
        (json!({"namespace": 43}), 401, "retrieve signature verification failed"),
        (json!({"timestamp": FOUNDED - 60_001}), 406, "retrieve timestamp too far from current time"),
        (json!({"timestamp": FOUNDED + 60_001}), 406, "retrieve timestamp too far from current time"),
        (json!({"last_hash": "abc"}), 400, "invalid request: Invalid last_hash: expected base64 (43 chars)"),
        (json!({"last_hash": "!".repeat(43)}), 400, "invalid request: Invalid last_hash: not base64"),
        (
            json!({"last_hash": "", "lastHash": ""}),
            400,
            "invalid request: Cannot specify both 'last_hash' and 'lastHash'",
        ),
        (json!({"max_count": "5"}), 400, "invalid request: Invalid value given for 'max_count': expected integer"),
    ];
    for (changes, status, text) in cases {
        assert_eq!(town.json(0, "retrieve", &but(good.clone(), changes.clone())), (status, text.into()), "{changes}");
    }
    assert_eq!(town.json(0, "retrieve", &but(good, json!({"last_hash": "a".repeat(43)}))).0, 200);
}

#[test]
fn each_namespace_has_its_rules() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    let open = |ns: i16, town: &Town| {
        let data = base64(b"x");
        json!({"pubkey": owner.account.hex(), "namespace": ns, "data": data, "timestamp": town.wall(), "ttl": 60_000})
    };
    for (ns, stores, looks) in [
        (0, 200, 400),
        (10, 200, 400),
        (-30, 200, 400),
        (-10, 200, 200),
        (-1, 401, 200),
        (-21, 401, 200),
        (1, 401, 400),
        (-11, 401, 400),
    ] {
        let params = open(ns, &town);
        assert_eq!(town.json(0, "store", &params).0, stores, "store to {ns}");
        let look = json!({"pubkey": owner.account.hex(), "namespace": ns});
        assert_eq!(town.json(0, "retrieve", &look).0, looks, "retrieve from {ns}");
        let signed = owner.message(&town, ns, b"signed");
        assert_eq!(town.json(0, "store", &signed).0, 200, "store to {ns}, signed");
        assert!(owner.mailbox(&mut town, 0, ns).contains(&b"signed".to_vec()), "retrieve from {ns}, signed");
    }
}

#[test]
fn a_public_outbox_holds_the_last_message_only() {
    let mut town = Town::new(1, &[7, 7]);
    let owner = Owner::group(1);
    for data in [b"first", b"again"] {
        let params = owner.message(&town, -1, data);
        assert_eq!(town.json(0, "store", &params).0, 200);
        for number in 0..2 {
            assert_eq!(owner.mailbox(&mut town, number, -1), [data]);
        }
    }
    town.pass(Duration::from_secs(1));
    let params = owner.message(&town, -1, b"again");
    let (_, body) = town.json(0, "store", &params);
    let entry = &body["swarm"][town.houses[1].hex()];
    assert_eq!(entry["already"], true, "the same one stays");
    assert_eq!(
        entry["expiry"],
        town::FOUNDED + u64::try_from(town.now.as_millis()).unwrap() + DAY - lag(&town, &params)
    );
}

/// How long ago the call was made.
fn lag(town: &Town, params: &Json) -> u64 {
    town.wall() - params["timestamp"].as_u64().unwrap()
}

#[test]
fn nothing_that_has_expired_is_served_swept_or_not() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    let brief = but(owner.message(&town, 5, b"brief"), json!({"ttl": 10_050}));
    let (_, body) = town.json(0, "store", &brief);
    let hash = body["hash"].as_str().unwrap().to_owned();
    town.pass(Duration::from_millis(10_049));
    assert_eq!(owner.mailbox(&mut town, 0, 5), [b"brief"]);
    // The last sweep was at 10.000 s, the next is at 20 s.
    town.pass(Duration::from_millis(1));
    assert_eq!(owner.mailbox(&mut town, 0, 5), Vec::<Vec<u8>>::new());
    let now = town.wall().to_string();
    let ask = owner.signed(&["get_expiries", &now, &hash], json!({"messages": [hash], "timestamp": town.wall()}));
    assert_eq!(town.json(0, "get_expiries", &ask), (200, json!({"expiries": {}})));
    let delete = owner.signed(&["delete", &hash], json!({"messages": [hash]}));
    let (_, body) = town.json(0, "delete", &delete);
    assert_eq!(body["swarm"][town.houses[0].hex()]["deleted"], json!([]));
    let again = owner.message(&town, 5, b"brief");
    let (_, body) = town.json(0, "store", &again);
    assert_eq!(body["swarm"][town.houses[0].hex()].get("already"), None, "it is new again");
    assert_eq!(owner.mailbox(&mut town, 0, 5), [b"brief"]);
    town.pass(Duration::from_secs(60));
    assert_eq!(owner.mailbox(&mut town, 0, 5), [b"brief"], "the sweep left it alone");
}

#[test]
fn storing_again_only_keeps_it_longer() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    let hex = town.houses[0].hex();
    for (ttl, kept) in [(60_000, 60_000), (90_000, 90_000), (30_000, 90_000)] {
        let params = but(owner.message(&town, 5, b"x"), json!({"ttl": ttl}));
        let (_, body) = town.json(0, "store", &params);
        assert_eq!(body["swarm"][&hex]["expiry"], FOUNDED + kept);
    }
    assert_eq!(owner.mailbox(&mut town, 0, 5).len(), 1);
}

#[test]
fn one_box_knows_nothing_of_another() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    // Both hash the same: "" and "11x" in box 0, "1" and "1x" in box 1, "11" and "x" in box 11.
    for (ns, data) in [(0, &b"11x"[..]), (1, b"1x"), (11, b"x")] {
        let params = owner.message(&town, ns, data);
        let (_, body) = town.json(0, "store", &params);
        assert_eq!(body["swarm"][town.houses[0].hex()].get("already"), None);
        assert_eq!(owner.mailbox(&mut town, 0, ns), [data], "who knows a message beforehand cannot keep it out");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn paging_finds_every_message_once_and_keeps_to_its_limits(
        sizes in prop::collection::vec(0usize..4000, 0..40),
        count in 0i64..7,
        size in prop_oneof![Just(0i64), 1i64..20_000, Just(-1i64), -4000i64..-500],
    ) {
        let mut town = Town::new(1, &[7]);
        let owner = Owner::group(1);
        let mut sent = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let data = [&number.to_le_bytes()[..], &vec![1; *size]].concat();
            let params = owner.message(&town, 3, &data);
            prop_assert_eq!(town.json(0, "store", &params).0, 200);
            sent.push(base64(&data));
        }
        let most = match size { 0 if count > 0 => SIZE_MAX, 0 => SIZE_MAX / 5, ..0 => SIZE_MAX / usize::try_from(-size).unwrap(), _ => usize::try_from(size).unwrap() };
        let (mut found, mut last) = (Vec::new(), String::new());
        loop {
            let params = owner.look(&town, 3, json!({"last_hash": last, "max_count": count, "max_size": size}));
            let (_, body) = town.json(0, "retrieve", &params);
            let page = body["messages"].as_array().unwrap();
            let written: usize = page.iter().map(|message| message["data"].as_str().unwrap().len()).sum();
            prop_assert!(page.len() <= 1 || written <= most, "{written} bytes of {most}");
            prop_assert!(count == 0 || page.len() <= usize::try_from(count).unwrap());
            found.extend(page.iter().map(|message| message["data"].as_str().unwrap().to_owned()));
            let more = body["more"] == json!(true);
            prop_assert_eq!(more, found.len() < sent.len());
            if !more { break }
            prop_assert!(!page.is_empty());
            last = page.last().unwrap()["hash"].as_str().unwrap().to_owned();
        }
        prop_assert_eq!(found, sent);
    }
}

#[test]
fn who_has_forgotten_where_it_was_gets_everything() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    let mut hashes = Vec::new();
    for data in [b"a", b"b", b"c"] {
        let params = owner.message(&town, 3, data);
        hashes.push(town.json(0, "store", &params).1["hash"].as_str().unwrap().to_owned());
    }
    let mut after = |name: &str, hash: &str| {
        let params = owner.look(&town, 3, json!({name: hash}));
        town.json(0, "retrieve", &params).1["messages"].as_array().unwrap().len()
    };
    assert_eq!(after("last_hash", &hashes[0]), 2);
    assert_eq!(after("lastHash", &hashes[2]), 0);
    assert_eq!(after("last_hash", &"A".repeat(43)), 3);
    assert_eq!(after("last_hash", ""), 3);
}
