-- What forms that are sent twice have had as their first answer.
CREATE TABLE once (
    -- In the order in which they came; only the oldest are deleted, so the highest less the lowest is how many there are.
    id INTEGER PRIMARY KEY,
    -- From the hidden field of the form.
    key TEXT NOT NULL UNIQUE,
    -- A checksum of who sent what, and where to.
    print BLOB NOT NULL,
    -- What the handler made of it, as JSON.
    answer TEXT NOT NULL,
    -- Milliseconds since 1970.
    at INTEGER NOT NULL
) STRICT;
