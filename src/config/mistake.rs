//! A mistake in a file, shown so that it can be mended: file, line, column, the line itself, and a hint.
use std::path::PathBuf;

use serde::Serialize;

/// Something in a file that must be mended (or, as a warning, looked at) before the file is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1; 0 when the mistake is about the file as a whole.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line itself.
    pub excerpt: String,
    /// How many characters of it are meant, from `column` on.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

/// What a kind or a schedule finds wrong with values that parsed; `config` turns it into a [`Mistake`] with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's path within the file, such as `source[0].sqlite`; empty: the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with the value at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: None }
    }

    /// With a hint how to mend it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}
