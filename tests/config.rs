//! What is read of a home: defaults, overrides, secrets, examples, schemas; and that no text upsets it.
use std::{collections::BTreeSet, fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path, time::Instant};

use proptest::prelude::*;
use rusuban::{
    config::{self, Environment, Home, Loaded, mistake::Mistake, schema},
    kinds::KINDS,
    policy::{MissedPolicy, OnCrash, Overlap},
};
use serde_json::Value;
use tempfile::TempDir;

fn home(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn load(folder: &Path) -> Result<Loaded, Vec<Mistake>> {
    let environment = Environment::from([("TZ", "Asia/Tokyo"), ("HOME", "/root")]);
    config::load(&Home::find(Some(folder.to_owned()), &environment).unwrap(), &environment)
}

const JOB: &str = "kind = 'command'\ncommand = ['true']\n";

#[test]
fn a_newcomer_needs_no_settings() {
    let folder = home(&[("jobs/job.toml", JOB)]);
    let Loaded { config, warnings } = load(folder.path()).unwrap();
    assert_eq!(config.settings.time_zone, chrono_tz::Asia::Tokyo);
    assert_eq!(config.settings.data, config.home.path().join("data"));
    let local = &config.settings.buckets["local"];
    assert_eq!(local.folder, Some(config.home.path().join("data/backups")));
    assert_eq!((config.settings.buckets.len(), config.jobs.len(), warnings.len()), (1, 1, 0));
}

#[test]
fn an_empty_folder_is_right() {
    let folder = home(&[]);
    assert_eq!(load(folder.path()).unwrap().config.jobs.len(), 0);
}

/// All defaults of `docs/settings.md`, written out; what is `None` has no form of its own.
const WRITTEN_OUT: &str = r#"
enabled       = true
after         = []
jitter        = "0s"
missed_window = "7d"
overlap       = "skip"
retry         = { attempts = 1, delay = "30s", max_delay = "15m" }
grace         = "30s"
on_crash      = "fail"
locks         = []
hooks         = {}
history       = { runs = 1000, age = "400d" }
"#;

#[test]
fn defaults_written_out_mean_the_same() {
    let defaults = "[defaults]\nmissed_window = '7d'\noverlap = 'skip'\ngrace = '30s'\non_crash = 'fail'\n\
        retry = { attempts = 1, delay = '30s', max_delay = '15m' }\nhistory = { runs = 1000, age = '400d' }\n";
    let settings =
        format!("time_zone = 'Asia/Tokyo'\ndata = 'data'\n[bucket.local]\nfolder = 'data/backups'\n{defaults}");
    let kind = rusuban::kinds::find("command").unwrap();
    let own = format!("missed = 'latest'\ntimeout = '{}'\nclass = '{}'\n", kind.timeout.unwrap(), kind.class);
    assert_eq!(kind.missed, MissedPolicy::Latest);
    let short = load(home(&[("jobs/job.toml", JOB)]).path()).unwrap().config;
    let long =
        load(home(&[("rusuban.toml", &settings), ("jobs/job.toml", &format!("{JOB}{own}{WRITTEN_OUT}"))]).path());
    let long = long.unwrap().config;
    let (short_job, long_job) = (&short.jobs.values().next().unwrap(), &long.jobs.values().next().unwrap());
    assert_eq!(short_job.policies, long_job.policies);
    assert_eq!((short_job.enabled, &short_job.after), (long_job.enabled, &long_job.after));
    assert_eq!(short.settings.time_zone, long.settings.time_zone);
    assert_eq!(short.settings.defaults.retry, None);
}

#[test]
fn a_job_speaks_before_the_settings_and_they_before_the_kind() {
    let settings = "[defaults]\noverlap = 'queue'\non_crash = 'rerun'\nmissed = 'skip'\ntimeout = '5m'\n";
    let folder = home(&[
        ("rusuban.toml", settings),
        ("jobs/silent.toml", JOB),
        ("jobs/loud.toml", &format!("{JOB}overlap = 'allow'\nmissed = {{ all = 3 }}\n")),
    ]);
    let config = load(folder.path()).unwrap().config;
    let policies = |name: &str| config.jobs[&name.parse().unwrap()].policies.clone();
    let (silent, loud) = (policies("silent"), policies("loud"));
    assert_eq!((silent.overlap, silent.missed, silent.on_crash), (Overlap::Queue, MissedPolicy::Skip, OnCrash::Rerun));
    assert_eq!((loud.overlap, loud.on_crash), (Overlap::Allow, OnCrash::Rerun));
    assert!(matches!(loud.missed, MissedPolicy::All(n) if n.get() == 3));
    assert_eq!(silent.timeout.unwrap().to_string(), "5m");
}

#[test]
fn a_secret_that_everybody_can_read_is_a_warning() {
    let job = "kind = 'http-call'\nurl = 'https://example.org/'\nbearer = { file = 'token' }\n";
    let folder = home(&[("jobs/job.toml", job), ("token", "hunter22\n")]);
    for (mode, warnings) in [(0o644, 1), (0o600, 0)] {
        fs::set_permissions(folder.path().join("token"), fs::Permissions::from_mode(mode)).unwrap();
        let found = load(folder.path()).unwrap().warnings;
        assert_eq!(found.len(), warnings, "{mode:o}: {found:?}");
        if let Some(warning) = found.first() {
            assert_eq!((warning.line, warning.column, warning.hint.as_deref()), (3, 10, Some("chmod 600 token")));
        }
    }
}

#[test]
fn a_file_that_is_no_text_is_named() {
    let folder = home(&[("jobs/good.toml", JOB)]);
    fs::write(folder.path().join("jobs/bad.toml"), b"kind = '\xff\xfe'").unwrap();
    let mistakes = load(folder.path()).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert_eq!((mistakes[0].file.as_path(), mistakes[0].line), (Path::new("jobs/bad.toml"), 0));
    assert_eq!(mistakes[0].message, "cannot be read: it is no text in UTF-8");
}

#[test]
fn files_that_are_no_jobs_are_left_alone() {
    let folder =
        home(&[("jobs/job.toml", JOB), ("jobs/.job.toml.swp", "x"), ("jobs/.#job.toml", "x"), ("jobs/README.md", "x")]);
    assert_eq!(load(folder.path()).unwrap().config.jobs.len(), 1);
}

#[test]
fn all_mistakes_of_all_files_come_in_one_go_and_in_order() {
    let folder = home(&[
        ("rusuban.toml", "colour = 'red'\ntime_zone = 'Mars'\n"),
        ("jobs/a.toml", "kind = 'command'\ncommand = 5\ntimeout = 5\nschedule = '99 * * * *'\nafter = ['z']\n"),
        ("jobs/b.toml", "kind = command\n"),
    ]);
    let places: Vec<String> = load(folder.path())
        .unwrap_err()
        .iter()
        .map(|mistake| format!("{}:{}:{}", mistake.file.display(), mistake.line, mistake.column))
        .collect();
    let expected =
        ["rusuban.toml:1:1", "rusuban.toml:2:13", "jobs/a.toml:2:11", "jobs/a.toml:3:11", "jobs/a.toml:4:12"];
    assert_eq!(places[..5], expected);
    assert_eq!(places[5..], ["jobs/a.toml:5:9", "jobs/a.toml:5:10", "jobs/b.toml:1:8"]);
}

#[test]
fn the_fingerprint_changes_with_the_files_and_only_with_them() {
    let folder = home(&[("jobs/job.toml", JOB)]);
    let home = Home::find(Some(folder.path().to_owned()), &Environment::default()).unwrap();
    let mut seen = BTreeSet::from([home.fingerprint()]);
    fs::write(folder.path().join("jobs/notes.txt"), "x").unwrap();
    assert!(!seen.insert(home.fingerprint()), "another file is none of ours");
    fs::write(folder.path().join("jobs/two.toml"), JOB).unwrap();
    assert!(seen.insert(home.fingerprint()), "a new job");
    fs::write(folder.path().join("rusuban.toml"), "").unwrap();
    assert!(seen.insert(home.fingerprint()), "new settings");
    fs::write(folder.path().join("jobs/two.toml"), JOB.replace("true", "fals")).unwrap();
    assert!(seen.insert(home.fingerprint()), "another text of the same length");
    fs::remove_file(folder.path().join("jobs/job.toml")).unwrap();
    assert!(seen.insert(home.fingerprint()), "a job less");
}

#[test]
fn the_home_is_where_it_was_asked_for_else_where_the_environment_says() {
    let (asked, other) = (home(&[]), home(&[]));
    let environment = Environment::from([("RUSUBAN_HOME", other.path().to_str().unwrap())]);
    let find = |asked| Home::find(asked, &environment).unwrap().path().to_owned();
    assert_eq!(find(Some(asked.path().to_owned())), asked.path().canonicalize().unwrap());
    assert_eq!(find(None), other.path().canonicalize().unwrap());
    let error = Home::find(Some("/no/such/home".into()), &environment).unwrap_err();
    assert!(error.to_string().contains("/no/such/home"), "{error}");
}

#[test]
fn a_thousand_job_files_are_read_in_a_moment() {
    let folder = home(&[]);
    fs::create_dir(folder.path().join("jobs")).unwrap();
    for number in 0..1000 {
        let text = format!("{JOB}schedule = 'H H * * *'\ntime_zone = 'Europe/Paris'\nretry = {{ attempts = 3 }}\n");
        fs::write(folder.path().join(format!("jobs/job-{number}.toml")), text).unwrap();
    }
    let started = Instant::now();
    assert_eq!(load(folder.path()).unwrap().config.jobs.len(), 1000);
    // A bound for a busy machine without optimisation; the real figure is a matter of the benches.
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn each_key_of_the_examples_is_in_the_schema_and_each_reference_leads_somewhere() {
    let schema = schema::job();
    for (at, kind) in KINDS.iter().enumerate() {
        let of_kind = &schema["oneOf"][at];
        let example: toml::Table = kind.example.parse().unwrap();
        for key in example.keys() {
            assert!(of_kind["properties"].get(key).is_some(), "{}: {key}", kind.name);
        }
        assert_eq!(of_kind["properties"]["kind"]["const"], kind.name);
        assert_eq!(of_kind["additionalProperties"], false);
    }
    for schema in [&schema, &schema::settings()] {
        let mut references = BTreeSet::new();
        collect(schema, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            assert!(schema.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            references.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

/// A text that people could have spoilt: an example with pieces taken out, cut off, or put in.
fn spoilt() -> impl Strategy<Value = String> {
    let pieces = vec!["\"", "[", "]", "{", "}", "=", ",", ".", "\n", "#", "5", "'", "\\", "日", "\t", "[[a]]\n"];
    let change = (any::<prop::sample::Index>(), 0..3usize, prop::sample::select(pieces));
    let changes = prop::collection::vec(change, 1..6);
    let examples: Vec<_> = KINDS.iter().map(|kind| kind.example).collect();
    (prop::sample::select(examples), changes).prop_map(|(text, changes)| {
        // Comments are no part of it; what they show is.
        let mut letters: Vec<char> = text.replace("\n# ", "\n").chars().collect();
        for (at, what, piece) in changes {
            let at = at.index(letters.len().max(1));
            match what {
                0 if at < letters.len() => drop(letters.remove(at)),
                1 => letters.truncate(at.max(1)),
                _ => drop(letters.splice(at..at, piece.chars())),
            }
        }
        letters.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_mistake_of_a_spoilt_file_has_a_place_in_it(text in spoilt(), as_settings in any::<bool>()) {
        let folder = home(&[(if as_settings { "rusuban.toml" } else { "jobs/job.toml" }, &text)]);
        let mistakes = load(folder.path()).err().unwrap_or_default();
        for mistake in mistakes {
            let mut shown = String::new();
            write!(shown, "{mistake}").unwrap();
            prop_assert!(!mistake.message.is_empty());
            if mistake.line > 0 {
                let line = text.split('\n').nth(mistake.line - 1).map(|line| line.trim_end_matches('\r'));
                prop_assert_eq!(line, Some(mistake.excerpt.as_str()), "{}", shown);
                prop_assert!(mistake.column <= mistake.excerpt.chars().count() + 2, "{}", shown);
            }
        }
    }
}
