//! What a client shows of itself: its paths, its conversations, its counters. Neighbours: `client` has them, `node::report`
//! says what a report is.

use super::Client;
use crate::node::report::{PathReport, Report, SessionReport};
use crate::session::Remote;
use crate::time::Now;
use crate::wire::address::LokiAddress;
use crate::wire::build::Purpose;
use crate::wire::contact::Contact;
use core::time::Duration;
use std::sync::Arc;

impl Client {
    pub(in crate::node) fn report(&self, report: &mut Report, now: Now) {
        let hop = |c: &Arc<Contact>| (c.id, c.card.addrs.list().first().copied());
        let purpose = |p: Purpose| match p {
            Purpose::General => "general",
            Purpose::Host(_) => "inbound",
            Purpose::Join(_) => "rendezvous",
        };
        report.ready = self.ready;
        report.published = self.published;
        report.address = LokiAddress(self.address()).to_string();
        for (_, live) in self.paths.all_live() {
            report.paths.push(PathReport {
                hops: live.hops().iter().map(hop).collect(),
                purpose: purpose(live.purpose()),
                state: "live",
                round_trip: Some(live.round_trip()),
                remaining: live.expires().since(now.mono),
                cells: live.cells,
            });
        }
        for (_, hops, use_) in self.paths.all_building() {
            report.paths.push(PathReport {
                hops: hops.iter().map(hop).collect(),
                purpose: purpose(use_),
                state: "building",
                round_trip: None,
                remaining: Duration::ZERO,
                cells: (0, 0),
            });
        }
        let name = |remote: Remote| match remote {
            Remote::Address(address) => Some(LokiAddress(address).to_string()),
            Remote::Anonymous(_) => None,
        };
        for (remote, inbound, path) in self.sessions.all() {
            let route =
                path.and_then(|key| self.paths.live(key)).map(|live| live.hops().iter().map(|c| c.id).collect());
            report.sessions.push(SessionReport {
                remote: name(remote),
                lease: self.leases.ip_of(&remote),
                inbound,
                state: "open",
                route: route.unwrap_or_default(),
            });
        }
        for (address, looking_up) in self.sessions.calling() {
            report.sessions.push(SessionReport {
                remote: name(Remote::Address(*address)),
                lease: None,
                inbound: false,
                state: if looking_up { "looking-up" } else { "calling" },
                route: Vec::new(),
            });
        }
        let (begun, failed) = self.paths.builds;
        report.counters.extend([
            ("paths begun", begun),
            ("paths failed", failed),
            ("path cells dropped", self.paths.dropped),
            ("session cells dropped", self.sessions.dropped),
            ("handshakes in vain", self.sessions.handshakes.2),
            ("packets refused", self.refused),
            ("directory bytes", self.directory),
        ]);
    }
}
