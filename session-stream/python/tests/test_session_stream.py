"""Every call of the module, against session-nodes that really run, on loopback.

    SESSION_NODE=../../target/release/session-node python3 -m unittest discover -s tests
"""

import base64
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import session_stream as ss

HERE = pathlib.Path(__file__).resolve().parent
NODES = 3
SWARM = 7


def binary():
    named = os.environ.get("SESSION_NODE")
    found = [named] if named else [HERE.parents[2] / "target" / kind / "session-node" for kind in ("release", "debug")]
    for path in found:
        if path and pathlib.Path(path).exists():
            return str(path)
    raise unittest.SkipTest("no session-node: cargo build --release -p session-stream, or set SESSION_NODE")


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    def __init__(self, directory, number):
        self.directory = directory / str(number)
        self.directory.mkdir()
        seed = bytes([number + 1] * 32)
        (self.directory / "key_ed25519").write_bytes(seed)
        (self.directory / "key_ed25519").chmod(0o600)
        self.key = ss.Owner.session(seed).ed25519
        self.x25519 = ss.Owner.session(seed).account[2:]
        self.quic, self.https = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)

    def state(self):
        return {
            "service_node_pubkey": self.key, "pubkey_ed25519": self.key, "pubkey_x25519": self.x25519,
            "public_ip": "127.0.0.1", "storage_port": self.https, "storage_lmq_port": self.quic,
            "swarm_id": SWARM, "funded": True,
        }

    def start(self, program, nodes):
        command = [
            program, "--data-dir", self.directory, "--list", nodes, "--bind", "127.0.0.1", "--private", "--no-tests",
            "--quic-port", str(self.quic), "--https-port", str(self.https), "--log-level", "warn",
        ]
        self.process = subprocess.Popen([str(word) for word in command])


class Town(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        program = binary()
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="session-python-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)
        cls.nodes = [Node(cls.directory, number) for number in range(NODES)]
        nodes = cls.directory / "nodes.json"
        nodes.write_text(json.dumps({
            "service_node_states": [node.state() for node in cls.nodes], "height": 1, "block_hash": "00" * 32,
            "hardfork": 19, "snode_revision": 4,
        }))
        for node in cls.nodes:
            node.start(program, nodes)
            cls.addClassCleanup(node.process.wait)
            cls.addClassCleanup(node.process.terminate)
        for node in cls.nodes:
            until = time.monotonic() + 30
            while True:
                try:
                    ss.connect("127.0.0.1", node.quic, node.key).close()
                    break
                except ss.Unreachable:
                    assert time.monotonic() < until, "a node does not come up"
        cls.client = ss.Client([(node.key, "127.0.0.1", node.quic) for node in cls.nodes])

    def owner(self, name):
        return ss.Owner.session(name.encode().ljust(32, b"."))

    def test_what_is_stored_is_at_every_member_and_comes_back(self):
        owner = self.owner("store")
        hash_, members = self.client.store(owner, b"hello\x00\xff", namespace=0, ttl=3600)
        self.assertEqual(members, NODES)
        messages, more = self.client.retrieve(owner)
        self.assertFalse(more)
        self.assertEqual([(m.hash, m.data, m.namespace) for m in messages], [(hash_, b"hello\x00\xff", 0)])
        # Anybody may write to a public inbox, by the account alone; paging goes on behind a hash.
        second, _ = self.client.store(owner.account, b"from a stranger")
        self.assertEqual([m.hash for m in self.client.retrieve_all(owner, after=hash_)], [second])

    def test_a_watch_hears_what_is_stored_once(self):
        owner = self.owner("watch")
        watch = self.client.watch(owner, [0])
        self.assertTrue(watch.subscribed(10))
        hash_, _ = self.client.store(owner, b"now")
        self.assertEqual(watch.next(10).hash, hash_)
        self.assertIsNone(watch.next(0.5), "the swarm's other members told it as well")
        watch.close()
        self.assertEqual(list(watch), [])

    def test_any_method_can_be_called_and_a_refusal_says_why(self):
        owner = self.owner("call")
        hash_, _ = self.client.store(owner, b"x")
        now = int(time.time() * 1000)
        params = {
            "pubkey": owner.account, "pubkey_ed25519": owner.ed25519, "messages": [hash_], "timestamp": now,
            "signature": base64.b64encode(owner.sign(f"get_expiries{now}{hash_}")).decode(),
        }
        answer = json.loads(self.client.call(owner.account, "get_expiries", json.dumps(params)))
        self.assertEqual(list(answer["expiries"]), [hash_])
        params["signature"] = base64.b64encode(bytes(64)).decode()
        with self.assertRaises(ss.Refused) as refused:
            self.client.call(owner.account, "get_expiries", json.dumps(params))
        self.assertEqual(refused.exception.args[0], 401)
        with self.assertRaises(ValueError):
            self.client.call(owner.account, "info", "{")

    def test_a_raw_stream_asks_and_is_asked(self):
        node = self.nodes[0]
        stream = ss.connect("127.0.0.1", node.quic, node.key, alpn="oxenstorage")
        self.assertEqual(stream.request("snode_ping"), b"pong")
        with self.assertRaises(ss.Refused) as refused:
            stream.request("no_such_method", b"{}")
        self.assertEqual(refused.exception.args[0], 400)
        # The node's own question: a push for a subscription made by hand.
        owner, heard, told = self.owner("raw"), [], threading.Event()
        stream.register_handler("notify", lambda body: (heard.append(body), told.set())[0])
        now = int(time.time())
        signature = owner.sign(f"MONITOR{owner.account}{now}10")
        request = b"d1:P32:%s1:di1e1:nli0ee1:s64:%s1:ti%dee" % (bytes.fromhex(owner.ed25519), signature, now)
        self.assertEqual(stream.request("monitor", request), b"d7:successi1ee")
        hash_, _ = self.client.store(owner, b"pushed")
        self.assertTrue(told.wait(10))
        self.assertIn(b"1:h43:" + hash_.encode(), heard[0])
        self.assertIn(b"1:~6:pushed", heard[0])
        stream.close()
        with self.assertRaises(ss.Unreachable):
            stream.request("snode_ping", timeout=2)

    def test_who_cannot_prove_the_key_is_not_spoken_to(self):
        with self.assertRaises(ss.Unreachable):
            ss.connect("127.0.0.1", self.nodes[0].quic, self.nodes[1].key)
        with self.assertRaises(ss.Unreachable):
            ss.connect("127.0.0.1", self.nodes[0].quic, self.nodes[0].key, alpn="no-such-protocol")
        with self.assertRaises(ValueError):
            ss.connect("127.0.0.1", self.nodes[0].quic, "abc")


if __name__ == "__main__":
    unittest.main()
