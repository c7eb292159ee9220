"""What the benches share: a world of their own to run in, hosts on cables in it, and the taking of numbers.

`own_world` starts the bench again inside new PID, mount and network namespaces. Whatever ends it, even SIGKILL, the kernel
ends every process and removes every namespace with it, and no packet can leave. Neighbours: `throughput` and
`side-by-side` are the benches, `devnet`, `peers` and `tor` build what is measured.
"""

import ctypes
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PORT = "5201"
# UDP inside the tunnels: fits the narrowest of them, three WireGuards in each other, with IPv6 in the innermost.
DATAGRAM = 1180
INSIDE = "LOKINET_BENCH_INSIDE"
PR_SET_PDEATHSIG = 1
CLOCK = time.monotonic()


class Trouble(Exception):
    """Why a row cannot be had, said to a person."""


# A world of its own.


def own_world(work, limit):
    """Runs `work(folder)` in new namespaces and exits with its code; kills it all after `limit` seconds."""
    if INSIDE not in os.environ:
        sys.exit(guard(limit))
    folder = Path(os.environ[INSIDE])
    # Sockets of wireguard-go, names of namespaces and all files: in memory that goes when this world goes.
    for place in (folder, Path("/run")):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(place))
    run("ip", "link", "set", "lo", "up")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work(folder) or 0
        except Trouble as trouble:
            print(trouble, file=sys.stderr)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        os._exit(code)
    # The first process of a PID namespace buries the orphans; when it ends, so do all the others.
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def guard(limit):
    """Outside: starts the world, waits, and leaves nothing behind."""
    folder = tempfile.mkdtemp(prefix="lokibench")
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv]
    environment = {**os.environ, INSIDE: folder}
    for kind in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, lambda number, _: sys.exit(128 + number))
    world = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent)
    try:
        return world.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        say(f"no end after {limit} s: everything is stopped")
        return 124
    except KeyboardInterrupt:
        say("interrupted: everything is stopped")
        return 130
    finally:
        # unshare takes its child with it, and that one, being the first of its PID namespace, everybody.
        world.kill()
        world.wait()
        os.rmdir(folder)


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# Hosts and cables.


class Site:
    """Hosts in network namespaces, each with a veth cable to one bridge, as `lokinet devnet` lays them; or two hosts with
    one cable between them. Congestion control is cubic on every route: kernels differ in their default."""

    def __init__(self, tag, hosts, bridged=True):
        self.tag, self.hosts, self.bridged = tag, hosts, bridged
        self.started = []

    def up(self):
        names = [*self.hosts, "hub"] if self.bridged else self.hosts
        for name in names:
            run("ip", "netns", "add", self.space(name))
            run(*self.at(name), "ip", "link", "set", "lo", "up")
        if self.bridged:
            run(*self.at("hub"), "ip", "link", "add", "wire", "up", "type", "bridge")
            # A wire has no firewall: br_netfilter, where the kernel has it, would have every frame pass one.
            run(*self.at("hub"), "sh", "-c", "for it in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $it ] || echo 0 > $it; done")
            for name in self.hosts:
                cable = ["type", "veth", "peer", "name", "eth0", "netns", self.space(name)]
                run(*self.at("hub"), "ip", "link", "add", name, "up", "master", "wire", *cable)
        else:
            cable = ["type", "veth", "peer", "name", "eth0", "netns", self.space(self.hosts[1])]
            run(*self.at(self.hosts[0]), "ip", "link", "add", "eth0", *cable)
        for name in self.hosts:
            run(*self.at(name), "ip", "addr", "add", f"{self.address(name)}/24", "dev", "eth0", "noprefixroute")
            run(*self.at(name), "ip", "link", "set", "eth0", "up")
            run(*self.at(name), "ip", "route", "add", "10.98.0.0/24", "dev", "eth0", "congctl", "cubic")

    def space(self, host):
        return f"{self.tag}-{host}"

    def address(self, host):
        return f"10.98.0.{self.hosts.index(host) + 1}"

    def at(self, host):
        return ["nsenter", f"--net=/run/netns/{self.space(host)}"]

    def start(self, host, *command, log):
        """Starts a process at a host; it is watched, and lives as long as this world."""
        with open(log, "ab") as said:
            process = subprocess.Popen([*self.at(host), *command], stdout=said, stderr=said, stdin=subprocess.DEVNULL)
        self.started.append((process, command[0], log))
        return process.pid

    def complain_about_the_dead(self):
        for process, name, log in self.started:
            if process.poll() is not None:
                raise Trouble(f"{name} has ended with code {process.returncode}. {last_words(log)}")

    def segment(self):
        ends = [(self.at(name), "eth0", True) for name in self.hosts]
        hub = [(self.at("hub"), name, False) for name in self.hosts] if self.bridged else []
        for place, device, receives in ends + hub:
            segment(place, device, receives)


def segment(place, device, receives):
    """Makes one end of a cable cut super-packets into packets of its MTU, as a card without such offloads. A host's end
    (`receives`) joins again what it receives, as the kernel does with a card's; a bridge's end does not."""
    off = ["tso", "off", "gso", "off", "tx-udp-segmentation", "off"]
    run(*place, "ethtool", "-K", device, *off, "gro", "on" if receives else "off")


# One row.


class Lab:
    """Something that carries packets from a client to a server. A subclass says how it is made."""

    key = "?"
    title = "?"
    # Tools it needs, with Debian's package for each.
    needs = {}
    family = "-4"
    udp_size = DATAGRAM

    def begin(self):
        """Starts it."""

    def ready(self):
        """Waits until it carries, or raises Trouble."""

    def pids(self):
        """Its processes, by name."""
        return {}

    def roles(self, each):
        """Sums up what each process is worth by role: client, relays (all), service; where known also the relays' places:
        first, middle (each), pivot."""
        sums = {}
        for name, value in each.items():
            sums[kind(name)] = sums.get(kind(name), 0.0) + value
        return sums

    def segment(self):
        """Makes its cables cut super-packets."""

    def check(self):
        """Raises Trouble when a process of it has ended."""

    # Where iperf3 runs, and against what address: set by the subclass.
    client = server = target = bind = None

    def tcp(self, seconds, streams, reverse):
        more = ["-P", str(streams)] + (["-R"] if reverse else [])
        told = self.iperf(seconds, ["-C", "cubic", *more])
        received, load = told["end"]["sum_received"], told["end"]["cpu_utilization_percent"]
        if not received["bytes"]:
            raise Trouble("iperf3 moved no data")
        length = told["end"]["sum_sent"]["seconds"]
        return {
            "mbits": received["bits_per_second"] / 1e6,
            "gigabytes": received["bytes"] / 1e9,
            "ends": (load["host_total"] + load["remote_total"]) / 100 * length,
            "retransmits": told["end"]["sum_sent"].get("retransmits", 0),
        }

    def udp(self, seconds, mbits):
        """Sends at a rate: Mbit/s that left and that arrived, and the loss in percent."""
        more = ["-u", "-b", f"{mbits:.3f}M", "-l", str(self.udp_size), *socket_buffers()]
        told = self.iperf(seconds, more)["end"]["sum"]
        sent, lost = told["bits_per_second"] / 1e6, told["lost_percent"]
        return sent, sent * (1 - lost / 100), lost

    def iperf(self, seconds, more):
        return iperf(self.client, self.server, self.target, self.bind, seconds, [self.family, *more])

    def ping(self, count):
        """Round trips of an idle line in ms, sorted."""
        command = [*self.client, "ping", self.family, "-n", "-i", "0.01", "-c", str(count), "-W", "2", self.target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=count * 0.01 + 30, check=False)
        found = sorted(float(ms) for ms in re.findall(r"time=([\d.]+)", done.stdout))
        if len(found) < count / 2:
            raise Trouble(f"ping {self.target}: {len(found)} of {count} came back. {done.stderr.strip()}")
        return found

    def reach(self, within):
        """Waits for the first answer of the other end."""
        until = time.monotonic() + within
        command = [*self.client, "ping", self.family, "-n", "-c", "1", "-W", "1", self.target]
        while subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
            self.check()
            if time.monotonic() > until:
                raise Trouble(f"{self.target} does not answer a ping within {within} s")
            time.sleep(0.2)


class Raw(Lab):
    """What the cables themselves carry."""

    key, title = "raw", "raw veth, MTU 1500"

    def __init__(self):
        self.site = Site("raw", ["client", "server"], bridged=False)
        self.client, self.server = self.site.at("client"), self.site.at("server")
        self.target = self.bind = self.site.address("server")
        self.segment = self.site.segment

    def begin(self):
        self.site.up()

    def ready(self):
        self.reach(5)


# One measurement.


def measure(lab, plan):
    """One round of one lab. `plan` has seconds (of one TCP run), pings, probes and udp_seconds (of one probe)."""
    trips = lab.ping(plan.pings)
    result = {"ping_p50": quantile(trips, 0.5), "ping_p99": quantile(trips, 0.99)}
    for key, streams, reverse in (("x1", 1, False), ("x1r", 1, True), ("x4", 4, False), ("x4r", 4, True)):
        result[key] = counted(lab, plan.seconds, streams, reverse)
    if lab.udp_size:
        start = min(result["x1"]["mbits"] / 2, 600)
        result["udp"] = udp_ceiling(lambda rate: lab.udp(plan.udp_seconds, rate), start, plan.probes)
    pids = lab.pids()
    memory = {name: rss(pid) for name, pid in pids.items()}
    # Of one process of each kind.
    kinds = {kind(name) for name in memory}
    result["rss"] = {each: median(value for name, value in memory.items() if kind(name) == each) for each in kinds}
    return result


def counted(lab, seconds, streams, reverse):
    """A TCP run with what it cost: CPU-seconds per gigabyte, of each process of the tunnel, by role, and of the ends."""
    pids = lab.pids()
    before, busy = {name: cpu(pid) for name, pid in pids.items()}, busy_machine()
    began = time.monotonic()
    result = lab.tcp(seconds, streams, reverse)
    took = time.monotonic() - began
    after, busy = {name: cpu(pid) for name, pid in pids.items()}, busy_machine() - busy
    dead = [name for name in pids if after[name] is None]
    if dead:
        raise Trouble(f"{', '.join(dead)} ended during the measurement")
    spent = {name: after[name] - before[name] for name in pids}
    gigabytes = result["gigabytes"]
    result["each"] = {name: seconds / gigabytes for name, seconds in spent.items()}
    result["tunnel"] = sum(spent.values()) / gigabytes
    result["all"] = result["tunnel"] + result["ends"] / gigabytes
    result["roles"] = lab.roles(result["each"])
    result["others"] = max(0.0, busy - sum(spent.values()) - result["ends"]) / took
    del result["ends"]
    return result


def udp_ceiling(probe, start, probes):
    """The highest rate seen to arrive with less than 1 % loss, in few probes: doubling, then halving the gap."""
    best, low, high, rate = 0.0, None, None, max(start, 1)
    for _ in range(probes):
        sent, arrived, lost = probe(rate)
        if lost < 1:
            best, low = max(best, arrived), rate
            if sent < 0.9 * rate:
                break  # the sender itself cannot do more
        else:
            high = rate
        rate = low * 2 if high is None else high / 3 if low is None else math.sqrt(low * high)
    return best


def iperf(client, server, target, bind, seconds, more):
    """One iperf3 run; client and server are prefixes of a command that runs there."""
    listening = subprocess.Popen(
        [*server, "iperf3", "-s", "-1", "-B", bind, "-p", PORT, "--forceflush"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        heard = ""
        for line in listening.stdout:
            heard += line
            if "listening" in line:
                break
        else:
            raise Trouble(f"iperf3 -s did not start: {heard.strip()}")
        command = ["iperf3", "-c", target, "-p", PORT, "-t", str(seconds), "-J", *more]
        try:
            done = subprocess.run([*client, *command], capture_output=True, text=True, timeout=seconds + 20, check=False)
        except subprocess.TimeoutExpired:
            raise Trouble(f"iperf3 -c {target}: no end {seconds + 20} s after its start") from None
        try:
            told = json.loads(done.stdout)
        except ValueError:
            raise Trouble(f"iperf3 -c {target} printed no JSON: {done.stdout}{done.stderr}") from None
        if "error" in told:
            raise Trouble(f"iperf3 -c {target}: {told['error']}")
        return told
    finally:
        try:
            listening.communicate(timeout=2)
        except subprocess.TimeoutExpired:
            listening.kill()
            listening.communicate()


def socket_buffers():
    """What iperf3 shall ask for at both ends of UDP: with the kernel's default 200 KB a receiver that waits 2 ms for its
    processor loses packets that the tunnel has delivered. iperf3 refuses to run when it does not get what it asks for."""
    try:
        most = min(int(Path(f"/proc/sys/net/core/{way}mem_max").read_text()) for way in "rw")
    except OSError:
        return []
    return ["-w", str(min(most, 4 << 20))]


def cpu(pid):
    """Seconds of processor a process has used, user and system; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, so fields are counted from behind it.
    fields = text.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss(pid):
    """Resident memory of a process in MB."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        found = None
    return int(found[1]) / 1000 if found else 0.0


def busy_machine():
    """Seconds of processor that the whole machine has used, of everybody: user, nice, system, irq, softirq."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[at]) for at in (1, 2, 3, 6, 7)) / TICKS


def quantile(sorted_values, part):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * part))]


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


# Small things.


def kind(name):
    """What relay3 is: relays; what client.2 is: client."""
    word = re.match("[a-z]+", name)[0]
    return "relays" if word == "relay" else word


def missing(needs):
    """What of these tools is not there, with how to get it."""
    return [f"{tool}: apt-get install {package}" for tool, package in needs.items() if not shutil.which(tool)]


def last_words(log):
    try:
        lines = Path(log).read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return "Its last words: " + " / ".join(lines[-3:]) if lines else "It said nothing."


def say(text):
    name = Path(sys.argv[0]).name
    print(f"{name}: {time.monotonic() - CLOCK:5.0f} s  {text}", file=sys.stderr, flush=True)


def run(*command, timeout=20, stdin=None):
    """Runs a command to its end; returns what it printed, raises Trouble when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, input=stdin)
    except subprocess.TimeoutExpired:
        raise Trouble(f"{' '.join(command)}: no end after {timeout} s") from None
    except FileNotFoundError:
        raise Trouble(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        raise Trouble(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout
