-- Queues by name, claims that can be told apart, limits, what a job says of itself, and several processes on one file.
CREATE TABLE jobs_2 (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    kind          TEXT    NOT NULL,
    queue         TEXT    NOT NULL DEFAULT 'default',
    arguments     TEXT    NOT NULL,              -- JSON
    state         TEXT    NOT NULL DEFAULT 'available'
                  -- With OR and not IN, here and below: for IN, SQLite makes a table in memory at each change of a row.
                  CHECK (state = 'available' OR state = 'executing' OR state = 'completed' OR state = 'retryable'
                      OR state = 'discarded' OR state = 'cancelled' OR state = 'parked'),
    priority      INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2), -- smaller runs first
    attempt       INTEGER NOT NULL DEFAULT 0,    -- counted when it is claimed
    attempts_max  INTEGER NOT NULL CHECK (attempts_max >= 1),
    timeout_ms    INTEGER,                       -- where it is not the type's
    claims        INTEGER NOT NULL DEFAULT 0,    -- how often it was claimed: the token of the claim
    worker        INTEGER,                       -- who runs it; or has parked it
    deaths        INTEGER NOT NULL DEFAULT 0,    -- times in a row that the process died while this ran
    run_at        INTEGER NOT NULL,              -- milliseconds since 1970, as every time here
    enqueued_at   INTEGER NOT NULL,
    started_at    INTEGER,                       -- of the last attempt
    finished_at   INTEGER,
    error         TEXT,                          -- of the last attempt that failed
    unique_key    TEXT,                          -- the kind, a colon, and the key
    unique_scope  INTEGER,                       -- 0 until it ends, 1 until it is started, 2 until unique_until
    unique_until  INTEGER,
    binds         INTEGER,                       -- 1 while no other may have the key
    limit_key     TEXT,                          -- at most limit_max of these run at a time
    limit_max     INTEGER,
    rate_key      TEXT,                          -- at most rate_max of these are started within rate_ms
    rate_max      INTEGER,
    rate_ms       INTEGER,
    blocked_by    TEXT,                          -- the limit that it waits for: c: or r: and the key
    progress      REAL,                          -- 0 to 1
    progress_text TEXT,
    cursor        TEXT,                          -- JSON; where the next attempt goes on
    cancel_reason TEXT                           -- it runs, and is cancelled when that ends
) STRICT;

INSERT INTO jobs_2 (id, kind, arguments, state, priority, attempt, attempts_max, deaths, run_at, enqueued_at,
                    started_at, finished_at, error, unique_key, unique_scope, binds)
SELECT id, kind, arguments, state, priority, attempt, attempts_max, deaths, run_at, enqueued_at,
       started_at, finished_at, error,
       kind || ':' || unique_key,
       CASE WHEN unique_key IS NOT NULL THEN 0 END,
       CASE WHEN unique_key IS NOT NULL THEN state IN ('available', 'executing', 'retryable') END
FROM jobs;

-- Ids are not given twice, even if the jobs that had them are pruned.
DELETE FROM sqlite_sequence WHERE name = 'jobs_2';
INSERT INTO sqlite_sequence (name, seq) SELECT 'jobs_2', seq FROM sqlite_sequence WHERE name = 'jobs';

DROP TABLE jobs;
ALTER TABLE jobs_2 RENAME TO jobs;

-- The claim: what is due, by priority, then by time.
CREATE INDEX jobs_claim ON jobs (queue, priority, run_at)
    WHERE (state = 'available' OR state = 'retryable') AND blocked_by IS NULL;

-- What each worker runs: the rescue after a crash.
CREATE INDEX jobs_executing ON jobs (worker) WHERE state = 'executing';

-- What runs of a limited key.
CREATE INDEX jobs_limited ON jobs (limit_key) WHERE state = 'executing' AND limit_key IS NOT NULL;

-- What waits for a limit, in the order in which it is let go on.
CREATE INDEX jobs_blocked ON jobs (blocked_by, priority, run_at) WHERE blocked_by IS NOT NULL;

-- Those that a process has died with: they are few.
CREATE INDEX jobs_suspect ON jobs (run_at) WHERE deaths > 0;

-- Pruning, oldest first; and those that nobody knows how to run.
CREATE INDEX jobs_finished ON jobs (state, finished_at)
    WHERE (state = 'completed' OR state = 'discarded' OR state = 'cancelled' OR state = 'parked');

CREATE UNIQUE INDEX jobs_unique ON jobs (unique_key) WHERE binds = 1;

-- Every attempt that failed.
CREATE TABLE job_errors (
    job     INTEGER NOT NULL,
    claim   INTEGER NOT NULL,                    -- which claim of it
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    error   TEXT    NOT NULL,
    PRIMARY KEY (job, claim)
) STRICT, WITHOUT ROWID;

-- Who runs jobs. A process whose beat does not change for too long is dead.
CREATE TABLE workers (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,
    kinds      TEXT    NOT NULL,                 -- JSON: the names of the jobs that it knows
    beat       INTEGER NOT NULL DEFAULT 0,
    started_at INTEGER NOT NULL
) STRICT;

-- When jobs with a rate limit were started: the last ones of each key.
CREATE TABLE job_starts (
    key TEXT    NOT NULL,
    at  INTEGER NOT NULL
) STRICT;
CREATE INDEX job_starts_by_key ON job_starts (key, at);

-- When jobs that wait for their rate may be started again.
CREATE TABLE rates (
    key     TEXT    PRIMARY KEY,
    open_at INTEGER NOT NULL,
    rate_ms INTEGER NOT NULL
) STRICT;

-- What is said of a queue; one that is not here is as any other.
CREATE TABLE queues (
    name      TEXT PRIMARY KEY,
    paused_at INTEGER                            -- none of its jobs is claimed, if it is not NULL
) STRICT;
