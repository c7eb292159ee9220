//! Whatever bytes come by whatever way: every call is answered once, nothing stops the machine, and who holds no key
//! changes nothing. Neighbours: `town`.
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use session_stream::account::{Access, Token};
use session_stream::bt;
use session_stream::node::io::{AskError, Conn, Input, NodeKey, Origin, Output, Ticket};
use session_stream::value::{Form, Value};
use town::{CLIENT, FOUNDED, Owner, Town, base64};

const METHODS: &[&str] = &[
    "store",
    "retrieve",
    "delete",
    "delete_all",
    "delete_before",
    "expire",
    "expire_all",
    "get_expiries",
    "revoke_subaccount",
    "unrevoke_subaccount",
    "revoked_subaccounts",
    "info",
    "get_swarm",
    "get_snodes_for_pubkey",
    "oxend_request",
    "active_nodes_bin",
    "batch",
    "sequence",
    "ifelse",
    "monitor",
    "onion_req",
    "snode_ping",
    "storage_rpc",
    "storage_cc",
    "offer",
    "data",
    "onion_request",
    "nothing",
];

const FIELDS: &[&str] = &[
    "pubkey",
    "pubKey",
    "pubkey_ed25519",
    "namespace",
    "timestamp",
    "ttl",
    "expiry",
    "data",
    "signature",
    "sig_timestamp",
    "subaccount",
    "subaccount_sig",
    "messages",
    "last_hash",
    "max_size",
    "max_count",
    "before",
    "required",
    "shorten",
    "extend",
    "revoke",
    "unrevoke",
    "requests",
    "if",
    "then",
    "else",
    "method",
    "params",
    "endpoint",
    "hf_at_least",
    "v_before",
    "n",
    "p",
    "t",
    "s",
];

/// Values that a field may be given: what would be right for some, and what is right for none.
fn values() -> impl Strategy<Value = Value> {
    let owner = Owner::session(1);
    let text = |text: &str| Value::Text(text.to_owned());
    let some = vec![
        text(&owner.account.hex()),
        Value::Bytes(owner.account.0.to_vec()),
        Value::Bytes(owner.key.verifying_key().to_bytes().to_vec()),
        text(&base64(&[1; 64])),
        Value::Bytes(vec![1; 64]),
        text(&base64(&Token::new(5, Access::READ, true, [2; 32]).0)),
        Value::Bytes(Token::new(5, Access::READ, true, [2; 32]).0.to_vec()),
        text("all"),
        text(&"A".repeat(43)),
        text("store"),
        text("batch"),
        text("get_service_nodes"),
        Value::Null,
        Value::Bool(true),
        FOUNDED.into(),
        (FOUNDED + 86_400_000).into(),
        text(""),
    ];
    let leaf = prop_oneof![
        8 => prop::sample::select(some),
        1 => any::<i64>().prop_map(|number| Value::Int(number.into())),
        1 => any::<u64>().prop_map(|number| Value::Int(number.into())),
        1 => (-12i16..12).prop_map(Value::from),
        1 => ".{0,20}".prop_map(Value::Text),
        1 => prop::collection::vec(any::<u8>(), 0..70).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(3, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            prop::collection::btree_map(prop::sample::select(FIELDS).prop_map(str::to_owned), inner, 0..6)
                .prop_map(Value::Dict),
        ]
    })
}

/// Parameters, `batch`-like ones among them.
fn params() -> impl Strategy<Value = Value> {
    let dict = prop::collection::btree_map(prop::sample::select(FIELDS).prop_map(str::to_owned), values(), 0..9)
        .prop_map(Value::Dict)
        .boxed();
    let part = (prop::sample::select(METHODS), dict.clone())
        .prop_map(|(method, params)| Value::dict([("method", method.into()), ("params", params)]))
        .boxed();
    prop_oneof![
        6 => dict,
        2 => prop::collection::vec(part.clone(), 0..4).prop_map(|parts| Value::dict([("requests", Value::List(parts))])),
        1 => part.clone(),
        1 => (part, values()).prop_map(|(part, condition)| {
            Value::dict([("if", Value::dict([("hf_at_least", condition)])), ("then", part)])
        }),
    ]
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let written = (params(), any::<bool>())
        .prop_map(|(params, json)| params.write(if json { Form::Json } else { Form::Bt }))
        .boxed();
    let carried = (prop::sample::select(METHODS), params()).prop_map(|(method, params)| {
        bt::write(&Value::List(vec![method.into(), Value::Bytes(params.write(Form::Bt))]))
    });
    prop_oneof![
        6 => written.clone(),
        2 => carried,
        1 => (written, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut body, at, byte)| {
            let at = at.index(body.len());
            body[at] = byte;
            body
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

#[derive(Clone, Debug)]
enum Happens {
    Call(u8, &'static str, Vec<u8>),
    Reply(u64, Result<Vec<u8>, u8>),
    Nodes(Vec<u8>),
    Closed,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Happens> {
    prop_oneof![
        12 => (0u8..4, prop::sample::select(METHODS), bodies()).prop_map(|(way, method, body)| Happens::Call(way, method, body)),
        3 => (0u64..60, prop_oneof![bodies().prop_map(Ok), (0u8..3).prop_map(Err)]).prop_map(|(which, reply)| Happens::Reply(which, reply)),
        1 => bodies().prop_map(Happens::Nodes),
        1 => Just(Happens::Closed),
        2 => (0u64..9000).prop_map(Happens::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_call_is_answered_once_whatever_it_says(happens in prop::collection::vec(events(), 1..40)) {
        let mut town = Town::new(1, &[7, 7, 9]);
        let owner = Owner::session(1);
        let kept = owner.message(&town, 2, b"kept");
        prop_assert_eq!(town.json(0, "store", &kept).0, 200);
        let peer = town.houses[1].id();
        let mut now = town.told();
        let mut node = town.houses[0].node.take().unwrap();
        let (mut waiting, mut tickets) = (BTreeSet::new(), 1000u64);
        for event in happens {
            match event {
                Happens::Call(way, method, body) => {
                    tickets += 1;
                    waiting.insert(Ticket(tickets));
                    let origin = match way {
                        0 => Origin::Https(CLIENT),
                        1 => Origin::Quic(CLIENT, Conn(1)),
                        2 => Origin::Peer(peer),
                        _ => Origin::Peer(NodeKey([3; 32])),
                    };
                    node.handle(Input::Call { ticket: Ticket(tickets), origin, method: method.to_owned(), body: body.into() }, now);
                }
                Happens::Reply(ticket, reply) => {
                    let reply = reply.map(Into::into).map_err(|error| match error {
                        0 => AskError::Timeout,
                        1 => AskError::Unreachable,
                        _ => AskError::Refused("401 Unauthorized\n\nno".into()),
                    });
                    node.handle(Input::Reply { ticket: Ticket(ticket), reply }, now);
                }
                Happens::Nodes(list) => node.handle(Input::Nodes(list.into()), now),
                Happens::Closed => node.handle(Input::Closed(Conn(1)), now),
                Happens::Pass(millis) => {
                    now.mono += Duration::from_millis(millis);
                    now.wall += millis;
                    node.handle(Input::Wake, now);
                }
            }
            let (outputs, kept) = node.commit();
            prop_assert!(kept.is_ok());
            for output in outputs {
                if let Output::Answer { ticket, .. } = output {
                    prop_assert!(waiting.remove(&ticket), "{ticket:?} is answered twice, or was never asked");
                }
            }
        }
        // When all patience has ended nobody waits any more.
        now.mono += Duration::from_secs(31);
        node.handle(Input::Wake, now);
        for output in node.commit().0 {
            if let Output::Answer { ticket, .. } = output {
                prop_assert!(waiting.remove(&ticket));
            }
        }
        prop_assert!(waiting.is_empty(), "{waiting:?} wait for ever");
        // Who had no key has changed nothing: what the owner stored is there.
        let messages = node.store()
            .look(&owner.account, session_stream::account::Namespace(2), None, None, 1 << 20, FOUNDED).unwrap().0;
        prop_assert_eq!(messages.len(), 1);
        prop_assert_eq!(&messages[0].data[..], b"kept");
        prop_assert_eq!(messages[0].expiry, FOUNDED + 86_400_000);
    }
}

#[test]
fn a_big_body_of_small_things_is_refused_before_it_grows() {
    let mut town = Town::new(1, &[7]);
    for (body, status) in [
        ([b"d1:a".to_vec(), b"l".to_vec(), b"le".repeat(4_000_000), b"ee".to_vec()].concat(), 400),
        (format!(r#"{{"a":[{}]}}"#, vec!["[]"; 3_000_000].join(",")).into_bytes(), 400),
        (format!(r#"{{"a":{}}}"#, "[".repeat(5_000_000)).into_bytes(), 400),
        ([b"d1:a".to_vec(), b"l".repeat(5_000_000)].concat(), 400),
    ] {
        assert_eq!(town.call(0, "info", body), (status, b"invalid body: expected json or bt_dict".to_vec()));
    }
    let nested = (0..40).fold(
        json!({"method": "info", "params": {}}),
        |inner, _| json!({"method": "ifelse", "params": {"if": {"hf_before": 1}, "else": inner}}),
    );
    assert_eq!(town.json(0, "ifelse", &nested["params"]).0, 400);
    let shallow: Json = (0..12).fold(
        json!({"method": "info", "params": {}}),
        |inner, _| json!({"method": "ifelse", "params": {"if": {"hf_before": 1}, "else": inner}}),
    );
    assert_eq!(town.json(0, "ifelse", &shallow["params"]).0, 200);
}
