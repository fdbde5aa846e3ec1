#!/usr/bin/env python3
"""Writes to a ledger (examples/ledger.rs), reads back, and holds it to its word.

load.py URL SECONDS [CONNECTIONS]

Each connection writes a row, and reads it and an older one, over and over. A row is acknowledged when its write was
answered with 200; a read that lacks an acknowledged row is a failure like any other answer than 200. The exit code is
1 if there was one.
"""
import collections
import http.client
import os
import random
import sys
import threading
import time
import urllib.parse

# The host that the deployment says is the site's (deploy.sh).
DOMAIN = os.environ.get("DOMAIN", "app.test")
PATIENCE = 60.0


class Load:
    """A load that runs in the background until `stop`."""

    def __init__(self, url, connections=8, pause=0.02, name=""):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port or 80
        self.pause, self.name = pause, name
        self.rows = {}  # acknowledged: text to number and time
        self.texts = []
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

    def acknowledged(self):
        """The rows so far, each with the time of its answer."""
        with self.lock:
            return {text: at for text, (_, at) in self.rows.items()}

    def mark(self):
        """The counts so far, and the longest answer since the last mark."""
        with self.lock:
            longest, self.longest = self.longest, 0.0
            return sum(self.answers.values()), len(self.failures), longest

    def run(self, number):
        count = 0
        while not self.ended.is_set():
            count += 1
            text = f"{self.name}-{number}-{count}-{random.getrandbits(64):016x}"
            row = self.ask("POST", "/rows", text)
            if row is not None:
                with self.lock:
                    self.rows[text] = (row, time.time())
                    self.texts.append(text)
                    older = random.choice(self.texts)
                self.look(text)
                self.look(older)
            time.sleep(self.pause)

    def look(self, text):
        with self.lock:
            row = self.rows[text][0]
        found = self.ask("GET", f"/rows/{row}")
        if found is not None and found != text:
            self.fail(time.time(), f"GET /rows/{row}", f"{found!r}, not {text!r}")

    def ask(self, method, path, body=None):
        begin = time.time()
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body=body, headers={"Host": DOMAIN})
            answer = connection.getresponse()
            status, text = answer.status, answer.read().decode(errors="replace")
        except Exception as error:  # whatever it was, the visitor got no answer
            status, text = type(error).__name__, str(error)
        connection.close()
        took = time.time() - begin
        with self.lock:
            self.answers[status] += 1
            self.longest = max(self.longest, took)
        if status != 200:
            self.fail(begin, f"{method} {path}", f"{status} after {took:.2f} s: {text[:200]}")
            return None
        return text

    def fail(self, at, what, why):
        with self.lock:
            self.failures.append((at, what, why))

    def report(self):
        lines = [f"answers {dict(self.answers)}, {len(self.rows)} rows"]
        for at, what, why in self.failures[:10]:
            clock = time.strftime("%T", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"
            lines.append(f"  {clock} {what}: {why}")
        return "\n".join(lines)


def main():
    url, seconds = sys.argv[1], float(sys.argv[2])
    connections = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    load = Load(url, connections).start()
    time.sleep(seconds)
    _, _, longest = load.stop().mark()
    print(f"{load.report()}, longest {longest:.2f} s")
    sys.exit(1 if load.failures else 0)


if __name__ == "__main__":
    main()
