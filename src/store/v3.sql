-- States are numbers here: 0 up, 1 certificate_bad, 2 down, 3 unknown, 4 maintenance.

-- What is known of each check; `known` is JSON. A check of the house itself has the job `house`.
CREATE TABLE checks (
    id    INTEGER PRIMARY KEY,
    job   TEXT NOT NULL,
    label TEXT NOT NULL,
    known TEXT NOT NULL,
    UNIQUE (job, label)
);

-- From `since` on a check is in `state`, until its next row.
CREATE TABLE spans (
    subject INTEGER NOT NULL,
    since   INTEGER NOT NULL,
    state   INTEGER NOT NULL,
    PRIMARY KEY (subject, since)
) WITHOUT ROWID;

-- From a check's first failure to its recovery. `told`: when anybody was told of it first.
CREATE TABLE incidents (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    subject INTEGER NOT NULL,
    began   INTEGER NOT NULL,
    told    INTEGER,
    ended   INTEGER,
    state   INTEGER NOT NULL,
    flaps   INTEGER NOT NULL DEFAULT 0,
    what    TEXT    NOT NULL,
    causes  TEXT    NOT NULL DEFAULT '[]',
    offers  TEXT    NOT NULL DEFAULT '[]'
);
CREATE INDEX incidents_by_subject ON incidents (subject, id);

-- Each look of the last hours, in the order in which they come: written at the end, removed at the beginning.
CREATE TABLE looks (
    at      INTEGER NOT NULL,
    subject INTEGER NOT NULL,
    state   INTEGER NOT NULL,
    took    INTEGER,
    trouble INTEGER NOT NULL,
    PRIMARY KEY (at, subject)
) WITHOUT ROWID;

-- Each look of the last days, those of an hour in one row; hours and days are counted from 1970.
CREATE TABLE packed (
    hour    INTEGER NOT NULL,
    subject INTEGER NOT NULL,
    looks   BLOB    NOT NULL,
    PRIMARY KEY (hour, subject)
) WITHOUT ROWID;

-- What an hour came to, for months; and a day, for years.
CREATE TABLE hours (
    hour    INTEGER NOT NULL,
    subject INTEGER NOT NULL,
    summary BLOB    NOT NULL,
    PRIMARY KEY (hour, subject)
) WITHOUT ROWID;
CREATE TABLE days (
    day     INTEGER NOT NULL,
    subject INTEGER NOT NULL,
    summary BLOB    NOT NULL,
    PRIMARY KEY (day, subject)
) WITHOUT ROWID;

-- Work by hand: the checks that `target` names are not told of until then.
CREATE TABLE pauses (
    target TEXT PRIMARY KEY,
    since  INTEGER NOT NULL,
    until  INTEGER
) WITHOUT ROWID;
