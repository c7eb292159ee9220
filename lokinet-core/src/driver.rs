//! Floor 6, the only one that acts: one loop owns the node, tells it what sockets, TUN device, clock and askers bring,
//! and does what it answers. Everything else talks to the loop through bounded channels. This file is the wiring; what
//! is wired lies in the rooms below it. Neighbours: `node` beneath the wall, the daemon above.

use crate::flow::question::{Answer, Code};
use crate::node::Node;
use crate::node::io::{Event, Input, Output, Ticket, Wake};
use crate::node::report::Report;
use crate::time::{Now, Time};
use crate::wire::batch::Packets;
use handle::{COMMANDS_WAITING, Command, EVENTS_WAITING};
use quic::{Happened, Quic};
use socket::{Arena, Wire};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use zeroize::Zeroizing;

mod clock;
mod handle;
mod quic;
mod save;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod tun;

pub use clock::now;
pub use handle::Handle;
pub use save::load;
pub use socket::bind;
pub use tls::fast_aes;
pub use tun::Tun;

/// Name questions that may wait for their answer; more are answered `ServFail`.
const QUESTIONS_OPEN: usize = 4096;
/// Reports and commands taken before the sockets are looked at again.
const TURN: usize = 64;
/// Full-socket waits of a millisecond that one input's cells may cost.
const FULL_WAITS: u32 = 2;
/// How often the node gets fresh bytes from the operating system.
const ENTROPY_EVERY: Duration = Duration::from_secs(600);
/// How often moved peers are looked for.
const MOVES_EVERY: Duration = Duration::from_secs(1);
/// Longest sleep: tokio's clock stands still while the machine sleeps and ours does not, so it is looked at.
const SLEEP_MAX: Duration = Duration::from_secs(15);
/// Shortest pause between two wakes of the node, whatever it asks for.
const WAKE_PAUSE: Duration = Duration::from_millis(1);
/// How long goodbyes may take: the node's requests, then QUIC's closes, then the disk.
const GOODBYE_REQUESTS: Duration = Duration::from_secs(1);
const GOODBYE_LINKS: Duration = Duration::from_millis(300);
const GOODBYE_DISK: Duration = Duration::from_secs(5);

/// What a node needs to live on a host.
pub struct Setup {
    /// The node.
    pub node: Node,
    /// A relay's secret seed; with it, the node also accepts links.
    pub identity: Option<Zeroizing<[u8; 32]>>,
    /// Addresses for the UDP sockets.
    pub bind: Vec<SocketAddr>,
    /// Where records are kept; nothing is kept without it.
    pub data_dir: Option<PathBuf>,
    /// Where IP packets come from and go to.
    pub tun: Option<Box<dyn Tun>>,
}

/// Why a node cannot start on this host.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum DriverError {
    #[error("no UDP address to use: give one in [bind], or leave [bind] out to have one chosen")]
    NoAddress,
    #[error("cannot use UDP address {addr}: {error}{}", remedy(.error.kind()))]
    Bind { addr: SocketAddr, error: io::Error },
    #[error("cannot set up UDP: {0}")]
    Socket(io::Error),
    #[error("this node's identity key cannot be used: {0}")]
    Identity(String),
    #[error("cannot set up QUIC: {0}")]
    Quic(io::Error),
    #[error("cannot watch the TUN device: {0}")]
    Tun(io::Error),
    #[error("cannot start the thread that writes to {}: {error}", .dir.display())]
    Save { dir: PathBuf, error: io::Error },
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => ": address in use: another lokinet? Stop it or change [bind] inbound",
        io::ErrorKind::AddrNotAvailable => ": no interface has this address: change [bind] inbound",
        io::ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE: change [bind] inbound",
        _ => ": change [bind] inbound",
    }
}

/// Binds the sockets and readies everything; the node lives while the future runs. Both must happen inside a tokio
/// runtime, best a `current_thread` one: the loop and quinn's tasks share one core without locks being waited for.
///
/// # Errors
/// When the host refuses something; the error says what and how to mend it.
pub async fn start(setup: Setup) -> Result<(Handle, impl Future<Output = ()>), DriverError> {
    let Setup { node, identity, bind, data_dir, tun } = setup;
    launch(node, identity, &bind, data_dir, tun)
}

fn launch<M: Machine>(
    node: M,
    seed: Option<Zeroizing<[u8; 32]>>,
    bind: &[SocketAddr],
    data_dir: Option<PathBuf>,
    tun: Option<Box<dyn Tun>>,
) -> Result<(Handle, impl Future<Output = ()> + use<M>), DriverError> {
    let sockets = socket::bind(bind)?;
    let identity = seed
        .as_ref()
        .map(|seed| tls::Identity::from_seed(seed))
        .transpose()
        .map_err(|error| DriverError::Identity(error.to_string()))?;
    let wires = sockets
        .into_iter()
        .map(|socket| Wire::new(socket).map(Arc::new))
        .collect::<io::Result<Vec<_>>>()
        .map_err(DriverError::Socket)?;
    let under_quic = wires.iter().map(|wire| wire.clone() as _).collect();
    let (quic, happened) = Quic::new(under_quic, identity, seed, tls::suites()).map_err(DriverError::Quic)?;
    let tun = tun.map(tun::Device::watch).transpose().map_err(DriverError::Tun)?;
    let saver = data_dir
        .map(|dir| save::Saver::start(dir.clone()).map_err(|error| DriverError::Save { dir, error }))
        .transpose()?;
    let (sender, commands) = mpsc::channel(COMMANDS_WAITING);
    let (events, _) = broadcast::channel(EVENTS_WAITING);
    let bound = wires.iter().map(|wire| wire.local()).collect();
    let handle = Handle { commands: sender, events: events.clone(), bound };
    let hands = Hands {
        wires,
        quic,
        tun,
        saver,
        events,
        asked: BTreeMap::new(),
        full_waits: 0,
        cells_dropped: 0,
        packets_dropped: 0,
    };
    let now = clock::now().mono;
    let driver = Driver {
        node,
        hands,
        happened,
        commands,
        arena: Arena::new(),
        packets: Packets::new(),
        tickets: 0,
        due: Due { entropy: now, moves: now, wake: now },
        stopping: None,
        stopped: Vec::new(),
    };
    Ok((handle, driver.run()))
}

/// What the loop drives: the node, or in tests something that plays it.
trait Machine {
    /// Tells it what happened and does what it answers, to the last thing.
    fn feed(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>));
    fn next_wake(&self) -> Option<(Time, Wake)>;
    fn is_cell(&self, datagram: &[u8]) -> bool;
    fn report(&self, now: Now) -> Report;
}

impl Machine for Node {
    fn feed(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        let mut outputs = self.handle(input, now);
        while let Some(output) = outputs.next() {
            act(output);
        }
    }

    fn next_wake(&self) -> Option<(Time, Wake)> {
        Node::next_wake(self)
    }

    fn is_cell(&self, datagram: &[u8]) -> bool {
        Node::is_cell(self, datagram)
    }

    fn report(&self, now: Now) -> Report {
        Node::report(self, now)
    }
}

/// The loop and its senses.
struct Driver<M> {
    node: M,
    hands: Hands,
    happened: mpsc::Receiver<Happened>,
    commands: mpsc::Receiver<Command>,
    arena: Arena,
    packets: Packets,
    tickets: u64,
    due: Due,
    stopping: Option<Time>,
    stopped: Vec<oneshot::Sender<()>>,
}

/// When the loop does by itself what nobody asks for.
struct Due {
    entropy: Time,
    moves: Time,
    /// Not before this the node is woken again.
    wake: Time,
}

/// What ended a pause.
enum Woken {
    Ready,
    Happened(Happened),
    Command(Option<Command>),
}

impl<M: Machine> Driver<M> {
    async fn run(mut self) {
        loop {
            let mut busy = self.sockets().await;
            busy |= self.tun();
            for _ in 0..TURN {
                let Ok(happened) = self.happened.try_recv() else { break };
                self.happened(happened);
                busy = true;
            }
            for _ in 0..TURN {
                match self.commands.try_recv() {
                    Ok(command) => self.command(command),
                    Err(TryRecvError::Disconnected) if self.stopping.is_none() => self.stop(),
                    Err(_) => break,
                }
                busy = true;
            }
            busy |= self.timers();
            if let Some(deadline) = self.stopping
                && (self.hands.quic.asking() == 0 || clock::now().mono >= deadline)
            {
                break;
            }
            if busy {
                tokio::task::yield_now().await; // to quinn's tasks, and to the reactor
            } else {
                match self.pause().await {
                    Woken::Ready => {}
                    Woken::Happened(happened) => self.happened(happened),
                    Woken::Command(Some(command)) => self.command(command),
                    Woken::Command(None) => self.stop(), // nobody is left who could ask for anything
                }
            }
        }
        self.hands.quic.close(GOODBYE_LINKS).await;
        if let Some(saver) = self.hands.saver.take() {
            saver.finish(GOODBYE_DISK).await;
        }
        for stopped in self.stopped {
            let _ = stopped.send(());
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        self.hands.full_waits = FULL_WAITS;
        self.node.feed(input, clock::now(), &mut |output| self.hands.act(output));
    }

    /// Drains the sockets: QUIC's packets reach quinn before the cells of the same drain cost anything.
    async fn sockets(&mut self) -> bool {
        let drained = socket::drain(&self.hands.wires, &mut self.arena, |datagram| self.node.is_cell(datagram));
        if drained.letters {
            tokio::task::yield_now().await;
        }
        if drained.cells {
            let now = clock::now();
            self.hands.full_waits = FULL_WAITS;
            let mut runs = self.arena.runs();
            self.node.feed(Input::Cells(&mut runs), now, &mut |output| self.hands.act(output));
        }
        drained.cells || drained.letters
    }

    /// Takes what programs sent.
    fn tun(&mut self) -> bool {
        let Some(device) = &mut self.hands.tun else { return false };
        self.packets.clear();
        let packets = &mut self.packets;
        let tun = &mut device.tun;
        // `WouldBlock` tells the reactor that nothing is left; a full batch leaves something for the next round.
        let received = device.ready.try_io(Interest::READABLE, |_| {
            tun.receive(packets)?;
            if packets.is_full() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        if let Err(error) = received
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::error!("the TUN device cannot be read any more: {error}; restart lokinet once it is back");
            self.hands.tun = None;
        }
        if self.packets.is_empty() {
            return false;
        }
        let mut packets = std::mem::take(&mut self.packets);
        self.feed(Input::Packets(&mut packets));
        self.packets = packets;
        true
    }

    fn happened(&mut self, happened: Happened) {
        if let Some(input) = self.hands.quic.take(happened) {
            self.feed(input);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Ask(question, asker) => {
                let asked = &mut self.hands.asked;
                if asked.len() >= QUESTIONS_OPEN {
                    asked.retain(|_, asker| !asker.is_closed());
                }
                if asked.len() >= QUESTIONS_OPEN || self.stopping.is_some() {
                    let _ = asker.send(Answer::empty(Code::ServFail));
                    return;
                }
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                asked.insert(ticket, asker);
                self.feed(Input::Dns { ticket, question });
            }
            Command::Report(asker) => {
                let mut report = self.node.report(clock::now());
                self.hands.count(&mut report);
                let _ = asker.send(report);
            }
            Command::Registry(registry) => self.feed(Input::Registry(registry)),
            Command::Stop(done) => {
                self.stopped.push(done);
                self.stop();
            }
        }
    }

    fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(clock::now().mono + GOODBYE_REQUESTS);
            self.feed(Input::Stop);
        }
    }

    /// Does what is due; whether anything was.
    fn timers(&mut self) -> bool {
        let now = clock::now().mono;
        let mut busy = false;
        if now >= self.due.entropy {
            self.due.entropy = now + ENTROPY_EVERY;
            let mut fresh = Zeroizing::new([0; 32]);
            if getrandom::fill(fresh.as_mut_slice()).is_ok() {
                self.feed(Input::Entropy(fresh));
            }
        }
        if now >= self.due.moves {
            self.due.moves = now + MOVES_EVERY;
            for (link, remote) in self.hands.quic.moved(now) {
                self.feed(Input::LinkMoved { link, remote });
            }
        }
        if now >= self.due.wake && self.node.next_wake().is_some_and(|(at, _)| at <= now) {
            self.due.wake = now + WAKE_PAUSE;
            self.feed(Input::Wake);
            busy = true;
        }
        busy
    }

    /// Waits until there is something to do.
    async fn pause(&mut self) -> Woken {
        let now = clock::now().mono;
        let mut until = self.due.entropy.min(now + SLEEP_MAX);
        if self.hands.quic.may_move() {
            until = until.min(self.due.moves);
        }
        if let Some((at, _)) = self.node.next_wake() {
            until = until.min(at.max(self.due.wake));
        }
        if let Some(deadline) = self.stopping {
            until = until.min(deadline);
        }
        let wires = &self.hands.wires;
        let tun = self.hands.tun.as_ref().map(|device| &device.ready);
        let readable = std::future::poll_fn(|cx| {
            let mut ready = false;
            for wire in wires {
                ready |= wire.poll_readable(cx).is_ready();
            }
            ready |= tun.is_some_and(|tun| tun.poll_read_ready(cx).is_ready());
            if ready { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            biased;
            () = readable => Woken::Ready,
            Some(happened) = self.happened.recv() => Woken::Happened(happened),
            command = self.commands.recv(), if self.stopping.is_none() => Woken::Command(command),
            () = tokio::time::sleep(until.since(now)) => Woken::Ready,
        }
    }
}

/// The loop's hands: all that acts on an output.
struct Hands {
    wires: Vec<Arc<Wire>>,
    quic: Quic,
    tun: Option<tun::Device>,
    saver: Option<save::Saver>,
    events: broadcast::Sender<Event>,
    asked: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    full_waits: u32,
    cells_dropped: u64,
    packets_dropped: u64,
}

impl Hands {
    fn act(&mut self, output: Output<'_>) {
        match output {
            Output::Transmit { to, segment, bytes } => {
                let dropped = match self.quic.route(to) {
                    Some(route) => {
                        self.wires[route.socket].send(to, route.source, segment, bytes, &mut self.full_waits)
                    }
                    None => bytes.len().div_ceil(segment.max(1)),
                };
                self.cells_dropped += dropped as u64;
            }
            Output::Deliver(packets) => {
                let dropped = match &mut self.tun {
                    Some(device) => device.tun.send(packets).1,
                    None => packets.len(),
                };
                self.packets_dropped += dropped as u64;
            }
            Output::Dial { dial, peer, addrs, key } => self.quic.dial(dial, peer, addrs, key),
            Output::Hangup { link } => self.quic.hangup(link),
            Output::Request { link, ticket, body, patience } => self.quic.request(link, ticket, body, patience),
            Output::Answer { ticket, body } => self.quic.answer(ticket, body),
            Output::Dns { ticket, answer } => {
                if let Some(asker) = self.asked.remove(&ticket) {
                    let _ = asker.send(answer);
                }
            }
            Output::Save(record) => {
                if let Some(saver) = &self.saver {
                    saver.save(record);
                }
            }
            Output::Event(event) => {
                let _ = self.events.send(event);
            }
        }
    }

    /// Adds to a report what the node cannot see.
    fn count(&self, report: &mut Report) {
        let total = |of: fn(&Wire) -> u64| self.wires.iter().map(|wire| of(wire)).sum::<u64>();
        let (retried, turned_away) = self.quic.strangers();
        report.counters.extend([
            ("socket: cells dropped, socket full or unreachable", self.cells_dropped),
            ("socket: QUIC packets dropped, queue full", total(|w| w.letters_dropped.load(Ordering::Relaxed))),
            ("socket: receive errors", total(|w| w.receive_errors.load(Ordering::Relaxed))),
            ("quic: strangers asked to show their address", retried),
            ("quic: strangers turned away, no room", turned_away),
            ("tun: packets dropped, device full or absent", self.packets_dropped),
        ]);
    }
}
