#!/usr/bin/env python3
"""Point reads from files of 10 MB, 1 GB and 5 GB, once they are warm, and the memory that it takes.

    python3 benches/files.py [--rounds 5] [--seconds 3] [--connections 64] [--rows 10000,1000000,5000000]

The files are made once, in target/files (a kilobyte a row). All servers run at the same time and are loaded in turn.
"""

import argparse
import sqlite3
import statistics
import sys

from http_load import TARGET, build_server, end, memory, start, wrk

# A read from a large file may take so many times what one from the smallest takes.
RATIO_MAX = 1.5
# What a server's own memory may grow by in the second half of the rounds, in MB. Before the first, its page caches are
# filled: until another load adds no more than this to it.
GROWTH_MAX = 2
WARM_MAX = 30


def make(rows):
    """Makes a file of so many rows of a kilobyte, unless it is there, and gives its folder."""
    folder = TARGET / "files" / str(rows)
    path = folder / "bench.sqlite3"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        half_done = folder / "new.sqlite3"
        half_done.unlink(missing_ok=True)
        database = sqlite3.connect(half_done, isolation_level=None)
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL, "
                         "payload BLOB NOT NULL) STRICT")
        database.execute("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) "
                         "INSERT INTO items SELECT i, 'item ' || i, i * 7, randomblob(1000) FROM n", [rows])
        database.close()
        half_done.rename(path)
    return folder


def warm(path, load, own_memory):
    """Reads the file through once, so that the system has it in memory, and fills the server's own caches."""
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
    before = 0
    for _ in range(WARM_MAX):
        load()
        now = own_memory()
        if now - before < GROWTH_MAX / 4:
            return
        before = now


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--port", type=int, default=8087)
    parser.add_argument("--rows", default="10000,1000000,5000000")
    options = parser.parse_args()
    sizes = [int(rows) for rows in options.rows.split(",")]
    command = [build_server()]
    folders = {rows: make(rows) for rows in sizes}
    ports = {rows: options.port + number for number, rows in enumerate(sizes)}
    servers, measured, memories = {}, {rows: [] for rows in sizes}, {rows: [] for rows in sizes}
    load = lambda rows: wrk(ports[rows], f"request = function() return wrk.format(nil, '/read/' .. math.random({rows})) end\n",
                            options.connections, options.seconds)
    try:
        for rows in sizes:
            servers[rows] = start(command, "file", ports[rows], folders[rows])
        for rows in sizes:
            pid = servers[rows].pid
            warm(folders[rows] / "bench.sqlite3", lambda: load(rows), lambda: memory(pid)["RssAnon"])
        for number in range(options.rounds):
            for rows in sizes:
                measured[rows].append(load(rows))
                memories[rows].append(memory(servers[rows].pid))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    finally:
        for server in servers.values():
            end(server)

    print(f"{options.connections} connections, medians of {options.rounds} rounds of {options.seconds} s\n")
    print("| file, MB | requests/s | of the smallest | p50 µs | of the smallest | p99 µs | errors "
          "| own memory after each round, MB | mapped file, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    middle = {rows: [statistics.median(column) for column in zip(*measured[rows])] for rows in sizes}
    small = middle[sizes[0]]
    for rows in sizes:
        rate, _, p50, p99, _ = middle[rows]
        errors = sum(one[-1] for one in measured[rows])
        size = (folders[rows] / "bench.sqlite3").stat().st_size / 1e6
        own = ", ".join(f"{one['RssAnon']:.0f}" for one in memories[rows])
        print(f"| {size:,.0f} | {rate:,.0f} | {rate / small[0]:.2f} | {p50:,.0f} | {p50 / small[2]:.2f} | {p99:,.0f} | {errors} "
              f"| {own} | {memories[rows][-1]['RssFile']:.0f} |")
    print()
    worst = max(max(small[0] / middle[rows][0], middle[rows][2] / small[2]) for rows in sizes)
    growth = max(of[-1]["RssAnon"] - of[len(of) // 2]["RssAnon"] for of in memories.values())
    say = lambda reached, text: print(f"- {'reached' if reached else 'NOT reached'}: {text}")
    say(worst <= RATIO_MAX, f"a read from a large file takes {worst:.2f} × one from the smallest (goal: {RATIO_MAX})")
    say(growth <= GROWTH_MAX, f"memory grew by {growth:.1f} MB in the second half of the rounds (goal: flat, {GROWTH_MAX})")


if __name__ == "__main__":
    main()
