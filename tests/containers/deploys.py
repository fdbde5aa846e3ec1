#!/usr/bin/env python3
"""Deploys a ledger many times as Coolify does, under a load of reads and writes, and looks at everything afterwards.

deploys.py IMAGE LEDGER [--deploys N] [--mode rolling|stop-first|kill] [--volume] [--megabytes MB] [--no-bucket]

IMAGE is the shipped one; LEDGER is examples/ledger.rs, built, which takes the program's place in it. After every
deploy: every acknowledged row is in the live database and in what a restore of the replica gives, and both pass a
full integrity check. `kill` takes the container down with SIGKILL at a random moment, deletes it, and starts another;
then it says how many acknowledged rows were lost, and how old the oldest of them was.

The exit code is 1 where a rolling deploy failed a request, where a row was lost (by a kill: one older than
--lost-seconds), or where a check failed. Needs docker, litestream and s3s-fs.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

from load import Load

HERE = pathlib.Path(__file__).parent
BUCKET, FOLDER, KEY, SECRET = "site", "ledger", "ledger-key", "ledger-secret"
REPLICA_PATIENCE = 30.0
START_PATIENCE = 120.0


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def docker(*arguments):
    return run("docker", *arguments)


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def say(*words):
    print(time.strftime("%T"), *words, flush=True)


class Platform:
    """A server with a network, a bucket, a proxy, and one application."""

    def __init__(self, options):
        self.options = options
        self.app = f"ledger{os.getpid()}"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="deploys-"))
        self.port, self.bucket_port = free_port(), free_port()
        self.proxy = None
        self.volume = f"{self.app}-data" if options.volume else None
        self.images = []
        self.image = None

    def build(self, image, program, name):
        """`image` with a program of this machine in it, as `name`."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        shutil.copy(program, folder / "program")
        (folder / "Dockerfile").write_text(f"FROM {image}\nCOPY --chmod=755 program /usr/local/bin/{name}\n")
        self.images.append(f"{self.app}-{name}")
        docker("build", "--quiet", "--tag", self.images[-1], folder)
        return self.images[-1]

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        # By a name: Docker would look an id up in a registry.
        self.images.append(f"{self.app}-shipped")
        docker("tag", self.options.image, self.images[-1])
        self.image = self.build(self.images[-1], self.options.ledger, "houseboat")
        docker("network", "create", self.app)
        if self.options.bucket:
            self.start_bucket()
        if self.volume:
            docker("volume", "create", self.volume)
        self.proxy_log = open(self.folder / "proxy.log", "w")
        self.proxy = subprocess.Popen(
            [sys.executable, HERE / "proxy.py", str(self.port), self.app], stdout=self.proxy_log, stderr=subprocess.STDOUT)

    def start_bucket(self):
        image = self.build("debian:bookworm-slim", shutil.which("s3s-fs"), "s3s-fs")
        command = f"mkdir -p /bucket/{BUCKET} && exec s3s-fs --host 0.0.0.0 --port 8333 --access-key {KEY} --secret-key {SECRET} /bucket"
        docker("run", "--detach", "--name", f"{self.app}-bucket", "--network", self.app, "--network-alias", "bucket",
               "--publish", f"127.0.0.1:{self.bucket_port}:8333", image, "sh", "-c", command)

    def __exit__(self, *_):
        if self.proxy:
            self.proxy.terminate()
            self.proxy.wait()
        if self.options.keep:
            return
        for name in self.containers(every=True) + [f"{self.app}-bucket"]:
            subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True)
        if self.volume:
            subprocess.run(["docker", "volume", "rm", "--force", self.volume], capture_output=True)
        subprocess.run(["docker", "network", "rm", self.app], capture_output=True)
        subprocess.run(["docker", "rmi", "--force", *self.images], capture_output=True)
        shutil.rmtree(self.folder)

    def containers(self, every=False):
        more = ["--all"] if every else []
        return docker("ps", "--quiet", *more, "--filter", f"label=coolify.name={self.app}").split()

    def settings(self):
        if not self.options.bucket:
            return []
        return [f"LITESTREAM_BUCKET={BUCKET}", f"LITESTREAM_PATH={FOLDER}", "LITESTREAM_ENDPOINT=http://bucket:8333",
                f"LITESTREAM_ACCESS_KEY_ID={KEY}", f"LITESTREAM_SECRET_ACCESS_KEY={SECRET}"]

    def deploy(self):
        """As deploy.sh does it; returns how long it took."""
        begin = time.time()
        settings = dict(os.environ, NETWORK=self.app, ROLLING="0" if self.options.mode == "stop-first" else "1")
        if self.volume:
            settings["VOLUME"] = f"{self.volume}:/data"
        run(HERE / "deploy.sh", self.app, self.image, *self.settings(), env=settings)
        return time.time() - begin

    def await_site(self):
        """Waits until a row is stored: who only waits for its turn says that it is ready, too."""
        end = time.time() + START_PATIENCE
        writer = Load(self.url(), connections=0)
        while writer.ask("POST", "/rows", "is anybody there") is None:
            if time.time() > end:
                raise RuntimeError(f"nobody stores a row: {writer.report()}")
            time.sleep(0.1)

    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def logs(self):
        return "\n".join(subprocess.run(["docker", "logs", name], capture_output=True, text=True).stderr
                         for name in self.containers(every=True))

    def live(self):
        """A copy of the live database, as the program's own command makes it."""
        name, = self.containers()
        path = self.folder / "live.sqlite3"
        docker("exec", name, "houseboat", "backup", "/data/checked.sqlite3")
        docker("cp", "--quiet", f"{name}:/data/checked.sqlite3", path)
        docker("exec", name, "rm", "/data/checked.sqlite3")
        return rows(path)

    def replica(self):
        """What a restore of the replica gives now."""
        bucket = f"{self.app}-bucket"
        record = json.loads(docker("exec", bucket, "cat", f"/bucket/{BUCKET}/{FOLDER}/lease.json"))
        path = self.folder / "replica.sqlite3"
        path.unlink(missing_ok=True)
        settings = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        address = (f"s3://{BUCKET}/{FOLDER}/generations/{record['generation']}"
                   f"?endpoint=http://127.0.0.1:{self.bucket_port}&region=us-east-1&forcePathStyle=true")
        run("litestream", "restore", "-integrity-check", "full", "-o", path, address, env=settings, timeout=120)
        return rows(path)


def rows(path):
    """The texts in a database file that passes the full check."""
    database = sqlite3.connect(path)
    found = [line for line, in database.execute("PRAGMA integrity_check")]
    if found != ["ok"]:
        raise RuntimeError(f"{path.name} is damaged: {found[:5]}")
    texts = {text for text, in database.execute("SELECT text FROM rows")}
    database.close()
    for ending in ("", "-wal", "-shm"):
        pathlib.Path(f"{path}{ending}").unlink(missing_ok=True)
    return texts


def await_replica(platform, expected):
    """Waits until a restore has every row; returns what it lacks at the end, and how long that took."""
    begin = time.time()
    while True:
        missing = expected - platform.replica()
        if not missing or time.time() - begin > REPLICA_PATIENCE:
            return missing, time.time() - begin
        time.sleep(0.2)


def fill(platform, megabytes):
    writer = Load(platform.url(), connections=0)
    for number in range(megabytes * 10):
        if writer.ask("POST", "/rows", f"{number}-" + random.randbytes(50_000).hex()) is None:
            raise RuntimeError(writer.report())


def deploy_and_look(platform, load):
    """One deploy under the load; returns the line of the table, and whether all is well."""
    load.mark()
    requests, failures, _ = load.mark()
    time.sleep(random.uniform(0.5, 2.0))
    took = platform.deploy()
    platform.await_site()
    expected = set(load.acknowledged())
    lost = expected - platform.live()
    behind, waited = await_replica(platform, expected) if platform.options.bucket else (set(), 0.0)
    after, failed, longest = load.mark()
    failed -= failures
    is_well = not lost and not behind and (not failed or platform.options.mode == "stop-first")
    return [after - requests, failed, f"{longest:.2f}", f"{took:.1f}", len(expected), len(lost), len(behind), f"{waited:.1f}"], is_well


def kill_and_look(platform, known, number):
    """One kill at a random moment; returns the line of the table, and whether all is well."""
    load = Load(platform.url(), name=f"k{number}").start()
    time.sleep(random.uniform(1.0, 5.0))
    name, = platform.containers()
    process = int(docker("inspect", "--format", "{{.State.Pid}}", name))
    docker("update", "--restart", "no", name)
    os.kill(process, 9)
    killed = time.time()
    time.sleep(0.2)
    load.stop()
    requests, _, _ = load.mark()
    docker("rm", "--force", name)
    platform.deploy()
    platform.await_site()
    took = time.time() - killed
    known.update(load.acknowledged())
    there = platform.live()
    lost = {text: killed - at for text, at in known.items() if text not in there}
    for text in lost:
        del known[text]
    oldest = max(lost.values(), default=0.0)
    behind, waited = await_replica(platform, set(known)) if platform.options.bucket else (set(), 0.0)
    is_well = oldest <= platform.options.lost_seconds and not behind
    return [requests, "-", f"{oldest:.2f} old", f"{took:.1f}", len(known), len(lost), len(behind), f"{waited:.1f}"], is_well


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("ledger")
    parser.add_argument("--deploys", type=int, default=20)
    parser.add_argument("--mode", choices=["rolling", "stop-first", "kill"], default="rolling")
    parser.add_argument("--volume", action="store_true")
    parser.add_argument("--megabytes", type=int, default=10)
    parser.add_argument("--no-bucket", dest="bucket", action="store_false")
    parser.add_argument("--keep", action="store_true", help="leave the containers and the bucket as they are at the end")
    parser.add_argument("--lost-seconds", type=float, default=2.0)
    options = parser.parse_args()
    lines, all_well = [], True
    with Platform(options) as platform:
        try:
            platform.deploy()
            platform.await_site()
            fill(platform, options.megabytes)
            load = None if options.mode == "kill" else Load(platform.url()).start()
            known = {}
            for number in range(1, options.deploys + 1):
                line, is_well = deploy_and_look(platform, load) if load else kill_and_look(platform, known, number)
                lines.append([number, *line])
                all_well = all_well and is_well
                say(*lines[-1], "" if is_well else "FAILED")
            if load:
                say(load.stop().report())
        except Exception:
            print(platform.logs()[-20_000:], (platform.folder / "proxy.log").read_text()[-2000:], file=sys.stderr)
            raise
    print(f"\n{options.mode}, {'on a volume' if options.volume else 'without a volume'}, {options.megabytes} MB")
    head = ["deploy", "requests", "failed", "longest s", "deploy s", "rows", "lost", "behind", "replica s"]
    for line in [head, *lines]:
        print(" | ".join(f"{cell!s:>10}" for cell in line))
    sys.exit(0 if all_well else 1)


if __name__ == "__main__":
    main()
