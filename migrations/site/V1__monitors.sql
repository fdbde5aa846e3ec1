-- Times are milliseconds since 1970, UTC.

CREATE TABLE monitors (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL,
    method          TEXT    NOT NULL,
    address         TEXT    NOT NULL,
    expected_status INTEGER NOT NULL CHECK (expected_status BETWEEN 100 AND 599),
    body_text       TEXT,
    timeout_ms      INTEGER NOT NULL CHECK (timeout_ms > 0),
    interval_ms     INTEGER NOT NULL CHECK (interval_ms > 0),
    failures_max    INTEGER NOT NULL CHECK (failures_max > 0), -- so many in a row make an incident
    paused          INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    failures        INTEGER NOT NULL DEFAULT 0,                -- in a row, up to now
    next_check_at   INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    changed_at      INTEGER NOT NULL,                          -- a check begun before this counts for nothing
    deleted_at      INTEGER                                    -- its history goes in small steps, then it
) STRICT;

-- What is due.
CREATE INDEX monitors_due ON monitors (next_check_at) WHERE paused = 0 AND deleted_at IS NULL;

CREATE TABLE checks (
    id          INTEGER PRIMARY KEY,
    monitor_id  INTEGER NOT NULL REFERENCES monitors (id),
    at          INTEGER NOT NULL,
    duration_ms REAL    NOT NULL,
    status      INTEGER,
    cause       TEXT,             -- NULL: as expected
    detail      TEXT
) STRICT;

-- The last checks of a monitor; and the oldest of all, to be pruned.
CREATE INDEX checks_monitor_at ON checks (monitor_id, at);
CREATE INDEX checks_at ON checks (at);

-- What the checks of five minutes, of an hour and of a day (UTC) come to: a page reads some hundreds of these for
-- each monitor, and no check.
CREATE TABLE periods (
    monitor_id INTEGER NOT NULL REFERENCES monitors (id),
    length_ms  INTEGER NOT NULL,
    start_at   INTEGER NOT NULL,
    checks     INTEGER NOT NULL,
    failures   INTEGER NOT NULL,
    sum_ms     REAL    NOT NULL,  -- of the checks that did not fail
    max_ms     REAL    NOT NULL,
    PRIMARY KEY (monitor_id, length_ms, start_at)
) STRICT, WITHOUT ROWID;

CREATE TABLE incidents (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    monitor_id INTEGER NOT NULL REFERENCES monitors (id),
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,           -- NULL: it goes on
    cause      TEXT    NOT NULL,
    detail     TEXT    NOT NULL
) STRICT;

CREATE INDEX incidents_monitor ON incidents (monitor_id, started_at);

-- One at a time.
CREATE UNIQUE INDEX incidents_open ON incidents (monitor_id) WHERE ended_at IS NULL;

-- Grows with every change that shows on a page, whoever makes it: a page kept under this number is never stale.
CREATE TABLE revision (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL
) STRICT;

INSERT INTO revision (id, number) VALUES (1, 0);

CREATE TRIGGER monitors_inserted AFTER INSERT ON monitors
BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER monitors_updated AFTER UPDATE OF name, address, paused, failures, failures_max, deleted_at ON monitors
BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER checks_inserted AFTER INSERT ON checks
BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER incidents_inserted AFTER INSERT ON incidents
BEGIN
    UPDATE revision SET number = number + 1;
END;

CREATE TRIGGER incidents_updated AFTER UPDATE ON incidents
BEGIN
    UPDATE revision SET number = number + 1;
END;
