//! The resolver that programs ask (`[dns] bind`, 127.3.2.1:53): names of ours go to the node, all others to the
//! configured upstreams, and never the one to the other. Neighbours: `dns::codec` reads and writes messages,
//! `dns::server` speaks UDP and TCP with programs, `dns::upstream` with other resolvers; the node behind [`Answerer`]
//! decides answers.

mod codec;
#[doc(hidden)]
pub mod fuzzing;
mod server;
mod upstream;

use lokinet_core::driver::Handle;
use lokinet_core::flow::lease::Range;
use lokinet_core::flow::question::{Answer, Question};
use server::Desk;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use upstream::Upstream;

/// How often a free port is looked for that both UDP and TCP can have, when any will do.
const PORT_TRIES: u32 = 16;

/// Whoever answers questions about names of ours.
pub trait Answerer: Clone + Send + Sync + 'static {
    /// The answer; it may take as long as a session takes to build.
    fn answer(&self, question: Question) -> impl Future<Output = Answer> + Send;
}

impl Answerer for Handle {
    fn answer(&self, question: Question) -> impl Future<Output = Answer> + Send {
        Handle::answer(self, question)
    }
}

/// Why there is no resolver.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum DnsError {
    #[error("cannot serve DNS on {addr}: {error}{}", remedy(.error.kind()))]
    Bind { addr: SocketAddr, error: io::Error },
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => ": another resolver or lokinet? Stop it, or choose another [dns] bind",
        io::ErrorKind::AddrNotAvailable => ": no interface has this address (is loopback up?): change [dns] bind",
        io::ErrorKind::PermissionDenied => {
            ": ports below 1024 need root or CAP_NET_BIND_SERVICE: grant it, or choose another [dns] bind"
        }
        _ => ": change [dns] bind",
    }
}

/// Sockets that programs can ask already; they are answered once [`Bound::serve`] runs.
pub struct Bound {
    sockets: Vec<(SocketAddr, UdpSocket, TcpListener)>,
}

/// Binds each address for UDP and TCP; port 0 is any port that is free for both. Runs inside a tokio runtime.
///
/// # Errors
/// When the host refuses an address; the error names it and how to mend it.
pub async fn bind(addrs: &[SocketAddr]) -> Result<Bound, DnsError> {
    let mut sockets = Vec::new();
    for &addr in addrs {
        sockets.push(bind_both(addr).await.map_err(|error| DnsError::Bind { addr, error })?);
    }
    Ok(Bound { sockets })
}

async fn bind_both(addr: SocketAddr) -> io::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let udp = UdpSocket::bind(addr).await?;
        let local = udp.local_addr()?;
        tries += 1;
        match TcpListener::bind(local).await {
            Ok(tcp) => return Ok((local, udp, tcp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && addr.port() == 0 && tries < PORT_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

impl Bound {
    /// The addresses the sockets got, in the order they were asked for.
    pub fn local(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(local, ..)| *local).collect()
    }

    /// Answers questions until dropped. `range` is the TUN device's, whose reverse names are ours; other names are
    /// asked of `upstream`, in this order, from the address of `query_bind` (always from a port of chance).
    pub async fn serve<A: Answerer>(
        self,
        node: A,
        range: Option<Range>,
        upstream: Vec<SocketAddr>,
        query_bind: Option<SocketAddr>,
    ) {
        let upstream = Upstream::new(upstream, query_bind.map(|from| from.ip()), range);
        let desk = Arc::new(Desk::new(node, range, upstream));
        let mut counters = JoinSet::new();
        for (_, udp, tcp) in self.sockets {
            counters.spawn(server::udp(desk.clone(), Arc::new(udp)));
            counters.spawn(server::tcp(desk.clone(), tcp));
        }
        while let Some(ended) = counters.join_next().await {
            if let Err(error) = ended {
                tracing::error!("a DNS socket is no longer served, restart lokinet: {error}");
            }
        }
        std::future::pending().await
    }
}
