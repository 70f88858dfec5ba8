//! Which sites stand above which: those are looked at first, and nothing is told of the others while they are down.
use std::collections::HashMap;

use super::plan::Planned;
use crate::config::mistake::suggest;

/// So many sites may stand above one.
const DEEPEST: usize = 50;

/// The parents of sites that have one, by their names.
pub(super) fn parents(sites: &[Planned]) -> HashMap<&str, Option<&str>> {
    sites.iter().map(|site| (site.label.as_str(), site.rules.parent.as_deref())).collect()
}

/// How many stand above each.
pub(super) fn depths(sites: &[Planned]) -> Vec<usize> {
    let parents = parents(sites);
    let depth = |site: &Planned| {
        let (mut depth, mut label) = (0, site.label.as_str());
        while let Some(Some(parent)) = parents.get(label).filter(|_| depth < DEEPEST) {
            (depth, label) = (depth + 1, *parent);
        }
        depth
    };
    sites.iter().map(depth).collect()
}

/// What is wrong with the parent of the site `own`, and how to mend it.
pub(super) fn wrong(parents: &HashMap<&str, Option<&str>>, own: &str, parent: &str) -> Option<(String, String)> {
    if !parents.contains_key(parent) {
        let mut known: Vec<&str> = parents.keys().copied().filter(|label| *label != own).collect();
        known.sort_unstable();
        known.truncate(20);
        let hint =
            if known.is_empty() { "it is the only one".to_owned() } else { suggest(parent, &known, "the sites are") };
        return Some((format!("this job has no site `{parent}`"), hint));
    }
    let mut label = parent;
    for steps in 0..=DEEPEST {
        if label == own {
            let message = match steps {
                0 => "a site cannot be its own parent".to_owned(),
                _ => format!("`{parent}` has `{own}` above it in turn"),
            };
            return Some((message, "remove it".to_owned()));
        }
        label = (*parents.get(label)?)?;
    }
    // Either a circle further up, which is told there, or more than anybody needs.
    let message = format!("more than {DEEPEST} sites stand above `{own}`");
    Some((message, "name the one that matters".to_owned()))
}
