//! The threads on which a relay's cells move: each has one worker and, for every address, a socket of its own that shares the
//! address (`SO_REUSEPORT`); the kernel gives all that one peer sends to the same one, so that a path's cells keep
//! their order. A thread takes what waits in its sockets, works on some of it, sends, and looks again; QUIC's packets
//! go to quinn at once, before any cell of the same drain. The loop and all it does for builds and links never stands
//! in a cell's way. Neighbours: `socket` receives and sends, `node::worker` is the work, the loop hears what is for the
//! node.

use super::clock;
use super::routes::Routes;
use super::socket::{Letters, Line, Sent};
use crate::node::worker::{WORK, Work, Worker};
use crate::time::Time;
use crate::transit::hop::HopRef;
use room::Room;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

pub(super) mod room;

/// Cells for the node that may wait for the loop; more are dropped, and their senders repeat them.
pub(super) const CONTROL_WAITING: usize = 4096;
/// How often a worker's memory is looked at, and the longest a thread sleeps.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// A cell for the node.
pub(super) type Control = (HopRef, Vec<u8>);

/// What the threads count.
#[derive(Default)]
pub(super) struct Tally {
    /// Cells that a socket did not take.
    pub(super) unsent: AtomicU64,
    /// Cells for the node that it had no room for.
    pub(super) unheard: AtomicU64,
}

/// The threads; they end with this value.
pub(super) struct Crew {
    pub(super) tally: Arc<Tally>,
    doors: Vec<UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts a thread for each worker, with its line for each address. `letters` are quinn's inboxes, in the same order.
    pub(super) fn start(
        workers: Vec<Worker>,
        lines: Vec<Vec<Line>>,
        letters: &[Arc<Letters>],
        routes: &Routes,
    ) -> io::Result<(Crew, mpsc::Receiver<Control>)> {
        let (node, heard) = mpsc::channel(CONTROL_WAITING);
        let mut crew = Crew { tally: Arc::default(), doors: Vec::new(), threads: Vec::new() };
        for (number, (worker, lines)) in workers.into_iter().zip(lines).enumerate() {
            let (door, stop) = UnixStream::pair()?;
            let hand = Hand {
                worker,
                out: Out {
                    rooms: lines.iter().map(|_| Room::new()).collect(),
                    letters: letters.to_vec(),
                    routes: routes.clone(),
                    node: node.clone(),
                    tally: crew.tally.clone(),
                    blocked: VecDeque::new(),
                },
                lines,
                stop,
                tidied: clock::now().mono,
            };
            crew.doors.push(door);
            let thread = std::thread::Builder::new().name(format!("cells-{number}"));
            crew.threads.push(thread.spawn(move || hand.run())?);
        }
        Ok((crew, heard))
    }
}

impl Crew {
    /// Whether a thread has ended by itself, which only a bug of ours can do.
    pub(super) fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.doors.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One thread.
struct Hand {
    worker: Worker,
    lines: Vec<Line>,
    out: Out,
    stop: UnixStream,
    tidied: Time,
}

/// What ended a sleep.
enum Woken {
    /// It is time to go.
    Called,
    /// The socket that was full takes more.
    Writable,
    /// A message is there, or nothing at all.
    Readable,
}

/// Where a thread's work goes.
struct Out {
    letters: Vec<Arc<Letters>>,
    routes: Routes,
    node: mpsc::Sender<Control>,
    tally: Arc<Tally>,
    /// How much each line's socket may hold.
    rooms: Vec<Room>,
    /// What a full socket did not take. While anything is here no more is worked on: it waits by path, where that is fair.
    blocked: VecDeque<Blocked>,
}

struct Blocked {
    line: usize,
    to: SocketAddr,
    source: Option<IpAddr>,
    segment: usize,
    bytes: Vec<u8>,
}

impl Hand {
    fn run(mut self) {
        loop {
            if !self.out.blocked.is_empty() || self.worker.is_idle() {
                match self.wait() {
                    Woken::Called => return,
                    Woken::Writable => self.out.send_blocked(&self.lines),
                    Woken::Readable => {}
                }
            }
            let now = clock::now().mono;
            self.drain(now);
            if self.out.blocked.is_empty() {
                let (worker, lines, out) = (&mut self.worker, &self.lines, &mut self.out);
                let most = out.rooms.iter().map(Room::cells).min().map_or(WORK, |cells| cells.min(WORK));
                worker.work_some(most, now, &mut |work| out.act(lines, work));
            }
            if now.since(self.tidied) >= TIDY_EVERY {
                self.tidied = now;
                self.worker.tidy();
            }
        }
    }

    /// Sleeps until a message is there, a full socket is half empty, or it is time to go.
    fn wait(&mut self) -> Woken {
        let full = self.out.blocked.front().map(|first| first.line);
        let wanted = |at| if full == Some(at) { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let lines = self.lines.iter().enumerate();
        let mut fds: Vec<PollFd<'_>> = lines.map(|(at, line)| PollFd::new(line.socket(), wanted(at))).collect();
        fds.push(PollFd::new(&self.stop, PollFlags::IN));
        let most = Timespec { tv_sec: TIDY_EVERY.as_secs() as i64, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut fds, Some(&most)); // interrupted: looked at again
        if fds.last().is_some_and(|stop| !stop.revents().is_empty()) {
            Woken::Called
        } else if fds.iter().any(|fd| fd.revents().contains(PollFlags::OUT)) {
            Woken::Writable
        } else {
            Woken::Readable
        }
    }

    /// Takes what waits in the sockets.
    fn drain(&mut self, now: Time) {
        for (line, letters) in self.lines.iter_mut().zip(&self.out.letters) {
            line.receive(letters, &mut self.worker, now);
        }
    }
}

impl Out {
    fn act(&mut self, lines: &[Line], work: Work<'_>) {
        match work {
            Work::Transmit { to, segment, bytes } => {
                let Some((route, line)) = self.routes.to(to).and_then(|route| Some((route, lines.get(route.socket)?)))
                else {
                    self.unsent(bytes, segment);
                    return;
                };
                let first = self.blocked.is_empty();
                let sent = if first { line.send(to, route.source, segment, bytes) } else { Sent::Full(0) };
                if first {
                    self.fit(route.socket, line, bytes.len(), sent);
                }
                match sent {
                    Sent::All => {}
                    Sent::Dropped(cells) => drop(self.tally.unsent.fetch_add(cells as u64, Ordering::Relaxed)),
                    Sent::Full(at) => {
                        let (source, bytes) = (route.source, bytes[at..].to_vec());
                        self.blocked.push_back(Blocked { line: route.socket, to, source, segment, bytes });
                    }
                }
            }
            Work::Control { hop, body } => {
                if self.node.try_send((hop, body.to_vec())).is_err() {
                    self.tally.unheard.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Sends what waits for its socket, as far as that takes it.
    fn send_blocked(&mut self, lines: &[Line]) {
        while let Some(first) = self.blocked.front_mut() {
            let (number, length) = (first.line, first.bytes.len());
            self.rooms[number].free(clock::now().mono);
            let sent = lines[number].send(first.to, first.source, first.segment, &first.bytes);
            match sent {
                Sent::Full(at) => drop(first.bytes.drain(..at)),
                Sent::All => {}
                Sent::Dropped(cells) => drop(self.tally.unsent.fetch_add(cells as u64, Ordering::Relaxed)),
            }
            self.fit(number, &lines[number], length, sent);
            if let Sent::Full(_) = sent {
                return;
            }
            self.blocked.pop_front();
        }
    }

    /// Learns from what became of so many bytes how much the line's socket should hold.
    fn fit(&mut self, number: usize, line: &Line, length: usize, sent: Sent) {
        let room = &mut self.rooms[number];
        match sent {
            Sent::Full(at) => {
                room.took(at);
                if let Some(bytes) = room.full(clock::now().mono) {
                    line.hold(bytes);
                }
            }
            _ => room.took(length),
        }
    }

    fn unsent(&self, bytes: &[u8], segment: usize) {
        self.tally.unsent.fetch_add(bytes.len().div_ceil(segment.max(1)) as u64, Ordering::Relaxed);
    }
}
