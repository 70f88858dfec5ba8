//! What is left out of a tree.
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns of files and folders to leave out. One without `/` fits that name anywhere; one with `/` is seen from the
/// source's top; one that ends in `/` fits folders only. `*` stays within one folder, `**` does not.
#[derive(Clone, Debug, Default)]
pub struct Excludes {
    any: GlobSet,
    folders: GlobSet,
    /// As they were written.
    patterns: Vec<String>,
}

impl Excludes {
    /// Reads patterns.
    ///
    /// # Errors
    /// A pattern's number and what is wrong with it.
    pub fn new<P: AsRef<str>>(patterns: &[P]) -> Result<Self, (usize, String)> {
        let (mut any, mut folders) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for (number, pattern) in patterns.iter().enumerate() {
            let pattern = pattern.as_ref();
            let (bare, to) = match pattern.strip_suffix('/') {
                Some(bare) => (bare, &mut folders),
                None => (pattern, &mut any),
            };
            if bare.is_empty() {
                return Err((number, "an empty pattern would leave out everything or nothing".into()));
            }
            let seen_from_top = match bare.strip_prefix('/') {
                Some(anchored) => anchored.to_owned(),
                None if bare.contains('/') => bare.strip_prefix("./").unwrap_or(bare).to_owned(),
                None => format!("**/{bare}"),
            };
            let glob = GlobBuilder::new(&seen_from_top)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| (number, error.kind().to_string()))?;
            to.add(glob);
        }
        let built = |set: GlobSetBuilder| set.build().map_err(|error| (0, error.to_string()));
        let patterns = patterns.iter().map(|pattern| pattern.as_ref().to_owned()).collect();
        Ok(Self { any: built(any)?, folders: built(folders)?, patterns })
    }

    /// As they were written.
    pub(crate) fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether what is at `path`, seen from the source's top, is left out.
    #[must_use]
    pub fn fit(&self, path: &Path, is_folder: bool) -> bool {
        self.any.is_match(path) || is_folder && self.folders.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_what_people_expect() {
        let set = Excludes::new(&["*.tmp", "/cache", "logs/*.log", "node_modules/", "deep/**/x"]).unwrap();
        let fits = |path: &str, is_folder| set.fit(Path::new(path), is_folder);
        for (path, is_folder) in [
            ("a.tmp", false),
            ("a/b/c.tmp", false),
            ("cache", true),
            ("logs/a.log", false),
            ("web/node_modules", true),
            ("deep/a/b/x", false),
        ] {
            assert!(fits(path, is_folder), "{path}");
        }
        for (path, is_folder) in [
            ("a.tmpl", false),
            ("web/cache", true),
            ("logs/old/a.log", false),
            ("node_modules", false),
            ("web/logs/a.log", false),
        ] {
            assert!(!fits(path, is_folder), "{path}");
        }
        assert_eq!(Excludes::new(&["*.tmp", "[a"]).unwrap_err().0, 1);
        Excludes::new(&["/"]).unwrap_err();
    }
}
