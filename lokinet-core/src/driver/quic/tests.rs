//! Two endpoints on the loopback, as a user or an attacker would see them. Neighbours: `quic` and `tls`, tested here
//! through quinn's own sockets; `socket` has its own tests.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use quinn::Runtime;

struct End {
    quic: Quic,
    happened: mpsc::Receiver<Happened>,
    addr: SocketAddr,
    id: RelayId,
}

impl End {
    fn new(seed: Option<u8>, offers: &'static [Suite]) -> End {
        End::at("127.0.0.1:0".parse().unwrap(), seed, offers)
    }

    fn at(addr: SocketAddr, seed: Option<u8>, offers: &'static [Suite]) -> End {
        let socket = std::net::UdpSocket::bind(addr).unwrap();
        let addr = socket.local_addr().unwrap();
        let socket = TokioRuntime.wrap_udp_socket(socket).unwrap();
        let identity = seed.map(|seed| Identity::from_seed(&[seed; 32]).unwrap());
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed.unwrap_or(0); 32]);
        let seed = seed.map(|seed| Zeroizing::new([seed; 32]));
        let (quic, happened) = Quic::new(vec![socket], identity, seed, offers).unwrap();
        End { quic, happened, addr, id: RelayId(key.verifying_key().to_bytes()) }
    }

    /// What the node would be told next.
    async fn told(&mut self) -> Input<'static> {
        loop {
            let happened = timeout(Duration::from_secs(20), self.happened.recv()).await.unwrap().unwrap();
            if let Some(input) = self.quic.take(happened) {
                return input;
            }
        }
    }

    async fn up(&mut self) -> LinkUp {
        match self.told().await {
            Input::LinkUp(up) => up,
            _ => panic!("a link should have come up"),
        }
    }

    async fn asked(&mut self) -> (Ticket, Bytes) {
        match self.told().await {
            Input::Request { ticket, body, .. } => (ticket, body),
            _ => panic!("a request should have come"),
        }
    }

    async fn replied(&mut self) -> (Ticket, Result<Bytes, NoReply>) {
        match self.told().await {
            Input::Reply { ticket, result } => (ticket, result),
            _ => panic!("a reply should have come"),
        }
    }
}

async fn linked(key: LinkKey) -> (End, LinkUp, End, LinkUp) {
    let mut a = End::new(Some(1), tls::suites());
    let mut b = End::new(Some(2), tls::suites());
    a.quic.dial(DialId(7), b.id, vec![b.addr], key);
    let (up_a, up_b) = (a.up().await, b.up().await);
    (a, up_a, b, up_b)
}

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn both_sides_see_the_other_key_and_the_same_secret() {
    let (a, up_a, b, up_b) = linked(LinkKey::Identity).await;
    assert!(up_a.peer == b.id && up_b.peer == a.id);
    assert_eq!(up_a.exporter, up_b.exporter);
    assert_ne!(*up_a.exporter, [0; 32]);
    assert_eq!((up_a.role, up_b.role), (Role::Initiator, Role::Responder));
    assert_eq!((up_a.dial, up_b.dial), (Some(DialId(7)), None));
    assert_eq!((up_a.remote, up_b.remote), (b.addr, a.addr));
    assert_eq!(up_a.suite, up_b.suite);
}

#[tokio::test]
async fn throwaway_keys_are_new_each_time() {
    let (mut a, _, mut b, first) = linked(LinkKey::Throwaway).await;
    a.quic.dial(DialId(8), b.id, vec![b.addr], LinkKey::Throwaway);
    let second = b.up().await;
    assert!(a.up().await.peer == b.id);
    assert!(first.peer != a.id && second.peer != a.id && first.peer != second.peer);
    assert_ne!(first.exporter, second.exporter);
}

#[tokio::test]
async fn a_relay_with_another_key_is_refused() {
    let mut a = End::new(None, tls::suites());
    let mut b = End::new(Some(2), tls::suites());
    a.quic.dial(DialId(1), RelayId([9; 32]), vec![b.addr], LinkKey::Throwaway);
    assert!(matches!(a.told().await, Input::DialFailed { dial: DialId(1) }));
    assert!(b.happened.try_recv().is_err(), "the refused relay must not believe in a link");
}

#[tokio::test]
async fn the_second_address_is_tried_when_the_first_fails() {
    let (mut a, mut b, mut other) =
        (End::new(None, tls::suites()), End::new(Some(2), tls::suites()), End::new(Some(3), tls::suites()));
    let unreachable = "[::1]:1".parse().unwrap(); // no socket of that family
    a.quic.dial(DialId(1), b.id, vec![unreachable, other.addr, b.addr], LinkKey::Throwaway);
    assert_eq!(a.up().await.remote, b.addr);
    b.up().await;
    assert!(other.happened.try_recv().is_err());
}

#[tokio::test]
async fn a_dial_without_addresses_or_identity_fails_once() {
    let mut a = End::new(None, tls::suites());
    let b = End::new(Some(2), tls::suites());
    a.quic.dial(DialId(1), b.id, vec![], LinkKey::Throwaway);
    assert!(matches!(a.told().await, Input::DialFailed { dial: DialId(1) }));
    a.quic.dial(DialId(2), b.id, vec![b.addr], LinkKey::Identity);
    assert!(matches!(a.told().await, Input::DialFailed { dial: DialId(2) }));
    assert!(a.happened.try_recv().is_err());
}

#[tokio::test]
async fn without_the_post_quantum_half_there_is_no_link() {
    let mut b = End::new(Some(2), tls::suites());
    let identity = Identity::throwaway().unwrap();
    let crypto = tls::classical_client(&identity, b.id).unwrap();
    let config = ClientConfig::new(Arc::new(crypto));
    let old = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = old.connect_with(config, b.addr, "relay").unwrap().await;
    assert!(matches!(refused, Err(ConnectionError::ConnectionClosed(_))));
    assert!(b.happened.try_recv().is_err());
}

#[tokio::test]
async fn alpn_settles_the_suite_by_the_relays_preference() {
    let both: &'static [Suite] = &[Suite::Aes, Suite::ChaCha];
    let slow: &'static [Suite] = &[Suite::ChaCha];
    for (client, relay, expected) in
        [(both, both, Suite::Aes), (slow, both, Suite::ChaCha), (both, slow, Suite::ChaCha)]
    {
        let (mut a, mut b) = (End::new(None, client), End::new(Some(2), relay));
        a.quic.dial(DialId(1), b.id, vec![b.addr], LinkKey::Throwaway);
        assert_eq!((a.up().await.suite, b.up().await.suite), (expected, expected));
    }
}

#[tokio::test]
async fn requests_go_both_ways_and_each_gets_its_own_reply() {
    let (mut a, up_a, mut b, up_b) = linked(LinkKey::Throwaway).await;
    a.quic.request(up_a.link, Ticket(1), Bytes::from(vec![1; REQUEST_MAX]), PATIENCE);
    let (ticket, body) = b.asked().await;
    assert_eq!(body, vec![1; REQUEST_MAX]);
    b.quic.answer(ticket, Some(Bytes::from(vec![2; REPLY_MAX])));
    assert_eq!(a.replied().await, (Ticket(1), Ok(Bytes::from(vec![2; REPLY_MAX]))));

    b.quic.request(up_b.link, Ticket(1), Bytes::from_static(b"back"), PATIENCE);
    let (ticket, body) = a.asked().await;
    assert_eq!(body, "back");
    a.quic.answer(ticket, Some(Bytes::from(vec![3; REPLY_MAX])));
    assert_eq!(b.replied().await, (Ticket(1), Ok(Bytes::from(vec![3; REPLY_MAX]))));
    assert_eq!((a.quic.asking(), b.quic.asking()), (0, 0));
}

/// To say that there is nothing is an answer, and no refusal: names that nobody has are denied by it.
#[tokio::test]
async fn an_empty_reply_is_a_reply() {
    let (mut a, up_a, mut b, _) = linked(LinkKey::Throwaway).await;
    a.quic.request(up_a.link, Ticket(1), Bytes::from_static(b"have you any?"), PATIENCE);
    let (ticket, _) = b.asked().await;
    b.quic.answer(ticket, Some(Bytes::new()));
    assert_eq!(a.replied().await, (Ticket(1), Ok(Bytes::new())));
}

#[tokio::test]
async fn refusal_and_oversize_end_as_refused() {
    let (mut a, up_a, mut b, _) = linked(LinkKey::Throwaway).await;
    a.quic.request(up_a.link, Ticket(1), Bytes::from_static(b"no?"), PATIENCE);
    let (ticket, _) = b.asked().await;
    b.quic.answer(ticket, None);
    assert_eq!(a.replied().await, (Ticket(1), Err(NoReply::Refused)));

    a.quic.request(up_a.link, Ticket(2), Bytes::from(vec![0; REQUEST_MAX + 1]), PATIENCE);
    assert_eq!(a.replied().await, (Ticket(2), Err(NoReply::Refused)));
    assert!(b.happened.try_recv().is_err(), "the oversized request must not reach the node");
}

#[tokio::test]
async fn silence_ends_as_timed_out_once() {
    let (mut a, up_a, mut b, _) = linked(LinkKey::Throwaway).await;
    a.quic.request(up_a.link, Ticket(1), Bytes::from_static(b"hello?"), Duration::from_millis(200));
    let (ticket, _) = b.asked().await;
    assert_eq!(a.replied().await, (Ticket(1), Err(NoReply::TimedOut)));
    b.quic.answer(ticket, Some(Bytes::from_static(b"too late")));
    // The next exchange is undisturbed, and nothing else was told about the first.
    a.quic.request(up_a.link, Ticket(2), Bytes::from_static(b"again"), PATIENCE);
    let (ticket, _) = b.asked().await;
    b.quic.answer(ticket, Some(Bytes::from_static(b"yes")));
    assert_eq!(a.replied().await, (Ticket(2), Ok(Bytes::from_static(b"yes"))));
}

#[tokio::test]
async fn a_dying_peer_ends_every_request_once_and_the_link_once() {
    let (mut a, up_a, mut b, up_b) = linked(LinkKey::Throwaway).await;
    for ticket in 1..=200 {
        // more than may be open at once: some still wait for a stream
        a.quic.request(up_a.link, Ticket(ticket), Bytes::from_static(b"?"), PATIENCE);
    }
    b.asked().await;
    b.quic.hangup(up_b.link);
    let (mut replies, mut downs) = (Vec::new(), 0);
    while replies.len() < 200 || downs < 1 {
        match a.told().await {
            Input::Reply { ticket, result } => {
                assert_eq!(result, Err(NoReply::LinkLost));
                replies.push(ticket.0);
            }
            Input::LinkDown { link } => {
                assert_eq!(link, up_a.link);
                downs += 1;
            }
            _ => panic!("nothing else happens"),
        }
    }
    replies.sort_unstable();
    assert_eq!(replies, (1..=200).collect::<Vec<_>>());
    a.quic.request(up_a.link, Ticket(201), Bytes::from_static(b"?"), PATIENCE);
    assert_eq!(a.replied().await, (Ticket(201), Err(NoReply::LinkLost)));
    assert!(a.happened.try_recv().is_err());
}

#[tokio::test]
async fn under_load_a_stranger_must_show_its_address_and_still_gets_in() {
    let (mut a, mut b) = (End::new(None, tls::suites()), End::new(Some(2), tls::suites()));
    let _load = Share::take(&b.quic.desk.handshakes, RETRY_ABOVE, HANDSHAKES_OPEN).unwrap();
    a.quic.dial(DialId(1), b.id, vec![b.addr], LinkKey::Throwaway);
    a.up().await;
    b.up().await;
    assert_eq!(b.quic.strangers(), (1, 0));
}

#[tokio::test]
async fn without_load_nobody_is_asked_and_without_room_nobody_gets_in() {
    let (mut a, _, mut b, _) = linked(LinkKey::Throwaway).await;
    assert_eq!(b.quic.strangers(), (0, 0));
    let full: Vec<Seat> = std::iter::from_fn(|| b.quic.desk.seats.take(a.addr.ip())).collect();
    assert!(full.len() > 16 && b.quic.desk.seats.take("192.0.2.1".parse().unwrap()).is_some(), "one place, not all");
    a.quic.dial(DialId(8), b.id, vec![b.addr], LinkKey::Throwaway);
    assert!(matches!(a.told().await, Input::DialFailed { dial: DialId(8) }));
    assert_eq!(b.quic.strangers(), (0, 1));
    drop(full);
    a.quic.dial(DialId(9), b.id, vec![b.addr], LinkKey::Throwaway);
    assert_eq!(a.up().await.dial, Some(DialId(9)));
    b.up().await;
}

#[tokio::test]
async fn a_client_that_moves_is_believed_after_a_while() {
    let (mut a, up_a, mut b, up_b) = linked(LinkKey::Throwaway).await;
    let at = |seconds: u64| Time::from_nanos(seconds * 1_000_000_000);
    assert!(b.quic.moved(at(1)).is_empty());
    let elsewhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let new = elsewhere.local_addr().unwrap();
    a.quic.endpoints[0].rebind(elsewhere).unwrap();
    a.quic.request(up_a.link, Ticket(1), Bytes::from_static(b"from elsewhere"), PATIENCE);
    let (ticket, _) = b.asked().await;
    b.quic.answer(ticket, Some(Bytes::from_static(b"seen")));
    assert_eq!(a.replied().await, (Ticket(1), Ok(Bytes::from_static(b"seen"))));

    assert!(b.quic.moved(at(10)).is_empty() && b.quic.moved(at(13)).is_empty(), "not yet");
    assert_eq!(
        b.quic.routes().to(a.addr).map(|route| route.link),
        Some(up_b.link),
        "cells still go to the old address"
    );
    assert_eq!(b.quic.moved(at(14)), [(up_b.link, new)]);
    assert_eq!(b.quic.routes().to(new).map(|route| route.link), Some(up_b.link));
    assert_ne!(b.quic.routes().to(a.addr).map(|route| route.link), Some(up_b.link));
    assert!(b.quic.moved(at(20)).is_empty(), "told once");
    assert!(!a.quic.may_move() && b.quic.may_move());
}

/// An endpoint with a runtime of its own, so that it can be killed: with that, everything it still wants to say is gone.
struct Life {
    end: End,
    inside: tokio::runtime::Handle,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Life {
    fn at(addr: SocketAddr, seed: u8) -> Life {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let end = {
            let _inside = runtime.enter();
            End::at(addr, Some(seed), tls::suites())
        };
        let inside = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || drop(runtime.block_on(stopped)));
        Life { end, inside, stop, thread }
    }

    fn kill(self) -> SocketAddr {
        let Life { end, stop, thread, .. } = self;
        stop.send(()).unwrap();
        thread.join().unwrap();
        end.addr
    }
}

/// Whoever speaks to a relay that was killed and started again, dialler or dialled, learns at once that it forgot.
#[tokio::test]
async fn a_relay_that_starts_again_says_that_it_forgot() {
    let any = "127.0.0.1:0".parse().unwrap();
    for dialler_dies in [false, true] {
        let (mut a, mut b) = (Life::at(any, 1), Life::at(any, 2));
        let inside = a.inside.enter();
        a.end.quic.dial(DialId(7), b.end.id, vec![b.end.addr], LinkKey::Identity);
        drop(inside);
        let (up_a, up_b) = (a.end.up().await, b.end.up().await);
        // What comes after the handshake has come, the dialled side knows the dialler's reset, too.
        a.end.quic.request(up_a.link, Ticket(1), Bytes::from_static(b"hello"), PATIENCE);
        let (ticket, body) = b.end.asked().await;
        b.end.quic.answer(ticket, Some(body));
        assert!(a.end.replied().await.1.is_ok());
        let (dying, seed, mut left, link) = if dialler_dies { (a, 1, b, up_b.link) } else { (b, 2, a, up_a.link) };
        let _again = Life::at(dying.kill(), seed);
        let began = Instant::now();
        left.end.quic.request(link, Ticket(2), Bytes::from_static(b"are you there?"), PATIENCE);
        let (mut lost, mut down) = (false, false);
        while !(lost && down) {
            match left.end.told().await {
                Input::Reply { ticket: Ticket(2), result } => lost = result == Err(NoReply::LinkLost),
                Input::LinkDown { link: which } => down = which == link,
                _ => panic!("what else is there to tell?"),
            }
        }
        assert!(began.elapsed() < Duration::from_secs(5), "only its silence told, {dialler_dies}");
    }
}
