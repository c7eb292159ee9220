//! The TUN device: the interface through which programs reach `.loki`. `raise` chooses name and addresses, makes the
//! device and brings it up; the driver then moves packets by [`Device`]. Neighbours: `tun::device` speaks to
//! `/dev/net/tun` (`tun::outgoing` and `tun::offload` say what), `tun::link` to the kernel's netlink, `tun::choice` picks
//! what is free; `lokinet_core::driver` holds the device while the node lives.
//!
//! No TUN crate: offload (`IFF_VNET_HDR`: one read brings many segments) needs the reads and writes to fill our own
//! buffers, which the crates' interfaces do not allow.

mod choice;
pub(crate) mod device;
mod link;
mod offload;
mod outgoing;

pub use choice::{MTU, NAME_MAX};
pub use device::Device;

use choice::Network;
use lokinet_core::flow::lease::Range;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What the configuration says about the device; what it leaves out is chosen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// The interface's name (`[network] ifname`); the first free `lokitunN` without it.
    pub name: Option<String>,
    /// Our address and the length of its prefix (`[network] ifaddr`); the first free private range without it.
    pub addr: Option<(Ipv4Addr, u8)>,
    /// What IPv6 twins are made over (`[network] ip6-range`); no IPv6 without it.
    pub base6: Option<Ipv6Addr>,
    /// Whether super-packets may come (`[network] offload`), where the kernel has them.
    pub offload: bool,
}

/// A device that is up. It, its addresses and its routes vanish when `device` is dropped, or the process killed.
pub struct Raised {
    /// Where packets come from and go to.
    pub device: Device,
    /// The interface's name.
    pub name: String,
    /// Its addresses. Without a base for IPv6 twins when the host has no IPv6.
    pub range: Range,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum TunError {
    #[error(
        "/dev/net/tun is missing: load the module (`modprobe tun`), or let the container have it \
         (`--device /dev/net/tun`)"
    )]
    Missing,
    #[error(
        "may not open /dev/net/tun: run as root, or let everybody open it as distributions do \
         (`chmod 666 /dev/net/tun`); a sandbox or container may also forbid it (DeviceAllow=/dev/net/tun, \
         `--device /dev/net/tun`)"
    )]
    MayNotOpen,
    #[error("cannot open /dev/net/tun: {0}")]
    Open(io::Error),
    #[error("may not make a network interface: run as root or with CAP_NET_ADMIN")]
    MayNotMake,
    #[error("the interface {0} exists already: another lokinet? Stop it, or choose another [network] ifname")]
    NameTaken(String),
    #[error("lokitun0 to lokitun{} all exist: remove some, or choose a [network] ifname", choice::NAMES - 1)]
    NamesTaken,
    #[error(
        "{0:?} is no name for an interface: [network] ifname takes 1 to {NAME_MAX} letters, digits, dots, dashes or \
         underscores"
    )]
    Name(String),
    #[error("cannot make the interface {name}: {error}")]
    Make { name: String, error: io::Error },
    #[error("{addr}/{prefix} leaves no room for addresses: [network] ifaddr takes a prefix from /8 to /30")]
    Prefix { addr: Ipv4Addr, prefix: u8 },
    #[error(
        "{addr}/{prefix} is the address of a network, not of this host in it: try {next}/{prefix} in \
         [network] ifaddr"
    )]
    NotAHost { addr: Ipv4Addr, prefix: u8, next: Ipv4Addr },
    #[error(
        "{addr}/{prefix} meets {network} of the interface {interface}: choose another [network] ifaddr, or leave it out \
         to have a free range chosen"
    )]
    RangeTaken { addr: Ipv4Addr, prefix: u8, network: String, interface: String },
    #[error("every private IPv4 range is in use here: choose a [network] ifaddr")]
    RangesTaken,
    #[error("cannot ask the kernel about its interfaces (netlink): {0}")]
    Netlink(io::Error),
    #[error("cannot {step} of the interface {name}: {error}")]
    Configure { step: &'static str, name: String, error: io::Error },
}

/// Makes the device and brings it up with its addresses. Runs inside a tokio runtime.
///
/// # Errors
/// When the host refuses; the error says what and how to mend it, and nothing is left behind.
pub async fn raise(wish: Wish) -> Result<Raised, TunError> {
    let file = device::open().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TunError::Missing,
        io::ErrorKind::PermissionDenied => TunError::MayNotOpen,
        _ if error.raw_os_error() == Some(libc::ENODEV) || error.raw_os_error() == Some(libc::ENXIO) => {
            TunError::Missing
        }
        _ => TunError::Open(error),
    })?;
    let (connection, kernel, _) = rtnetlink::new_connection().map_err(TunError::Netlink)?;
    tokio::select! {
        raised = raise_with(&kernel, file, wish) => raised,
        () = connection => Err(TunError::Netlink(io::ErrorKind::BrokenPipe.into())),
    }
}

async fn raise_with(kernel: &rtnetlink::Handle, file: File, wish: Wish) -> Result<Raised, TunError> {
    let used = link::networks(kernel).await.map_err(TunError::Netlink)?;
    let (own, prefix) = match wish.addr {
        Some((own, prefix)) => wished(own, prefix, &used)?,
        None => choice::free_range(&used).ok_or(TunError::RangesTaken)?,
    };
    let room = |base6| Range::new(own, prefix, base6).ok_or(TunError::Prefix { addr: own, prefix });
    let range = room(wish.base6)?;
    let name = make(&file, wish.name)?;
    let device = Device::new(file, wish.offload);
    let configured = link::configure(kernel, &name, &range).await;
    let has_v6 = configured.map_err(|(step, error)| TunError::Configure { step, name: name.clone(), error })?;
    let range = if has_v6 { range } else { room(None)? };
    Ok(Raised { device, name, range })
}

/// Checks the address that the configuration asks for.
fn wished(addr: Ipv4Addr, prefix: u8, used: &[Network]) -> Result<(Ipv4Addr, u8), TunError> {
    let asked = Network { addr, prefix, interface: None };
    if !(8..=30).contains(&prefix) {
        return Err(TunError::Prefix { addr, prefix });
    }
    if let Some(next) = asked.host_instead() {
        return Err(TunError::NotAHost { addr, prefix, next });
    }
    // Routes may be laid on purpose; an interface's own network would lose its neighbours.
    let taken =
        used.iter().find_map(|network| Some((network, network.interface.clone()?)).filter(|_| asked.meets(network)));
    match taken {
        Some((network, interface)) => {
            Err(TunError::RangeTaken { addr, prefix, network: network.to_string(), interface })
        }
        None => Ok((addr, prefix)),
    }
}

/// Makes the interface that `file` is to stand for; says its name.
fn make(file: &File, name: Option<String>) -> Result<String, TunError> {
    let refused = |name: String, error: io::Error| match error.raw_os_error() {
        Some(libc::EPERM) => TunError::MayNotMake,
        Some(libc::EBUSY | libc::EEXIST) => TunError::NameTaken(name),
        _ => TunError::Make { name, error },
    };
    if let Some(name) = name {
        if !choice::is_name(&name) {
            return Err(TunError::Name(name));
        }
        return match device::make(file, &name, device::Kind::Tun) {
            Ok(()) => Ok(name),
            Err(error) => Err(refused(name, error)),
        };
    }
    for name in choice::names() {
        match device::make(file, &name, device::Kind::Tun) {
            Ok(()) => return Ok(name),
            Err(error) => match refused(name, error) {
                TunError::NameTaken(_) => {}
                error => return Err(error),
            },
        }
    }
    Err(TunError::NamesTaken)
}
