#!/usr/bin/env python3
"""Writes and reads at a ledger (examples/ledger.rs) and holds it to its word.

load.py URL SECONDS [CONNECTIONS] [FILE]

Each connection writes a row, and reads it and an older one back, over and over. A row counts as acknowledged when
its write was answered with 200; FILE gets all of those, as `number text`. A read that lacks an acknowledged row is a
failure like any other. The exit code is 1 if there was one.
"""
import collections
import http.client
import random
import sys
import threading
import time
import urllib.parse

PATIENCE = 60.0


class Load:
    """A load that runs in the background until `stop`."""

    def __init__(self, url, connections=8, pause=0.02):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port or 80
        self.pause = pause
        self.rows = {}  # acknowledged: number to text
        self.unknown = set()  # texts of writes of which nobody knows
        self.answers = collections.Counter()
        self.failures = []  # time, what was asked, what came
        self.longest = 0.0
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(connections)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        return self

    def mark(self):
        """What there is so far, and a new count of the longest answer."""
        with self.lock:
            longest, self.longest = self.longest, 0.0
            return {"answers": sum(self.answers.values()), "failures": len(self.failures),
                    "rows": len(self.rows), "longest": longest}

    def run(self, number):
        # From one to the next, so that the connection itself is part of what must not break.
        connection = [None]
        count = 0
        while not self.ended.is_set():
            text = f"{number}-{count}-{random.random()}"
            count += 1
            row = self.ask(connection, "POST", "/rows", text)
            if row is not None:
                with self.lock:
                    self.rows[int(row)] = text
                    older = random.choice(list(self.rows)) if len(self.rows) < 1000 else random.randint(1, int(row))
                for wanted in {int(row), older}:
                    self.look(connection, wanted)
            time.sleep(self.pause)

    def look(self, connection, row):
        with self.lock:
            expected = self.rows.get(row)
        if expected is None:
            return
        text = self.ask(connection, "GET", f"/rows/{row}", None)
        if text is not None and text != expected:
            self.fail(time.time(), f"GET /rows/{row}", f"{text!r}, not {expected!r}")

    def ask(self, connection, method, path, body):
        begin = time.time()
        try:
            if connection[0] is None:
                connection[0] = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
            headers = {"content-type": "text/plain"} if body is not None else {}
            connection[0].request(method, path, body=body, headers=headers)
            answer = connection[0].getresponse()
            text = answer.read().decode(errors="replace")
            if answer.will_close:
                connection[0].close()
                connection[0] = None
            status = answer.status
        except Exception as error:  # whatever it was, the visitor got no answer
            if connection[0] is not None:
                connection[0].close()
            connection[0] = None
            status, text = type(error).__name__, str(error)
        took = time.time() - begin
        with self.lock:
            self.answers[status] += 1
            self.longest = max(self.longest, took)
            if status != 200 and body is not None:
                self.unknown.add(body)
        if status != 200:
            self.fail(begin, f"{method} {path}", f"{status} after {took:.2f} s: {text[:200]}")
            return None
        return text

    def fail(self, at, what, why):
        with self.lock:
            self.failures.append((at, what, why))

    def report(self):
        lines = [f"answers {dict(self.answers)}, {len(self.rows)} rows, longest {self.longest:.2f} s"]
        for at, what, why in self.failures[:10]:
            clock = time.strftime("%T", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"
            lines.append(f"  {clock} {what}: {why}")
        return "\n".join(lines)


def main():
    url, seconds = sys.argv[1], float(sys.argv[2])
    connections = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    load = Load(url, connections).start()
    time.sleep(seconds)
    load.stop()
    print(load.report())
    if len(sys.argv) > 4:
        with open(sys.argv[4], "w") as file:
            file.writelines(f"{number} {text}\n" for number, text in sorted(load.rows.items()))
    sys.exit(1 if load.failures else 0)


if __name__ == "__main__":
    main()
