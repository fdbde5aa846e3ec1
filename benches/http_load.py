#!/usr/bin/env python3
"""HTTP benchmarks of the database layer, of pages and of files, beside bare axum, nginx, sqlx, deadpool-sqlite and Bun.

    python3 benches/http_load.py [--rounds 5] [--seconds 2] [--connections 1,64,256] [--only houseboat,nginx,sqlx,deadpool,bun]
                                 [--work hello,page,file]

Needs wrk and nginx (Debian: wrk, nginx-light), and npm for Bun (installed into target/bun). Every round runs every configuration once, so
that a disturbance of the machine meets all of them; what is printed are medians, ratios of the same run, and which of
the goals it has reached.
"""

import argparse
import collections
import os
import pathlib
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TICKS = os.sysconf("SC_CLK_TCK")

HELLO = "request = function() return wrk.format(nil, '/hello') end\n"
PAGE = "request = function() return wrk.format(nil, '/page') end\n"
# The server says where its file is: ours has its content in its name.
FILE = "request = function() return wrk.format(nil, '@FILE@') end\n"
FILE_GZIP = "wrk.headers['Accept-Encoding'] = 'gzip'\n" + FILE
READ = "request = function() return wrk.format(nil, '/read/' .. math.random(10000)) end\n"
INSERT = "wrk.method = 'POST'\nrequest = function() return wrk.format(nil, '/insert/' .. math.random(10000)) end\n"
MIX = (
    "request = function()\n"
    "  if math.random(2) == 1 then return wrk.format('GET', '/read/' .. math.random(10000)) end\n"
    "  return wrk.format('POST', '/insert/' .. math.random(10000))\n"
    "end\n"
)
PEERS = ("sqlx", "deadpool", "bun")
LAYERS = "houseboat, all layers"

# What is run: the work, who does it, by which server, in which mode, under which load.
Run = collections.namedtuple("Run", "work who server mode script")
RUNS = [
    Run("hello", "bare axum", "houseboat", "hello", HELLO),
    Run("hello", "houseboat's loop", "houseboat", "loop", HELLO),
    *(Run("read", who, who, "normal", READ) for who in ("houseboat", *PEERS)),
    *(Run("insert", who, who, "normal", INSERT) for who in ("houseboat", *PEERS)),
    Run("insert", "sqlx, BEGIN IMMEDIATE … COMMIT", "sqlx", "transaction", INSERT),
    *(Run("insert, FULL", who, who, "full", INSERT) for who in ("houseboat", *PEERS)),
    *(Run("half and half", who, who, "normal", MIX) for who in ("houseboat", *PEERS)),
    Run("page, kept", "houseboat", "houseboat", "normal", PAGE),
    Run("page, kept", LAYERS, "houseboat", "site", PAGE),
    Run("page, kept", "nginx", "nginx", "normal", PAGE),
    Run("file", "bare axum", "houseboat", "hello", FILE),
    Run("file", LAYERS, "houseboat", "site", FILE),
    Run("file", "nginx", "nginx", "normal", FILE),
    Run("file, gzip", LAYERS, "houseboat", "site", FILE_GZIP),
    Run("file, gzip", "nginx", "nginx", "normal", FILE_GZIP),
    Run("hello, all layers", "houseboat", "houseboat", "site", HELLO),
    Run("read, all layers", "houseboat", "houseboat", "site", READ),
]

# The work of Houseboat, what it is held against (a work and who does it), and how many times that it should be.
GOALS = [
    ("page, kept", "hello", "bare axum", 0.8),
    ("read", "hello", "bare axum", 0.65),
    ("read", "read", "sqlx", 2.5),
    ("read", "read", "bun", 1.0),
    ("insert", "hello", "bare axum", 0.6),
    ("insert", "insert", "sqlx", 8.0),
    ("insert", "insert", "bun", 1.6),
    ("insert, FULL", "insert", "houseboat", 0.9),
    ("half and half", "hello", "bare axum", 0.5),
]
# The mix's p99 is to be below so many times its median, without an error.
SPREAD_MAX = 10
# The goals are set for this many connections.
GOAL_CONNECTIONS = 64

# What other programs used of the machine while it was measured, above which a run says little.
OTHERS_MAX = 0.05

Measured = collections.namedtuple("Measured", "rate p50 p99 errors cpu rss others")


def run(*command, cwd=ROOT):
    subprocess.run(command, cwd=cwd, check=True)


def build_server():
    run("cargo", "bench", "--no-run", "--bench", "server")
    candidates = [p for p in (TARGET / "release/deps").glob("server-*") if os.access(p, os.X_OK) and p.suffix == ""]
    return str(max(candidates, key=lambda path: path.stat().st_mtime))


def build(only):
    """Builds what is asked for, and gives name -> command without mode, port and folder."""
    servers = {"houseboat": [build_server()]}
    for peer in ("sqlx", "deadpool"):
        if peer in only:
            target = TARGET / f"peer-{peer}"
            run("cargo", "build", "--release", "--target-dir", str(target), cwd=ROOT / "benches/peers" / peer)
            servers[peer] = [str(target / f"release/peer-{peer}")]
    if "nginx" in only:
        servers["nginx"] = [sys.executable, str(ROOT / "benches/nginx.py")]
    if "bun" in only:
        run("npm", "install", "--silent", "--no-save", "--prefix", str(TARGET / "bun"), "bun")
        servers["bun"] = [str(TARGET / "bun/node_modules/.bin/bun"), str(ROOT / "benches/bun.js")]
    return servers


def start(command, mode, port, folder):
    """Starts a server and waits until it answers."""
    server = subprocess.Popen([*command, mode, str(port), str(folder)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        if server.poll() is not None:
            sys.exit(f"the server ended: {server.args}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/read/1", timeout=1)
            return server
        except urllib.error.HTTPError:
            return server
        except OSError:
            time.sleep(0.05)
    server.kill()
    sys.exit(f"the server does not answer: {server.args}")


def end(server):
    for pid in processes(server.pid):
        os.kill(pid, signal.SIGKILL)
    server.wait()


def wrk(port, script, connections, seconds):
    """Loads what listens there, and gives what wrk says: rate, requests, p50 and p99 in µs, errors."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        command = ["wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
                   "--latency", "-s", lua.name, f"http://127.0.0.1:{port}/"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    requests = int(re.search(r"(\d+) requests in", output)[1])
    errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", output))
    errors += sum(int(n) for line in re.findall(r"Socket errors: (.*)", output) for n in re.findall(r"\d+", line))
    return rate, requests, micros(output, "50%"), micros(output, "99%"), errors


def micros(output, percentile):
    value, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)\b", output).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def processes(pid):
    """A server's process and its workers."""
    return [pid, *map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def cpu_seconds(pid):
    stats = [pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split() for one in processes(pid)]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS


def machine_seconds():
    """The CPU time that all programs have used, and that of this one's children that have ended."""
    user, nice, system, _, _, irq, soft_irq, steal, *_ = map(int, pathlib.Path("/proc/stat").read_text().split()[1:11])
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (user + nice + system + irq + soft_irq + steal) / TICKS, children.ru_utime + children.ru_stime


def memory(pid):
    """What /proc says of a process's memory, by name, in MB."""
    lines = [pathlib.Path(f"/proc/{pid}/{name}").read_text() for name in ("status", "smaps_rollup")]
    pairs = re.findall(r"^(\w+):\s+(\d+) kB$", "".join(lines), re.MULTILINE)
    return {name: int(kilobytes) / 1024 for name, kilobytes in pairs}


def measure(command, one, connections, options):
    """Starts one server on a folder of its own, and loads it."""
    with tempfile.TemporaryDirectory(dir=TARGET) as folder:
        shutil.copytree(options.data, folder, dirs_exist_ok=True)
        server = start(command, one.mode, options.port, folder)
        script = one.script
        if "@FILE@" in script:
            with urllib.request.urlopen(f"http://127.0.0.1:{options.port}/where") as answer:
                script = script.replace("@FILE@", answer.read().decode())
        try:
            (all_before, load_before), before = machine_seconds(), cpu_seconds(server.pid)
            rate, requests, p50, p99, errors = wrk(options.port, script, connections, options.seconds)
            (all_after, load_after), cpu = machine_seconds(), cpu_seconds(server.pid) - before
            others = all_after - all_before - (load_after - load_before) - cpu
            share = max(0, others / (options.seconds * os.cpu_count()))
            return Measured(rate, p50, p99, errors, cpu * 1e6 / requests, sum(memory(one)["VmRSS"] for one in processes(server.pid)), share)
        finally:
            end(server)


def middle(rounds):
    """The medians of the rounds, and the sum of their errors."""
    columns = {name: statistics.median(getattr(one, name) for one in rounds) for name in Measured._fields}
    return Measured(**{**columns, "errors": sum(one.errors for one in rounds)})


def table(results):
    """Prints what one number of connections has shown."""
    ratio = lambda one, other: f"{one.rate / other.rate:.2f}" if other else ""
    hello = results["hello", "bare axum"]
    print("| work | who | requests/s | of hello | of sqlx | of Bun | p50 µs | p99 µs | p99/p50 | errors | CPU µs | RSS MB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for (work, who), one in results.items():
        of = " | ".join(ratio(one, other) for other in (hello, results.get((work, "sqlx")), results.get((work, "bun"))))
        print(f"| {work} | {who} | {one.rate:,.0f} | {of} | {one.p50:,.0f} | {one.p99:,.0f} | {one.p99 / one.p50:.1f} "
              f"| {one.errors} | {one.cpu:.1f} | {one.rss:.0f} |")


def goals(results, is_judged):
    """Prints which goals these results have reached, or only the figures where no goal is set."""
    def say(reached, text):
        verdict = ("reached: " if reached else "NOT reached: ") if is_judged else ""
        print(f"- {verdict}{text if is_judged else text.split(' (goal')[0]}")

    for work, other_work, other, least in GOALS:
        if (other_work, other) in results and (work, "houseboat") in results:
            ratio = results[work, "houseboat"].rate / results[other_work, other].rate
            say(ratio >= least, f"{work} is {ratio:.2f} × {other_work} of {other} (goal: {least})")
    mix = results.get(("half and half", "houseboat"))
    if not mix:
        return
    spread = mix.p99 / mix.p50
    say(spread < SPREAD_MAX, f"half and half has its p99 at {spread:.1f} × the median (goal: below {SPREAD_MAX})")
    say(mix.errors == 0, f"half and half met {mix.errors} errors (goal: 0)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", default="1,64,256")
    parser.add_argument("--port", type=int, default=8077)
    parser.add_argument("--only", default="houseboat,nginx,sqlx,deadpool,bun")
    parser.add_argument("--work", help="only works whose names begin so; hello is always one of them")
    options = parser.parse_args()
    counts = [int(count) for count in options.connections.split(",")]
    servers = build(options.only.split(","))
    works = tuple(options.work.split(",")) if options.work else ("",)
    runs = [one for one in RUNS if one.server in servers and one.work.startswith(("hello", *works))]
    options.data = tempfile.mkdtemp(dir=TARGET)
    end(start(servers["houseboat"], "normal", options.port, options.data))
    rounds = {count: {(one.work, one.who): [] for one in runs} for count in counts}
    for number in range(options.rounds):
        for count in counts:
            for one in runs:
                rounds[count][one.work, one.who].append(measure(servers[one.server], one, count, options))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    shutil.rmtree(options.data)
    results = {count: {key: middle(of) for key, of in rounds[count].items()} for count in counts}
    for count in counts:
        others = statistics.mean(one.others for of in rounds[count].values() for one in of)
        warning = ": too much for these figures to say much but for CPU µs" if others > OTHERS_MAX else ""
        print(f"\n{count} connections, medians of {options.rounds} rounds of {options.seconds} s; "
              f"other programs used {others:.0%} of the machine{warning}\n")
        table(results[count])
    for count in counts:
        is_judged = count == GOAL_CONNECTIONS
        print(f"\n{'The goals' if is_judged else 'The same ratios, where no goal is set,'} at {count} connections:\n")
        goals(results[count], is_judged)


if __name__ == "__main__":
    main()
