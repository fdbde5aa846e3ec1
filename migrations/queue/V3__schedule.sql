-- What became of each entry of the schedule. One that no program has any more stays, and does nothing.
ALTER TABLE schedule ADD COLUMN enqueued_at INTEGER; -- when a job of it was enqueued last
ALTER TABLE schedule ADD COLUMN job_id      INTEGER; -- which one that was; it may be pruned by now
ALTER TABLE schedule ADD COLUMN paused_at   INTEGER; -- since when its ticks pass without a job
