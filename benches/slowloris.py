#!/usr/bin/env python3
"""Slowloris: what visitors wait while thousands of connections are held half open.

    cargo build --release
    python3 benches/slowloris.py [--attackers 2000] [--seconds 30]

The program `houseboat` answers its status page to two visitors at once: one makes a connection for each request, the
other keeps hers. Nobody attacks at first; then so many connections send the head of a request a byte a second, and
come again when they are closed: from a hundred addresses, and from one. At the end the same where there is room for
half of them only, so that each that comes has another one go. Attackers have a process of their own.
"""

import argparse
import collections
import heapq
import itertools
import multiprocessing
import os
import pathlib
import random
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

GOAL_MS = 100
# Between two bytes of an attacker, and between two requests of a visitor, in seconds.
DRIP = 1.0
PAUSE = 0.02
# How soon an attacker comes again.
AGAIN = 0.1
PATIENCE = 20
REQUEST = b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n"
ATTACK = b"GET / HTTP/1.1\r\nHost: site.test\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(90))

# Who attacks, from how many addresses, and how much room there is of what they take.
Case = collections.namedtuple("Case", "name addresses room")
CASES = [
    Case("nobody", 0, None),
    Case("from 100 addresses", 100, None),
    Case("from one address", 1, None),
    Case("from 100 addresses, room for half", 100, 0.5),
    Case("from one address, room for half", 1, 0.5),
]


def attack(port, count, addresses, open_now):
    """Keeps `count` connections half open, and says how many are."""
    poll = select.epoll()
    ids, number = itertools.count(), 0
    # Of each connection its socket, number and bytes sent, by its file; whose turn it is, by its time.
    half, turns = {}, []

    def come(n):
        one, id = socket.socket(), next(ids)
        one.bind((f"127.0.1.{1 + n % addresses}", 0))
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
        half[one.fileno()] = [one, id, n, 0]
        poll.register(one, select.EPOLLIN | select.EPOLLRDHUP)
        heapq.heappush(turns, (time.monotonic() + random.random() * DRIP, id, one.fileno(), n))

    def leave(fd):
        one, _, n, _ = half.pop(fd)
        poll.unregister(one)
        one.close()
        heapq.heappush(turns, (time.monotonic() + AGAIN, next(ids), None, n))

    while True:
        # Not all at once: the kernel's queue of those who come is not what is looked at.
        for n in range(number, min(number + 20, count)):
            come(n)
        number = min(number + 20, count)
        # Whatever the server has to say, it is that this one is over.
        for fd, _ in poll.poll(0.01):
            leave(fd)
        now = time.monotonic()
        while turns and turns[0][0] <= now:
            _, id, fd, n = heapq.heappop(turns)
            if fd is None:
                come(n)
            elif fd in half and half[fd][1] == id:
                one, _, _, sent = half[fd]
                try:
                    one.send(ATTACK[sent:sent + 1])
                except BlockingIOError:
                    pass
                except OSError:
                    leave(fd)
                    continue
                half[fd][3] = min(sent + 1, len(ATTACK) - 1)
                heapq.heappush(turns, (now + DRIP, id, fd, n))
        open_now.value = len(half)


def answer(one):
    """Reads one answer, and says whether it is whole and well; no bytes are none at all."""
    read = b""
    while b"\r\n\r\n" not in read:
        more = one.recv(65536)
        if not more:
            return None if not read else False
        read += more
    head, body = read.split(b"\r\n\r\n", 1)
    length = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < length[0]:
        more = one.recv(65536)
        if not more:
            return False
        body += more
    return head.startswith(b"HTTP/1.1 200")


def visit(port, seconds, keeps, results):
    """Asks again and again; gives what each request took in ms, how many failed, and how often she had to connect."""
    waits, failed, connections, one = [], 0, 0, None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asked = time.monotonic()
        is_new, is_well = one is None, None
        # One that was kept may be closed as the request comes: whoever keeps connections asks again on a new one.
        for _ in range(2 - is_new):
            try:
                if one is None:
                    one = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
                    connections += 1
                one.sendall(REQUEST)
                is_well = answer(one)
            except OSError:
                is_well = None
            if is_well is not None:
                break
            if one:
                one.close()
            one = None
        waits.append((time.monotonic() - asked) * 1000)
        failed += not is_well
        if one and not (keeps and is_well):
            one.close()
            one = None
        time.sleep(PAUSE)
    results.put((keeps, sorted(waits), failed, connections))


def serve(folder, port, room):
    """Starts the program in `folder`, to which visitors come without a proxy."""
    variables = {
        "HOME": folder,
        "PATH": os.environ["PATH"],
        "HOUSEBOAT_SERVER__PORT": str(port),
        "HOUSEBOAT_SERVER__TRUSTED_PROXIES": "[]",
    }
    if room:
        variables["HOUSEBOAT_SERVER__CONNECTIONS_MAX"] = str(room)
    log = open(pathlib.Path(folder) / "log", "wb")
    server = subprocess.Popen([TARGET / "release/houseboat"], cwd=folder, env=variables, stdout=log, stderr=log)
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as one:
                one.sendall(REQUEST)
                if answer(one):
                    return server
        except OSError:
            pass
        if server.poll() is not None:
            break
        time.sleep(0.05)
    server.kill()
    sys.exit("the program does not answer:\n" + (pathlib.Path(folder) / "log").read_text())


def measure(case, options):
    """Starts the program, has it attacked and visited, and gives what the visitors say, how many connections the attackers
    have open, and how many files the server has."""
    with tempfile.TemporaryDirectory() as folder:
        room = case.room and int(options.attackers * case.room)
        server = serve(folder, options.port, room)
        open_now = multiprocessing.Value("i", 0)
        attacker = None
        try:
            if case.addresses:
                arguments = (options.port, options.attackers, case.addresses, open_now)
                attacker = multiprocessing.Process(target=attack, args=arguments, daemon=True)
                attacker.start()
                # Until the first have been closed, and have come again.
                time.sleep(12)
            results = multiprocessing.Queue()
            visitors = [multiprocessing.Process(target=visit, args=(options.port, options.seconds, keeps, results))
                        for keeps in (False, True)]
            seen, ends = [], time.monotonic() + options.seconds
            for one in visitors:
                one.start()
            while time.monotonic() < ends:
                time.sleep(0.5)
                seen.append((open_now.value, len(os.listdir(f"/proc/{server.pid}/fd"))))
            said = sorted(results.get(timeout=3 * PATIENCE) for _ in visitors)
            if attacker and not attacker.is_alive():
                sys.exit("the attack has ended by itself")
            attackers, files = (statistics.median(column) for column in zip(*seen))
            return said, attackers, files
        finally:
            if attacker:
                attacker.kill()
            server.kill()
            server.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--attackers", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--port", type=int, default=8093)
    options = parser.parse_args()
    # However it is ended, its server ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    print("| attackers | visitor | requests | failed | connections | median ms | p99 ms | longest ms | half open | files the server has open |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    longest = 0
    for case in CASES:
        said, attackers, files = measure(case, options)
        for keeps, waits, failed, connections in said:
            who = "keeps a connection" if keeps else "connects each time"
            middle, late = statistics.median(waits), waits[len(waits) * 99 // 100]
            print(f"| {case.name} | {who} | {len(waits):,} | {failed} | {connections:,} | {middle:.1f} | {late:.1f} "
                  f"| {waits[-1]:.1f} | {attackers:,.0f} | {files:,.0f} |", flush=True)
            longest = max(longest, waits[-1], *([float("inf")] if failed else []))
    reached = "reached" if longest <= GOAL_MS else "NOT reached"
    print(f"\n- {reached}: nobody waited more than {longest:.0f} ms (goal: {GOAL_MS})")


if __name__ == "__main__":
    main()
