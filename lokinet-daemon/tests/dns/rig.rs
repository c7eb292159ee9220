//! What the tests of the resolver are made of: a node that answers, clients by UDP and TCP, and other resolvers that do
//! what a script says.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record as WireRecord, RecordType};
use lokinet_core::flow::dns::{Step, View, decide};
use lokinet_core::flow::lease::{Leases, Range};
use lokinet_core::flow::question::{Answer, Code, Question};
use lokinet_core::wire::address::LokiAddress;
use lokinet_daemon::dns::{Answerer, bind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const OWN: LokiAddress = LokiAddress([7; 32]);
pub const ANY_PORT: &str = "127.0.0.1:0";

pub fn range() -> Range {
    Range::new(Ipv4Addr::new(172, 16, 0, 1), 16, Some("fd00::".parse().unwrap())).unwrap()
}

pub type Script = dyn Fn(Question) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

#[derive(Clone)]
pub struct Node(pub Arc<Script>);

impl Answerer for Node {
    fn answer(&self, question: Question) -> impl Future<Output = Answer> + Send {
        (self.0)(question)
    }
}

/// A node that decides as the core does, for what needs no session.
pub fn node() -> Node {
    Node(Arc::new(|question| {
        let leases = Leases::new(range());
        let view = View { own: OWN, range: range(), netid: "lokinet", leases: &leases, srv: &[], is_relay: &|_| false };
        let answer = match decide(&question, &view) {
            Step::Answer(answer) => answer,
            Step::Lookup(_) => Answer::empty(Code::NxDomain),
        };
        Box::pin(async { answer })
    }))
}

/// A node that answers one name only when it is let go, and counts how often it was asked for it.
pub fn slow_node() -> (Node, Arc<AtomicUsize>, Arc<Semaphore>) {
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

pub async fn serve(node: Node, upstream: &[SocketAddr]) -> SocketAddr {
    let bound = bind(&[ANY_PORT.parse().unwrap()]).await.unwrap();
    let local = bound.local()[0];
    tokio::spawn(bound.serve(node, Some(range()), upstream.to_vec(), None));
    local
}

pub fn query(id: u16, name: &str, of: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), of));
    message
}

pub fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

/// A UDP client; replies come from nobody but the server.
pub struct Client(UdpSocket);

impl Client {
    pub async fn new(server: SocketAddr) -> Client {
        let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
        socket.connect(server).await.unwrap();
        Client(socket)
    }

    pub async fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).await.unwrap();
    }

    pub async fn receive(&self) -> Message {
        let mut bytes = [0; 65535];
        let length = timeout(PATIENCE, self.0.recv(&mut bytes)).await.expect("no reply").unwrap();
        Message::from_vec(&bytes[..length]).unwrap()
    }

    pub async fn ask(&self, query: &Message) -> Message {
        self.send(&query.to_vec().unwrap()).await;
        let reply = self.receive().await;
        assert_eq!(reply.metadata.id, query.metadata.id);
        assert_eq!(reply.metadata.message_type, MessageType::Response);
        reply
    }
}

pub async fn ask(server: SocketAddr, name: &str, of: RecordType) -> Message {
    Client::new(server).await.ask(&query(77, name, of)).await
}

pub async fn send_framed(stream: &mut TcpStream, message: &Message) {
    let bytes = message.to_vec().unwrap();
    stream.write_all(&(bytes.len() as u16).to_be_bytes()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
}

pub async fn receive_framed(stream: &mut TcpStream) -> Message {
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        Message::from_vec(&bytes).unwrap()
    };
    timeout(PATIENCE, read).await.expect("no reply")
}

pub async fn ask_by_tcp(server: SocketAddr, name: &str, of: RecordType) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    send_framed(&mut stream, &query(78, name, of)).await;
    receive_framed(&mut stream).await
}

pub fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

pub fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

/// Another resolver: says what it is told to about each query, by UDP, and remembers what it was asked.
pub struct Other {
    pub local: SocketAddr,
    pub heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

pub async fn other<S, F>(script: S) -> Other
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

pub fn reply(query: &Message, data: RData) -> Message {
    let mut message = query.clone().into_response();
    message.metadata.recursion_available = true;
    message.add_answer(WireRecord::from_rdata(query.queries[0].name().clone(), 300, data));
    message
}

pub fn address(text: &str) -> RData {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// A resolver that says the same address of every name.
pub async fn other_that_says(answer: RData) -> Other {
    other(move |query, socket, from| {
        let bytes = reply(&query, answer.clone()).to_vec().unwrap();
        async move {
            socket.send_to(&bytes, from).await.unwrap();
        }
    })
    .await
}
