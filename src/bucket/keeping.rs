//! What a bucket keeps of objects that were replaced or deleted, and whether it lets go of them.

/// Whether older versions of objects are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// None: what is replaced or deleted is gone.
    Off,
    /// All, until each is removed by its own name.
    On,
    /// No new ones; those that were kept before are still there.
    Suspended,
}

/// Whether versions of objects are locked against removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectLock {
    /// They cannot be.
    Off,
    /// They are when whoever writes them asks for it.
    OnRequest,
    /// Each is, from when it is written.
    Each {
        /// Who can remove it all the same.
        mode: LockMode,
        /// For how long, as the server says it: `30 days`.
        time: String,
    },
}

/// How firm a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// A key that was given the right can break it.
    Governance,
    /// Nobody can break it.
    Compliance,
}

/// What became of the versions that were kept of a deleted object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Versions that were kept, the marks that deletes leave included.
    pub found: usize,
    /// How many of them are still there.
    pub left: usize,
    /// Their bytes.
    pub left_bytes: u64,
    /// Why the first of them could not be removed.
    pub refusal: Option<String>,
}
