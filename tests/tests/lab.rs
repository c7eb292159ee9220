//! First light in a lab: eight relays, two clients and a service as real daemons on real TUN devices, and what people
//! would do with them. It plays every part by executing itself again. Where namespaces or TUN are refused, and where a
//! tool is not installed, it says what it skips and why.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a lab fails by panicking, and speaks to who runs it")]
#![allow(clippy::disallowed_methods, reason = "a lab lives in real time")]

use lokinet_tests::lab::capture::{self, Seen};
use lokinet_tests::lab::{self, Lab, Running, installed};
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

type Step = fn(&Lab);

fn main() -> ExitCode {
    if let Some(code) = lab::part() {
        return code;
    }
    if std::env::args().any(|word| word == "--list") {
        return ExitCode::SUCCESS; // Test runners ask; there is one lab and no list.
    }
    for (tool, package) in [("dig", "bind9-dnsutils"), ("curl", "curl"), ("ping", "iputils-ping")] {
        if !installed(tool) {
            println!("skipped: {tool} is not installed (apt-get install {package})");
            return ExitCode::SUCCESS;
        }
    }
    let lab = Lab::new("first-light");
    let up = lab.devnet(&["up", "--relays", "8", "--clients", "2", "--services", "1"]).output().unwrap();
    let complaint = String::from_utf8_lossy(&up.stderr);
    if complaint.contains("user namespaces are missing") || complaint.contains("/dev/net/tun") {
        println!("skipped: {}", complaint.lines().last().unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    assert!(up.status.success(), "{complaint}");
    let steps: [(&str, Step); 10] = [
        ("names", names),
        ("wires", wires),
        ("web and ping", web_and_ping),
        ("bulk", bulk),
        ("ssh", ssh),
        ("mumble", mumble),
        ("what a person is told", complaints),
        ("a relay is killed", a_relay_is_killed),
        ("restart", restart),
        ("goodbye", goodbye),
    ];
    for (name, step) in steps {
        let began = Instant::now();
        step(&lab);
        println!("lab: {name}: ok, {:.1} s", began.elapsed().as_secs_f64());
    }
    let init = fs::read_to_string(lab.dir.join("state.json")).unwrap();
    let init: serde_json::Value = serde_json::from_str(&init).unwrap();
    lab.verb(&["down"]);
    assert!(!lab.dir.exists(), "{} is left behind", lab.dir.display());
    let command = fs::read(format!("/proc/{}/cmdline", init["init"]["pid"])).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&command).contains("__init"), "the network's init is left behind");
    ExitCode::SUCCESS
}

/// The guide's two lines, and the rest of what a resolver asks.
fn names(lab: &Lab) {
    let dig = |node: &str, words: &[&str]| {
        let all: Vec<&str> = ["dig", "@127.3.2.1"].iter().chain(words).copied().collect();
        lab.run(node, &all)
    };
    let loki = lab.loki("service1");
    let two = dig("service1", &["+short", "localhost.loki"]);
    let lines: Vec<&str> = two.lines().collect();
    assert_eq!(lines.len(), 2, "{two:?}");
    assert_eq!(lines[0], format!("{loki}."));
    assert!(lines[1].parse::<std::net::Ipv4Addr>().is_ok(), "{two:?}");
    assert_eq!(dig("service1", &["+short", "-t", "cname", "localhost.loki"]), format!("{loki}.\n"));

    let a = dig("client1", &["+short", &loki]);
    let aaaa = dig("client1", &["+short", "-t", "aaaa", &loki]);
    let (a, aaaa): (IpAddr, IpAddr) = (a.trim().parse().unwrap(), aaaa.trim().parse().unwrap());
    assert!(a.is_ipv4() && aaaa.is_ipv6());
    for address in [a, aaaa] {
        assert_eq!(dig("client1", &["+short", "-x", &address.to_string()]), format!("{loki}.\n"));
    }
    assert_eq!(dig("client1", &["+short", "+tcp", &loki]), format!("{a}\n"));
    let nobody = lokinet_core::crypto::key::Identity::from_seed(&[9; 32]).public();
    let nobody = lokinet_core::wire::address::LokiAddress(nobody).to_string();
    for gone in [nobody.as_str(), "loki.loki", "nosuchname.loki", "x.snode", "use-application-dns.net"] {
        let answer = dig("client1", &[gone]);
        assert!(answer.contains("status: NXDOMAIN"), "{gone}: {answer}");
    }
    assert!(dig("client1", &["example.com"]).contains("status: REFUSED"), "no upstream is configured");
}

/// Who sees what on the cables, while a page is fetched.
fn wires(lab: &Lab) {
    if !installed("tcpdump") {
        println!("lab: wires: skipped, tcpdump is not installed");
        return;
    }
    let nodes: Vec<String> =
        (1..=8).map(|n| format!("relay{n}")).chain(["client2".into(), "service1".into()]).collect();
    let file = |node: &str| lab.folder(node).join("wire.pcap");
    let watching: Vec<Running> = nodes
        .iter()
        .map(|node| {
            let path = file(node);
            let words = ["tcpdump", "-Z", "root", "-i", "eth0", "-s", "0", "-U", "-w", path.to_str().unwrap()];
            lab.start(node, &words, "listening on")
        })
        .collect();
    let server = lab.serve("service1", &format!("{}:80", lab.tun("service1", false)), 200_000);
    let url = format!("http://{}/file", lab.loki("service1"));
    let secret = lab.run("client2", &["curl", "-sS", "--max-time", "30", &url]);
    assert_eq!(secret.len(), 200_000);
    drop(server);
    watching.into_iter().for_each(Running::end);

    let status = lab.verb(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let nodes_said = status.as_array().unwrap();
    let of = |name: &str| nodes_said.iter().find(|node| node["name"] == name).unwrap();
    let client: IpAddr = of("client2")["address"].as_str().unwrap().parse().unwrap();
    let client6: Option<IpAddr> = of("client2")["address6"].as_str().map(|text| text.parse().unwrap());
    let first_hops: BTreeSet<&str> =
        of("client2")["paths"].as_array().unwrap().iter().map(|path| path["hops"][0].as_str().unwrap()).collect();
    let mut all = Vec::new();
    for node in &nodes {
        let seen = capture::read(&file(node));
        assert!(seen.iter().all(|frame| !matches!(frame, Seen::Other(..))), "{node}: {:?}", strange(&seen));
        let sees_client = seen.iter().any(|frame| match frame {
            Seen::Udp { from, to, .. } => {
                [Some(*from), Some(*to)].iter().any(|a| *a == Some(client) || *a == client6 && a.is_some())
            }
            _ => false,
        });
        if node.starts_with("relay") {
            assert!(
                !sees_client || first_hops.contains(node.as_str()),
                "{node} has seen the client, whose first hops are {first_hops:?}"
            );
        }
        // The page is plain text on both TUN devices, and nowhere on a wire.
        let bytes = fs::read(file(node)).unwrap();
        assert!(!bytes.windows(64).any(|part| part == [b'~'; 64]), "{node} has seen the page");
        all.extend(seen);
    }
    let (mut cells, mut control, mut odd) = (0, 0, BTreeSet::new());
    for (len, count) in capture::sizes(&all) {
        match len {
            _ if len % 1440 == 0 || len % 384 == 0 => cells += count,
            // quinn hands the kernel up to ten packets at once, and a virtual cable carries them as one frame.
            _ if len <= 10 * 1472 => control += count,
            _ => drop(odd.insert(len)),
        }
    }
    assert!(odd.is_empty(), "sizes that are neither cells nor a QUIC packet: {odd:?}");
    assert!(cells > 100, "{cells} cells");
    println!("lab: wires: {cells} cell datagrams, {control} QUIC datagrams of other sizes");
}

fn strange(seen: &[Seen]) -> BTreeSet<String> {
    seen.iter().filter(|frame| matches!(frame, Seen::Other(..))).map(|frame| format!("{frame:?}")).collect()
}

/// Every direction there is: client to service, service to client, client to client, over both families.
fn web_and_ping(lab: &Lab) {
    for (from, to) in [("client1", "service1"), ("service1", "client1"), ("client2", "client1")] {
        let loki = lab.loki(to);
        for v6 in [false, true] {
            let (flag, host) = match lab.tun(to, v6) {
                IpAddr::V4(v4) => ("-4", format!("{v4}:80")),
                IpAddr::V6(v6) => ("-6", format!("[{v6}]:80")),
            };
            lab.run(from, &["ping", flag, "-n", "-c", "3", "-i", "0.2", "-W", "5", &loki]);
            let _server = lab.serve(to, &host, 3_000_000);
            let page = lab.run(from, &["curl", flag, "-sS", "--max-time", "30", &format!("http://{loki}/")]);
            assert!(page.starts_with("Hello"), "{from} to {to} {flag}: {page}");
            let file = lab.run(from, &["curl", flag, "-sS", "--max-time", "30", &format!("http://www.{loki}/file")]);
            assert_eq!(file.len(), 3_000_000, "{from} to {to} {flag}: the file is whole");
        }
    }
}

/// iperf3 over both families, both ways, TCP and UDP.
fn bulk(lab: &Lab) {
    if !installed("iperf3") {
        println!("lab: bulk: skipped, iperf3 is not installed");
        return;
    }
    let loki = lab.loki("service1");
    for v6 in [false, true] {
        let address = lab.tun("service1", v6).to_string();
        let family = if v6 { "-6" } else { "-4" };
        let _server = lab.start("service1", &["iperf3", "-s", "--forceflush", "-B", &address], "Server listening");
        for how in [&["-t", "2"][..], &["-t", "2", "-R"], &["-u", "-b", "5M", "-l", "1000", "-t", "2"]] {
            let mut words = vec!["iperf3", family, "-J", "-c", &loki];
            words.extend(how);
            let answer: serde_json::Value = serde_json::from_str(&lab.run("client1", &words)).unwrap();
            let end = &answer["end"];
            let sum = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
            let mbits = sum["bits_per_second"].as_f64().unwrap() / 1e6;
            let lost = end["sum"]["lost_percent"].as_f64().unwrap_or(0.0);
            println!("lab: bulk: {family} {how:?}: {mbits:.0} Mbit/s, {lost:.1} % lost");
            assert!(mbits > 1.0 && lost < 20.0, "{answer}");
        }
    }
}

/// A real sshd says who it is, to a client that reached it by name.
fn ssh(lab: &Lab) {
    if !installed("sshd") || !installed("ssh-keyscan") {
        println!("lab: ssh: skipped, openssh-server is not installed");
        return;
    }
    let folder = lab.folder("service1");
    let key = folder.join("host_key");
    let made =
        std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    // Privilege separation wants this folder, and /run is the node's own.
    lab.run("service1", &["mkdir", "-p", "/run/sshd"]);
    let listen = [false, true].map(|v6| format!("ListenAddress={}", lab.tun("service1", v6)));
    let key = format!("HostKey={}", key.display());
    let words = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-o", &listen[0], "-o", &listen[1], "-o", &key];
    let _sshd = lab.start("service1", &words, "Server listening");
    let said = lab.inside("client1", &["ssh-keyscan", "-T", "20", &lab.loki("service1")]).output().unwrap();
    let banner = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(banner.contains("SSH-2.0-OpenSSH") && banner.contains("ssh-ed25519"), "{banner}");
}

/// The canonical example, as the guide has it: host= the address of localhost.loki, reached by name from elsewhere.
fn mumble(lab: &Lab) {
    let program = ["murmurd", "mumble-server"].into_iter().find(|name| installed(name));
    let (Some(program), true) = (program, installed("openssl")) else {
        println!("lab: mumble: skipped, mumble-server or openssl is not installed");
        return;
    };
    let folder = lab.folder("service1").join("mumble");
    fs::create_dir_all(&folder).unwrap();
    let ini = folder.join("mumble-server.ini");
    let text = format!(
        "host={}\nport=64738\ndatabase={}\nallowping=true\nuname=root\n",
        lab.tun("service1", false),
        folder.join("mumble.sqlite").display()
    );
    fs::write(&ini, text).unwrap();
    let _server = lab.start("service1", &[program, "-fg", "-ini", ini.to_str().unwrap()], "Server listening on");
    let place = format!("{}:64738", lab.loki("service1"));
    let mut tls = lab.inside("client1", &["openssl", "s_client", "-connect", &place]);
    let tls = tls.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&tls.stdout);
    assert!(said.contains("BEGIN CERTIFICATE") && said.contains("Murmur"), "{said}");
    let ping = lab.own_run("client1", &["mumble-ping", &place]);
    let said = String::from_utf8_lossy(&ping.stdout);
    assert!(ping.status.success() && said.contains("mumble server 1."), "{said}");
}

/// Wrong files and taken places: one clear sentence each, with the remedy.
fn complaints(lab: &Lab) {
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    let good = fs::read_to_string(lab.folder("client1").join("lokinet.ini")).unwrap();
    let folder = lab.dir.join("second");
    let data = folder.join("data");
    fs::create_dir_all(&data).unwrap();
    let ini = folder.join("lokinet.ini");
    let keyfile = folder.join("some.private");
    // A second daemon beside client1's: everything its own, but for what each case takes away.
    let second = good
        .replace(lab.folder("client1").join("data").to_str().unwrap(), data.to_str().unwrap())
        .replace("control.sock", "second.sock")
        .replace("ifname=lokitun0", "ifname=second")
        .replace("127.3.2.1:53", "127.3.2.2:53");
    assert_ne!(second, good);
    let told = |text: &str| {
        fs::write(&ini, text).unwrap();
        let output = lab.inside("client1", &[own, ini.to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    };
    let expect = |text: &str, words: &[&str]| {
        let said = told(text);
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    };
    let with_key = second.replace("[network]\n", &format!("[network]\nkeyfile={}\n", keyfile.display()));

    expect(&second.replace("ifname=second", "ifname=lokitun0"), &["lokitun0", "ifname"]);
    expect(&second.replace("127.3.2.2:53", "127.3.2.1:53"), &["127.3.2.1:53", "in use", "[dns] bind"]);
    expect(&second.replace("ifname=second", "ifname=second\nhobs=3"), &["lokinet.ini:", "hobs", "hops"]);
    expect(&second.replace("second.sock", "control.sock"), &["control.sock", "another lokinet"]);
    fs::write(&keyfile, "this is no key").unwrap();
    fs::set_permissions(&keyfile, fs::Permissions::from_mode(0o600)).unwrap();
    expect(&with_key, &["some.private"]);
    fs::set_permissions(&keyfile, fs::Permissions::from_mode(0o644)).unwrap();
    expect(&with_key, &["some.private", "chmod 600"]);
    fs::remove_file(&keyfile).unwrap();
    fs::create_dir(&keyfile).unwrap();
    expect(&with_key, &["some.private"]);
    expect(&second.replace("threshold=1", "threshold=2"), &["threshold"]);
    expect(&second.replace("registry.signed", "nothing.signed"), &["nothing.signed", "[registry] file"]);
    let same_data = good.replace("127.3.2.1", "127.3.2.2").replace("lokitun0", "second").replace("control.", "second.");
    expect(&same_data, &["data-dir", "another lokinet"]);
    // The first daemon never noticed.
    assert_eq!(lab.status("client1")["state"], "ready");
    fs::remove_dir_all(&folder).unwrap();
}

/// A download survives the death of a relay on its path.
fn a_relay_is_killed(lab: &Lab) {
    let loki = lab.loki("service1");
    let address = format!("{}:80", lab.tun("service1", false));
    let size = 40_000_000;
    let _server = lab.serve("service1", &address, size);
    let url = format!("http://{loki}/file");
    // Slow enough that the kill falls into it, and the time limit is what a person would call broken.
    let words = [
        "exec",
        "client1",
        "--",
        "curl",
        "-sS",
        "--limit-rate",
        "8M",
        "--max-time",
        "40",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        &url,
    ];
    let download = lab.devnet(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let victim = (0..50).find_map(|_| {
        let status = lab.status("client1");
        let paths = status["paths"].as_array().unwrap();
        let path = paths.iter().find(|path| path["target"] == loki.as_str())?;
        path["hops"][1].as_str().map(str::to_owned)
    });
    let victim = victim.expect("the daemon shows the path in use");
    lab.verb(&["kill", &victim]);
    let output = download.wait_with_output().unwrap();
    let got = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && got == size.to_string(), "{got}: {}", String::from_utf8_lossy(&output.stderr));
    lab.verb(&["start", &victim]);
}

/// The keyfile keeps the address, what was learnt is kept, and others reach the service again.
fn restart(lab: &Lab) {
    let before = lab.loki("service1");
    let guards = fs::read(lab.folder("client1").join("data/guards")).unwrap();
    let contacts = |node: &str| walk(&lab.folder(node).join("data/nodedb"));
    assert!(contacts("client1") >= 3, "contacts are kept on disk");
    let mode = fs::metadata(lab.folder("service1").join("data/service.private")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for node in ["service1", "client1"] {
        lab.verb(&["kill", node]);
        lab.verb(&["start", node]);
    }
    let began = Instant::now();
    while lab.status("service1")["state"] != "ready" || lab.status("client1")["state"] != "ready" {
        assert!(began.elapsed().as_secs() < 30, "not ready 30 s after a restart");
    }
    println!("lab: restart: both ready again after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(lab.loki("service1"), before, "the keyfile keeps the address");
    assert_eq!(fs::read(lab.folder("client1").join("data/guards")).unwrap(), guards, "guards survive a restart");
    let _server = lab.serve("service1", &format!("{}:80", lab.tun("service1", false)), 10);
    let page = lab.run("client1", &["curl", "-sS", "--max-time", "30", &format!("http://{before}/")]);
    assert!(page.starts_with("Hello"), "{page}");
}

fn walk(folder: &std::path::Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { 1 }).sum()
}

/// A daemon told to stop says goodbye and leaves nothing: no device, no socket, no resolver.
fn goodbye(lab: &Lab) {
    let find = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -q 'client2/lokinet.ini' && echo ${p#/proc/}; done; true";
    let pids = lab.run("client2", &["sh", "-c", find]);
    let pid = pids.lines().next().expect("the daemon's process");
    lab.run("client2", &["kill", pid]);
    let began = Instant::now();
    while !lab.status("client2")["state"].as_str().unwrap().starts_with("ended") {
        assert!(began.elapsed().as_secs() < 10, "still there 10 s after SIGTERM");
    }
    assert_eq!(lab.status("client2")["state"], "ended, exit code 0");
    let left = lab.run("client2", &["sh", "-c", "cat /proc/net/dev /proc/net/udp; ls /run/lokinet 2>/dev/null; true"]);
    assert!(!left.contains("lokitun"), "the device is gone: {left}");
    assert!(!left.contains("0102037F:0035"), "the resolver is gone: {left}");
    assert!(!lab.folder("client2").join("control.sock").exists(), "the socket is gone");
}
