//! The lab of the TUN device: devices are raised, looked at, sent through and killed, in a network namespace of their
//! own. This program executes itself again inside it; where namespaces or `/dev/net/tun` are refused it says so and is
//! skipped.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a lab fails by panicking, and speaks to who runs it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use lokinet_core::driver::Tun;
use lokinet_core::wire::batch::Packets;
use lokinet_core::wire::packet::{self, Stripped, segment};
use lokinet_daemon::tun::{MTU, Raised, TunError, Wish, raise};
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Somebody without rights, on every system.
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some("--inside") => inside(scenarios()),
        Some("--hold") => inside(hold()),
        Some("--complain") => inside(complain()),
        _ if words.iter().any(|word| word == "--list") => {} // Test runners ask; there is one lab and no list.
        _ => return enter(),
    }
    ExitCode::SUCCESS
}

fn enter() -> ExitCode {
    let attempts: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let allowed = |flags: &&&[&str]| {
        let probe = Command::new("unshare").args(**flags).arg("true").stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let Some(flags) = attempts.iter().find(allowed) else {
        println!("skipped: no network namespace can be made here (`unshare --net`)");
        return ExitCode::SUCCESS;
    };
    let itself = std::env::current_exe().unwrap();
    let status = Command::new("unshare").args(*flags).arg(itself).arg("--inside").status().unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn inside(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

fn wish() -> Wish {
    Wish { base6: Some("fd00::".parse().unwrap()), ..Wish::default() }
}

/// Holds a device until killed.
async fn hold() {
    let raised = raise(wish()).await.unwrap();
    println!("{}", raised.name);
    std::future::pending::<()>().await;
}

/// Says why there is no device.
async fn complain() {
    println!("{}", raise(wish()).await.map(|raised| raised.name).map_err(|error| error.to_string()).unwrap_err());
}

async fn scenarios() {
    let mut first = match raise(wish()).await {
        Err(error @ (TunError::Missing | TunError::MayNotOpen | TunError::MayNotMake)) => {
            println!("skipped: {error}");
            return;
        }
        raised => raised.unwrap(),
    };
    let host = Host::new();
    host.loopback_up().await; // IPv6 reaches its own addresses by it
    the_first_device(&host, &first).await;
    host.receives("fd00::ac10:1".parse().unwrap()).await;
    packets_both_ways(&mut first);
    a_second_device(&host, &first).await;
    what_is_refused().await;
    without_rights();
    drop(first);
    assert!(!host.links().await.contains_key("lokitun0"), "dropped and gone");
    for offload in [true, false] {
        streams(&host, offload).await;
    }
    killed(&host).await;
    without_ipv6(&host).await;
    println!("tun: 9 scenarios ok");
}

/// What the kernel says.
struct Host(Handle);

impl Host {
    fn new() -> Host {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        Host(handle)
    }

    async fn loopback_up(&self) {
        self.0.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
    }

    /// Names, with (number, up, MTU).
    async fn links(&self) -> BTreeMap<String, (u32, bool, u32)> {
        let links: Vec<_> = self.0.link().get().execute().try_collect().await.unwrap();
        let line = |link: &rtnetlink::packet_route::link::LinkMessage| {
            let (mut name, mut mtu) = (String::new(), 0);
            for attribute in &link.attributes {
                match attribute {
                    LinkAttribute::IfName(text) => name = text.clone(),
                    LinkAttribute::Mtu(bytes) => mtu = *bytes,
                    _ => {}
                }
            }
            (name, (link.header.index, link.header.flags.contains(LinkFlags::Up), mtu))
        };
        links.iter().map(line).collect()
    }

    /// Packets that the kernel took from an interface, joined ones counted once.
    async fn taken(&self, name: &str) -> u64 {
        let links: Vec<_> = self.0.link().get().match_name(name.to_owned()).execute().try_collect().await.unwrap();
        let packets = links[0].attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(stats.rx_packets),
            _ => None,
        });
        packets.unwrap()
    }

    /// `address/prefix` of an interface.
    async fn addresses(&self, index: u32) -> Vec<String> {
        let found: Vec<_> = self.0.address().get().set_link_index_filter(index).execute().try_collect().await.unwrap();
        let text = |message: &rtnetlink::packet_route::address::AddressMessage| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(addr) => Some(format!("{addr}/{}", message.header.prefix_len)),
                _ => None,
            })
        };
        let mut all: Vec<String> = found.iter().filter_map(text).collect();
        all.sort();
        all
    }

    /// Waits until the kernel has made its route to its own new IPv6 address, which it does by itself a little later.
    async fn receives(&self, address: Ipv6Addr) {
        let own = RouteAttribute::Destination(RouteAddress::Inet6(address));
        let any = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let made = async {
            loop {
                let routes: Vec<_> = self.0.route().get(any.clone()).execute().try_collect().await.unwrap();
                if routes.iter().any(|r| r.header.kind == RouteType::Local && r.attributes.contains(&own)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), made).await.unwrap();
    }

    /// Where the routes of the main table to IPv4 networks begin.
    async fn routes(&self) -> Vec<Ipv4Addr> {
        let any = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<_> = self.0.route().get(any).execute().try_collect().await.unwrap();
        let of_main = routes.iter().filter(|route| route.header.table == 254);
        of_main
            .flat_map(|route| &route.attributes)
            .filter_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(*addr),
                _ => None,
            })
            .collect()
    }
}

async fn the_first_device(host: &Host, raised: &Raised) {
    assert_eq!((raised.name.as_str(), raised.range.own()), ("lokitun0", Ipv4Addr::new(172, 16, 0, 1)));
    let (index, up, mtu) = host.links().await["lokitun0"];
    assert!(up && mtu == MTU);
    assert_eq!(host.addresses(index).await, ["172.16.0.1/16", "fd00::ac10:1/112"], "and no link-local one");
    assert!(host.routes().await.contains(&Ipv4Addr::new(172, 16, 0, 0)));
}

/// A datagram leaves through the device, and its echo comes back: over IPv4 and to the IPv6 twins.
fn packets_both_ways(raised: &mut Raised) {
    let mut packets = Packets::new();
    for (own, remote) in [("172.16.0.1", "172.16.200.7"), ("fd00::ac10:1", "fd00::ac10:c807")] {
        let (own, remote): (IpAddr, IpAddr) = (own.parse().unwrap(), remote.parse().unwrap());
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let remote = SocketAddr::new(remote, 4242);
        for word in [b"one".as_slice(), b"two", &[7; 1000]] {
            socket.send_to(word, remote).unwrap();
        }
        packets.clear();
        raised.device.receive(&mut packets).unwrap();
        let mut echoes = Packets::new();
        // The kernel's own multicast reports lie between.
        packets.iter().filter_map(echo).for_each(|packet| echoes.push(&packet));
        assert_eq!(echoes.len(), 3, "all that waited came in one batch");
        assert_eq!(raised.device.send(&mut echoes), (3, 0));
        let mut bytes = [0; 2000];
        for word in [b"one".as_slice(), b"two", &[7; 1000]] {
            let (length, from) =
                socket.recv_from(&mut bytes).unwrap_or_else(|error| panic!("{remote}, {word:?}: {error}"));
            assert_eq!((&bytes[..length], from), (word, remote));
        }
        // Too large for the interface: the kernel cuts it, and no piece exceeds the MTU.
        socket.send_to(&[9; 3000], remote).unwrap();
        packets.clear();
        raised.device.receive(&mut packets).unwrap();
        assert!(packets.len() >= 3 && packets.iter().all(|packet| packet.len() <= MTU as usize));
    }
    packets.clear();
    raised.device.receive(&mut packets).unwrap();
    assert!(packets.is_empty(), "an empty device is no error");
    packets.push(&[0x30; 40]); // IP version 3
    assert_eq!(raised.device.send(&mut packets), (0, 1), "refused and counted");
}

/// The packet on its way back; `None` when it is not UDP. Swapping leaves all checksums right.
fn echo(packet: &[u8]) -> Option<Vec<u8>> {
    let (from, length, udp) = match packet[0] >> 4 {
        4 if packet[9] == 17 => (12, 4, 20),
        6 if packet[6] == 17 => (8, 16, 40),
        _ => return None,
    };
    let mut back = packet.to_vec();
    back[from..from + 2 * length].rotate_left(length);
    back[udp..udp + 4].rotate_left(2);
    Some(back)
}

/// Bytes each end of a connection sends.
const STREAM: usize = 4 << 20;

/// A connection to an address behind the device comes back as one from it: so both its ends are here, and every packet
/// goes through the device twice. Streams come through it intact in both directions, with offload and without.
async fn streams(host: &Host, offload: bool) {
    let mut raised = raise(Wish { offload, ..wish() }).await.unwrap();
    host.receives("fd00::ac10:1".parse().unwrap()).await;
    for (own, remote) in [("172.16.0.1", "172.16.200.7"), ("fd00::ac10:1", "fd00::ac10:c807")] {
        let (own, remote): (IpAddr, IpAddr) = (own.parse().unwrap(), remote.parse().unwrap());
        let before = host.taken(&raised.name).await;
        let (mirrored, ()) = beside_a_mirror(&mut raised, || a_stream(own, remote));
        let taken = host.taken(&raised.name).await - before;
        assert!(mirrored.pieces as usize > 2 * STREAM / MTU as usize);
        if offload {
            assert!(mirrored.tcp_cut > 10, "the kernel joins: {mirrored:?}");
            assert!(taken < mirrored.pieces / 2, "the device joins: {taken} of {mirrored:?}");
        } else {
            assert_eq!((mirrored.tcp_cut, taken), (0, mirrored.pieces), "each alone");
        }
        let (mirrored, cuts) = beside_a_mirror(&mut raised, || datagrams(own, remote));
        if cuts {
            assert_eq!(mirrored.udp_cut > 0, offload && udp_is_left_to_us(), "{mirrored:?}");
        }
    }
}

/// Linux 6.2 knows TUN_F_USO4.
fn udp_is_left_to_us() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(2))
}

/// What a mirror saw.
#[derive(Debug, Default)]
struct Mirrored {
    /// Packets of more than one piece.
    tcp_cut: u64,
    udp_cut: u64,
    /// All pieces.
    pieces: u64,
}

/// Does `work` while another thread sends back what comes out of the device, as if the address it went to had sent it.
fn beside_a_mirror<T>(raised: &mut Raised, work: impl FnOnce() -> T) -> (Mirrored, T) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mirror = scope.spawn(|| mirror(raised, &done));
        let result = catch_unwind(AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        (mirror.join().unwrap(), result.unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn mirror(raised: &mut Raised, done: &AtomicBool) -> Mirrored {
    let (own, base6) = (raised.range.own(), raised.range.base6());
    let remote = Ipv4Addr::new(172, 16, 200, 7);
    let (mut packets, mut back, mut room) = (Packets::new(), Packets::new(), Vec::new());
    let mut mirrored = Mirrored::default();
    while !done.load(Ordering::Relaxed) {
        let wait = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        poll(&mut [PollFd::new(&raised.device, PollFlags::IN)], Some(&wait)).unwrap();
        packets.clear();
        raised.device.receive(&mut packets).unwrap();
        for index in 0..packets.len() {
            let (shape, before) = (packets.shape(index), back.len());
            assert!(shape.segment > 0 || packets.get(index).len() <= MTU as usize);
            let give = |bytes: &[u8]| {
                let stripped = Stripped { bytes, partial: shape.partial };
                packet::restore(stripped, remote, own, base6, &mut back).unwrap();
            };
            // Multicast reports of the kernel are refused.
            let _ = if shape.partial {
                segment::cut(packets.get(index), shape, &mut room, give)
            } else {
                room.clear();
                packet::strip(packets.packet(index), &mut room).map(|()| room.as_slice()).map(give)
            };
            match packet::protocol(packets.get(index)) {
                Some(packet::TCP) => mirrored.tcp_cut += u64::from(back.len() > before + 1),
                Some(packet::UDP) => mirrored.udp_cut += u64::from(back.len() > before + 1),
                _ => {}
            }
            mirrored.pieces += (back.len() - before) as u64;
        }
        assert_eq!(raised.device.send(&mut back), (back.len(), 0));
        back.clear();
    }
    mirrored
}

/// Both ends of a connection send at once, and each gets what the other sent.
fn a_stream(own: IpAddr, remote: IpAddr) {
    let listener = TcpListener::bind((own, 0)).unwrap();
    let near = TcpStream::connect((remote, listener.local_addr().unwrap().port())).unwrap();
    let (far, from) = listener.accept().unwrap();
    assert_eq!((from.ip(), near.local_addr().unwrap().ip()), (remote, own));
    std::thread::scope(|scope| {
        for (here, there, seed) in [(&near, &far, 1), (&far, &near, 2)] {
            let sent: Vec<u8> = (0..STREAM as u64).map(|at| ((at * seed * 2_654_435_761) >> 16) as u8).collect();
            let expected = sent.clone();
            scope.spawn(move || {
                let mut here = here;
                here.write_all(&sent).unwrap();
                here.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let mut there = there;
                there.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut got = Vec::new();
                there.read_to_end(&mut got).unwrap();
                assert!(got == expected, "{} bytes of {STREAM}, or others", got.len());
            });
        }
    });
}

const DATAGRAMS: usize = 20;

/// Datagrams given to the kernel in one call come out one by one; whether it took them in one call.
fn datagrams(own: IpAddr, remote: IpAddr) -> bool {
    let receiver = UdpSocket::bind((own, 0)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sender = UdpSocket::bind((own, 0)).unwrap();
    let state = quinn_udp::UdpSocketState::new((&sender).into()).unwrap();
    let contents: Vec<u8> = (0..DATAGRAMS).flat_map(|index| [index as u8; 1000]).collect();
    let destination = SocketAddr::new(remote, receiver.local_addr().unwrap().port());
    let cuts = state.max_gso_segments() >= DATAGRAMS;
    for contents in contents.chunks(if cuts { contents.len() } else { 1000 }) {
        let transmit = quinn_udp::Transmit { destination, ecn: None, contents, segment_size: Some(1000), src_ip: None };
        state.send((&sender).into(), &transmit).unwrap();
    }
    let mut bytes = [0; 2000];
    for index in 0..DATAGRAMS {
        let (length, from) = receiver.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..length], from.ip()), ([index as u8; 1000].as_slice(), remote));
    }
    cuts
}

async fn a_second_device(host: &Host, first: &Raised) {
    let second = raise(wish()).await.unwrap();
    assert_eq!((second.name.as_str(), second.range.own()), ("lokitun1", Ipv4Addr::new(172, 17, 0, 1)));
    // What is only routed is in use, too.
    let (index, ..) = host.links().await[&first.name];
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(Ipv4Addr::new(172, 18, 64, 0), 20);
    let route = route.scope(RouteScope::Link).output_interface(index).build();
    host.0.route().add(route).execute().await.unwrap();
    let third = raise(wish()).await.unwrap();
    assert_eq!((third.name.as_str(), third.range.own()), ("lokitun2", Ipv4Addr::new(172, 19, 0, 1)));
    // A name that became free is used again; a wish comes true.
    drop(second);
    let wished = Wish { name: Some("onion".into()), addr: Some((Ipv4Addr::new(10, 9, 8, 7), 24)), ..Wish::default() };
    let wished = raise(wished).await.unwrap();
    let (index, ..) = host.links().await["onion"];
    assert_eq!(host.addresses(index).await, ["10.9.8.7/24"]);
    assert_eq!((wished.range.own(), wished.range.prefix()), (Ipv4Addr::new(10, 9, 8, 7), 24));
    assert_eq!(raise(wish()).await.unwrap().name, "lokitun1");
}

async fn what_is_refused() {
    let named = |name: &str| Wish { name: Some(name.into()), ..Wish::default() };
    let addressed = |addr: [u8; 4], prefix| Wish { addr: Some((addr.into(), prefix)), ..Wish::default() };
    let cases = [
        (named("lokitun0"), "lokitun0 exists already", "[network] ifname"),
        (named("a name too long for it"), "is no name for an interface", "1 to 15"),
        (named("lokitun%d"), "is no name for an interface", "[network] ifname"),
        (addressed([172, 16, 9, 1], 24), "meets 172.16.0.0/16 of the interface lokitun0", "[network] ifaddr"),
        (addressed([10, 0, 0, 1], 31), "leaves no room", "/8 to /30"),
        (addressed([10, 1, 0, 0], 16), "is the address of a network", "10.1.0.1/16"),
    ];
    for (wish, what, remedy) in cases {
        let error = raise(wish).await.map(|raised| raised.name).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(remedy), "{error}");
    }
}

/// Others than root are told which of the two is missing: the file's mode, or the capability.
fn without_rights() {
    let itself = std::env::current_exe().unwrap();
    let said = |command: &mut Command| {
        let output = command.arg("--complain").stderr(Stdio::inherit()).output().ok()?;
        Some(String::from_utf8(output.stdout).unwrap()).filter(|text| !text.is_empty())
    };
    // Root of a user namespace that does not own this network namespace: may open, may not make.
    match said(Command::new("unshare").args(["--user", "--map-root-user"]).arg(&itself)) {
        Some(text) => assert!(text.contains("CAP_NET_ADMIN"), "{text}"),
        None => println!("left out: no user namespaces here"),
    }
    match said(Command::new(&itself).uid(NOBODY).gid(NOBODY)) {
        Some(text) => assert!(text.contains("chmod 666 /dev/net/tun") || text.contains("CAP_NET_ADMIN"), "{text}"),
        None => println!("left out: nobody cannot execute {}", itself.display()),
    }
}

async fn killed(host: &Host) {
    let itself = std::env::current_exe().unwrap();
    let mut holder = Command::new(itself).arg("--hold").stdout(Stdio::piped()).spawn().unwrap();
    let mut name = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut name).unwrap();
    assert!(
        host.links().await.contains_key(name.trim()) && host.routes().await.contains(&Ipv4Addr::new(172, 16, 0, 0))
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(!host.links().await.contains_key(name.trim()), "killed and gone");
    assert!(host.routes().await.is_empty(), "with its routes");
}

async fn without_ipv6(host: &Host) {
    let switch = Path::new("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    if switch.exists()
        && let Err(error) = std::fs::write(switch, "1")
    {
        println!("left out: cannot disable IPv6 here: {error}");
        return;
    }
    let raised = raise(wish()).await.unwrap();
    assert_eq!(raised.range.base6(), None, "no twins are promised");
    let (index, up, _) = host.links().await[&raised.name];
    assert!(up);
    assert_eq!(host.addresses(index).await, ["172.16.0.1/16"]);
}
