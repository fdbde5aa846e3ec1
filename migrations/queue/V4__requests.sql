-- What a request may say for itself: in which states it holds its unique key, and how long it waits between attempts.
ALTER TABLE jobs ADD COLUMN unique_states TEXT; -- for unique_scope 3: their words, with commas
ALTER TABLE jobs ADD COLUMN backoff       TEXT; -- JSON, where it is not the type's
