//! Storing and retrieving through the machine, in both notations, to the byte. Neighbours: `town` (the swarm).
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use serde_json::json;
use town::{FOUNDED, Owner, Town, base64};

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
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    let account = owner.account.hex();
    let store = format!(r#"{{"pubkey":"{account}","timestamp":"{FOUNDED}","ttl":"60000","data":"aGVsbG8="}}"#);
    let (status, body) = town.call(0, "store", store.clone());
    let hash = session_stream::account::hash::of(&owner.account, Default::default(), b"hello");
    let receipt = base64(&ed25519_dalek::Signer::sign(&town.houses[0].key, hash.as_bytes()).to_bytes());
    let hex = town.houses[0].hex();
    let expiry = FOUNDED + 60_000;
    let expected = |already: &str| {
        format!(
            r#"{{"hash":"{hash}","hf":[19,4],"swarm":{{"{hex}":{{{already}"expiry":{expiry},"hash":"{hash}","signature":"{receipt}","t":{FOUNDED}}}}},"t":{FOUNDED}}}"#
        )
    };
    assert_eq!((status, String::from_utf8(body).unwrap()), (200, expected("")));
    let (_, body) = town.call(0, "store", store);
    assert_eq!(String::from_utf8(body).unwrap(), expected(r#""already":true,"#));
}
