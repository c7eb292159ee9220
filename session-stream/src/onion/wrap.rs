//! Putting the layers on: a client chooses the path, makes a key for each node on it, and keeps the one that opens the
//! answer. Neighbours: `hop` (takes them off), `cipher` (what they are), `client` (sends what is wrapped).

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use rand_core::Rng;
use x25519_dalek::{PublicKey, StaticSecret};

use super::cipher::{Cipher, Shared};
use super::{hop, join};

/// A node on a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Its name.
    pub ed25519: [u8; 32],
    /// What its layer is sealed for.
    pub x25519: [u8; 32],
}

/// Where an onion ends.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// At the path's last node.
    Node,
    /// At a server behind it.
    Server {
        /// Its name or address.
        host: &'a str,
        /// `/oxen/v4/lsrpc`, for example.
        target: &'a str,
        /// Its port.
        port: u16,
        /// `http` or `https`.
        protocol: &'a str,
        /// The key it opens requests with.
        x25519: [u8; 32],
    },
}

/// Opens the answer to one onion.
pub struct Opener(Shared);

/// Wraps a request for the nodes of a path, the first being the one it is sent to. Nothing when the path is empty or one
/// of its keys is degenerate.
pub fn wrap(
    path: &[Hop],
    destination: &Destination<'_>,
    request: &[u8],
    cipher: Cipher,
    chance: &mut impl Rng,
) -> Option<(Bytes, Opener)> {
    let (last, before) = path.split_last()?;
    let (mut layer, opener) = match destination {
        Destination::Node => (join(request, br#"{"headers":{}}"#), None),
        Destination::Server { host, target, port, protocol, x25519 } => {
            let (ephemeral, shared, sealed) = seal(x25519, cipher, request, chance)?;
            let json = serde_json::json!({
                "host": host, "target": target, "port": port, "protocol": protocol, "method": "POST",
                "ephemeral_key": HEXLOWER.encode(&ephemeral), "enc_type": cipher.name(),
            });
            (join(&sealed, json.to_string().as_bytes()), Some(Opener(shared)))
        }
    };
    let (mut ephemeral, shared, mut sealed) = seal(&last.x25519, cipher, &layer, chance)?;
    let opener = opener.unwrap_or(Opener(shared));
    let mut inner = last;
    for node in before.iter().rev() {
        layer = hop::next(&inner.ed25519, cipher, &ephemeral, &sealed);
        (ephemeral, _, sealed) = seal(&node.x25519, cipher, &layer, chance)?;
        inner = node;
    }
    let json = serde_json::json!({ "ephemeral_key": HEXLOWER.encode(&ephemeral), "enc_type": cipher.name() });
    Some((join(&sealed, json.to_string().as_bytes()).into(), opener))
}

/// Seals one layer with a key made for it.
fn seal(node: &[u8; 32], cipher: Cipher, plain: &[u8], chance: &mut impl Rng) -> Option<([u8; 32], Shared, Vec<u8>)> {
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    chance.fill_bytes(&mut *seed);
    let secret = StaticSecret::from(*seed);
    let shared = Shared::at_client(cipher, &secret, node)?;
    let sealed = shared.seal(plain, chance)?;
    Some((PublicKey::from(&secret).to_bytes(), shared, sealed))
}

impl Opener {
    /// Opens an answer; nothing if it was not sealed by where the onion ended, errors on the way among them.
    pub fn open(&self, answer: &[u8]) -> Option<Vec<u8>> {
        // Nodes answer in base64 unless asked not to, servers in their own way; a ciphertext is no base64 by chance.
        match BASE64.decode(answer) {
            Ok(sealed) => self.0.open(&sealed),
            Err(_) => self.0.open(answer),
        }
    }
}
