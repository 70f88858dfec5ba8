//! Wrong configurations beside the messages they must produce: `tests/mistakes/*.md`.
//!
//! A case is a heading, the files, and what is said of them. A block of TOML is `jobs/job.toml` unless its fence names
//! another file. To write down what is said now, and to read it: `RUSUBAN_BLESS=1 cargo test mistakes`.
use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path};

use rusuban::config::{self, Environment, Home};

/// What is said where nothing is wrong, which no case here may get.
const RIGHT: &str = "nothing is wrong\n";

/// A fenced block: what follows the opening fence, and what is in it.
struct Block {
    info: String,
    text: String,
}

#[test]
fn each_wrong_configuration_gets_its_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes");
    let bless = Environment::of_process().get("RUSUBAN_BLESS").is_some();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut cases, mut wrong) = (0, Vec::new());
    for file in files {
        let (intro, all) = read(&fs::read_to_string(&file).unwrap());
        let mut page = intro;
        for (title, blocks) in all {
            cases += 1;
            let said = said_of(&blocks);
            let expected = blocks.iter().find(|block| block.info == "text").map_or("", |block| &block.text);
            if said != expected || said == RIGHT {
                let file = file.file_name().unwrap().display();
                wrong.push(format!("{file}: {title}\n--- expected\n{expected}--- said\n{said}"));
            }
            write_case(&mut page, &title, &blocks, &said);
        }
        if bless {
            fs::write(&file, page).unwrap();
        }
    }
    assert!(cases >= 200, "only {cases} cases");
    assert!(
        (bless && !wrong.iter().any(|case| case.ends_with(RIGHT))) || wrong.is_empty(),
        "{} of {cases} are told otherwise\n\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Lays the files out as a home and reads them.
fn said_of(blocks: &[Block]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for block in blocks.iter().filter(|block| block.info != "text") {
        let name = block.info.split_once(' ').map_or("jobs/job.toml", |(_, name)| name);
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &block.text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let environment =
        Environment::from([("TZ", "UTC"), ("S3_ACCESS_KEY", "key"), ("S3_SECRET_KEY", "secret"), ("EMPTY", "")]);
    let home = Home::find(Some(folder.path().to_owned()), &environment).unwrap();
    match config::load(&home, &environment) {
        Ok(_) => RIGHT.to_owned(),
        Err(mistakes) => {
            let all: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            anstream::adapter::strip_str(&all.join("\n")).to_string()
        }
    }
}

/// What stands before the first case, and the cases.
fn read(page: &str) -> (String, Vec<(String, Vec<Block>)>) {
    let (mut intro, mut cases) = (String::new(), Vec::<(String, Vec<Block>)>::new());
    let mut open: Option<Block> = None;
    for line in page.split_inclusive('\n') {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => cases.last_mut().unwrap().1.extend(open.take()),
            (Some(block), None) => block.text.push_str(line),
            (None, Some(info)) => open = Some(Block { info: info.trim().to_owned(), text: String::new() }),
            (None, None) => match line.strip_prefix("## ") {
                Some(title) => cases.push((title.trim().to_owned(), Vec::new())),
                None if cases.is_empty() => intro.push_str(line),
                None => {}
            },
        }
    }
    (intro, cases)
}

fn write_case(page: &mut String, title: &str, blocks: &[Block], said: &str) {
    writeln!(page, "## {title}").unwrap();
    for block in blocks.iter().filter(|block| block.info != "text") {
        writeln!(page, "```{}\n{}```", block.info, block.text).unwrap();
    }
    writeln!(page, "```text\n{said}```\n").unwrap();
}
