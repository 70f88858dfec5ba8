//! All tests that use the house from outside, in one binary.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod backup;
mod bucket;
mod cli;
mod config;
mod disk_report;
mod docker;
mod docs;
mod dyndns;
mod http;
mod layers;
mod mistakes;
mod notify;
mod outbox;
mod plain;
mod process;
mod report;
mod repository;
mod runner;
mod schedule;
mod site_check;
mod sqlite;
mod store;
mod support;
mod through_s3;
mod watch;
