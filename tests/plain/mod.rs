//! Backups in the plain layout, judged by other programs: GNU tar, zstd, age and rsync.
mod age;
mod back;
mod cut;
mod failures;
mod support;
mod trees;
