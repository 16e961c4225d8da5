-- What is counted on this machine while the shared store is away, schema 1 (PRAGMA user_version). Moments are milliseconds
-- since 1970 on the daemon's own time line: the wall clock's when it began; setting the wall clock later does not move it.

-- One row.
CREATE TABLE store (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    merges_as     BLOB NOT NULL,    -- 6 bytes: under this name, and message.id, the shared store counts each message once
    hash_key      BLOB NOT NULL,    -- 16 bytes: the shared store's, as it was last told
    moment_ms     INTEGER NOT NULL, -- where the time line stood when something was last written
    boot_id       TEXT NOT NULL,    -- in this boot of the machine
    since_boot_ms INTEGER NOT NULL  -- so long after it began
) STRICT;

-- One row for each message that was accepted, until all of its customer's are merged.
CREATE TABLE message (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of acceptance, none is used twice
    at          INTEGER NOT NULL,   -- when it was accepted: seconds, rounded up
    customer    TEXT NOT NULL,
    user        TEXT,               -- null: the sender is no registered user
    login       TEXT,               -- null: no SMTP AUTH
    recipients  INTEGER NOT NULL,   -- different recipients
    seen        BLOB NOT NULL,      -- their hashes, 8 bytes each, as far as they are known
    transaction_id BLOB NOT NULL,   -- 12 bytes: what the shared store may hold for it still
    nonce       INTEGER,            -- the shared store may have counted it, under the transaction's first 6 bytes and this
    merged      INTEGER NOT NULL    -- 1: the shared store has counted it
) STRICT;

-- What the shared store told last, of two limits of each subject: a user's or login's messages and different recipients, a
-- customer's recipients in a day and in ten minutes.
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
