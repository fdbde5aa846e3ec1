-- One row is one job, from the transaction that enqueues it until it is pruned.
CREATE TABLE jobs (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT    NOT NULL,
    arguments    TEXT    NOT NULL,              -- JSON
    state        TEXT    NOT NULL DEFAULT 'available'
                 CHECK (state IN ('available', 'executing', 'retryable', 'completed', 'discarded', 'cancelled')),
    priority     INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2), -- smaller runs first
    attempt      INTEGER NOT NULL DEFAULT 0,    -- counted when it is claimed
    attempts_max INTEGER NOT NULL CHECK (attempts_max >= 1),
    deaths       INTEGER NOT NULL DEFAULT 0,    -- times in a row that the process died while this ran
    unique_key   TEXT,                          -- at most one job with this key that is not at its end
    run_at       INTEGER NOT NULL,              -- milliseconds since 1970, as every time here
    enqueued_at  INTEGER NOT NULL,
    started_at   INTEGER,                       -- of the last attempt
    finished_at  INTEGER,
    error        TEXT                           -- of the last attempt that failed
) STRICT;

-- The claim: what is due, by priority, then by time.
CREATE INDEX jobs_claim ON jobs (priority, run_at, id) WHERE state IN ('available', 'retryable');

-- The rescue after a crash, and the stop.
CREATE INDEX jobs_executing ON jobs (id) WHERE state = 'executing';

-- Those that a process has died with: they are few.
CREATE INDEX jobs_suspect ON jobs (run_at) WHERE deaths > 0 AND state IN ('available', 'retryable');

-- Pruning, oldest first.
CREATE INDEX jobs_finished ON jobs (state, finished_at) WHERE state IN ('completed', 'discarded', 'cancelled');

CREATE UNIQUE INDEX jobs_unique ON jobs (unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('available', 'executing', 'retryable');

-- The last tick of each entry of the schedule: a tick not later than it has been enqueued already.
CREATE TABLE schedule (
    name         TEXT    PRIMARY KEY,
    last_tick_at INTEGER NOT NULL
) STRICT;
