"""One round of RQ on Redis: peer_rq.py FOLDER JOBS prints enqueued and drained jobs a second.

It starts a Redis of its own, which writes nothing to the disk. The jobs run in the worker's own process: RQ's default,
a process forked for each, is far slower.
"""

import logging
import os
import subprocess
import sys
import time


def no_op(number):
    return None


def main():
    import redis
    import rq

    import peer_rq

    folder, jobs = sys.argv[1], int(sys.argv[2])
    logging.disable(logging.CRITICAL)
    path = os.path.join(folder, "redis.sock")
    server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no",
                               "--dir", folder], stdout=subprocess.DEVNULL)
    try:
        connection = redis.Redis(unix_socket_path=path)
        for _ in range(200):
            try:
                connection.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        queue = rq.Queue("bench", connection=connection)
        start = time.perf_counter()
        for number in range(jobs):
            queue.enqueue(peer_rq.no_op, number)
        enqueued = time.perf_counter() - start

        worker = rq.SimpleWorker([queue], connection=connection)
        start = time.perf_counter()
        worker.work(burst=True, logging_level="CRITICAL")
        drained = time.perf_counter() - start
        finished = rq.registry.FinishedJobRegistry(queue=queue).count
        assert finished == jobs, f"{finished} of {jobs} ran"
        print(jobs / enqueued, jobs / drained)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
