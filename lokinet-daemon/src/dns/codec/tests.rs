//! Whether bytes become the questions that programs meant, answers the bytes they can read, and everything else nothing.
//! Neighbours: `codec`.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn query(name: &str, of: RecordType, size: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), of));
    if let Some(size) = size {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn asked(bytes: &[u8]) -> Box<Asked> {
    match read(bytes) {
        Read::Asked(asked) => asked,
        Read::Refused(_) | Read::Nothing => panic!("not read"),
    }
}

fn refusal(bytes: &[u8]) -> u8 {
    match read(bytes) {
        Read::Refused(reply) => reply[3] & 15,
        Read::Asked(_) | Read::Nothing => panic!("not refused"),
    }
}

#[test]
fn a_question_is_lower_case_and_without_its_final_dot() {
    let asked = asked(&query("WwW.ExAmPlE.LoKi.", RecordType::AAAA, None));
    assert_eq!(*asked.question(), Question { name: "www.example.loki".into(), kind: Kind::Aaaa });
    assert_eq!(super::read(&query(".", RecordType::NS, None)).question_name(), "");
}

impl Read {
    fn question_name(&self) -> &str {
        match self {
            Read::Asked(asked) => &asked.question.name,
            Read::Refused(_) | Read::Nothing => panic!("not read"),
        }
    }
}

#[test]
fn a_dot_inside_a_label_does_not_carry_a_name_out_of_our_zone() {
    let mut bytes = query("x", RecordType::A, None);
    bytes.splice(12..15, *b"\x06x.loki\x00"); // one label: "x.loki"
    assert!(is_ours(read(&bytes).question_name()));
}

#[test]
fn what_cannot_be_answered_is_said() {
    let good = query("a.loki.", RecordType::A, None);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(refusal(&with(2, 0x28)), 4, "an update");
    assert_eq!(refusal(&with(5, 2)), 1, "two questions promised, one there");
    assert_eq!(refusal(&with(5, 0)), 1, "no question");
    assert_eq!(refusal(&with(good.len() - 1, 3)), 4, "class CHAOS");
    assert_eq!(refusal(&good[..good.len() - 1]), 1, "cut");
    assert!(matches!(read(&with(2, 0x81)), Read::Nothing), "an answer");
    assert!(matches!(read(&good[..11]), Read::Nothing), "no header");
}

#[test]
fn an_unknown_version_of_edns_is_told_ours() {
    let mut bytes = query("a.loki.", RecordType::A, Some(4096));
    let version = bytes.len() - 5;
    bytes[version] = 7;
    let Read::Refused(reply) = read(&bytes) else { panic!("not refused") };
    let reply = Message::from_vec(&reply).unwrap();
    let edns = reply.edns.unwrap();
    assert_eq!((reply.metadata.response_code.low(), edns.rcode_high(), edns.version()), (0, 1, 0), "BADVERS");
}

#[test]
fn a_text_longer_than_a_string_is_cut_into_strings() {
    let asked = asked(&query("a.loki.", RecordType::TXT, None));
    let record = Record { name: "a.loki".into(), ttl: 1, data: Data::Txt("x".repeat(300)) };
    let reply = asked.answer(&Answer { code: Code::NoError, records: vec![record] }, Over::Tcp);
    let reply = Message::from_vec(&reply).unwrap();
    let RData::TXT(text) = &reply.answers[0].data else { panic!("no text") };
    let lengths: Vec<usize> = text.txt_data.iter().map(|string| string.len()).collect();
    assert_eq!(lengths, [255, 45]);
}

#[test]
fn a_record_that_names_nothing_is_a_failure_and_no_half_answer() {
    let asked = asked(&query("a.loki.", RecordType::CNAME, None));
    let record = Record { name: "a.loki".into(), ttl: 1, data: Data::Cname("x".repeat(64)) };
    let reply = Message::from_vec(&asked.answer(&Answer { code: Code::NoError, records: vec![record] }, Over::Udp));
    assert_eq!(reply.unwrap().metadata.response_code, ResponseCode::ServFail);
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let name = || "[a-z_-]{1,80}(\\.[a-z0-9]{0,9}){0,3}";
    let data = prop_oneof![
        any::<Ipv4Addr>().prop_map(Data::A),
        name().prop_map(Data::Cname),
        "\\PC{0,600}".prop_map(Data::Txt),
        (any::<[u16; 3]>(), name()).prop_map(|([priority, weight, port], target)| Data::Srv {
            priority,
            weight,
            port,
            target
        }),
    ];
    prop::collection::vec((name(), any::<u32>(), data), 0..40)
        .prop_map(|all| all.into_iter().map(|(name, ttl, data)| Record { name, ttl, data }).collect())
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Read::Refused(reply) = read(&bytes) {
            prop_assert_eq!(&reply[..2], &bytes[..2]);
        }
        let range = Range::new(Ipv4Addr::new(172, 16, 0, 1), 16, None).unwrap();
        let asked = asked(&query("a.b.", RecordType::A, None));
        prop_assert_ne!(asked.judge(&bytes, 1, Some(&range)), Verdict::Good);
    }

    /// Bytes that are almost a question reach deeper than chance does.
    #[test]
    fn a_damaged_question_is_read_without_a_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = query("some.name.example.", RecordType::HTTPS, Some(1400));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        if let Read::Asked(asked) = read(&bytes) {
            let reply = asked.answer(&Answer::empty(Code::NxDomain), Over::Udp);
            prop_assert_eq!(Message::from_vec(&reply).unwrap().metadata.id, asked.id());
            asked.judge(&reply, asked.id(), None);
        }
    }

    #[test]
    fn any_answer_is_a_message_that_fits(records in records(), size in prop::option::of(0u16..3000), tcp: bool) {
        let asked = asked(&query("a.loki.", RecordType::ANY, size));
        let over = if tcp { Over::Tcp } else { Over::Udp };
        let reply = asked.answer(&Answer { code: Code::NoError, records: records.clone() }, over);
        prop_assert!(reply.len() <= asked.limit(over));
        let reply = Message::from_vec(&reply).unwrap();
        prop_assert_eq!(reply.metadata.id, 0x1234);
        prop_assert_eq!(reply.edns.is_some(), size.is_some());
        let whole = reply.answers.len() == records.len();
        prop_assert!(whole || reply.answers.is_empty(), "all or nothing");
        prop_assert!(whole || reply.metadata.truncation || reply.metadata.response_code == ResponseCode::ServFail);
    }
}
