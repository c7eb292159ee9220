//! DNS messages: bytes to [`Question`], [`Answer`] to bytes, and the look at what an upstream replied. Pure; hickory
//! knows the wire format. Neighbours: `server` and `upstream` carry the bytes.

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, MX, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record as WireRecord, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use lokinet_core::flow::lease::Range;
use lokinet_core::flow::question::{Answer, Code, Data, Kind, Question, Record};
use lokinet_core::wire::address::is_ours;
use std::net::IpAddr;

/// Bytes of the header that every message begins with.
const HEADER: usize = 12;
/// The size of datagrams we say we take (EDNS): what no path fragments.
const OUR_SIZE: u16 = 1232;
/// The size of datagrams that everybody takes.
const PLAIN_SIZE: u16 = 512;
/// Most bytes of a character string in a TXT record.
const STRING_MAX: usize = 255;
/// Seconds that "there is no such name" may be kept; it may come up any moment.
const NEGATIVE_TTL: u32 = 1;

/// What brought a question, and so takes its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// What a client's bytes are.
pub(super) enum Read {
    /// A question that can be answered.
    Asked(Box<Asked>),
    /// A question that cannot; the reply that says so.
    Refused(Vec<u8>),
    /// Nothing to be answered: too short, or itself an answer.
    Nothing,
}

/// A client's question, with what its answer needs.
pub(super) struct Asked {
    metadata: Metadata,
    /// As the client spelt it: the case of its letters is sent back (some clients check).
    query: Query,
    /// The size of datagrams the client takes, if it speaks EDNS.
    edns: Option<u16>,
    question: Question,
}

/// Reads what a client sent.
pub(super) fn read(bytes: &[u8]) -> Read {
    if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
        return Read::Nothing;
    }
    if bytes[2] & 0x78 != 0 {
        return Read::Refused(bare(bytes, ResponseCode::NotImp));
    }
    let Ok(message) = Message::from_vec(bytes) else { return Read::Refused(bare(bytes, ResponseCode::FormErr)) };
    let [query] = message.queries.as_slice() else { return Read::Refused(bare(bytes, ResponseCode::FormErr)) };
    if query.query_class() != DNSClass::IN {
        return Read::Refused(bare(bytes, ResponseCode::NotImp));
    }
    let name = query.name().to_lowercase().to_ascii();
    let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
    let asked = Asked {
        metadata: message.metadata,
        question: Question { name, kind: kind(query.query_type()) },
        edns: message.edns.as_ref().map(Edns::max_payload),
        query: query.clone(),
    };
    match message.edns {
        Some(edns) if edns.version() != 0 => Read::Refused(asked.fit(asked.reply(ResponseCode::BADVERS), Over::Tcp)),
        _ => Read::Asked(Box::new(asked)),
    }
}

/// A reply that is only a header: for what could not be read.
fn bare(query: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    reply[..2].copy_from_slice(&query[..2]);
    reply[2] = 0x80 | (query[2] & 0x79); // an answer; kind of query and "recursion desired" as asked
    reply[3] = code.low();
    reply
}

fn kind(of: RecordType) -> Kind {
    match of {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::CNAME => Kind::Cname,
        RecordType::PTR => Kind::Ptr,
        RecordType::MX => Kind::Mx,
        RecordType::TXT => Kind::Txt,
        RecordType::SRV => Kind::Srv,
        RecordType::NS => Kind::Ns,
        RecordType::ANY => Kind::Any,
        other => Kind::Other(other.into()),
    }
}

impl Asked {
    /// The question as a plain value.
    pub(super) fn question(&self) -> &Question {
        &self.question
    }

    /// The client's number for it.
    pub(super) fn id(&self) -> u16 {
        self.metadata.id
    }

    /// The number of the queried type.
    pub(super) fn kind(&self) -> u16 {
        self.query.query_type().into()
    }

    /// Most bytes the client takes in one message.
    pub(super) fn limit(&self, over: Over) -> usize {
        match over {
            Over::Udp => self.edns.unwrap_or(PLAIN_SIZE).max(PLAIN_SIZE).into(),
            Over::Tcp => u16::MAX.into(),
        }
    }

    /// The answer as a message. What does not fit is left out whole, and marked so that the client asks by TCP.
    pub(super) fn answer(&self, answer: &Answer, over: Over) -> Vec<u8> {
        let (code, authoritative) = match answer.code {
            Code::NoError => (ResponseCode::NoError, true),
            Code::NxDomain => (ResponseCode::NXDomain, true),
            Code::ServFail => (ResponseCode::ServFail, false),
            Code::Refused => (ResponseCode::Refused, false),
        };
        let mut message = self.reply(code);
        message.metadata.authoritative = authoritative;
        for record in &answer.records {
            let Some(record) = self.record(record) else { return self.answer(&Answer::empty(Code::ServFail), over) };
            message.add_answer(record);
        }
        if authoritative && answer.records.is_empty() && is_ours(&self.question.name) {
            message.authorities.extend(self.authority());
        }
        self.fit(message, over)
    }

    /// The reply without answer that sends the client to TCP.
    pub(super) fn truncated(&self) -> Vec<u8> {
        let mut message = self.reply(ResponseCode::NoError);
        message.metadata.truncation = true;
        message.to_vec().unwrap_or_default() // never empty: the name in it was read from such bytes
    }

    fn reply(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata.recursion_desired = self.metadata.recursion_desired;
        message.metadata.checking_disabled = self.metadata.checking_disabled;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(OUR_SIZE);
            message.set_edns(edns);
        }
        message
    }

    /// The message's bytes, or the way to TCP when they are too many.
    fn fit(&self, message: Message, over: Over) -> Vec<u8> {
        match message.to_vec() {
            Ok(bytes) if bytes.len() <= self.limit(over) => bytes,
            _ => self.truncated(),
        }
    }

    /// `None` when a name in it is none.
    fn record(&self, record: &Record) -> Option<WireRecord> {
        let data = match &record.data {
            Data::A(addr) => RData::A(A(*addr)),
            Data::Aaaa(addr) => RData::AAAA(AAAA(*addr)),
            Data::Cname(to) => RData::CNAME(CNAME(self.name(to)?)),
            Data::Ptr(to) => RData::PTR(PTR(self.name(to)?)),
            Data::Ns(to) => RData::NS(NS(self.name(to)?)),
            Data::Mx { preference, exchange } => RData::MX(MX::new(*preference, self.name(exchange)?)),
            Data::Txt(text) => RData::TXT(TXT::from_bytes(text.as_bytes().chunks(STRING_MAX).collect())),
            Data::Srv { priority, weight, port, target } => {
                RData::SRV(SRV::new(*priority, *weight, *port, self.name(target)?))
            }
        };
        Some(WireRecord::from_rdata(self.name(&record.name)?, record.ttl, data))
    }

    /// A name; the queried one as the client spelt it.
    fn name(&self, text: &str) -> Option<Name> {
        if text == self.question.name {
            return Some(self.query.name().clone());
        }
        let mut name = Name::from_ascii(text).ok()?;
        name.set_fqdn(true);
        Some(name)
    }

    /// Who says that there is nothing, and for how long: without it resolvers keep "nothing" as long as they like.
    fn authority(&self) -> Option<WireRecord> {
        let zone = self.name(self.question.name.rsplit('.').next()?)?;
        let (host, mail) = (self.name("localhost.loki")?, self.name("hostmaster.localhost.loki")?);
        let seconds = NEGATIVE_TTL as i32;
        let soa = SOA::new(host, mail, 1, seconds, seconds, seconds, NEGATIVE_TTL);
        Some(WireRecord::from_rdata(zone, NEGATIVE_TTL, RData::SOA(soa)))
    }

    /// Judges what came back from an upstream that was asked this under the number `id`.
    pub(super) fn judge(&self, reply: &[u8], id: u16, range: Option<&Range>) -> Verdict {
        let mut decoder = BinDecoder::new(reply);
        let Ok(header) = Header::read(&mut decoder) else { return Verdict::Stray };
        let of_ours = header.metadata.id == id
            && header.metadata.message_type == MessageType::Response
            && header.metadata.op_code == OpCode::Query
            && header.counts.queries == 1;
        if !of_ours || Query::read(&mut decoder).ok().as_ref() != Some(&self.query) {
            return Verdict::Stray;
        }
        if header.metadata.truncation {
            return Verdict::Truncated;
        }
        let Ok(message) = Message::from_vec(reply) else { return Verdict::Broken };
        let into_ours = |ip: IpAddr| range.is_some_and(|range| range.v4_of(ip.to_canonical()).is_some());
        if message.all_sections().flat_map(|record| addresses(&record.data)).any(into_ours) {
            return Verdict::Rebinding;
        }
        Verdict::Good
    }
}

/// What an upstream's reply is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// To be passed on.
    Good,
    /// It did not fit into a datagram.
    Truncated,
    /// No answer to this question: somebody else's, or a forgery.
    Stray,
    /// The answer, but not readable.
    Broken,
    /// It says that a public name lies in our own range: a web page that wants to reach what the range stands for.
    Rebinding,
}

/// All addresses a program could take from a record.
fn addresses(data: &RData) -> Vec<IpAddr> {
    match data {
        RData::A(A(addr)) => vec![(*addr).into()],
        RData::AAAA(AAAA(addr)) => vec![(*addr).into()],
        RData::SVCB(svcb) | RData::HTTPS(HTTPS(svcb)) => hints(svcb),
        _ => Vec::new(),
    }
}

fn hints(svcb: &SVCB) -> Vec<IpAddr> {
    let hints = svcb.svc_params.iter().flat_map(|(_, value)| match value {
        SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|a| IpAddr::from(a.0)).collect(),
        SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|a| IpAddr::from(a.0)).collect(),
        _ => Vec::new(),
    });
    hints.collect()
}

#[cfg(test)]
mod tests;
