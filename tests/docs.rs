//! The documentation tells the truth: links resolve, TOML blocks are right, each kind has its page and its example.
use std::{
    fs,
    path::{Path, PathBuf},
};

use rusuban::{
    config::{self, Environment, Home},
    kinds::KINDS,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found = vec![root().join("README.md"), root().join("CONTRIBUTING.md"), root().join("CHANGELOG.md")];
    walk(&root().join("docs"), &mut found);
    found
}

/// The blocks of a language in a page.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == format!("```{language}") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            found.push(block.join("\n"));
        }
    }
    found
}

#[test]
fn every_link_resolves() {
    let (mut broken, mut count) = (Vec::new(), 0);
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            count += 1;
            if !page.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(count > 15, "only {count} links were found");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_toml_block_is_right() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let mut settings = String::new();
        let all = blocks(&text, "toml");
        // The settings that a page shows are those of the jobs that it shows.
        for block in all.iter().filter(|block| block.starts_with("# rusuban.toml")) {
            settings = block.clone();
        }
        for block in all {
            let home = tempfile::tempdir().unwrap();
            fs::create_dir(home.path().join("jobs")).unwrap();
            fs::write(home.path().join("rusuban.toml"), &settings).unwrap();
            if let Some(name) = block.lines().next().and_then(|line| line.strip_prefix("# jobs/")) {
                let name = name.split_whitespace().next().unwrap();
                fs::write(home.path().join("jobs").join(name), &block).unwrap();
            } else if !block.starts_with("# rusuban.toml") {
                toml::from_str::<toml::Table>(&block).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
                checked += 1;
                continue;
            }
            load(home.path(), &format!("{}:\n{block}", page.display()));
            checked += 1;
        }
    }
    assert!(checked >= 5, "only {checked} blocks were found");
}

fn load(home: &Path, what: &str) {
    let variables =
        Environment::from([("S3_ACCESS_KEY", "key"), ("S3_SECRET_KEY", "secret"), ("RUSUBAN_PASSWORD", "secret")]);
    let home = Home::find(Some(home.to_owned()), &variables).unwrap();
    if let Err(mistakes) = config::load(&home, &variables) {
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        panic!("{what}\n{}", told.join("\n"));
    }
}

#[test]
fn every_kind_has_its_page_and_its_example() {
    for kind in KINDS {
        assert!(root().join(format!("docs/jobs/{}.md", kind.name)).exists(), "docs/jobs/{}.md is missing", kind.name);
        let example = fs::read_to_string(root().join(format!("jobs/{}.toml", kind.name))).unwrap();
        assert_eq!(example, kind.example);
    }
}

#[test]
fn the_jobs_of_this_folder_are_right() {
    load(root(), "jobs/");
}
