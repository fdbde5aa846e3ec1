#!/usr/bin/env python3
"""HTTP benchmarks of the database layer, beside bare axum, sqlx, deadpool-sqlite and Bun.

    python3 benches/http_load.py [--rounds 5] [--seconds 2] [--connections 64] [--only hello,houseboat]

Needs wrk (Debian: wrk), and npm for Bun (installed into target/bun). Every round runs every configuration once, so
that a disturbance of the machine meets all of them; what is printed are medians, and ratios to bare axum in this run.
"""

import argparse
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

INSERT = "wrk.method = 'POST'\nrequest = function() return wrk.format(nil, '/insert/' .. math.random(10000)) end\n"
READ = "request = function() return wrk.format(nil, '/read/' .. math.random(10000)) end\n"
MIX = (
    "request = function()\n"
    "  if math.random(2) == 1 then return wrk.format('GET', '/read/' .. math.random(10000)) end\n"
    "  return wrk.format('POST', '/insert/' .. math.random(10000))\n"
    "end\n"
)
HELLO = "request = function() return wrk.format(nil, '/hello') end\n"


def build(only):
    """Builds what is asked for, and gives name -> command without mode, port and folder."""
    run = lambda *command, cwd=ROOT: subprocess.run(command, cwd=cwd, check=True)
    run("cargo", "bench", "--no-run", "--bench", "server")
    candidates = [p for p in (TARGET / "release/deps").glob("server-*") if os.access(p, os.X_OK) and p.suffix == ""]
    server = max(candidates, key=lambda path: path.stat().st_mtime)
    servers = {"houseboat": [str(server)]}
    for peer in ("sqlx", "deadpool"):
        if peer in only:
            target = TARGET / f"peer-{peer}"
            run("cargo", "build", "--release", "--target-dir", str(target), cwd=ROOT / "benches/peers" / peer)
            servers[peer] = [str(target / f"release/peer-{peer}")]
    if "bun" in only:
        run("npm", "install", "--silent", "--no-save", "--prefix", str(TARGET / "bun"), "bun")
        servers["bun"] = [str(TARGET / "bun/node_modules/.bin/bun"), str(ROOT / "benches/bun.js")]
    return servers


def measure(command, mode, script, options):
    """Starts one server on a folder of its own, loads it, and gives requests per second, p50, p99 and errors."""
    with tempfile.TemporaryDirectory(dir=TARGET) as folder:
        shutil.copytree(options.data, folder, dirs_exist_ok=True)
        lua = pathlib.Path(folder) / "load.lua"
        lua.write_text(script)
        server = subprocess.Popen([*command, mode, str(options.port), folder], stderr=subprocess.DEVNULL)
        try:
            wait_for(options.port, server)
            output = subprocess.run(
                ["wrk", "-t2", f"-c{options.connections}", f"-d{options.seconds}s", "--latency", "-s", str(lua),
                 f"http://127.0.0.1:{options.port}/"],
                check=True, capture_output=True, text=True,
            ).stdout
        finally:
            server.kill()
            server.wait()
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", output))
    errors += sum(int(n) for line in re.findall(r"Socket errors: (.*)", output) for n in re.findall(r"\d+", line))
    return rate, micros(output, "50%"), micros(output, "99%"), errors


def micros(output, percentile):
    value, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)\b", output).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def wait_for(port, server):
    for _ in range(200):
        if server.poll() is not None:
            sys.exit(f"the server ended: {server.args}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/read/1", timeout=1)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"the server does not answer: {server.args}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--port", type=int, default=8077)
    parser.add_argument("--only", default="houseboat,sqlx,deadpool,bun")
    options = parser.parse_args()
    servers = build(options.only.split(","))
    house = servers["houseboat"]
    options.data = tempfile.mkdtemp(dir=TARGET)
    make = subprocess.Popen([*house, "normal", str(options.port), options.data])
    wait_for(options.port, make)
    make.terminate()
    make.wait()
    work = [("hello", "bare axum", house, "hello", HELLO)]
    for name, script in (("read", READ), ("insert", INSERT), ("mix", MIX)):
        work.append((name, "houseboat", house, "normal", script))
        work += [(name, peer, servers[peer], "normal", script) for peer in ("sqlx", "deadpool", "bun") if peer in servers]
    work.append(("insert", "houseboat, FULL", house, "full", INSERT))
    work.append(("hello", "houseboat, all layers", house, "site", HELLO))
    work.append(("read", "houseboat, all layers", house, "site", READ))
    results = {(name, who): [] for name, who, *_ in work}
    for number in range(options.rounds):
        for name, who, command, mode, script in work:
            results[name, who].append(measure(command, mode, script, options))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    shutil.rmtree(options.data)
    hello = statistics.median(rate for rate, *_ in results["hello", "bare axum"])
    print(f"{options.connections} connections, medians of {options.rounds} rounds of {options.seconds} s\n")
    print("| work | who | requests/s | of hello | p50 µs | p99 µs | errors |\n|---|---|---|---|---|---|---|")
    for name, who, *_ in work:
        rate, p50, p99, _ = (statistics.median(column) for column in zip(*results[name, who]))
        errors = sum(errors for *_, errors in results[name, who])
        print(f"| {name} | {who} | {rate:,.0f} | {rate / hello:.2f} | {p50:,.0f} | {p99:,.0f} | {errors} |")


if __name__ == "__main__":
    main()
