//! Who owns a mailbox: the key that signs for it. Neighbours: `account` (what the key's account is), `watch` and `client`
//! (what is signed).

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value as Json, json};

use crate::account::Account;

/// An account and its secret. Erased when dropped.
pub struct Owner {
    key: SigningKey,
    account: Account,
}

impl Owner {
    /// The Session id of a seed: the account is the X25519 form of its Ed25519 key.
    pub fn session(seed: &[u8; 32]) -> Owner {
        let key = SigningKey::from_bytes(seed);
        let account = Account::new(Account::SESSION, key.verifying_key().to_montgomery().to_bytes());
        Owner { key, account }
    }

    /// The group of a seed: the account is its Ed25519 key itself.
    pub fn group(seed: &[u8; 32]) -> Owner {
        let key = SigningKey::from_bytes(seed);
        let account = Account::new(Account::GROUP, key.verifying_key().to_bytes());
        Owner { key, account }
    }

    /// The account.
    pub fn account(&self) -> Account {
        self.account
    }

    /// The Ed25519 key behind a Session id; a group's account says it itself.
    pub fn ed25519(&self) -> Option<[u8; 32]> {
        (self.account.prefix() == Account::SESSION).then(|| self.key.verifying_key().to_bytes())
    }

    /// Signs a text.
    pub fn sign(&self, text: &str) -> [u8; 64] {
        self.key.sign(text.as_bytes()).to_bytes()
    }

    /// Signs a text into a call's parameters.
    pub fn sign_into(&self, params: &mut Json, text: &str) {
        params["signature"] = json!(BASE64.encode(&self.sign(text)));
        if let Some(key) = self.ed25519() {
            params["pubkey_ed25519"] = json!(HEXLOWER.encode(&key));
        }
    }
}
