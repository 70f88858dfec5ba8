//! One run from admission to its end: overlap, locks, classes, time limit, retries, cancel, panic, hooks, debts.
