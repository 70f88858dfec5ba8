//! Rusuban keeps the house while its owner is away: it runs jobs written in TOML on time, backs up what they name,
//! proves that it comes back, and tells the truth about all of it.
//!
//! The modules, in reading order (`docs/architecture.md` has the arrows between them, `tests/layers.rs` holds them):
//!
//! - values and small tools: [`model`], [`policy`], [`clock`], [`text`]
//! - what people write: [`config`] (settings, job files, mistakes, secrets, units), [`job`]
//! - when: [`schedule`] (a cron line and its slots), [`scheduler`] (what is due, what was missed), [`follower`] (what happened to containers)
//! - what: [`kinds`], and the services they use: [`docker`], [`dyndns`], [`check`], [`bucket`], [`tree`], [`plain`], [`database`], [`retention`], [`process`],
//!   [`http`], and [`notify`] (the services that messages go to, and their words)
//! - what is on the host, and who keeps it: [`coverage`]
//! - what becomes of what checks find: [`watch`]
//! - one run from admission to its end: [`runner`]; the ledger of all of them: [`store`]
//! - the whole house: [`app`], and its faces: [`cli`], [`web`]
pub mod app;
pub mod bucket;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod coverage;
pub mod database;
pub mod docker;
pub mod dyndns;
pub mod follower;
pub mod http;
pub mod job;
pub mod kinds;
pub mod model;
pub mod notify;
pub mod plain;
pub mod policy;
pub mod process;
pub mod repository;
pub mod retention;
pub mod runner;
pub mod schedule;
pub mod scheduler;
pub mod store;
pub mod text;
pub mod tree;
pub mod watch;
pub mod web;
