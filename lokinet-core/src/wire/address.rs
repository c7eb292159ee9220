//! Addresses as people type them: `.loki` and `.snode` names, the reverse names of DNS, and the IPv6 twin that every
//! leased IPv4 address has. Text in, values out, and back; nothing is looked up here. Neighbours: `id` holds the bare
//! keys, `flow::dns` decides what a name is answered with, `flow::lease` hands out the IPv4 addresses.

use crate::wire::id::RelayId;
use core::fmt;
use data_encoding::{Encoding, Specification};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// Characters of a 32-byte key in base32z.
pub const KEY_CHARS: usize = 52;
/// Longest short name (ONS), in characters.
pub const SHORT_NAME_MAX: usize = 32;
/// Longest DNS label, and longest short name that is punycode, in characters.
pub const LABEL_MAX: usize = 63;
/// Longest name, in characters without the final dot.
pub const NAME_MAX: usize = 253;

/// base32z; bits beyond the last whole byte must be zero, so that each key has one spelling.
static BASE32Z: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("ybndrfg8ejkmcpqxot1uwisza345h769");
    specification.encoding().expect("32 different symbols make an encoding")
});

fn key_from_text(text: &str) -> Option<[u8; 32]> {
    if text.len() != KEY_CHARS {
        return None;
    }
    BASE32Z.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// A service's Ed25519 public key, and so its name everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LokiAddress(pub [u8; 32]);

impl LokiAddress {
    /// The address that `<52 characters>.loki` spells, without subdomain and in lower case.
    pub fn parse(text: &str) -> Option<LokiAddress> {
        key_from_text(text.strip_suffix(".loki")?).map(LokiAddress)
    }
}

impl fmt::Display for LokiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.loki", BASE32Z.encode_display(&self.0))
    }
}

impl fmt::Debug for LokiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LokiAddress(..)")
    }
}

/// A relay's name as people read it: `<52 characters>.snode`.
pub fn snode(id: &RelayId) -> String {
    format!("{}.snode", BASE32Z.encode(&id.0))
}

/// The relay that `<52 characters>.snode` names, without subdomain and in lower case.
pub fn parse_snode(text: &str) -> Option<RelayId> {
    key_from_text(text.strip_suffix(".snode")?).map(RelayId)
}

/// Whether a name lies under `.loki` or `.snode`, and so must never be asked of anybody else's resolver.
pub fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    matches!(name.rsplit('.').next(), Some("loki" | "snode"))
}

/// What a name under `.loki` or `.snode` stands for.
#[derive(Clone, PartialEq, Eq)]
pub enum HostName {
    /// A service by its key.
    Loki {
        /// The service.
        address: LokiAddress,
        /// What stands before it, without the dot between.
        subdomain: Option<String>,
    },
    /// A relay by its key.
    Snode {
        /// The relay.
        id: RelayId,
        /// What stands before it.
        subdomain: Option<String>,
    },
    /// This machine: `localhost.loki`.
    Localhost {
        /// What stands before it.
        subdomain: Option<String>,
    },
    /// A service by a short name that somebody registered (ONS).
    Named {
        /// The short name, without `.loki`.
        name: String,
        /// What stands before it.
        subdomain: Option<String>,
    },
    /// A name nobody may have: `loki.loki`, `snode.loki` and what lies under them.
    Reserved,
    /// No name of ours, or none that could exist.
    Unknown,
}

impl HostName {
    /// Reads a lower-case name; one final dot is allowed.
    pub fn parse(name: &str) -> HostName {
        let name = name.strip_suffix('.').unwrap_or(name);
        let labels_fit = name.split('.').all(|label| !label.is_empty() && label.len() <= LABEL_MAX);
        if name.len() > NAME_MAX || !labels_fit {
            return HostName::Unknown;
        }
        let Some((rest, tld)) = name.rsplit_once('.') else { return HostName::Unknown };
        let (subdomain, host) = match rest.rsplit_once('.') {
            Some((subdomain, host)) => (Some(subdomain.to_owned()), host),
            None => (None, rest),
        };
        match (tld, key_from_text(host)) {
            ("loki", Some(key)) => HostName::Loki { address: LokiAddress(key), subdomain },
            ("snode", Some(key)) => HostName::Snode { id: RelayId(key), subdomain },
            ("loki", None) => match host {
                "localhost" => HostName::Localhost { subdomain },
                "loki" | "snode" => HostName::Reserved,
                name if is_short_name(name) => HostName::Named { name: name.to_owned(), subdomain },
                _ => HostName::Unknown,
            },
            _ => HostName::Unknown,
        }
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostName::Loki { .. } => "Loki(..)",
            HostName::Snode { .. } => "Snode(..)",
            HostName::Localhost { .. } => "Localhost(..)",
            HostName::Named { .. } => "Named(..)",
            HostName::Reserved => "Reserved",
            HostName::Unknown => "Unknown",
        })
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (HostName::Loki { subdomain, .. }
        | HostName::Snode { subdomain, .. }
        | HostName::Localhost { subdomain }
        | HostName::Named { subdomain, .. }) = self
        else {
            return f.write_str("(no name)");
        };
        if let Some(subdomain) = subdomain {
            write!(f, "{subdomain}.")?;
        }
        match self {
            HostName::Loki { address, .. } => write!(f, "{address}"),
            HostName::Snode { id, .. } => f.write_str(&snode(id)),
            HostName::Named { name, .. } => write!(f, "{name}.loki"),
            _ => f.write_str("localhost.loki"),
        }
    }
}

/// Whether somebody could register this label as a short name.
fn is_short_name(label: &str) -> bool {
    let bytes = label.as_bytes();
    let punycode = label.starts_with("xn--");
    let longest = if punycode { LABEL_MAX } else { SHORT_NAME_MAX };
    let dashes_in_3_and_4 = bytes.get(2..4) == Some(b"--");
    bytes.len() <= longest
        && bytes.iter().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && bytes.first().is_some_and(|&c| c != b'-')
        && bytes.last().is_some_and(|&c| c != b'-')
        && (punycode || !dashes_in_3_and_4)
}

/// The IP address that a name under `in-addr.arpa` or `ip6.arpa` asks back for; one final dot is allowed.
pub fn reverse(name: &str) -> Option<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        // Each label is one decimal byte; leading zeros are refused by the standard parser, which also counts to four.
        let forward: Vec<&str> = digits.rsplit('.').collect();
        return forward.join(".").parse().ok().map(IpAddr::V4);
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut value = 0u128;
    let mut count = 0;
    for nibble in digits.rsplit('.') {
        let &[digit] = nibble.as_bytes() else { return None };
        value = (value << 4) | u128::from(char::from(digit).to_digit(16)?);
        count += 1;
        if count > 32 {
            return None;
        }
    }
    (count == 32).then(|| IpAddr::V6(Ipv6Addr::from(value)))
}

/// The IPv6 twin of a leased IPv4 address: the base of `ip6-range` OR-ed with it.
pub fn twin(base: Ipv6Addr, v4: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(base) | u128::from(u32::from(v4)))
}

/// The IPv4 address whose twin this is, if it is one.
pub fn untwin(base: Ipv6Addr, v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = Ipv4Addr::from(u128::from(v6) as u32);
    (twin(base, v4) == v6).then_some(v4)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOKI: &str = "7okic5x5do3uh3usttnqz9ek3uuoemdrwzto1hciwim9f947or6y";
    const SNODE: &str = "8zfiwpgonsu5zpddpxwdurxyb19x6r96xy4qbikff99jwsziws9y";

    #[test]
    fn a_service_and_a_relay_are_told_apart_by_their_last_label() {
        let name = format!("{LOKI}.loki");
        assert!(matches!(HostName::parse(&name), HostName::Loki { subdomain: None, .. }));
        assert_eq!(LokiAddress::parse(&name).unwrap().to_string(), name);
        assert_eq!(parse_snode(&name), None);
        let relay = format!("{SNODE}.snode");
        assert!(matches!(HostName::parse(&relay), HostName::Snode { subdomain: None, .. }));
        assert_eq!(snode(&parse_snode(&relay).unwrap()), relay);
        assert_eq!(LokiAddress::parse(&relay), None);
        for foreign in [format!("{LOKI}.net"), format!("{LOKI}.loki.net"), format!("{SNODE}.net")] {
            assert_eq!(HostName::parse(&foreign), HostName::Unknown, "{foreign}");
        }
    }

    #[test]
    fn a_subdomain_is_kept_and_printed_back() {
        let name = format!("lokinet.test.{LOKI}.loki");
        let host = HostName::parse(&name);
        assert!(matches!(&host, HostName::Loki { subdomain: Some(s), .. } if s == "lokinet.test"));
        assert_eq!(host.to_string(), name);
    }

    #[test]
    fn a_key_has_one_spelling_only() {
        let good = "azfoj73snr9f3neh5c6sf7rtbaeabyxhr1m4un5aydsmsrxo964o";
        assert!(LokiAddress::parse(&format!("{good}.loki")).is_some());
        // The last character carries one bit; the other four must be zero.
        for last in "ybndrfg8ejkmcpqxot1uwisza345h769".chars() {
            let text = format!("{}{last}.loki", &good[..51]);
            assert_eq!(LokiAddress::parse(&text).is_some(), last == 'y' || last == 'o', "{last}");
        }
        assert_eq!(LokiAddress::parse(&format!("{}.loki", good.to_uppercase())), None);
        assert_eq!(LokiAddress::parse(&format!("{}.loki", &good[..51])), None);
    }

    #[test]
    fn debug_does_not_name_anybody() {
        assert_eq!(format!("{:?}", LokiAddress([7; 32])), "LokiAddress(..)");
    }

    #[test]
    fn short_names_that_can_and_cannot_exist() {
        for good in ["xn--bcher-kva.loki", "memerionos.loki", "whyis.xn--bcher-kva.loki", "the.goog.loki", "420.loki"] {
            assert!(matches!(HostName::parse(good), HostName::Named { .. }), "{good}");
            assert_eq!(HostName::parse(good).to_string(), good);
        }
        let long = format!("{}.loki", "a".repeat(33));
        let long_label = format!("xn--{}.loki", "a".repeat(60));
        for bad in ["-loki.loki", "loki-.loki", "bn--foo.loki", "under_score.loki", &long, &long_label] {
            assert_eq!(HostName::parse(bad), HostName::Unknown, "{bad}");
        }
        assert!(matches!(HostName::parse("localhost.loki"), HostName::Localhost { subdomain: None }));
    }

    #[test]
    fn reserved_names() {
        for name in ["loki.loki", "snode.loki", "foo.loki.loki", "bar.snode.loki", "x.loki.loki"] {
            assert_eq!(HostName::parse(name), HostName::Reserved, "{name}");
            assert_eq!(HostName::parse(&format!("{name}.")), HostName::Reserved, "{name}.");
        }
        for name in ["barsnode.loki", "alltheloki.loki"] {
            assert!(matches!(HostName::parse(name), HostName::Named { .. }), "{name}");
        }
    }

    #[test]
    fn names_of_ours() {
        for name in ["a.loki.", "a.loki", "x.y.snode", "loki", "snode."] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["a.loki..", "bepis.logi.", "a.boki.", "t.co.", "aloki", "loki.net", ""] {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn localhost_and_what_lies_under_it() {
        for name in ["localhost.loki.", "foo.localhost.loki.", "foo.bar.localhost.loki."] {
            assert!(matches!(HostName::parse(name), HostName::Localhost { .. }), "{name}");
        }
        for name in ["localhost.something.loki.", "notlocalhost.loki."] {
            assert!(!matches!(HostName::parse(name), HostName::Localhost { .. }), "{name}");
        }
        let subdomain = |name: &str| match HostName::parse(name) {
            HostName::Localhost { subdomain } => subdomain.unwrap_or_default(),
            _ => String::new(),
        };
        assert_eq!(subdomain("foo.bar.localhost.loki."), "foo.bar");
        for name in [".localhost.loki.", "loki.", ".", ""] {
            assert_eq!(subdomain(name), "", "{name}");
        }
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse("1.10.10.10.in-addr.arpa."), Some("10.10.10.1".parse().unwrap()));
        let v6 = "4.3.2.1.4.3.2.1.8.8.8.8.e.e.e.e.f.e.d.c.b.a.9.8.7.6.5.4.3.2.1.0.ip6.arpa.";
        assert_eq!(reverse(v6), Some("0123:4567:89ab:cdef:eeee:8888:1234:1234".parse().unwrap()));
        for bad in
            ["1.10.10.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "256.1.1.1.in-addr.arpa", "1.ip6.arpa", "ip6.arpa"]
        {
            assert_eq!(reverse(bad), None, "{bad}");
        }
        assert_eq!(reverse(&format!("0.{v6}")), None);
    }

    #[test]
    fn every_leased_address_has_a_twin() {
        let base = "fd00::".parse().unwrap();
        let v4 = Ipv4Addr::new(172, 16, 0, 1);
        assert_eq!(twin(base, v4), "fd00::ac10:1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(untwin(base, twin(base, v4)), Some(v4));
        assert_eq!(untwin(base, "fd01::ac10:1".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn any_key_comes_back(key: [u8; 32]) {
            let text = LokiAddress(key).to_string();
            prop_assert_eq!(text.len(), KEY_CHARS + 5);
            prop_assert_eq!(LokiAddress::parse(&text), Some(LokiAddress(key)));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,80}(\\.loki|\\.snode|\\.in-addr\\.arpa|\\.ip6\\.arpa|)\\.?") {
            let _ = (HostName::parse(&text), reverse(&text), is_ours(&text));
        }
    }
}
