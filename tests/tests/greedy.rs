//! A greedy path in a lab: one client takes all it can get through the relays by eight downloads at once, beside another
//! who pings a service and downloads from it through the same relays. First one of these has an interface slower than all
//! processors, then all have, so that what waits, waits there. The greedy one may wait for itself alone. Where
//! namespaces, TUN or slow interfaces cannot be had, and where a tool is not installed, it says what it skips and why.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a lab fails by panicking, and speaks to who runs it")]
#![allow(clippy::disallowed_methods, reason = "a lab lives in real time")]

use core::time::Duration;
use lokinet_tests::lab::{self, Lab, Running, installed};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Instant;

/// What a slow relay sends in a second. The queueing discipline drops nothing: the relay's socket is full instead.
const SLOW: [&str; 7] = ["tbf", "rate", "200mbit", "burst", "64k", "limit", "8m"];
/// Downloads of the greedy client at once.
const STREAMS: usize = 8;
/// What each could download at most.
const ENDLESS: u64 = 100_000_000_000;
/// How often all of it is tried: on a busy machine others may take the processor for seconds, which no relay can help.
const TRIES: usize = 3;

fn main() -> ExitCode {
    if let Some(code) = lab::part() {
        return code;
    }
    if std::env::args().any(|word| word == "--list") {
        return ExitCode::SUCCESS; // Test runners ask; there is one lab and no list.
    }
    let tools = [("dig", "bind9-dnsutils"), ("curl", "curl"), ("ping", "iputils-ping"), ("tc", "iproute2")];
    for (tool, package) in tools {
        if !installed(tool) {
            println!("skipped: {tool} is not installed (apt-get install {package})");
            return ExitCode::SUCCESS;
        }
    }
    let lab = Lab::new("greedy");
    // Three relays, so that every path leads over each of them.
    let up = lab.devnet(&["up", "--relays", "3", "--clients", "2", "--services", "2"]).output().unwrap();
    let complaint = String::from_utf8_lossy(&up.stderr);
    if complaint.contains("user namespaces are missing") || complaint.contains("/dev/net/tun") {
        println!("skipped: {}", complaint.lines().last().unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    assert!(up.status.success(), "{complaint}");
    let quiet = Visitor::new(&lab, "client2", "service1");
    let greedy = Visitor::new(&lab, "client1", "service2");
    quiet.arrives();
    greedy.arrives();
    for slow in [1, 3] {
        for relay in (1..=3).take(slow).skip(usize::from(slow > 1)) {
            let words: Vec<&str> = ["tc", "qdisc", "add", "dev", "eth0", "root"].into_iter().chain(SLOW).collect();
            let made = lab.inside(&format!("relay{relay}"), &words).output().unwrap();
            if !made.status.success() {
                println!("skipped: no slow interface can be made: {}", String::from_utf8_lossy(&made.stderr).trim());
                return ExitCode::SUCCESS;
            }
        }
        for left in (0..TRIES).rev() {
            let seen = watch(&quiet, &greedy);
            println!("greedy: {slow} of 3 relays slow: {}", seen.told());
            match seen.fault(slow) {
                None => break,
                Some(fault) if left == 0 => panic!("{fault}, {TRIES} times in a row"),
                Some(fault) => println!("greedy: {fault}; once more"),
            }
        }
    }
    lab.verb(&["down"]);
    ExitCode::SUCCESS
}

/// A client and the service it visits.
struct Visitor<'a> {
    lab: &'a Lab,
    client: &'static str,
    loki: String,
    _server: Running,
}

/// Times in milliseconds, speeds in Mbit/s.
struct Seen {
    /// A ping's median while nobody else is there.
    idle: f64,
    /// And beside the greedy one.
    beside: f64,
    /// How many of so many came back beside it.
    returned: (usize, usize),
    /// A single download's speed alone.
    alone: f64,
    /// And beside the greedy one, and what that one got meanwhile.
    shared: (f64, f64),
}

/// One try.
fn watch(quiet: &Visitor<'_>, greedy: &Visitor<'_>) -> Seen {
    let mut idle = quiet.pings(30);
    let download = quiet.downloads(1);
    let alone = speeds([quiet, greedy], Duration::from_secs(3))[0];
    download.end();
    let all = greedy.downloads(STREAMS);
    let beside = quiet.pings(40);
    let one = quiet.downloads(1);
    let [own, taken] = speeds([quiet, greedy], Duration::from_secs(4));
    one.end();
    all.end();
    idle.extend(quiet.pings(30));
    Seen { idle: median(idle), returned: (beside.len(), 40), beside: median(beside), alone, shared: (own, taken) }
}

impl Seen {
    fn told(&self) -> String {
        let Seen { idle, beside, returned: (back, of), alone, shared: (own, taken) } = self;
        format!(
            "ping {idle:.1} ms alone and {beside:.1} ms beside it, {back} of {of} back; download {alone:.0} Mbit/s alone, \
             {own:.0} beside its {taken:.0}"
        )
    }

    /// What somebody would complain of, where so many relays are slow.
    fn fault(&self, slow: usize) -> Option<&'static str> {
        let (back, of) = self.returned;
        let (own, taken) = self.shared;
        [
            (taken + own < self.alone / 2.0, "the greedy one was none"),
            (self.beside > 3.0 * self.idle + 10.0 * slow as f64, "a ping waits for the greedy one"),
            (back * 20 < of * 19, "pings are lost"),
            (own * 2.5 < taken, "the greedy one takes more than its share"),
        ]
        .into_iter()
        .find_map(|(bad, what)| bad.then_some(what))
    }
}

impl<'a> Visitor<'a> {
    fn new(lab: &'a Lab, client: &'static str, service: &str) -> Visitor<'a> {
        let server = lab.serve(service, &format!("{}:80", lab.tun(service, false)), ENDLESS);
        Visitor { lab, client, loki: lab.loki(service), _server: server }
    }

    /// Waits until the service is reached.
    fn arrives(&self) {
        let began = Instant::now();
        while self.pings(1).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "{} has no way to its service", self.client);
        }
    }

    /// Pings ten times a second; the round trips of those that came back.
    fn pings(&self, count: usize) -> Vec<f64> {
        let words = ["ping", "-4", "-n", "-c", &count.to_string(), "-i", "0.1", "-W", "2", &self.loki];
        let said = self.lab.inside(self.client, &words).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok()).collect()
    }

    /// Downloads without end, and lets them come to speed.
    fn downloads(&self, streams: usize) -> Running {
        let url = format!("http://{}/file", self.loki);
        let mut words = vec!["curl", "-4", "-sS", "-v", "-Z", "--parallel-immediate", "--max-time", "60"];
        words.extend((0..streams).flat_map(|_| ["-o", "/dev/null", &url]));
        let running = self.lab.start(self.client, &words, "200 OK");
        sleep(Duration::from_secs(2));
        running
    }

    /// What has come out of the tunnel so far, in bytes.
    fn received(&self) -> u64 {
        let devices = self.lab.run(self.client, &["cat", "/proc/net/dev"]);
        let line = devices.lines().find_map(|line| line.trim().strip_prefix("lokitun0:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap()
    }
}

/// How fast each receives, over some time.
fn speeds(visitors: [&Visitor<'_>; 2], time: Duration) -> [f64; 2] {
    let began = Instant::now();
    let before = visitors.map(Visitor::received);
    sleep(time);
    let after = visitors.map(Visitor::received);
    let micros = began.elapsed().as_micros() as f64;
    [0, 1].map(|at| (after[at] - before[at]) as f64 * 8.0 / micros)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::INFINITY)
}
