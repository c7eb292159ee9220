"""What Lokinet is compared with, tunnels that carry IP: WireGuard in user space, once and three times nested, Yggdrasil and
Nebula. Each in hosts of its own on one bridge. Neighbours: `tor` is the one without IP, `lab` measures them all.
"""

import json
import time
from pathlib import Path

from lab import Lab, Site, Trouble, run

# How long an ordinary tunnel may take to carry its first packet.
PATIENCE = 20


class Tunnel(Lab):
    """A lab on a site of its own."""

    hosts = ("client", "service")

    def __init__(self, folder):
        self.folder = Path(folder) / self.key
        self.folder.mkdir()
        self.site = Site(self.key, list(self.hosts))
        self.client, self.server = self.site.at(self.hosts[0]), self.site.at("service")
        self.segment, self.check = self.site.segment, self.site.complain_about_the_dead
        self.processes = {}

    def pids(self):
        return self.processes

    def start(self, host, *command, name=None):
        log = self.folder / f"{name or host}.log"
        self.processes[name or host] = self.site.start(host, *command, log=log)

    def ready(self):
        self.reach(PATIENCE)


class Wireguard(Tunnel):
    """wireguard-go between two hosts."""

    key, title = "wg1", "wireguard-go, point to point"
    needs = {"wireguard-go": "wireguard-go", "wg": "wireguard-tools"}

    def begin(self):
        self.site.up()
        self.layer("client", "service", 1, 1420)
        self.target = self.bind = "10.97.1.2"

    def layer(self, near, far, number, mtu):
        """One WireGuard from near (10.97.N.1) to far (10.97.N.2)."""
        keys = {}
        for side, host in (("n", near), ("f", far)):
            # The control sockets of all hosts lie in one folder: names must differ.
            device = f"{self.key}{side}{number}"
            self.start(host, "wireguard-go", "-f", device, name=host if host != "client" else f"{host}.{number}")
            secret = run("wg", "genkey")
            (self.folder / device).write_text(secret)
            keys[side] = (device, run("wg", "pubkey", stdin=secret).strip())
            until = time.monotonic() + 5
            while not Path(f"/run/wireguard/{device}.sock").exists():
                self.check()
                if time.monotonic() > until:
                    raise Trouble(f"wireguard-go made no control socket for {device}")
                time.sleep(0.05)
        for side, host, other in (("n", near, "f"), ("f", far, "n")):
            device, mine = keys[side][0], 1 if side == "n" else 2
            peer = ["peer", keys[other][1], "allowed-ips", "0.0.0.0/0" if side == "n" else f"10.97.{number}.1/32"]
            if side == "n":
                peer += ["endpoint", f"{self.site.address(far)}:{51820 + number}"]
            port = ["listen-port", str(51820 + number)]
            at = self.site.at(host)
            run(*at, "wg", "set", device, *port, "private-key", str(self.folder / device), *peer)
            run(*at, "ip", "link", "set", device, "mtu", str(mtu), "up")
            run(*at, "ip", "addr", "add", f"10.97.{number}.{mine}/24", "dev", device)


class Nested(Wireguard):
    """Three of them in each other, as a client does that trusts no single relay: each relay takes one layer off, the last
    one hands the clear packets to the server."""

    key, title = "wg3", "3 nested wireguard-go (3 relays)"
    hosts = ("client", "relay1", "relay2", "relay3", "service")

    def begin(self):
        self.site.up()
        address, client = self.site.address, self.site.at("client")
        self.processes.clear()
        for number, mtu in ((1, 1420), (2, 1340), (3, 1260)):
            relay, beyond = f"relay{number}", self.hosts[number + 1]
            self.layer("client", relay, number, mtu)
            run(*self.site.at(relay), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            # What lies beyond is reached through this layer, and answers through this relay.
            way = ["dev", f"{self.key}n{number}", "src", f"10.97.{number}.1"]
            run(*client, "ip", "route", "add", f"{address(beyond)}/32", *way)
            run(*self.site.at(beyond), "ip", "route", "add", f"10.97.{number}.0/24", "via", address(relay), "congctl", "cubic")
        self.target = self.bind = address("service")

    def roles(self, each):
        return {**super().roles(each), **in_a_row(each)}


def in_a_row(each):
    """The places of three relays."""
    return {"first": each["relay1"], "middle": each["relay2"], "pivot": each["relay3"]}


class Yggdrasil(Tunnel):
    """Yggdrasil nodes in a row; those between the ends only pass on."""

    key, title = "ygg1", "yggdrasil, point to point (53 KB MTU)"
    needs = {"yggdrasil": "yggdrasil"}
    family = "-6"

    def begin(self):
        self.site.up()
        files = {}
        for at, host in enumerate(self.hosts):
            config = json.loads(run("yggdrasil", "-genconf", "-json"))
            ends = host in (self.hosts[0], self.hosts[-1])
            config.update(Listen=["tcp://0.0.0.0:9001"], Peers=[], MulticastInterfaces=[], AdminListen="none")
            config.update(IfName="ygg0" if ends else "none", NodeInfoPrivacy=True)
            if at:
                config["Peers"] = [f"tcp://{self.site.address(self.hosts[at - 1])}:9001"]
            files[host] = self.folder / f"{host}.conf"
            files[host].write_text(json.dumps(config))
            self.start(host, "yggdrasil", "-useconffile", str(files[host]))
        self.target = self.bind = run("yggdrasil", "-useconffile", str(files["service"]), "-address").strip()


class YggdrasilRow(Yggdrasil):
    """The same over three relays, which see who talks to whom."""

    key, title = "ygg3", "yggdrasil, 3 relays (not anonymous)"
    hosts = ("client", "relay1", "relay2", "relay3", "service")

    def roles(self, each):
        return {**super().roles(each), **in_a_row(each)}


class Nebula(Tunnel):
    """Nebula between two hosts that know each other's address."""

    key, title = "nebula", "nebula, point to point"
    needs = {"nebula": "nebula", "nebula-cert": "nebula"}

    def begin(self):
        self.site.up()
        path = lambda name: str(self.folder / name)
        run("nebula-cert", "ca", "-name", "bench", "-out-crt", path("ca.crt"), "-out-key", path("ca.key"))
        inner = {host: f"10.96.0.{number}" for number, host in enumerate(self.hosts, 1)}
        for host, other in (self.hosts, self.hosts[::-1]):
            authority = ["-ca-crt", path("ca.crt"), "-ca-key", path("ca.key")]
            files = ["-out-crt", path(f"{host}.crt"), "-out-key", path(f"{host}.key")]
            run("nebula-cert", "sign", *authority, "-name", host, "-ip", f"{inner[host]}/24", *files)
            everybody = [{"port": "any", "proto": "any", "host": "any"}]
            config = {
                "pki": {"ca": path("ca.crt"), "cert": path(f"{host}.crt"), "key": path(f"{host}.key")},
                "static_host_map": {inner[other]: [f"{self.site.address(other)}:4242"]},
                "lighthouse": {"am_lighthouse": False, "hosts": []},
                "listen": {"host": "0.0.0.0", "port": 4242},
                "tun": {"dev": "nebula0", "mtu": 1420},
                "firewall": {"outbound": everybody, "inbound": everybody},
                "logging": {"level": "warning"},
            }
            # Every JSON is YAML.
            Path(path(f"{host}.yml")).write_text(json.dumps(config))
            self.start(host, "nebula", "-config", path(f"{host}.yml"))
        self.target = self.bind = inner["service"]
