//! Repositories in the restic format, judged by stock `restic`.
mod backup;
mod chunker;
mod damage;
mod faults;
mod golden;
mod prune;
mod restore;
mod stock;
mod support;

pub(crate) use restore::noise;
