//! The UDP sockets, shared by cells and QUIC. Whoever receives, the loop by a [`Wire`] or a thread of the crew by a [`Line`],
//! drains a socket with recvmmsg and GRO, looks at every segment, keeps cells where they lie and copies the rest into quinn's
//! queue. Sending is one GSO call per run of equal cells. Nothing is allocated or locked per cell. Neighbours: `driver` and
//! `crew` call it, `quic` gets its packets from it, `node` says what a cell is.

use super::DriverError;
use super::crew::room;
use crate::node::io::Run;
use crate::node::worker::Worker;
use crate::time::Time;
use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, Protocol, Socket, Type};
use std::future::Future;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

mod letters;
#[cfg(test)]
mod tests;

pub(crate) use letters::Letters;

/// Kernel buffer asked for on the way in; the kernel may grant less.
const RECEIVE_BUFFER: usize = 4 << 20;
/// And on the way out. A relay's is fitted to its interface: what that does not take is to wait where paths have their turns,
/// and not in one line in the kernel. A client has nobody whom its own traffic could hold up.
const SEND_BUFFER: usize = 4 << 20;
/// Room for one message: GRO never joins more.
const SLOT: usize = 1 << 16;
/// Messages taken before their cells are worked on: four recvmmsg calls, at most 8 MiB of cells, usually far less.
/// Pages of a slot that no message reached are never touched and cost nothing.
const SLOTS: usize = 4 * BATCH_SIZE;
/// The kernel's limits on one GSO send: segments, and bytes with room for headers.
const SEGMENTS_MAX: usize = 64;
const SEND_MAX: usize = 65_000;
/// How long one full socket may hold up the loop before cells are dropped.
const FULL_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// How long one of quinn's tasks waits before it tries a full socket again.
const QUIC_PATIENCE: Duration = Duration::from_millis(1);

/// Binds one UDP socket per address.
///
/// # Errors
/// When an address cannot be bound; the error names it and says what to do.
pub fn bind(addrs: &[SocketAddr]) -> Result<Vec<UdpSocket>, DriverError> {
    let bound = bind_each(addrs, 1)?;
    Ok(bound.into_iter().flatten().collect())
}

/// Binds so many UDP sockets per address, which share it: the kernel gives all that comes from one place to the same one.
///
/// # Errors
/// As for [`bind`].
pub(crate) fn bind_each(addrs: &[SocketAddr], count: usize) -> Result<Vec<Vec<UdpSocket>>, DriverError> {
    if addrs.is_empty() {
        return Err(DriverError::NoAddress);
    }
    addrs.iter().map(|&addr| bind_group(addr, count).map_err(|error| DriverError::Bind { addr, error })).collect()
}

fn bind_group(addr: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    // Sockets that share an address would share it with another lokinet's too; so it must first be ours alone.
    let alone = bind_one(addr, false)?;
    if count <= 1 {
        return Ok(vec![alone]);
    }
    let addr = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| bind_one(addr, true)).collect()
}

fn bind_one(addr: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?; // IPv4 has its own socket, on the same port if asked for
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    // With CAP_NET_ADMIN past the system's limit, without it up to there.
    #[cfg(target_os = "linux")]
    let forced = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_ok();
    #[cfg(not(target_os = "linux"))]
    let forced = false;
    if !forced {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// One address as the loop and quinn have it. The reactor watches only whether something can be read: woken for every
/// datagram that has left, a sender would sleep no more.
pub(crate) struct Wire {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// Quinn's queue.
    pub(crate) letters: Arc<Letters>,
    /// A duplicate of the socket's descriptor, where the loop receives.
    ready: Option<AsyncFd<OwnedFd>>,
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
                        wire.letters.deliver(bytes, meta);
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
            wire.letters.wake();
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
    /// A bound socket that the loop receives from, registered with tokio's reactor.
    pub(crate) fn watched(socket: UdpSocket) -> io::Result<Wire> {
        let mut wire = Wire::unwatched(socket)?;
        let watched: OwnedFd = wire.socket.try_clone()?.into();
        // As for the TUN device: the descriptor is owned, so the deprecated constructor is sound here.
        #[expect(deprecated)]
        let ready = AsyncFd::with_interest(watched, Interest::READABLE)?;
        wire.ready = Some(ready);
        Ok(wire)
    }

    /// A bound socket that others receive from.
    pub(crate) fn unwatched(socket: UdpSocket) -> io::Result<Wire> {
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?;
        Ok(Wire { socket, state, local, letters: Arc::default(), ready: None })
    }

    /// Where it is bound.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Ready when a message may wait. For the loop alone: it remembers one waker.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.ready {
            Some(ready) => ready.poll_read_ready(cx).map(drop),
            None => Poll::Pending,
        }
    }

    fn receive(&self, batch: &mut [u8], meta: &mut [RecvMeta; BATCH_SIZE]) -> Option<usize> {
        let mut slots = batch.chunks_exact_mut(SLOT);
        let mut slots: [_; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        let mut received = None;
        // A batch that is not full has emptied the socket: the reactor is told so, and nobody asks in vain.
        let _ = self.ready.as_ref()?.try_io(Interest::READABLE, |_| {
            received = receive(&self.socket, &self.state, &self.letters, &mut slots, meta)?;
            if received == Some(BATCH_SIZE) { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
        });
        received
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
        let mut rest = bytes;
        loop {
            match send(&self.socket, &self.state, to, source, segment, rest) {
                Sent::All => return 0,
                Sent::Dropped(cells) => return cells,
                Sent::Full(at) => rest = rest.get(at..).unwrap_or_default(),
            }
            if *waits == 0 {
                return rest.len().div_ceil(segment);
            }
            *waits -= 1;
            let mut full = [PollFd::new(&self.socket, PollFlags::OUT)];
            let _ = rustix::event::poll(&mut full, Some(&FULL_PATIENCE));
        }
    }
}

/// One address as a thread of the crew has it: a socket, and the memory that messages land in.
pub(crate) struct Line {
    socket: UdpSocket,
    state: UdpSocketState,
    slots: Vec<Vec<u8>>,
}

impl Line {
    /// A bound socket of a relay's.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Line> {
        let state = UdpSocketState::new((&socket).into())?;
        let line = Line { socket, state, slots: vec![Vec::new(); BATCH_SIZE] };
        line.hold(room::MOST);
        Ok(line)
    }

    /// Lets the socket hold so much that has not left yet.
    pub(crate) fn hold(&self, bytes: usize) {
        let _ = socket2::SockRef::from(&self.socket).set_send_buffer_size(bytes);
    }

    /// To be waited on.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Takes what waits, up to [`SLOTS`] messages: to the worker, and what is quinn's to quinn.
    pub(crate) fn receive(&mut self, letters: &Letters, worker: &mut Worker, now: Time) {
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let mut delivered = false;
        for _ in 0..SLOTS / BATCH_SIZE {
            for slot in self.slots.iter_mut().filter(|slot| slot.is_empty()) {
                *slot = worker.spare();
                if slot.len() < SLOT {
                    *slot = vec![0; SLOT]; // pages that no message reaches are never touched
                }
            }
            let mut slots = self.slots.iter_mut();
            let mut slots: [_; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(slots.next().map(Vec::as_mut_slice).unwrap_or_default()));
            let received = receive(&self.socket, &self.state, letters, &mut slots, &mut meta);
            let count = received.ok().flatten().unwrap_or(0);
            for (slot, meta) in self.slots.iter_mut().zip(&meta).take(count) {
                worker.take(std::mem::take(slot), meta.len, meta.stride, now, &mut |letter| {
                    letters.deliver(letter, meta);
                    delivered = true;
                });
            }
            if delivered {
                letters.wake();
            }
            if count < BATCH_SIZE {
                break; // empty now
            }
        }
    }

    /// Sends a run of equal cells.
    pub(crate) fn send(&self, to: SocketAddr, source: Option<IpAddr>, segment: usize, bytes: &[u8]) -> Sent {
        send(&self.socket, &self.state, to, source, segment, bytes)
    }
}

/// How many messages came; nothing after an error, which is counted.
fn receive(
    socket: &UdpSocket,
    state: &UdpSocketState,
    letters: &Letters,
    slots: &mut [IoSliceMut<'_>; BATCH_SIZE],
    meta: &mut [RecvMeta; BATCH_SIZE],
) -> io::Result<Option<usize>> {
    match state.recv(socket.into(), slots, meta) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
        Err(_) => {
            letters.receive_errors.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
    }
}

/// What became of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// All of it has left.
    All,
    /// So many cells cannot be sent; the others have left.
    Dropped(usize),
    /// The socket is full; what lies before this byte is done with.
    Full(usize),
}

fn send(
    socket: &UdpSocket,
    state: &UdpSocketState,
    to: SocketAddr,
    source: Option<IpAddr>,
    segment: usize,
    bytes: &[u8],
) -> Sent {
    if segment == 0 {
        return Sent::All;
    }
    let (mut dropped, mut at) = (0, 0);
    while at < bytes.len() {
        let most = state.max_gso_segments().min(SEGMENTS_MAX).min(SEND_MAX / segment).max(1);
        let chunk = &bytes[at..bytes.len().min(at + most * segment)];
        let joined = (chunk.len() > segment).then_some(segment);
        let transmit = Transmit { destination: to, ecn: None, contents: chunk, segment_size: joined, src_ip: source };
        match state.try_send(socket.into(), &transmit) {
            Ok(()) => at += chunk.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Sent::Full(at),
            // The interface cannot segment after all; quinn-udp has noted it, so this chunk goes one by one.
            Err(_) if joined.is_some() && state.max_gso_segments() == 1 => {}
            Err(_) => {
                dropped += chunk.len().div_ceil(segment);
                at += chunk.len();
            }
        }
    }
    if dropped > 0 { Sent::Dropped(dropped) } else { Sent::All }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire(..)")
    }
}

impl AsyncUdpSocket for Wire {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.state.try_send((&self.socket).into(), transmit) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
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
        self.letters.poll_recv(cx, bufs, meta)
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

/// One of quinn's tasks that found the socket full: it looks again a moment later.
struct Writable {
    waiting: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(QUIC_PATIENCE)));
        let ready = waiting.as_mut().poll(cx);
        if ready.is_ready() {
            self.waiting = None;
        }
        ready.map(Ok)
    }
}

impl std::fmt::Debug for Writable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writable(..)")
    }
}
