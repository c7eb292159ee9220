//! `[network]`: the client's paths, its interface and the names it gives out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use lokinet_core::flow::dns::SrvRecord;
use lokinet_core::flow::lease::Range;
use lokinet_core::transit::LIFETIME_MAX;
use lokinet_core::wire::address::{HostName, LokiAddress, parse_snode};
use lokinet_core::wire::cell::MAX_HOPS;
use lokinet_core::wire::id::RelayId;

use super::Network;
use super::desk::Desk;
use super::value::{self, Fault, quoted};

/// Paths that can be kept.
const PATHS: RangeInclusive<usize> = 2..=8;
/// Shorter-lived paths would do little but be built.
const LIFETIME_MIN: Duration = Duration::from_secs(120);
/// Prefixes that leave room for remotes.
const PREFIX: RangeInclusive<u8> = 8..=30;
/// Longest `srv`, in bytes.
const SRV_MAX: usize = 200;
/// The ranges that nobody's public hosts have (RFC 1918).
const PRIVATE: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(10, 0, 0, 0), 8), (Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(192, 168, 0, 0), 16)];

/// The client in the network.
pub fn network(desk: &mut Desk<'_>) -> Network {
    let ifaddr = desk.maybe("network", "ifaddr", ifaddr);
    Network {
        tun: desk.one("network", "type", kind),
        keyfile: desk.maybe("network", "keyfile", value::path).map(|path| desk.resolve(&path)),
        reachable: desk.one("network", "reachable", value::boolean),
        offload: desk.one("network", "offload", value::boolean),
        hops: desk.one("network", "hops", hops),
        paths: desk.one("network", "paths", paths),
        lifetime: desk.one("network", "path-lifetime", lifetime),
        strict: strict(desk),
        ifname: desk.maybe("network", "ifname", ifname),
        ifaddr,
        ip6_base: ip6_base(desk),
        mapaddr: mapaddr(desk, ifaddr),
        srv: desk.list("network", "srv", srv).into_iter().map(|(_, record)| record).collect(),
    }
}

fn kind(text: &str) -> Result<bool, Fault> {
    match text {
        "tun" => Ok(true),
        "null" => Ok(false),
        _ => Err(Fault::new(format!("there is no type {}", quoted(text)), "write tun or null")),
    }
}

fn hops(text: &str) -> Result<usize, Fault> {
    match value::whole(text)? {
        0 => Err(Fault::new("a path without relays hides nothing", format!("write 1 to {MAX_HOPS}"))),
        hops @ 1..=MAX_HOPS => Ok(hops),
        hops => {
            let what = format!("{hops} are too many: more than {MAX_HOPS} hops buy no anonymity and cost everyone");
            Err(Fault::new(what, format!("write 1 to {MAX_HOPS}")))
        }
    }
}

fn paths(text: &str) -> Result<usize, Fault> {
    let paths = value::whole(text)?;
    if PATHS.contains(&paths) {
        return Ok(paths);
    }
    let what = match paths < *PATHS.start() {
        true => format!("{paths} leaves no other path when one fails"),
        false => format!("{paths} are too many: each costs relays work and shows this machine to more of them"),
    };
    Err(Fault::new(what, format!("write {} to {}", PATHS.start(), PATHS.end())))
}

fn lifetime(text: &str) -> Result<Duration, Fault> {
    let lifetime = value::duration(text)?;
    if (LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime) {
        return Ok(lifetime);
    }
    let (least, most) = (LIFETIME_MIN.as_secs() / 60, LIFETIME_MAX.as_secs() / 60);
    Err(Fault::new(
        format!("{text} is too {}", if lifetime < LIFETIME_MIN { "short" } else { "long" }),
        format!("write {least}m to {most}m"),
    ))
}

fn strict(desk: &mut Desk<'_>) -> Vec<RelayId> {
    let list = desk.list("network", "strict-connect", |text| {
        parse_snode(text)
            .ok_or_else(|| Fault::new(format!("{} is no relay", quoted(text)), "write 52 characters and .snode"))
    });
    desk.no_duplicates("network", "strict-connect", &list, PartialEq::eq);
    if let ([(place, _)], 1) = (list.as_slice(), desk.given.all("network", "strict-connect").len()) {
        let what = "one relay alone would leave nobody to go to when it fails, and see all there is to see";
        desk.fault(place, "network", "strict-connect", Fault::new(what, "give two or more, or none"));
    }
    list.into_iter().map(|(_, relay)| relay).collect()
}

fn ifname(text: &str) -> Result<String, Fault> {
    // What the kernel takes (IFNAMSIZ, dev_valid_name), without its patterns.
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(bad) {
        let what = format!("{} is no name for an interface", quoted(text));
        return Err(Fault::new(what, "write at most 15 letters and digits, like lokitun0"));
    }
    Ok(text.to_owned())
}

fn ifaddr(text: &str) -> Result<(Ipv4Addr, u8), Fault> {
    let like = "write an address and a prefix, like 172.16.0.1/16";
    let Some((ip, prefix)) = text.split_once('/') else {
        return Err(Fault::new(format!("{} has no prefix", quoted(text)), like));
    };
    let IpAddr::V4(ip) = value::ip(ip)? else {
        return Err(Fault::new(format!("{ip} is not IPv4"), format!("{like}; IPv6 goes into ip6-range")));
    };
    let prefix = value::whole(prefix).ok().and_then(|prefix| u8::try_from(prefix).ok());
    let Some(prefix) = prefix.filter(|prefix| PREFIX.contains(prefix)) else {
        let what = format!("{} has no prefix from {} to {}", quoted(text), PREFIX.start(), PREFIX.end());
        return Err(Fault::new(what, like));
    };
    if !PRIVATE.iter().any(|(net, wide)| prefix >= *wide && network_of(ip, *wide) == u32::from(*net)) {
        let what = format!("{text} is not within a private range, and would hide other people's hosts");
        return Err(Fault::new(what, "take a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"));
    }
    let (first, last) = (network_of(ip, prefix), network_of(ip, prefix) | (u32::MAX >> prefix));
    if u32::from(ip) == first || u32::from(ip) == last {
        let what = format!("{ip} is the first or last address of its range, which no host can have");
        return Err(Fault::new(what, format!("write {}/{prefix}", Ipv4Addr::from(first + 1))));
    }
    Ok((ip, prefix))
}

fn network_of(ip: Ipv4Addr, prefix: u8) -> u32 {
    u32::from(ip) & !(u32::MAX >> prefix)
}

fn ip6_base(desk: &mut Desk<'_>) -> Option<Ipv6Addr> {
    let base = desk.one("network", "ip6-range", ip6_range);
    if base.is_none() {
        let what = "[network] ip6-range: .loki names have no IPv6 address here, so that a program which insists on IPv6 \
            may go past the tunnel and show who you are";
        let place = desk.place("network", "ip6-range");
        desk.complaints.warn(&place, what, "remove the line unless IPv6 is off on this machine");
    }
    base
}

fn ip6_range(text: &str) -> Result<Option<Ipv6Addr>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let like = "write an address within fd00::/8 whose last 32 bits are zero, like fd00::";
    let IpAddr::V6(base) = value::ip(text)? else {
        return Err(Fault::new(format!("{text} is not IPv6"), like));
    };
    if base.segments()[0] & 0xff00 != 0xfd00 {
        return Err(Fault::new(format!("{text} is not within the private range fd00::/8"), like));
    }
    if u128::from(base) as u32 != 0 {
        return Err(Fault::new(format!("{text} leaves no room for the IPv4 addresses"), like));
    }
    Ok(Some(base))
}

fn mapaddr(desk: &mut Desk<'_>, ifaddr: Option<(Ipv4Addr, u8)>) -> Vec<([u8; 32], Ipv4Addr)> {
    let list = desk.list("network", "mapaddr", |text| {
        let like = "write <52 characters>.loki:IP";
        let Some((name, ip)) = text.rsplit_once(':') else {
            return Err(Fault::new(format!("{} has no IP", quoted(text)), like));
        };
        let Some(LokiAddress(key)) = LokiAddress::parse(name) else {
            return Err(Fault::new(format!("{} is no .loki address", quoted(name)), like));
        };
        let IpAddr::V4(ip) = value::ip(ip)? else {
            return Err(Fault::new(format!("{ip} is not IPv4"), like));
        };
        Ok((key, ip))
    });
    desk.no_duplicates("network", "mapaddr", &list, |one, other| one.0 == other.0 || one.1 == other.1);
    let range = ifaddr.and_then(|(ip, prefix)| Range::new(ip, prefix, None));
    for (place, (_, ip)) in &list {
        let fault = match range {
            Some(range) if range.own() == *ip => {
                Fault::new(format!("{ip} is this machine's own address"), "take another")
            }
            Some(range) if !range.contains(*ip) => {
                let what = format!("{ip} is not within ifaddr, {}/{}", range.own(), range.prefix());
                Fault::new(what, "take an address of that range")
            }
            Some(_) => continue,
            None if desk.given.all("network", "ifaddr").is_empty() => Fault::new(
                "without ifaddr nobody knows beforehand which range the address must be in",
                format!("set ifaddr too, to a range that holds {ip}"),
            ),
            None => continue,
        };
        desk.fault(place, "network", "mapaddr", fault);
    }
    list.into_iter().map(|(_, pair)| pair).collect()
}

fn srv(text: &str) -> Result<SrvRecord, Fault> {
    let like = "write _service._proto priority weight port [target], like _http._tcp 10 5 80";
    let fault = |what: String| Err(Fault::new(what, like));
    if text.len() > SRV_MAX {
        return fault(format!("the record has {} bytes, and at most {SRV_MAX} are allowed", text.len()));
    }
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [service, priority, weight, port, target @ ..] = words.as_slice() else {
        return fault(format!("{} has too few words", quoted(text)));
    };
    let label = |label: &str| {
        let rest = label.strip_prefix('_').unwrap_or("");
        !rest.is_empty() && rest.len() < 63 && rest.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    if !service.split_once('.').is_some_and(|(service, proto)| label(service) && label(proto)) {
        return fault(format!("{} is not _service._proto", quoted(service)));
    }
    let target = match target {
        [] => None,
        ["."] => Some(".".to_owned()),
        [target] => Some(srv_target(target).ok_or_else(|| {
            Fault::new(
                format!("{} is no .loki or .snode name", quoted(target)),
                "name one, write . for none, or leave it out",
            )
        })?),
        _ => return fault(format!("{} has too many words", quoted(text))),
    };
    let number = |text: &str| {
        let number = value::whole(text).ok().and_then(|number| u16::try_from(number).ok());
        number.ok_or_else(|| Fault::new(format!("{} is not a number from 0 to 65535", quoted(text)), like))
    };
    // Names are compared in lower case.
    let service = service.to_ascii_lowercase();
    Ok(SrvRecord { service, priority: number(priority)?, weight: number(weight)?, port: number(port)?, target })
}

fn srv_target(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    match HostName::parse(&name) {
        HostName::Loki { .. } | HostName::Snode { .. } | HostName::Named { .. } => {
            Some(name.strip_suffix('.').unwrap_or(&name).to_owned())
        }
        HostName::Localhost { .. } | HostName::Reserved | HostName::Unknown => None,
    }
}
