//! What names of ours are answered with, as a pure decision (the ancestor's table with its faults mended; spec chapter
//! 80). Neighbours: `question` gives the values, `wire::address` reads names, `node::client` looks up what this cannot
//! know; the daemon keeps everything that is not ours away from here.

use super::lease::{Leases, Range};
use super::question::{Answer, Code, Data, Kind, Question, Record};
use crate::session::Remote;
use crate::wire::address::{self, HostName, LokiAddress, twin};
use crate::wire::id::RelayId;
use std::net::Ipv4Addr;

/// Seconds an answer may be kept: leases move.
pub const TTL: u32 = 1;

/// A service record of ours (`[network] srv=`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SrvRecord {
    /// `_service._proto`.
    pub service: String,
    /// RFC 2782 priority.
    pub priority: u16,
    /// RFC 2782 weight.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The target; `None` is our own address.
    pub target: Option<String>,
}

/// What is known when a question comes.
pub struct View<'a> {
    /// Our address.
    pub own: LokiAddress,
    /// Our TUN addresses.
    pub range: Range,
    /// The network's name.
    pub netid: &'a str,
    /// Who has which address.
    pub leases: &'a Leases,
    /// Our service records.
    pub srv: &'a [SrvRecord],
    /// Who is a relay: its key also names what it serves.
    pub is_relay: &'a dyn Fn(&RelayId) -> bool,
}

impl View<'_> {
    /// The name a service is known by: relays' keys are known as theirs.
    fn name_of(&self, address: LokiAddress) -> String {
        let relay = RelayId(address.0);
        if (self.is_relay)(&relay) { address::snode(&relay) } else { address.to_string() }
    }
}

/// What to do with a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Answer so.
    Answer(Answer),
    /// Converse with this service first, then [`leased`].
    Lookup(LokiAddress),
}

/// Decides a question about a name of ours.
pub fn decide(question: &Question, view: &View<'_>) -> Step {
    let name = question.name.as_str();
    Step::Answer(match HostName::parse(name) {
        HostName::Localhost { subdomain } => localhost(question, subdomain.as_deref(), view),
        HostName::Loki { address, subdomain } => return service(question, address, subdomain.as_deref(), view),
        HostName::Snode { id, subdomain } if (view.is_relay)(&id) => {
            return service(question, LokiAddress(id.0), subdomain.as_deref(), view);
        }
        // Short names are not resolved by this version.
        HostName::Named { .. } | HostName::Snode { .. } | HostName::Reserved => Answer::empty(Code::NxDomain),
        HostName::Unknown => match address::reverse(name) {
            Some(ip) => reverse(question, ip, view),
            None => Answer::empty(Code::NxDomain),
        },
    })
}

/// A service's name: ours, or another's. What a relay serves is met like any service, by the relay's key.
fn service(question: &Question, address: LokiAddress, subdomain: Option<&str>, view: &View<'_>) -> Step {
    let name = question.name.as_str();
    if address == view.own {
        return Step::Answer(own(question, view));
    }
    Step::Answer(match question.kind {
        Kind::A | Kind::Aaaa | Kind::Any => return Step::Lookup(address),
        Kind::Mx if subdomain.is_none() => answer(name, vec![Data::Mx { preference: 1, exchange: name.to_owned() }]),
        Kind::Ns => answer(name, vec![Data::Ns("localhost.loki".into())]),
        _ => Answer::empty(Code::NoError),
    })
}

fn localhost(question: &Question, subdomain: Option<&str>, view: &View<'_>) -> Answer {
    let name = question.name.as_str();
    let cname = Data::Cname(view.own.to_string());
    match (subdomain, question.kind) {
        (Some("netid"), Kind::Txt) => answer(name, vec![Data::Txt(format!("netid={};", view.netid))]),
        (Some("netid" | "exit"), _) => Answer::empty(Code::NxDomain),
        (Some(sub), Kind::Srv) if sub.starts_with('_') => srv(question, Some(sub), view),
        (Some(sub), _) if sub.starts_with('_') => Answer::empty(Code::NoError),
        (_, Kind::A | Kind::Aaaa | Kind::Any) => {
            // The alias, then its target's address: programs want both in one answer.
            let mut records = vec![Record { name: name.to_owned(), ttl: TTL, data: cname }];
            records.extend(addresses(question.kind, &view.own.to_string(), view.range.own(), &view.range));
            Answer { code: Code::NoError, records }
        }
        (None, Kind::Srv) => srv(question, None, view),
        (_, Kind::Mx) => answer(name, vec![Data::Mx { preference: 1, exchange: name.to_owned() }]),
        (_, Kind::Ns) => answer(name, vec![Data::Ns("localhost.loki".into())]),
        (_, Kind::Txt) => Answer::empty(Code::NoError),
        _ => answer(name, vec![cname]),
    }
}

fn own(question: &Question, view: &View<'_>) -> Answer {
    let name = question.name.as_str();
    match question.kind {
        Kind::A | Kind::Aaaa | Kind::Any => leased(question, view.own, view.range.own(), &view.range),
        Kind::Mx => answer(name, vec![Data::Mx { preference: 1, exchange: name.to_owned() }]),
        Kind::Ns => answer(name, vec![Data::Ns("localhost.loki".into())]),
        Kind::Srv => {
            // Whichever of its two names was asked for: `_service._proto` stands before the last two labels.
            let service = name.rsplitn(3, '.').nth(2);
            srv(question, service, view)
        }
        _ => Answer::empty(Code::NoError),
    }
}

fn srv(question: &Question, service: Option<&str>, view: &View<'_>) -> Answer {
    let wanted = |record: &&SrvRecord| service.is_none_or(|s| s.is_empty() || s == record.service);
    let data = view.srv.iter().filter(wanted).map(|record| Data::Srv {
        priority: record.priority,
        weight: record.weight,
        port: record.port,
        target: record.target.clone().unwrap_or_else(|| view.own.to_string()),
    });
    answer(&question.name, data.collect())
}

fn reverse(question: &Question, ip: std::net::IpAddr, view: &View<'_>) -> Answer {
    let remote = match view.range.v4_of(ip) {
        Some(v4) if v4 == view.range.own() => Some(view.own),
        _ => match view.leases.look(ip) {
            Some(Remote::Address(address)) => Some(LokiAddress(address)),
            _ => None,
        },
    };
    match (remote, question.kind) {
        (Some(address), Kind::Ptr | Kind::Any) => answer(&question.name, vec![Data::Ptr(view.name_of(address))]),
        (Some(_), _) => Answer::empty(Code::NoError),
        (None, _) => Answer::empty(Code::NxDomain),
    }
}

/// The answer once a service has a local address.
pub fn leased(question: &Question, _address: LokiAddress, ip: Ipv4Addr, range: &Range) -> Answer {
    Answer { code: Code::NoError, records: addresses(question.kind, &question.name, ip, range) }
}

/// What a relay answers: it has no names but its own.
pub fn relay(question: &Question, own: &RelayId) -> Answer {
    match (HostName::parse(&question.name), question.kind) {
        (HostName::Localhost { subdomain: None }, Kind::Cname | Kind::A | Kind::Any) => {
            answer(&question.name, vec![Data::Cname(address::snode(own))])
        }
        _ => Answer::empty(Code::NxDomain),
    }
}

fn addresses(kind: Kind, name: &str, ip: Ipv4Addr, range: &Range) -> Vec<Record> {
    let v4 = (kind != Kind::Aaaa).then_some(Data::A(ip));
    let v6 = range.base6().filter(|_| kind != Kind::A).map(|base| Data::Aaaa(twin(base, ip)));
    v4.into_iter().chain(v6).map(|data| Record { name: name.to_owned(), ttl: TTL, data }).collect()
}

fn answer(name: &str, data: Vec<Data>) -> Answer {
    let records = data.into_iter().map(|data| Record { name: name.to_owned(), ttl: TTL, data }).collect();
    Answer { code: Code::NoError, records }
}
