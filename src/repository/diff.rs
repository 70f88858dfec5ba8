//! What is different between two backups. Folders that both have as they are, are not read.
use std::{cmp::Ordering, collections::HashMap, path::PathBuf};

use super::{
    Id, Index, Repository,
    node::{Node, NodeKind, Tree},
    pack::BlobKind,
};

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its content is another, or where it points.
    Changed,
    /// It is something of another kind, such as a folder that was a file.
    Replaced,
    /// Its content is the same; rights, owners, times or attributes are not.
    Metadata,
}

/// Something that is different.
#[derive(Clone, Debug)]
pub struct Change {
    /// Where it is, seen from the top of the backup.
    pub path: PathBuf,
    /// What became of it.
    pub how: How,
    /// What it was.
    pub before: Option<Node>,
    /// What it is.
    pub after: Option<Node>,
}

/// How much is different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Things that are new.
    pub added: u64,
    /// Things that are gone.
    pub removed: u64,
    /// Things with another content, or of another kind.
    pub changed: u64,
    /// Things of which all but the content changed.
    pub metadata: u64,
    /// Bytes of content, each piece once, that only the later backup has among what is different.
    pub bytes_added: u64,
    /// Bytes of content that only the earlier one has.
    pub bytes_removed: u64,
}

impl Repository {
    /// Tells all that is different between two trees, in the order of names.
    ///
    /// # Errors
    /// When a folder cannot be read, or `tell` fails.
    pub async fn diff(
        &self,
        index: &Index,
        (before, after): (Id, Id),
        tell: &mut (dyn FnMut(Change) -> anyhow::Result<()> + Send),
    ) -> anyhow::Result<Difference> {
        let mut counted = Counted { index, total: Difference::default(), pieces: HashMap::new() };
        let mut open = vec![(PathBuf::from("/"), Some(before), Some(after))];
        while let Some((folder, before, after)) = open.pop() {
            if before == after {
                continue;
            }
            let pairs = pair(self.nodes(index, before).await?, self.nodes(index, after).await?);
            let mut below = Vec::new();
            for (before, after) in pairs {
                let Some(node) = after.as_ref().or(before.as_ref()) else { continue };
                let path = folder.join(node.os_name());
                let tree = |node: &Option<Node>| node.as_ref().and_then(|node| node.subtree);
                let trees = (tree(&before), tree(&after));
                if trees.0.is_some() || trees.1.is_some() {
                    below.push((path.clone(), trees.0, trees.1));
                }
                if let Some(how) = how(before.as_ref(), after.as_ref()) {
                    counted.count(how, before.as_ref(), after.as_ref());
                    tell(Change { path, how, before, after })?;
                }
            }
            // The last one in is the first one out.
            open.extend(below.into_iter().rev());
        }
        Ok(counted.end())
    }

    async fn nodes(&self, index: &Index, tree: Option<Id>) -> anyhow::Result<Vec<Node>> {
        let Tree { mut nodes } = match tree {
            Some(tree) => self.tree(index, &tree).await?,
            None => Tree::default(),
        };
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(nodes)
    }
}

/// What has the same name in both.
fn pair(before: Vec<Node>, after: Vec<Node>) -> Vec<(Option<Node>, Option<Node>)> {
    let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
    let mut pairs = Vec::new();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return pairs,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.name.cmp(&other.name),
        };
        pairs.push(match order {
            Ordering::Less => (before.next(), None),
            Ordering::Equal => (before.next(), after.next()),
            Ordering::Greater => (None, after.next()),
        });
    }
}

fn how(before: Option<&Node>, after: Option<&Node>) -> Option<How> {
    let (before, after) = match (before, after) {
        (None, None) => return None,
        (None, Some(_)) => return Some(How::Added),
        (Some(_), None) => return Some(How::Removed),
        (Some(before), Some(after)) => (before, after),
    };
    if before.kind != after.kind {
        return Some(How::Replaced);
    }
    if (&before.content, before.target(), before.device) != (&after.content, after.target(), after.device) {
        return Some(How::Changed);
    }
    let facts = |node: &Node| (node.mode(), node.uid, node.gid, node.extended_attributes.clone());
    // A folder's time changes with what is in it, which is told.
    let times = |node: &Node| (node.kind != NodeKind::Dir).then_some(node.mtime);
    (facts(before) != facts(after) || times(before) != times(after)).then_some(How::Metadata)
}

struct Counted<'a> {
    index: &'a Index,
    total: Difference,
    /// Pieces of what is different: whether the earlier backup has them, and the later one.
    pieces: HashMap<Id, (bool, bool)>,
}

impl Counted<'_> {
    fn count(&mut self, how: How, before: Option<&Node>, after: Option<&Node>) {
        let total = &mut self.total;
        *match how {
            How::Added => &mut total.added,
            How::Removed => &mut total.removed,
            How::Changed | How::Replaced => &mut total.changed,
            How::Metadata => &mut total.metadata,
        } += 1;
        let pieces = |node: Option<&Node>| node.and_then(|node| node.content.clone()).unwrap_or_default();
        if how != How::Metadata {
            pieces(before).into_iter().for_each(|id| self.pieces.entry(id).or_default().0 = true);
            pieces(after).into_iter().for_each(|id| self.pieces.entry(id).or_default().1 = true);
        }
    }

    fn end(mut self) -> Difference {
        for (id, (was, is)) in &self.pieces {
            let size = self.index.find(BlobKind::Data, id).map_or(0, |place| u64::from(place.blob.size()));
            match (was, is) {
                (false, true) => self.total.bytes_added += size,
                (true, false) => self.total.bytes_removed += size,
                _ => {}
            }
        }
        self.total
    }
}
