//! What programs and people on the host bring: names, DNS messages, configurations. Neighbours: the daemon's own
//! `dns::fuzzing` and `config::fuzzing` open its doors for this.

use super::feed::Feed;
use lokinet_core::flow::dns::relay;
use lokinet_core::flow::lease::Range;
use lokinet_core::flow::question::{Answer, Code, Data, Kind, Question, Record};
use lokinet_core::wire::address::{self, HostName, LokiAddress};
use lokinet_core::wire::id::RelayId;
use lokinet_daemon::config::Role;
use lokinet_daemon::dns::fuzzing::{Heard, hear, judge};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names.
pub fn address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let host = HostName::parse(&text);
    match &host {
        HostName::Unknown => {}
        HostName::Reserved => assert!(address::is_ours(&text)),
        named => {
            assert!(address::is_ours(&text), "a name of ours would be asked of others: {text}");
            assert!(HostName::parse(&named.to_string()) == *named, "{text} does not come back");
        }
    }
    if let Some(service) = LokiAddress::parse(&text) {
        assert_eq!(service.to_string(), text);
        assert!(matches!(host, HostName::Loki { address, subdomain: None } if address == service));
    }
    if let Some(relay) = address::parse_snode(&text) {
        assert_eq!(address::snode(&relay), text);
    }
    if let Some(IpAddr::V4(ip)) = address::reverse(&text) {
        let [a, b, c, d] = ip.octets();
        assert_eq!(text.strip_suffix('.').unwrap_or(&text), format!("{d}.{c}.{b}.{a}.in-addr.arpa"));
    }
    let _ = relay(&Question { name: text.into_owned(), kind: Kind::A }, &RelayId([1; 32]));
}

/// A program's question and an upstream's reply, as bytes.
pub fn dns(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let (shape, query) = (feed.byte(), feed.slice());
    let name = "localhost.loki".to_owned();
    let texts = ["x".repeat(usize::from(shape) * 8), "loki".to_owned(), "a..b".to_owned()];
    let data = [
        Data::A(Ipv4Addr::new(172, 16, 0, 1)),
        Data::Aaaa(Ipv6Addr::LOCALHOST),
        Data::Cname(name.clone()),
        Data::Txt(texts[0].clone()),
        Data::Mx { preference: 1, exchange: texts[usize::from(shape) % 3].clone() },
        Data::Srv { priority: 1, weight: 2, port: 3, target: name.clone() },
    ];
    let records = data.into_iter().take(usize::from(shape % 8)).map(|data| Record { name: name.clone(), ttl: 9, data });
    let code = [Code::NoError, Code::NxDomain, Code::ServFail, Code::Refused][usize::from(shape >> 3) % 4];
    let answer = Answer { code, records: records.collect() };
    let Heard::Asked { question, udp, tcp, limit } = hear(query, &answer) else { return };
    // A dot within the last label is written with a backslash before it.
    assert!(question.name.strip_suffix('.').is_none_or(|name| name.ends_with('\\')), "{}", question.name);
    assert!(!question.name.bytes().any(|byte| byte.is_ascii_uppercase()));
    for (reply, most) in [(udp, limit), (tcp, usize::from(u16::MAX))] {
        assert!(reply.len() <= most && reply.len() >= 12, "{} bytes where {most} are taken", reply.len());
        assert_eq!((reply[..2] == query[..2], reply[2] & 0x80), (true, 0x80));
        assert!(hickory_proto::op::Message::from_vec(&reply).is_ok(), "an answer nobody can read");
    }
    let range = Range::new(Ipv4Addr::new(172, 16, 0, 1), 16, Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)));
    let mut reply = feed.rest().to_vec();
    let _ = judge(query, &reply, range.as_ref());
    // As an upstream would that has read the question.
    if reply.len() > query.len() && query.len() > 12 {
        reply[..query.len()].copy_from_slice(query);
        reply[2] = 0x80 | query[2];
        reply[6..12].copy_from_slice(&[0, 1, 0, 1, 0, 0]);
        let _ = judge(query, &reply, range.as_ref());
    }
}

/// A configuration, for both roles; with it come settings or complaints that a person can act on.
pub fn ini(bytes: &[u8]) {
    for role in [Role::Client, Role::Relay] {
        if let Err(complaints) = lokinet_daemon::config::fuzzing::settle(bytes, role) {
            assert!(!complaints.is_empty(), "refused without a word");
            for complaint in complaints {
                assert!(complaint.contains("; ") && complaint.contains("t.ini"), "no place or no remedy: {complaint}");
                assert!(!complaint.contains('\n'), "a complaint of two lines: {complaint}");
            }
        }
    }
}
