//! Telling subscribers: a request for subscriptions is answered, a message that is new is told, a list that takes an
//! account away is told too. Neighbours: `push` (who is told what), `fan_out` and `transfer` (where messages come from).

use std::net::IpAddr;

use bytes::Bytes;

use super::Node;
use super::io::{Conn, Now, Output, Ticket};
use crate::account::Network;
use crate::push::{Desk, Push};
use crate::rpc::{Reply, Said, limit};
use crate::store::{Message, Store};
use crate::swarm::Swarms;
use crate::value::Form;

/// How old a message may be that we learn of late and tell all the same, in milliseconds: as old as a subscription.
const LATE: u64 = crate::push::LIFE.as_secs() * 1000;

impl Node {
    /// A request for subscriptions, on the connection that is to be pushed to.
    pub(super) fn monitor(&mut self, ticket: Ticket, (ip, conn): (IpAddr, Conn), body: &Bytes, now: Now) {
        let desk = desk(&self.store, &self.swarms, self.network, now);
        let clients = &mut self.clients;
        let admits = || clients.admits(limit::place(ip), now.mono);
        let answer = self.subscriptions.monitor(conn, ip, body, &desk, admits);
        self.answer(ticket, Form::Bt, Reply { status: 200, body: Said::Raw(answer) });
    }

    /// A message is new here.
    pub(super) fn stored(&mut self, message: &Message, now: Now) {
        let desk = desk(&self.store, &self.swarms, self.network, now);
        let pushes = self.subscriptions.stored(message, &desk);
        self.push(pushes);
    }

    /// A message is new here that others have had for a while: whoever waits for it has not heard of it from us.
    pub(super) fn stored_late(&mut self, message: &Message, now: Now) {
        if message.timestamp.saturating_add(LATE) > now.wall {
            self.stored(message, now);
        }
    }

    /// The swarms have changed.
    pub(super) fn accounts_moved(&mut self) {
        let pushes = self.subscriptions.listed(&self.swarms);
        self.push(pushes);
    }

    fn push(&mut self, pushes: Vec<Push>) {
        let output = |Push { conn, command, body }| Output::Push { conn, command, body };
        self.out.extend(pushes.into_iter().map(output));
    }
}

fn desk<'a>(store: &'a Store, swarms: &'a Swarms, network: Network, now: Now) -> Desk<'a> {
    Desk { store, swarms, network, now: now.mono, wall: now.wall }
}
