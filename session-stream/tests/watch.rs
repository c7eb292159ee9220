//! Subscriptions over real sockets: a message is there at once and once, whatever happens to the nodes that tell of it.
#![allow(clippy::unwrap_used, missing_docs)]

mod street;

use std::sync::Arc;
use std::time::Duration;

use session_stream::client::watch::Event;
use session_stream::client::{Client, Owner, Recipient, Route, Watch};
use street::Street;
use tokio::time::{Instant, timeout};

const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(20);

async fn next(watch: &mut Watch) -> Vec<u8> {
    timeout(SOON, watch.message()).await.expect("a message comes").expect("the watch goes on").data
}

/// Waits until so many members took the subscription; what was told meanwhile.
async fn subscribed(watch: &mut Watch, mut members: usize) -> Vec<Vec<u8>> {
    let mut told = Vec::new();
    while members > 0 {
        match timeout(SOON, watch.event()).await.expect("a node takes the subscription").unwrap() {
            Event::Subscribed => members -= 1,
            Event::Message(message) => told.push(message.data),
            Event::Refused(words) => panic!("{words}"),
        }
    }
    told
}

/// Nothing more comes for a while.
async fn silent(watch: &mut Watch) -> bool {
    timeout(Duration::from_millis(300), watch.message()).await.is_err()
}

#[tokio::test]
async fn a_message_is_told_at_once_and_once() {
    let street = Street::new(&[7, 7, 7]).await;
    let client = Client::new(street.targets(), Route::Address).unwrap();
    let owner = Arc::new(Owner::session(&[1; 32]));
    let me = Recipient::Owner(&owner);
    client.store(&me, 0, b"from before", HOUR).await.unwrap();
    let mut watch = client.watch(&owner, &[0, 2]);
    assert_eq!(subscribed(&mut watch, 3).await, [b"from before"]);
    let mut waited = Vec::new();
    for text in 0..20u32 {
        let began = Instant::now();
        client.store(&me, 2, &text.to_be_bytes(), HOUR).await.unwrap();
        assert_eq!(next(&mut watch).await, text.to_be_bytes());
        waited.push(began.elapsed());
    }
    waited.sort();
    eprintln!("store to push, median: {:?}", waited[10]);
    client.store(&me, 5, b"not watched", HOUR).await.unwrap();
    assert!(silent(&mut watch).await, "three members told of it, it is given once");
    street.stop().await;
}

#[tokio::test]
async fn who_is_not_the_owner_is_not_told() {
    let street = Street::new(&[7]).await;
    let client = Client::new(street.targets(), Route::Address).unwrap();
    let (owner, group) = (Arc::new(Owner::session(&[1; 32])), Arc::new(Owner::group(&[2; 32])));
    let mut theirs = client.watch(&group, &[11]);
    subscribed(&mut theirs, 1).await;
    client.store(&Recipient::Owner(&owner), 11, b"mine", HOUR).await.unwrap();
    assert!(silent(&mut theirs).await);
    client.store(&Recipient::Owner(&group), 11, b"theirs", HOUR).await.unwrap();
    assert_eq!(next(&mut theirs).await, b"theirs");
    street.stop().await;
}

#[tokio::test]
async fn a_watch_outlives_the_nodes_it_listens_to() {
    let mut street = Street::new(&[7, 7, 7]).await;
    let client = Client::new(street.targets(), Route::Address).unwrap();
    let owner = Arc::new(Owner::session(&[1; 32]));
    let mut watch = client.watch(&owner, &[0]);
    subscribed(&mut watch, 3).await;
    for house in [0, 1] {
        street.houses[house].down().await;
    }
    client.store(&Recipient::Owner(&owner), 0, b"one is left", HOUR).await.unwrap();
    assert_eq!(next(&mut watch).await, b"one is left");
    street.houses[2].down().await;
    for house in [0, 1, 2] {
        street.houses[house].up().await;
    }
    street.publish().await;
    // Stored while nobody may yet have subscribed again: it is fetched.
    client.store(&Recipient::Owner(&owner), 0, b"all are back", HOUR).await.unwrap();
    assert_eq!(next(&mut watch).await, b"all are back");
    assert!(silent(&mut watch).await);
    street.stop().await;
}

#[tokio::test]
async fn a_watch_follows_its_account_to_another_swarm() {
    let mut street = Street::new(&[7, 7, 7, 7]).await;
    let client = Client::new(street.targets(), Route::Address).unwrap();
    let owner = Arc::new(Owner::session(&[1; 32]));
    let mut watch = client.watch(&owner, &[0]);
    subscribed(&mut watch, 3).await;
    // The account's place is nearer to a new swarm, and half of the nodes go there.
    let place = session_stream::swarm::map::place(&owner.account().0);
    for house in [2, 3] {
        street.houses[house].swarm = place;
    }
    for house in [0, 1] {
        street.houses[house].swarm = place.wrapping_add(1 << 60);
    }
    street.publish().await;
    subscribed(&mut watch, 2).await;
    client.store(&Recipient::Owner(&owner), 0, b"here now", HOUR).await.unwrap();
    assert_eq!(next(&mut watch).await, b"here now");
    street.stop().await;
}
