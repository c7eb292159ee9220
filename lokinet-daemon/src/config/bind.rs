//! `[bind]` and what `[router]` says of public addresses: where a relay listens, and what it tells others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lokinet_core::wire::addrs::is_public;

use super::complaint::Place;
use super::desk::Desk;
use super::ini::Entry;
use super::value::{self, Fault};
use super::{Bind, Interfaces, Role};

/// A relay's port when it names none.
const RELAY_PORT: u16 = 1090;

/// The sockets, and a relay's addresses as others see them.
pub fn bind(desk: &mut Desk<'_>, block_bogons: bool, interfaces: Interfaces<'_>) -> (Bind, Vec<SocketAddr>) {
    let before = desk.complaints.errors.len();
    let mut outbound = desk.list("bind", "outbound", |text| value::endpoint_or_every(text, 0));
    let mut inbound = desk.list("bind", "inbound", |text| value::endpoint_or_every(text, RELAY_PORT));
    let given = desk.given;
    for entry in given.loose.iter().filter(|entry| entry.section == "bind") {
        let Ok(port) = value::port(&entry.value) else { continue };
        if entry.name == "*" {
            deprecated(desk, entry, &format!("write outbound=:{port} in its place"));
            outbound.push((entry.place.clone(), SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)));
        } else if desk.role == Role::Client {
            let what = format!("[bind] {}: only relays listen, and this is a client", entry.name);
            desk.complaints.warn(&entry.place, what, "it is ignored");
        } else if let Some(ip) = old_inbound(desk, entry, interfaces) {
            let address = SocketAddr::new(ip, port);
            deprecated(desk, entry, &format!("write inbound={address} in its place"));
            inbound.push((entry.place.clone(), address));
        }
    }
    desk.no_duplicates("bind", "outbound", &outbound, PartialEq::eq);
    desk.no_duplicates("bind", "inbound", &inbound, PartialEq::eq);
    if desk.role == Role::Client {
        return (Bind { inbound: Vec::new(), outbound: addresses(outbound) }, Vec::new());
    }
    for (place, address) in &inbound {
        if let Err(fault) = reachable(*address, block_bogons) {
            desk.fault(place, "bind", "inbound", fault);
        }
    }
    let public = public(desk, &mut inbound, block_bogons);
    if public.is_empty() && desk.complaints.errors.len() == before {
        let what = "a relay needs an address that others can reach, and none is given";
        let remedy = "set [bind] inbound=IP:port with a public address of this host, or [router] public-ip behind NAT";
        desk.complaints.error(&desk.main.clone(), what, remedy);
    }
    (Bind { inbound: addresses(inbound), outbound: addresses(outbound) }, public)
}

fn addresses(list: Vec<(Place, SocketAddr)>) -> Vec<SocketAddr> {
    list.into_iter().map(|(_, address)| address).collect()
}

fn deprecated(desk: &mut Desk<'_>, entry: &Entry, remedy: &str) {
    desk.complaints.warn(
        &entry.place,
        format!("[bind] {}: this form is deprecated, and still works", entry.name),
        remedy,
    );
}

/// The address that `IP=port` or `IFNAME=port` means.
fn old_inbound(desk: &mut Desk<'_>, entry: &Entry, interfaces: Interfaces<'_>) -> Option<IpAddr> {
    let name = &entry.name;
    let found = value::ip(name).ok().or_else(|| interfaces(name)?.first().copied());
    if found.is_none() {
        let what = format!("[bind] {name}: there is no interface of this name that has an address");
        desk.complaints.error(&entry.place, what, format!("write inbound=IP:{} in its place", entry.value));
    }
    found
}

fn reachable(address: SocketAddr, block_bogons: bool) -> Result<(), Fault> {
    if address.port() == 0 {
        return Err(Fault::new("port 0 is a different one at every start", "name a port that others can know"));
    }
    if address.ip().is_loopback() && block_bogons {
        let what = format!("{address} is a loopback address, where nobody else can reach it");
        return Err(Fault::new(what, "name an address of a network interface"));
    }
    if address.ip().is_multicast() {
        return Err(Fault::new(format!("{address} is a multicast address"), "name an address of a network interface"));
    }
    Ok(())
}

/// What a relay tells others, one address of each family; gives `inbound` its default when there is none.
fn public(desk: &mut Desk<'_>, inbound: &mut Vec<(Place, SocketAddr)>, block_bogons: bool) -> Vec<SocketAddr> {
    let ip = either(desk, "public-ip", value::ip);
    let port = either(desk, "public-port", public_port).map(|(_, port)| port);
    let Some((section, ip)) = ip else {
        return heard(desk, inbound, None, port, block_bogons);
    };
    let place = desk.place(section, "public-ip");
    let told = SocketAddr::new(ip, port.unwrap_or(RELAY_PORT));
    if inbound.is_empty() {
        let every: IpAddr = if ip.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        inbound.push((place.clone(), SocketAddr::new(every, told.port())));
    }
    if let Err(fault) = answered(ip, inbound, block_bogons) {
        desk.fault(&place, section, "public-ip", fault);
    }
    heard(desk, inbound, Some(told), None, block_bogons)
}

/// Whether others can use this address and somebody here listens for it.
fn answered(ip: IpAddr, inbound: &[(Place, SocketAddr)], block_bogons: bool) -> Result<(), Fault> {
    if block_bogons && !is_public(ip) {
        let what = format!("{ip} is a private or reserved address");
        let remedy =
            "write the address that the internet sees; a private test network sets [router] block-bogons=false";
        return Err(Fault::new(what, remedy));
    }
    // A socket on [::] takes IPv4 too.
    let hears = |at: &SocketAddr| at.is_ipv4() == ip.is_ipv4() || at.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED);
    if inbound.iter().any(|(_, at)| hears(at)) {
        return Ok(());
    }
    let kind = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let what = format!("nothing here listens for {ip}, since no [bind] inbound is {kind}");
    Err(Fault::new(what, format!("add an inbound line with an {kind} address")))
}

/// The address we are told to tell, and those where we listen of families that it leaves free, with `port` in place of
/// their own where it is given.
fn heard(
    desk: &mut Desk<'_>,
    inbound: &[(Place, SocketAddr)],
    told: Option<SocketAddr>,
    port: Option<u16>,
    block_bogons: bool,
) -> Vec<SocketAddr> {
    let mut public: Vec<SocketAddr> = told.into_iter().collect();
    let usable = |address: &SocketAddr| !address.ip().is_unspecified() && (!block_bogons || is_public(address.ip()));
    for (place, address) in inbound.iter().filter(|(_, address)| usable(address)) {
        match public.iter().find(|known| known.is_ipv4() == address.is_ipv4()) {
            None => public.push(SocketAddr::new(address.ip(), port.unwrap_or(address.port()))),
            Some(known) if told.is_none() => {
                let what = format!("[bind] inbound: others are told of {known} and not of {address}");
                let remedy = "one IPv4 and one IPv6 address are published; the first of each counts";
                desk.complaints.warn(place, what, remedy);
            }
            Some(known) if known.ip() != address.ip() && is_public(address.ip()) => {
                let what = format!("{} is public, but public-ip tells others {}", address.ip(), known.ip());
                desk.fault(place, "bind", "inbound", Fault::new(what, "let the two agree, or remove public-ip"));
            }
            Some(_) => {}
        }
    }
    public
}

/// An option that may stand in `[router]` or, as later versions of the ancestor had it, in `[bind]`; with its section.
fn either<T: PartialEq>(
    desk: &mut Desk<'_>,
    name: &'static str,
    read: fn(&str) -> Result<T, Fault>,
) -> Option<(&'static str, T)> {
    let router = desk.maybe("router", name, read);
    let bind = desk.maybe("bind", name, read);
    if router.is_some() && bind.is_some() && router != bind {
        let what = format!("[bind] {name}: [router] {name} at {} says otherwise", desk.place("router", name));
        desk.complaints.error(&desk.place("bind", name), what, "remove one of the two lines");
    }
    bind.map(|value| ("bind", value)).or(router.map(|value| ("router", value)))
}

fn public_port(text: &str) -> Result<u16, Fault> {
    match value::port(text)? {
        0 => Err(Fault::new("nobody can reach port 0", "write the port that others use, like 1090")),
        port => Ok(port),
    }
}
