//! The side that programs see: questions by UDP and TCP, each answered when its answer is there, none waiting for
//! another. Neighbours: `codec` reads and writes, the node and `upstream` answer.

use super::Answerer;
use super::codec::{self, Asked, Over, Read};
use super::upstream::{Upstream, framed};
use bytes::{Buf, BytesMut};
use lokinet_core::flow::lease::Range;
use lokinet_core::flow::question::{Answer, Code, Question};
use lokinet_core::wire::address::{is_ours, reverse};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Questions that may wait for their answers; more are answered `SERVFAIL`.
const QUESTIONS_OPEN: usize = 1024;
/// TCP connections at a time, per listener; more wait to be accepted.
const CONNECTIONS_OPEN: usize = 64;
/// Questions of one TCP connection that may wait; more are not read.
const PIPELINED: usize = 32;
/// Longest query that is read from a datagram, in bytes.
const QUERY_MAX: usize = 4096;
/// How long a TCP connection may be silent while nothing is asked, and how long it may take to take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// The pause after a socket's error, which may be there to stay.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// The name by which browsers learn whether names of this host may be asked elsewhere (over HTTPS): they may not.
const CANARY: &str = "use-application-dns.net";

/// Where every question comes to, and who answers which.
pub(super) struct Desk<A> {
    node: A,
    range: Option<Range>,
    upstream: Upstream,
    seats: Semaphore,
}

impl<A: Answerer> Desk<A> {
    pub(super) fn new(node: A, range: Option<Range>, upstream: Upstream) -> Desk<A> {
        Desk { node, range, upstream, seats: Semaphore::new(QUESTIONS_OPEN) }
    }

    /// The reply to a question; `query` is how it came.
    async fn reply(&self, asked: &Asked, query: &[u8], over: Over) -> Vec<u8> {
        let Ok(_seat) = self.seats.try_acquire() else {
            return asked.answer(&Answer::empty(Code::ServFail), over);
        };
        let question = asked.question();
        if question.name == CANARY {
            asked.answer(&Answer::empty(Code::NxDomain), over)
        } else if is_ours(&question.name) || self.is_in_range(question) {
            asked.answer(&self.node.answer(question.clone()).await, over)
        } else {
            self.upstream.ask(asked, query, over).await
        }
    }

    /// Whether a reverse name is that of an address which only we know.
    fn is_in_range(&self, question: &Question) -> bool {
        let Some(range) = &self.range else { return false };
        reverse(&question.name).is_some_and(|ip| range.v4_of(ip).is_some())
    }
}

/// Who asked by which number, and what.
type Key = (SocketAddr, u16, String, u16);

/// A question's entry among those that wait; it goes when the question is answered.
struct Entry {
    open: Arc<Mutex<BTreeSet<Key>>>,
    key: Key,
}

impl Entry {
    /// `None` when it waits already: the client repeats itself.
    fn new(open: &Arc<Mutex<BTreeSet<Key>>>, key: Key) -> Option<Entry> {
        let new = open.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        new.then(|| Entry { open: open.clone(), key })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Answers what comes as datagrams.
pub(super) async fn udp<A: Answerer>(desk: Arc<Desk<A>>, socket: Arc<UdpSocket>) {
    let open = Arc::new(Mutex::new(BTreeSet::new()));
    let mut answers = JoinSet::new();
    let mut bytes = vec![0; QUERY_MAX];
    loop {
        while answers.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut bytes).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!("cannot receive DNS questions: {error}");
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let asked = match codec::read(&bytes[..length]) {
            Read::Asked(asked) => asked,
            Read::Refused(reply) => {
                let _ = socket.try_send_to(&reply, from);
                continue;
            }
            Read::Nothing => continue,
        };
        let key = (from, asked.id(), asked.question().name.clone(), asked.kind());
        let Some(entry) = Entry::new(&open, key) else { continue };
        let (desk, socket, query) = (desk.clone(), socket.clone(), bytes[..length].to_vec());
        answers.spawn(async move {
            let reply = desk.reply(&asked, &query, Over::Udp).await;
            drop(entry); // before the reply: the client's next question may have the same number
            let _ = socket.send_to(&reply, from).await;
        });
    }
}

/// Answers who connects.
pub(super) async fn tcp<A: Answerer>(desk: Arc<Desk<A>>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_OPEN {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(desk.clone(), stream));
            }
            Err(error) => {
                tracing::warn!("cannot accept DNS connections: {error}");
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// One connection, until the client leaves or is silent for too long: replies as they are ready.
async fn converse<A: Answerer>(desk: Arc<Desk<A>>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (from, mut to) = stream.into_split();
    let mut frames = Frames { from, bytes: BytesMut::new() };
    let mut answers = JoinSet::new();
    let mut reading = true;
    loop {
        let reply = tokio::select! {
            frame = frames.next(), if reading && answers.len() < PIPELINED => match frame {
                Ok(Some(query)) => match codec::read(&query) {
                    Read::Asked(asked) => {
                        let desk = desk.clone();
                        answers.spawn(async move { desk.reply(&asked, &query, Over::Tcp).await });
                        continue;
                    }
                    Read::Refused(reply) => reply,
                    Read::Nothing => continue,
                },
                Ok(None) | Err(_) => {
                    reading = false;
                    continue;
                }
            },
            Some(reply) = answers.join_next() => match reply {
                Ok(reply) => reply,
                Err(_) => continue,
            },
            () = sleep(IDLE), if reading && answers.is_empty() => return,
            else => return,
        };
        if !matches!(timeout(IDLE, to.write_all(&framed(&reply))).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// The messages of a TCP stream. Waiting for the next may be given up at any moment and begun again.
struct Frames {
    from: OwnedReadHalf,
    bytes: BytesMut,
}

impl Frames {
    /// The next message; `None` when the client has closed.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(&[high, low]) = self.bytes.first_chunk() {
                let length = usize::from(u16::from_be_bytes([high, low]));
                if self.bytes.len() >= 2 + length {
                    self.bytes.advance(2);
                    return Ok(Some(self.bytes.split_to(length).to_vec()));
                }
            }
            if self.from.read_buf(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }
}
