//! Where the files are, and what the environment says.
use std::{
    collections::BTreeMap,
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// The home folder: `rusuban.toml` and `jobs/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

/// The process's environment, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process; variables that are no text are left out.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the environment")]
    pub fn of_process() -> Self {
        Self(
            env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// A variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names of all variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl Home {
    /// The folder that was asked for, else `RUSUBAN_HOME`, else the current one; as an absolute path.
    ///
    /// # Errors
    /// When it is not there.
    pub fn find(asked: Option<PathBuf>, environment: &Environment) -> anyhow::Result<Self> {
        let folder = asked.or_else(|| environment.get("RUSUBAN_HOME").map(PathBuf::from)).unwrap_or_else(|| ".".into());
        let absolute = fs::canonicalize(&folder).with_context(|| {
            format!("find the home folder {}, which --home or RUSUBAN_HOME names", folder.display())
        })?;
        Ok(Self(absolute))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `rusuban.toml`.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.0.join("rusuban.toml")
    }

    /// `jobs/`.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.0.join("jobs")
    }

    /// A number that changes when a file is added, removed, replaced or written.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut files: Vec<PathBuf> = fs::read_dir(self.jobs())
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        files.push(self.settings());
        let mut hasher = DefaultHasher::new();
        for file in files {
            if let Ok(metadata) = fs::metadata(&file) {
                use std::os::unix::fs::MetadataExt as _;
                (file, metadata.len(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}
