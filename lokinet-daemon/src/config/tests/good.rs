//! What values mean, and what holds without them.

use super::*;
use proptest::prelude::*;

#[test]
fn an_empty_file_gives_the_defaults() {
    let settings = client("");
    let scratch = settings.router.data_dir.clone();
    assert_eq!(
        (settings.router.netid, settings.router.netid_text.as_str()),
        (NetId::new("lokinet").unwrap(), "lokinet")
    );
    assert!(settings.router.block_bogons && settings.router.public.is_empty());
    assert_eq!(
        settings.network,
        Network {
            tun: true,
            keyfile: None,
            reachable: true,
            hops: 3,
            paths: 4,
            lifetime: Duration::from_secs(1200),
            strict: Vec::new(),
            ifname: None,
            ifaddr: None,
            ip6_base: Some("fd00::".parse().unwrap()),
            offload: true,
            mapaddr: Vec::new(),
            srv: Vec::new(),
        }
    );
    assert_eq!(settings.dns.bind, ["127.3.2.1:53".parse().unwrap()]);
    assert_eq!(settings.dns.upstream, ["9.9.9.10:53".parse().unwrap()]);
    assert!(settings.dns.query_bind.is_none() && settings.dns.resolvconf);
    assert_eq!(settings.bind, Bind::default());
    assert_eq!(settings.api, Api { enabled: true, socket: "/run/lokinet/control.sock".into() });
    assert_eq!((settings.registry.file, settings.registry.threshold), (scratch.join("registry.signed"), 1));
    assert_eq!(settings.registry.authorities.len(), 1);
    assert!(settings.bootstrap.is_empty());
    assert_eq!(settings.logging, Logging { kind: LogKind::Print, level: LogLevel::Info });

    let (relay, warnings) = read(Role::Relay, "[bind]\ninbound=8.8.8.8").unwrap();
    assert!(warnings.is_empty());
    assert_eq!((relay.api.enabled, relay.logging.level), (false, LogLevel::Warn));
    assert_eq!(relay.router.identity_key, relay.router.data_dir.join("identity.key"));
}

#[test]
fn values_are_taken_as_they_are_written() {
    let settings = client(
        "[router]\nnetid=home\nblock-bogons=no\n[network]\ntype=null\nkeyfile=mumble.private\nreachable=off\nhops=4\n\
         paths=2\npath-lifetime=150s\nifname=loki0\nifaddr=10.9.0.1/16\nip6-range=fd2e:6c6f:6b69::\n\
         [dns]\nbind=127.0.0.1\nbind=[::1]:5353\nupstream=1.1.1.1\nupstream=9.9.9.9:5353\nquery-bind=192.168.1.2\n\
         no-resolvconf=1\n[bind]\noutbound=:5000\n[api]\nenabled=false\nsocket=my.sock\n\
         [logging]\ntype=file\nfile=/var/log/l\nlevel=CRITICAL",
    );
    let dir = &settings.router.data_dir;
    assert!(!settings.router.block_bogons);
    let network = &settings.network;
    assert_eq!((network.tun, network.reachable, network.hops, network.paths), (false, false, 4, 2));
    assert_eq!((&network.keyfile, network.lifetime), (&Some(dir.join("mumble.private")), Duration::from_secs(150)));
    assert_eq!(network.ifname.as_deref(), Some("loki0"));
    assert_eq!(network.ifaddr, Some((Ipv4Addr::new(10, 9, 0, 1), 16)));
    assert_eq!(network.ip6_base, Some("fd2e:6c6f:6b69::".parse().unwrap()));
    assert_eq!(settings.dns.bind, ["127.0.0.1:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]);
    assert_eq!(settings.dns.upstream, ["1.1.1.1:53".parse().unwrap(), "9.9.9.9:5353".parse().unwrap()]);
    assert_eq!(settings.dns.query_bind, Some("192.168.1.2:0".parse().unwrap()));
    assert!(!settings.dns.resolvconf);
    assert_eq!(settings.bind.outbound, ["0.0.0.0:5000".parse().unwrap()]);
    assert_eq!(settings.api, Api { enabled: false, socket: dir.join("my.sock") });
    assert_eq!(settings.logging, Logging { kind: LogKind::File("/var/log/l".into()), level: LogLevel::Error });
}

#[test]
fn one_empty_upstream_turns_forwarding_off() {
    assert!(client("[dns]\nupstream=").dns.upstream.is_empty());
    let (settings, warnings) = read(Role::Client, "[dns]\nupstream=1.1.1.1\nupstream=").unwrap();
    assert!(settings.dns.upstream.is_empty());
    assert_eq!(
        warnings,
        [
            "t.ini:2: [dns] upstream: 1.1.1.1:53 is not asked, since an empty upstream= turns forwarding off; remove one of \
          the two lines"
        ]
    );
}

#[test]
fn turning_ipv6_off_is_said_to_be_dangerous() {
    let (settings, warnings) = read(Role::Client, "[network]\nip6-range=").unwrap();
    assert_eq!(settings.network.ip6_base, None);
    assert_eq!(
        warnings,
        [
            "t.ini:2: [network] ip6-range: .loki names have no IPv6 address here, so that a program which insists on IPv6 may \
          go past the tunnel and show who you are; remove the line unless IPv6 is off on this machine"
        ]
    );
}

#[test]
fn lists_of_names() {
    let settings = client(&format!(
        "[network]\nstrict-connect={SNODE}\nstrict-connect={SNODE_2}\nifaddr=172.16.0.1/16\n\
         mapaddr={LOKI}:172.16.0.10\nmapaddr={LOKI_2}:172.16.0.11"
    ));
    assert_eq!(settings.network.strict.len(), 2);
    let ips: Vec<String> = settings.network.mapaddr.iter().map(|(_, ip)| ip.to_string()).collect();
    assert_eq!(ips, ["172.16.0.10", "172.16.0.11"]);
}

#[test]
fn service_records() {
    let record = |text: &str| client(&format!("[network]\nsrv={text}")).network.srv[0].clone();
    let plain = SrvRecord { service: "_http._tcp".into(), priority: 10, weight: 5, port: 80, target: None };
    assert_eq!(record("_http._tcp 10 5 80"), plain);
    assert_eq!(record("_HTTP._TCP  10 5 80 "), plain);
    assert_eq!(record("_xmpp-client._tcp 0 0 65535 .").target.as_deref(), Some("."));
    for target in [LOKI, SNODE, "memerionos.loki"] {
        assert_eq!(record(&format!("_a._udp 1 2 3 {target}")).target.as_deref(), Some(target));
    }
    assert_eq!(record("_a._udp 1 2 3 Memerionos.loki.").target.as_deref(), Some("memerionos.loki"));
}

#[test]
fn every_level_has_its_names() {
    for (text, level) in [
        ("trace", LogLevel::Trace),
        ("Debug", LogLevel::Debug),
        ("INFO", LogLevel::Info),
        ("warning", LogLevel::Warn),
        ("err", LogLevel::Error),
        ("none", LogLevel::Off),
        ("off", LogLevel::Off),
    ] {
        assert_eq!(client(&format!("[logging]\nlevel={text}")).logging.level, level, "{text}");
    }
}

#[test]
fn what_has_no_effect_is_ignored_with_a_reason() {
    for (text, warning) in [
        (
            "[router]\nworker-threads=4",
            "[router] worker-threads: only relays have this option, and this is a client; it is ignored",
        ),
        ("[router]\nmin-routers=4", "[router] min-routers: it was deprecated long ago; it is ignored"),
        ("[network]\nprofiling=false", "[network] profiling: relays that failed are always remembered; it is ignored"),
        ("[system]\nuser=loki", "[system] user: it was deprecated long ago; it is ignored"),
        (
            "[api]\nbind=tcp://127.0.0.1:1190",
            "[api] bind: there is no TCP or OxenMQ listener; the control socket is where [api] socket says; it is ignored",
        ),
        (
            "[router]\npublic-ip=1.1.1.1",
            "[router] public-ip: only relays have this option, and this is a client; it is ignored",
        ),
        ("[bind]\neth0=1090", "[bind] eth0: only relays listen, and this is a client; it is ignored"),
        ("[bind]\n*=1090", "[bind] *: this form is deprecated, and still works; write outbound=:1090 in its place"),
        (
            "[logging]\ntype=system",
            "[logging] type: nothing is written to syslog yet, but to standard output, as print does; write \
             type=print; systemd's journal keeps standard output",
        ),
    ] {
        let (_, warnings) = read(Role::Client, text).unwrap();
        assert_eq!(warnings, [format!("t.ini:2: {warning}")]);
    }
    let keyfile = "[bind]\ninbound=8.8.8.8\n[network]\nkeyfile=x";
    assert_eq!(
        read(Role::Relay, keyfile).unwrap().1,
        ["t.ini:4: [network] keyfile: only clients have this option, and this is a relay; it is ignored"]
    );
    client("[network]\nexit=false\nauth=none\nprofiling=yes\nblackhole-routes=true");
}

/// The test that no option of the table is only decoration: nonsense in it is noticed.
#[test]
fn every_option_that_counts_is_read() {
    let paths = ["keyfile", "socket", "ident-privkey"];
    for section in options::SECTIONS {
        for option in section.options.iter().filter(|option| matches!(option.fate, options::Fate::Used)) {
            if paths.contains(&option.name)
                || option.name == "data-dir"
                || section.name == "logging" && option.name == "file"
            {
                continue;
            }
            let role = option.only.unwrap_or(Role::Client);
            let text = format!("[{}]\n{}=\u{7f}", section.name, option.name);
            let errors = read(role, &text).expect_err(&text);
            assert!(errors.iter().any(|error| error.contains(option.name)), "{errors:?}");
        }
    }
}

/// Lines as somebody might write them, and others.
fn line() -> impl Strategy<Value = String> {
    let names: Vec<(&str, &str)> =
        options::SECTIONS.iter().flat_map(|s| s.options.iter().map(|option| (s.name, option.name))).collect();
    let known = (proptest::sample::select(names), "[ -~]{0,24}|[0-9./:a-f]{0,20}");
    prop_oneof![
        8 => known.prop_map(|((section, name), value)| format!("[{section}]\n{name}={value}")),
        1 => "\\PC{0,40}",
        1 => "\\[[a-z]{0,8}\\]?",
    ]
}

proptest! {
    #[test]
    fn any_text_is_judged_without_a_panic(lines in proptest::collection::vec(line(), 0..12), relay: bool) {
        let role = if relay { Role::Relay } else { Role::Client };
        let ini = ini::parse(Path::new("t.ini"), lines.join("\n").as_bytes());
        let main = Place::whole(Path::new("t.ini"));
        let _ = settle(vec![ini], role, Path::new("/nonexistent"), main, Complaints::default(), &mock_interfaces);
    }
}
