//! What several tests stand on: real servers on loopback, and a record that is looked at afterwards.
pub(crate) mod allow;
pub(crate) mod ceph;
pub(crate) mod cut;
pub(crate) mod disk;
pub(crate) mod docker;
pub(crate) mod fake_s3;
pub(crate) mod faulty;
pub(crate) mod frozen;
pub(crate) mod garage;
pub(crate) mod http;
pub(crate) mod kind;
pub(crate) mod mutate;
pub(crate) mod proxy;
pub(crate) mod restic;
pub(crate) mod rustic;
pub(crate) mod tls;
pub(crate) mod trees;
