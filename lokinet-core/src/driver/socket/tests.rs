//! Sorting a mixed message, and cells and QUIC over one real socket on the loopback.

#![allow(clippy::unwrap_used)]

use super::letters::{LETTER_MAX, LETTERS_WAITING};
use super::*;
use std::task::Waker;

/// In these tests a cell starts with a `c`.
fn is_cell(segment: &[u8]) -> bool {
    segment.first() == Some(&b'c')
}

fn sorted(message: &[u8], stride: usize) -> Vec<(bool, Vec<u8>)> {
    let mut parts = Vec::new();
    sort(message, stride, is_cell, |part| match part {
        Part::Cells { at, len } => parts.push((true, message[at..at + len].to_vec())),
        Part::Letter(bytes) => parts.push((false, bytes.to_vec())),
    });
    parts
}

#[test]
fn a_mixed_message_is_cut_at_every_quic_packet() {
    let parts = sorted(b"c11c22q33c44q55q66c7", 3);
    let expected: [(bool, &[u8]); 6] = [
        (true, b"c11c22"),
        (false, b"q33"),
        (true, b"c44"),
        (false, b"q55"),
        (false, b"q66"),
        (true, b"c7"), // the last one may be shorter
    ];
    assert_eq!(parts, expected.map(|(cells, bytes)| (cells, bytes.to_vec())));
    assert_eq!(sorted(b"c11c22", 3), [(true, b"c11c22".to_vec())]);
    assert_eq!(sorted(b"q1", 3), [(false, b"q1".to_vec())]);
    assert!(sorted(b"", 0).is_empty());
}

fn wire() -> Arc<Wire> {
    let socket = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap().remove(0);
    Arc::new(Wire::watched(socket).unwrap())
}

async fn readable(wire: &Wire) {
    std::future::poll_fn(|cx| wire.poll_readable(cx)).await;
}

#[tokio::test]
async fn cells_arrive_in_order_and_quic_gets_the_rest() {
    let (a, b) = (wire(), wire());
    const SIZE: usize = 1440;
    let mut sent = Vec::new();
    for number in 0..100_u8 {
        let mut cell = [b'c'; SIZE];
        cell[1] = number;
        sent.extend_from_slice(&cell);
    }
    let mut waits = 3;
    assert_eq!(a.send(b.local(), None, SIZE, &sent, &mut waits), 0);
    assert_eq!(a.send(b.local(), None, SIZE, &[b'q'; SIZE], &mut waits), 0);
    assert_eq!(a.send(b.local(), None, SIZE, b"short quic", &mut waits), 0);

    let mut arena = Arena::new();
    let (mut got, mut letters, mut runs_seen) = (Vec::new(), Vec::new(), 0);
    while letters.len() < 2 {
        readable(&b).await;
        if drain(std::slice::from_ref(&b), &mut arena, is_cell).cells {
            for run in arena.runs() {
                assert_eq!((run.from, run.segment), (a.local(), SIZE));
                got.extend_from_slice(run.bytes);
                runs_seen += 1;
            }
        }
        let mut buffer = [0; LETTER_MAX];
        let mut meta = [RecvMeta::default()];
        let mut bufs = [IoSliceMut::new(&mut buffer)];
        let mut none = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(1)) = b.poll_recv(&mut none, &mut bufs, &mut meta) {
            assert_eq!(meta[0].addr, a.local());
            letters.push(bufs[0][..meta[0].len].to_vec());
        }
    }
    assert_eq!(letters, [vec![b'q'; SIZE], b"short quic".to_vec()]);
    assert!(got == sent, "all cells, whole and in order");
    assert!(runs_seen <= 100);
}

#[tokio::test]
async fn a_flood_of_quic_is_dropped_and_counted_not_hoarded() {
    let wire = wire();
    let meta = RecvMeta { addr: wire.local(), ..RecvMeta::default() };
    for _ in 0..LETTERS_WAITING + 10 {
        wire.letters.deliver(b"junk", &meta);
    }
    wire.letters.deliver(&[0; LETTER_MAX + 1], &meta);
    assert_eq!(wire.letters.dropped.load(Ordering::Relaxed), 11);
    assert_eq!(wire.letters.len(), LETTERS_WAITING);
}

#[test]
fn a_taken_address_is_named_with_a_remedy() {
    let first = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap().remove(0);
    let addr = first.local_addr().unwrap();
    let error = bind(&[addr]).unwrap_err().to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("[bind] inbound"), "{error}");
    assert!(bind(&[]).is_err());
}
