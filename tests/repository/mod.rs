//! Repositories in the restic format, judged by stock `restic`.
mod backup;
mod chunker;
mod restore;
mod stock;
mod support;
