//! Tokens: an owner signs a small note that lets another key read, write or delete in the account's name, and takes it
//! back by telling the swarm. Neighbours: `auth` (verifies them), `store` (keeps those that were revoked).

use ed25519_dalek::{Signature, VerifyingKey};

use super::Account;

/// What a request needs, and what a token gives: a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access(u8);

impl Access {
    /// Only the owner has it.
    pub const NONE: Access = Access(0);
    /// Retrieve, and subscribe.
    pub const READ: Access = Access(1);
    /// Store, and extend.
    pub const WRITE: Access = Access(2);
    /// Delete, and shorten.
    pub const DELETE: Access = Access(4);
    /// Not something to be asked for: the token is good for every prefix.
    const ANY_PREFIX: Access = Access(8);

    /// Both.
    pub const fn and(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }
}

/// A note: prefix, flags, two zeros, the key it is for. How it is written is who it is: other flags, another token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Token(pub [u8; Token::LEN]);

impl Token {
    /// Length in bytes.
    pub const LEN: usize = 36;

    /// A token of these parts.
    pub fn new(prefix: u8, access: Access, any_prefix: bool, key: [u8; 32]) -> Token {
        let flags = if any_prefix { access.and(Access::ANY_PREFIX) } else { access };
        let mut token = [0; Self::LEN];
        token[0] = prefix;
        token[1] = flags.0;
        token[4..].copy_from_slice(&key);
        Token(token)
    }

    /// The key that signs requests.
    pub fn key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(&self.0[4..]);
        key
    }

    /// Whether it gives all of that.
    pub fn gives(&self, access: Access) -> bool {
        self.0[1] & access.0 == access.0
    }

    /// Whether it is for this account's prefix.
    fn suits(&self, account: &Account) -> bool {
        self.0[0] == account.prefix() || self.gives(Access::ANY_PREFIX)
    }

    /// Whether it, signed so by `owner`, gives `access` to `account`.
    pub fn opens(&self, account: &Account, access: Access, owner: &VerifyingKey, signature: &[u8; 64]) -> bool {
        self.suits(account)
            && self.gives(access)
            && owner.verify_strict(&self.0, &Signature::from_bytes(signature)).is_ok()
    }
}
