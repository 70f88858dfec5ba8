-- What is to be told, a row for each notifier; written in the transaction of what it is about.
-- It waits until it has an end: told, merged (what it says was told with another row), refused (told through another notifier) or expired.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        TEXT    NOT NULL UNIQUE,
    notifier   TEXT    NOT NULL,
    story      TEXT,
    news       TEXT    NOT NULL,
    not_before INTEGER NOT NULL,
    end        TEXT CHECK (end IN ('told', 'merged', 'refused', 'expired')),
    ended      INTEGER,
    noted      INTEGER
);
CREATE INDEX outbox_waiting ON outbox (notifier, id) WHERE end IS NULL;
CREATE INDEX outbox_by_story ON outbox (story) WHERE story IS NOT NULL;

-- A message is written before a notifier is given it, with its rows: after a crash it is given the same again, under the same key.
-- Without an end nobody knows whether it has arrived, unless it was put off. `cost` is in millionths of a dollar.
CREATE TABLE messages (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    notifier TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    parts    TEXT    NOT NULL,
    begun    INTEGER NOT NULL,
    put_off  INTEGER NOT NULL DEFAULT 0,
    ended    INTEGER,
    cost     INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX messages_open ON messages (notifier) WHERE ended IS NULL;

-- Where a story's first message is at the service: what follows answers it.
CREATE TABLE threads (
    notifier TEXT    NOT NULL,
    story    TEXT    NOT NULL,
    receipt  TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (notifier, story)
) WITHOUT ROWID;

-- How each notifier is: `failures` in a row since `failing`, not tried before `next_try`; `blocked` since then while it has these settings.
CREATE TABLE notifiers (
    name     TEXT PRIMARY KEY,
    failures INTEGER NOT NULL DEFAULT 0,
    failing  INTEGER,
    next_try INTEGER,
    error    TEXT,
    blocked  INTEGER,
    settings TEXT,
    told     INTEGER
) WITHOUT ROWID;

-- What a notifier remembers between messages.
CREATE TABLE memories (
    notifier TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (notifier, key)
) WITHOUT ROWID;

-- One row that is written to see whether the ledger can be.
CREATE TABLE pulse (at INTEGER NOT NULL);
INSERT INTO pulse (at) VALUES (0);
