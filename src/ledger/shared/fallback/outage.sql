-- What is counted locally while the shared store is unreachable, schema 1 (PRAGMA user_version). Moments are milliseconds since
-- 1970 on the daemon's own time line: the wall clock's when it began; setting the wall clock later does not move it.

-- One row.
CREATE TABLE store (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    merges_as     BLOB NOT NULL,    -- 6 bytes: under this name, and message.id, the shared store counts each message once
    hash_key      BLOB NOT NULL,    -- 16 bytes: the shared store's, as last read
    moment_ms     INTEGER NOT NULL, -- the time line's position when it was last written
    boot_id       TEXT NOT NULL,    -- in this boot of the machine
    since_boot_ms INTEGER NOT NULL  -- that long after its start
) STRICT;

-- One row for each message that was accepted, until all of its customer's are merged.
CREATE TABLE message (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of acceptance; never used twice
    at          INTEGER NOT NULL,   -- when it was accepted: seconds, rounded up
    customer    TEXT NOT NULL,
    user        TEXT,               -- null: the sender is not a registered user
    login       TEXT,               -- null: no SMTP AUTH
    recipients  INTEGER NOT NULL,   -- unique recipients
    seen        BLOB NOT NULL,      -- their hashes, 8 bytes each, as far as their addresses are known
    transaction_id BLOB NOT NULL,   -- 12 bytes: its reservation in the shared store, if any
    nonce       INTEGER,            -- the shared store may have counted it under this nonce of the transaction's first 6 bytes
    merged      INTEGER NOT NULL    -- 1: the shared store has counted it
) STRICT;

-- The usage that the shared store last reported, of two limits of each subject: a user's or login's messages and unique
-- recipients, a customer's recipients in a day and in ten minutes.
CREATE TABLE known (
    kind       TEXT NOT NULL CHECK (kind IN ('customer', 'user', 'login')),
    customer   TEXT NOT NULL,
    name       TEXT NOT NULL,
    used_1     INTEGER NOT NULL,
    moment_1   INTEGER NOT NULL,
    used_2     INTEGER NOT NULL,
    moment_2   INTEGER NOT NULL,
    PRIMARY KEY (kind, customer, name)
) STRICT, WITHOUT ROWID;
