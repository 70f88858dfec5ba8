//! Each notifier has its section in the docs, with the example of its own.
use std::{collections::BTreeSet, fs, path::Path};

use rusuban::notify::NOTIFIERS;

#[test]
fn every_notifier_has_its_section_with_its_example() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/notifiers.md")).unwrap();
    let mut names = BTreeSet::new();
    for entry in NOTIFIERS {
        assert!(names.insert(entry.name), "{} is there twice", entry.name);
        let section = page.split(&format!("\n## {}\n", entry.name)).nth(1);
        let section = section.unwrap_or_else(|| panic!("docs/notifiers.md has no section `## {}`", entry.name));
        let section = section.split("\n## ").next().unwrap();
        assert!(section.contains(entry.example), "{}: the example is another there:\n{}", entry.name, entry.example);
        // The example has every key, so that nothing is to be found in the sources alone.
        let schema = (entry.schema)(&mut schemars::SchemaGenerator::default()).to_value();
        for key in schema["properties"].as_object().unwrap().keys() {
            assert!(
                section.contains(&format!("`{key}`")) || has_key(entry.example, key),
                "{}: nothing on `{key}`",
                entry.name
            );
        }
    }
}

fn has_key(example: &str, key: &str) -> bool {
    example.lines().any(|line| line.split('=').next().unwrap().trim() == key)
}
