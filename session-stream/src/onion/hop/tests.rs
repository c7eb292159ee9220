//! An onion's way: over three nodes and back, to a server, and every way to be refused.

#![allow(clippy::unwrap_used)]

use data_encoding::HEXLOWER;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use x25519_dalek::PublicKey;

use super::super::wrap::{Destination, Hop, wrap};
use super::super::{server, split};
use super::*;

const REQUEST: &[u8] = br#"{"method":"info","params":{}}"#;

fn secret(node: u8) -> StaticSecret {
    StaticSecret::from([node; 32])
}

fn hop(node: u8) -> Hop {
    Hop { ed25519: [node; 32], x25519: PublicKey::from(&secret(node)).to_bytes() }
}

fn chance() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([9; 32])
}

/// Seals a layer for node 1, as whoever likes would.
fn sealed(blob: &[u8], json: &serde_json::Value, hop: i64) -> Onion {
    let shared = Shared::at_client(Cipher::AesGcm, &secret(7), PublicKey::from(&secret(1)).as_bytes()).unwrap();
    let layer = join(blob, json.to_string().as_bytes());
    let sealed = shared.seal(&layer, &mut chance()).unwrap().into();
    Onion { sealed, cipher: Cipher::AesGcm, ephemeral: PublicKey::from(&secret(7)).to_bytes(), hop }
}

fn peeled(json: &serde_json::Value) -> Result<Layer, Refusal> {
    peel(&sealed(REQUEST, json, 0), &secret(1))
}

#[test]
fn a_call_goes_over_three_nodes_and_its_answer_comes_back() {
    for cipher in [Cipher::AesGcm, Cipher::XChaCha20, Cipher::AesCbc] {
        let path = [hop(1), hop(2), hop(3)];
        let (blob, opener) = wrap(&path, &Destination::Node, REQUEST, cipher, &mut chance()).unwrap();
        let mut onion = Onion::from_client(&blob).unwrap();
        for node in [1, 2] {
            let Ok(Layer::Next { node: to, onion: inner }) = peel(&onion, &secret(node)) else { panic!("at {node}") };
            assert_eq!(to, [node + 1; 32]);
            onion = Onion::from_node(&inner.for_node()).unwrap();
            assert_eq!((onion.hop, &onion), (i64::from(node), &inner));
        }
        let Ok(Layer::Here { request, reply }) = peel(&onion, &secret(3)) else { panic!("at the end") };
        assert_eq!(request, REQUEST);
        let answer = reply.seal(200, br#"{"t":1}"#, &mut chance()).unwrap();
        assert!(answer.is_ascii(), "base64 unless asked otherwise");
        assert_eq!(opener.open(&answer).unwrap(), br#"{"body":"{\"t\":1}","status":200}"#);
        assert_eq!(opener.open(b"Next node not found: "), None);
    }
}

#[test]
fn only_the_node_it_is_for_takes_a_layer_off() {
    let (blob, _) = wrap(&[hop(1)], &Destination::Node, REQUEST, Cipher::AesGcm, &mut chance()).unwrap();
    let refused = peel(&Onion::from_client(&blob).unwrap(), &secret(2)).unwrap_err();
    assert_eq!(refused, Refusal { status: 400, words: "Invalid ciphertext".into() });
}

#[test]
fn an_answer_takes_the_form_that_was_asked_for() {
    let answer = |options: serde_json::Value, body: &[u8]| {
        let Ok(Layer::Here { reply, .. }) = peeled(&options) else { panic!() };
        let answer = reply.seal(421, body, &mut chance()).unwrap();
        let shared = Shared::at_client(Cipher::AesGcm, &secret(7), PublicKey::from(&secret(1)).as_bytes()).unwrap();
        let sealed = BASE64.decode(&answer).unwrap_or(answer.to_vec());
        String::from_utf8(shared.open(&sealed).unwrap()).unwrap()
    };
    let (plain, json) = (serde_json::json!({"headers": ""}), serde_json::json!({"headers": "", "json": true}));
    assert_eq!(answer(plain.clone(), br#"{"a":1}"#), r#"{"body":"{\"a\":1}","status":421}"#);
    assert_eq!(answer(json.clone(), br#"{"a":1}"#), r#"{"body":{"a":1},"status":421}"#);
    assert_eq!(answer(json, b"a sentence"), r#"{"body":"a sentence","status":421}"#);
    assert_eq!(answer(plain, b"\xff\x00"), r#"{"body":"/wA=","status":421}"#);
    let Ok(Layer::Here { reply, .. }) = peeled(&serde_json::json!({"headers": {}, "base64": false})) else { panic!() };
    assert!(!reply.seal(200, b"", &mut chance()).unwrap().is_ascii());
}

#[test]
fn a_server_gets_the_whole_layer_and_nobody_else_reads_it() {
    let server_key = PublicKey::from(&secret(5)).to_bytes();
    let there = Destination::Server {
        host: "open.example",
        target: "/oxen/v4/lsrpc",
        port: 443,
        protocol: "https",
        x25519: server_key,
    };
    let request = server::Request {
        method: "POST".into(),
        endpoint: "/file".into(),
        headers: [("x-a".to_owned(), "b".to_owned())].into(),
        body: Bytes::from_static(b"\x00e"),
    };
    let (blob, opener) =
        wrap(&[hop(1), hop(2)], &there, &request.write_v4(), Cipher::XChaCha20, &mut chance()).unwrap();
    let Ok(Layer::Next { onion, .. }) = peel(&Onion::from_client(&blob).unwrap(), &secret(1)) else { panic!() };
    let Ok(Layer::Server { url, body }) = peel(&onion, &secret(2)) else { panic!() };
    assert_eq!(url, "https://open.example:443/oxen/v4/lsrpc");
    assert!(server::open(&body, &secret(2)).is_err());
    let (plain, shared) = server::open(&body, &secret(5)).unwrap();
    assert_eq!(server::Request::read_v4(&plain), Ok(request));
    let headers = [("Content-Length".to_owned(), "2".to_owned()), ("ETag".to_owned(), "x".to_owned())].into();
    let response = server::Response { code: 200, headers, body: Bytes::from_static(b"ok") };
    let answer = opener.open(&shared.seal(&response.write_v4(), &mut chance()).unwrap()).unwrap();
    assert_eq!(answer, br#"l35:{"code":200,"headers":{"etag":"x"}}2:oke"#);
    let read = server::Response::read_v4(&answer.into()).unwrap();
    assert_eq!((read.code, &read.body[..]), (200, &b"ok"[..]));
}

#[test]
fn servers_read_the_third_form_and_refuse_what_is_none() {
    let v3 = |text: &str| server::Request::read_v3(text.as_bytes());
    let request = v3(r#"{"endpoint":"rooms","method":"GET","headers":{"a":"b"}}"#).unwrap();
    assert_eq!((&request.endpoint[..], &request.method[..], request.body.len()), ("/rooms", "GET", 0));
    assert_eq!(v3(r#"{"endpoint":"/x","method":"POST","body":"{}"}"#).unwrap().body, "{}");
    assert_eq!(
        v3(r#"{"endpoint":"files","method":"POST","body":{"fileUpload":"/wA="}}"#).unwrap().body,
        &b"\xff\x00"[..]
    );
    assert!(v3(r#"{"method":"POST"}"#).is_err());
    for bad in ["le", "l1:ae", "l1:a1:b1:ce", "d1:ai1ee", r#"l32:{"method":"GET","endpoint":"x"} e"#] {
        assert!(server::Request::read_v4(&Bytes::from(bad)).is_err(), "{bad}");
    }
    let bare = server::Request::read_v4(&Bytes::from(r#"l32:{"method":"GET","endpoint":"/x"}e"#)).unwrap();
    assert_eq!((&bare.endpoint[..], bare.body.len()), ("/x", 0));
}

#[test]
fn an_onion_that_goes_in_circles_ends() {
    let next =
        serde_json::json!({"destination": HEXLOWER.encode(&[2; 32]), "ephemeral_key": HEXLOWER.encode(&[3; 32])});
    let Ok(Layer::Next { onion, .. }) = peel(&sealed(b"x", &next, 15), &secret(1)) else { panic!() };
    assert_eq!(onion.hop, 16);
    assert_eq!(peel(&sealed(b"x", &next, 16), &secret(1)).unwrap_err().status, 400);
    let blob = join(
        b"x",
        br#"{"ephemeral_key":"0303030303030303030303030303030303030303030303030303030303030303","hop_no":3}"#,
    );
    assert_eq!(Onion::from_client(&blob.into()).unwrap().hop, 3);
}

#[test]
fn nodes_post_to_servers_made_for_it_only() {
    let at = |host: &str, target: &str, more: serde_json::Value| {
        let mut json = serde_json::json!({"host": host, "target": target});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        match peeled(&json) {
            Ok(Layer::Server { url, .. }) => Some(url),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => {
                assert_eq!(refusal, Refusal { status: 400, words: "Invalid url".into() });
                None
            }
        }
    };
    let (none, lsrpc) = (serde_json::json!({}), "/loki/v3/lsrpc");
    assert_eq!(at("a.example", lsrpc, none.clone()).unwrap(), "https://a.example:443/loki/v3/lsrpc");
    let port = serde_json::json!({"protocol": "http", "port": 8080});
    assert_eq!(at("[::1]", "/oxen/v4/lsrpc", port).unwrap(), "http://[::1]:8080/oxen/v4/lsrpc");
    for target in
        ["/", "/admin", "/loki/v3/lsrpc?x=/lsrpc", "/loki/x", "/x/loki/lsrpc", "/loki/ /lsrpc", "/loki/#/lsrpc"]
    {
        assert_eq!(at("a.example", target, none.clone()), None, "{target}");
    }
    for host in ["", "a@b", "a/b", "a:80", "a b", "[::1", "[a]", "a?b", "a\r\nb"] {
        assert_eq!(at(host, lsrpc, none.clone()), None, "{host}");
    }
    for more in [r#"{"protocol":"file"}"#, r#"{"port":0}"#, r#"{"port":65536}"#, r#"{"port":"x"}"#] {
        assert_eq!(at("a.example", lsrpc, serde_json::from_str(more).unwrap()), None, "{more}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let ephemeral = HEXLOWER.encode(&[3; 32]);
    for (json, words) in [
        (serde_json::json!({}), "Invalid json: destination"),
        (serde_json::json!({"destination": "03"}), "Invalid json: destination"),
        (serde_json::json!({"destination": ephemeral}), "Invalid json: ephemeral_key"),
        (
            serde_json::json!({"destination": ephemeral, "ephemeral_key": ephemeral, "enc_type": "rot13"}),
            "Invalid json: enc_type",
        ),
        (serde_json::json!([]), "Invalid json"),
    ] {
        assert_eq!(peeled(&json).unwrap_err(), Refusal { status: 400, words: words.into() });
    }
    for blob in [&b""[..], b"\x01\x00\x00", b"\x01\x00\x00\x00", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff{}"] {
        assert_eq!(Onion::from_client(&Bytes::copy_from_slice(blob)).unwrap_err().status, 400);
    }
    assert_eq!(Onion::from_client(&vec![0; ONION_MAX + 1].into()).unwrap_err().status, 413);
    for dict in
        ["", "de", "d4:data1:x8:enc_type5:rot13e", "d4:data1:x8:enc_type7:aes-gcm13:ephemeral_key1:x6:hop_noi0ee"]
    {
        assert_eq!(Onion::from_node(dict.as_bytes()).unwrap_err().status, 400, "{dict}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_fall(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = split(&bytes);
        let _ = Onion::from_node(&bytes);
        let _ = Onion::from_client(&bytes.clone().into());
        let onion = Onion { sealed: bytes.into(), cipher: Cipher::AesCbc, ephemeral: [5; 32], hop: 0 };
        let _ = peel(&onion, &secret(1));
    }
}
