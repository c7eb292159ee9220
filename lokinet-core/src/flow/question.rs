//! DNS questions and answers as plain values: what the daemon's DNS server asks the node and what it gets back. No DNS
//! wire format here; the daemon's codec does that. Neighbours: `dns` decides answers, the daemon's `dns` speaks UDP and
//! TCP with programs.

use std::net::{Ipv4Addr, Ipv6Addr};

/// One question. Names are lower case and have no final dot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The queried name, lower case, without the final dot.
    pub name: String,
    /// The queried type.
    pub kind: Kind,
}

/// A record type we can answer; the number of any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    A,
    Aaaa,
    Cname,
    Ptr,
    Mx,
    Txt,
    Srv,
    Ns,
    Any,
    Other(u16),
}

/// The response code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Code {
    NoError,
    NxDomain,
    ServFail,
    Refused,
}

/// A whole answer: code and answer records in the order they are to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The response code.
    pub code: Code,
    /// The answer section.
    pub records: Vec<Record>,
}

impl Answer {
    /// An answer without records.
    pub fn empty(code: Code) -> Answer {
        Answer { code, records: Vec::new() }
    }
}

/// One resource record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The owner name, without the final dot.
    pub name: String,
    /// Seconds it may be cached.
    pub ttl: u32,
    /// Type and value.
    pub data: Data,
}

/// A record's value; names have no final dot.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(String),
    Ptr(String),
    Ns(String),
    Mx { preference: u16, exchange: String },
    Txt(String),
    Srv { priority: u16, weight: u16, port: u16, target: String },
}
