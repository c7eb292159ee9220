//! A message's hash: its name among messages, the same at every member of the swarm. Neighbours: `store` (finds a
//! message by it), `rpc` (signs it as a receipt).

use blake2::Blake2b;
use blake2::digest::Digest;
use blake2::digest::consts::U32;
use data_encoding::BASE64_NOPAD;

use super::{Account, Namespace};

/// Length of a hash as it is written.
pub const LEN: usize = 43;

/// The hash of what is stored there: 43 characters of base64.
pub fn of(account: &Account, namespace: Namespace, data: &[u8]) -> String {
    let mut hash = Blake2b::<U32>::new();
    hash.update(account.0);
    hash.update(namespace.signed());
    hash.update(data);
    BASE64_NOPAD.encode(&hash.finalize())
}

/// Whether this is written as a hash is.
pub fn is_one(text: &[u8]) -> bool {
    text.len() == LEN && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use data_encoding::BASE64;

    use super::*;
    use crate::account::Network;

    #[test]
    fn hashes_are_the_storage_servers() {
        // unit_test/service_node.cpp of the storage server.
        let account = b"05ffba630924aa1224bb930dde21c0d11bf004608f2812217f8ac812d6c7e3ad48";
        let data = "CAES1gIKA1BVVBIPL2FwaS92MS9tZXNzYWdlGrsCCAYovfqZv4YvQq8CVwutUBbhRzZw80TvR6uTYMKg9DSagrtpeEpY31L7VxawfS8aSya0SiDa4J025SkjP13YX8g5pxgQ8Z6hgfNArMqr/tSijJ9miVKVDJ63YWE85O8kyWF8tdtZR5j0Vxb+JH5U8Rg1bp7ftKk3OSf7JJMcrUUrDnctQHe540zJ2OTDJ03DfubkX5NmKqEu5nhXGxeeDv3mTiL63fjtCvZYcikfjf6Nh1AX++HTgJ9SGoEIMastGUorFrmmXb2sbjHxNiJn0Radj/VzcA9VxYwBW5+AbGQ2d9+vvm7X+8vh+jIenJfjxf+8CWER+9adNfb4YUH07I+godNCV0O0J05gzqfKdT7J8MBZzFBtKrbk8oCagPpTsq/wZyYFKFKKD+q+zh704dYBILvs5yXUA96pIAA=";
        let account = Account::read(account, Network::Main).unwrap();
        let hash = of(&account, Namespace::DEFAULT, &BASE64.decode(data.as_bytes()).unwrap());
        assert_eq!(hash, "4sMyAuaZlMwww3oFvfhazfw7ASx/7TDtO+TVc8aAjHs");
        assert!(is_one(hash.as_bytes()));
    }

    #[test]
    fn a_namespace_is_part_of_it() {
        // python3: b64encode(blake2b(b"\x03" + b"\x01"*32 + b"-11" + b"hello", digest_size=32).digest())
        let account = Account::new(3, [1; 32]);
        assert_eq!(of(&account, Namespace(-11), b"hello"), "NAMM+FVeh7BggXEnvwCh2IS92CHngHUGDbf9HTlKCh4");
    }
}
