"""Django's DatabaseCache on SQLite, one thread: peer_django.py [SECONDS] prints gets and puts a second, and their medians.

    python3 -m venv target/cache-python
    target/cache-python/bin/pip install -r benches/peers/cache-python/requirements.txt
    target/cache-python/bin/python benches/peers/cache-python/peer_django.py

Values of 1 KiB; 10,000 keys, and no more than a million entries, where Django's own limit is 300. Once with the file as
Django opens it, once with a WAL and `synchronous` OFF.
"""

import os
import random
import statistics
import sys
import tempfile
import time

KEYS = 10_000
TTL = 3_600


def measure(work, seconds):
    times, end = [], time.perf_counter() + seconds
    begun = time.perf_counter()
    while begun < end:
        work(f"item:{random.randrange(KEYS):011}")
        ended = time.perf_counter()
        times.append(ended - begun)
        begun = ended
    return len(times) / sum(times), statistics.median(times) * 1e6


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    is_tuned = len(sys.argv) > 2
    if not is_tuned:
        print("| DatabaseCache on SQLite, one thread | /s | p50 µs |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        import django
        from django.conf import settings
        options = {"init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF"} if is_tuned else {}
        settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/cache.sqlite3",
                                   "OPTIONS": options}},
            CACHES={"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache",
                                "OPTIONS": {"MAX_ENTRIES": 1_000_000}}},
            USE_TZ=True,
        )
        django.setup()
        from django.core.cache import cache
        from django.core.management import call_command
        from django.db import transaction
        call_command("createcachetable")
        value = "x" * 1_024
        with transaction.atomic():
            for number in range(KEYS):
                cache.set(f"item:{number:011}", value, TTL)

        def get(key):
            assert len(cache.get(key)) == 1_024

        def put(key):
            cache.set(key, value, TTL)

        how = "a WAL, synchronous OFF" if is_tuned else "as it comes"
        for name, work in (("get", get), ("put", put)):
            rate, median = measure(work, seconds)
            print(f"| {name}, {how} | {rate:,.0f} | {median:,.0f} |", flush=True)
    if not is_tuned:
        # The settings are read once in a process.
        os.execv(sys.executable, [sys.executable, __file__, str(seconds), "tuned"])


if __name__ == "__main__":
    main()
