-- Static files of this build and, for a day, of those before it: whoever has one of their pages open still asks for them.
CREATE TABLE http_assets (
    name    TEXT    PRIMARY KEY,  -- as in its address, with the hash of the content
    content BLOB    NOT NULL,
    left_at INTEGER               -- when a build without it came, in milliseconds since 1970; NULL: this build has it
) STRICT;
