//! Deleting and expiring through the machine, with the receipts each member signs. Neighbours: `town` (the swarm).
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use std::time::Duration;

use ed25519_dalek::{Signature, Verifier};
use serde_json::{Value as Json, json};
use town::{Owner, Town};

const DAY: u64 = 86_400_000;

/// A town of three, an account, and its messages' hashes: `a` to `e` in box 1, `x` and `y` in box 0.
fn furnished() -> (Town, Owner, Vec<String>) {
    let mut town = Town::new(1, &[7, 7, 7]);
    let owner = Owner::session(1);
    let mut hashes = Vec::new();
    for (ns, data) in [(1, "a"), (1, "b"), (1, "c"), (1, "d"), (1, "e"), (0, "x"), (0, "y")] {
        town.pass(Duration::from_millis(10));
        let params = owner.message(&town, ns, data.as_bytes());
        hashes.push(town.json(0, "store", &params).1["hash"].as_str().unwrap().to_owned());
    }
    (town, owner, hashes)
}

fn left(town: &mut Town, owner: &Owner, ns: i16) -> String {
    let boxes: Vec<_> = (0..town.houses.len()).map(|number| owner.mailbox(town, number, ns)).collect();
    assert!(boxes.iter().all(|found| *found == boxes[0]), "members differ");
    boxes[0].iter().map(|data| String::from_utf8(data.clone()).unwrap()).collect()
}

/// Every member says these entries and signs for them.
fn all_say(town: &Town, body: &Json, expected: &Json, signed: &str) {
    assert_eq!(body["swarm"].as_object().unwrap().len(), town.houses.len());
    assert_eq!(body["hf"], json!([19, 4]));
    assert!(body["t"].is_u64());
    for house in &town.houses {
        let mut entry = body["swarm"][house.hex()].clone();
        let signature = entry.as_object_mut().unwrap().remove("signature").unwrap();
        assert_eq!(&entry, expected);
        let signature = data_encoding::BASE64.decode(signature.as_str().unwrap().as_bytes()).unwrap();
        house.key.verifying_key().verify(signed.as_bytes(), &Signature::from_slice(&signature).unwrap()).unwrap();
    }
}

fn sorted(hashes: &[&String]) -> Vec<String> {
    let mut hashes: Vec<String> = hashes.iter().map(|hash| (*hash).clone()).collect();
    hashes.sort();
    hashes
}

#[test]
fn delete_takes_these_out_and_says_which_were_there() {
    let (mut town, owner, hashes) = furnished();
    let unknown = "A".repeat(43);
    let asked = [hashes[2].clone(), unknown.clone(), hashes[0].clone()];
    let params = owner.signed(&["delete", &asked.concat()], json!({"messages": asked}));
    let (status, body) = town.json(1, "delete", &params);
    let deleted = sorted(&[&hashes[0], &hashes[2]]);
    let receipt = [owner.account.hex(), asked.concat(), deleted.concat()].concat();
    assert_eq!(status, 200);
    all_say(&town, &body, &json!({"deleted": deleted}), &receipt);
    assert_eq!(left(&mut town, &owner, 1), "bde");
    let mut required = owner.signed(&["delete", &unknown], json!({"messages": unknown, "required": true}));
    assert_eq!(town.json(1, "delete", &required).0, 404, "nothing was there to delete");
    required["required"] = false.into();
    assert_eq!(town.json(1, "delete", &required).0, 200);
    let present = owner.signed(&["delete", &hashes[1]], json!({"messages": [hashes[1]], "required": true}));
    assert_eq!(town.json(1, "delete", &present).0, 200);
}

#[test]
fn delete_all_empties_a_box_or_all() {
    let (mut town, owner, hashes) = furnished();
    let now = town.wall();
    let params = owner.signed(&["delete_all", &now.to_string()], json!({"timestamp": now}));
    let (_, body) = town.json(0, "delete_all", &params);
    let deleted = sorted(&[&hashes[5], &hashes[6]]);
    all_say(&town, &body, &json!({"deleted": deleted}), &format!("{}{now}{}", owner.account.hex(), deleted.concat()));
    assert_eq!((left(&mut town, &owner, 0), left(&mut town, &owner, 1)), (String::new(), "abcde".to_owned()));
    let again = owner.message(&town, 0, b"z");
    let z = town.json(0, "store", &again).1["hash"].as_str().unwrap().to_owned();
    let now = town.wall();
    let params = owner.signed(&["delete_all", "all", &now.to_string()], json!({"timestamp": now, "namespace": "all"}));
    let (_, body) = town.json(0, "delete_all", &params);
    let ones = sorted(&hashes[..5].iter().collect::<Vec<_>>());
    let everything = sorted(&hashes[..5].iter().chain([&z]).collect::<Vec<_>>());
    let receipt = format!("{}{now}{}", owner.account.hex(), everything.concat());
    all_say(&town, &body, &json!({"deleted": {"0": [z], "1": ones}}), &receipt);
    assert_eq!(left(&mut town, &owner, 1), "");
}

#[test]
fn delete_before_takes_out_what_is_older() {
    let (mut town, owner, hashes) = furnished();
    let now = town.wall();
    let look = owner.look(&town, 1, json!({}));
    let before = town.json(0, "retrieve", &look).1["messages"][1]["timestamp"].as_u64().unwrap();
    let params = owner.signed(&["delete_before", "1", &before.to_string()], json!({"before": before, "namespace": 1}));
    let (_, body) = town.json(0, "delete_before", &params);
    let deleted = sorted(&[&hashes[0], &hashes[1]]);
    all_say(
        &town,
        &body,
        &json!({"deleted": deleted}),
        &format!("{}{before}{}", owner.account.hex(), deleted.concat()),
    );
    assert_eq!(left(&mut town, &owner, 1), "cde");
    let all = owner.signed(&["delete_before", "all", &now.to_string()], json!({"before": now, "namespace": "all"}));
    let (_, body) = town.json(0, "delete_before", &all);
    assert_eq!(body["swarm"][town.houses[2].hex()]["deleted"]["0"], json!(sorted(&[&hashes[5], &hashes[6]])));
    assert_eq!(left(&mut town, &owner, 0), "");
}

#[test]
fn expire_all_only_shortens() {
    let (mut town, owner, hashes) = furnished();
    let soon = town.wall() + 50_000;
    let params = owner.signed(&["expire_all", "1", &soon.to_string()], json!({"expiry": soon, "namespace": 1}));
    let (_, body) = town.json(0, "expire_all", &params);
    let ones = sorted(&hashes[..5].iter().collect::<Vec<_>>());
    all_say(&town, &body, &json!({"updated": ones}), &format!("{}{soon}{}", owner.account.hex(), ones.concat()));
    let later = soon + 10;
    let params = owner.signed(&["expire_all", "all", &later.to_string()], json!({"expiry": later, "namespace": "all"}));
    let (_, body) = town.json(0, "expire_all", &params);
    assert_eq!(body["swarm"][town.houses[0].hex()]["updated"], json!({"0": sorted(&[&hashes[5], &hashes[6]])}));
    town.pass(Duration::from_millis(soon - town.wall()));
    assert_eq!((left(&mut town, &owner, 0), left(&mut town, &owner, 1)), ("xy".to_owned(), String::new()));
}

fn expire(owner: &Owner, word: &str, expiry: &Json, hashes: &[&String]) -> Json {
    let times: String = match expiry {
        Json::Array(times) => times.iter().map(Json::to_string).collect(),
        one => one.to_string(),
    };
    let messages: String = hashes.iter().map(|hash| hash.as_str()).collect();
    let mut params = owner.signed(&["expire", word, &times, &messages], json!({"expiry": expiry, "messages": hashes}));
    if !word.is_empty() {
        params[word] = true.into();
    }
    params
}

#[test]
fn expire_sets_shortens_or_extends() {
    let (mut town, owner, hashes) = furnished();
    let hex = owner.account.hex();
    let expiry = town.wall() + 2 * DAY;
    let both = sorted(&[&hashes[0], &hashes[1]]);
    let (_, body) = town.json(0, "expire", &expire(&owner, "", &json!(expiry), &[&hashes[0], &hashes[1]]));
    let receipt = format!("{hex}{expiry}{}{}{}", hashes[0], hashes[1], both.concat());
    all_say(&town, &body, &json!({"expiry": expiry, "updated": both}), &receipt);
    // b stays: it is sooner already.
    let sooner = expiry - DAY - DAY / 2;
    town.json(0, "expire", &expire(&owner, "", &json!(sooner - 1), &[&hashes[1]]));
    let (_, body) = town.json(0, "expire", &expire(&owner, "shorten", &json!(sooner), &[&hashes[1], &hashes[0]]));
    let receipt = format!("{hex}{sooner}{}{}{}{}{}", hashes[1], hashes[0], hashes[0], hashes[1], sooner - 1);
    let said = json!({"expiry": sooner, "updated": [hashes[0]], "unchanged": {&hashes[1]: sooner - 1}});
    all_say(&town, &body, &said, &receipt);
    let (_, body) = town.json(0, "expire", &expire(&owner, "extend", &json!(expiry), &[&hashes[0]]));
    let receipt = format!("{hex}{expiry}{0}{0}", hashes[0]);
    all_say(&town, &body, &json!({"expiry": expiry, "updated": [hashes[0]], "unchanged": {}}), &receipt);
    // Less than a hundredth of its life is not worth a write.
    let barely = expiry + DAY / 100;
    let (_, body) = town.json(0, "expire", &expire(&owner, "extend", &json!(barely), &[&hashes[0]]));
    let said = json!({"expiry": barely, "updated": [], "unchanged": {&hashes[0]: expiry}});
    all_say(&town, &body, &said, &format!("{hex}{barely}{0}{0}{expiry}", hashes[0]));
    // Nothing is kept longer than thirty days.
    let (_, body) = town.json(0, "expire", &expire(&owner, "", &json!(expiry + 90 * DAY), &[&hashes[0]]));
    let kept = body["swarm"][town.houses[0].hex()]["expiry"].as_u64().unwrap();
    assert_eq!(kept, body["t"].as_u64().unwrap() + 30 * DAY);
}

#[test]
fn each_message_can_be_given_its_own_expiry() {
    let (mut town, owner, hashes) = furnished();
    let at = town.wall() + 3 * DAY;
    let (first, second) = (&hashes[3], &hashes[4]);
    let params = expire(&owner, "", &json!([at, at + 1]), &[first, second]);
    let (_, body) = town.json(0, "expire", &params);
    let (updated, times) =
        if first < second { ([first, second], [at, at + 1]) } else { ([second, first], [at + 1, at]) };
    let receipt = format!("{}{}{}{first}{second}{}{}", owner.account.hex(), times[0], times[1], updated[0], updated[1]);
    all_say(&town, &body, &json!({"expiry": times, "updated": updated}), &receipt);
    let now = town.wall();
    let ask = owner.signed(
        &["get_expiries", &now.to_string(), first, second],
        json!({"messages": [first, second], "timestamp": now}),
    );
    assert_eq!(town.json(2, "get_expiries", &ask), (200, json!({"expiries": {first: at, second: at + 1}})));
    town.hard_fork = (19, 3);
    town.publish();
    let text = "expire: multiple expiries are not permitted before hardfork 19.4";
    assert_eq!(town.json(0, "expire", &params), (403, text.into()));
}

#[test]
fn what_is_wrong_with_a_change_is_said_in_these_words() {
    let (mut town, owner, hashes) = furnished();
    let stranger = Owner::session(2);
    let now = town.wall();
    let forged = stranger.signed(&["x"], json!({}))["signature"].clone();
    let hash = &hashes[0];
    let all = [
        ("delete", json!({"messages": [hash]}), "delete_msgs signature verification failed"),
        ("delete_all", json!({"timestamp": now}), "delete_all signature verification failed"),
        ("delete_before", json!({"before": now}), "delete_before signature verification failed"),
        ("expire_all", json!({"expiry": now}), "expire_all signature verification failed"),
        ("expire", json!({"expiry": now, "messages": [hash]}), "expire: signature verification failed"),
        ("get_expiries", json!({"timestamp": now, "messages": [hash]}), "get_expiries signature verification failed"),
        (
            "revoke_subaccount",
            json!({"timestamp": now, "revoke": []}),
            "revoke_subaccount signature verification failed",
        ),
        (
            "unrevoke_subaccount",
            json!({"timestamp": now, "unrevoke": []}),
            "unrevoke_subaccount signature verification failed",
        ),
        ("revoked_subaccounts", json!({"timestamp": now}), "revoked_subaccounts signature verification failed"),
    ];
    for (method, params, text) in all {
        let mut params = owner.signed(&["x"], params);
        params["signature"] = forged.clone();
        assert_eq!(town.json(0, method, &params), (401, text.into()), "{method}");
        params["signature"] = Json::Null;
        let missing = "invalid request: Required field 'signature' missing";
        assert_eq!(town.json(0, method, &params), (400, missing.into()), "{method}");
    }
    let (past, future) = (now - 70_000, town.wall() + 70_000);
    let cases = [
        ("delete_all", json!({"timestamp": past}), 406, "delete_all timestamp too far from current time"),
        ("delete_all", json!({"timestamp": future}), 406, "delete_all timestamp too far from current time"),
        ("delete_before", json!({"before": future}), 401, "delete_before timestamp too far in the future"),
        ("expire_all", json!({"expiry": past}), 406, "expire_all timestamp should be >= current time"),
        ("expire", json!({"expiry": past, "messages": hash}), 401, "expire: timestamp should be >= current time"),
        (
            "get_expiries",
            json!({"timestamp": past, "messages": hash}),
            406,
            "get_expiries timestamp too far from current time",
        ),
        (
            "revoke_subaccount",
            json!({"timestamp": past, "revoke": []}),
            406,
            "revoke_subaccount timestamp too far from current time",
        ),
        (
            "unrevoke_subaccount",
            json!({"timestamp": past, "unrevoke": []}),
            406,
            "unrevoke_subaccount timestamp too far from current time",
        ),
        (
            "revoked_subaccounts",
            json!({"timestamp": past}),
            406,
            "revoked_subaccounts timestamp too far from current time",
        ),
        ("delete", json!({"messages": []}), 400, "invalid request: messages does not contain any message hashes"),
        ("delete", json!({}), 400, "invalid request: Required field 'messages' missing"),
        ("delete", json!({"messages": ["abc"]}), 400, "invalid request: invalid message hash: abc"),
        (
            "delete",
            json!({"messages": [1]}),
            400,
            "invalid request: Invalid value given for 'messages': expected string array",
        ),
        (
            "delete",
            json!({"messages": hash, "required": 1}),
            400,
            "invalid request: Invalid value given for 'required': expected boolean",
        ),
        ("delete_all", json!({}), 400, "invalid request: Required field 'timestamp' missing"),
        (
            "delete_all",
            json!({"timestamp": now, "namespace": "some"}),
            400,
            "invalid request: Invalid value given for 'namespace': expected integer or \"all\"",
        ),
        (
            "expire",
            json!({"expiry": now, "messages": hash, "shorten": true, "extend": true}),
            400,
            "invalid request: cannot specify both 'shorten' and 'extend'",
        ),
        (
            "expire",
            json!({"expiry": [], "messages": hash}),
            400,
            "invalid request: 'expiry' does not contain any expiration timestamps",
        ),
        (
            "expire",
            json!({"expiry": [now, now], "messages": hash}),
            400,
            "invalid request: 'expiry' must be a single expiry, or the same length as 'messages'",
        ),
        ("expire", json!({"messages": hash}), 400, "invalid request: Required field 'expiry' missing"),
    ];
    for (method, params, status, text) in cases {
        let params = owner.signed(&["x"], params);
        assert_eq!(town.json(0, method, &params), (status, text.into()), "{method} {params}");
    }
    assert_eq!(left(&mut town, &owner, 1), "abcde", "nothing of it was done");
}
