//! A BT request stream over QUIC: commands go both ways, each answered on the same stream, in any order. Two small tasks
//! read and write; everything that waits is bounded, and a frame that does not come to its end is not waited for. It is
//! the same for nodes and clients, for calls and for pushes. Neighbours: `frame` (the bytes), `serve` and `client`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::code;
use crate::frame::{FRAME_MAX, Frame, Reader};

/// How long a frame may take from its first byte to its last, and how long the other side may take to fetch one.
pub const FRAME_PATIENCE: Duration = Duration::from_secs(30);
/// Frames that may wait to be written. Channels keep room for 32 of what they carry, so what they carry is boxed: there
/// may be ten thousand of them.
const QUEUE_MAX: usize = 4096;
/// Bytes of pushes that may wait to be written to one connection.
const PUSHES_MAX: usize = 4 << 20;
/// What needs no room in a budget, in bytes.
const SMALL: usize = 4 << 10;
/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// Bytes that requests and answers may take together, over all connections that share it.
#[derive(Clone)]
pub struct Budget(Arc<AtomicUsize>, usize);

impl Budget {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Budget {
        Budget(Arc::default(), bytes)
    }

    /// A share of it, empty at first.
    pub fn share(&self) -> Share {
        Share(self.clone(), 0)
    }
}

/// A part of a [`Budget`]; given back when dropped.
pub struct Share(Budget, usize);

impl Share {
    /// Takes more; whether there was so much. What is small is always let through: others' mail must not stop a word.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Budget(taken, limit) = &self.0;
        self.1 += bytes;
        taken.fetch_add(bytes, Ordering::Relaxed) + bytes <= *limit || self.1 <= SMALL
    }

    /// Gives `bytes` of it to a share of its own.
    fn split(&mut self, bytes: usize) -> Share {
        let bytes = bytes.min(self.1);
        self.1 -= bytes;
        Share(self.0.clone(), bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Why a request has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// It did not come in time.
    #[error("no answer in time")]
    Timeout,
    /// The stream or its connection ended.
    #[error("the connection ended")]
    Closed,
    /// The other side says no, in its own words.
    #[error("refused: {}", String::from_utf8_lossy(.0))]
    Refused(Bytes),
    /// The request is longer than a frame can be.
    #[error("the request is too long: a frame holds {FRAME_MAX} bytes")]
    TooLong,
}

/// A command that came in.
pub struct Command {
    /// What is called.
    pub endpoint: String,
    /// With what.
    pub body: Bytes,
    /// Where its answer goes; dropping it leaves the command unanswered.
    pub answer: Answer,
}

/// Answers one command.
pub struct Answer {
    id: i64,
    stream: RequestStream,
    room: Share,
}

impl Answer {
    /// Answers, with `Ok` what was asked for or with `Err` why not; waits until the other side has room. What no frame
    /// can hold, or the budget has no room for, becomes an error.
    pub async fn give(mut self, answer: Result<Bytes, Bytes>) {
        let id = self.id;
        let length = answer.as_ref().map_or_else(Bytes::len, Bytes::len);
        let frame = match answer {
            _ if !self.room.grow(length) => {
                Frame::Error { id, body: "503 Service Unavailable\n\nToo much at once, try again later".into() }
            }
            Ok(body) => Frame::Reply { id, body },
            Err(body) => Frame::Error { id, body },
        };
        let bytes = frame.write().or_else(|_| {
            Frame::Error { id, body: "413 Content Too Large\n\nThe answer is longer than a frame".into() }.write()
        });
        let Ok(bytes) = bytes else { return };
        let _ = self.stream.queue.send(Box::new(Queued { bytes, room: Some(self.room), push: 0 })).await;
    }
}

/// One stream; clones are the same stream. It lives as long as its connection.
#[derive(Clone)]
pub struct RequestStream {
    queue: mpsc::Sender<Box<Queued>>,
    desk: Arc<Desk>,
}

struct Desk {
    asked: Mutex<Asked>,
    pushes: AtomicUsize,
    open: AtomicUsize,
}

#[derive(Default)]
struct Asked {
    last: i64,
    waiting: BTreeMap<i64, oneshot::Sender<Result<Bytes, RequestError>>>,
    over: bool,
}

struct Queued {
    bytes: Bytes,
    /// Held until it is written.
    room: Option<Share>,
    /// How much of the pushes' bound it takes.
    push: usize,
}

/// A push that does not fit any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl RequestStream {
    /// Opens a stream; commands that come on it go to `commands`.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn open(
        connection: &Connection,
        commands: mpsc::Sender<Box<Command>>,
        budget: &Budget,
    ) -> Result<RequestStream, RequestError> {
        let (send, recv) = connection.open_bi().await.map_err(|_| RequestError::Closed)?;
        Ok(RequestStream::over(connection, send, recv, commands, budget))
    }

    /// Speaks over a stream that is open.
    pub fn over(
        connection: &Connection,
        send: SendStream,
        recv: RecvStream,
        commands: mpsc::Sender<Box<Command>>,
        budget: &Budget,
    ) -> RequestStream {
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let desk = Desk { asked: Mutex::default(), pushes: AtomicUsize::new(0), open: AtomicUsize::new(0) };
        let stream = RequestStream { queue, desk: Arc::new(desk) };
        tokio::spawn(write(connection.clone(), send, queued, stream.desk.clone()));
        tokio::spawn(read(recv, stream.clone(), commands, budget.clone()));
        stream
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// There is none, or it is no.
    pub async fn request(&self, endpoint: &str, body: Bytes, patience: Duration) -> Result<Bytes, RequestError> {
        let deadline = Instant::now() + patience;
        let (id, answer) = self.desk.ask()?;
        let _counted = Counted::new(&self.desk.open);
        let frame = Frame::Command { id, endpoint: endpoint.to_owned(), body };
        let bytes = match frame.write() {
            Ok(bytes) => bytes,
            Err(_) => {
                self.desk.forget(id);
                return Err(RequestError::TooLong);
            }
        };
        let asking = async {
            let sent = self.queue.send(Box::new(Queued { bytes, room: None, push: 0 })).await;
            sent.map_err(|_| RequestError::Closed)?;
            answer.await.unwrap_or(Err(RequestError::Closed))
        };
        let answer = timeout_at(deadline, asking).await;
        self.desk.forget(id);
        answer.unwrap_or(Err(RequestError::Timeout))
    }

    /// Sends a command that nobody answers, if there is room for it at once.
    ///
    /// # Errors
    /// There is none: the other side does not read.
    pub fn push(&self, endpoint: &str, body: Bytes) -> Result<(), Full> {
        let id = self.desk.number();
        let bytes = Frame::Command { id, endpoint: endpoint.to_owned(), body }.write().map_err(|_| Full)?;
        let push = bytes.len();
        if self.desk.pushes.fetch_add(push, Ordering::Relaxed) + push > PUSHES_MAX {
            self.desk.pushes.fetch_sub(push, Ordering::Relaxed);
            return Err(Full);
        }
        self.queue.try_send(Box::new(Queued { bytes, room: None, push })).map_err(|_| Full)
    }

    /// Requests that wait for their answers.
    pub fn outstanding(&self) -> usize {
        self.desk.open.load(Ordering::Relaxed)
    }
}

/// Counts while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Desk {
    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> i64 {
        let mut asked = self.asked();
        let id = asked.last;
        asked.last += 1;
        id
    }

    fn ask(&self) -> Result<(i64, oneshot::Receiver<Result<Bytes, RequestError>>), RequestError> {
        let (sender, receiver) = oneshot::channel();
        let mut asked = self.asked();
        if asked.over {
            return Err(RequestError::Closed);
        }
        let id = asked.last;
        asked.last += 1;
        asked.waiting.insert(id, sender);
        Ok((id, receiver))
    }

    fn forget(&self, id: i64) {
        self.asked().waiting.remove(&id);
    }

    /// Hands an answer to who waits for it; one that nobody waits for is not heard.
    fn answered(&self, id: i64, answer: Result<Bytes, RequestError>) {
        if let Some(waiting) = self.asked().waiting.remove(&id) {
            let _ = waiting.send(answer);
        }
    }

    fn over(&self) {
        let mut asked = self.asked();
        asked.over = true;
        asked.waiting.clear(); // who waits there is woken by it
    }
}

async fn write(connection: Connection, mut send: SendStream, mut queued: mpsc::Receiver<Box<Queued>>, desk: Arc<Desk>) {
    let mut stopped = std::pin::pin!(send.stopped());
    loop {
        let next = tokio::select! {
            next = queued.recv() => next,
            // The other side reads no further: whoever waits for an answer waits in vain.
            _ = &mut stopped => None,
        };
        let Some(next) = next else { break };
        let Queued { bytes, room, push } = *next;
        let written = timeout(FRAME_PATIENCE, send.write_all(&bytes)).await;
        desk.pushes.fetch_sub(push, Ordering::Relaxed);
        drop(room);
        match written {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break,
            Err(_) => {
                connection.close(code::TOO_SLOW, b"you do not read");
                break;
            }
        }
    }
    desk.over();
    let _ = send.finish();
}

async fn read(mut recv: RecvStream, stream: RequestStream, commands: mpsc::Sender<Box<Command>>, budget: Budget) {
    let reason = receive(&mut recv, &stream, &commands, &budget).await;
    if let Err(code) = reason {
        let _ = recv.stop(code);
    }
    stream.desk.over();
}

/// Reads until the stream ends; the code to stop it with, if we end it.
async fn receive(
    recv: &mut RecvStream,
    stream: &RequestStream,
    commands: &mpsc::Sender<Box<Command>>,
    budget: &Budget,
) -> Result<(), quinn::VarInt> {
    let mut reader = Reader::default();
    let mut room = budget.share();
    let mut began: Option<Instant> = None;
    loop {
        let piece = recv.read_chunk(PIECE, true);
        let piece = match began {
            None => piece.await,
            Some(began) => timeout_at(began + FRAME_PATIENCE, piece).await.map_err(|_| code::STREAM)?,
        };
        let Ok(Some(piece)) = piece else { return Ok(()) };
        if !room.grow(piece.bytes.len()) {
            return Err(code::STREAM);
        }
        reader.take(&piece.bytes);
        let mut whole = false;
        while let Some(frame) = reader.frame().map_err(|_| code::FRAMING)? {
            whole = true;
            match frame {
                Frame::Command { id, endpoint, body } => {
                    let room = room.split(body.len());
                    let answer = Answer { id, stream: stream.clone(), room };
                    commands.send(Box::new(Command { endpoint, body, answer })).await.map_err(|_| code::STREAM)?;
                }
                Frame::Reply { id, body } => stream.desk.answered(id, Ok(body)),
                Frame::Error { id, body } => stream.desk.answered(id, Err(RequestError::Refused(body))),
            }
        }
        drop(room.split(room.1.saturating_sub(reader.held())));
        let goes_on = began.filter(|_| !whole);
        began = reader.unfinished().then(|| goes_on.unwrap_or_else(Instant::now));
    }
}

#[cfg(test)]
mod tests;
