//! What waits for quinn: datagrams that no channel of ours made, copied out of whatever message they came in. Whoever
//! receives puts them in, from any thread; quinn's endpoint takes them out. Neighbours: `socket` sorts, `quic` reads
//! through `Wire`.

use quinn::udp::{EcnCodepoint, RecvMeta};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Largest datagram quinn accepts (its `max_udp_payload_size`).
pub(super) const LETTER_MAX: usize = 1472;
/// Datagrams that may wait for quinn; more are dropped, as a full kernel buffer would.
pub(super) const LETTERS_WAITING: usize = 1024;

/// One address's queue to quinn.
#[derive(Default)]
pub(crate) struct Letters {
    inbox: Mutex<Inbox>,
    /// Datagrams that quinn had no room for.
    pub(crate) dropped: AtomicU64,
    /// Receive calls that failed.
    pub(crate) receive_errors: AtomicU64,
}

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

impl Letters {
    pub(super) fn deliver(&self, bytes: &[u8], meta: &RecvMeta) {
        let mut inbox = self.inbox();
        if bytes.len() > LETTER_MAX || inbox.letters.len() >= LETTERS_WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut copy = inbox.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        inbox.letters.push_back(Letter { from: meta.addr, ecn: meta.ecn, local: meta.dst_ip, bytes: copy });
    }

    /// Has quinn look; to be called after something was delivered.
    pub(super) fn wake(&self) {
        let waker = self.inbox().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.inbox().letters.len()
    }

    pub(super) fn poll_recv(
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

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
