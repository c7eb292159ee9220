//! Names asked of a client: what can be answered at once is, a service's address is answered when the conversation
//! with it is open, or when it is sure that there will be none. Neighbours: `flow::dns` decides what answers say,
//! `session` makes the conversations.

use super::Client;
use crate::flow::dns::{self, Step, View};
use crate::flow::question::{Answer, Code, Question};
use crate::node::Core;
use crate::node::io::{Output, Ticket};
use crate::session::{Failed, Remote, Road};
use crate::time::Now;
use crate::wire::address::LokiAddress;

/// Most questions that wait for conversations.
pub const WAITING_MAX: usize = 1024;

impl Client {
    /// A program asks for a name of ours.
    pub(in crate::node) fn dns(&mut self, ticket: Ticket, question: Question, core: &mut Core, now: Now) {
        let view = View {
            own: LokiAddress(self.sessions.address()),
            range: self.range,
            netid: &self.netid,
            leases: &self.leases,
            srv: &self.srv,
            is_relay: &|id| core.netdb.registry().lists(id),
        };
        let address = match dns::decide(&question, &view) {
            Step::Answer(answer) => return core.out.push(Output::Dns { ticket, answer }),
            Step::Lookup(address) => address,
        };
        let remote = Remote::Address(address.0);
        if self.sessions.is_open(&remote) {
            let answer = self.leased(&question, address, now);
            return core.out.push(Output::Dns { ticket, answer });
        }
        if self.names.values().map(Vec::len).sum::<usize>() >= WAITING_MAX {
            return core.out.push(Output::Dns { ticket, answer: Answer::empty(Code::ServFail) });
        }
        self.names.entry(address.0).or_default().push((ticket, question));
        self.sessions.call(address.0, &mut road!(self, core, now));
    }

    fn leased(&mut self, question: &Question, address: LokiAddress, now: Now) -> Answer {
        match self.leases.lease(Remote::Address(address.0), now.mono) {
            Some(ip) => dns::leased(question, address, ip, &self.range),
            None => Answer::empty(Code::ServFail),
        }
    }

    /// A conversation is open, or there will be none: answers who waited for it.
    pub(super) fn named(&mut self, address: [u8; 32], failed: Option<Failed>, core: &mut Core, now: Now) {
        for (ticket, question) in self.names.remove(&address).unwrap_or_default() {
            let answer = match failed {
                None => self.leased(&question, LokiAddress(address), now),
                Some(Failed::NotFound) => Answer::empty(Code::NxDomain),
                Some(Failed::Unreachable | Failed::Busy) => Answer::empty(Code::ServFail),
            };
            core.out.push(Output::Dns { ticket, answer });
        }
    }
}
