//! Finding things in a backup.
use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
};

use super::{Index, Repository, node::Node, snapshot::Snapshot};

impl Repository {
    /// What a backup has at a path, seen from its top; `None` when it has nothing there.
    ///
    /// # Errors
    /// When a folder on the way cannot be read.
    pub async fn at(&self, index: &Index, snapshot: &Snapshot, path: &Path) -> anyhow::Result<Option<Node>> {
        let mut subtree = Some(snapshot.tree);
        let mut found = None;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let Some(id) = subtree else { return Ok(None) };
            let Some(node) = self.tree(index, &id).await?.find(name.as_bytes()).cloned() else { return Ok(None) };
            subtree = node.subtree;
            found = Some(node);
        }
        Ok(found)
    }
}
