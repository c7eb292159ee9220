//! The machine's own thread. It takes what happened, up to a batch at a time, has the machine put the whole batch on disk
//! with one fsync, and only then does what the machine says. Neighbours: `node` (the machine), `quic` and `https` (bring
//! calls), `peers` (carries questions).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::clock::Clock;
use super::peers::Peers;
use crate::http::{Http, Reach, Trust};
use crate::node::Node;
use crate::node::io::{AskError, Body, Conn, Input, Origin, Output, Ticket};
use crate::onion::ONION_MAX;
use crate::quic::code;
use crate::quic::stream::RequestStream;

/// Inputs that may wait for the machine, and that it takes in one batch.
const BATCH: usize = 256;
/// How long a call may wait for a place among them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Posts to servers outside at a time.
const POSTS_MAX: usize = 64;

/// What a call is answered.
pub struct Answered {
    /// As HTTP's.
    pub status: u16,
    /// What.
    pub body: Body,
}

/// What comes to the thread.
enum Event {
    Call { origin: Origin, method: String, body: Bytes, answer: oneshot::Sender<Answered> },
    Opened(Conn, Subscriber),
    Happened(Input),
    Alive(oneshot::Sender<()>),
    Stop,
}

/// A connection that can be pushed to, and its first stream.
pub struct Subscriber {
    /// The stream.
    pub stream: RequestStream,
    /// The connection, to be cut when pushes pile up.
    pub connection: Connection,
}

/// The way to the thread; clones lead to the same.
#[derive(Clone)]
pub struct Actor {
    events: mpsc::Sender<Event>,
    connections: Arc<AtomicU64>,
}

/// The thread, to be waited for.
pub struct Running(Actor, thread::JoinHandle<()>);

/// What the thread needs to do what the machine says.
pub struct Means {
    /// Carries questions to other nodes.
    pub peers: Arc<Peers>,
    /// Posts to servers.
    pub http: Http,
    /// Where those servers may be.
    pub reach: Reach,
}

/// Gives the machine a thread, and returns the way to it. The thread ends when it is stopped, or when nobody is left who
/// could bring it anything. Called inside a tokio runtime, which does what takes time.
///
/// # Errors
/// The system gives no thread.
pub fn start(node: Node, clock: Clock, means: Means) -> std::io::Result<Running> {
    let (events, waiting) = mpsc::channel(BATCH);
    let actor = Actor { events, connections: Arc::default() };
    let desk = Desk {
        calls: HashMap::new(),
        tickets: 0,
        subscribers: HashMap::new(),
        posting: Arc::default(),
        events: actor.events.downgrade(),
        runtime: Handle::current(),
        means,
    };
    // The thread's own, for waiting with a time limit: it does not depend on how the other one ends.
    let waits = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let name = thread::Builder::new().name("machine".into());
    let thread = name.spawn(move || run(node, clock, desk, waiting, &waits))?;
    Ok(Running(actor, thread))
}

impl Running {
    /// The way to the thread.
    pub fn actor(&self) -> &Actor {
        &self.0
    }

    /// Ends the thread when it has done what came before, and waits for it.
    pub async fn stop(self) {
        let _ = self.0.events.send(Event::Stop).await;
        let joined = tokio::task::spawn_blocking(move || self.1.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the machine's thread ended badly; its message is above");
        }
    }
}

impl Actor {
    /// Brings a call and waits for its answer.
    pub async fn call(&self, origin: Origin, method: String, body: Bytes) -> Answered {
        let busy = || Answered { status: 503, body: Body::Text("Service node is overloaded, try another".into()) };
        let (answer, answered) = oneshot::channel();
        let event = Event::Call { origin, method, body, answer };
        match timeout(PATIENCE, self.events.send(event)).await {
            Ok(Ok(())) => answered.await.unwrap_or_else(|_| busy()),
            _ => busy(),
        }
    }

    /// A number for a connection, never used before.
    pub fn number(&self) -> Conn {
        Conn(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    /// A connection's first stream is open: it can be pushed to.
    pub async fn opened(&self, conn: Conn, subscriber: Subscriber) {
        let _ = self.events.send(Event::Opened(conn, subscriber)).await;
    }

    /// Something else happened.
    pub async fn happened(&self, input: Input) {
        let _ = self.events.send(Event::Happened(input)).await;
    }

    /// Waits until the thread takes its next batch; whether it still does.
    pub async fn alive(&self) -> bool {
        let (sender, answered) = oneshot::channel();
        self.events.send(Event::Alive(sender)).await.is_ok() && answered.await.is_ok()
    }
}

/// What the thread keeps beside the machine.
struct Desk {
    calls: HashMap<Ticket, oneshot::Sender<Answered>>,
    tickets: u64,
    subscribers: HashMap<Conn, Subscriber>,
    posting: Arc<()>,
    /// To bring ourselves what others answer.
    events: mpsc::WeakSender<Event>,
    runtime: Handle,
    means: Means,
}

fn run(mut node: Node, clock: Clock, mut desk: Desk, mut waiting: mpsc::Receiver<Event>, waits: &Runtime) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut works = true;
    loop {
        let wake = node.next_wake().map_or(Duration::from_secs(3600), |moment| clock.until(moment));
        let taken = waits.block_on(async { timeout(wake, waiting.recv_many(&mut batch, BATCH)).await });
        let mut stop = taken == Ok(0);
        if taken.is_err() {
            node.handle(Input::Wake, clock.now());
        }
        let mut alive = Vec::new();
        for event in batch.drain(..) {
            match event {
                Event::Stop => stop = true,
                Event::Alive(asks) => alive.push(asks),
                event => {
                    if let Some(input) = desk.input(event) {
                        node.handle(input, clock.now());
                    }
                    if node.is_full() {
                        desk.commit(&mut node, &mut works);
                    }
                }
            }
        }
        desk.commit(&mut node, &mut works);
        alive.into_iter().for_each(|asks| {
            let _ = asks.send(());
        });
        if stop {
            return;
        }
    }
}

impl Desk {
    /// Has what was done put on disk, and does what is then to be done. Whether the store works is said when it changes.
    fn commit(&mut self, node: &mut Node, works: &mut bool) {
        let (outputs, kept) = node.commit();
        match &kept {
            Err(trouble) if *works => tracing::error!("{trouble}"),
            Ok(()) if !*works => tracing::info!("the message store works again"),
            _ => {}
        }
        *works = kept.is_ok();
        outputs.into_iter().for_each(|output| self.act(output));
    }

    /// What an event is to the machine.
    fn input(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Call { origin, method, body, answer } => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.calls.insert(ticket, answer);
                Some(Input::Call { ticket, origin, method, body })
            }
            Event::Opened(conn, subscriber) => {
                self.subscribers.insert(conn, subscriber);
                None
            }
            Event::Happened(Input::Closed(conn)) => {
                self.subscribers.remove(&conn);
                Some(Input::Closed(conn))
            }
            Event::Happened(input) => Some(input),
            Event::Alive(_) | Event::Stop => None,
        }
    }

    /// Does what the machine says; nothing here waits.
    fn act(&mut self, output: Output) {
        match output {
            Output::Answer { ticket, status, body } => {
                // Who has gone is not answered.
                if let Some(answer) = self.calls.remove(&ticket) {
                    let _ = answer.send(Answered { status, body });
                }
            }
            Output::Push { conn, command, body } => {
                let Some(subscriber) = self.subscribers.get(&conn) else { return };
                if subscriber.stream.push(command, body).is_err() {
                    subscriber.connection.close(code::TOO_SLOW, b"you do not read");
                    self.subscribers.remove(&conn);
                }
            }
            Output::Ask { ticket, peer, method, body, patience } => {
                let (peers, events) = (self.means.peers.clone(), self.events.clone());
                self.runtime.spawn(async move {
                    let reply = peers.ask(peer, method, body, patience).await;
                    bring(&events, Input::Reply { ticket, reply }).await;
                });
            }
            Output::Post { ticket, url, body, patience } => self.post(ticket, url, body, patience),
            Output::Peers(_) => {} // the driver reads the list itself, with keys the machine has no use for
        }
    }

    fn post(&self, ticket: Ticket, url: String, body: Bytes, patience: Duration) {
        let (http, reach) = (self.means.http.clone(), self.means.reach);
        let (events, posting) = (self.events.clone(), self.posting.clone());
        let full = Arc::strong_count(&posting) > POSTS_MAX + 1;
        self.runtime.spawn(async move {
            let asking = http.ask(&url, Some((body, "application/octet-stream")), ONION_MAX, Trust::Authorities, reach);
            let reply = match () {
                () if full => Err(AskError::Unreachable),
                () => match timeout(patience, asking).await {
                    Ok(Ok(response)) => Ok((response.status, response.body)),
                    Ok(Err(_)) => Err(AskError::Unreachable),
                    Err(_) => Err(AskError::Timeout),
                },
            };
            drop(posting);
            bring(&events, Input::Posted { ticket, reply }).await;
        });
    }
}

async fn bring(events: &mpsc::WeakSender<Event>, input: Input) {
    if let Some(events) = events.upgrade() {
        let _ = events.send(Event::Happened(input)).await;
    }
}
