//! The table of bad lines, each with the exact words it earns.

use super::*;

/// Complaints about line 2 of `[section]`, `line`.
fn complaint(role: Role, section: &str, line: &str) -> String {
    let errors = read(role, &format!("[{section}]\n{line}")).map(|_| ()).expect_err(line);
    assert_eq!(errors.len(), 1, "{line}: {errors:?}");
    errors[0].clone()
}

#[test]
fn every_bad_line_is_named_with_its_remedy() {
    let long_srv = format!("srv=_a._tcp 1 2 3 {}", "a".repeat(200));
    let long_socket = format!("socket=/{}", "s".repeat(107));
    let dangling = format!("mapaddr={LOKI}");
    let v6_map = format!("mapaddr={LOKI}:fd00");
    let lonely = format!("mapaddr={LOKI}:10.0.0.2");
    let one_strict = format!("strict-connect={SNODE}");
    let not_strict = format!("strict-connect={LOKI}");
    let digits = "write the 64 hexadecimal digits that the network's operators give out";
    let weak = format!("authority=01{}", "0".repeat(62));
    let weak_said = format!("[registry] authority: 01{} is not an Ed25519 public key; {digits}", "0".repeat(62));
    let short_said = format!("[registry] authority: abcd is not 64 hexadecimal digits; {digits}");
    let boolean = "write true or false, in lower case";
    let ifaddr = "write an address and a prefix, like 172.16.0.1/16";
    let ip6 = "write an address within fd00::/8 whose last 32 bits are zero, like fd00::";
    let srv = "write _service._proto priority weight port [target], like _http._tcp 10 5 80";
    let table: &[(&str, &str, &str)] = &[
        ("router", "netid=", "[router] netid: \"\" is no network's name; write 1 to 8 letters, digits or signs"),
        (
            "router",
            "netid=ninechars",
            "[router] netid: ninechars is no network's name; write 1 to 8 letters, digits or signs",
        ),
        (
            "router",
            "block-bogons=false",
            "[router] block-bogons: private addresses have no place in the public network lokinet; remove the line, or set \
             [router] netid to a private network's name",
        ),
        ("router", "block-bogons=TRUE", &format!("[router] block-bogons: TRUE is not a boolean; {boolean}")),
        ("network", "type=tap", "[network] type: there is no type tap; write tun or null"),
        ("network", "keyfile=", "[network] keyfile: there is no path; name a file, or remove the line"),
        ("network", "reachable=", &format!("[network] reachable: \"\" is not a boolean; {boolean}")),
        ("network", "hops=0", "[network] hops: a path without relays hides nothing; write 1 to 4"),
        (
            "network",
            "hops=5",
            "[network] hops: 5 are too many: more than 4 hops buy no anonymity and cost everyone; write 1 to 4",
        ),
        ("network", "hops=+3", "[network] hops: +3 is not a whole number; write digits only"),
        ("network", "paths=1", "[network] paths: 1 leaves no other path when one fails; write 2 to 8"),
        (
            "network",
            "paths=9",
            "[network] paths: 9 are too many: each costs relays work and shows this machine to more of them; write 2 to 8",
        ),
        ("network", "path-lifetime=20", "[network] path-lifetime: 20 has no unit; write 20s, 20m or 20h"),
        ("network", "path-lifetime=90s", "[network] path-lifetime: 90s is too short; write 2m to 60m"),
        ("network", "path-lifetime=2h", "[network] path-lifetime: 2h is too long; write 2m to 60m"),
        (
            "network",
            &one_strict,
            "[network] strict-connect: one relay alone would leave nobody to go to when it fails, and see all there is to \
             see; give two or more, or none",
        ),
        (
            "network",
            &not_strict,
            &format!("[network] strict-connect: {LOKI} is no relay; write 52 characters and .snode"),
        ),
        (
            "network",
            "ifname=sixteen-letters-",
            "[network] ifname: sixteen-letters- is no name for an interface; write at most 15 letters and digits, like \
             lokitun0",
        ),
        ("network", "ifaddr=10.0.0.1", &format!("[network] ifaddr: 10.0.0.1 has no prefix; {ifaddr}")),
        (
            "network",
            "ifaddr=10.0.0.1/31",
            &format!("[network] ifaddr: 10.0.0.1/31 has no prefix from 8 to 30; {ifaddr}"),
        ),
        (
            "network",
            "ifaddr=fd00::1/64",
            &format!("[network] ifaddr: fd00::1 is not IPv4; {ifaddr}; IPv6 goes into ip6-range"),
        ),
        (
            "network",
            "ifaddr=172.16.0.1/8",
            "[network] ifaddr: 172.16.0.1/8 is not within a private range, and would hide other people's hosts; take a part \
             of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        ),
        (
            "network",
            "ifaddr=10.0.0.0/24",
            "[network] ifaddr: 10.0.0.0 is the first or last address of its range, which no host can have; write 10.0.0.1/24",
        ),
        ("network", "ip6-range=10.0.0.1", &format!("[network] ip6-range: 10.0.0.1 is not IPv6; {ip6}")),
        (
            "network",
            "ip6-range=2001:db8::",
            &format!("[network] ip6-range: 2001:db8:: is not within the private range fd00::/8; {ip6}"),
        ),
        (
            "network",
            "ip6-range=fd00::1",
            &format!("[network] ip6-range: fd00::1 leaves no room for the IPv4 addresses; {ip6}"),
        ),
        ("network", &dangling, &format!("[network] mapaddr: {LOKI} has no IP; write <52 characters>.loki:IP")),
        (
            "network",
            &v6_map,
            "[network] mapaddr: fd00 is not a valid IP address; write one like 1.2.3.4 or 2001:db8::1",
        ),
        (
            "network",
            &lonely,
            "[network] mapaddr: without ifaddr nobody knows beforehand which range the address must be in; set ifaddr too, \
             to a range that holds 10.0.0.2",
        ),
        ("network", "srv=_http._tcp 10 5", &format!("[network] srv: \"_http._tcp 10 5\" has too few words; {srv}")),
        ("network", "srv=http.tcp 10 5 80", &format!("[network] srv: http.tcp is not _service._proto; {srv}")),
        ("network", "srv=_a._tcp 1 2 99999", &format!("[network] srv: 99999 is not a number from 0 to 65535; {srv}")),
        (
            "network",
            "srv=_a._tcp 1 2 3 example.com",
            "[network] srv: example.com is no .loki or .snode name; name one, write . for none, or leave it out",
        ),
        ("network", &long_srv, &format!("[network] srv: the record has 214 bytes, and at most 200 are allowed; {srv}")),
        (
            "network",
            "exit-node=exit.loki",
            "[network] exit-node: not supported by this version: there are no exits yet, and traffic that counts on one \
             would go out unprotected; remove the line",
        ),
        (
            "network",
            "exit=true",
            "[network] exit: not supported by this version: there are no exits yet; remove the line",
        ),
        (
            "network",
            "auth=whitelist",
            "[network] auth: not supported by this version: every caller is let in, and a service that counts on \
             being closed would stand open; remove the line",
        ),
        (
            "router",
            "public-address=1.2.3.4",
            "[router] public-address: not supported by this version: write public-ip and public-port \
             in its place; remove the line",
        ),
        ("dns", "bind=", "[dns] bind: \"\" is not a valid IP address; write one like 1.2.3.4 or 2001:db8::1"),
        (
            "dns",
            "upstream=dns.quad9.net",
            "[dns] upstream: dns.quad9.net is not a valid IP address; write one like 1.2.3.4 or 2001:db8::1",
        ),
        ("dns", "upstream=9.9.9.9:foo", "[dns] upstream: foo is not a valid port; write a number from 0 to 65535"),
        ("dns", "upstream=0.0.0.0", "[dns] upstream: nobody can be asked at 0.0.0.0:53; write the resolver's IP:port"),
        (
            "dns",
            "upstream=127.3.2.1",
            "[dns] upstream: this is our own resolver, which would ask itself; name another resolver, or leave it empty",
        ),
        (
            "bind",
            "outbound=eth0",
            "[bind] outbound: eth0 is not a valid IP address; write one like 1.2.3.4 or 2001:db8::1",
        ),
        (
            "api",
            &long_socket,
            "[api] socket: the path has 108 bytes, and a Unix socket's has at most 107; name a shorter one",
        ),
        (
            "bootstrap",
            "add-node=absent",
            "[bootstrap] add-node: DIR/absent: No such file or directory (os error 2); put the file there, or name the \
             place where it is",
        ),
        ("registry", "authority=abcd", &short_said),
        ("registry", &weak, &weak_said),
        (
            "registry",
            "threshold=0",
            "[registry] threshold: a list that nobody has signed counts for nothing; write 1 or more",
        ),
        (
            "registry",
            "threshold=2",
            "[registry] threshold: 2 signatures are more than there are authorities (1); write a smaller number, or give all \
             [registry] authority lines",
        ),
        (
            "logging",
            "level=infogarbage",
            "[logging] level: infogarbage is no level; write trace, debug, info, warn, error or none",
        ),
        ("logging", "level=", "[logging] level: \"\" is no level; write trace, debug, info, warn, error or none"),
        ("logging", "type=syslog", "[logging] type: there is no type syslog; write print or file"),
        ("logging", "type=file", "[logging] type: no file is named; set [logging] file=PATH"),
        ("network", "hop=3", "unrecognized option [network]: hop; did you mean hops?"),
        ("router", "keyfile=x", "unrecognized option [router]: keyfile; it belongs in [network]"),
        (
            "dns",
            "do-ip6=yes",
            "unrecognized option [dns]: do-ip6; remove the line; lokinet --generate writes a file with all options",
        ),
        ("bind", "inbond=1.1.1.1:1090", "unrecognized option [bind]: inbond; did you mean inbound?"),
    ];
    for (section, line, words) in table {
        assert_eq!(complaint(Role::Client, section, line), format!("t.ini:2: {words}"));
    }
}

#[test]
fn unknown_sections_are_named_once_whatever_stands_in_them() {
    for (text, words) in [
        (
            "[foo]\na=b\nc=d",
            "unrecognized section [foo]; remove it; lokinet --generate writes a file with all sections",
        ),
        ("[Network]\nhops=3", "unrecognized section [Network]; did you mean [network]?"),
        ("[netwrok]", "unrecognized section [netwrok]; did you mean [network]?"),
    ] {
        assert_eq!(read(Role::Client, text).unwrap_err(), [format!("t.ini:1: {words}")]);
    }
}

#[test]
fn repetitions_are_errors_where_one_value_is_meant() {
    assert_eq!(
        read(Role::Client, "[network]\nhops=2\nhops=2").unwrap_err(),
        ["t.ini:3: duplicate value for hops; keep this line or line 2, not both"]
    );
    for (section, line) in [
        ("network", format!("strict-connect={SNODE}")),
        ("dns", "bind=127.0.0.1".into()),
        ("dns", "upstream=1.1.1.1".into()),
        ("bind", "outbound=:1".into()),
        ("registry", format!("authority={AUTHORITY_2}")),
    ] {
        let (name, _) = line.split_once('=').unwrap();
        let errors = read(Role::Client, &format!("[{section}]\n{line}\n{line}")).unwrap_err();
        assert_eq!(
            errors,
            [format!("t.ini:3: [{section}] {name}: the same as at t.ini:2; remove one of the two lines")]
        );
    }
}

#[test]
fn fixed_addresses_are_one_each_and_within_the_range() {
    let complaints = |lines: &str| read(Role::Client, &format!("[network]\nifaddr=10.9.0.1/24\n{lines}")).unwrap_err();
    let (ours, twice) = (format!("mapaddr={LOKI}:10.9.0.1"), format!("mapaddr={LOKI}:10.9.0.2"));
    assert_eq!(complaints(&ours), ["t.ini:3: [network] mapaddr: 10.9.0.1 is this machine's own address; take another"]);
    assert_eq!(
        complaints(&format!("mapaddr={LOKI}:10.9.1.2")),
        ["t.ini:3: [network] mapaddr: 10.9.1.2 is not within ifaddr, 10.9.0.1/24; take an address of that range"]
    );
    let same = ["t.ini:4: [network] mapaddr: the same as at t.ini:3; remove one of the two lines"];
    assert_eq!(complaints(&format!("{twice}\n{twice}")), same);
    assert_eq!(complaints(&format!("{twice}\nmapaddr={LOKI}:10.9.0.3")), same, "one service");
    assert_eq!(complaints(&format!("{twice}\nmapaddr={LOKI_2}:10.9.0.2")), same, "one address");
}

#[test]
fn all_complaints_come_at_once_and_in_order() {
    let text = "nonsense\n[network]\npaths=99\nhops=TEN\n[nonet]\n[dns]\nbind=x\n";
    let errors = read(Role::Client, text).unwrap_err();
    let places: Vec<&str> = errors.iter().map(|error| error.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["t.ini:1", "t.ini:3", "t.ini:4", "t.ini:5", "t.ini:7"]);
}

#[test]
fn without_authorities_there_is_no_network_to_join() {
    let scratch = Scratch::new();
    for role in [Role::Client, Role::Relay] {
        assert_eq!(
            read_in(&scratch, role, "[bind]\ninbound=8.8.8.8").unwrap_err(),
            [
                "t.ini: no [registry] authority is given, and this build knows no public network yet; set authority and file in \
              [registry] to what the operators of your network give out"
            ]
        );
    }
    fs::remove_file(scratch.0.join("registry.signed")).unwrap();
    assert_eq!(
        read_in(&scratch, Role::Client, &format!("[registry]\nauthority={AUTHORITY}")).unwrap_err(),
        [
            "t.ini: [registry] file: DIR/registry.signed: No such file or directory (os error 2); put the file there, or name \
          the place where it is"
        ]
    );
}

#[test]
fn secrets_are_not_repeated() {
    let errors = read(Role::Client, "[network]\nauth-static=hunter2\nexit-auth=exit.loki:hunter2").unwrap_err();
    assert_eq!(errors.len(), 2);
    assert!(!errors.concat().contains("hunter2"));
}
