//! The resolver as programs and other resolvers meet it: real sockets on loopback, hickory as the client's eyes (and
//! dig's, where it is installed). What answers for names of ours is the core's own decision, or a script. Here is what
//! programs see of names of ours; `forward` has all other names, `rig` what both are made of.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking, and say what they leave out")]

mod forward;
mod rig;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hickory_proto::op::{MessageType, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use lokinet_core::flow::question::{Answer, Code, Data, Record};
use lokinet_daemon::dns::bind;
use rig::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

#[tokio::test]
async fn localhost_loki_is_two_lines_the_alias_and_the_address() {
    let server = serve(node(), &[]).await;
    let reply = ask(server, "localhost.loki.", RecordType::A).await;
    assert_eq!(data(&reply), [format!("{OWN}."), "172.16.0.1".into()]);
    assert_eq!(reply.answers[0].record_type(), RecordType::CNAME);
    assert_eq!(reply.answers[1].name.to_ascii(), format!("{OWN}."));
    let flags = reply.metadata;
    assert!(flags.authoritative && flags.recursion_available && flags.recursion_desired && !flags.truncation);
    assert!(reply.edns.is_none(), "who does not speak EDNS is not spoken to in it");
    assert!(reply.answers.iter().all(|record| record.ttl == 1));

    let Ok(version) = Command::new("dig").arg("-v").output() else {
        println!("left out: dig is not installed");
        return;
    };
    assert!(version.status.success());
    let port = server.port().to_string();
    let dig = move |more: &[&str]| {
        let output = Command::new("dig").args(["@127.0.0.1", "-p", &port, "+short"]).args(more).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = tokio::task::spawn_blocking(move || {
        [dig(&["localhost.loki"]), dig(&["+tcp", "localhost.loki"]), dig(&["-t", "cname", "localhost.loki"])]
    });
    let both = format!("{OWN}.\n172.16.0.1\n");
    assert_eq!(lines.await.unwrap(), [both.clone(), both, format!("{OWN}.\n")]);
}

#[tokio::test]
async fn edns_is_answered_in_kind_and_letters_keep_their_case() {
    let server = serve(node(), &[]).await;
    let query = with_edns(query(1, "LoCaLhOsT.lOkI.", RecordType::A), 4096);
    let reply = Client::new(server).await.ask(&query).await;
    assert_eq!(reply.edns.as_ref().unwrap().max_payload(), 1232);
    let asked = query.queries[0].name();
    assert!(reply.queries[0].name().eq_case(asked) && reply.answers[0].name.eq_case(asked));
    assert_eq!(data(&reply).len(), 2);
}

#[tokio::test]
async fn nothing_is_said_with_authority_and_for_a_second() {
    let server = serve(node(), &[]).await;
    for (name, expected) in [("nobody.loki.", ResponseCode::NXDomain), ("localhost.loki.", ResponseCode::NoError)] {
        let reply = ask(server, name, RecordType::TXT).await;
        assert_eq!(code(&reply), expected);
        let RData::SOA(soa) = &reply.authorities[0].data else { panic!("no SOA") };
        let soa_name = reply.authorities[0].name.to_ascii();
        assert_eq!((soa_name.as_str(), soa.minimum, reply.authorities[0].ttl), ("loki.", 1, 1));
    }
    let reply = ask(server, "x.snode.", RecordType::A).await;
    assert_eq!(reply.authorities[0].name.to_ascii(), "snode.");
}

#[tokio::test]
async fn tcp_answers_in_the_order_in_which_answers_are_ready() {
    let (node, _, gate) = slow_node();
    let server = serve(node, &[]).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    send_framed(&mut stream, &query(1, "slow.loki.", RecordType::A)).await;
    send_framed(&mut stream, &query(2, "quick.loki.", RecordType::A)).await;
    stream.shutdown().await.unwrap(); // what was asked is answered all the same
    assert_eq!(receive_framed(&mut stream).await.metadata.id, 2);
    gate.add_permits(1);
    assert_eq!(receive_framed(&mut stream).await.metadata.id, 1);
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap(), 0, "and then it is closed");
}

#[tokio::test]
async fn an_impatient_client_asks_the_node_once() {
    let (node, asked, gate) = slow_node();
    let server = serve(node, &[]).await;
    let client = Client::new(server).await;
    let slow = query(5, "slow.loki.", RecordType::A);
    for _ in 0..3 {
        client.send(&slow.to_vec().unwrap()).await;
    }
    // Datagrams on loopback keep their order: after this reply, all before it have been seen.
    assert_eq!(client.ask(&query(6, "quick.loki.", RecordType::A)).await.metadata.id, 6);
    gate.add_permits(9);
    assert_eq!(client.receive().await.metadata.id, 5);
    assert_eq!(client.ask(&query(7, "quick.loki.", RecordType::A)).await.metadata.id, 7, "one reply, not three");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Answered and asked again, it is a new question.
    assert_eq!(client.ask(&slow).await.metadata.id, 5);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn too_many_open_questions_are_refused_at_once() {
    let (node, asked, _gate) = slow_node();
    let server = serve(node, &[]).await;
    let client = Client::new(server).await;
    for id in 0..5000 {
        client.send(&query(id, "slow.loki.", RecordType::A).to_vec().unwrap()).await;
        tokio::task::yield_now().await;
        if asked.load(Ordering::SeqCst) == 1024 {
            break;
        }
    }
    let reply = client.ask(&query(9999, "slow.loki.", RecordType::A)).await;
    assert_eq!(code(&reply), ResponseCode::ServFail);
    assert_eq!(asked.load(Ordering::SeqCst), 1024);
}

#[tokio::test]
async fn an_answer_too_large_for_a_datagram_sends_the_client_to_tcp() {
    let long = Node(Arc::new(|question| {
        let record = |n| Record { name: question.name.clone(), ttl: 1, data: Data::Txt(format!("{n:0>60}")) };
        let records = (0..30).map(record).collect();
        Box::pin(async { Answer { code: Code::NoError, records } })
    }));
    let server = serve(long, &[]).await;
    let client = Client::new(server).await;
    for small in [query(1, "a.loki.", RecordType::TXT), with_edns(query(2, "a.loki.", RecordType::TXT), 1000)] {
        let reply = client.ask(&small).await;
        assert!(reply.metadata.truncation && reply.answers.is_empty());
    }
    let reply = client.ask(&with_edns(query(3, "a.loki.", RecordType::TXT), 4096)).await;
    assert!(!reply.metadata.truncation && reply.answers.len() == 30);
    let reply = ask_by_tcp(server, "a.loki.", RecordType::TXT).await;
    assert!(!reply.metadata.truncation && reply.answers.len() == 30);
}

#[tokio::test]
async fn garbage_gets_no_answer_and_does_no_harm() {
    let server = serve(node(), &[]).await;
    let client = Client::new(server).await;
    client.send(&[]).await;
    client.send(b"short").await;
    let mut answer = query(3, "localhost.loki.", RecordType::A);
    answer.metadata.message_type = MessageType::Response;
    client.send(&answer.to_vec().unwrap()).await;
    client.send(&answer.to_vec().unwrap().repeat(200)).await;
    let reply = client.ask(&query(4, "localhost.loki.", RecordType::A)).await;
    assert_eq!(data(&reply).len(), 2, "the first reply is to the first question");

    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(b"\0\0\0\x05short").await.unwrap();
    send_framed(&mut stream, &query(5, "localhost.loki.", RecordType::A)).await;
    assert_eq!(receive_framed(&mut stream).await.metadata.id, 5);
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_remedy() {
    let holder = UdpSocket::bind(ANY_PORT).await.unwrap();
    let taken = holder.local_addr().unwrap();
    let Err(error) = bind(&[ANY_PORT.parse().unwrap(), taken]).await else { panic!("bound twice") };
    let text = error.to_string();
    assert!(text.contains(&taken.to_string()) && text.contains("another resolver or lokinet?"), "{text}");
    assert!(text.contains("[dns] bind"), "{text}");
    let Err(error) = bind(&["203.0.113.1:53".parse().unwrap()]).await else { panic!("bound elsewhere") };
    assert!(error.to_string().contains("no interface has this address"), "{error}");
}
