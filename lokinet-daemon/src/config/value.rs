//! Readers of single values: text in, a typed value or a fault with its remedy out. Neighbours: `desk` calls them with the
//! place at hand; the builders compose them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::options::{FALSE, TRUE};

/// What is wrong with a value, and what to write in its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Fault {
    /// A fault.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { what: what.into(), remedy: remedy.into() }
    }
}

/// A value as it may be quoted in a complaint.
pub fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) => format!("{text:?}"),
        None => text.to_owned(),
    }
}

/// One of the eight spellings of a boolean.
pub fn boolean(text: &str) -> Result<bool, Fault> {
    match text {
        _ if TRUE.contains(&text) => Ok(true),
        _ if FALSE.contains(&text) => Ok(false),
        _ => Err(Fault::new(format!("{} is not a boolean", quoted(text)), "write true or false, in lower case")),
    }
}

/// A whole number.
pub fn whole(text: &str) -> Result<usize, Fault> {
    // The standard parser would let a + pass.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| Fault::new(format!("{} is not a whole number", quoted(text)), "write digits only"))
}

/// A UDP or TCP port.
pub fn port(text: &str) -> Result<u16, Fault> {
    let port = whole(text).ok().and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| Fault::new(format!("{} is not a valid port", quoted(text)), "write a number from 0 to 65535"))
}

/// A length of time with its unit.
pub fn duration(text: &str) -> Result<Duration, Fault> {
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let seconds = match unit.trim_start() {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    match (number, seconds) {
        (Some(number), Some(seconds)) if number <= u64::from(u32::MAX) => Ok(Duration::from_secs(number * seconds)),
        (Some(_), None) if unit.is_empty() => {
            Err(Fault::new(format!("{text} has no unit"), format!("write {text}s, {text}m or {text}h")))
        }
        _ => Err(Fault::new(
            format!("{} is not a length of time", quoted(text)),
            "write a number and s, m or h, like 20m",
        )),
    }
}

/// A path.
pub fn path(text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() {
        return Err(Fault::new("there is no path", "name a file, or remove the line"));
    }
    Ok(PathBuf::from(text))
}

/// An IP address alone.
pub fn ip(text: &str) -> Result<IpAddr, Fault> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        let what = format!("{text} has a port, and none is allowed here");
        return Err(Fault::new(what, format!("write {} alone", address.ip())));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_canonical()),
        Err(_) => Err(Fault::new(
            format!("{} is not a valid IP address", quoted(text)),
            "write one like 1.2.3.4 or 2001:db8::1",
        )),
    }
}

/// An address to bind or to ask, as `IP:port` or `IP`, which takes `default_port`.
pub fn endpoint(text: &str, default_port: u16) -> Result<SocketAddr, Fault> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    if let Ok(ip) = ip(text) {
        return Ok(SocketAddr::new(ip, default_port));
    }
    // Only one colon, or one after a bracket, can stand before a port.
    match text.rsplit_once(':') {
        Some((host, digits)) if !host.contains(':') || host.ends_with(']') => {
            ip(host)?;
            port(digits)?;
        }
        _ => {
            ip(text)?;
        }
    }
    Err(Fault::new(format!("{} is not an address", quoted(text)), "write IP:port, an IPv6 address in brackets"))
}

/// The same, or `:port` for every IPv4 address.
pub fn endpoint_or_every(text: &str, default_port: u16) -> Result<SocketAddr, Fault> {
    match text.strip_prefix(':') {
        Some(digits) if !digits.contains(':') => Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port(digits)?)),
        _ => endpoint(text, default_port),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shared facts §7, config/test_llarp_config_definition.cpp.
    #[test]
    fn booleans_have_eight_spellings() {
        for text in ["true", "on", "yes", "1"] {
            assert_eq!(boolean(text), Ok(true), "{text}");
        }
        for text in ["false", "off", "no", "0"] {
            assert_eq!(boolean(text), Ok(false), "{text}");
        }
        for text in ["", " ", "TRUE", "argle", " false", "2", "Yes"] {
            assert_eq!(boolean(text).unwrap_err().remedy, "write true or false, in lower case", "{text}");
        }
    }

    #[test]
    fn lengths_of_time_carry_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("20m"), Ok(Duration::from_secs(1200)));
        assert_eq!(duration("1 h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("20"), Err(Fault::new("20 has no unit", "write 20s, 20m or 20h")));
        for text in ["", "m", "-1m", "1.5h", "20min", "99999999999999999999m", "9999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    /// Shared facts §7, net/test_sock_addr.cpp: the same addresses are good and bad, in words of ours.
    #[test]
    fn addresses() {
        for (text, read) in [
            ("1.2.3.4", "1.2.3.4:0"),
            ("255.255.255.255:65535", "255.255.255.255:65535"),
            ("::1", "[::1]:0"),
            ("[::1]", "[::1]:0"),
            ("[::1]:53", "[::1]:53"),
            ("::ffff:127.0.0.1", "127.0.0.1:0"),
            ("[::ffff:127.0.0.1]:53", "127.0.0.1:53"),
        ] {
            assert_eq!(endpoint(text, 0).unwrap().to_string(), read);
        }
        assert_eq!(endpoint("1.2.3.4", 53).unwrap().to_string(), "1.2.3.4:53");
        assert_eq!(endpoint_or_every(":443", 1).unwrap().to_string(), "0.0.0.0:443");
        for (text, complaint) in [
            ("abcd", "abcd is not a valid IP address"),
            ("abcd:", "abcd is not a valid IP address"),
            ("1.2.3.4:foo", "foo is not a valid port"),
            ("256.257.258.259", "256.257.258.259 is not a valid IP address"),
            ("1.2.3", "1.2.3 is not a valid IP address"),
            ("1.2.3.", "1.2.3. is not a valid IP address"),
            ("1.2.3.4.5", "1.2.3.4.5 is not a valid IP address"),
            ("1.2.3.4:65536", "65536 is not a valid port"),
            ("1.2.3.4:1a", "1a is not a valid port"),
            ("1.2.3.4:+1", "+1 is not a valid port"),
            ("[::1]:x", "x is not a valid port"),
            (":443", "\"\" is not a valid IP address"),
            ("", "\"\" is not a valid IP address"),
        ] {
            assert_eq!(endpoint(text, 0).unwrap_err().what, complaint, "{text}");
        }
        let fault = ip("5.6.7.8:1234").unwrap_err();
        assert_eq!(fault.what, "5.6.7.8:1234 has a port, and none is allowed here");
        assert_eq!(fault.remedy, "write 5.6.7.8 alone");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,120}|[0-9.:\\[\\]smh/+-]{0,30}") {
            let _ = (boolean(&text), whole(&text), duration(&text), ip(&text), port(&text));
            let _ = (endpoint(&text, 1), endpoint_or_every(&text, 1), quoted(&text), path(&text));
        }
    }
}
