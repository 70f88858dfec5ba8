//! The composition root: everything opened once, and the verbs that all faces use.
