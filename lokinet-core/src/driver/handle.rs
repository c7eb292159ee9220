//! The way in for everything that is not the node's loop: ask for a name, look at the node, hear its milestones, stop
//! it. Cheap to clone and usable from any thread. Neighbours: `driver` owns the other end; the daemon's DNS server and
//! control socket hold this one.

use crate::flow::question::{Answer, Code, Question};
use crate::node::io::Event;
use crate::node::report::Report;
use crate::wire::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Commands that may wait for the loop; askers beyond it wait their turn.
pub(super) const COMMANDS_WAITING: usize = 256;
/// Milestones a slow listener may fall behind before it misses some.
pub(super) const EVENTS_WAITING: usize = 64;

/// What a handle tells the loop.
pub(super) enum Command {
    Ask(Question, oneshot::Sender<Answer>),
    Report(oneshot::Sender<Report>),
    Registry(Registry),
    Stop(oneshot::Sender<()>),
}

/// A running node, as the rest of the process knows it. When the last handle is dropped, the node stops.
#[derive(Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) bound: Arc<[SocketAddr]>,
}

impl Handle {
    /// The answer to a name question; `ServFail` when the node is gone or has too much to do.
    pub async fn answer(&self, question: Question) -> Answer {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Ask(question, reply)).await.is_err() {
            return Answer::empty(Code::ServFail);
        }
        answer.await.unwrap_or_else(|_| Answer::empty(Code::ServFail))
    }

    /// A look at the node; `None` when it is gone.
    pub async fn report(&self) -> Option<Report> {
        let (reply, report) = oneshot::channel();
        self.commands.send(Command::Report(reply)).await.ok()?;
        report.await.ok()
    }

    /// Gives the node an edition of the registry; it takes only a newer one than it has.
    pub async fn registry(&self, registry: Registry) {
        let _ = self.commands.send(Command::Registry(registry)).await; // fails only when the node is gone
    }

    /// The node's milestones from now on. Subscribe before the node's future first runs and none is missed.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The addresses the sockets got, in the order they were asked for.
    pub fn bound(&self) -> &[SocketAddr] {
        &self.bound
    }

    /// Says goodbye to the network and returns when the node has stopped.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }
}
