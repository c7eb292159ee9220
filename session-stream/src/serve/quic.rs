//! Clients and nodes on the QUIC port: handshakes, seats, and attending to each connection's commands. Neighbours: `quic`
//! (how it is spoken), `peers` (connections between nodes), `actor` (whom commands are brought to).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::actor::{Actor, Subscriber};
use super::envelope::{self, To};
use super::peers::Peers;
use super::seats::{Seat, Seats};
use crate::node::io::{Conn, Input, NodeKey, Origin};
use crate::quic::stream::{Answer, Budget, Command, RequestStream};
use crate::quic::{HANDSHAKE_PATIENCE, NODES, code, tls};

/// Handshakes above which a stranger must first show that it receives at its address.
const RETRY_ABOVE: usize = 64;
/// Handshakes at a time; more are turned away.
const HANDSHAKES_MAX: usize = 1024;
/// Commands under way on one connection; others wait, and flow control makes the sender wait.
const COMMANDS_MAX: usize = 32;
/// How long a call may take altogether; the machine's own patience ends long before.
const CALL_PATIENCE: Duration = Duration::from_secs(60);

/// Attends to connections; clones share everything.
#[derive(Clone)]
pub struct Attendant {
    actor: Actor,
    peers: Arc<Peers>,
    seats: Seats,
    budget: Budget,
}

/// Who is at the other end.
#[derive(Clone, Copy)]
enum Who {
    Client(IpAddr, Conn),
    Node(NodeKey),
}

impl Attendant {
    /// Brings commands to `actor`; bytes under way are bounded by `budget`, clients by `seats`.
    pub fn new(actor: Actor, peers: Arc<Peers>, seats: Seats, budget: Budget) -> Attendant {
        Attendant { actor, peers, seats, budget }
    }

    /// Accepts until the endpoint is closed.
    pub async fn accept(self, endpoint: Endpoint) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        while let Some(incoming) = endpoint.accept().await {
            let under_way = HANDSHAKES_MAX - handshakes.available_permits();
            if under_way >= RETRY_ABOVE && !incoming.remote_address_validated() {
                let _ = incoming.retry();
                continue;
            }
            let Ok(permit) = handshakes.clone().try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            let Some(seat) = self.seats.take(incoming.remote_address().ip()) else {
                incoming.refuse();
                continue;
            };
            let attendant = self.clone();
            tokio::spawn(async move {
                let connection = shake(incoming).await;
                drop(permit);
                if let Some(connection) = connection {
                    attendant.welcome(connection, seat).await;
                }
            });
        }
    }

    /// A handshake is done.
    async fn welcome(self, connection: Connection, seat: Seat) {
        if tls::protocol(&connection).as_deref() != Some(NODES) {
            let who = Who::Client(connection.remote_address().ip().to_canonical(), self.actor.number());
            let (commands, arriving) = mpsc::channel(1);
            self.attend(connection, who, commands, arriving).await;
            drop(seat);
            return;
        }
        let Some(peer) = tls::proven(&connection).map(NodeKey) else { return };
        let (commands, arriving) = mpsc::channel(1);
        if self.peers.accepted(peer, &connection, commands.clone()) {
            self.attend(connection, Who::Node(peer), commands, arriving).await;
        } else {
            connection.close(code::NOT_A_NODE, b"you are not on my list of nodes");
        }
        drop(seat);
    }

    /// Attends to a connection that we dialled; returns where commands on streams we open go.
    pub fn attend_peer(self, peer: NodeKey, connection: Connection) -> mpsc::Sender<Box<Command>> {
        let (commands, arriving) = mpsc::channel(1);
        tokio::spawn(self.attend(connection, Who::Node(peer), commands.clone(), arriving));
        commands
    }

    /// Takes streams and commands until the connection ends.
    async fn attend(
        self,
        connection: Connection,
        who: Who,
        commands: mpsc::Sender<Box<Command>>,
        mut arriving: mpsc::Receiver<Box<Command>>,
    ) {
        let room = Arc::new(Semaphore::new(COMMANDS_MAX));
        loop {
            tokio::select! {
                stream = connection.accept_bi() => {
                    let Ok((send, recv)) = stream else { break };
                    let first = send.id().index() == 0;
                    let stream = RequestStream::over(&connection, send, recv, commands.clone(), &self.budget);
                    if let (Who::Client(_, conn), true) = (who, first) {
                        let connection = connection.clone();
                        self.actor.opened(conn, Subscriber { stream, connection }).await;
                    }
                }
                Some(command) = arriving.recv() => {
                    let Command { endpoint, body, answer } = *command;
                    let permit = tokio::select! {
                        permit = room.clone().acquire_owned() => permit,
                        _ = connection.closed() => break,
                    };
                    let actor = self.actor.clone();
                    tokio::spawn(async move {
                        carry(&actor, who, endpoint, body, answer).await;
                        drop(permit);
                    });
                }
            }
        }
        if let Who::Client(_, conn) = who {
            self.actor.happened(Input::Closed(conn)).await;
        }
    }
}

async fn shake(incoming: Incoming) -> Option<Connection> {
    timeout(HANDSHAKE_PATIENCE, incoming.accept().ok()?).await.ok()?.ok()
}

/// Brings one command to the machine, and its answer back.
async fn carry(actor: &Actor, who: Who, endpoint: String, body: bytes::Bytes, answer: Answer) {
    let (origin, to) = match who {
        Who::Client(ip, conn) => (Origin::Quic(ip, conn), To::Client),
        Who::Node(key) => (Origin::Peer(key), To::Node),
    };
    if let Ok(answered) = timeout(CALL_PATIENCE, actor.call(origin, endpoint, body)).await {
        answer.give(envelope::seal(answered.status, answered.body, to)).await;
    }
}
