//! Questions that are not ours, asked of other resolvers with the client's own bytes: only the number is replaced, by
//! one of chance, and each question leaves from a port of chance, so that forging a reply means guessing both.
//! Neighbours: `server` decides what comes here, `codec` judges what comes back.

use super::codec::{Asked, Over, Verdict};
use lokinet_core::flow::lease::Range;
use lokinet_core::flow::question::{Answer, Code};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

/// How long one resolver may take before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each is asked: a datagram may be lost.
const ROUNDS: usize = 2;

/// The configured resolvers.
pub(super) struct Upstream {
    servers: Vec<SocketAddr>,
    from: Option<IpAddr>,
    range: Option<Range>,
}

/// Why a resolver gave nothing that can be passed on.
enum Failed {
    /// Another may do better.
    Server(io::Error),
    /// What the name says is not acceptable, whoever says it.
    Name,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Server(error)
    }
}

impl Upstream {
    pub(super) fn new(servers: Vec<SocketAddr>, from: Option<IpAddr>, range: Option<Range>) -> Upstream {
        Upstream { servers, from, range }
    }

    /// The reply for the client. Without any resolver the client is refused at once: it may have another of its own.
    pub(super) async fn ask(&self, asked: &Asked, query: &[u8], over: Over) -> Vec<u8> {
        if self.servers.is_empty() {
            return asked.answer(&Answer::empty(Code::Refused), over);
        }
        for server in self.servers.iter().cycle().take(self.servers.len() * ROUNDS) {
            match timeout(PATIENCE, self.ask_one(*server, asked, query, over)).await {
                Ok(Ok(reply)) => return reply,
                Ok(Err(Failed::Server(error))) => tracing::debug!("the resolver {server} failed: {error}"),
                Ok(Err(Failed::Name)) => {
                    tracing::debug!("a reply of the resolver {server} pointed into our own range");
                    break;
                }
                Err(_) => tracing::debug!("the resolver {server} does not answer"),
            }
        }
        asked.answer(&Answer::empty(Code::ServFail), over)
    }

    async fn ask_one(&self, server: SocketAddr, asked: &Asked, query: &[u8], over: Over) -> Result<Vec<u8>, Failed> {
        let id = getrandom::u32().map_err(|_| io::Error::other("the system gave no randomness"))? as u16;
        let mut query = query.to_vec();
        query[..2].copy_from_slice(&id.to_be_bytes());
        match over {
            Over::Udp => self.by_udp(server, asked, &query, id).await,
            Over::Tcp => self.by_tcp(server, asked, &query, id).await,
        }
    }

    async fn by_udp(&self, server: SocketAddr, asked: &Asked, query: &[u8], id: u16) -> Result<Vec<u8>, Failed> {
        let socket = UdpSocket::bind(self.source(server)).await?;
        socket.connect(server).await?; // from here on, only this server is heard
        socket.send(query).await?;
        let mut bytes = vec![0; asked.limit(Over::Udp)];
        loop {
            let length = socket.recv(&mut bytes).await?;
            let reply = &bytes[..length];
            match asked.judge(reply, id, self.range.as_ref()) {
                Verdict::Good => return Ok(under_its_number(reply, asked)),
                Verdict::Truncated => return Ok(asked.truncated()),
                Verdict::Stray => {}
                Verdict::Broken => return Err(unreadable()),
                Verdict::Rebinding => return Err(Failed::Name),
            }
        }
    }

    async fn by_tcp(&self, server: SocketAddr, asked: &Asked, query: &[u8], id: u16) -> Result<Vec<u8>, Failed> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(self.source(server))?;
        let mut stream = socket.connect(server).await?;
        stream.write_all(&framed(query)).await?;
        let length = stream.read_u16().await?;
        let mut reply = vec![0; length.into()];
        stream.read_exact(&mut reply).await?;
        match asked.judge(&reply, id, self.range.as_ref()) {
            Verdict::Good => Ok(under_its_number(&reply, asked)),
            Verdict::Rebinding => Err(Failed::Name),
            Verdict::Truncated | Verdict::Stray | Verdict::Broken => Err(unreadable()),
        }
    }

    /// Where a question to `server` leaves from: the configured address when it is of the same kind, and any port.
    fn source(&self, server: SocketAddr) -> SocketAddr {
        let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let from = self.from.filter(|from| from.is_ipv4() == server.is_ipv4());
        SocketAddr::new(from.unwrap_or(any), 0)
    }
}

fn unreadable() -> Failed {
    Failed::Server(io::Error::new(io::ErrorKind::InvalidData, "its reply cannot be read"))
}

/// The reply as it came, under the number by which the client knows it.
fn under_its_number(reply: &[u8], asked: &Asked) -> Vec<u8> {
    let mut reply = reply.to_vec();
    reply[..2].copy_from_slice(&asked.id().to_be_bytes());
    reply
}

/// A message as TCP carries it: its length, then itself.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&message[..length.into()]);
    framed
}
