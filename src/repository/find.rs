//! Finding things in backups: one thing at a place, all things below it, and which backups have what.
use std::{
    collections::HashMap,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
    vec,
};

use super::{
    Id, Index, Repository,
    node::{Node, NodeKind},
    snapshot::Snapshot,
};

/// Goes through all that is below a folder: each folder before what is in it, in the order of names. It holds the folders on
/// the way and no more.
#[derive(Debug)]
pub struct Descent<'a> {
    repository: &'a Repository,
    index: &'a Index,
    open: Vec<(PathBuf, vec::IntoIter<Node>)>,
    /// The folder that was seen last.
    below: Option<(PathBuf, Id)>,
}

impl Descent<'_> {
    /// The next thing, and where it is.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub async fn next(&mut self) -> anyhow::Result<Option<(PathBuf, Node)>> {
        if let Some((path, id)) = self.below.take() {
            let tree = self.repository.tree(self.index, &id).await?;
            self.open.push((path, tree.nodes.into_iter()));
        }
        while let Some((folder, nodes)) = self.open.last_mut() {
            let Some(node) = nodes.next() else {
                self.open.pop();
                continue;
            };
            let path = folder.join(node.os_name());
            self.below = node.subtree.map(|id| (path.clone(), id));
            return Ok(Some((path, node)));
        }
        Ok(None)
    }

    /// Leaves out what is in the folder that was seen last.
    pub fn pass(&mut self) {
        self.below = None;
    }
}

/// Something that was looked for, and the backups that have it exactly so.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is, seen from the top of the backup.
    pub path: PathBuf,
    /// What it is.
    pub node: Node,
    /// The backups: numbers in the list that was looked through.
    pub backups: Vec<usize>,
}

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

    /// All that is below the folder `tree`, which is at `path`.
    #[must_use]
    pub fn below<'a>(&'a self, index: &'a Index, tree: Id, path: &Path) -> Descent<'a> {
        Descent { repository: self, index, open: Vec::new(), below: Some((path.to_owned(), tree)) }
    }

    /// Looks through backups for what `fits`. A folder that several backups have in common is read once.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub async fn find(
        &self,
        index: &Index,
        snapshots: &[Snapshot],
        fits: &(dyn Fn(&Path, &Node) -> bool + Sync),
    ) -> anyhow::Result<Vec<Found>> {
        let mut search =
            Search { repository: self, index, fits, found: Vec::new(), at: HashMap::new(), seen: HashMap::new() };
        for (number, snapshot) in snapshots.iter().enumerate() {
            for found in search.folder(Path::new("/"), snapshot.tree).await? {
                search.found[found].backups.push(number);
            }
        }
        Ok(search.found)
    }
}

struct Search<'a> {
    repository: &'a Repository,
    index: &'a Index,
    fits: &'a (dyn Fn(&Path, &Node) -> bool + Sync),
    found: Vec<Found>,
    /// What was found at a path: one for each state that it had.
    at: HashMap<PathBuf, Vec<usize>>,
    /// What was found in a folder and below. The same folder elsewhere may hold other things that fit.
    seen: HashMap<Id, Box<[usize]>>,
}

/// A folder that is being looked through.
struct Open {
    path: PathBuf,
    name: Id,
    nodes: vec::IntoIter<Node>,
    found: Vec<usize>,
}

impl Search<'_> {
    /// All that fits in a folder and below it.
    async fn folder(&mut self, path: &Path, tree: Id) -> anyhow::Result<Box<[usize]>> {
        let mut open = Vec::new();
        let mut done = self.enter(path.to_owned(), tree, &mut open).await?;
        loop {
            if let Some(done) = done.take() {
                match open.last_mut() {
                    Some(above) => above.found.extend_from_slice(&done),
                    None => return Ok(done),
                }
            }
            let Some(here) = open.last_mut() else { return Ok(Box::default()) };
            match here.nodes.next() {
                Some(node) => {
                    let path = here.path.join(node.os_name());
                    let subtree = node.subtree;
                    if (self.fits)(&path, &node) {
                        here.found.push(self.note(path.clone(), node));
                    }
                    if let Some(subtree) = subtree {
                        done = self.enter(path, subtree, &mut open).await?;
                    }
                }
                None => {
                    let here = open.pop().map(|here| (here.name, here.found.into_boxed_slice()));
                    if let Some((name, found)) = here {
                        self.seen.insert(name, found.clone());
                        done = Some(found);
                    }
                }
            }
        }
    }

    /// Begins with a folder, or tells what is known of it.
    async fn enter(&self, path: PathBuf, tree: Id, open: &mut Vec<Open>) -> anyhow::Result<Option<Box<[usize]>>> {
        let name = Id::of(&[tree.0.as_slice(), path.as_os_str().as_bytes()].concat());
        if let Some(found) = self.seen.get(&name) {
            return Ok(Some(found.clone()));
        }
        let nodes = self.repository.tree(self.index, &tree).await?.nodes.into_iter();
        open.push(Open { path, name, nodes, found: Vec::new() });
        Ok(None)
    }

    /// The number of what was found: the same as before, when nothing of it has changed.
    fn note(&mut self, path: PathBuf, node: Node) -> usize {
        let facts = |node: &Node| (node.kind, node.size, node.mtime, node.mode(), node.uid, node.gid);
        let states = self.at.entry(path.clone()).or_default();
        let same = |at: &&usize| {
            let known = &self.found[**at].node;
            facts(known) == facts(&node) && (node.kind == NodeKind::Dir || known.content == node.content)
        };
        if let Some(at) = states.iter().find(same) {
            return *at;
        }
        states.push(self.found.len());
        self.found.push(Found { path, node, backups: Vec::new() });
        self.found.len() - 1
    }
}
