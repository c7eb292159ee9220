//! A registry tells a node of the others, is told that the node is there, and who of them can be reached.
#![allow(clippy::unwrap_used, missing_docs)]

mod street;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use session_stream::serve::list::Source;
use session_stream::serve::{self};
use street::Street;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// What was called, with its parameters.
type Calls = Arc<Mutex<Vec<(String, Json)>>>;

/// A registry with this list; it remembers what it is asked.
async fn registry(list: Json) -> (String, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Calls::default();
    let remembered = calls.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (list, calls) = (list.clone(), remembered.clone());
            let answering = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (list, calls) = (list.clone(), calls.clone());
                async move {
                    assert_eq!(request.uri().path(), "/json_rpc");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let call: Json = serde_json::from_slice(&body).unwrap();
                    let (method, params) = (call["method"].as_str().unwrap().to_owned(), call["params"].clone());
                    let unchanged = params["poll_block_hash"] == list["block_hash"];
                    let result = match &method[..] {
                        "get_service_nodes" if unchanged => json!({"unchanged": true}),
                        "get_service_nodes" => list,
                        _ => json!({"status": "OK"}),
                    };
                    calls.lock().unwrap().push((method, params));
                    let answer = json!({"jsonrpc": "2.0", "id": "0", "result": result}).to_string();
                    Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(answer)))
                }
            });
            tokio::spawn(async move {
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answering).await;
            });
        }
    });
    (url, calls)
}

#[tokio::test]
async fn a_registry_is_listened_to_and_told() {
    let mut street = Street::new(&[7, 7, 7]).await;
    let whole: Json = serde_json::from_slice(&std::fs::read(street.list()).unwrap()).unwrap();
    let (url, calls) = registry(whole["result"].clone()).await;
    street.houses[2].down().await;
    street.houses[0].down().await;
    street.houses[0].settings.source = Source::Registry(url);
    street.houses[0].settings.tests = Some(Duration::from_millis(100));
    street.houses[0].up().await;
    let told = |method: &str, params: &dyn Fn(&Json) -> bool| {
        calls.lock().unwrap().iter().any(|(called, with)| called == method && params(with))
    };
    let about = |house: usize, passed: bool| {
        let expected =
            json!({"type": "storage", "pubkey": HEXLOWER.encode(&street.houses[house].legacy()), "passed": passed});
        told("report_peer_status", &|params| *params == expected)
    };
    let key = HEXLOWER.encode(&street.houses[0].key);
    let until = Instant::now() + Duration::from_secs(60);
    while !(about(1, true)
        && about(2, false)
        && told("storage_server_ping", &|params| params["pubkey_ed25519"] == key[..]))
    {
        assert!(Instant::now() < until, "{:?}", calls.lock().unwrap());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(!about(1, false) && !about(2, true) && !about(0, true) && !about(0, false));
    // Who comes back is tested again, and passes.
    street.houses[2].up().await;
    while !calls.lock().unwrap().iter().any(|(_, params)| {
        *params == json!({"type": "storage", "pubkey": HEXLOWER.encode(&street.houses[2].legacy()), "passed": true})
    }) {
        assert!(Instant::now() < until);
        sleep(Duration::from_millis(20)).await;
    }
    street.stop().await;
}

#[tokio::test]
async fn what_keeps_a_node_from_starting_is_said_with_its_remedy() {
    let mut street = Street::new(&[7]).await;
    let said = |settings: serve::Settings| async move {
        match serve::start(settings).await {
            Ok(_) => panic!("it starts"),
            Err(trouble) => trouble.to_string(),
        }
    };
    let house = &mut street.houses[0];
    let settings = house.settings.clone();
    let in_use = said(settings.clone()).await;
    assert!(in_use.contains("storage.db") && in_use.contains("another process"), "{in_use}");
    let mut elsewhere = settings.clone();
    elsewhere.data_dir = settings.data_dir.join("second");
    let taken = said(elsewhere).await;
    assert!(taken.contains(&format!("127.0.0.1:{}", house.https)) && taken.contains("--https-port"), "{taken}");
    house.down().await;
    std::fs::write(&settings.key, "nonsense").unwrap();
    let damaged = said(settings.clone()).await;
    assert!(damaged.contains("key_ed25519") && damaged.contains("bring it back"), "{damaged}");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&settings.key, open).unwrap();
    let open = said(settings.clone()).await;
    assert!(open.contains("chmod 600"), "{open}");
    std::fs::remove_file(&settings.key).unwrap();
    std::fs::write(settings.data_dir.join("cert.pem"), "nonsense").unwrap();
    let certificate = said(settings).await;
    assert!(certificate.contains("cert.pem") && certificate.contains("remove"), "{certificate}");
}
