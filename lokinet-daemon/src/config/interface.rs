//! The addresses of a network interface, for the old form `[bind] eth0=1090` alone.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;

/// The addresses of the interface of this name, IPv4 first; `None` when there is no such interface.
pub fn addresses(name: &str) -> Option<Vec<IpAddr>> {
    // On a thread of its own, since the caller may stand inside a runtime already.
    std::thread::scope(|scope| scope.spawn(|| ask(name)).join().ok()?)
}

fn ask(name: &str) -> Option<Vec<IpAddr>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().ok()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().ok()?;
        tokio::spawn(connection);
        let link = handle.link().get().match_name(name.to_owned()).execute().try_next().await.ok()??;
        let mut messages = handle.address().get().set_link_index_filter(link.header.index).execute();
        let mut found = Vec::new();
        while let Some(message) = messages.try_next().await.ok()? {
            // On a point-to-point interface the plain address is the peer's, and the local one is ours.
            let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
            let local = of(|attribute| match attribute {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let plain = of(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            found.extend(local.or(plain));
        }
        found.sort_by_key(|ip| ip.is_ipv6());
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_nonsense_is_not() {
        let loopback = addresses("lo").expect("every Linux has it");
        assert!(loopback.iter().all(IpAddr::is_loopback), "{loopback:?}");
        assert_eq!(addresses("no-such-iface"), None);
    }
}
