//! A first look at a tree that others still write to: its files are read and stored, so that when it stands still only those that have
//! changed since must be read.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crossbeam_channel::Receiver;

use super::{super::node::Node, gather::Event};
use crate::tree::Listener;

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
