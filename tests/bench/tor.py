"""A private Tor network and an onion service in it: three directory authorities, five more relays, a client, a service, each
a host of its own. It carries streams only, so that `pump` takes the place of iperf3 and of ping, and UDP is not measured.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from lab import Trouble, cpu, last_words, run
from peers import Tunnel

AUTHORITIES, RELAYS = 3, 5
# What dataplane.md saw a network of this size need to agree and publish was 38 to 88 s.
PATIENCE = 150
SOCKS, PORT = 9050, 5201
PUMP = str(Path(__file__).with_name("pump.py"))

COMMON = """
TestingTorNetwork 1
DataDirectory {dir}
Address {address}
Nickname {name}
Log notice stdout
SafeLogging 0
RunAsDaemon 0
AssumeReachable 1
EnforceDistinctSubnets 0
PathsNeededToBuildCircuits 0.67
ConnLimit 60
ShutdownWaitLength 0
"""
SERVED = """
SocksPort 0
ORPort {address}:9001 IPv4Only
ExitRelay 0
ExitPolicy reject *:*
"""
AUTHORITY = """
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
DirPort {address}:9030
ContactInfo bench
V3AuthVotingInterval 20
V3AuthVoteDelay 4
V3AuthDistDelay 4
TestingV3AuthInitialVotingInterval 20
TestingV3AuthInitialVoteDelay 4
TestingV3AuthInitialDistDelay 4
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingDirAuthVoteExit *
TestingMinExitFlagThreshold 0
MinUptimeHidServDirectoryV2 0
"""


class Tor(Tunnel):
    """An onion service over six relays of a private network."""

    key, title = "tor", "Tor onion service (6 relays), streams"
    needs = {"tor": "tor", "tor-gencert": "tor"}
    hosts = ("client", *(f"relay{number}" for number in range(1, AUTHORITIES + RELAYS + 1)), "service")
    udp_size = None

    def begin(self):
        self.site.up()
        relays = self.hosts[1:-1]
        lines = "".join(self.authority(host) for host in relays[:AUTHORITIES])
        for host in self.hosts:
            text = COMMON + lines
            text += SERVED if host in relays else ""
            text += AUTHORITY if host in relays[:AUTHORITIES] else ""
            if host == "client":
                text += f"SocksPort {SOCKS} IsolateSOCKSAuth\n"
            if host == "service":
                hidden = self.home(host) / "hidden"
                text += f"SocksPort 0\nHiddenServiceDir {hidden}\nHiddenServicePort {PORT} 127.0.0.1:{PORT}\n"
            self.torrc(host, text)
            self.start(host, "tor", "-f", str(self.folder / f"{host}.torrc"))
        log = self.folder / "pump.log"
        self.pump = self.site.start("service", sys.executable, PUMP, "serve", "127.0.0.1", str(PORT), log=log)

    def home(self, host):
        place = self.folder / host
        place.mkdir(mode=0o700, exist_ok=True)
        return place

    def torrc(self, host, text):
        words = {"dir": self.home(host), "address": self.site.address(host), "name": host}
        (self.folder / f"{host}.torrc").write_text(re.sub(r"\{(\w+)\}", lambda found: str(words[found[1]]), text))

    def authority(self, host):
        """Makes an authority's keys; returns the line by which others know it."""
        keys = self.home(host) / "keys"
        keys.mkdir(mode=0o700)
        address = f"{self.site.address(host)}:9030"
        names = ["authority_identity_key", "authority_signing_key", "authority_certificate"]
        files = [word for flag, name in zip("isc", names) for word in (f"-{flag}", str(keys / name))]
        command = ["tor-gencert", "--create-identity-key", "--passphrase-fd", "0", "-m", "12", "-a", address, *files]
        run(*command, timeout=60, stdin="\n")
        mark = re.search(r"^fingerprint (\w+)", (keys / "authority_certificate").read_text(), re.MULTILINE)[1]
        # Whatever it lists before it knows any authority: with none in the file it would be the public network's.
        placeholder = f"DirAuthority {host} orport=9001 v3ident={mark} {address} {'F' * 40}\n"
        self.torrc(host, COMMON + SERVED + placeholder)
        told = run("tor", "-f", str(self.folder / f"{host}.torrc"), "--list-fingerprint", "--hush", timeout=60)
        print_ = "".join(re.search(rf"^{host}((?: ?[0-9A-F]{{4}}){{10}})$", told.strip(), re.MULTILINE)[1].split())
        return f"DirAuthority {host} orport=9001 no-v2 v3ident={mark} {address} {print_}\n"

    def ready(self):
        until = time.monotonic() + PATIENCE
        hostname = self.folder / "service" / "hidden" / "hostname"
        while True:
            self.check()
            if hostname.exists():
                self.target = hostname.read_text().strip()
                try:
                    self.ask("ping", "1", timeout=15)
                    return
                except Trouble:
                    pass
            if time.monotonic() > until:
                words = [last_words(self.folder / f"{host}.log") for host in ("client", "service")]
                raise Trouble(f"the private network did not carry within {PATIENCE} s. Client: {words[0]} Service: {words[1]}")
            time.sleep(1)

    def tcp(self, seconds, streams, reverse):
        before = cpu(self.pump)
        told = self.ask("pull" if reverse else "push", f"{seconds}", f"{streams}", timeout=seconds + 90)
        gigabytes = told["bytes"] / 1e9
        if not gigabytes:
            raise Trouble("no data moved")
        ends = told["cpu"] + cpu(self.pump) - before
        return {"mbits": gigabytes * 8000 / told["seconds"], "gigabytes": gigabytes, "ends": ends, "retransmits": 0}

    def ping(self, count):
        return sorted(self.ask("ping", str(min(count, 50)), timeout=60))

    def ask(self, verb, *words, timeout):
        command = [*self.client, sys.executable, PUMP, verb, f"127.0.0.1:{SOCKS}", self.target, str(PORT), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise Trouble(f"{verb} over Tor: no end after {timeout} s") from None
        if done.returncode:
            raise Trouble(f"{verb} over Tor: {done.stderr.strip()}")
        return json.loads(done.stdout)
