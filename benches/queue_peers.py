#!/usr/bin/env python3
"""The queue beside effectum, apalis, huey and RQ: 10,000 jobs that do nothing, enqueued one by one, then drained.

    python3 benches/queue_peers.py [--rounds 5] [--jobs 10000] [--only houseboat,effectum,apalis,huey,rq]

Needs redis-server (Debian: redis-server) for RQ; the Python peers are installed into target/queue-python. A round runs
every program once, each in a process and a folder of its own; what is printed are medians, and ratios of each round.
"""

import argparse
import collections
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile

from http_load import ROOT, TARGET, run

Run = collections.namedtuple("Run", "name who arguments is_wal")
# What is run: its name in the table, the program, what it is told beside folder and jobs, and whether its file is in
# WAL mode before it comes to it.
RUNS = [
    Run("Houseboat", "houseboat", [], False),
    Run("effectum", "effectum", ["16"], False),
    # It asks for a WAL by a wrong name (`PRAGMA journal`), and gets none.
    Run("effectum, its file put into WAL mode", "effectum", ["16"], True),
    Run("apalis-sqlite", "apalis", ["16"], False),
    Run("huey on SQLite", "huey", ["1"], False),
    Run("RQ on Redis", "rq", [], False),
]
DRAIN_MIN = 10


def build(only):
    """Builds what is asked for, and gives name -> command."""
    commands = {}
    if "houseboat" in only:
        run("cargo", "bench", "--no-run", "--no-default-features", "--bench", "queue")
        candidates = [p for p in (TARGET / "release/deps").glob("queue-*") if os.access(p, os.X_OK) and p.suffix == ""]
        commands["houseboat"] = [str(max(candidates, key=lambda path: path.stat().st_mtime)), "peer"]
    for peer in ("effectum", "apalis"):
        if peer in only:
            target = TARGET / f"peer-queue-{peer}"
            run("cargo", "build", "--release", "--locked", "--target-dir", str(target),
                cwd=ROOT / "benches/peers" / f"queue-{peer}")
            commands[peer] = [str(target / f"release/peer-queue-{peer}")]
    if {"huey", "rq"} & only:
        folder, environment = ROOT / "benches/peers/queue-python", TARGET / "queue-python"
        run(sys.executable, "-m", "venv", str(environment))
        run(str(environment / "bin/pip"), "install", "--quiet", "-r", str(folder / "requirements.txt"))
        commands |= {name: [str(environment / "bin/python"), str(folder / f"peer_{name}.py")] for name in ("huey", "rq")}
    if "rq" in only and not shutil.which("redis-server"):
        sys.exit("RQ needs redis-server (Debian: redis-server); without it: --only houseboat,effectum,apalis,huey")
    return commands


def measure(one, commands, jobs):
    """Gives the jobs that one run has enqueued in a second, and those it has drained."""
    TARGET.joinpath("tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET / "tmp") as folder:
        if one.is_wal:
            database = sqlite3.connect(f"{folder}/queue.sqlite3")
            assert database.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
            database.close()
        command = [*commands[one.who], folder, str(jobs), *one.arguments]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [float(number) for number in output.split()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--only", default="houseboat,effectum,apalis,huey,rq")
    options = parser.parse_args()
    only = set(options.only.split(","))
    commands = build(only)
    runs = [one for one in RUNS if one.who in only]
    measured = {one.name: [] for one in runs}
    for number in range(options.rounds):
        for one in runs:
            measured[one.name].append(measure(one, commands, options.jobs))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)

    print(f"{options.jobs:,} jobs, medians of {options.rounds} rounds; Houseboat's, as a multiple, of the same rounds\n")
    print("| who | enqueued/s | drained/s | Houseboat enqueues | Houseboat drains |")
    print("|---|---|---|---|---|")
    best = None
    for one in runs:
        rates = [statistics.median(column) for column in zip(*measured[one.name])]
        print(f"| {one.name} | {rates[0]:,.0f} | {rates[1]:,.0f} |", end="")
        own = measured.get("Houseboat")
        if own is None or one.name == "Houseboat":
            print(" | |")
            continue
        pairs = list(zip(own, measured[one.name]))
        ratios = [statistics.median(mine[at] / other[at] for mine, other in pairs) for at in (0, 1)]
        print(f" {ratios[0]:.1f} × | {ratios[1]:.1f} × |")
        if best is None or ratios[1] < best[0]:
            best = (ratios[1], one.name)
    if best:
        word = "reached" if best[0] >= DRAIN_MIN else "NOT reached"
        print(f"\n- {word}: the drain is {best[0]:.1f} × that of {best[1]}, the best of the peers (goal: {DRAIN_MIN})")


if __name__ == "__main__":
    main()
