//! Buckets: one suite of promises for each, and what each does when things go wrong.
mod ceph;
mod faults;
mod folder;
mod probe;
pub(crate) mod promises;
mod s3;
mod suites;
