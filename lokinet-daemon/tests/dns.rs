//! The resolver as programs and other resolvers meet it: real sockets on loopback, hickory as the client's eyes (and
//! dig's, where it is installed). What answers for names of ours is the core's own decision, or a script.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking, and say what they leave out")]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, HTTPS};
use hickory_proto::rr::{Name, RData, Record as WireRecord, RecordType};
use lokinet_core::flow::dns::{Step, View, decide};
use lokinet_core::flow::lease::{Leases, Range};
use lokinet_core::flow::question::{Answer, Code, Data, Question, Record};
use lokinet_core::wire::address::LokiAddress;
use lokinet_daemon::dns::{Answerer, bind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const OWN: LokiAddress = LokiAddress([7; 32]);
const ANY_PORT: &str = "127.0.0.1:0";

fn range() -> Range {
    Range::new(Ipv4Addr::new(172, 16, 0, 1), 16, Some("fd00::".parse().unwrap())).unwrap()
}

type Script = dyn Fn(Question) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

#[derive(Clone)]
struct Node(Arc<Script>);

impl Answerer for Node {
    fn answer(&self, question: Question) -> impl Future<Output = Answer> + Send {
        (self.0)(question)
    }
}

/// A node that decides as the core does, for what needs no session.
fn node() -> Node {
    Node(Arc::new(|question| {
        let leases = Leases::new(range());
        let view = View { own: OWN, range: range(), netid: "lokinet", leases: &leases, srv: &[] };
        let answer = match decide(&question, &view) {
            Step::Answer(answer) => answer,
            Step::Lookup(_) => Answer::empty(Code::NxDomain),
        };
        Box::pin(async { answer })
    }))
}

/// A node that answers one name only when it is let go, and counts how often it was asked for it.
fn slow_node() -> (Node, Arc<AtomicUsize>, Arc<Semaphore>) {
    let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (count, open) = (asked.clone(), gate.clone());
    let node = Node(Arc::new(move |question| {
        let (count, open) = (count.clone(), open.clone());
        Box::pin(async move {
            if question.name.ends_with("slow.loki") {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = open.acquire().await.unwrap();
            }
            Answer::empty(Code::NoError)
        })
    }));
    (node, asked, gate)
}

async fn serve(node: Node, upstream: &[SocketAddr]) -> SocketAddr {
    let bound = bind(&[ANY_PORT.parse().unwrap()]).await.unwrap();
    let local = bound.local()[0];
    tokio::spawn(bound.serve(node, Some(range()), upstream.to_vec(), None));
    local
}

fn query(id: u16, name: &str, of: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), of));
    message
}

fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

/// A UDP client; replies come from nobody but the server.
struct Client(UdpSocket);

impl Client {
    async fn new(server: SocketAddr) -> Client {
        let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
        socket.connect(server).await.unwrap();
        Client(socket)
    }

    async fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).await.unwrap();
    }

    async fn receive(&self) -> Message {
        let mut bytes = [0; 65535];
        let length = timeout(PATIENCE, self.0.recv(&mut bytes)).await.expect("no reply").unwrap();
        Message::from_vec(&bytes[..length]).unwrap()
    }

    async fn ask(&self, query: &Message) -> Message {
        self.send(&query.to_vec().unwrap()).await;
        let reply = self.receive().await;
        assert_eq!(reply.metadata.id, query.metadata.id);
        assert_eq!(reply.metadata.message_type, MessageType::Response);
        reply
    }
}

async fn ask(server: SocketAddr, name: &str, of: RecordType) -> Message {
    Client::new(server).await.ask(&query(77, name, of)).await
}

async fn send_framed(stream: &mut TcpStream, message: &Message) {
    let bytes = message.to_vec().unwrap();
    stream.write_all(&(bytes.len() as u16).to_be_bytes()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
}

async fn receive_framed(stream: &mut TcpStream) -> Message {
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        Message::from_vec(&bytes).unwrap()
    };
    timeout(PATIENCE, read).await.expect("no reply")
}

async fn ask_by_tcp(server: SocketAddr, name: &str, of: RecordType) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    send_framed(&mut stream, &query(78, name, of)).await;
    receive_framed(&mut stream).await
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

/// Another resolver: says what it is told to about each query, by UDP, and remembers what it was asked.
struct Other {
    local: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

async fn other<S, F>(script: S) -> Other
where
    S: Fn(Message, Arc<UdpSocket>, SocketAddr) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    // An address that no other test binds: its port is free for TCP, too.
    let socket = Arc::new(UdpSocket::bind("127.0.0.5:0").await.unwrap());
    let local = socket.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
            log.lock().unwrap().push(bytes[..length].to_vec());
            script(Message::from_vec(&bytes[..length]).unwrap(), socket.clone(), from).await;
        }
    });
    Other { local, heard }
}

fn reply(query: &Message, data: RData) -> Message {
    let mut message = query.clone().into_response();
    message.metadata.recursion_available = true;
    message.add_answer(WireRecord::from_rdata(query.queries[0].name().clone(), 300, data));
    message
}

fn address(text: &str) -> RData {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// A resolver that says the same address of every name.
async fn other_that_says(answer: RData) -> Other {
    other(move |query, socket, from| {
        let bytes = reply(&query, answer.clone()).to_vec().unwrap();
        async move {
            socket.send_to(&bytes, from).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn localhost_loki_is_two_lines_the_alias_and_the_address() {
    let server = serve(node(), &[]).await;
    let reply = ask(server, "localhost.loki.", RecordType::A).await;
    assert_eq!(data(&reply), [format!("{OWN}."), "172.16.0.1".into()]);
    assert_eq!(reply.answers[0].record_type(), RecordType::CNAME);
    assert_eq!(reply.answers[1].name.to_ascii(), format!("{OWN}."));
    let flags = reply.metadata;
    assert!(flags.authoritative && flags.recursion_available && flags.recursion_desired && !flags.truncation);
    assert!(reply.edns.is_none(), "who does not speak EDNS is not spoken to in it");
    assert!(reply.answers.iter().all(|record| record.ttl == 1));

    let Ok(version) = Command::new("dig").arg("-v").output() else {
        println!("left out: dig is not installed");
        return;
    };
    assert!(version.status.success());
    let port = server.port().to_string();
    let dig = move |more: &[&str]| {
        let output = Command::new("dig").args(["@127.0.0.1", "-p", &port, "+short"]).args(more).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = tokio::task::spawn_blocking(move || {
        [dig(&["localhost.loki"]), dig(&["+tcp", "localhost.loki"]), dig(&["-t", "cname", "localhost.loki"])]
    });
    let both = format!("{OWN}.\n172.16.0.1\n");
    assert_eq!(lines.await.unwrap(), [both.clone(), both, format!("{OWN}.\n")]);
}

#[tokio::test]
async fn edns_is_answered_in_kind_and_letters_keep_their_case() {
    let server = serve(node(), &[]).await;
    let query = with_edns(query(1, "LoCaLhOsT.lOkI.", RecordType::A), 4096);
    let reply = Client::new(server).await.ask(&query).await;
    assert_eq!(reply.edns.as_ref().unwrap().max_payload(), 1232);
    let asked = query.queries[0].name();
    assert!(reply.queries[0].name().eq_case(asked) && reply.answers[0].name.eq_case(asked));
    assert_eq!(data(&reply).len(), 2);
}

#[tokio::test]
async fn nothing_is_said_with_authority_and_for_a_second() {
    let server = serve(node(), &[]).await;
    for (name, expected) in [("nobody.loki.", ResponseCode::NXDomain), ("localhost.loki.", ResponseCode::NoError)] {
        let reply = ask(server, name, RecordType::TXT).await;
        assert_eq!(code(&reply), expected);
        let RData::SOA(soa) = &reply.authorities[0].data else { panic!("no SOA") };
        let soa_name = reply.authorities[0].name.to_ascii();
        assert_eq!((soa_name.as_str(), soa.minimum, reply.authorities[0].ttl), ("loki.", 1, 1));
    }
    let reply = ask(server, "x.snode.", RecordType::A).await;
    assert_eq!(reply.authorities[0].name.to_ascii(), "snode.");
}

#[tokio::test]
async fn tcp_answers_in_the_order_in_which_answers_are_ready() {
    let (node, _, gate) = slow_node();
    let server = serve(node, &[]).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    send_framed(&mut stream, &query(1, "slow.loki.", RecordType::A)).await;
    send_framed(&mut stream, &query(2, "quick.loki.", RecordType::A)).await;
    stream.shutdown().await.unwrap(); // what was asked is answered all the same
    assert_eq!(receive_framed(&mut stream).await.metadata.id, 2);
    gate.add_permits(1);
    assert_eq!(receive_framed(&mut stream).await.metadata.id, 1);
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap(), 0, "and then it is closed");
}

#[tokio::test]
async fn an_impatient_client_asks_the_node_once() {
    let (node, asked, gate) = slow_node();
    let server = serve(node, &[]).await;
    let client = Client::new(server).await;
    let slow = query(5, "slow.loki.", RecordType::A);
    for _ in 0..3 {
        client.send(&slow.to_vec().unwrap()).await;
    }
    // Datagrams on loopback keep their order: after this reply, all before it have been seen.
    assert_eq!(client.ask(&query(6, "quick.loki.", RecordType::A)).await.metadata.id, 6);
    gate.add_permits(9);
    assert_eq!(client.receive().await.metadata.id, 5);
    assert_eq!(client.ask(&query(7, "quick.loki.", RecordType::A)).await.metadata.id, 7, "one reply, not three");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Answered and asked again, it is a new question.
    assert_eq!(client.ask(&slow).await.metadata.id, 5);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn too_many_open_questions_are_refused_at_once() {
    let (node, asked, _gate) = slow_node();
    let server = serve(node, &[]).await;
    let client = Client::new(server).await;
    for id in 0..5000 {
        client.send(&query(id, "slow.loki.", RecordType::A).to_vec().unwrap()).await;
        tokio::task::yield_now().await;
        if asked.load(Ordering::SeqCst) == 1024 {
            break;
        }
    }
    let reply = client.ask(&query(9999, "slow.loki.", RecordType::A)).await;
    assert_eq!(code(&reply), ResponseCode::ServFail);
    assert_eq!(asked.load(Ordering::SeqCst), 1024);
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_sends_the_client_to_tcp() {
    let long = Node(Arc::new(|question| {
        let record = |n| Record { name: question.name.clone(), ttl: 1, data: Data::Txt(format!("{n:0>60}")) };
        let records = (0..30).map(record).collect();
        Box::pin(async { Answer { code: Code::NoError, records } })
    }));
    let server = serve(long, &[]).await;
    let client = Client::new(server).await;
    for small in [query(1, "a.loki.", RecordType::TXT), with_edns(query(2, "a.loki.", RecordType::TXT), 1000)] {
        let reply = client.ask(&small).await;
        assert!(reply.metadata.truncation && reply.answers.is_empty());
    }
    let reply = client.ask(&with_edns(query(3, "a.loki.", RecordType::TXT), 4096)).await;
    assert!(!reply.metadata.truncation && reply.answers.len() == 30);
    let reply = ask_by_tcp(server, "a.loki.", RecordType::TXT).await;
    assert!(!reply.metadata.truncation && reply.answers.len() == 30);
}

#[tokio::test]
async fn other_names_are_forwarded_as_they_came_and_ours_never_are() {
    let upstream = other_that_says(address("93.184.216.34")).await;
    let server = serve(node(), &[upstream.local]).await;
    let ours = [
        "nobody.loki.",
        "NOBODY.LOKI.",
        "loki.",
        "x.snode.",
        "7.0.16.172.in-addr.arpa.",
        "7.0.0.0.0.1.c.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
        "use-application-dns.net.",
    ];
    for name in ours {
        let reply = ask(server, name, RecordType::PTR).await;
        assert_eq!(code(&reply), ResponseCode::NXDomain, "{name}");
        let reply = ask_by_tcp(server, name, RecordType::A).await;
        assert!(reply.answers.is_empty(), "{name}");
    }
    let client = Client::new(server).await;
    let public = with_edns(query(0xbeef, "WwW.example.com.", RecordType::A), 1400);
    let reply = client.ask(&public).await;
    assert_eq!(data(&reply), ["93.184.216.34"]);
    assert!(!reply.metadata.authoritative);
    client.ask(&query(2, "7.0.17.172.in-addr.arpa.", RecordType::PTR)).await;
    let heard = upstream.heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 2, "the public name, and the reverse name outside of our range");
    assert_eq!(heard[0][2..], public.to_vec().unwrap()[2..], "byte for byte, but for the number");
}

#[tokio::test]
async fn numbers_and_ports_of_forwarded_questions_are_by_chance() {
    let ports = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let seen = ports.clone();
    let upstream = other(move |query, socket, from| {
        seen.lock().unwrap().insert((query.metadata.id, from.port()));
        let bytes = reply(&query, address("1.2.3.4")).to_vec().unwrap();
        async move {
            socket.send_to(&bytes, from).await.unwrap();
        }
    })
    .await;
    let server = serve(node(), &[upstream.local]).await;
    let client = Client::new(server).await;
    for _ in 0..16 {
        client.ask(&query(1, "example.com.", RecordType::A)).await;
    }
    let ports = ports.lock().unwrap();
    let ids: std::collections::BTreeSet<u16> = ports.iter().map(|(id, _)| *id).collect();
    let ports: std::collections::BTreeSet<u16> = ports.iter().map(|(_, port)| *port).collect();
    assert!(ids.len() > 8 && ports.len() > 8, "{ids:?} {ports:?}");
}

#[tokio::test]
async fn forged_replies_are_not_heard() {
    let upstream = other(|query, socket, from| async move {
        let forged = reply(&query, address("6.6.6.6"));
        let mut wrong_id = forged.clone();
        wrong_id.metadata.id ^= 1;
        socket.send_to(&wrong_id.to_vec().unwrap(), from).await.unwrap();
        let mut wrong_name = forged.clone();
        wrong_name.queries[0].set_name(Name::from_ascii("bank.example.").unwrap());
        socket.send_to(&wrong_name.to_vec().unwrap(), from).await.unwrap();
        let mut no_reply = forged.clone();
        no_reply.metadata.message_type = MessageType::Query;
        socket.send_to(&no_reply.to_vec().unwrap(), from).await.unwrap();
        let somebody = UdpSocket::bind("127.0.0.5:0").await.unwrap();
        somebody.send_to(&forged.to_vec().unwrap(), from).await.unwrap();
        socket.send_to(b"garbage", from).await.unwrap();
        socket.send_to(&reply(&query, address("1.2.3.4")).to_vec().unwrap(), from).await.unwrap();
    })
    .await;
    let server = serve(node(), &[upstream.local]).await;
    let reply = ask(server, "example.com.", RecordType::A).await;
    assert_eq!(data(&reply), ["1.2.3.4"]);
}

#[tokio::test]
async fn a_public_name_may_not_point_into_our_range() {
    let hint = |key, value| RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), vec![(key, value)])));
    let v4 = hint(SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(172, 16, 9, 9)])));
    let v6: AAAA = AAAA("fd00::ac10:909".parse().unwrap());
    let v6 = hint(SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(vec![v6])));
    let ours = [address("172.16.9.9"), address("fd00::ac10:909"), address("::ffff:172.16.9.9"), v4, v6];
    for answer in ours {
        let upstream = other_that_says(answer.clone()).await;
        let server = serve(node(), &[upstream.local]).await;
        let reply = ask(server, "evil.example.", answer.record_type()).await;
        assert_eq!((code(&reply), reply.answers.len()), (ResponseCode::ServFail, 0), "{answer}");
        assert_eq!(upstream.heard.lock().unwrap().len(), 1, "and it is not asked again");
    }
    for answer in [address("172.17.9.9"), address("fd00::ac11:909")] {
        let upstream = other_that_says(answer.clone()).await;
        let server = serve(node(), &[upstream.local]).await;
        assert_eq!(data(&ask(server, "lan.example.", answer.record_type()).await), [answer.to_string()]);
    }
}

#[tokio::test]
async fn a_truncated_reply_sends_the_client_to_tcp_and_there_the_whole_comes() {
    let upstream = other(|query, socket, from| async move {
        let mut message = reply(&query, address("6.6.6.6"));
        message.metadata.truncation = true;
        socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
    })
    .await;
    let listener = TcpListener::bind(upstream.local).await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let query = receive_framed(&mut stream).await;
        send_framed(&mut stream, &reply(&query, address("1.2.3.4"))).await;
    });
    let server = serve(node(), &[upstream.local]).await;
    let reply = ask(server, "example.com.", RecordType::A).await;
    assert!(reply.metadata.truncation && reply.answers.is_empty());
    let reply = ask_by_tcp(server, "example.com.", RecordType::A).await;
    assert_eq!((reply.metadata.id, data(&reply)), (78, vec!["1.2.3.4".to_string()]));
}

#[tokio::test]
async fn without_a_resolver_other_names_are_refused_at_once() {
    let server = serve(node(), &[]).await;
    assert_eq!(code(&ask(server, "example.com.", RecordType::A).await), ResponseCode::Refused);
    assert_eq!(code(&ask_by_tcp(server, "example.com.", RecordType::A).await), ResponseCode::Refused);
}

#[tokio::test]
async fn a_resolver_that_is_gone_or_silent_is_passed_over() {
    // Connected elsewhere: to everybody else its port is closed, and nobody takes it meanwhile.
    let holder = UdpSocket::bind(ANY_PORT).await.unwrap();
    holder.connect("127.0.0.1:9").await.unwrap();
    let gone = holder.local_addr().unwrap();
    let silent = other(|_, _, _| async {}).await;
    let good = other_that_says(address("1.2.3.4")).await;
    let server = serve(node(), &[gone, silent.local, good.local]).await;
    assert_eq!(data(&ask(server, "example.com.", RecordType::A).await), ["1.2.3.4"]);
    let server = serve(node(), &[gone]).await;
    assert_eq!(code(&ask(server, "example.com.", RecordType::A).await), ResponseCode::ServFail);
    assert_eq!(code(&ask_by_tcp(server, "example.com.", RecordType::A).await), ResponseCode::ServFail);
}

#[tokio::test]
async fn garbage_gets_no_answer_and_does_no_harm() {
    let server = serve(node(), &[]).await;
    let client = Client::new(server).await;
    client.send(&[]).await;
    client.send(b"short").await;
    let mut answer = query(3, "localhost.loki.", RecordType::A);
    answer.metadata.message_type = MessageType::Response;
    client.send(&answer.to_vec().unwrap()).await;
    client.send(&answer.to_vec().unwrap().repeat(200)).await;
    let reply = client.ask(&query(4, "localhost.loki.", RecordType::A)).await;
    assert_eq!(data(&reply).len(), 2, "the first reply is to the first question");

    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(b"\0\0\0\x05short").await.unwrap();
    send_framed(&mut stream, &query(5, "localhost.loki.", RecordType::A)).await;
    assert_eq!(receive_framed(&mut stream).await.metadata.id, 5);
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_remedy() {
    let holder = UdpSocket::bind(ANY_PORT).await.unwrap();
    let taken = holder.local_addr().unwrap();
    let Err(error) = bind(&[ANY_PORT.parse().unwrap(), taken]).await else { panic!("bound twice") };
    let text = error.to_string();
    assert!(text.contains(&taken.to_string()) && text.contains("another resolver or lokinet?"), "{text}");
    assert!(text.contains("[dns] bind"), "{text}");
    let Err(error) = bind(&["203.0.113.1:53".parse().unwrap()]).await else { panic!("bound elsewhere") };
    assert!(error.to_string().contains("no interface has this address"), "{error}");
}
