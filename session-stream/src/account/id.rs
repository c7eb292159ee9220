//! An account's id: one byte that says whose it is, and a public key. Neighbours: `auth` (which key signs for it),
//! `swarm::map` (who keeps it).

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

/// Which of Session's networks we serve; they differ in what an id may look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Network {
    /// Ids always carry their prefix.
    #[default]
    Main,
    /// An id may come without its prefix, and then means one of [`Account::SESSION`].
    Test,
}

/// A prefix and a public key: 33 bytes, 66 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(pub [u8; Account::LEN]);

impl Account {
    /// Length in bytes.
    pub const LEN: usize = 33;
    /// The prefix of a Session id, whose key is an X25519 one.
    pub const SESSION: u8 = 0x05;
    /// The prefix of a group, whose key is an Ed25519 one.
    pub const GROUP: u8 = 0x03;

    /// Reads an id: its bytes, or its hexadecimal digits in either case. Any prefix will do.
    pub fn read(text: &[u8], network: Network) -> Option<Account> {
        match (text.len(), network) {
            (Self::LEN, _) => text.try_into().ok().map(Account),
            (32, Network::Test) => Some(Account::new(Self::SESSION, text.try_into().ok()?)),
            (66, _) | (64, Network::Test) => Account::read(&HEXLOWER_PERMISSIVE.decode(text).ok()?, network),
            _ => None,
        }
    }

    /// The id of these parts.
    pub fn new(prefix: u8, key: [u8; 32]) -> Account {
        let mut id = [prefix; Self::LEN];
        id[1..].copy_from_slice(&key);
        Account(id)
    }

    /// The byte before the key.
    pub fn prefix(&self) -> u8 {
        self.0[0]
    }

    /// The key.
    pub fn key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(&self.0[1..]);
        key
    }

    /// 66 lower-case digits.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Enough of it for an operator to see two apart, too little to know whose it is: `ab12…f00d`.
    pub fn hint(&self) -> String {
        format!("{}…{}", HEXLOWER.encode(&self.0[1..3]), HEXLOWER.encode(&self.0[31..]))
    }
}

/// Ids are people: they are not printed whole by accident.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hint())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_in_both_spellings_and_both_cases() {
        let account = Account::new(0x05, [0xab; 32]);
        assert_eq!(Account::read(&account.0, Network::Main), Some(account));
        assert_eq!(Account::read(account.hex().as_bytes(), Network::Main), Some(account));
        assert_eq!(Account::read(account.hex().to_uppercase().as_bytes(), Network::Main), Some(account));
        assert_eq!(Account::read(format!("ff{}", "00".repeat(32)).as_bytes(), Network::Main).unwrap().prefix(), 0xff);
    }

    #[test]
    fn only_the_test_network_reads_ids_without_prefix() {
        let account = Account::new(0x05, [0xab; 32]);
        for text in [&account.0[1..], &account.hex().as_bytes()[2..]] {
            assert_eq!(Account::read(text, Network::Main), None);
            assert_eq!(Account::read(text, Network::Test), Some(account));
        }
        for text in [&b""[..], &[5; 34], &[b'5'; 65], &[b'g'; 66]] {
            assert_eq!(Account::read(text, Network::Test), None);
        }
    }

    #[test]
    fn printing_an_id_does_not_tell_whose_it_is() {
        let account = Account::new(0x05, [0xab; 32]);
        assert_eq!(format!("{account:?}"), "abab…abab");
    }
}
