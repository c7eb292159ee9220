//! Two ends of a stream on loopback: answers in any order, what is dropped, and what is bounded.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};

use ed25519_dalek::SigningKey;
use quinn::{ClientConfig, ServerConfig};

use super::super::tls::{Identity, Keys7250};
use super::super::{CLIENT_IDLE, CLIENTS, endpoint, tls, transport};
use super::*;

const SOON: Duration = Duration::from_secs(10);
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct End {
    connection: Connection,
    stream: RequestStream,
    commands: mpsc::Receiver<Box<Command>>,
    _endpoint: quinn::Endpoint,
}

/// Both ends of a connection and its first stream; the second end answers, and holds `budget` bytes.
async fn ends(budget: usize) -> (End, End) {
    let seed = [3; 32];
    let key = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    let accept = tls::server(&Identity::from_seed(&seed).unwrap(), &[(CLIENTS, Keys7250::Optional)]).unwrap();
    let mut accept = ServerConfig::with_crypto(accept);
    accept.transport_config(Arc::new(transport(CLIENT_IDLE, None)));
    let there = endpoint(ANYWHERE, Some(accept)).unwrap();
    let here = endpoint(ANYWHERE, None).unwrap();
    let mut dial = ClientConfig::new(tls::client(None, key, CLIENTS).unwrap());
    dial.transport_config(Arc::new(transport(CLIENT_IDLE, None)));
    let dialling = here.connect_with(dial, there.local_addr().unwrap(), tls::SERVER_NAME).unwrap();
    let accepting = async { there.accept().await.unwrap().await.unwrap() };
    let (near, far) = tokio::join!(async { dialling.await.unwrap() }, accepting);
    let (sender, commands) = mpsc::channel(8);
    let stream = RequestStream::open(&near, sender, &Budget::new(64 << 20)).await.unwrap();
    stream.push("hello", Bytes::new()).unwrap(); // a stream is seen when something comes on it
    let (send, recv) = far.accept_bi().await.unwrap();
    let (sender, arriving) = mpsc::channel(8);
    let other = RequestStream::over(&far, send, recv, sender, &Budget::new(budget));
    let near = End { connection: near, stream, commands, _endpoint: here };
    let mut far = End { connection: far, stream: other, commands: arriving, _endpoint: there };
    assert_eq!(far.commands.recv().await.unwrap().endpoint, "hello");
    (near, far)
}

#[tokio::test]
async fn answers_come_in_any_order_and_both_ways() {
    let (mut near, mut far) = ends(64 << 20).await;
    let answering = async {
        let first = far.commands.recv().await.unwrap();
        let second = far.commands.recv().await.unwrap();
        second.answer.give(Ok("second".into())).await;
        first.answer.give(Err("first".into())).await;
    };
    let (one, two, ()) = tokio::join!(
        near.stream.request("a", Bytes::new(), SOON),
        near.stream.request("b", Bytes::new(), SOON),
        answering
    );
    assert_eq!((one, two), (Err(RequestError::Refused("first".into())), Ok("second".into())));
    let asked_back = async { near.commands.recv().await.unwrap().answer.give(Ok("me too".into())).await };
    let (back, ()) = tokio::join!(far.stream.request("c", Bytes::new(), SOON), asked_back);
    assert_eq!(back, Ok("me too".into()));
    assert_eq!(near.stream.outstanding(), 0);
}

#[tokio::test]
async fn an_answer_that_is_late_or_for_nobody_is_not_heard() {
    let (near, mut far) = ends(64 << 20).await;
    let late = near.stream.request("slow", Bytes::new(), Duration::from_millis(50)).await;
    assert_eq!(late, Err(RequestError::Timeout));
    far.commands.recv().await.unwrap().answer.give(Ok("late".into())).await;
    let answering = async { far.commands.recv().await.unwrap().answer.give(Ok("mine".into())).await };
    let (answer, ()) = tokio::join!(near.stream.request("next", Bytes::new(), SOON), answering);
    assert_eq!(answer, Ok("mine".into()));
}

#[tokio::test]
async fn who_waits_is_told_that_the_connection_ended() {
    let (near, mut far) = ends(64 << 20).await;
    let ending = async {
        let _unanswered = far.commands.recv().await.unwrap();
        far.connection.close(code::GOODBYE, b"");
    };
    let (answer, ()) = tokio::join!(near.stream.request("a", Bytes::new(), SOON), ending);
    assert_eq!(answer, Err(RequestError::Closed));
    near.connection.closed().await;
    assert_eq!(near.stream.request("b", Bytes::new(), SOON).await, Err(RequestError::Closed));
}

#[tokio::test]
async fn ten_megabytes_pass_and_a_byte_more_does_not_leave() {
    let (near, mut far) = ends(64 << 20).await;
    let body = Bytes::from(vec![7; 9_999_900]);
    let echoing = async {
        let command = far.commands.recv().await.unwrap();
        command.answer.give(Ok(command.body)).await;
    };
    let (answer, ()) = tokio::join!(near.stream.request("echo", body.clone(), SOON), echoing);
    assert_eq!(answer, Ok(body));
    let long = near.stream.request("echo", vec![7; FRAME_MAX].into(), SOON).await;
    assert_eq!(long, Err(RequestError::TooLong));
}

#[tokio::test]
async fn who_brings_more_than_there_is_room_for_loses_his_stream() {
    let (near, mut far) = ends(1 << 20).await;
    let answer = near.stream.request("big", vec![7; 2 << 20].into(), SOON).await;
    assert_eq!(answer, Err(RequestError::Closed));
    assert!(far.commands.try_recv().is_err(), "nothing of it reached anybody");
    assert!(near.connection.close_reason().is_none(), "the connection lives");
}

#[tokio::test]
async fn room_is_given_back_when_an_answer_is_written() {
    let (near, mut far) = ends(1 << 20).await;
    let answering = async {
        for _ in 0..8 {
            let command = far.commands.recv().await.unwrap();
            command.answer.give(Ok(command.body)).await;
        }
    };
    let asking = async {
        for _ in 0..8 {
            near.stream.request("echo", vec![7; 400 << 10].into(), SOON).await.unwrap();
        }
    };
    tokio::join!(answering, asking);
}

#[tokio::test]
async fn pushes_to_who_does_not_read_do_not_pile_up() {
    let (near, _far) = ends(64 << 20).await;
    // The far end's program takes none of its commands, so its stream stops reading, and then ours writing.
    let piece = Bytes::from(vec![7; 100_000]);
    let pushed = (0..1000).take_while(|_| near.stream.push("notify", piece.clone()).is_ok()).count();
    assert!(pushed * piece.len() <= PUSHES_MAX, "{pushed} pushes wait");
}
