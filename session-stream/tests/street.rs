//! A street of storage nodes that really run, on loopback: each with its directory, its sockets and its thread, all with
//! one list of nodes in a file. Neighbours: the tests that walk it.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use serde_json::json;
use session_stream::account::Network;
use session_stream::client::Target;
use session_stream::onion::wrap::Hop;
use session_stream::serve::list::Source;
use session_stream::serve::{self, Server, Settings};
use session_stream::store::Damaged;

pub const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A directory that goes with the test.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn made() -> Directory {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("session-street-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Street {
    pub directory: Directory,
    pub houses: Vec<House>,
    pub height: u64,
}

pub struct House {
    /// Nothing while it is down.
    pub server: Option<Server>,
    pub settings: Settings,
    pub swarm: u64,
    pub key: [u8; 32],
    pub x25519: [u8; 32],
    pub https: u16,
    pub quic: u16,
}

impl Street {
    /// Nodes in these swarms, up, and the list told to all.
    pub async fn new(swarms: &[u64]) -> Street {
        let directory = Directory::made();
        let mut houses = Vec::new();
        for (number, swarm) in swarms.iter().enumerate() {
            houses.push(House::new(&directory.0, number, *swarm).await);
        }
        let mut street = Street { directory, houses, height: 100 };
        street.publish().await;
        street
    }

    pub fn list(&self) -> PathBuf {
        self.directory.0.join("nodes.json")
    }

    /// Writes the list of today and waits until everybody knows it.
    pub async fn publish(&mut self) {
        self.height += 1;
        let states: Vec<_> = self.houses.iter().map(House::state).collect();
        let list = json!({
            "service_node_states": states, "height": self.height, "block_hash": format!("{:064x}", self.height),
            "hardfork": 19, "snode_revision": 4, "status": "OK",
        });
        let beside = self.directory.0.join("nodes.json.new");
        std::fs::write(&beside, json!({"jsonrpc": "2.0", "id": "0", "result": list}).to_string()).unwrap();
        std::fs::rename(beside, self.list()).unwrap();
        for house in self.houses.iter().filter(|house| house.server.is_some()) {
            let server = house.server.as_ref().unwrap();
            server.reread();
            let until = tokio::time::Instant::now() + Duration::from_secs(20);
            while server.height() < self.height {
                assert!(tokio::time::Instant::now() < until, "a node does not read the list");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    pub fn targets(&self) -> Vec<Target> {
        self.houses.iter().map(House::target).collect()
    }

    pub async fn stop(self) {
        for house in self.houses {
            if let Some(server) = house.server {
                server.stop().await;
            }
        }
    }
}

impl House {
    pub async fn new(street: &Path, number: usize, swarm: u64) -> House {
        let data_dir = street.join(number.to_string());
        std::fs::create_dir_all(&data_dir).unwrap();
        // RSA keys are slow to make: one does for the whole street.
        for name in ["cert.pem", "key.pem"] {
            let _ = std::fs::copy(street.join("0").join(name), data_dir.join(name));
        }
        let mut settings = Settings {
            key: data_dir.join("key_ed25519"),
            data_dir,
            bind: HOME,
            https_port: 0,
            quic_port: 0,
            source: Source::File(street.join("nodes.json")),
            network: Network::Main,
            store_max: 1 << 30,
            damaged: Damaged::Refuse,
            quic_each_max: 20_000,
            private: true,
            tests: None,
        };
        let server = serve::start(settings.clone()).await.unwrap();
        let (https, quic) = (server.https().port(), server.quic().port());
        (settings.https_port, settings.quic_port) = (https, quic);
        let secret: [u8; 64] = std::fs::read(&settings.key).unwrap().try_into().unwrap();
        let key = SigningKey::from_keypair_bytes(&secret).unwrap();
        let x25519 = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(key.to_scalar_bytes())).to_bytes();
        House { server: Some(server), settings, swarm, key: key.verifying_key().to_bytes(), x25519, https, quic }
    }

    pub fn legacy(&self) -> [u8; 32] {
        self.key.map(|byte| byte ^ 0x55)
    }

    fn state(&self) -> serde_json::Value {
        json!({
            "service_node_pubkey": HEXLOWER.encode(&self.legacy()), "pubkey_ed25519": HEXLOWER.encode(&self.key),
            "pubkey_x25519": HEXLOWER.encode(&self.x25519), "public_ip": "127.0.0.1", "storage_port": self.https,
            "storage_lmq_port": self.quic, "swarm_id": self.swarm, "funded": true,
        })
    }

    pub fn target(&self) -> Target {
        Target { key: self.key, host: "127.0.0.1".into(), port: self.quic }
    }

    pub fn hop(&self) -> Hop {
        Hop { ed25519: self.key, x25519: self.x25519 }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.https)
    }

    pub async fn down(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    pub async fn up(&mut self) {
        // The old sockets are closed a moment after the last connection.
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        self.server = loop {
            match serve::start(self.settings.clone()).await {
                Ok(server) => break Some(server),
                Err(trouble) => assert!(tokio::time::Instant::now() < until, "{trouble}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
    }
}
