//! What came of it, in a line.
use anyhow::bail;

use crate::{docker::short_id, kinds::Summary};

/// What became of the containers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Name and images of those that were updated.
    pub(super) updated: Vec<String>,
    /// Those that would be.
    pub(super) newer: Vec<String>,
    /// Those that have what their image's name means.
    pub(super) up_to_date: usize,
    /// Those that are none of ours to replace.
    pub(super) left_out: usize,
    /// Those that are back at their old image.
    pub(super) went_back: Vec<String>,
    /// Those that were not tried, because of what they need or of what they did last time.
    pub(super) behind: Vec<String>,
    /// What went wrong, each with its container's name.
    pub(super) failures: Vec<String>,
}

impl Tally {
    /// From which image to which.
    pub(super) fn change(from: &str, to: &str) -> String {
        format!("{} → {}", short_id(from), short_id(to))
    }

    /// The end of the run.
    pub(super) fn end(self) -> anyhow::Result<Summary> {
        let with_names = |names: &[String], what: &str| match names {
            [] => None,
            names => Some(format!("{} {what} ({})", names.len(), names.join(", "))),
        };
        let number = |number: usize, what: &str| (number > 0).then(|| format!("{number} {what}"));
        let newer = if self.newer.len() == 1 { "has a newer image" } else { "have a newer image" };
        let parts = [
            with_names(&self.updated, "updated"),
            with_names(&self.newer, newer),
            number(self.up_to_date, "up to date"),
            with_names(&self.went_back, "went back"),
            with_names(&self.behind, "not tried"),
            number(self.left_out, "left out"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let done = parts.join(", ");
        match (self.failures.is_empty(), done.is_empty()) {
            (true, true) => Ok("there is nothing to update".to_owned()),
            (true, false) => Ok(done),
            (false, true) => bail!(self.failures.join("; ")),
            (false, false) => bail!("{}; {done}", self.failures.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_became_of_each() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let change = Tally::change("sha256:1a2b3c4d5e6f7a8b", "sha256:3c4d5e6f7a8b9c0d");
        let fine = Tally { updated: vec![format!("blog {change}")], up_to_date: 2, left_out: 1, ..Tally::default() };
        assert_eq!(fine.end().unwrap(), "1 updated (blog 1a2b3c4d5e6f → 3c4d5e6f7a8b), 2 up to date, 1 left out");
        let report = Tally { newer: names(&["blog", "wiki"]), ..Tally::default() };
        assert_eq!(report.end().unwrap(), "2 have a newer image (blog, wiki)");
        let went = Tally {
            failures: names(&["db: bad"]),
            went_back: names(&["db"]),
            behind: names(&["web"]),
            ..Tally::default()
        };
        assert_eq!(went.end().unwrap_err().to_string(), "db: bad; 1 went back (db), 1 not tried (web)");
        assert_eq!(Tally::default().end().unwrap(), "there is nothing to update");
    }
}
