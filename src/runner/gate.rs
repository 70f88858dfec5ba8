//! Who may begin: named locks, taken all at once or not at all, and classes with a number of places.
use std::collections::BTreeMap;

/// How many runs of each class are at work at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Places by class.
    pub classes: BTreeMap<String, usize>,
    /// Places in each class that is not named.
    pub others: usize,
}

impl Default for Limits {
    /// One for the disk, four for the network, 64 for each other class.
    fn default() -> Self {
        Self { classes: [("disk".to_owned(), 1), ("network".to_owned(), 4)].into(), others: 64 }
    }
}

impl Limits {
    /// The number of places in `class`; at least one, or its jobs would wait for ever.
    #[must_use]
    pub fn of(&self, class: &str) -> usize {
        self.classes.get(class).copied().unwrap_or(self.others).max(1)
    }
}
