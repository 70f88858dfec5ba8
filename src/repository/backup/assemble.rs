//! Trees of what was found: each folder becomes a blob when all that is in it is stored.
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use crossbeam_channel::Receiver;

use super::{
    super::{
        node::{Moment, Node, NodeKind, Tree},
        pack::BlobKind,
        saver::{Intake, Tools},
    },
    gather::Event,
    pool::Slot,
};
use crate::tree::Notes;

/// Folders in a backup.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Folders {
    pub(super) new_or_changed: u64,
    pub(super) unmodified: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Something in a folder that may not be ready yet.
enum Child {
    Ready(Box<Node>),
    Reading(Arc<Slot>),
}

/// Takes what was found until there is no more; the top nodes, each with where it belongs below the source.
pub(super) fn assemble(
    events: &Receiver<Event>,
    intake: &Intake,
    notes: &Notes,
) -> anyhow::Result<(Vec<(PathBuf, Node)>, Folders)> {
    let mut tools = intake.tools()?;
    let mut folders = Folders::default();
    let mut open: Vec<(Node, Vec<Child>)> = Vec::new();
    let mut tops: Vec<(PathBuf, Child)> = Vec::new();
    let mut root = PathBuf::new();
    for event in events {
        let child = match event {
            Event::Root(member) => {
                root = member;
                continue;
            }
            Event::Enter(node) => {
                open.push((node, Vec::new()));
                continue;
            }
            Event::Leave => {
                let (node, children) = open.pop().context("a folder ends that did not begin")?;
                let nodes = ready(children, notes, &mut folders);
                let subtree = save(nodes, intake, &mut tools, &mut folders)?;
                notes.entry();
                Child::Ready(Box::new(Node { subtree: Some(subtree), ..node }))
            }
            Event::Node(node) => Child::Ready(Box::new(node)),
            Event::File(slot) => Child::Reading(slot),
        };
        match open.last_mut() {
            Some((_, children)) => children.push(child),
            None => tops.push((root.clone(), child)),
        }
    }
    let mut made = Vec::new();
    for (member, child) in tops {
        made.extend(ready(vec![child], notes, &mut folders).into_iter().map(|node| (member.clone(), node)));
    }
    Ok((made, folders))
}

fn ready(children: Vec<Child>, notes: &Notes, folders: &mut Folders) -> Vec<Node> {
    let mut nodes = Vec::with_capacity(children.len());
    for child in children {
        let node = match child {
            Child::Ready(node) => *node,
            Child::Reading(slot) => match slot.wait() {
                Some(node) => node,
                None => continue,
            },
        };
        if node.kind != NodeKind::Dir {
            notes.entry();
        }
        if node.kind == NodeKind::File {
            folders.files += 1;
            folders.bytes += node.size;
        }
        nodes.push(node);
    }
    nodes
}

fn save(
    nodes: Vec<Node>,
    intake: &Intake,
    tools: &mut Tools,
    folders: &mut Folders,
) -> anyhow::Result<super::super::Id> {
    let saved = intake.save(BlobKind::Tree, &Tree { nodes }.to_json()?, tools)?;
    if saved.is_new {
        folders.new_or_changed += 1;
    } else {
        folders.unmodified += 1;
    }
    Ok(saved.id)
}

/// The one tree of all sources: each node where it belongs, and folders above them as they are on the disk, if they are.
pub(super) fn join(
    sources: Vec<(PathBuf, Node)>,
    look: &dyn Fn(&std::path::Path) -> Option<Node>,
    intake: &Intake,
) -> anyhow::Result<super::super::Id> {
    let mut tools = intake.tools()?;
    let mut top = Above::default();
    for (path, node) in sources {
        top.put(&path, node)?;
    }
    Ok(top.save(std::path::Path::new("/"), look, intake, &mut tools)?.0)
}

/// A folder above sources.
#[derive(Default)]
struct Above {
    below: BTreeMap<Vec<u8>, Entry>,
}

enum Entry {
    Node(Box<Node>),
    Above(Above),
}

impl Above {
    fn put(&mut self, path: &std::path::Path, node: Node) -> anyhow::Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut at = self;
        let parts: Vec<&[u8]> = path
            .components()
            .filter_map(|part| match part {
                std::path::Component::Normal(name) => Some(name.as_bytes()),
                _ => None,
            })
            .collect();
        let (name, above) = parts.split_last().context("a source has no name")?;
        for folder in above {
            let entry = at.below.entry(folder.to_vec()).or_insert_with(|| Entry::Above(Self::default()));
            let Entry::Above(next) = entry else { anyhow::bail!("{} lies in another source", path.display()) };
            at = next;
        }
        let node = Node { name: name.to_vec(), ..node };
        let taken = at.below.insert(name.to_vec(), Entry::Node(Box::new(node))).is_some();
        anyhow::ensure!(!taken, "two sources are at {}", path.display());
        Ok(())
    }

    fn save(
        self,
        path: &std::path::Path,
        look: &dyn Fn(&std::path::Path) -> Option<Node>,
        intake: &Intake,
        tools: &mut Tools,
    ) -> anyhow::Result<(super::super::Id, Option<Moment>)> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut nodes: Vec<Node> = Vec::new();
        for (name, entry) in self.below {
            nodes.push(match entry {
                Entry::Node(node) => *node,
                Entry::Above(above) => {
                    let here = path.join(std::ffi::OsStr::from_bytes(&name));
                    let (subtree, newest) = above.save(&here, look, intake, tools)?;
                    // It is on no disk; it is as old as what is in it.
                    let plain = || {
                        let mut node = Node::new(name.clone(), NodeKind::Dir);
                        node.set_mode(0o700);
                        if let Some(newest) = newest {
                            (node.mtime, node.atime, node.ctime) = (newest, newest, newest);
                        }
                        node
                    };
                    let node = look(&here).unwrap_or_else(plain);
                    Node { name, subtree: Some(subtree), ..node }
                }
            });
        }
        let newest = nodes.iter().map(|node| node.mtime).max();
        Ok((intake.save(BlobKind::Tree, &Tree { nodes }.to_json()?, tools)?.id, newest))
    }
}
