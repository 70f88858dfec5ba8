//! What people write: `rusuban.toml` and `jobs/*.toml`, read into settings and jobs, with every mistake found in one go.
//! Only this module reads the environment.
use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize as _;
use toml::de::DeTable;

use crate::{
    clock::Clock, http, job::Job, kinds::Services, model::JobName, notify::routes::Notify, repository::settings::Shelf,
};

mod explain;
mod home;
mod jobs;
pub mod mistake;
mod notifiers;
mod place;
mod read;
pub mod schema;
pub mod secret;
mod secrets;
pub mod settings;
mod syntax;
pub mod units;
mod watching;

use explain::Known;
pub use home::{Environment, Home};
use mistake::Mistake;
use read::Found;
use secret::{Redactor, SecretReader};
use settings::{Settings, SettingsFile};

/// All files, read and found right.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where they are.
    pub home: Home,
    /// `rusuban.toml`.
    pub settings: Settings,
    /// The jobs by name.
    pub jobs: BTreeMap<JobName, Arc<Job>>,
    /// Reads secrets.
    pub secrets: SecretReader,
}

/// What was read, and what a person should look at.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All files.
    pub config: Config,
    /// What is right, and probably not meant.
    pub warnings: Vec<Mistake>,
}

/// Reads all files of a home.
///
/// # Errors
/// Every mistake in every file.
pub fn load(home: &Home, environment: &Environment) -> Result<Loaded, Vec<Mistake>> {
    let (loaded, mistakes) = load_what_is_right(home, environment)?;
    if mistakes.is_empty() { Ok(loaded) } else { Err(mistakes) }
}

/// Reads all files of a home, and leaves out job files that are wrong: to look at the ledger or to bring a backup back at
/// night, nobody has to mend another job first. Also returns the mistakes in job files.
///
/// # Errors
/// Every mistake in every file, when there is one in `rusuban.toml`.
pub fn load_what_is_right(home: &Home, environment: &Environment) -> Result<(Loaded, Vec<Mistake>), Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut warnings = Vec::new();
    let reader = secrets::reader(home, environment);
    let settings = load_settings(home, environment, &mut mistakes, &mut warnings);
    let settings_are_right = mistakes.is_empty();
    let mut jobs = BTreeMap::new();
    let mut chains = Vec::new();
    let mut all_names = Vec::new();
    for path in job_files(home, &mut mistakes) {
        let shown = shown(home, &path);
        let Some(name) = job_name(&path, &shown, &mut mistakes) else { continue };
        let text = fs::read_to_string(&path).map_err(|error| mistakes.push(unreadable(&shown, &error)));
        let Ok(text) = text else {
            all_names.push(name);
            continue;
        };
        let (table, whole) = parse(&shown, &text, &mut mistakes);
        if !whole {
            all_names.push(name);
            continue;
        }
        let mut found = Vec::new();
        let jobs::Read { job, after, secrets } = jobs::read(&name, &text, &table, &settings, &mut found);
        secrets::check(home, environment, &secrets, &table, &mut found, |at, message, hint| {
            warnings.push(Mistake::at(&shown, &text, &at, message, Some(hint)));
        });
        if found.is_empty() {
            jobs.extend(job.map(|job| (name.clone(), Arc::new(job))));
        }
        mistakes.extend(placed(&shown, &text, found));
        for (index, other) in after.iter().enumerate() {
            let at = place::of(&table, &format!("after[{index}]"));
            let place = Mistake::at(&shown, &text, &at, "", None);
            chains.push(jobs::Link { job: name.clone(), after: other.clone(), place });
        }
        all_names.push(name);
    }
    mistakes.extend(jobs::check_chains(&chains, &all_names));
    let settings_first = |mistake: &Mistake| mistake.file != shown(home, &home.settings());
    mistakes.sort_by(|one, other| {
        let key = |mistake: &Mistake| (settings_first(mistake), mistake.file.clone(), mistake.line, mistake.column);
        key(one).cmp(&key(other))
    });
    if !settings_are_right {
        return Err(mistakes);
    }
    let config = Config { home: home.clone(), settings, jobs, secrets: reader };
    Ok((Loaded { config, warnings }, mistakes))
}

impl Config {
    /// What runs share: buckets opened, secrets at hand. Nothing is sent yet.
    ///
    /// # Errors
    /// When a secret or a certificate cannot be read.
    pub async fn services(&self, clock: &Clock) -> anyhow::Result<Arc<Services>> {
        use anyhow::Context as _;
        let mut buckets = BTreeMap::new();
        let mut known = Vec::new();
        for (name, bucket) in &self.settings.buckets {
            let opened = bucket.open(self.home.path(), &self.secrets, clock).await;
            buckets.insert(name.clone(), opened.with_context(|| format!("open the bucket `{name}`"))?);
            for source in bucket.secrets() {
                known.push((self.secrets.0)(source)?);
            }
        }
        let mut repositories = BTreeMap::new();
        for (name, repository) in &self.settings.repositories {
            let Some(bucket) = buckets.get(&repository.bucket) else { continue };
            let (bucket, caches) = (Arc::clone(bucket), self.settings.data.join("cache"));
            let shelf = Shelf::new(name, repository.clone(), bucket, self.secrets.clone(), Some(caches));
            repositories.insert(name.clone(), Arc::new(shelf));
            // One that cannot be read is told by whoever opens the repository.
            known.extend(repository.secrets().filter_map(|source| (self.secrets.0)(source).ok()));
        }
        // What cannot be read is told when something is sent.
        let of_notifiers = self.settings.notifiers.values().flat_map(|notifier| notifier.notifier.secrets());
        known.extend(of_notifiers.filter_map(|source| (self.secrets.0)(&source).ok()));
        known.extend(self.settings.notify.secrets().filter_map(|source| (self.secrets.0)(source).ok()));
        let notifiers = self.settings.notifiers.iter();
        Ok(Arc::new(Services {
            home: self.home.path().to_owned(),
            spool: self.settings.data.join("spool"),
            store: self.settings.data.join("rusuban.db"),
            buckets,
            repositories,
            rules: Arc::new(self.settings.rules()),
            notifiers: notifiers.map(|(name, notifier)| (name.clone(), Arc::new(notifier.clone()))).collect(),
            docker: self.settings.docker.clone(),
            time_zone: self.settings.time_zone,
            http: http::client()?,
            secrets: self.secrets.clone(),
            redactor: Redactor::new(known),
        }))
    }
}

fn load_settings(
    home: &Home,
    environment: &Environment,
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<Mistake>,
) -> Settings {
    let path = home.settings();
    let shown = shown(home, &path);
    let mut problems = Vec::new();
    let empty = |problems: &mut Vec<_>| Settings::new(SettingsFile::default(), home, environment, problems);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return empty(&mut problems),
        Err(error) => {
            mistakes.push(unreadable(&shown, &error));
            return empty(&mut problems);
        }
    };
    let (table, whole) = parse(&shown, &text, mistakes);
    if !whole {
        let mut settings = empty(&mut problems);
        settings.add_names(table.get_ref());
        return settings;
    }
    let mut found = Vec::new();
    let known =
        Known { also: &[notifiers::TABLE], whose: "", top: &|| schema::top_keys(&schema::settings()), help: "" };
    let mut rest = table.clone();
    let notifiers = notifiers::take(&mut rest, &mut found);
    let mut reading = read::read(rest, |keys| SettingsFile::deserialize(keys), &known, &mut found);
    let file = reading.value.take().unwrap_or_default();
    let mut settings = Settings::new(file, home, environment, &mut problems);
    settings.notifiers = notifiers;
    if let Some(by_default) = &settings.defaults.notify {
        let defaults = table.get_ref().get("defaults").and_then(|defaults| defaults.get_ref().as_table());
        let notify = defaults.and_then(|defaults| defaults.get("notify"));
        let is_list = notify.is_some_and(|notify| notify.get_ref().as_array().is_some());
        problems.extend(jobs::check_notify("defaults.notify", by_default, is_list, &settings));
    }
    if let Some(instead) = &settings.notify.instead {
        problems.extend(jobs::check_notify("notify.instead", &Notify::all(instead.clone()), true, &settings));
    }
    settings.add_names(table.get_ref());
    found.extend(reading.place(problems));
    let sources: Vec<_> = settings
        .buckets
        .values()
        .flat_map(|bucket| bucket.secrets())
        .chain(settings.repositories.values().flat_map(|repository| repository.secrets()))
        .chain(settings.docker.secrets())
        .cloned()
        .chain(settings.notifiers.values().flat_map(|notifier| notifier.notifier.secrets()))
        .chain(settings.notify.secrets().cloned())
        .collect();
    secrets::check(home, environment, &sources, &table, &mut found, |at, message, hint| {
        warnings.push(Mistake::at(&shown, &text, &at, message, Some(hint)));
    });
    mistakes.extend(placed(&shown, &text, found));
    settings
}

/// The job files in order of their names.
fn job_files(home: &Home, mistakes: &mut Vec<Mistake>) -> Vec<PathBuf> {
    let folder = home.jobs();
    let mut files = Vec::new();
    match fs::read_dir(&folder) {
        Ok(entries) => files.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => mistakes.push(unreadable(&shown(home, &folder), &error)),
    }
    let hidden = |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml") && !hidden(file));
    files.sort();
    files
}

fn job_name(path: &Path, shown: &Path, mistakes: &mut Vec<Mistake>) -> Option<JobName> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let wrong = |_| {
        let hint = "rename the file: lower-case letters, digits and single hyphens, such as `nightly-photos.toml`";
        Mistake::of_file(shown, format!("`{stem}` cannot be a job's name"), Some(hint.to_owned()))
    };
    stem.parse().map_err(|message: String| mistakes.push(wrong(message))).ok()
}

/// The table, and whether all of the text is in it.
fn parse<'a>(shown: &Path, text: &'a str, mistakes: &mut Vec<Mistake>) -> (read::Table<'a>, bool) {
    let (table, errors) = DeTable::parse_recoverable(text);
    mistakes.extend(placed(shown, text, syntax::mistakes(&errors, text)));
    (table, errors.is_empty())
}

fn placed(shown: &Path, text: &str, found: Vec<Found>) -> Vec<Mistake> {
    found
        .into_iter()
        .map(|Found { at, problem }| {
            let message = problem.message.replace("``", "an empty text");
            let at = problem.within.as_ref().map_or(at.clone(), |part| place::inside(text, &at, part));
            if at.is_empty() && problem.key.is_empty() && at.start == 0 {
                Mistake::of_file(shown, message, problem.hint)
            } else {
                Mistake::at(shown, text, &at, message, problem.hint)
            }
        })
        .collect()
}

fn unreadable(shown: &Path, error: &std::io::Error) -> Mistake {
    let why = match error.kind() {
        ErrorKind::IsADirectory => "it is a folder".to_owned(),
        ErrorKind::NotADirectory => "it is no folder".to_owned(),
        ErrorKind::InvalidData => "it is no text in UTF-8".to_owned(),
        ErrorKind::NotFound => "it is a link to nothing".to_owned(),
        ErrorKind::PermissionDenied => "this user may not read it: look at its owner and mode".to_owned(),
        _ => error.to_string(),
    };
    Mistake::of_file(shown, format!("cannot be read: {why}"), None)
}

/// A path as people know it: within the home folder.
fn shown(home: &Home, path: &Path) -> PathBuf {
    path.strip_prefix(home.path()).unwrap_or(path).to_owned()
}
