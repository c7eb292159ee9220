//! HTTPS: the oldest way in, which every client knows. Neighbours: `certificate` (what it proves, which is little),
//! `actor` (whom calls are brought to), `seats` (how many may come).

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::actor::Actor;
use super::peers::Peers;
use super::seats::{Seat, Seats};
use crate::node::io::{Body, Origin};
use crate::quic::stream::{Budget, Share};

/// Longest body, in bytes.
pub const BODY_MAX: usize = 10 << 20;
/// How long a client may take for its handshake, for a request's head, and between two requests.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// How long a body may take.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// After how long a connection takes no further request …
const LIFE: Duration = Duration::from_secs(300);
/// … and how long its last answer may then take: who reads a byte at a time does not do so for ever.
const FAREWELL: Duration = Duration::from_secs(30);
/// Bytes of an answer that are handed to the socket at once.
const PIECE: usize = 64 << 10;
/// The header that says which node this is.
pub const PUBKEY_HEADER: &str = "x-oxen-snode-pubkey";

const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<Paced>;

/// The HTTPS port; clones share everything.
#[derive(Clone)]
pub struct Door {
    /// Brings calls to the machine.
    pub actor: Actor,
    /// Knows which key we are registered under.
    pub peers: Arc<Peers>,
    /// Our Ed25519 key, where the list has no other for us.
    pub key: [u8; 32],
    /// Bounds connections.
    pub seats: Seats,
    /// Bounds bytes under way.
    pub budget: Budget,
}

impl Door {
    /// Accepts until the task is dropped.
    pub async fn accept(self, listener: TcpListener, tls: TlsAcceptor) {
        loop {
            let (stream, addr) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must end first.
                    tracing::warn!(
                        "HTTPS: a connection could not be accepted: {error}; raise LimitNOFILE if this goes on"
                    );
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(seat) = self.seats.take(addr.ip()) else { continue };
            let (door, tls) = (self.clone(), tls.clone());
            tokio::spawn(async move {
                let Ok(Ok(stream)) = timeout(HEAD_PATIENCE, tls.accept(stream)).await else { return };
                door.attend(TokioIo::new(stream), addr.ip().to_canonical(), seat).await;
            });
        }
    }

    async fn attend<S>(self, stream: S, ip: IpAddr, seat: Seat)
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let answering = service_fn(|request| {
            let door = self.clone();
            async move { Ok::<_, Infallible>(door.answer(request, ip).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_buf_size(64 << 10)
            .serve_connection(stream, answering);
        let mut connection = std::pin::pin!(connection);
        if timeout(LIFE, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(FAREWELL, connection).await;
        }
        drop(seat);
    }

    async fn answer(&self, request: Request<Incoming>, ip: IpAddr) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let call = match (&method, &path[..]) {
            (&Method::POST, "/storage_rpc/v1") => {
                if request.headers().contains_key("x-loki-long-poll") {
                    return say(410, "long polling is no longer supported; subscribe with `monitor` instead");
                }
                "storage_rpc"
            }
            (&Method::POST, "/onion_req/v2") => "onion_req",
            (&Method::POST, "/ping_test/v1") => return self.ping(),
            (&Method::GET, "/get_stats/v1") => {
                return answer(200, "application/json", stats());
            }
            (_, "/storage_rpc/v1" | "/onion_req/v2" | "/ping_test/v1" | "/get_stats/v1") => {
                return say(405, "Method Not Allowed");
            }
            _ => return say(404, "Not Found"),
        };
        let (body, room) = match self.body(request).await {
            Ok(body) => body,
            Err(refused) => return *refused,
        };
        let answered = self.actor.call(Origin::Https(ip), call.to_owned(), body).await;
        drop(room);
        let (kind, bytes) = match answered.body {
            Body::Text(text) => (TEXT, text.into()),
            Body::Dict(bytes) if bytes.first() != Some(&b'd') => ("application/json", bytes),
            Body::Dict(bytes) | Body::Raw(bytes) => ("application/octet-stream", bytes),
        };
        let mut room = self.budget.share();
        if !room.grow(bytes.len()) {
            return say(503, "Service node is overloaded, try another");
        }
        let mut answer = answer(answered.status, kind, bytes);
        answer.body_mut()._room = Some(room);
        answer
    }

    /// Reads a body as far as it may go, or says why not.
    async fn body(&self, request: Request<Incoming>) -> Result<(Bytes, Share), Box<Answer>> {
        let mut body = request.into_body();
        if body.size_hint().lower() > BODY_MAX as u64 {
            return refuse(413, "Payload Too Large");
        }
        let mut room = self.budget.share();
        let mut taken = Vec::new();
        let reading = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return refuse(400, "the body is cut short") };
                let Ok(piece) = frame.into_data() else { continue };
                if taken.len() + piece.len() > BODY_MAX {
                    return refuse(413, "Payload Too Large");
                }
                if !room.grow(piece.len()) {
                    return refuse(503, "Service node is overloaded, try another");
                }
                taken.extend_from_slice(&piece);
            }
            Ok(())
        };
        timeout(BODY_PATIENCE, reading).await.unwrap_or_else(|_| refuse(408, "the body did not come in time"))?;
        Ok((taken.into(), room))
    }

    fn ping(&self) -> Answer {
        let key = self.peers.own().map_or(self.key, |own| own.legacy);
        let mut pong = answer(200, "text/plain", Bytes::new());
        if let Ok(value) = HeaderValue::from_str(&BASE64.encode(&key)) {
            pong.headers_mut().insert(PUBKEY_HEADER, value);
        }
        pong
    }
}

fn stats() -> Bytes {
    serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }).to_string().into()
}

fn refuse<T>(status: u16, words: &str) -> Result<T, Box<Answer>> {
    Err(Box::new(say(status, words)))
}

fn say(status: u16, words: &str) -> Answer {
    answer(status, TEXT, Bytes::copy_from_slice(words.as_bytes()))
}

fn answer(status: u16, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Paced { rest: body, _room: None });
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// An answer's body, given out piece by piece as the client takes it, so that its room is held until it is gone.
struct Paced {
    rest: Bytes,
    _room: Option<Share>,
}

impl hyper::body::Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
