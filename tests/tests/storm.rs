//! A storm in a lab: a real relay with 256 MiB to live in, a hostile client that does to it all at once what strangers can
//! do, and an honest client whose every path leads over it. The relay must live, its memory stay bounded, and the honest
//! client get through. Where namespaces, TUN or a limit on memory are refused it says what it skips and why.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a lab fails by panicking, and speaks to who runs it")]
#![allow(clippy::disallowed_methods, reason = "a lab lives in real time")]

use core::time::Duration;
use lokinet_tests::lab::{self, Lab, installed};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Instant;

/// What the relay may use, in bytes.
const ROOM: u64 = 256 << 20;
/// How long the storm rages, in seconds.
const STORM: &str = "20";

fn main() -> ExitCode {
    if let Some(code) = lab::part() {
        return code;
    }
    if std::env::args().any(|word| word == "--list") {
        return ExitCode::SUCCESS; // Test runners ask; there is one lab and no list.
    }
    for (tool, package) in [("dig", "bind9-dnsutils"), ("ping", "iputils-ping")] {
        if !installed(tool) {
            println!("skipped: {tool} is not installed (apt-get install {package})");
            return ExitCode::SUCCESS;
        }
    }
    let lab = Lab::new("storm");
    // Three relays, so that every path leads over each of them.
    let up = lab.devnet(&["up", "--relays", "3", "--clients", "2", "--services", "1"]).output().unwrap();
    let complaint = String::from_utf8_lossy(&up.stderr);
    if complaint.contains("user namespaces are missing") || complaint.contains("/dev/net/tun") {
        println!("skipped: {}", complaint.lines().last().unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    assert!(up.status.success(), "{complaint}");
    let loki = lab.loki("service1");
    reaches(&lab, &loki, Duration::from_secs(20));

    let relay = lab.status("relay1");
    let pid = relay["pid"].as_u64().unwrap();
    let room = Room::around(pid);
    println!("storm: relay1 lives in {}", room.what());
    let address = format!("{}:1090", relay["address"].as_str().unwrap());
    let own = std::env::current_exe().unwrap();
    let words = ["exec", "client2", "--", own.to_str().unwrap(), "storm", &address, STORM];
    let storm = lab.devnet(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pings = ["exec", "client1", "--", "ping", "-c", "20", "-i", "0.5", "-W", "3", &loki];
    let pings = lab.devnet(&pings).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let before = resident(pid);
    let mut peak = before;
    let watch = |peak: &mut u64, time: Duration| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            *peak = resident(pid).max(*peak);
            sleep(Duration::from_millis(200));
        }
    };
    watch(&mut peak, Duration::from_secs(11));
    let pings = pings.wait_with_output().unwrap();
    let pings = String::from_utf8_lossy(&pings.stdout).into_owned();
    let returned = pings.lines().filter(|line| line.contains("bytes from")).count();
    // Who comes new, while it rages: guards, paths, a name, a conversation.
    lab.verb(&["kill", "client1"]);
    lab.verb(&["start", "client1"]);
    let took = reaches(&lab, &loki, Duration::from_secs(30));
    watch(&mut peak, Duration::from_secs(2));
    let storm = storm.wait_with_output().unwrap();
    watch(&mut peak, Duration::from_secs(1));
    let storm = String::from_utf8_lossy(&storm.stdout).into_owned();

    let mib = |bytes: u64| bytes >> 20;
    println!("storm: {}", storm.trim());
    println!("storm: {returned} of 20 pings returned meanwhile; a new client got through after {took:?}");
    println!("storm: relay1 had {} MiB before, {} at most, {} now", mib(before), mib(peak), mib(resident(pid)));
    let done: serde_json::Value = serde_json::from_str(storm.trim()).expect("the storm says what it did");
    for harm in ["links", "builds", "requests", "half-open handshakes", "noise"] {
        assert!(done[harm].as_u64() >= Some(100), "there was no storm: {harm}: {}", done[harm]);
    }
    let after = lab.status("relay1");
    assert_eq!(after["pid"].as_u64(), Some(pid), "relay1 did not live through it: {}", after["state"]);
    assert_eq!(room.killed(), 0, "the kernel killed for want of memory");
    assert!(peak <= ROOM, "relay1 took {} MiB", mib(peak));
    assert!(returned >= 10, "an honest client's pings are lost: {pings}");
    reaches(&lab, &loki, Duration::from_secs(10));
    lab.verb(&["down"]);
    drop(room);
    ExitCode::SUCCESS
}

/// Waits until an honest client reaches the service by its name; how long that took.
fn reaches(lab: &Lab, loki: &str, patience: Duration) -> Duration {
    let began = Instant::now();
    loop {
        let ping = lab.inside("client1", &["ping", "-c", "1", "-W", "2", loki]).output().unwrap();
        if ping.status.success() {
            return began.elapsed();
        }
        assert!(began.elapsed() < patience, "no way to the service: {}", String::from_utf8_lossy(&ping.stderr));
        sleep(Duration::from_millis(100));
    }
}

/// What a process holds in memory now, in bytes; 0 when it is gone.
fn resident(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// A limit on a process's memory, whichever kind this machine lets us set.
enum Room {
    Unified(PathBuf),
    Memory(PathBuf),
    Data,
    Watched,
}

impl Room {
    fn around(pid: u64) -> Room {
        let name = format!("lokinet-storm-{}", std::process::id());
        let limit = ROOM.to_string();
        let put = |dir: &Path, file: &str| {
            let _ = fs::create_dir(dir);
            // What it has already counts too, where the kernel still knows how.
            let _ = fs::write(dir.join("memory.move_charge_at_immigrate"), "3");
            let _ = fs::write(dir.join("memory.swap.max"), "0");
            let limited = fs::write(dir.join(file), &limit).is_ok();
            let made = limited && fs::write(dir.join("cgroup.procs"), pid.to_string()).is_ok();
            if !made {
                let _ = fs::remove_dir(dir);
            }
            made
        };
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            let dir = Path::new(root).join(&name);
            if Path::new(root).join("cgroup.controllers").is_file() && put(&dir, "memory.max") {
                return Room::Unified(dir);
            }
        }
        let dir = Path::new("/sys/fs/cgroup/memory").join(&name);
        if dir.parent().is_some_and(Path::is_dir) && put(&dir, "memory.limit_in_bytes") {
            return Room::Memory(dir);
        }
        let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--data={ROOM}")]).status();
        if limited.is_ok_and(|status| status.success()) { Room::Data } else { Room::Watched }
    }

    fn what(&self) -> String {
        match self {
            Room::Unified(dir) | Room::Memory(dir) => format!("the cgroup {} of {} MiB", dir.display(), ROOM >> 20),
            Room::Data => format!("{} MiB of data (no cgroup may be made here; prlimit)", ROOM >> 20),
            Room::Watched => "no limit: skipped, neither a cgroup nor prlimit can be had; its memory is watched".into(),
        }
    }

    /// How often the kernel killed somebody in it.
    fn killed(&self) -> u64 {
        let (dir, file) = match self {
            Room::Unified(dir) => (dir, "memory.events"),
            Room::Memory(dir) => (dir, "memory.oom_control"),
            Room::Data | Room::Watched => return 0,
        };
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Room::Unified(dir) | Room::Memory(dir) = self {
            // Empty once the network is down; the kernel may take a moment to see it.
            let gone = (0..50).any(|_| {
                fs::remove_dir(&*dir).is_ok() || {
                    sleep(Duration::from_millis(100));
                    false
                }
            });
            if !gone {
                println!("storm: {} is left behind", dir.display());
            }
        }
    }
}
