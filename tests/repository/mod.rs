//! Repositories in the restic format, judged by stock `restic`.
mod backup;
mod restore;
mod support;
