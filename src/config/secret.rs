//! Secrets: where they come from, and that they go nowhere.
use std::{fmt, path::PathBuf, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A secret: it cannot be printed, logged or serialised, and it is removed by value from captured output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps `text` secret.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one call that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret comes from. A file or a command's output loses one final line break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// An environment variable of the Rusuban process.
    Env(String),
    /// A file; relative to the home folder.
    File(PathBuf),
    /// A command's standard output: the argument list, run without a shell.
    Command(Vec<String>),
}

/// Reads a secret from where it is; given by `config`, which alone reads the environment.
#[derive(Clone)]
pub struct SecretReader(pub Arc<ReadSecret>);

/// Reads one secret.
pub type ReadSecret = dyn Fn(&SecretSource) -> anyhow::Result<Secret> + Send + Sync;

impl fmt::Debug for SecretReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretReader")
    }
}

/// Removes secrets from text by value.
#[derive(Clone, Debug, Default)]
pub struct Redactor(Vec<Secret>);

impl Redactor {
    /// Removes these. Values shorter than 4 bytes are left alone: removing them would shred every line.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let mut secrets: Vec<_> = secrets.into_iter().filter(|secret| secret.reveal().len() >= 4).collect();
        // The longest first: a secret may contain another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.reveal().len()));
        Self(secrets)
    }

    /// `text` with each secret replaced by `•••`.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.reveal()) { text.replace(secret.reveal(), "•••") } else { text }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed_and_is_removed_from_text() {
        let secret = Secret::new("hunter22");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        let redactor = Redactor::new([Secret::new("hunter"), secret, Secret::new("ab")]);
        assert_eq!(redactor.clean("password=hunter22 absent"), "password=••• absent");
    }
}
