//! The arrows of `docs/architecture.md`: who may speak of whom, by a search for `crate::` paths.
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each module with those it may use, besides itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("clock", &[]),
    ("model", &["policy"]),
    ("policy", &["config"]),
    ("http", &[]),
    ("process", &["model", "clock", "config", "policy"]),
    ("schedule", &["model", "config"]),
    ("bucket", &["clock", "config", "text"]),
    ("check", &["clock", "config", "docker", "model", "text"]),
    ("database", &["text"]),
    ("docker", &["config", "http", "model", "process", "text"]),
    ("dyndns", &["config", "http", "process"]),
    ("retention", &["text"]),
    ("tree", &["database"]),
    ("notify", &["clock", "config", "http", "model", "process", "text"]),
    ("repository", &["bucket", "clock", "config", "model", "text", "tree"]),
    ("plain", &["bucket", "clock", "config", "model", "text", "tree"]),
    (
        "kinds",
        &[
            "bucket",
            "check",
            "clock",
            "config",
            "database",
            "docker",
            "dyndns",
            "http",
            "model",
            "notify",
            "plain",
            "policy",
            "process",
            "repository",
            "retention",
            "schedule",
            "text",
            "tree",
        ],
    ),
    ("coverage", &["config", "docker", "job", "kinds", "model", "text", "tree"]),
    ("job", &["docker", "kinds", "model", "notify", "policy", "schedule"]),
    ("watch", &["model", "schedule"]),
    ("store", &["clock", "model", "policy", "watch"]),
    (
        "runner",
        &[
            "bucket", "clock", "config", "docker", "job", "kinds", "model", "notify", "policy", "process", "store",
            "text", "watch",
        ],
    ),
    ("scheduler", &["clock", "job", "model", "policy", "runner", "schedule", "store"]),
    ("follower", &["clock", "docker", "job", "kinds", "model", "runner", "scheduler", "store", "text"]),
    (
        "config",
        &[
            "bucket",
            "clock",
            "coverage",
            "docker",
            "http",
            "job",
            "kinds",
            "model",
            "notify",
            "policy",
            "repository",
            "schedule",
            "watch",
        ],
    ),
    (
        "app",
        &[
            "clock",
            "config",
            "coverage",
            "follower",
            "http",
            "job",
            "kinds",
            "model",
            "notify",
            "policy",
            "runner",
            "scheduler",
            "store",
            "text",
            "web",
        ],
    ),
    ("web", &["app", "model"]),
];

/// Of `config`, the modules below may use these values only; what loads the files stands above them.
const CONFIG_VALUES: [&str; 3] = ["mistake", "secret", "units"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The paths below `crate::` that a text names, braces opened as far as the first two names.
fn uses(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let (mut depth, mut item) = (1, String::new());
            for letter in list.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (depth == 1 && letter == ',') {
                    found.push(split(&item));
                    item.clear();
                    if depth == 0 {
                        break;
                    }
                } else {
                    item.push(letter);
                }
            }
        } else {
            found.push(split(rest.split([';', '(', ')', ',', '>', '<', ' ']).next().unwrap_or("")));
        }
    }
    found.retain(|(module, _)| !module.is_empty());
    found
}

fn split(path: &str) -> (String, String) {
    let mut names = path.trim().split("::").map(|name| {
        name.trim_start_matches('{')
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect::<String>()
    });
    (names.next().unwrap_or_default(), names.next().unwrap_or_default())
}

#[test]
fn every_module_uses_only_what_lies_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut wrong, mut looked_at) = (Vec::new(), 0);
    for file in files {
        let within = file.strip_prefix(&root).unwrap();
        let module = within.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == module) else { continue };
        let is_value = module == "config"
            && within.file_stem().is_some_and(|stem| CONFIG_VALUES.contains(&stem.to_str().unwrap()));
        for (used, second) in uses(&fs::read_to_string(&file).unwrap()) {
            looked_at += 1;
            let fine = if is_value {
                used == "config" && CONFIG_VALUES.contains(&second.as_str())
            } else {
                used == module || may_use.contains(&used.as_str())
            };
            let above = used == "config"
                && !["config", "app"].contains(&module)
                && !second.is_empty()
                && !CONFIG_VALUES.contains(&second.as_str());
            if !fine || above {
                wrong.push(format!("{} uses {used}::{second}", within.display()));
            }
        }
    }
    assert!(looked_at > 50, "the search found only {looked_at} paths");
    assert!(wrong.is_empty(), "against the layers:\n{}", wrong.join("\n"));
}
