//! Backups in the plain layout, judged by other programs: GNU tar, zstd, age and rsync.
mod age;
mod back;
mod changing;
mod cut;
mod failures;
mod killed;
mod memory;
mod spooled;
mod support;
mod trees;
