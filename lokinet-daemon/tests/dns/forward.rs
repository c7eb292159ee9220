//! Names that are not ours: forwarded as they came, and what comes back is not believed blindly.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::rig::*;
use hickory_proto::op::{MessageType, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, HTTPS};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::{TcpListener, UdpSocket};

#[tokio::test]
async fn other_names_are_forwarded_as_they_came_and_ours_never_are() {
    let upstream = other_that_says(address("93.184.216.34")).await;
    let server = serve(node(), &[upstream.local]).await;
    let ours = [
        "nobody.loki.",
        "NOBODY.LOKI.",
        "loki.",
        "x.snode.",
        "7.0.16.172.in-addr.arpa.",
        "7.0.0.0.0.1.c.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
        "use-application-dns.net.",
    ];
    for name in ours {
        let reply = ask(server, name, RecordType::PTR).await;
        assert_eq!(code(&reply), ResponseCode::NXDomain, "{name}");
        let reply = ask_by_tcp(server, name, RecordType::A).await;
        assert!(reply.answers.is_empty(), "{name}");
    }
    let client = Client::new(server).await;
    let public = with_edns(query(0xbeef, "WwW.example.com.", RecordType::A), 1400);
    let reply = client.ask(&public).await;
    assert_eq!(data(&reply), ["93.184.216.34"]);
    assert!(!reply.metadata.authoritative);
    client.ask(&query(2, "7.0.17.172.in-addr.arpa.", RecordType::PTR)).await;
    let heard = upstream.heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 2, "the public name, and the reverse name outside of our range");
    assert_eq!(heard[0][2..], public.to_vec().unwrap()[2..], "byte for byte, but for the number");
}

#[tokio::test]
async fn numbers_and_ports_of_forwarded_questions_are_by_chance() {
    let ports = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = ports.clone();
    let upstream = other(move |query, socket, from| {
        seen.lock().unwrap().insert((query.metadata.id, from.port()));
        let bytes = reply(&query, address("1.2.3.4")).to_vec().unwrap();
        async move {
            socket.send_to(&bytes, from).await.unwrap();
        }
    })
    .await;
    let server = serve(node(), &[upstream.local]).await;
    let client = Client::new(server).await;
    for _ in 0..16 {
        client.ask(&query(1, "example.com.", RecordType::A)).await;
    }
    let ports = ports.lock().unwrap();
    let ids: BTreeSet<u16> = ports.iter().map(|(id, _)| *id).collect();
    let ports: BTreeSet<u16> = ports.iter().map(|(_, port)| *port).collect();
    assert!(ids.len() > 8 && ports.len() > 8, "{ids:?} {ports:?}");
}

#[tokio::test]
async fn forged_replies_are_not_heard() {
    let upstream = other(|query, socket, from| async move {
        let forged = reply(&query, address("6.6.6.6"));
        let mut wrong_id = forged.clone();
        wrong_id.metadata.id ^= 1;
        socket.send_to(&wrong_id.to_vec().unwrap(), from).await.unwrap();
        let mut wrong_name = forged.clone();
        wrong_name.queries[0].set_name(Name::from_ascii("bank.example.").unwrap());
        socket.send_to(&wrong_name.to_vec().unwrap(), from).await.unwrap();
        let mut no_reply = forged.clone();
        no_reply.metadata.message_type = MessageType::Query;
        socket.send_to(&no_reply.to_vec().unwrap(), from).await.unwrap();
        let somebody = UdpSocket::bind("127.0.0.5:0").await.unwrap();
        somebody.send_to(&forged.to_vec().unwrap(), from).await.unwrap();
        socket.send_to(b"garbage", from).await.unwrap();
        socket.send_to(&reply(&query, address("1.2.3.4")).to_vec().unwrap(), from).await.unwrap();
    })
    .await;
    let server = serve(node(), &[upstream.local]).await;
    let reply = ask(server, "example.com.", RecordType::A).await;
    assert_eq!(data(&reply), ["1.2.3.4"]);
}

#[tokio::test]
async fn a_public_name_may_not_point_into_our_range() {
    let hint = |key, value| RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), vec![(key, value)])));
    let v4 = hint(SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(172, 16, 9, 9)])));
    let v6: AAAA = AAAA("fd00::ac10:909".parse().unwrap());
    let v6 = hint(SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(vec![v6])));
    let ours = [address("172.16.9.9"), address("fd00::ac10:909"), address("::ffff:172.16.9.9"), v4, v6];
    for answer in ours {
        let upstream = other_that_says(answer.clone()).await;
        let server = serve(node(), &[upstream.local]).await;
        let reply = ask(server, "evil.example.", answer.record_type()).await;
        assert_eq!((code(&reply), reply.answers.len()), (ResponseCode::ServFail, 0), "{answer}");
        assert_eq!(upstream.heard.lock().unwrap().len(), 1, "and it is not asked again");
    }
    for answer in [address("172.17.9.9"), address("fd00::ac11:909")] {
        let upstream = other_that_says(answer.clone()).await;
        let server = serve(node(), &[upstream.local]).await;
        assert_eq!(data(&ask(server, "lan.example.", answer.record_type()).await), [answer.to_string()]);
    }
}

#[tokio::test]
async fn a_truncated_reply_sends_the_client_to_tcp_and_there_the_whole_comes() {
    let upstream = other(|query, socket, from| async move {
        let mut message = reply(&query, address("6.6.6.6"));
        message.metadata.truncation = true;
        socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
    })
    .await;
    let listener = TcpListener::bind(upstream.local).await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let query = receive_framed(&mut stream).await;
        send_framed(&mut stream, &reply(&query, address("1.2.3.4"))).await;
    });
    let server = serve(node(), &[upstream.local]).await;
    let reply = ask(server, "example.com.", RecordType::A).await;
    assert!(reply.metadata.truncation && reply.answers.is_empty());
    let reply = ask_by_tcp(server, "example.com.", RecordType::A).await;
    assert_eq!((reply.metadata.id, data(&reply)), (78, vec!["1.2.3.4".to_string()]));
}

#[tokio::test]
async fn without_a_resolver_other_names_are_refused_at_once() {
    let server = serve(node(), &[]).await;
    assert_eq!(code(&ask(server, "example.com.", RecordType::A).await), ResponseCode::Refused);
    assert_eq!(code(&ask_by_tcp(server, "example.com.", RecordType::A).await), ResponseCode::Refused);
}

#[tokio::test]
async fn a_resolver_that_is_gone_or_silent_is_passed_over() {
    // Connected elsewhere: to everybody else its port is closed, and nobody takes it meanwhile.
    let holder = UdpSocket::bind(ANY_PORT).await.unwrap();
    holder.connect("127.0.0.1:9").await.unwrap();
    let gone = holder.local_addr().unwrap();
    let silent = other(|_, _, _| async {}).await;
    let good = other_that_says(address("1.2.3.4")).await;
    let server = serve(node(), &[gone, silent.local, good.local]).await;
    assert_eq!(data(&ask(server, "example.com.", RecordType::A).await), ["1.2.3.4"]);
    let server = serve(node(), &[gone]).await;
    assert_eq!(code(&ask(server, "example.com.", RecordType::A).await), ResponseCode::ServFail);
    assert_eq!(code(&ask_by_tcp(server, "example.com.", RecordType::A).await), ResponseCode::ServFail);
}
