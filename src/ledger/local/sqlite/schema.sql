-- The ledger on disk, schema 1 (PRAGMA user_version). Times are seconds since 1970 on the ledger's own time line: the wall
-- clock's when it began; setting the wall clock later does not move it.

-- One row: what the whole store has.
CREATE TABLE store (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    hash_key      BLOB NOT NULL,    -- 16 bytes; a recipient is remembered as SipHash-1-3 of its address under this key
    moment_ms     INTEGER NOT NULL, -- where the time line stood when the last batch was written
    boot_id       TEXT NOT NULL,    -- in this boot of the machine
    since_boot_ms INTEGER NOT NULL  -- so long after it began
) STRICT;

-- Who is counted. An account has a row as long as anything of it counts.
CREATE TABLE account (
    number   INTEGER PRIMARY KEY,
    kind     TEXT NOT NULL CHECK (kind IN ('customer', 'user', 'login')),
    customer TEXT NOT NULL,         -- the customer's name
    name     TEXT NOT NULL          -- the user's address, the login, or the customer's name again
) STRICT;

-- One row for each accepted message, deleted when a day has passed.
CREATE TABLE message (
    id         INTEGER PRIMARY KEY, -- in the order of acceptance
    at         INTEGER NOT NULL,    -- when it was accepted, rounded up
    customer   INTEGER NOT NULL,    -- account.number
    user       INTEGER,             -- account.number; null: the sender is no registered user
    login      INTEGER,             -- account.number; null: no SMTP AUTH
    recipients INTEGER NOT NULL,    -- different recipients
    seen       BLOB                 -- their hashes, 8 bytes each, as far as they are known; null without user and login
) STRICT;

-- One row for each `quota reset`: messages of the account with a lower id count for it no more.
CREATE TABLE reset (
    id       INTEGER PRIMARY KEY,   -- numbered with message.id
    at       INTEGER NOT NULL,
    account  INTEGER,               -- account.number; null: nothing was counted
    kind     TEXT NOT NULL,
    customer TEXT NOT NULL,
    name     TEXT NOT NULL,
    why      TEXT NOT NULL
) STRICT;

-- For people.

CREATE VIEW messages AS
SELECT message.id, datetime(message.at, 'unixepoch') AS utc, customer.name AS customer, user.name AS user,
       login.name AS login, message.recipients
FROM message
LEFT JOIN account AS customer ON customer.number = message.customer
LEFT JOIN account AS user ON user.number = message.user
LEFT JOIN account AS login ON login.number = message.login;

CREATE VIEW customer_usage AS
SELECT account.name AS customer,
       sum(message.recipients) FILTER (WHERE message.at > unixepoch() - 86400) AS recipients_per_day,
       sum(message.recipients) FILTER (WHERE message.at > unixepoch() - 600) AS recipients_per_10_min,
       datetime(max(message.at), 'unixepoch') AS last_utc
FROM message JOIN account ON account.number = message.customer
WHERE message.id > coalesce((SELECT max(id) FROM reset WHERE reset.account = message.customer), 0)
GROUP BY account.name;

-- 1, 2, 3, up to the longest list of recipients.
CREATE VIEW nth AS
WITH RECURSIVE counted(value) AS (
    SELECT 1 UNION ALL
    SELECT value + 1 FROM counted WHERE value < (SELECT coalesce(max(length(seen)), 0) / 8 FROM message)
)
SELECT value FROM counted;

CREATE VIEW user_usage AS
SELECT account.name AS user, account.customer,
       count(DISTINCT message.id) AS messages_per_day,
       count(DISTINCT substr(message.seen, 8 * nth.value - 7, 8)) AS unique_recipients_per_day,
       datetime(max(message.at), 'unixepoch') AS last_utc
FROM message JOIN account ON account.number = message.user
LEFT JOIN nth ON nth.value <= length(message.seen) / 8
WHERE message.at > unixepoch() - 86400
  AND message.id > coalesce((SELECT max(id) FROM reset WHERE reset.account = message.user), 0)
GROUP BY account.customer, account.name;

CREATE VIEW login_usage AS
SELECT account.name AS login, account.customer,
       count(DISTINCT message.id) AS messages_per_day,
       count(DISTINCT substr(message.seen, 8 * nth.value - 7, 8)) AS unique_recipients_per_day,
       datetime(max(message.at), 'unixepoch') AS last_utc
FROM message JOIN account ON account.number = message.login
LEFT JOIN nth ON nth.value <= length(message.seen) / 8
WHERE message.at > unixepoch() - 86400
  AND message.id > coalesce((SELECT max(id) FROM reset WHERE reset.account = message.login), 0)
GROUP BY account.customer, account.name;

CREATE VIEW resets AS
SELECT id, datetime(at, 'unixepoch') AS utc, kind, customer, name, why FROM reset;
