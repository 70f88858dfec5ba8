-- Moments are milliseconds since 1970 in UTC.

-- What the schedule knows of a job: everything up to `cursor` is settled.
CREATE TABLE jobs (
    name   TEXT PRIMARY KEY,
    cursor INTEGER,
    paused INTEGER
) WITHOUT ROWID;

-- One row a slot, one end a slot. A long gap's oldest slots share one row: `count` of them, from `due` to `last`.
CREATE TABLE slots (
    job    TEXT    NOT NULL,
    due    INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    count  INTEGER NOT NULL DEFAULT 1,
    end    TEXT    NOT NULL CHECK (end IN ('run', 'skipped', 'missed')),
    reason TEXT,
    run    INTEGER,
    PRIMARY KEY (job, due)
) WITHOUT ROWID;

CREATE TABLE runs (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    job      TEXT    NOT NULL,
    trigger  TEXT    NOT NULL,
    queued   INTEGER NOT NULL,
    started  INTEGER,
    finished INTEGER,
    outcome  TEXT CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'timed_out', 'interrupted')),
    attempts INTEGER NOT NULL DEFAULT 0,
    message  TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX runs_by_job ON runs (job, id);
CREATE INDEX runs_succeeded ON runs (job, id) WHERE outcome = 'succeeded';
CREATE INDEX runs_unfinished ON runs (id) WHERE finished IS NULL;

CREATE TABLE lines (
    run    INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    level  TEXT    NOT NULL,
    text   TEXT    NOT NULL,
    PRIMARY KEY (run, number)
) WITHOUT ROWID;

CREATE TABLE steps (
    id    INTEGER PRIMARY KEY,
    run   INTEGER NOT NULL,
    name  TEXT    NOT NULL,
    began INTEGER NOT NULL,
    ended INTEGER,
    error TEXT
);
CREATE INDEX steps_by_run ON steps (run);

-- What a run of a job remembers for later ones.
CREATE TABLE facts (
    job   TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (job, key)
) WITHOUT ROWID;

-- What must be undone even if we die half way.
CREATE TABLE debts (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    run  INTEGER NOT NULL,
    job  TEXT    NOT NULL,
    debt TEXT    NOT NULL
);

-- What the ledger has to say of itself, such as what it could write only later.
CREATE TABLE notes (
    id   INTEGER PRIMARY KEY,
    at   INTEGER NOT NULL,
    text TEXT    NOT NULL
);
