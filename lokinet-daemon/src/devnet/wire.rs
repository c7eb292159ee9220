//! The virtual wire: one bridge in the init's network namespace, one cable (a veth pair) from it to each node, addresses and
//! routes at the node's end. Where `--net` impairs it there is no bridge, and the node's end is a TAP device whose other end
//! `switch` holds. Spoken in netlink, so that the host needs no `ip`. Only `init` calls it.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMetric, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::namespace;
use super::plan::{Node, V4_PREFIX, V6_PREFIX};
use crate::trouble::{OrTrouble, Outcome, Trouble};
use crate::tun::device::{self, Kind};

/// The bridge's name in the init's namespace.
const BRIDGE: &str = "wire";
/// A node's end of its cable.
const PORT: &str = "eth0";
/// Loopback is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
/// Kernels differ in their default (BBR on some), and what is measured here should not.
const CONGESTION_CONTROL: &str = "cubic";

/// The wire, held open in the namespace it lies in.
pub struct Wire {
    hub: Handle,
    /// `None` where a switch takes its place.
    bridge: Option<u32>,
    hub_door: File,
}

impl Wire {
    /// Lays it in the current network namespace, with a bridge in its middle or without.
    pub async fn lay(bridged: bool) -> Outcome<Self> {
        let hub_door = File::open("/proc/self/ns/net").or_trouble(|| "cannot open /proc/self/ns/net".into())?;
        let hub = netlink()?;
        link_up(&hub, LOOPBACK).await.or_trouble(|| "cannot bring loopback up".into())?;
        let mut wire = Self { hub, bridge: None, hub_door };
        if bridged {
            let bridge = LinkBridge::new(BRIDGE).up().build();
            let made = wire.hub.link().add(bridge).execute().await;
            made.or_trouble(|| "this kernel makes no bridge (is its module there?)".into())?;
            wire.bridge = Some(index(&wire.hub, BRIDGE).await?);
            // A wire has no firewall. Not every kernel has the switch, and then none is needed.
            for table in ["iptables", "ip6tables", "arptables"] {
                let _ = fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{table}"), "0");
            }
        }
        Ok(wire)
    }

    /// Makes a network namespace for `node`, with a cable to the wire; returns its door, and the cable's other end where it
    /// is not in the bridge.
    pub async fn attach(&self, node: &Node) -> Outcome<(File, Option<File>)> {
        let name = &node.name;
        namespace::unshare_net().or_trouble(|| format!("cannot make {name}'s network namespace"))?;
        let made = File::open("/proc/self/ns/net").or_trouble(|| "cannot open /proc/self/ns/net".into());
        // The socket belongs to the namespace in which it is made.
        let inside = netlink();
        self.come_home()?;
        let (door, inside) = (made?, inside?);
        let tap = match self.bridge {
            Some(bridge) => {
                self.lay_cable(name, &door, bridge).await?;
                None
            }
            None => Some(self.visit(&door, make_tap)?.map_err(|error| no_tun(&error))?),
        };
        configure(&inside, node).await.or_trouble(|| format!("cannot give {name} its addresses"))?;
        Ok((door, tap))
    }

    /// A cable from the bridge to the namespace behind `door`.
    async fn lay_cable(&self, name: &str, door: &File, bridge: u32) -> Outcome<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(PORT).setns_by_fd(door.as_raw_fd()).build();
        let cable = LinkVeth::new(name, PORT)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .append_extra_attribute(LinkAttribute::Controller(bridge))
            .up()
            .build();
        let laid = self.hub.link().add(cable).execute().await;
        laid.or_trouble(|| format!("this kernel makes no veth cable for {name} (is its module there?)"))
    }

    /// Does `work` inside the namespace behind `door`.
    pub fn visit<T>(&self, door: &File, work: impl FnOnce() -> T) -> Outcome<T> {
        namespace::walk_into(door).or_trouble(|| "cannot enter a node's network namespace".into())?;
        let result = work();
        self.come_home()?;
        Ok(result)
    }

    fn come_home(&self) -> Outcome<()> {
        namespace::walk_into(&self.hub_door).or_trouble(|| "cannot go back to the wire's network namespace".into())
    }

    /// Plugs a node's cable into the bridge, or pulls it.
    pub async fn plug(&self, node: &str, plugged: bool) -> Outcome<()> {
        let end = LinkUnspec::new_with_index(index(&self.hub, node).await?);
        let end = if plugged { end.up() } else { end.down() };
        self.hub.link().set(end.build()).execute().await.or_trouble(|| format!("cannot reach the cable of {node}"))
    }
}

/// A node's end of its cable as a TAP device in the current network namespace. It sends plain frames: the kernel offloads
/// nothing to a TAP that has not asked for it.
fn make_tap() -> std::io::Result<File> {
    let tap = device::open()?;
    device::make(&tap, PORT, Kind::Tap)?;
    Ok(tap)
}

/// Makes a TUN device in the current network namespace and lets it go again; says why it cannot.
pub fn try_tun() -> Outcome<()> {
    device::open().and_then(|file| device::make(&file, "", Kind::Tun)).map_err(|error| no_tun(&error))
}

fn no_tun(error: &std::io::Error) -> Trouble {
    Trouble::new(match fs::metadata("/dev/net/tun") {
        Err(_) => "/dev/net/tun is missing: there is no such file; load its module: sudo modprobe tun".into(),
        Ok(facts) if !facts.file_type().is_char_device() => "/dev/net/tun is no device here".into(),
        Ok(facts) => format!(
            "/dev/net/tun cannot be used ({error}): its mode is {:04o}. User namespaces are allowed. \
             Remedy: sudo chmod 0666 /dev/net/tun (as ordinary distributions have it), or run this as root. \
             Running without TUN devices, over embedded tunnels, is not built yet",
            facts.permissions().mode() & 0o7777
        ),
    })
}

fn netlink() -> Outcome<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().or_trouble(|| "cannot open a netlink socket".into())?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn index(handle: &Handle, name: &str) -> Outcome<u32> {
    use futures_util::StreamExt;
    let mut found = handle.link().get().match_name(name.to_string()).execute();
    let link = found.next().await.transpose().or_trouble(|| format!("cannot find the interface {name}"))?;
    Ok(link.map_or(0, |link| link.header.index))
}

async fn link_up(handle: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await
}

async fn configure(inside: &Handle, node: &Node) -> Result<(), rtnetlink::Error> {
    use futures_util::StreamExt;
    link_up(inside, LOOPBACK).await?;
    let mut found = inside.link().get().match_name(PORT.to_string()).execute();
    let port = found.next().await.transpose()?.map_or(0, |link| link.header.index);
    drop(found);
    link_up(inside, port).await?;
    address(inside, port, node.v4.into(), V4_PREFIX).await?;
    let metrics = || RouteAttribute::Metrics(vec![RouteMetric::CcAlgo(CONGESTION_CONTROL.into())]);
    let wire = Ipv4Addr::new(10, 0, 0, 0);
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(wire, V4_PREFIX).scope(RouteScope::Link);
    let mut route = route.pref_source(node.v4).output_interface(port).build();
    route.attributes.push(metrics());
    inside.route().add(route).execute().await?;
    if let Some(v6) = node.v6 {
        address(inside, port, v6.into(), V6_PREFIX).await?;
        let wire = Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0);
        let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(wire, V6_PREFIX);
        let mut route = route.output_interface(port).build();
        route.attributes.push(metrics());
        inside.route().add(route).execute().await?;
    }
    Ok(())
}

/// Without duplicate detection, which would make IPv6 wait a second, and without the route the kernel adds by itself.
async fn address(inside: &Handle, port: u32, address: IpAddr, prefix: u8) -> Result<(), rtnetlink::Error> {
    let mut request = inside.address().add(port, address, prefix);
    let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
    request.message_mut().attributes.push(AddressAttribute::Flags(flags));
    request.execute().await
}
