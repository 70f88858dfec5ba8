//! Databases: how each engine is dumped, proven, counted.
pub mod sqlite;
