//! The UDP sockets, shared by cells and QUIC. The loop owns the receiving side: it drains a socket with recvmmsg and
//! GRO, looks at every segment, keeps cells where they lie and copies the rest into quinn's queue. Sending is one GSO
//! call per run of equal cells. Nothing is allocated or locked per cell. Neighbours: `driver` calls it, `quic` gets its
//! packets from it, `node` says what a cell is.

use super::DriverError;
use crate::node::io::Run;
use quinn::udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::Interest;
use tokio::net::UdpSocket;

#[cfg(test)]
mod tests;

/// Kernel buffer asked for, each way; the kernel may grant less.
const KERNEL_BUFFER: usize = 4 << 20;
/// Room for one message: GRO never joins more.
const SLOT: usize = 1 << 16;
/// Messages taken before their cells are worked on: four recvmmsg calls, at most 8 MiB of cells, usually far less.
/// Pages of a slot that no message reached are never touched and cost nothing.
const SLOTS: usize = 4 * BATCH_SIZE;
/// Largest datagram quinn accepts (its `max_udp_payload_size`).
const LETTER_MAX: usize = 1472;
/// Datagrams that may wait for quinn; more are dropped, as a full kernel buffer would.
const LETTERS_WAITING: usize = 1024;
/// The kernel's limits on one GSO send: segments, and bytes with room for headers.
const SEGMENTS_MAX: usize = 64;
const SEND_MAX: usize = 65_000;
/// How long one full socket may hold up the loop before cells are dropped.
const FULL_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Binds one UDP socket per address.
///
/// # Errors
/// When an address cannot be bound; the error names it and says what to do.
pub fn bind(addrs: &[SocketAddr]) -> Result<Vec<std::net::UdpSocket>, DriverError> {
    if addrs.is_empty() {
        return Err(DriverError::NoAddress);
    }
    addrs.iter().map(|&addr| bind_one(addr).map_err(|error| DriverError::Bind { addr, error })).collect()
}

fn bind_one(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?; // IPv4 has its own socket, on the same port if asked for
    }
    // With CAP_NET_ADMIN past the system's limit, without it up to there.
    #[cfg(target_os = "linux")]
    let forced = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, KERNEL_BUFFER).is_ok();
    #[cfg(not(target_os = "linux"))]
    let forced = false;
    if !forced {
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    }
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// One socket.
pub(crate) struct Wire {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    inbox: Mutex<Inbox>,
    /// Datagrams that quinn had no room for.
    pub(crate) letters_dropped: AtomicU64,
    /// Receive calls that failed.
    pub(crate) receive_errors: AtomicU64,
}

/// What waits for quinn.
#[derive(Default)]
struct Inbox {
    letters: VecDeque<Letter>,
    spare: Vec<Vec<u8>>,
    waker: Option<Waker>,
}

struct Letter {
    from: SocketAddr,
    ecn: Option<EcnCodepoint>,
    local: Option<IpAddr>,
    bytes: Vec<u8>,
}

/// The memory that messages land in, shared by all sockets, and where the cells in it lie.
pub(crate) struct Arena {
    bytes: Box<[u8]>,
    cells: Vec<Cells>,
}

/// Neighbouring cells of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cells {
    from: SocketAddr,
    start: usize,
    len: usize,
    segment: usize,
}

impl Arena {
    pub(crate) fn new() -> Arena {
        Arena { bytes: vec![0; SLOT * SLOTS].into_boxed_slice(), cells: Vec::with_capacity(SLOTS) }
    }

    /// The cells of the last drain, to be opened in place.
    pub(crate) fn runs(&mut self) -> Vec<Run<'_>> {
        let mut runs = Vec::with_capacity(self.cells.len());
        let (mut rest, mut at) = (&mut self.bytes[..], 0);
        for cells in &self.cells {
            let (_, tail) = rest.split_at_mut(cells.start - at);
            let (bytes, tail) = tail.split_at_mut(cells.len);
            (rest, at) = (tail, cells.start + cells.len);
            runs.push(Run { from: cells.from, bytes, segment: cells.segment });
        }
        runs
    }
}

/// What a drain found.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Drained {
    /// Whether the arena holds cells.
    pub(crate) cells: bool,
    /// Whether quinn has something to read.
    pub(crate) letters: bool,
}

/// Takes what waits in all sockets, up to the arena's size. Cells stay in the arena, the rest goes to quinn.
pub(crate) fn drain(wires: &[Arc<Wire>], arena: &mut Arena, is_cell: impl Fn(&[u8]) -> bool) -> Drained {
    arena.cells.clear();
    let mut drained = Drained::default();
    let mut slot = 0;
    let mut meta = [RecvMeta::default(); BATCH_SIZE];
    for wire in wires {
        let mut delivered = false;
        while slot + BATCH_SIZE <= SLOTS {
            let batch = &mut arena.bytes[slot * SLOT..(slot + BATCH_SIZE) * SLOT];
            let Some(count) = wire.receive(batch, &mut meta) else { break };
            for (index, meta) in meta.iter().enumerate().take(count) {
                let start = (slot + index) * SLOT;
                let message = &arena.bytes[start..start + meta.len.min(SLOT)];
                sort(message, meta.stride, &is_cell, |part| match part {
                    Part::Cells { at, len } => {
                        let cells = Cells { from: meta.addr, start: start + at, len, segment: meta.stride };
                        arena.cells.push(cells);
                    }
                    Part::Letter(bytes) => {
                        wire.deliver(bytes, meta);
                        delivered = true;
                    }
                });
            }
            slot += count;
            if count < BATCH_SIZE {
                break; // most likely empty now; the next round will see for itself
            }
        }
        if delivered {
            wire.wake();
            drained.letters = true;
        }
    }
    drained.cells = !arena.cells.is_empty();
    drained
}

/// A piece of one received message.
enum Part<'a> {
    /// Neighbouring cells.
    Cells { at: usize, len: usize },
    /// One datagram that is QUIC's.
    Letter(&'a [u8]),
}

/// Goes through a message's segments. Each is looked at: GRO joins whatever has one sender and one size, cells and QUIC
/// packets alike, and its last segment may be shorter.
fn sort<'a>(message: &'a [u8], stride: usize, is_cell: impl Fn(&[u8]) -> bool, mut part: impl FnMut(Part<'a>)) {
    let (mut at, mut len) = (0, 0);
    for segment in message.chunks(stride.max(1)) {
        if is_cell(segment) {
            len += segment.len();
            continue;
        }
        if len > 0 {
            part(Part::Cells { at, len });
        }
        part(Part::Letter(segment));
        at += len + segment.len();
        len = 0;
    }
    if len > 0 {
        part(Part::Cells { at, len });
    }
}

impl Wire {
    /// A bound socket, registered with tokio's reactor.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Wire> {
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?;
        Ok(Wire {
            socket: UdpSocket::from_std(socket)?,
            state,
            local,
            inbox: Mutex::default(),
            letters_dropped: AtomicU64::new(0),
            receive_errors: AtomicU64::new(0),
        })
    }

    /// Where it is bound.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Ready when a message may wait. For the loop alone: it remembers one waker.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_recv_ready(cx).map(drop)
    }

    fn receive(&self, batch: &mut [u8], meta: &mut [RecvMeta; BATCH_SIZE]) -> Option<usize> {
        let mut slots = batch.chunks_exact_mut(SLOT);
        let mut slots: [_; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        let received =
            self.socket.try_io(Interest::READABLE, || self.state.recv((&self.socket).into(), &mut slots, meta));
        match received {
            Ok(count) => Some(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => {
                self.receive_errors.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn deliver(&self, bytes: &[u8], meta: &RecvMeta) {
        let mut inbox = self.inbox();
        if bytes.len() > LETTER_MAX || inbox.letters.len() >= LETTERS_WAITING {
            self.letters_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut copy = inbox.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        inbox.letters.push_back(Letter { from: meta.addr, ecn: meta.ecn, local: meta.dst_ip, bytes: copy });
    }

    fn wake(&self) {
        let waker = self.inbox().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a run of equal cells; how many could not be sent. A full socket is waited for briefly, `waits` times in
    /// all; after that cells are dropped, as routers do.
    pub(crate) fn send(
        &self,
        to: SocketAddr,
        source: Option<IpAddr>,
        segment: usize,
        bytes: &[u8],
        waits: &mut u32,
    ) -> usize {
        if segment == 0 {
            return 0;
        }
        let mut dropped = 0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = self.state.max_gso_segments().min(SEGMENTS_MAX).min(SEND_MAX / segment).max(1);
            let (chunk, tail) = rest.split_at(rest.len().min(most * segment));
            let joined = (chunk.len() > segment).then_some(segment);
            let transmit =
                Transmit { destination: to, ecn: None, contents: chunk, segment_size: joined, src_ip: source };
            match self.state.try_send((&self.socket).into(), &transmit) {
                Ok(()) => rest = tail,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && *waits > 0 => {
                    *waits -= 1;
                    let mut full = [PollFd::new(&self.socket, PollFlags::OUT)];
                    let _ = rustix::event::poll(&mut full, Some(&FULL_PATIENCE));
                }
                // The interface cannot segment after all; quinn-udp has noted it, so this chunk goes one by one.
                Err(_) if joined.is_some() && self.state.max_gso_segments() == 1 => {}
                Err(_) => {
                    dropped += chunk.len().div_ceil(segment);
                    rest = tail;
                }
            }
        }
        dropped
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire(..)")
    }
}

impl AsyncUdpSocket for Wire {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { wire: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), transmit));
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // quinn would close the endpoint over an unreachable peer, and its own log would name it. Lost is lost.
            _ => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox();
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(letter) = inbox.letters.pop_front() else { break };
            let len = letter.bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&letter.bytes[..len]);
            *meta = RecvMeta { addr: letter.from, len, stride: len, ecn: letter.ecn, dst_ip: letter.local };
            inbox.spare.push(letter.bytes);
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// One of quinn's tasks waiting until the socket takes more.
struct Writable {
    wire: Arc<Wire>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.wire.clone();
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { wire.socket.writable().await }));
        let ready = waiting.as_mut().poll(cx);
        if ready.is_ready() {
            self.waiting = None;
        }
        ready
    }
}

impl std::fmt::Debug for Writable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writable(..)")
    }
}
