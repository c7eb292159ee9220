//! Signatures: whether who asks is the account, or somebody it let in. Neighbours: `subaccount` (the note it let them in
//! with), `rpc` (says what must be signed), `push` (the same for subscriptions).

use ed25519_dalek::{Signature, VerifyingKey};

use super::{Access, Account, Network, Token};

/// What a request shows for itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// The Ed25519 key behind a Session id, which is an X25519 one.
    pub ed25519: Option<[u8; 32]>,
    /// Over the request's own words.
    pub signature: [u8; 64],
    /// The owner's note and the owner's signature over it; then `signature` is of the note's key.
    pub token: Option<(Token, [u8; 64])>,
}

impl Proof {
    /// Whether the request comes from `account` or from whom it gave `access`, and `message` is what it says. `revoked`
    /// is asked about the token before anything is verified.
    pub fn holds(
        &self,
        account: &Account,
        network: Network,
        access: Access,
        message: &[u8],
        revoked: impl FnOnce(&Token) -> bool,
    ) -> bool {
        let Some(owner) = owner(account, network, self.ed25519) else { return false };
        let signer = match &self.token {
            None => owner,
            Some((token, signature)) => {
                if revoked(token) || !token.opens(account, access, &owner, signature) {
                    return false;
                }
                let Ok(key) = VerifyingKey::from_bytes(&token.key()) else { return false };
                key
            }
        };
        signer.verify_strict(message, &Signature::from_bytes(&self.signature)).is_ok()
    }
}

/// The key that signs for an account: its own, or the Ed25519 one given for a Session id if that is what the id was made
/// of. On the test network ids of prefix 0 are made the same way.
pub fn owner(account: &Account, network: Network, ed25519: Option<[u8; 32]>) -> Option<VerifyingKey> {
    let derived = account.prefix() == Account::SESSION || (account.prefix() == 0 && network == Network::Test);
    match ed25519 {
        Some(ed25519) if derived => {
            let key = VerifyingKey::from_bytes(&ed25519).ok()?;
            (!key.is_weak() && key.to_montgomery().to_bytes() == account.key()).then_some(key)
        }
        _ => VerifyingKey::from_bytes(&account.key()).ok(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_bytes(&[byte; 32])
    }

    fn public(key: &SigningKey) -> [u8; 32] {
        key.verifying_key().to_bytes()
    }

    fn proof(key: &SigningKey, message: &[u8]) -> Proof {
        Proof { ed25519: None, signature: key.sign(message).to_bytes(), token: None }
    }

    fn session(key: &SigningKey) -> Account {
        Account::new(Account::SESSION, key.verifying_key().to_montgomery().to_bytes())
    }

    #[test]
    fn an_ed25519_account_signs_for_itself() {
        let key = key(1);
        let account = Account::new(Account::GROUP, public(&key));
        let holds = |proof: &Proof, message: &[u8]| {
            proof.holds(&account, Network::Main, Access::NONE, message, |_| panic!("there is no token"))
        };
        assert!(holds(&proof(&key, b"store"), b"store"));
        assert!(!holds(&proof(&key, b"store"), b"retrieve"));
        assert!(!holds(&proof(&self::key(2), b"store"), b"store"));
    }

    #[test]
    fn a_session_id_signs_with_the_key_it_was_made_of_and_no_other() {
        let (key, stranger) = (key(1), key(2));
        let holds = |signer: &SigningKey, shown: &SigningKey, account: Account, network| {
            let proof = Proof { ed25519: Some(public(shown)), ..proof(signer, b"x") };
            proof.holds(&account, network, Access::NONE, b"x", |_| false)
        };
        assert!(holds(&key, &key, session(&key), Network::Main));
        assert!(!holds(&stranger, &stranger, session(&key), Network::Main), "a key shown that is not the id's");
        assert!(!holds(&stranger, &key, session(&key), Network::Main));
        let unprefixed = Account::new(0, session(&key).key());
        assert!(holds(&key, &key, unprefixed, Network::Test));
        assert!(!holds(&key, &key, unprefixed, Network::Main));
    }

    #[test]
    fn a_token_gives_what_its_owner_wrote_and_signed() {
        let (owner, member, stranger) = (key(1), key(2), key(3));
        let account = Account::new(Account::GROUP, public(&owner));
        let read = Token::new(Account::GROUP, Access::READ, false, public(&member));
        let signed = |by: &SigningKey, token: Token| Some((token, by.sign(&token.0).to_bytes()));
        let asks = |token, access, revoked| {
            let proof = Proof { token, ..proof(&member, b"x") };
            proof.holds(&account, Network::Main, access, b"x", |_| revoked)
        };
        assert!(asks(signed(&owner, read), Access::READ, false));
        assert!(!asks(signed(&owner, read), Access::READ, true), "revoked");
        assert!(!asks(signed(&owner, read), Access::READ.and(Access::WRITE), false));
        assert!(!asks(signed(&stranger, read), Access::READ, false));
        assert!(!asks(signed(&member, read), Access::READ, false), "signed by whom it is for");
        let elsewhere = Token::new(Account::SESSION, Access::READ, false, public(&member));
        assert!(!asks(signed(&owner, elsewhere), Access::READ, false), "for another prefix");
        let anywhere = Token::new(Account::SESSION, Access::READ, true, public(&member));
        assert!(asks(signed(&owner, anywhere), Access::READ, false));
        let others = Token::new(Account::GROUP, Access::READ, false, public(&stranger));
        assert!(!asks(signed(&owner, others), Access::READ, false), "somebody else's token");
    }

    #[test]
    fn a_key_of_small_order_opens_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let account = Account::new(Account::GROUP, identity);
        // R = identity and S = 0 satisfy the equation for every message under such a key.
        let mut signature = [0; 64];
        signature[0] = 1;
        let proof = Proof { ed25519: None, signature, token: None };
        assert!(!proof.holds(&account, Network::Main, Access::NONE, b"x", |_| false));
    }
}
