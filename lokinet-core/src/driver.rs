//! Floor 6, the only one that acts: one loop owns the node, tells it what sockets, TUN device, clock and askers bring,
//! and does what it answers. Everything else talks to the loop through bounded channels. This file is the wiring; what
//! is wired lies in the rooms below it. Neighbours: `node` beneath the wall, the daemon above.

use crate::flow::question::{Answer, Code};
use crate::node::Node;
use crate::node::io::{Event, Input, Output, Ticket, Wake};
use crate::node::report::Report;
use crate::node::worker::Worker;
use crate::time::{Now, Time};
use crate::wire::batch::Packets;
use crew::Crew;
use handle::{COMMANDS_WAITING, Command, EVENTS_WAITING};
use quic::{Happened, Quic};
use socket::{Arena, Letters, Line, Wire};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use zeroize::Zeroizing;

mod clock;
mod crew;
mod handle;
mod quic;
mod routes;
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
    /// Threads for a relay's cells; a client needs none.
    pub workers: usize,
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
    #[error("cannot start the threads for cells: {0}")]
    Thread(io::Error),
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
    let Setup { node, identity, bind, data_dir, tun, workers } = setup;
    launch(node, identity, &bind, data_dir, tun, workers)
}

fn launch<M: Machine>(
    mut node: M,
    seed: Option<Zeroizing<[u8; 32]>>,
    bind: &[SocketAddr],
    data_dir: Option<PathBuf>,
    tun: Option<Box<dyn Tun>>,
    workers: usize,
) -> Result<(Handle, impl Future<Output = ()> + use<M>), DriverError> {
    let workers = node.workers(workers);
    let sockets = socket::bind_each(bind, workers.len())?;
    let identity = seed
        .as_ref()
        .map(|seed| tls::Identity::from_seed(seed))
        .transpose()
        .map_err(|error| DriverError::Identity(error.to_string()))?;
    let (wires, lines) = wired(sockets, !workers.is_empty()).map_err(DriverError::Socket)?;
    let under_quic = wires.iter().map(|wire| wire.clone() as _).collect();
    let (quic, happened) = Quic::new(under_quic, identity, seed, tls::suites()).map_err(DriverError::Quic)?;
    let tun = tun.map(tun::Device::watch).transpose().map_err(DriverError::Tun)?;
    let (crew, control) = if workers.is_empty() {
        (None, None)
    } else {
        let letters: Vec<_> = wires.iter().map(|wire| wire.letters.clone()).collect();
        let (crew, control) = Crew::start(workers, lines, &letters, quic.routes()).map_err(DriverError::Thread)?;
        (Some(crew), Some(control))
    };
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
        crew,
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
        control,
        arena: Arena::new(),
        packets: Packets::new(),
        tickets: 0,
        due: Due { entropy: now, moves: now, wake: now },
        stopping: None,
        stopped: Vec::new(),
    };
    Ok((handle, driver.run()))
}

/// Each address as the loop has it, and as each thread has it.
type Wired = (Vec<Arc<Wire>>, Vec<Vec<Line>>);

/// The sockets of each address as wires, and where threads receive, also as their lines, by thread.
fn wired(sockets: Vec<Vec<UdpSocket>>, threads: bool) -> io::Result<Wired> {
    let (mut wires, mut lines) = (Vec::new(), Vec::new());
    for group in sockets {
        for (number, socket) in group.into_iter().enumerate() {
            let own = if number == 0 { Some(socket.try_clone()?) } else { None };
            if threads {
                lines.resize_with(lines.len().max(number + 1), Vec::new);
                lines[number].push(Line::new(socket)?);
                wires.extend(own.map(Wire::unwatched).transpose()?.map(Arc::new));
            } else {
                wires.extend(own.map(Wire::watched).transpose()?.map(Arc::new));
            }
        }
    }
    Ok((wires, lines))
}

/// What the loop drives: the node, or in tests something that plays it.
trait Machine {
    /// Tells it what happened and does what it answers, to the last thing.
    fn feed(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>));
    fn next_wake(&self) -> Option<(Time, Wake)>;
    fn is_cell(&self, datagram: &[u8]) -> bool;
    fn report(&self, now: Now) -> Report;
    /// Workers for so many threads; none where the loop itself is to have the cells.
    fn workers(&mut self, _count: usize) -> Vec<Worker> {
        Vec::new()
    }
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

    fn workers(&mut self, count: usize) -> Vec<Worker> {
        Node::workers(self, count)
    }
}

/// The loop and its senses.
struct Driver<M> {
    node: M,
    hands: Hands,
    happened: mpsc::Receiver<Happened>,
    commands: mpsc::Receiver<Command>,
    /// What threads heard that is for the node.
    control: Option<mpsc::Receiver<crew::Control>>,
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
    Control(crew::Control),
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
                let Some(Ok(control)) = self.control.as_mut().map(mpsc::Receiver::try_recv) else { break };
                self.control(control);
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
                    Woken::Control(control) => self.control(control),
                    Woken::Command(Some(command)) => self.command(command),
                    Woken::Command(None) => self.stop(), // nobody is left who could ask for anything
                }
            }
        }
        self.hands.quic.close(GOODBYE_LINKS).await;
        self.hands.crew = None;
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

    fn control(&mut self, (hop, body): crew::Control) {
        self.feed(Input::Control { hop, body });
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
            if self.stopping.is_none() && self.hands.crew.as_ref().is_some_and(Crew::has_failed) {
                tracing::error!("a thread for cells has failed, which is a bug: please report it; this relay stops");
                self.stop();
            }
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
            Some(control) = async { self.control.as_mut()?.recv().await } => Woken::Control(control),
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
    crew: Option<Crew>,
    asked: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    full_waits: u32,
    cells_dropped: u64,
    packets_dropped: u64,
}

impl Hands {
    fn act(&mut self, output: Output<'_>) {
        match output {
            Output::Transmit { to, segment, bytes } => {
                let dropped = match self.quic.routes().to(to) {
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
        let total = |of: fn(&Letters) -> u64| self.wires.iter().map(|wire| of(&wire.letters)).sum::<u64>();
        let crew = |of: fn(&crew::Tally) -> &AtomicU64| {
            self.crew.as_ref().map_or(0, |crew| of(&crew.tally).load(Ordering::Relaxed))
        };
        let (retried, turned_away) = self.quic.strangers();
        report.counters.extend([
            ("socket: cells dropped, socket full or unreachable", self.cells_dropped + crew(|tally| &tally.unsent)),
            ("socket: cells for the node dropped, too busy", crew(|tally| &tally.unheard)),
            ("socket: QUIC packets dropped, queue full", total(|letters| letters.dropped.load(Ordering::Relaxed))),
            ("socket: receive errors", total(|letters| letters.receive_errors.load(Ordering::Relaxed))),
            ("quic: strangers asked to show their address", retried),
            ("quic: strangers turned away, no room", turned_away),
            ("tun: packets dropped, device full or absent", self.packets_dropped),
        ]);
    }
}
