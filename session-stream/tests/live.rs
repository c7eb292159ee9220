//! Nodes and clients over real sockets: what a client meets over HTTPS, QUIC and onion requests, and what a stranger does.
#![allow(clippy::unwrap_used, missing_docs)]

mod street;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use quinn::{ClientConfig, Connection, ConnectionError};
use serde_json::{Value as Json, json};
use session_stream::client::{Client, ClientError, Link, OnionWay, Owner, Recipient, Route};
use session_stream::http::{Http, Reach, Response, Trust};
use session_stream::quic::tls::{self, Identity};
use session_stream::quic::{CLIENT_IDLE, CLIENTS, NODES, code, endpoint, transport};
use street::{HOME, House, Street};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HOUR: Duration = Duration::from_secs(3600);

async fn post(house: &House, path: &str, body: impl Into<Bytes>) -> Response {
    let post = Some((body.into(), "application/json"));
    Http::new().unwrap().ask(&house.url(path), post, 16 << 20, Trust::Nobody, Reach::Anywhere).await.unwrap()
}

async fn rpc(house: &House, method: &str, params: Json) -> (u16, Json) {
    let answer = post(house, "/storage_rpc/v1", json!({"method": method, "params": params}).to_string()).await;
    (
        answer.status,
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| Json::from(&*String::from_utf8_lossy(&answer.body))),
    )
}

#[tokio::test]
async fn what_is_stored_over_quic_is_read_at_every_member() {
    let street = Street::new(&[7, 7, 7, 9]).await;
    let owner = Owner::session(&[1; 32]);
    let client = Client::new(street.targets(), Route::Address).unwrap();
    let swarm = client.swarm(&owner.account().0).await.unwrap();
    let stored = client.store(&Recipient::Owner(&owner), 2, b"hello", HOUR).await.unwrap();
    assert_eq!(stored.members, swarm.len());
    for target in &swarm {
        let one = Client::new(vec![target.clone()], Route::Address).unwrap();
        let page = one.retrieve(&owner, 2, None).await.unwrap();
        assert_eq!(page.messages.len(), 1);
        assert_eq!((&page.messages[0].data[..], &page.messages[0].hash), (&b"hello"[..], &stored.hash));
        assert!(!page.more);
    }
    let (anybody, inbox) = (Recipient::Anybody(owner.account().0), 0);
    for text in ["one", "two", "three"] {
        client.store(&anybody, inbox, text.as_bytes(), HOUR).await.unwrap();
    }
    let all = client.retrieve_all(&owner, inbox, None).await.unwrap();
    assert_eq!(all.iter().map(|message| &message.data[..]).collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
    let behind = client.retrieve_all(&owner, inbox, Some(&all[1].hash)).await.unwrap();
    assert_eq!(behind, all[2..]);
    let refused = client.store(&anybody, 2, b"not mine", HOUR).await.unwrap_err();
    let ClientError::Refused { status: 401, words, .. } = refused else { panic!("{refused}") };
    assert_eq!(words, "store: signature required to store to namespace 2");
    street.stop().await;
}

#[tokio::test]
async fn https_answers_as_clients_know_it() {
    let street = Street::new(&[7]).await;
    let house = &street.houses[0];
    let (status, info) = rpc(house, "info", json!({})).await;
    assert_eq!((status, info["version"].as_array().unwrap().len()), (200, 3));
    let answer = post(house, "/ping_test/v1", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["x-oxen-snode-pubkey"], BASE64.encode(&house.legacy()));
    let (http, url) = (Http::new().unwrap(), house.url("/get_stats/v1"));
    let stats = http.ask(&url, None, 1 << 20, Trust::Nobody, Reach::Anywhere).await.unwrap();
    let stats: Json = serde_json::from_slice(&stats.body).unwrap();
    assert!(stats["version"].is_string());
    let json = post(house, "/storage_rpc/v1", r#"{"method":"info","params":{}}"#).await;
    assert_eq!(json.headers["content-type"], "application/json");
    for (path, body, status, words) in [
        ("/storage_rpc/v1", &b"{"[..], 400, "invalid json"),
        ("/storage_rpc/v1", b"{}", 400, "invalid json: no `method` field"),
        ("/storage_rpc/v1", b"{\"method\":\"x\",\"params\":{}}", 400, "no method x"),
        ("/onion_req/v2", b"\x09\0\0\0", 400, "Invalid ciphertext"),
        ("/", b"", 404, "Not Found"),
        ("/get_stats/v1", b"", 405, "Method Not Allowed"),
    ] {
        let answer = post(house, path, Bytes::copy_from_slice(body)).await;
        assert_eq!((answer.status, &*String::from_utf8_lossy(&answer.body)), (status, words), "{path}");
    }
    let large = post(house, "/storage_rpc/v1", vec![b' '; (10 << 20) + 1]).await;
    assert_eq!(large.status, 413);
    let just = post(house, "/storage_rpc/v1", vec![b' '; 10 << 20]).await;
    assert_eq!((just.status, &just.body[..]), (400, &b"invalid json"[..]));
    street.stop().await;
}

/// Speaks HTTP over TLS by hand, as somebody would who means ill.
async fn by_hand(house: &House, request: &[u8]) -> Vec<u8> {
    let config = rustls_nobody();
    let stream = tokio::net::TcpStream::connect((HOME, house.https)).await.unwrap();
    let mut stream = config.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.expect("it hangs up");
    answer
}

fn rustls_nobody() -> tokio_rustls::TlsConnector {
    session_stream::http::Http::new().unwrap().unknowing()
}

#[tokio::test]
async fn who_is_slow_over_https_is_hung_up_on() {
    let street = Street::new(&[7]).await;
    let house = &street.houses[0];
    let long_poll = b"POST /storage_rpc/v1 HTTP/1.1\r\nhost: x\r\nx-loki-long-poll: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (head, body) = tokio::join!(
        by_hand(house, b"POST /storage_rpc/v1 HTTP/1.1\r\nhost: x\r\n"),
        by_hand(house, b"POST /storage_rpc/v1 HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{"),
    );
    assert!(head.is_empty() || head.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&head));
    assert!(body.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&body));
    assert!(by_hand(house, long_poll).await.starts_with(b"HTTP/1.1 410"));
    street.stop().await;
}

async fn dial(house: &House, config: Arc<dyn quinn::crypto::ClientConfig>) -> Result<Connection, ConnectionError> {
    let mut config = ClientConfig::new(config);
    config.transport_config(Arc::new(transport(CLIENT_IDLE, None)));
    let endpoint = endpoint("127.0.0.1:0".parse().unwrap(), None).unwrap();
    endpoint.connect_with(config, (HOME, house.quic).into(), tls::SERVER_NAME).unwrap().await
}

async fn link(house: &House) -> Link {
    let endpoint = endpoint("127.0.0.1:0".parse().unwrap(), None).unwrap();
    Link::connect(&endpoint, &house.target()).await.unwrap()
}

/// One command by hand; what comes back on the stream.
async fn exchange(connection: &Connection, frame: &[u8]) -> Result<Vec<u8>, quinn::ReadError> {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(frame).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = recv.read(&mut answer).await?.unwrap_or(0);
    answer.truncate(length);
    Ok(answer)
}

#[tokio::test]
async fn quic_takes_clients_with_a_key_and_without_one() {
    let street = Street::new(&[7]).await;
    let house = &street.houses[0];
    let keyed = tls::client(Some(&Identity::throwaway().unwrap()), house.key, CLIENTS).unwrap();
    let bare = tls::client(None, house.key, CLIENTS).unwrap();
    for config in [keyed, bare] {
        let connection = dial(house, config).await.unwrap();
        let pong = exchange(&connection, b"23:l1:Ci0e10:snode_ping0:e").await.unwrap();
        assert_eq!(&pong, b"14:l1:Ri0e4:ponge");
        let pongs = exchange(&connection, b"23:l1:Ci7e10:snode_ping0:e23:l1:Ci9e10:snode_ping0:e").await.unwrap();
        assert!(pongs.starts_with(b"14:l1:Ri7e4:ponge") || pongs.starts_with(b"14:l1:Ri9e4:ponge"));
    }
    street.stop().await;
}

#[tokio::test]
async fn quic_refuses_who_is_not_who_he_should_be() {
    let street = Street::new(&[7]).await;
    let house = &street.houses[0];
    let stranger = Identity::throwaway().unwrap();
    let wrong_server = dial(house, tls::client(None, [9; 32], CLIENTS).unwrap()).await;
    assert!(wrong_server.is_err(), "the node's key is not the one we expect");
    let unknown = dial(house, tls::client(None, house.key, b"quic-files").unwrap()).await;
    assert!(matches!(unknown, Err(ConnectionError::ConnectionClosed(_))), "{unknown:?}");
    // Without a key nobody is a node, and with a key only who is on the list.
    if let Ok(connection) = dial(house, tls::client(None, house.key, NODES).unwrap()).await {
        assert!(matches!(connection.closed().await, ConnectionError::ConnectionClosed(_)));
    }
    let connection = dial(house, tls::client(Some(&stranger), house.key, NODES).unwrap()).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = connection.closed().await else { panic!() };
    assert_eq!(close.error_code, code::NOT_A_NODE);
    street.stop().await;
}

#[tokio::test]
async fn what_is_no_frame_ends_its_stream_and_not_the_connection() {
    let street = Street::new(&[7]).await;
    let house = &street.houses[0];
    let connection = dial(house, tls::client(None, house.key, CLIENTS).unwrap()).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(send.stopped().await.unwrap(), Some(code::FRAMING));
    assert_eq!(code::FRAMING.into_inner(), 777_000_105);
    let pong = exchange(&connection, b"23:l1:Ci0e10:snode_ping0:e").await.unwrap();
    assert_eq!(&pong, b"14:l1:Ri0e4:ponge");
    street.stop().await;
}

#[tokio::test]
async fn quic_wraps_answers_as_clients_know_it() {
    let street = Street::new(&[7, 0x8000_0000_0000_0000]).await;
    let link = link(&street.houses[0]).await;
    let json = link.request("info", Bytes::from_static(b"{}")).await.unwrap();
    assert!(json.starts_with(b"[200,{"), "{json:?}");
    let bt = link.request("info", Bytes::from_static(b"de")).await.unwrap();
    assert!(bt.starts_with(b"li200ed") && bt.ends_with(b"ee"), "{bt:?}");
    let Err(ClientError::Refused { status, words, .. }) = link.request("nothing", Bytes::new()).await else { panic!() };
    assert_eq!((status, &words[..]), (400, "no method nothing"));
    // Some account is the other node's.
    let mut found = false;
    for seed in 0..20 {
        let owner = Owner::session(&[seed; 32]);
        let answer = link.call("retrieve", &json!({"pubkey": owner.account().hex(), "namespace": -10})).await;
        if let Err(ClientError::Refused { status: 421, body, .. }) = answer {
            assert_eq!(body["snodes"][0]["pubkey_ed25519"], HEXLOWER.encode(&street.houses[1].key));
            found = true;
            break;
        }
    }
    assert!(found);
    street.stop().await;
}

#[tokio::test]
async fn an_onion_request_goes_over_three_nodes() {
    let street = Street::new(&[7, 7, 7]).await;
    let [a, b, c] = &street.houses[..] else { panic!() };
    let way = OnionWay::new((HOME, a.https), vec![a.hop(), b.hop(), c.hop()]).unwrap();
    let owner = Owner::session(&[1; 32]);
    let timestamp = wall();
    let store = json!({"pubkey": owner.account().hex(), "timestamp": timestamp, "ttl": 60_000, "data": BASE64.encode(b"through")});
    let stored = way.call("store", &store).await.unwrap();
    assert_eq!(stored["swarm"].as_object().unwrap().len(), 3);
    let client = Client::new(street.targets(), Route::Address).unwrap();
    assert_eq!(client.retrieve(&owner, 0, None).await.unwrap().messages[0].data, b"through");
    let ClientError::Refused { status, words, .. } = way.call("retrieve", &json!({})).await.unwrap_err() else {
        panic!()
    };
    assert_eq!((status, &words[..]), (400, "invalid request: Required field 'pubkey' missing"));
    let mut nobody = c.hop();
    nobody.ed25519 = [9; 32];
    let astray = OnionWay::new((HOME, a.https), vec![a.hop(), b.hop(), nobody]).unwrap();
    let ClientError::Refused { status, words, .. } = astray.call("info", &json!({})).await.unwrap_err() else {
        panic!()
    };
    assert_eq!((status, words), (502, format!("Next node not found: {}", HEXLOWER.encode(&[9; 32]))));
    street.stop().await;
}

#[tokio::test]
async fn nodes_that_were_down_come_back_with_what_they_had() {
    let mut street = Street::new(&[7, 7, 7]).await;
    let owner = Owner::session(&[1; 32]);
    let client = Client::new(street.targets(), Route::Address).unwrap();
    client.store(&Recipient::Owner(&owner), 0, b"before", HOUR).await.unwrap();
    street.houses[2].down().await;
    let stored = client.store(&Recipient::Owner(&owner), 0, b"while one is down", HOUR).await.unwrap();
    assert_eq!(stored.members, 2, "and the store did not fail");
    street.houses[2].up().await;
    street.publish().await;
    let one = Client::new(vec![street.houses[2].target()], Route::Address).unwrap();
    let has = one.retrieve(&owner, 0, None).await.unwrap();
    assert!(has.messages.iter().any(|message| message.data == b"before"));
    let stored = client.store(&Recipient::Owner(&owner), 0, b"after", HOUR).await.unwrap();
    assert_eq!(stored.members, 3, "the others found it again");
    street.stop().await;
}

#[tokio::test]
async fn a_subscriber_who_does_not_read_is_cut_and_nobody_else() {
    let street = Street::new(&[7]).await;
    let house = &street.houses[0];
    let owner = Arc::new(Owner::session(&[1; 32]));
    let mut config = ClientConfig::new(tls::client(None, house.key, CLIENTS).unwrap());
    let mut narrow = transport(CLIENT_IDLE, None);
    narrow.stream_receive_window(quinn::VarInt::from_u32(64 << 10));
    config.transport_config(Arc::new(narrow));
    let from = endpoint("127.0.0.1:0".parse().unwrap(), None).unwrap();
    let lazy = from.connect_with(config, (HOME, house.quic).into(), tls::SERVER_NAME).unwrap().await.unwrap();
    let (mut send, _unread) = lazy.open_bi().await.unwrap();
    send.write_all(&monitor(&owner)).await.unwrap();
    let client = Client::new(street.targets(), Route::Address).unwrap();
    let mut eager = client.watch(&owner, &[0]);
    let mut told = 0u32;
    for number in 0..200u32 {
        let data = [&number.to_be_bytes()[..], &vec![7; 70_000]].concat();
        client.store(&Recipient::Owner(&owner), 0, &data, HOUR).await.unwrap();
        if lazy.close_reason().is_some() {
            break;
        }
    }
    let Some(ConnectionError::ApplicationClosed(close)) = lazy.close_reason() else { panic!("it was not cut") };
    assert_eq!(close.error_code, code::TOO_SLOW);
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(500), eager.message()).await {
        told += 1;
    }
    assert!(told > 50, "who reads is told everything: {told}");
    street.stop().await;
}

#[allow(clippy::disallowed_methods)] // the nodes here go by the host's clock
fn wall() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A subscription to an owner's first namespace, as a frame.
fn monitor(owner: &Owner) -> Bytes {
    use session_stream::bt;
    use session_stream::frame::Frame;
    use session_stream::value::Value;
    let seconds = wall() / 1000;
    let signature = owner.sign(&format!("MONITOR{}{seconds}10", owner.account().hex()));
    let dict = Value::dict([
        ("P", Value::Bytes(owner.ed25519().unwrap().to_vec())),
        ("d", Value::Int(1)),
        ("n", Value::List(vec![Value::Int(0)])),
        ("s", Value::Bytes(signature.to_vec())),
        ("t", seconds.into()),
    ]);
    Frame::Command { id: 0, endpoint: "monitor".into(), body: bt::write(&dict).into() }.write().unwrap()
}
