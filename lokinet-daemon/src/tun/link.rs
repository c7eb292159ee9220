//! The interface as netlink sees it: which networks the host already uses, and the TUN device's MTU, addresses and
//! state. The kernel lays the routes to our ranges itself when the addresses come, and removes them with the device.
//! Neighbours: `tun` calls in order, `choice` decides with what is read here.

use super::choice::{MTU, Network};
use futures_util::{StreamExt, TryStreamExt};
use lokinet_core::flow::lease::Range;
use lokinet_core::wire::address::twin;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Bits of an IPv6 address above the IPv4 address in its twin.
const ABOVE_TWIN: u8 = 128 - 32;

/// All IPv4 networks in use: those of interfaces first, then those routed.
pub(super) async fn networks(kernel: &Handle) -> io::Result<Vec<Network>> {
    let addresses: Vec<AddressMessage> = kernel.address().get().execute().try_collect().await.map_err(reason)?;
    let mut networks: Vec<Network> =
        addresses.iter().filter(|m| m.header.family == AddressFamily::Inet).flat_map(of_interface).collect();
    let any = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = std::pin::pin!(kernel.route().get(any).execute());
    while let Some(route) = routes.next().await {
        let route = route.map_err(reason)?;
        networks.extend(route.attributes.iter().filter_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => {
                Some(Network { addr: *addr, prefix: route.header.destination_prefix_length, interface: None })
            }
            _ => None,
        }));
    }
    Ok(networks)
}

/// The network of an interface's address; on a point-to-point link that is the peer's, and our own address comes too.
fn of_interface(message: &AddressMessage) -> Vec<Network> {
    let label = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Label(label) => Some(label.clone()),
        _ => None,
    });
    let interface = Some(label.unwrap_or_else(|| format!("number {}", message.header.index)));
    let network = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(IpAddr::V4(addr)) => Some((*addr, message.header.prefix_len)),
        AddressAttribute::Local(IpAddr::V4(addr)) => Some((*addr, 32)),
        _ => None,
    };
    let found = message.attributes.iter().filter_map(network);
    found.map(|(addr, prefix)| Network { addr, prefix, interface: interface.clone() }).collect()
}

/// Gives the interface MTU and addresses and brings it up; says whether it has IPv6. On an error, which step it was.
pub(super) async fn configure(kernel: &Handle, name: &str, range: &Range) -> Result<bool, (&'static str, io::Error)> {
    let step = |step: &'static str| move |error| (step, error);
    let index = index(kernel, name).await.map_err(step("read the number"))?;
    let mtu = LinkUnspec::new_with_index(index).mtu(MTU).build();
    kernel.link().set(mtu).execute().await.map_err(reason).map_err(step("set the MTU"))?;
    be_quiet(kernel, index).await;
    let v4 = add(kernel, index, range.own().into(), range.prefix());
    v4.await.map_err(step("set the IPv4 address"))?;
    let has_v6 = match range.base6() {
        Some(base) => {
            let twin = twin(base, range.own());
            let added = add(kernel, index, twin.into(), ABOVE_TWIN + range.prefix()).await;
            if let Err(error) = &added {
                tracing::warn!(
                    "{name} has no IPv6 ({error}; is it disabled on this host?): names get IPv4 addresses only"
                );
            }
            added.is_ok()
        }
        None => false,
    };
    let up = LinkUnspec::new_with_index(index).up().build();
    kernel.link().set(up).execute().await.map_err(reason).map_err(step("change the state"))?;
    Ok(has_v6)
}

async fn index(kernel: &Handle, name: &str) -> io::Result<u32> {
    let mut found = std::pin::pin!(kernel.link().get().match_name(name.to_owned()).execute());
    match found.next().await {
        Some(link) => Ok(link.map_err(reason)?.header.index),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// No link-local address of the kernel's making: it would send router solicitations to nobody. It may refuse.
async fn be_quiet(kernel: &Handle, index: u32) {
    let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let message = LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]));
    let _ = kernel.link().set(message.build()).execute().await;
}

/// Without duplicate detection: nobody else is on this link, and it would make IPv6 wait a second.
async fn add(kernel: &Handle, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let mut request = kernel.address().add(index, address, prefix);
    if address.is_ipv6() {
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.map_err(reason)
}

fn reason(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
