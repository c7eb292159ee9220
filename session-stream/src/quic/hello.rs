//! The little of a ClientHello (RFC 8446) that a server must know before it chooses how to answer: which application
//! protocols are offered, and whether the client has a raw key to show (RFC 7250). A client that has none does not say so
//! and must not be asked for one. Neighbours: `tls`, which chooses by it.

/// TLS messages begin with a type, 1 for a ClientHello, and a length of 3 bytes.
const HEAD: usize = 4;
/// Longest ClientHello we wait for, in bytes; post-quantum shares make about 2,000.
pub const HELLO_MAX: usize = 16 << 10;

const ALPN: u16 = 16;
const CLIENT_CERTIFICATE_TYPE: u16 = 19;
const RAW_PUBLIC_KEY: u8 = 2;

/// What a client says before anything else.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// Application protocols it can speak.
    pub protocols: Vec<Vec<u8>>,
    /// Whether it has a raw public key to show.
    pub raw_key: bool,
}

/// What came of the bytes so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// It is still arriving.
    Part,
    /// It is whole. What makes no sense in it is left to TLS itself, and reads as a client that offers nothing.
    Whole(Hello),
}

/// Looks at the first bytes of a handshake.
pub fn look(bytes: &[u8]) -> Seen {
    let [1, a, b, c, body @ ..] = bytes else {
        return if bytes.is_empty() || (bytes[0] == 1 && bytes.len() < HEAD) { Seen::Part } else { nothing() };
    };
    let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
    if length > HELLO_MAX {
        return nothing();
    }
    match body.get(..length) {
        None => Seen::Part,
        Some(body) => Seen::Whole(read(body).unwrap_or_default()),
    }
}

fn nothing() -> Seen {
    Seen::Whole(Hello::default())
}

fn read(mut body: &[u8]) -> Option<Hello> {
    body = body.get(2 + 32..)?; // version, random
    short(&mut body)?; // session
    long(&mut body)?; // cipher suites
    short(&mut body)?; // compression
    let mut extensions = long(&mut body)?;
    let mut hello = Hello::default();
    while let [a, b, rest @ ..] = extensions {
        extensions = rest;
        let mut content = long(&mut extensions)?;
        match u16::from_be_bytes([*a, *b]) {
            ALPN => {
                let mut names = long(&mut content)?;
                while !names.is_empty() {
                    hello.protocols.push(short(&mut names)?.to_vec());
                }
            }
            CLIENT_CERTIFICATE_TYPE => hello.raw_key = short(&mut content)?.contains(&RAW_PUBLIC_KEY),
            _ => {}
        }
    }
    Some(hello)
}

/// Takes a vector whose length has 1 byte.
fn short<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first()?;
    let (taken, behind) = behind.split_at_checked(usize::from(*length))?;
    *rest = behind;
    Some(taken)
}

/// Takes a vector whose length has 2 bytes.
fn long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    let (taken, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = behind;
    Some(taken)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extension(number: u16, content: &[u8]) -> Vec<u8> {
        [&number.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat()
    }

    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let extensions = extensions.concat();
        let length = (extensions.len() as u16).to_be_bytes();
        let body = [&[3, 3][..], &[7; 32], &[1, 9], &[0, 2, 0x13, 1], &[1, 0], &length, &extensions].concat();
        [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat()
    }

    #[test]
    fn protocols_and_raw_keys_are_seen() {
        let protocols = extension(16, b"\x00\x1b\x0boxenstorage\x0eoxenstorage-sn");
        let both = vec![extension(43, &[2, 3, 4]), protocols.clone(), extension(19, &[2, 0, 2])];
        let offered = vec![b"oxenstorage".to_vec(), b"oxenstorage-sn".to_vec()];
        assert_eq!(look(&hello(&both)), Seen::Whole(Hello { protocols: offered.clone(), raw_key: true }));
        assert_eq!(look(&hello(&[protocols])), Seen::Whole(Hello { protocols: offered, raw_key: false }));
        assert_eq!(look(&hello(&[extension(19, &[1, 0])])), Seen::Whole(Hello::default()));
    }

    #[test]
    fn a_hello_in_pieces_is_waited_for() {
        let whole = hello(&[extension(19, &[1, 2])]);
        for length in 0..whole.len() {
            assert_eq!(look(&whole[..length]), Seen::Part, "{length}");
        }
        assert_eq!(look(&whole), Seen::Whole(Hello { protocols: vec![], raw_key: true }));
    }

    #[test]
    fn what_is_no_hello_is_not_waited_for() {
        assert_eq!(look(&[2]), nothing());
        assert_eq!(look(&[1, 1, 0, 0]), nothing());
        assert_eq!(look(&hello(&[vec![0, 16, 0, 9]])), nothing());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall(flips in prop::collection::vec((0usize..66, any::<u8>()), 0..6), length in 0usize..80) {
            let mut bytes = hello(&[extension(16, b"\x00\x04\x03abc"), extension(19, &[2, 0, 2])]);
            flips.into_iter().filter(|(at, _)| *at < bytes.len()).collect::<Vec<_>>().into_iter().for_each(|(at, byte)| bytes[at] = byte);
            let _ = look(&bytes[..length.min(bytes.len())]);
        }
    }
}
