//! A first look at a tree that others still write to: its files are read and stored, so that when it stands still only those that have
//! changed since must be read.
use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crossbeam_channel::Receiver;

use super::{super::node::Node, gather::Event};
use crate::tree::{Listener, Tree};

/// File systems on which a file may change, through mapped memory or from elsewhere, before its times do.
const LATE_TIMES: [u32; 8] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB
    0x00c3_6400, // Ceph
    0x0102_1997, // 9P
    0x6573_5546, // FUSE
];

/// The files that a first look has read, by the numbers of their file system and their own.
#[derive(Debug, Default)]
pub struct Ahead {
    pub(super) files: HashMap<(u64, u64), Node>,
    /// When it was begun: what changed at that moment or later is read again.
    pub(super) begun: i64,
}

impl Ahead {
    /// Gathers what is read.
    pub(super) fn gather(events: &Receiver<Event>, files: &Mutex<HashMap<(u64, u64), Node>>) {
        for event in events {
            let Event::File(slot) = event else { continue };
            if let Some(node) = slot.wait() {
                // Many of these are held: without what the second look tells anyway.
                let node = Node { name: Vec::new(), user: String::new(), group: String::new(), ..node };
                let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                files.insert((node.device_id, node.inode), node);
            }
        }
    }
}

/// Has the kernel write down what it holds of the file systems that a tree is on: a program that writes through mapped memory is seen by
/// the change of a file's times only at its first write after that. Whether an unchanged time then means an unchanged file.
pub(super) fn settle(tree: &Tree) -> bool {
    let settle = |path: &Path| {
        // The type is told as a signed or an unsigned number, by the machine's kind.
        let is_late =
            |file: &File| rustix::fs::fstatfs(file).is_ok_and(|found| LATE_TIMES.contains(&(found.f_type as u32)));
        File::open(path).is_ok_and(|file| !is_late(&file) && rustix::fs::syncfs(&file).is_ok())
    };
    tree.places().all(settle)
}

/// Listens to a first look: what it finds wrong, the second one tells.
pub(super) struct Unconcerned(pub(super) Arc<dyn Listener>);

impl Listener for Unconcerned {
    fn info(&self, _: &str) {}

    fn warn(&self, _: &str) {}

    fn progress(&self, done: u64, total: Option<u64>) {
        self.0.progress(done, total);
    }

    fn added(&self, bytes: u64) {
        self.0.added(bytes);
    }
}
