#!/usr/bin/env python3
"""TCP through a SOCKS proxy, for what carries no IP: a server that sends, counts or echoes, and its client, which prints one
line of JSON. Only `tor` starts it; `lab` does the same with iperf3 where there is an IP address to reach.
"""

import json
import os
import socket
import struct
import sys
import threading
import time

CHUNK = bytes(1 << 16)
REPORT_EACH = 0.05


def main():
    verb, *words = sys.argv[1:]
    if verb == "serve":
        serve(words[0], int(words[1]))
    elif verb == "ping":
        print(json.dumps(ping(*address(words), int(words[3]))))
    else:
        print(json.dumps(flow(verb, *address(words), float(words[3]), int(words[4]))))


def address(words):
    proxy, port = words[0].split(":")
    return (proxy, int(port)), words[1], int(words[2])


# The server.


def serve(host, port):
    listening = socket.create_server((host, port))
    while True:
        peer, _ = listening.accept()
        threading.Thread(target=serve_one, args=(peer,), daemon=True).start()


def serve_one(peer):
    cubic(peer)
    try:
        {b"D": send_on, b"U": count, b"P": echo}.get(peer.recv(1), socket.socket.close)(peer)
    except OSError:
        pass
    peer.close()


def send_on(peer):
    while True:
        peer.sendall(CHUNK)


def count(peer):
    """Counts what comes, and says so on the way back: the receiver's count, not the sender's buffer, is what arrived."""
    got, told = 0, 0.0
    while data := peer.recv(1 << 18):
        got += len(data)
        if time.monotonic() - told > REPORT_EACH:
            told = time.monotonic()
            peer.sendall(struct.pack("!Qd", got, time.process_time()))


def echo(peer):
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := peer.recv(64):
        peer.sendall(data)


# The client.


def connect(proxy, host, port, user):
    """Through SOCKS5, with a name of its own: Tor gives each a circuit of its own."""
    peer = socket.create_connection(proxy, timeout=60)
    cubic(peer)
    user = user.encode()
    # Step by step: Tor throws away what comes before its answer.
    for said, answer in ((b"\x05\x01\x02", b"\x05\x02"), (b"\x01" + bytes([len(user)]) + user + b"\x01x", b"\x01\x00")):
        peer.sendall(said)
        if exactly(peer, 2) != answer:
            raise OSError("the proxy refuses us")
    name = host.encode()
    peer.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack("!H", port))
    answer = exactly(peer, 4)
    if answer[1]:
        raise OSError(f"the proxy cannot reach {host}: SOCKS error {answer[1]}")
    exactly(peer, {1: 6, 4: 18}[answer[3]])
    return peer


def exactly(peer, count):
    got = b""
    while len(got) < count:
        data = peer.recv(count - len(got))
        if not data:
            raise OSError("the connection has ended")
        got += data
    return got


def flow(verb, proxy, host, port, seconds, streams):
    """Bytes that arrived within the seconds, over all streams; of both programs the seconds of processor."""
    peers = [connect(proxy, host, port, f"{os.getpid()}-{number}") for number in range(streams)]
    stop = threading.Event()
    arrived, remote = [0] * streams, [0.0] * streams
    work = {"pull": pull, "push": push}[verb]
    threads = [threading.Thread(target=work, args=(peer, at, arrived, remote, stop), daemon=True) for at, peer in enumerate(peers)]
    began, spent = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    total, took = sum(arrived), time.monotonic() - began
    stop.set()
    return {"bytes": total, "seconds": took, "cpu": time.process_time() - spent}


def pull(peer, at, arrived, _, stop):
    peer.sendall(b"D")
    while not stop.is_set():
        arrived[at] += len(peer.recv(1 << 18))


def push(peer, at, arrived, remote, stop):
    def listen():
        while not stop.is_set():
            arrived[at], remote[at] = struct.unpack("!Qd", exactly(peer, 16))

    peer.sendall(b"U")
    threading.Thread(target=listen, daemon=True).start()
    while not stop.is_set():
        peer.sendall(CHUNK)


def ping(proxy, host, port, count):
    """Round trips of one byte on an open stream, in ms."""
    peer = connect(proxy, host, port, "ping")
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sendall(b"P")
    trips = []
    for _ in range(count):
        began = time.monotonic()
        peer.sendall(b"x")
        exactly(peer, 1)
        trips.append((time.monotonic() - began) * 1000)
    return trips


def cubic(peer):
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(str(error))
