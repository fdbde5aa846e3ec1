"""One round of huey on SQLite: peer_huey.py FOLDER JOBS [THREADS] prints enqueued and drained jobs a second."""

import logging
import sys
import threading
import time

from huey import SqliteHuey

folder, jobs, threads = sys.argv[1], int(sys.argv[2]), int((sys.argv[3:] or ["1"])[0])
logging.disable(logging.CRITICAL)
# In its favour: nothing waits for the disk, and no results are kept.
huey = SqliteHuey("bench", filename=f"{folder}/queue.sqlite3", fsync=False, results=False)
runs, lock, over = 0, threading.Lock(), threading.Event()


@huey.task()
def no_op(number):
    global runs
    with lock:
        runs += 1
        if runs == jobs:
            over.set()


start = time.perf_counter()
for number in range(jobs):
    no_op(number)
enqueued = time.perf_counter() - start

consumer = huey.create_consumer(workers=threads, worker_type="thread", periodic=False)
start = time.perf_counter()
consumer.start()
assert over.wait(300), f"{runs} of {jobs} ran"
drained = time.perf_counter() - start
consumer.stop()
print(jobs / enqueued, jobs / drained)
