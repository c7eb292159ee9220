//! `[dns]`, `[api]` and `[logging]`.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use super::desk::Desk;
use super::value::{self, Fault, quoted};
use super::{Api, Dns, LogKind, LogLevel, Logging};

/// DNS's port.
const DNS_PORT: u16 = 53;
/// Longest path of a Unix socket, in bytes, without its final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// The resolver.
pub fn dns(desk: &mut Desk<'_>) -> Dns {
    let bind = desk.list("dns", "bind", |text| value::endpoint(text, DNS_PORT));
    desk.no_duplicates("dns", "bind", &bind, PartialEq::eq);
    let upstream = desk.list("dns", "upstream", |text| match text {
        "" => Ok(None),
        _ => upstream(text).map(Some),
    });
    desk.no_duplicates("dns", "upstream", &upstream, PartialEq::eq);
    let bind: Vec<SocketAddr> = bind.into_iter().map(|(_, address)| address).collect();
    for (place, address) in &upstream {
        if address.is_some_and(|address| bind.contains(&address)) {
            let fault = Fault::new(
                "this is our own resolver, which would ask itself",
                "name another resolver, or leave it empty",
            );
            desk.fault(place, "dns", "upstream", fault);
        }
    }
    // One empty line turns forwarding off, whatever stands beside it.
    let off = upstream.iter().any(|(_, address)| address.is_none());
    for (place, address) in upstream.iter().filter(|_| off) {
        if let Some(address) = address {
            let what = format!("[dns] upstream: {address} is not asked, since an empty upstream= turns forwarding off");
            desk.complaints.warn(place, what, "remove one of the two lines");
        }
    }
    let upstream = if off { Vec::new() } else { upstream.into_iter().filter_map(|(_, address)| address).collect() };
    let query_bind = desk.maybe("dns", "query-bind", |text| value::endpoint(text, 0));
    Dns { bind, upstream, query_bind, resolvconf: !desk.one("dns", "no-resolvconf", value::boolean) }
}

fn upstream(text: &str) -> Result<SocketAddr, Fault> {
    let address = value::endpoint(text, DNS_PORT)?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(Fault::new(format!("nobody can be asked at {address}"), "write the resolver's IP:port"));
    }
    Ok(address)
}

/// The control socket.
pub fn api(desk: &mut Desk<'_>) -> Api {
    let enabled = desk.one("api", "enabled", value::boolean);
    let socket = desk.one("api", "socket", value::path);
    let socket = desk.resolve(&socket);
    let bytes = socket.as_os_str().as_bytes().len();
    if bytes > SOCKET_PATH_MAX {
        let what = format!("the path has {bytes} bytes, and a Unix socket's has at most {SOCKET_PATH_MAX}");
        let place = desk.place("api", "socket");
        desk.fault(&place, "api", "socket", Fault::new(what, "name a shorter one"));
    }
    Api { enabled, socket }
}

/// The log.
pub fn logging(desk: &mut Desk<'_>) -> Logging {
    let level = desk.one("logging", "level", level);
    let file = desk.maybe("logging", "file", value::path).map(|path| desk.resolve(&path));
    let place = desk.place("logging", "type");
    let kind = desk.one("logging", "type", |text| match text {
        "print" | "system" | "file" => Ok(text.to_owned()),
        _ => Err(Fault::new(format!("there is no type {}", quoted(text)), "write print or file")),
    });
    let kind = match (kind.as_str(), file) {
        ("file", Some(file)) => LogKind::File(file),
        ("file", None) => {
            // A path that is given and bad has its complaint already.
            if desk.given.all("logging", "file").is_empty() {
                desk.fault(&place, "logging", "type", Fault::new("no file is named", "set [logging] file=PATH"));
            }
            LogKind::Print
        }
        ("system", _) => {
            let what = "[logging] type: nothing is written to syslog yet, but to standard output, as print does";
            desk.complaints.warn(&place, what, "write type=print; systemd's journal keeps standard output");
            LogKind::Print
        }
        _ => LogKind::Print,
    };
    Logging { kind, level }
}

fn level(text: &str) -> Result<LogLevel, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "trace" => Ok(LogLevel::Trace),
        "debug" => Ok(LogLevel::Debug),
        "info" => Ok(LogLevel::Info),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "error" | "err" | "critical" => Ok(LogLevel::Error),
        "none" | "off" => Ok(LogLevel::Off),
        _ => {
            let what = format!("{} is no level", quoted(text));
            Err(Fault::new(what, "write trace, debug, info, warn, error or none"))
        }
    }
}
