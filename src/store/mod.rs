//! The ledger: runs, slots, lines, steps, facts, debts, in SQLite (WAL, one writer thread).
