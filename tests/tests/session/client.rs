//! The client's parts: what is done inside the client's namespace, against real nodes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer, SigningKey};
use lokinet_core::wire::address;
use lokinet_core::wire::id::RelayId;
use quinn::Endpoint;
use serde_json::{Value as Json, json};
use session_stream::account::{Access, Account, Namespace, Token};
use session_stream::bt;
use session_stream::client::{Client, ClientError, Link, Owner, Recipient, Route, Target};
use session_stream::http::{Http, Reach, Trust};
use session_stream::push::signed;
use session_stream::swarm::list::List;
use session_stream::swarm::map::place;
use session_stream::swarm::{Node, SwarmId};
use session_stream::value::Value;

use super::NODES;

/// Where devnet's registry is asked.
const REGISTRY: &str = "http://10.254.0.1:22023/json_rpc";
const HOUR: Duration = Duration::from_secs(3600);

/// Plays a part; panics when it fails.
pub fn play(words: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    runtime.block_on(async {
        let lab = Network::new().await;
        match words[..] {
            ["calls", way] => calls(&lab, if way == "quic" { Way::Quic } else { Way::Https }).await,
            ["watch"] => watch(&lab).await,
            ["before-the-loss"] => drop(lab.store(Way::Https, 0, &lost(), 2, b"before").await),
            ["during-the-loss"] => during_the_loss(&lab).await,
            ["after-the-loss"] => after_the_loss(&lab).await,
            ["divide"] => divide(&lab).await,
            ["router", loki] => router(&lab, loki).await,
            _ => panic!("no part {words:?}"),
        }
    });
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Https,
    Quic,
}

/// The nodes, by address, and how they are asked.
struct Network {
    nodes: Vec<Node>,
    http: Http,
    endpoint: Endpoint,
}

fn wall() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn base64(bytes: &[u8]) -> Json {
    BASE64.encode(bytes).into()
}

/// A namespace in what is signed.
fn ns(namespace: i16) -> String {
    if namespace == 0 { String::new() } else { namespace.to_string() }
}

impl Network {
    async fn new() -> Network {
        let http = Http::new().unwrap();
        let endpoint = session_stream::quic::endpoint(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), None).unwrap();
        let mut network = Network { nodes: Vec::new(), http, endpoint };
        network.nodes = network.list().await;
        assert_eq!(network.nodes.len(), NODES);
        network
    }

    async fn registry(&self, method: &str, params: Json) -> Json {
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}).to_string();
        let post = Some((body.into(), "application/json"));
        let said = self.http.ask(REGISTRY, post, 1 << 20, Trust::Nobody, Reach::Anywhere).await.unwrap();
        let said: Json = serde_json::from_slice(&said.body).unwrap();
        assert!(said["result"].is_object(), "{said}");
        said["result"].clone()
    }

    async fn list(&self) -> Vec<Node> {
        let said = self.registry("get_service_nodes", json!({})).await;
        let list = List::read(said.to_string().as_bytes()).unwrap().unwrap();
        let mut nodes: Vec<Node> = list.nodes.into_values().collect();
        nodes.sort_by_key(|node| node.ip);
        nodes
    }

    fn targets(&self) -> Vec<Target> {
        let target = |node: &Node| Target { key: node.key.0, host: node.ip.to_string(), port: node.quic };
        self.nodes.iter().map(target).collect()
    }

    /// Calls a node; status and answer.
    async fn call(&self, way: Way, at: usize, method: &str, params: &Json) -> (u16, Json) {
        let node = &self.nodes[at];
        if way == Way::Quic {
            let link = Link::connect(&self.endpoint, &self.targets()[at]).await.unwrap();
            return match link.call(method, params).await {
                Ok(said) => (200, said),
                Err(ClientError::Refused { status, words, body: Json::Null }) => (status, words.into()),
                Err(ClientError::Refused { status, body, .. }) => (status, body),
                Err(error) => panic!("{error}"),
            };
        }
        let url = format!("https://{}/storage_rpc/v1", SocketAddr::from((IpAddr::V4(node.ip), node.https)));
        let post = Some((json!({"method": method, "params": params}).to_string().into(), "application/json"));
        let said = self.http.ask(&url, post, 16 << 20, Trust::Nobody, Reach::Anywhere).await.unwrap();
        let text = || Json::from(&*String::from_utf8_lossy(&said.body));
        (said.status, serde_json::from_slice(&said.body).unwrap_or_else(|_| text()))
    }

    /// Stores at a node, which must have every member of the swarm do it; the hash.
    async fn store(&self, way: Way, at: usize, owner: &Owner, namespace: i16, data: &[u8]) -> String {
        let time = wall();
        let mut params = json!({
            "pubkey": owner.account().hex(), "namespace": namespace, "timestamp": time, "ttl": 3_600_000,
            "data": base64(data),
        });
        owner.sign_into(&mut params, &format!("store{}{time}", ns(namespace)));
        let (status, said) = self.call(way, at, "store", &params).await;
        assert_eq!(status, 200, "{said}");
        said["hash"].as_str().unwrap().to_owned()
    }

    /// The messages in a box of a node, or the status it says no with.
    async fn retrieve(&self, way: Way, at: usize, owner: &Owner, namespace: i16) -> Result<Vec<String>, u16> {
        let time = wall();
        let mut params = json!({"pubkey": owner.account().hex(), "namespace": namespace, "timestamp": time});
        owner.sign_into(&mut params, &format!("retrieve{}{time}", ns(namespace)));
        let (status, said) = self.call(way, at, "retrieve", &params).await;
        let messages = said["messages"].as_array().filter(|_| status == 200).ok_or(status)?;
        Ok(messages.iter().map(|message| message["hash"].as_str().unwrap().to_owned()).collect())
    }

    /// Waits until a box holds this at a node.
    async fn settles(&self, at: usize, owner: &Owner, namespace: i16, expected: &[&String]) {
        let expected: BTreeSet<String> = expected.iter().map(|hash| (*hash).clone()).collect();
        let mut found = Err(0);
        for _ in 0..240 {
            found = self.retrieve(Way::Https, at, owner, namespace).await;
            if found.as_ref().is_ok_and(|found| found.iter().cloned().collect::<BTreeSet<_>>() == expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("node {at}: {found:?} in the place of {expected:?}");
    }
}

/// Every call there is, and every member agrees.
async fn calls(lab: &Network, way: Way) {
    let owner = Owner::group(&[way as u8 + 1; 32]);
    let account = owner.account().hex();
    let sign = |mut params: Json, text: &str| {
        params["pubkey"] = account.clone().into();
        owner.sign_into(&mut params, text);
        params
    };
    let all_hold = async |namespace: i16, expected: &[&String]| {
        for at in 0..NODES {
            let found = lab.retrieve(way, at, &owner, namespace).await.unwrap();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "node {at}");
        }
    };
    let mut kept = Vec::new();
    for number in 0u8..5 {
        kept.push(lab.store(way, usize::from(number), &owner, 2, &[number]).await);
    }
    let inbox = lab.store(way, 7, &owner, 0, b"inbox").await;
    all_hold(2, &kept.iter().collect::<Vec<_>>()).await;
    // delete
    let params = sign(json!({"messages": [kept[0]]}), &format!("delete{}", kept[0]));
    let (status, said) = lab.call(way, 1, "delete", &params).await;
    assert_eq!(status, 200, "{said}");
    let swarm = said["swarm"].as_object().unwrap();
    assert_eq!(swarm.len(), NODES);
    assert!(swarm.values().all(|node| node["deleted"] == json!([kept[0]])), "{said}");
    all_hold(2, &[&kept[1], &kept[2], &kept[3], &kept[4]]).await;
    // expire, get_expiries, expire_all
    let sooner = wall() + 60_000;
    let text = format!("expireshorten{sooner}{}", kept[1]);
    let params = sign(json!({"messages": [kept[1]], "expiry": sooner, "shorten": true}), &text);
    assert_eq!(lab.call(way, 2, "expire", &params).await.0, 200);
    let time = wall();
    let text = format!("get_expiries{time}{}", kept[1]);
    let params = sign(json!({"messages": [kept[1]], "timestamp": time}), &text);
    assert_eq!(lab.call(way, 3, "get_expiries", &params).await.1["expiries"], json!({&kept[1]: sooner}));
    let soon = wall() + 120_000;
    let params = sign(json!({"expiry": soon, "namespace": "all"}), &format!("expire_allall{soon}"));
    let (_, said) = lab.call(way, 4, "expire_all", &params).await;
    assert!(said["swarm"].as_object().unwrap().values().all(|node| node["updated"]["0"] == json!([inbox])), "{said}");
    // batch, sequence, ifelse
    let info = json!({"method": "info", "params": {}});
    let unsigned = json!({"pubkey": account, "namespace": 42, "timestamp": wall(), "ttl": 60_000, "data": "aGk="});
    let unsigned = json!({"method": "store", "params": unsigned});
    let (_, said) = lab.call(way, 5, "batch", &json!({"requests": [info, unsigned]})).await;
    let codes = |said: &Json| -> Vec<u64> {
        said["results"].as_array().unwrap().iter().map(|result| result["code"].as_u64().unwrap()).collect()
    };
    assert_eq!(codes(&said), [200, 401]);
    let (_, said) = lab.call(way, 5, "sequence", &json!({"requests": [unsigned, info]})).await;
    assert_eq!(codes(&said), [401]);
    let (_, said) = lab.call(way, 5, "ifelse", &json!({"if": {"hf_at_least": [19, 4]}, "then": info})).await;
    assert_eq!((&said["condition"], &said["result"]["code"]), (&json!(true), &json!(200)), "{said}");
    // delete_before, delete_all
    let before = wall();
    let params = sign(json!({"before": before, "namespace": 2}), &format!("delete_before2{before}"));
    assert_eq!(lab.call(way, 6, "delete_before", &params).await.0, 200);
    all_hold(2, &[]).await;
    let time = wall();
    let params = sign(json!({"timestamp": time, "namespace": "all"}), &format!("delete_allall{time}"));
    assert_eq!(lab.call(way, 6, "delete_all", &params).await.0, 200);
    all_hold(0, &[]).await;
    subaccounts(lab, way, &owner).await;
    println!("store, retrieve, delete*, expire*, batch, sequence, ifelse, subaccounts: {NODES} members agree");
}

async fn subaccounts(lab: &Network, way: Way, owner: &Owner) {
    let owner_key = SigningKey::from_bytes(&[way as u8 + 1; 32]);
    let member = SigningKey::from_bytes(&[99; 32]);
    let token = Token::new(Account::GROUP, Access::READ.and(Access::WRITE), false, member.verifying_key().to_bytes());
    let reads = async |at: usize| {
        let time = wall();
        let params = json!({
            "pubkey": owner.account().hex(), "namespace": 11, "timestamp": time,
            "signature": base64(&member.sign(format!("retrieve11{time}").as_bytes()).to_bytes()),
            "subaccount": base64(&token.0), "subaccount_sig": base64(&owner_key.sign(&token.0).to_bytes()),
        });
        lab.call(way, at, "retrieve", &params).await.0
    };
    assert_eq!(reads(0).await, 200);
    for (method, name, expected) in [("revoke_subaccount", "revoke", 401), ("unrevoke_subaccount", "unrevoke", 200)] {
        let time = wall();
        let message = [method.as_bytes(), time.to_string().as_bytes(), &token.0].concat();
        let params = json!({
            "pubkey": owner.account().hex(), "timestamp": time, name: base64(&token.0),
            "signature": base64(&owner_key.sign(&message).to_bytes()),
        });
        assert_eq!(lab.call(way, 1, method, &params).await.0, 200);
        for at in 0..NODES {
            assert_eq!(reads(at).await, expected, "{method}, node {at}");
        }
    }
}

/// Messages are pushed at once.
async fn watch(lab: &Network) {
    let owner = Arc::new(Owner::session(&[7; 32]));
    let client = Client::new(lab.targets(), Route::Address).unwrap();
    let mut watch = client.watch(&owner, &[0, 2]);
    let subscribed = tokio::time::timeout(Duration::from_secs(20), watch.event()).await.unwrap();
    assert_eq!(subscribed, Some(session_stream::client::watch::Event::Subscribed));
    let mut took = Vec::new();
    for number in 0u8..20 {
        let began = tokio::time::Instant::now();
        let (recipient, data) = (Recipient::Owner(&owner), [number]);
        let stored = client.store(&recipient, 2, &data, HOUR);
        let (stored, message) = tokio::join!(stored, tokio::time::timeout(Duration::from_secs(10), watch.message()));
        took.push(began.elapsed());
        let message = message.expect("it is pushed").unwrap();
        assert_eq!((&message.data[..], &message.hash), (&[number][..], &stored.unwrap().hash));
    }
    took.sort();
    println!("20 messages stored and pushed, median {:.1} ms", took[10].as_secs_f64() * 1000.0);
}

/// The account for the loss of a node.
fn lost() -> Owner {
    Owner::group(&[50; 32])
}

async fn during_the_loss(lab: &Network) {
    let hash = session_stream::account::hash::of(&lost().account(), Namespace(2), b"before");
    let mut params = json!({"pubkey": lost().account().hex(), "messages": [hash]});
    lost().sign_into(&mut params, &format!("delete{hash}"));
    let (status, said) = lab.call(Way::Https, 0, "delete", &params).await;
    assert_eq!(status, 200);
    let failed = said["swarm"].as_object().unwrap().values().filter(|node| node["failed"] == true).count();
    assert_eq!(failed, 1, "{said}");
    lab.store(Way::Quic, 4, &lost(), 2, b"during").await;
}

async fn after_the_loss(lab: &Network) {
    let during = session_stream::account::hash::of(&lost().account(), Namespace(2), b"during");
    let at = lab.nodes.iter().position(|node| node.ip == Ipv4Addr::new(10, 242, 0, 1)).unwrap();
    let began = tokio::time::Instant::now();
    while tokio::net::TcpStream::connect((lab.nodes[at].ip, lab.nodes[at].https)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    lab.settles(at, &lost(), 2, &[&during]).await;
    println!("it has what it missed, {:.1} s after it came back", began.elapsed().as_secs_f64());
}

/// Five nodes get a swarm of their own, where an account lies; then all are one swarm again.
async fn divide(lab: &Network) {
    let owner = Arc::new(Owner::group(&[60; 32]));
    let client = Client::new(lab.targets(), Route::Address).unwrap();
    let mut watch = client.watch(&owner, &[2]);
    let first = lab.store(Way::Https, 9, &owner, 2, b"first").await;
    let swarm = SwarmId(place(&owner.account().0));
    for node in &lab.nodes[..5] {
        lab.registry("place", json!({"pubkey_ed25519": HEXLOWER.encode(&node.key.0), "swarm": swarm.0})).await;
    }
    for at in 0..5 {
        lab.settles(at, &owner, 2, &[&first]).await;
    }
    // Those that lost the account say where it is, and whoever watches it goes there.
    for _ in 0..100 {
        if lab.retrieve(Way::Https, 9, &owner, 2).await == Err(421) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(lab.retrieve(Way::Quic, 9, &owner, 2).await, Err(421));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let second = lab.store(Way::Https, 2, &owner, 2, b"second").await;
    let next = async {
        loop {
            let message = watch.message().await.expect("the watch goes on");
            if message.hash == second {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), next).await.expect("it is pushed by the new swarm");
    for node in &lab.nodes[..5] {
        lab.registry("place", json!({"pubkey_ed25519": HEXLOWER.encode(&node.key.0)})).await;
    }
    for at in 0..NODES {
        lab.settles(at, &owner, 2, &[&first, &second]).await;
    }
    println!("five nodes took an account over and gave it back; its watcher followed");
}

/// By its `.loki` name: stores, subscribes, is told.
async fn router(lab: &Network, loki: &str) {
    let owner = Owner::group(&[70; 32]);
    let node = &lab.nodes[0];
    let target = Target { key: node.key.0, host: loki.to_owned(), port: node.quic };
    let link = Link::connect(&lab.endpoint, &target).await.unwrap();
    let time = i64::try_from(wall() / 1000).unwrap();
    let signature = owner.sign(&signed(&owner.account(), time, true, &[Namespace(2)]));
    let request = Value::dict([
        ("d", 1u64.into()),
        ("n", Value::List(vec![2i16.into()])),
        ("p", Value::Bytes(owner.account().0.to_vec())),
        ("s", Value::Bytes(signature.to_vec())),
        ("t", time.into()),
    ]);
    let answer = link.request("monitor", bt::write(&request).into()).await.unwrap();
    assert_eq!(&answer[..], b"d7:successi1ee");
    let time = wall();
    let mut params = json!({
        "pubkey": owner.account().hex(), "namespace": 2, "timestamp": time, "ttl": 3_600_000, "data": base64(b"hidden"),
    });
    owner.sign_into(&mut params, &format!("store2{time}"));
    let began = tokio::time::Instant::now();
    let said = link.call("store", &params).await.unwrap();
    assert_eq!(said["swarm"].as_object().unwrap().len(), NODES);
    let push = tokio::time::timeout(Duration::from_secs(10), link.pushed()).await.unwrap().unwrap();
    let told = bt::read(&push.body).unwrap();
    assert_eq!(told.field("~"), Some(&Value::Bytes(b"hidden".to_vec())));
    println!("stored and told by name through the network in {:.0} ms", began.elapsed().as_secs_f64() * 1000.0);
    snode(node, &owner).await;
}

/// By `.snode` names alone: the library finds the swarm's members by the names that nodes tell, and follows them.
async fn snode(node: &Node, owner: &Owner) {
    let host = address::snode(&RelayId(node.key.0));
    let client = Client::new(vec![Target { key: node.key.0, host, port: node.quic }], Route::Router).unwrap();
    let members = client.swarm(&owner.account().0).await.unwrap();
    assert!(members.len() == NODES && members.iter().all(|member| member.host.ends_with(".snode")), "{members:?}");
    let watched = Arc::new(Owner::group(&[71; 32]));
    let mut watch = client.watch(&watched, &[2]);
    let subscribed = tokio::time::timeout(Duration::from_secs(30), watch.event()).await.unwrap();
    assert_eq!(subscribed, Some(session_stream::client::watch::Event::Subscribed));
    let stored = client.store(&Recipient::Owner(&watched), 2, b"by snode", HOUR).await.unwrap();
    assert_eq!(stored.members, NODES);
    let message = tokio::time::timeout(Duration::from_secs(10), watch.message()).await.unwrap().unwrap();
    assert_eq!((&message.data[..], message.hash), (&b"by snode"[..], stored.hash));
    println!("found, stored and told by .snode names alone");
}
