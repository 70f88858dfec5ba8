//! `[coverage]` in `rusuban.toml`: what need not be kept.
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::What;
use crate::config::mistake::Problem;

/// What `rusuban coverage` need not ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CoverageSettings {
    /// What need not be kept: `volume:cache-*`, `database:shop-db`, `layer:web-*`, or a path such as `/srv/tmp`, with all that is in it.
    pub ignore: Vec<String>,
}

/// One of the patterns.
pub(super) struct Ignored {
    /// As it is written.
    pub(super) pattern: String,
    of: Of,
    matcher: GlobMatcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Path,
    Volume,
    Database,
    Layer,
}

const WORDS: [(&str, Of); 3] = [("volume:", Of::Volume), ("database:", Of::Database), ("layer:", Of::Layer)];
const HINT: &str = "write `volume:cache-*`, `database:shop-db`, `layer:web-*`, or a path such as `/srv/tmp`";

impl CoverageSettings {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let read = self.ignore.iter().enumerate();
        read.filter_map(|(number, pattern)| {
            let why = Ignored::read(pattern).err()?;
            Some(Problem::new(format!("coverage.ignore[{number}]"), why).hint(HINT))
        })
        .collect()
    }

    /// The patterns; those that cannot be read were refused by [`CoverageSettings::check`].
    pub(super) fn patterns(&self) -> Vec<Ignored> {
        self.ignore.iter().filter_map(|pattern| Ignored::read(pattern).ok()).collect()
    }
}

impl Ignored {
    fn read(pattern: &str) -> Result<Self, String> {
        let word = WORDS.iter().find_map(|(word, of)| Some((*of, pattern.strip_prefix(word)?)));
        let (of, glob) = match word {
            Some((_, "")) => return Err(format!("`{pattern}` names nothing")),
            Some(found) => found,
            None if pattern.starts_with('/') => {
                (Of::Path, if pattern == "/" { pattern } else { pattern.trim_end_matches('/') })
            }
            None => return Err(format!("`{pattern}` does not say what it is about")),
        };
        let glob = GlobBuilder::new(glob).literal_separator(true).build();
        let glob = glob.map_err(|error| format!("`{pattern}` is no pattern: {}", error.kind()))?;
        Ok(Self { pattern: pattern.to_owned(), of, matcher: glob.compile_matcher() })
    }

    /// Whether it is about this.
    pub(super) fn fits(&self, what: &What) -> bool {
        match (self.of, what) {
            (Of::Volume, What::Volume { name })
            | (Of::Database, What::Database { name, .. })
            | (Of::Layer, What::Layer { name, .. }) => self.matcher.is_match(name),
            // What is in a volume is accepted with it.
            (Of::Volume, What::Sqlite { place, .. }) => {
                place.strip_prefix("volume ").is_some_and(|name| self.matcher.is_match(name))
            }
            (Of::Path, What::Folder { name } | What::Sqlite { name, .. }) => {
                Path::new(name).ancestors().any(|path| self.matcher.is_match(path))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_about_one_kind_of_thing_and_a_path_about_all_that_is_in_it() {
        let fits = |pattern: &str, what: What| Ignored::read(pattern).unwrap().fits(&what);
        let volume = |name: &str| What::Volume { name: name.into() };
        let folder = |name: &str| What::Folder { name: name.into() };
        assert!(fits("volume:cache-*", volume("cache-1")) && !fits("volume:cache-*", volume("data")));
        assert!(!fits("volume:*", folder("/srv")) && !fits("layer:*", volume("x")));
        assert!(fits("/srv/tmp", folder("/srv/tmp")) && fits("/srv/tmp/", folder("/srv/tmp/a/b")));
        assert!(fits("/srv/*/cache", folder("/srv/a/cache")) && !fits("/srv/*/cache", folder("/srv/a/b/cache")));
        assert!(!fits("/srv/tmp", folder("/srv/tmp2")) && !fits("/srv/tmp", folder("/srv")));
        let met = What::Sqlite { name: "/v/x/a.db".into(), place: "volume cache-1".into() };
        assert!(fits("volume:cache-*", met.clone()) && fits("/v/x/a.db", met));
    }

    #[test]
    fn what_cannot_be_a_pattern_is_told_at_its_place() {
        let settings =
            CoverageSettings { ignore: ["/srv", "cache-*", "volume:", "/a[", "database:x"].map(Into::into).into() };
        let problems: Vec<String> =
            settings.check().into_iter().map(|problem| format!("{} {}", problem.key, problem.message)).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("coverage.ignore[1] `cache-*` does not say"), "{problems:?}");
        assert!(problems[2].starts_with("coverage.ignore[3] `/a[` is no pattern"), "{problems:?}");
    }
}
