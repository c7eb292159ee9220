//! Calls that hold calls, calls about the network, and calls that are none, through the machine. Neighbours: `town`.
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use data_encoding::HEXLOWER;
use serde_json::{Value as Json, json};
use session_stream::rpc::VERSION;
use session_stream::value::{Form, Value};
use town::{FOUNDED, Owner, Town};

fn call(method: &str, params: Json) -> Json {
    json!({"method": method, "params": params})
}

#[test]
fn a_batch_does_all_and_answers_in_order() {
    let mut town = Town::new(1, &[7, 7]);
    let owner = Owner::session(1);
    let store = owner.message(&town, 2, b"x");
    let forged =
        json!({"pubkey": owner.account.hex(), "namespace": 2, "data": "eA==", "timestamp": FOUNDED, "ttl": 60_000});
    let look = owner.look(&town, 2, json!({}));
    let requests = [call("store", store), call("store", forged), call("info", json!({})), call("retrieve", look)];
    let (status, body) = town.json(0, "batch", &json!({"requests": requests}));
    assert_eq!(status, 200);
    assert_eq!(body.as_object().unwrap().len(), 1);
    let results = body["results"].as_array().unwrap();
    let codes: Vec<_> = results.iter().map(|result| result["code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [200, 401, 200, 200]);
    assert_eq!(results[0]["body"]["swarm"].as_object().unwrap().len(), 2);
    assert_eq!(results[1]["body"], "store: signature required to store to namespace 2");
    assert_eq!(results[2]["body"]["version"], json!(VERSION));
    assert_eq!(results[3]["body"]["messages"].as_array().unwrap().len(), 1, "what it holds is done in order here");
}

#[test]
fn a_batch_of_looks_is_answered_with_no_more_than_one_look() {
    let mut town = Town::new(1, &[7]);
    let owner = Owner::group(1);
    for number in 0..60u8 {
        let params = owner.message(&town, 2, &vec![number; 76_000]);
        assert_eq!(town.json(0, "store", &params).0, 200);
    }
    let look = owner.look(&town, 2, json!({"max_size": -1}));
    let one = town.call(0, "retrieve", look.to_string()).1.len();
    assert!(one > 6_000_000);
    for method in ["batch", "sequence"] {
        let requests = vec![call("retrieve", look.clone()); 20];
        let (status, body) = town.call(0, method, json!({"requests": requests}).to_string());
        assert_eq!(status, 200);
        assert!(body.len() < 8_000_000, "{}", body.len());
        let body: Json = serde_json::from_slice(&body).unwrap();
        for result in body["results"].as_array().unwrap() {
            assert_eq!(result["body"]["messages"].as_array().unwrap().len(), 3);
            assert_eq!(result["body"]["more"], true, "the rest is there when it is asked for");
        }
    }
}

#[test]
fn a_sequence_stops_at_the_first_failure() {
    let mut town = Town::new(1, &[7, 7]);
    let owner = Owner::session(1);
    let (one, two) = (owner.message(&town, 2, b"1"), owner.message(&town, 2, b"2"));
    let bad = call("retrieve", json!({"pubkey": owner.account.hex()}));
    let requests = [call("store", one), call("info", json!({})), bad, call("store", two)];
    let (status, body) = town.json(0, "sequence", &json!({"requests": requests}));
    let codes: Vec<_> = body["results"].as_array().unwrap().iter().map(|result| result["code"].clone()).collect();
    assert_eq!((status, codes), (200, vec![json!(200), json!(200), json!(401)]));
    assert_eq!(owner.mailbox(&mut town, 1, 2), [b"1"]);
    let whole = [call("info", json!({})), call("info", json!({}))];
    let (_, body) = town.json(0, "sequence", &json!({"requests": whole}));
    assert_eq!(body["results"].as_array().unwrap().len(), 2);
}

#[test]
fn a_batch_in_bt_is_answered_in_bt() {
    let mut town = Town::new(1, &[7]);
    let request =
        |method: &str| Value::dict([("method", method.into()), ("params", Value::dict([("pubkey", "x".into())]))]);
    let requests = Value::dict([("requests", Value::List(vec![request("info"), request("info")]))]);
    let (status, body) = town.call(0, "batch", requests.write(Form::Bt));
    let [a, b, c] = VERSION;
    let info =
        format!("d4:bodyd2:hfli19ei4ee1:ti{FOUNDED}e9:timestampi{FOUNDED}e7:versionli{a}ei{b}ei{c}eee4:codei200ee");
    assert_eq!((status, String::from_utf8(body).unwrap()), (200, format!("d7:resultsl{info}{info}ee")));
    let (status, body) = town.call(0, "batch", &b"d8:requestslee"[..]);
    assert_eq!((status, &body[..]), (400, &b"invalid request: Invalid batch request: empty \"requests\" list"[..]));
}

#[test]
fn ifelse_takes_one_branch() {
    let mut town = Town::new(1, &[7]);
    let info = || call("info", json!({}));
    let mut decide = |condition: Json| {
        let (status, body) = town.json(0, "ifelse", &json!({"if": condition, "then": info()}));
        assert_eq!(status, 200, "{body}");
        assert_eq!((&body["hf"], &body["v"], &body["height"]), (&json!([19, 4]), &json!(VERSION), &json!(1001)));
        let yes = body["condition"].as_bool().unwrap();
        assert_eq!(body.get("result").is_some(), yes, "there is no else");
        if yes {
            assert_eq!(body["result"]["code"], 200);
            assert_eq!(body["result"]["body"]["version"], json!(VERSION));
        }
        yes
    };
    for (condition, yes) in [
        (json!({"hf_at_least": [19, 4]}), true),
        (json!({"hf_at_least": [19, 5]}), false),
        (json!({"hf_at_least": [19]}), true),
        (json!({"hf_at_least": 20}), false),
        (json!({"hf_before": [19, 4]}), false),
        (json!({"hf_before": [20]}), true),
        (json!({"v_at_least": [2, 8, 0], "v_before": [3]}), true),
        (json!({"v_at_least": [VERSION[0], VERSION[1], VERSION[2] + 1]}), false),
        (json!({"height_at_least": 1001}), true),
        (json!({"height_before": 1001}), false),
        (json!({"height_at_least": 1, "hf_before": [19]}), false),
    ] {
        assert_eq!(decide(condition.clone()), yes, "{condition}");
    }
    let nested = call(
        "ifelse",
        json!({"if": {"height_at_least": 5000}, "then": info(), "else": call("batch", json!({"requests": [info()]}))}),
    );
    let (_, body) = town.json(0, "ifelse", &json!({"if": {"hf_before": 1}, "else": nested}));
    assert_eq!(body["result"]["body"]["result"]["body"]["results"][0]["code"], 200);
}

#[test]
fn what_is_wrong_with_calls_that_hold_calls_is_said_in_these_words() {
    let mut town = Town::new(1, &[7]);
    let info = || call("info", json!({}));
    let cases = [
        ("batch", json!({}), "Invalid batch request: no valid \"requests\" field"),
        ("batch", json!({"requests": []}), "Invalid batch request: no valid \"requests\" field"),
        ("batch", json!({"requests": vec![info(); 21]}), "Invalid batch request: subrequest limit exceeded"),
        ("batch", json!({"requests": [5]}), "Invalid batch request: requests must be objects"),
        (
            "batch",
            json!({"requests": [{"method": "info"}]}),
            "Invalid batch request: subrequests must have method/params keys",
        ),
        (
            "batch",
            json!({"requests": [call("nothing", json!({}))]}),
            "Invalid batch subrequest: invalid method \"nothing\"",
        ),
        (
            "sequence",
            json!({"requests": [call("batch", json!({"requests": [info()]}))]}),
            "Invalid batch subrequest: subrequests may not contain meta-requests",
        ),
        ("batch", json!({"requests": [info(), call("store", json!({}))]}), "Required field 'timestamp' missing"),
        ("ifelse", json!({"then": info()}), "Invalid ifelse request: no valid \"if\" field"),
        (
            "ifelse",
            json!({"if": {}, "then": info()}),
            "Invalid ifelse request: must specify at least one \"if\" condition",
        ),
        (
            "ifelse",
            json!({"if": {"hf_before": 1}}),
            "Invalid ifelse request: at least one of \"then\"/\"else\" required",
        ),
        ("ifelse", json!({"if": {"hf_before": 1}, "then": 5}), "Invalid ifelse request: then must be an object"),
        (
            "ifelse",
            json!({"if": {"hf_before": 1}, "else": {"method": "info"}}),
            "Invalid ifelse request: else must have method/params keys",
        ),
        (
            "ifelse",
            json!({"if": {"hf_before": 1}, "then": call("nothing", json!({}))}),
            "Invalid ifelse request method \"then\"",
        ),
        (
            "ifelse",
            json!({"if": {"hf_before": "x"}, "then": info()}),
            "Invalid value given for 'hf_before': expected integer array",
        ),
    ];
    for (method, params, text) in cases {
        assert_eq!(town.json(0, method, &params), (400, format!("invalid request: {text}").into()), "{params}");
    }
}

#[test]
fn info_says_version_and_time() {
    let mut town = Town::new(1, &[7]);
    let [a, b, c] = VERSION;
    let json = format!(r#"{{"hf":[19,4],"t":{FOUNDED},"timestamp":{FOUNDED},"version":[{a},{b},{c}]}}"#);
    for body in ["", "{}"] {
        let (status, body) = town.call(0, "info", body);
        assert_eq!((status, String::from_utf8(body).unwrap()), (200, json.clone()));
    }
    let (_, body) = town.call(0, "info", "de");
    assert_eq!(
        body,
        format!("d2:hfli19ei4ee1:ti{FOUNDED}e9:timestampi{FOUNDED}e7:versionli{a}ei{b}ei{c}eee").as_bytes()
    );
}

#[test]
fn a_client_finds_its_swarm_and_is_sent_there() {
    let mut town = Town::new(1, &[0, 1 << 63]);
    let owner = Owner::session(1);
    let account = owner.account.hex();
    let (_, there) = town.json(0, "get_swarm", &json!({"pubkey": account}));
    for (method, name) in [("get_swarm", "pubKey"), ("get_snodes_for_pubkey", "pubkey")] {
        assert_eq!(town.json(1, method, &json!({name: account})), (200, there.clone()));
    }
    let home = town.houses.iter().position(|house| house.hex() == there["snodes"][0]["pubkey_ed25519"]).unwrap();
    let house = &town.houses[home];
    let expected = json!({
        "address": there["snodes"][0]["address"], "ip": format!("10.0.0.{}", home + 1), "port": "22021", "port_https": 22021,
        "port_omq": 22020, "port_quic": 22020, "pubkey_ed25519": house.hex(),
        "pubkey_legacy": HEXLOWER.encode(&[u8::try_from(home).unwrap() + 1; 32]),
        "pubkey_x25519": HEXLOWER.encode(&house.key.verifying_key().to_montgomery().to_bytes()),
    });
    assert_eq!(there["snodes"], json!([expected]));
    assert_eq!(there["swarm"], format!("{:x}", house.swarm));
    let stray = 1 - home;
    let hash = "A".repeat(43);
    let (now, t) = (town.wall(), town.wall().to_string());
    for (method, params) in [
        ("store", owner.message(&town, 2, b"x")),
        ("retrieve", owner.look(&town, 2, json!({}))),
        ("delete", owner.signed(&["delete", &hash], json!({"messages": hash}))),
        ("delete_all", owner.signed(&["delete_all", &t], json!({"timestamp": now}))),
        ("expire_all", owner.signed(&["expire_all", &t], json!({"expiry": now}))),
        ("get_expiries", owner.signed(&["get_expiries", &t, &hash], json!({"timestamp": now, "messages": hash}))),
        ("revoke_subaccount", owner.signed(&["revoke_subaccount", &t], json!({"timestamp": now, "revoke": []}))),
    ] {
        assert_eq!(town.json(stray, method, &params), (421, there.clone()), "{method}");
        assert_eq!(town.json(home, method, &params).0, 200, "{method}");
    }
    let text = "invalid request: Pubkey must be 66 hex digits/33 bytes long";
    assert_eq!(town.json(0, "get_swarm", &json!({"pubkey": "05"})), (400, text.into()));
}

#[test]
fn a_node_that_is_in_no_swarm_says_so() {
    let mut town = Town::new(1, &[7, u64::MAX]);
    let owner = Owner::session(1);
    let text = "Service node is not ready: not in a swarm";
    let params = owner.look(&town, 2, json!({}));
    assert_eq!(town.json(1, "retrieve", &params), (503, text.into()));
    assert_eq!(town.json(1, "info", &json!({})).0, 200);
    town.houses[1].swarm = 7;
    town.publish();
    assert_eq!(town.json(1, "retrieve", &params).0, 200);
}

#[test]
fn a_body_that_names_its_method_is_read_so() {
    let mut town = Town::new(1, &[7]);
    for (body, status, text) in [
        (r#"{"method":"info""#, 400, "invalid json"),
        ("", 400, "invalid json"),
        ("[]", 400, "invalid json: no `method` field"),
        (r#"{"params":{}}"#, 400, "invalid json: no `method` field"),
        (r#"{"method":5,"params":{}}"#, 400, "invalid json: no `method` field"),
        (r#"{"method":"info"}"#, 400, "invalid json: no `params` field"),
        (r#"{"method":"info","params":[]}"#, 400, "invalid json: no `params` field"),
        (r#"{"method":"nothing","params":{}}"#, 400, "no method nothing"),
        (r#"{"method":"storage_cc","params":{}}"#, 400, "no method storage_cc"),
    ] {
        let (code, body) = town.call(0, "storage_rpc", body);
        assert_eq!((code, String::from_utf8(body).unwrap()), (status, text.to_owned()));
    }
    assert_eq!(town.call(0, "storage_rpc", r#"{"method":"info","params":{}}"#).0, 200);
    for body in ["5", "d", "{", "le", "[]"] {
        let (status, text) = town.call(0, "info", body);
        assert_eq!((status, &text[..]), (400, &b"invalid body: expected json or bt_dict"[..]), "{body}");
    }
}

#[test]
fn the_registrys_nodes_are_told_on() {
    let mut town = Town::new(1, &[7, 9]);
    let ask = json!({"endpoint": "get_service_nodes", "params": {"fields": {"public_ip": true, "swarm_id": true, "funded": false}}});
    let (status, body) = town.json(0, "oxend_request", &ask);
    assert_eq!(status, 200);
    let mut states = body["result"]["service_node_states"].as_array().unwrap().clone();
    states.sort_by_key(|state| state["swarm_id"].as_u64());
    assert_eq!(
        states,
        [json!({"public_ip": "10.0.0.1", "swarm_id": 7}), json!({"public_ip": "10.0.0.2", "swarm_id": 9})]
    );
    assert_eq!(
        (&body["result"]["height"], &body["result"]["status"], &body["hf"]),
        (&json!(1001), &json!("OK"), &json!([19, 4]))
    );
    let (_, body) = town.json(0, "oxend_request", &json!({"endpoint": "get_service_nodes", "params": {"limit": 1}}));
    let states = body["result"]["service_node_states"].as_array().unwrap();
    assert_eq!((states.len(), states[0].as_object().unwrap().len()), (1, 9));
    let text = "invalid request: Invalid oxend endpoint 'stop_daemon'";
    assert_eq!(town.json(0, "oxend_request", &json!({"endpoint": "stop_daemon"})), (400, text.into()));
    let (status, nodes) = town.call(0, "active_nodes_bin", "");
    let mut expected: Vec<Vec<u8>> = town
        .houses
        .iter()
        .enumerate()
        .map(|(number, house)| {
            let ip = [10, 0, 0, u8::try_from(number).unwrap() + 1];
            [
                &house.id().0[..],
                &house.swarm.to_be_bytes(),
                &ip,
                &22021u16.to_be_bytes(),
                &22020u16.to_be_bytes(),
                &[0; 3],
            ]
            .concat()
        })
        .collect();
    expected.sort();
    assert_eq!((status, nodes), (200, expected.concat()));
}
