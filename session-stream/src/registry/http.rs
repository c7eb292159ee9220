//! The registry's door: JSON-RPC over HTTP, `POST /json_rpc`. Neighbours: `registry` (answers), the `session-registry`
//! program (opens it).

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::{BLOCK, Registry};

/// Bytes of a call.
const BODY_MAX: usize = 64 << 10;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection lives.
const LIFE: Duration = Duration::from_secs(60);

/// Serves a registry until the task is dropped.
pub async fn serve(listener: TcpListener) {
    let start = Instant::now();
    let registry = Arc::new(Mutex::new(Registry::default()));
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut blocks = tokio::time::interval(BLOCK);
    loop {
        tokio::select! {
            _ = blocks.tick() => locked(&registry, |registry| registry.block(start.elapsed())),
            accepted = listener.accept() => {
                let Ok((stream, from)) = accepted else { continue };
                let IpAddr::V4(from) = from.ip().to_canonical() else { continue };
                let Ok(seat) = seats.clone().try_acquire_owned() else { continue };
                let registry = registry.clone();
                tokio::spawn(async move {
                    let _ = timeout(LIFE, attend(stream, registry, from, start)).await;
                    drop(seat);
                });
            }
        }
    }
}

fn locked<T>(registry: &Mutex<Registry>, what: impl FnOnce(&mut Registry) -> T) -> T {
    what(&mut registry.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn attend(stream: TcpStream, registry: Arc<Mutex<Registry>>, from: Ipv4Addr, start: Instant) {
    let answering = service_fn(|request: Request<Incoming>| {
        let registry = registry.clone();
        async move {
            let (status, said) = answer(request, &registry, from, start).await;
            let mut response = Response::new(Full::new(Bytes::from(said.to_string())));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answering).await;
}

async fn answer(
    request: Request<Incoming>,
    registry: &Mutex<Registry>,
    from: Ipv4Addr,
    start: Instant,
) -> (StatusCode, Json) {
    if (request.method(), request.uri().path()) != (&Method::POST, "/json_rpc") {
        return (StatusCode::NOT_FOUND, refused(&Json::Null, -32600, "ask POST /json_rpc"));
    }
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await.map(http_body_util::Collected::to_bytes);
    let call: Option<Json> = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
    let Some(call) = call else { return (StatusCode::OK, refused(&Json::Null, -32700, "the call is no JSON")) };
    let Some(method) = call["method"].as_str() else {
        return (StatusCode::OK, refused(&call["id"], -32600, "the call names no method"));
    };
    let result = locked(registry, |registry| registry.call(method, &call["params"], from, start.elapsed()));
    let said = match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": call["id"], "result": result}),
        Err(why) => refused(&call["id"], -32602, &why),
    };
    (StatusCode::OK, said)
}

fn refused(id: &Json, code: i32, why: &str) -> Json {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": why}})
}
