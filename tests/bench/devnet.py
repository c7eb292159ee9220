"""Lokinet itself, as `lokinet devnet up` raises it: one network of real daemons, in it a client and a SNApp for each number of
hops. Neighbours: `lab` measures, `peers` and `tor` are what it is compared with.
"""

import json
import re
import subprocess
import time
from pathlib import Path

from lab import Lab, Trouble, run, segment

BASE32Z = "ybndrfg8ejkmcpqxot1uwisza345h769"


class Devnet:
    """The network, shared by all rows of it."""

    def __init__(self, binary, folder, hops, relays, net=None, workers=None):
        self.binary, self.dir, self.hops, self.relays = str(binary), str(folder), hops, relays
        self.workers = workers
        self.net = ["--net", net] if net else []
        self.nodes = self.trouble = None
        self.segmented = False

    def up(self):
        """Raises it at the first call; later ones return at once, or complain as the first did."""
        if self.trouble:
            raise self.trouble
        if self.nodes:
            return
        pairs = str(len(self.hops))
        size = ["--relays", str(self.relays), "--clients", pairs, "--services", pairs]
        up = [self.binary, "devnet", "up", "--dir", self.dir, *size, *self.net]
        try:
            try:
                hops = ["--hops", ",".join(map(str, self.hops))] if self.hops else []
                run(*up, *hops, timeout=150)
            except Trouble as trouble:
                if "unexpected argument" not in str(trouble):
                    raise
                # An older one.
                run(*up, timeout=150)
                self.rewrite()
            if self.workers is not None:
                self.employ()
            self.nodes = {node["name"]: node for node in self.status()}
        except Trouble as trouble:
            self.trouble = trouble
            raise

    def rewrite(self):
        """Gives each pair its number of hops, in a devnet that cannot be told: new ini files, and the daemons again."""
        plan = json.loads((Path(self.dir) / "state.json").read_text())
        doors = [snode(node["id"]) for node in plan["nodes"] if node["role"] == "relay"][:2]
        names = []
        for number, hops in enumerate(self.hops, 1):
            # A client enters only by its guards, so over one hop it meets only whoever shares them.
            lines = [f"hops={hops}"] + [f"strict-connect={door}" for door in doors if hops == 1]
            for name in (f"client{number}", f"service{number}"):
                ini = Path(self.dir) / "nodes" / name / "lokinet.ini"
                text = ini.read_text().replace("[network]\n", "\n".join(["[network]", *lines, ""]), 1)
                ini.write_text(text)
                names.append(name)
        run(self.binary, "devnet", "kill", "--dir", self.dir, *names)
        run(self.binary, "devnet", "start", "--dir", self.dir, *names)
        until = time.monotonic() + 60
        while any(node["state"] != "ready" for node in self.status()):
            if time.monotonic() > until:
                raise Trouble("the devnet's clients were not ready again within 60 s")
            time.sleep(0.3)

    def employ(self):
        """Gives each relay its number of threads for cells, and starts it again."""
        names = [node["name"] for node in self.status() if node["role"] == "relay"]
        for name in names:
            ini = Path(self.dir) / "nodes" / name / "lokinet.ini"
            ini.write_text(ini.read_text().replace("[router]\n", f"[router]\nworker-threads={self.workers}\n", 1))
            run(self.binary, "devnet", "kill", "--dir", self.dir, name)
            run(self.binary, "devnet", "start", "--dir", self.dir, name)
        until = time.monotonic() + 60
        while any(node["state"] != "ready" for node in self.status()):
            if time.monotonic() > until:
                raise Trouble("the devnet's nodes were not ready again within 60 s")
            time.sleep(0.3)

    def status(self):
        return json.loads(run(self.binary, "devnet", "status", "--dir", self.dir, "--json", timeout=30))

    def inside(self, node):
        return [self.binary, "devnet", "exec", "--dir", self.dir, node, "--"]

    def segment(self):
        if self.segmented:
            return
        self.segmented = True
        init = json.loads((Path(self.dir) / "state.json").read_text())["init"]["pid"]
        for name in self.nodes:
            segment(["nsenter", f"--net=/proc/{init}/ns/net"], name, False)
            segment(self.inside(name), "eth0", True)

    def down(self):
        command = [self.binary, "devnet", "down", "--dir", self.dir]
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=False)


class Wire(Lab):
    """Two nodes of a devnet that speak with each other directly, over its wire: what that carries at all."""

    key, title = "raw", "raw"

    def __init__(self, devnet):
        self.devnet = devnet
        self.client, self.server = devnet.inside("relay1"), devnet.inside("relay2")

    def begin(self):
        self.devnet.up()

    def ready(self):
        self.target = self.bind = self.devnet.nodes["relay2"]["address"]
        self.reach(20)


class Ours(Lab):
    """A client and a SNApp with so many hops on each side; the last of them is the same relay, the pivot."""

    def __init__(self, devnet, hops):
        self.devnet, self.hops = devnet, hops
        self.number = devnet.hops.index(hops) + 1
        self.visitor, self.site = f"client{self.number}", f"service{self.number}"
        relays = "1 relay" if hops == 1 else f"{2 * hops - 1} relays"
        self.key, self.title = f"ours{hops}", f"**ours, {hops}+{hops} hops** ({relays})"
        self.client, self.server = devnet.inside(self.visitor), devnet.inside(self.site)
        self.segment = devnet.segment

    def begin(self):
        self.devnet.up()

    def ready(self):
        self.name = self.devnet.nodes[self.site]["loki"]
        address = json.loads(run(*self.server, "ip", "-j", "-4", "addr", "show", "dev", "lokitun0"))
        self.bind = address[0]["addr_info"][0]["local"]
        until = time.monotonic() + 30
        while True:
            done = subprocess.run([*self.client, "getent", "ahostsv4", self.name], capture_output=True, text=True, check=False)
            found = re.match(r"\d+\.\d+\.\d+\.\d+", done.stdout)
            if found:
                break
            if time.monotonic() > until:
                raise Trouble(f"{self.visitor} ({self.hops} hops) does not find {self.name} within 30 s")
            time.sleep(0.3)
        self.target = found[0]
        self.reach(20)

    def pids(self):
        """All relays, since any may carry it, but only its own two ends."""
        nodes = self.devnet.nodes.values()
        return {node["name"]: node["pid"] for node in nodes if node["role"] == "relay" or node["name"] in (self.visitor, self.site)}

    def roles(self, each):
        relays = {name: value for name, value in each.items() if name.startswith("relay")}
        roles = super().roles(each)
        halves = self.halves(relays)
        if not halves:
            return roles
        mine, theirs = halves
        chain = mine + theirs[-2::-1]
        # A relay may stand in both halves, for nobody knows the whole; each place then counts a part of it.
        worth = [relays[name] / chain.count(name) for name in chain]
        at = len(mine) - 1
        roles["pivot"] = worth[at]
        if at > 0:
            roles["first"] = worth[0]
            others = worth[1:at] + worth[at + 1 :]
            roles["middle"] = sum(others) / len(others)
        return roles

    def doubled(self):
        """Whether a relay may stand in both halves of a path in use: everything would cross its link twice."""
        return any(len({*a, *b}) < len(a) + len(b) - 1 for a, b in self.meeting())

    def meeting(self):
        """The halves of paths that may be in use, each pair ending at one pivot."""
        nodes = {node["name"]: node for node in self.devnet.status() if node["name"] in (self.visitor, self.site)}
        mine = [path["hops"] for path in nodes[self.visitor]["paths"] if path["target"] == self.name]
        theirs = [path["hops"] for path in nodes[self.site]["paths"]]
        return [(a, b) for a in mine for b in theirs if a[-1] == b[-1]]

    def halves(self, relays):
        """The two halves of the path in use, both ending at the pivot: of all that meet, those whose relays did most."""
        meeting = [(a, b) for a, b in self.meeting() if all(name in relays for name in a + b)]
        return max(meeting, key=lambda pair: min(relays[name] for name in pair[0] + pair[1]), default=None)


def snode(identity):
    """A relay's name from its key in hexadecimal."""
    bits = bin(int("1" + identity, 16))[3:] + "0000"
    return "".join(BASE32Z[int(bits[at : at + 5], 2)] for at in range(0, 260, 5)) + ".snode"
