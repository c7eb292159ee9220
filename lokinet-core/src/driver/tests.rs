//! The loop with a stand-in for the node: what a neighbour on the wire, a program or the host would notice. Neighbours:
//! `driver` is tested here; `quic`, `socket` and `save` have tests of their own.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::flow::question::{Kind, Question};
use crate::node::io::{DialId, LinkId, LinkKey, Save};
use crate::wire::id::RelayId;
use bytes::Bytes;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

/// Answers questions; dials, asks and sends cells when told to by the name it is asked for.
#[derive(Default)]
struct Puppet {
    peer: Option<(RelayId, SocketAddr)>,
    link: Option<(LinkId, SocketAddr)>,
    waiting: Option<Ticket>,
    entropy: usize,
    cells: u64,
    wake: Option<Time>,
}

impl Machine for Puppet {
    fn feed(&mut self, input: Input<'_>, now: Now, act: &mut dyn FnMut(Output<'_>)) {
        match input {
            Input::Dns { ticket, question } => match question.name.as_str() {
                "dial" => {
                    self.waiting = Some(ticket);
                    let (peer, addr) = self.peer.unwrap();
                    act(Output::Dial { dial: DialId(1), peer, addrs: vec![addr], key: LinkKey::Throwaway });
                }
                "ask" => {
                    self.waiting = Some(ticket);
                    let link = self.link.unwrap().0;
                    let patience = Duration::from_secs(10);
                    act(Output::Request { link, ticket: Ticket(1), body: Bytes::from_static(b"?"), patience });
                }
                "cells" => {
                    let bytes = [b'c'; 1440 * 100];
                    act(Output::Transmit { to: self.link.unwrap().1, segment: 1440, bytes: &bytes });
                    act(Output::Dns { ticket, answer: Answer::empty(Code::NoError) });
                }
                "wake" => {
                    self.waiting = Some(ticket);
                    self.wake = Some(now.mono + Duration::from_millis(20));
                }
                "never" => {}
                _ => act(Output::Dns { ticket, answer: Answer::empty(Code::NxDomain) }),
            },
            Input::Wake => {
                assert!(now.mono >= self.wake.take().unwrap());
                act(Output::Dns { ticket: self.waiting.unwrap(), answer: Answer::empty(Code::NoError) });
            }
            Input::LinkUp(up) => {
                self.link = Some((up.link, up.remote));
                act(Output::Event(Event::Ready));
                if let Some(ticket) = self.waiting.take() {
                    act(Output::Dns { ticket, answer: Answer::empty(Code::NoError) });
                }
            }
            Input::Request { ticket, .. } => act(Output::Answer { ticket, body: Some(Bytes::from_static(b"!")) }),
            Input::Reply { result, .. } => {
                let code = if result == Ok(Bytes::from_static(b"!")) { Code::NoError } else { Code::Refused };
                act(Output::Dns { ticket: self.waiting.unwrap(), answer: Answer::empty(code) });
            }
            Input::Cells(runs) => {
                for run in runs {
                    assert_eq!((run.from, run.segment), (self.link.unwrap().1, 1440));
                    self.cells += (run.bytes.len() / 1440) as u64;
                }
                act(Output::Event(Event::ClockSkew(self.cells as i64)));
            }
            Input::Packets(packets) => act(Output::Deliver(packets)),
            Input::Entropy(fresh) => {
                assert_ne!(*fresh, [0; 32]);
                self.entropy += 1;
            }
            Input::Stop => act(Output::Save(Save::Guards(Bytes::from_static(b"kept")))),
            _ => {}
        }
    }

    fn next_wake(&self) -> Option<(Time, Wake)> {
        self.wake.map(|at| (at, Wake::Link))
    }

    fn is_cell(&self, datagram: &[u8]) -> bool {
        // Also at a real node a channel's cells may have any first byte; these tests have no QUIC packet of this size.
        datagram.len() == 1440 && datagram.iter().all(|&byte| byte == b'c')
    }

    fn report(&self, _now: Now) -> Report {
        Report { transit: self.entropy, ..Report::default() }
    }
}

fn started(puppet: Puppet, seed: Option<u8>) -> (Handle, tokio::task::JoinHandle<()>) {
    let seed = seed.map(|seed| Zeroizing::new([seed; 32]));
    let (handle, life) = launch(puppet, seed, &["127.0.0.1:0".parse().unwrap()], None, None, 0).unwrap();
    (handle, tokio::spawn(life))
}

async fn ask(handle: &Handle, name: &str) -> Code {
    let question = Question { name: name.into(), kind: Kind::A };
    tokio::time::timeout(Duration::from_secs(20), handle.answer(question)).await.unwrap().code
}

#[tokio::test]
async fn questions_are_answered_and_a_gone_node_fails_them() {
    let (handle, life) = started(Puppet::default(), None);
    assert_eq!(ask(&handle, "x.loki").await, Code::NxDomain);
    assert_eq!(ask(&handle, "wake").await, Code::NoError);
    assert_eq!(handle.report().await.unwrap().transit, 1, "fresh entropy once, at the start");
    let (asker, question) = (handle.clone(), Question { name: "never".into(), kind: Kind::A });
    let forgotten = tokio::spawn(async move { asker.answer(question).await.code });
    assert_eq!(ask(&handle, "x.loki").await, Code::NxDomain);
    handle.stop().await;
    life.await.unwrap();
    assert_eq!(forgotten.await.unwrap(), Code::ServFail);
    assert_eq!(ask(&handle, "x.loki").await, Code::ServFail);
    assert!(handle.report().await.is_none());
    handle.stop().await; // twice does no harm
}

#[tokio::test]
async fn two_nodes_link_ask_and_send_cells_over_one_socket_each() {
    let (relay, _relay_life) = started(Puppet::default(), Some(5));
    let mut milestones = relay.events();
    let id = RelayId(ed25519_dalek::SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes());
    let puppet = Puppet { peer: Some((id, relay.bound()[0])), ..Puppet::default() };
    let (client, life) = started(puppet, None);
    assert_eq!(ask(&client, "dial").await, Code::NoError);
    assert_eq!(milestones.recv().await.unwrap(), Event::Ready);
    assert_eq!(ask(&client, "ask").await, Code::NoError);
    assert_eq!(ask(&client, "cells").await, Code::NoError);
    assert_eq!(ask(&client, "ask").await, Code::NoError);
    let all = async { while milestones.recv().await.unwrap() != Event::ClockSkew(100) {} };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    let dropped = client.report().await.unwrap().counters;
    assert!(dropped.iter().all(|&(_, count)| count == 0), "{dropped:?}");
    drop(client); // the last handle: the node stops
    life.await.unwrap();
}

#[tokio::test]
async fn each_family_has_its_socket_and_cells_leave_by_the_links_own() {
    let Ok(relay_socket) = socket::bind(&["[::]:0".parse().unwrap()]) else {
        eprintln!("skipped: this host has no IPv6");
        return;
    };
    drop(relay_socket);
    let seed = Some(Zeroizing::new([6; 32]));
    let bind = ["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let (relay, relay_life) = launch(Puppet::default(), seed, &bind, None, None, 0).unwrap();
    let id = RelayId(ed25519_dalek::SigningKey::from_bytes(&[6; 32]).verifying_key().to_bytes());
    tokio::spawn(relay_life);
    for (socket, host) in [(0, "127.0.0.1"), (1, "::1")] {
        let mut milestones = relay.events();
        let addr = SocketAddr::new(host.parse().unwrap(), relay.bound()[socket].port());
        let puppet = Puppet { peer: Some((id, addr)), ..Puppet::default() };
        let (client, life) = launch(puppet, None, &bind, None, None, 0).unwrap();
        let life = tokio::spawn(life);
        let mut heard = client.events();
        assert_eq!(ask(&client, "dial").await, Code::NoError);
        assert_eq!(milestones.recv().await.unwrap(), Event::Ready);
        assert_eq!(heard.recv().await.unwrap(), Event::Ready);
        assert_eq!(ask(&client, "ask").await, Code::NoError);
        // The puppet checks that they come from the address the link has.
        assert_eq!(ask(&relay, "cells").await, Code::NoError);
        let all = async { while heard.recv().await.unwrap() != Event::ClockSkew(100) {} };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
        client.stop().await;
        life.await.unwrap();
    }
}

/// A TUN device made of a socket pair.
struct Pair(UnixDatagram);

impl AsFd for Pair {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Tun for Pair {
    fn receive(&mut self, into: &mut Packets) -> io::Result<()> {
        while !into.is_full() {
            match into.push_with(2048, |room| self.0.recv(room)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                other => other?,
            }
        }
        Ok(())
    }

    fn send(&mut self, packets: &mut Packets) -> (usize, usize) {
        let sent = packets.iter().filter(|packet| self.0.send(packet).is_ok()).count();
        (sent, packets.len() - sent)
    }
}

#[tokio::test]
async fn packets_go_through_and_the_last_words_reach_the_disk() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let theirs = tokio::net::UnixDatagram::from_std(theirs).unwrap();
    let dir = std::env::temp_dir().join(format!("lokinet-driver-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let bind = ["127.0.0.1:0".parse().unwrap()];
    let tun: Option<Box<dyn Tun>> = Some(Box::new(Pair(ours)));
    let (handle, life) = launch(Puppet::default(), None, &bind, Some(dir.clone()), tun, 0).unwrap();
    let life = tokio::spawn(life);
    for round in 0..3_u8 {
        theirs.send(&[round; 100]).await.unwrap();
        let mut back = [0; 200];
        let echoed = tokio::time::timeout(Duration::from_secs(20), theirs.recv(&mut back)).await.unwrap().unwrap();
        assert_eq!(back[..echoed], [round; 100]);
    }
    handle.stop().await;
    life.await.unwrap();
    assert_eq!(load(&dir).guards.as_deref(), Some(&b"kept"[..]));
    std::fs::remove_dir_all(&dir).unwrap();
}
