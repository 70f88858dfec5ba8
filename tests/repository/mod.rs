//! Repositories in the restic format, judged by stock `restic`.
mod ahead;
mod backup;
mod beside;
mod chunker;
mod copy;
mod damage;
mod faults;
mod full;
mod golden;
mod hostile;
mod model;
mod prune;
mod repair;
mod restore;
mod rights;
mod rustic;
mod stock;
mod support;
mod targets;

pub(crate) use restore::noise;
