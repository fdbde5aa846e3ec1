-- People, what they are signed in with, and the links that they are sent. All times are milliseconds since 1970.
CREATE TABLE users (
    id            INTEGER PRIMARY KEY,
    email         TEXT    NOT NULL CHECK (length(email) BETWEEN 3 AND 254),          -- as it was entered, trimmed
    email_key     TEXT    NOT NULL UNIQUE,       -- the same in small letters: two people cannot differ by that alone
    name          TEXT    NOT NULL DEFAULT '' CHECK (length(name) <= 100),
    password_hash TEXT,                          -- argon2id, with its parameters; null for who has not set one yet
    role          TEXT    NOT NULL CHECK (role = 'owner' OR role = 'member'),
    totp_secret   BLOB,                          -- the second factor; null where there is none
    totp_pending  BLOB,                          -- one that was shown, and not confirmed by a code yet
    totp_step     INTEGER,                       -- the step of the last code that was taken: none is good twice
    created_at    INTEGER NOT NULL,
    disabled_at   INTEGER                        -- cannot sign in from then on, and has no session
) STRICT;

CREATE INDEX users_by_role ON users (role);

CREATE TABLE sessions (
    id         INTEGER PRIMARY KEY,              -- what a page may name it by
    key        BLOB    NOT NULL UNIQUE CHECK (length(key) = 32), -- SHA-256 of what the cookie has
    user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,                 -- to about five minutes
    expires_at INTEGER NOT NULL,                 -- however often it is seen
    address    TEXT,                             -- of who signed in
    agent      TEXT CHECK (length(agent) <= 200)
) STRICT;

CREATE INDEX sessions_by_user ON sessions (user_id, created_at);
CREATE INDEX sessions_by_end ON sessions (expires_at);
CREATE INDEX sessions_by_sight ON sessions (seen_at);

-- Links, each good once, and the half sessions of those who are asked for a code.
CREATE TABLE tokens (
    key        BLOB    PRIMARY KEY CHECK (length(key) = 32), -- SHA-256 of what the link or the cookie has
    purpose    TEXT    NOT NULL CHECK (purpose = 'owner' OR purpose = 'invite' OR purpose = 'reset' OR purpose = 'second'),
    user_id    INTEGER REFERENCES users (id) ON DELETE CASCADE, -- null for the link of the first owner
    tries      INTEGER NOT NULL DEFAULT 0,       -- codes that were wrong
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    CHECK ((user_id IS NULL) = (purpose = 'owner'))
) STRICT, WITHOUT ROWID;

CREATE INDEX tokens_by_user ON tokens (user_id, purpose);
CREATE INDEX tokens_by_end ON tokens (expires_at);

-- What signs in without the second factor, each once.
CREATE TABLE recovery_codes (
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key     BLOB    NOT NULL CHECK (length(key) = 32),       -- SHA-256 of the code
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;
