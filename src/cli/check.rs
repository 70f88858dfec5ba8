//! `rusuban check`: every mistake in every file, and when each job will run.

use futures_util::StreamExt as _;
use serde_json::json;

use super::{Context, Exit, coverage, engine, paint};
use crate::{
    config::Config,
    job::Job,
    model::{JobName, news::Event},
    text,
};

/// Slots shown of each job.
const SLOTS: usize = 5;

/// Checks all files; with `connect`, knocks at each bucket and at the engine, and reads each secret.
pub(super) async fn check(context: &mut Context<'_>, connect: bool) -> anyhow::Result<Exit> {
    let Some(config) = context.load()? else { return Ok(Exit::Configuration) };
    let mut exit = Exit::Fine;
    let mut knocked = Vec::new();
    let mut locked = Vec::new();
    let (mut docker, mut covered) = (None, None);
    if connect {
        locked = unreadable_secrets(&config).await;
        if !locked.is_empty() {
            exit = Exit::Failed;
        }
        docker = engine::knock(&config).await;
        if docker.as_ref().is_some_and(Result::is_err) {
            exit = Exit::Failed;
        }
        // Where there is no engine there is nothing of containers to be kept.
        covered = coverage::find(context, &config).await.ok();
        for (name, result) in knock(context, &config).await {
            if result.is_err() {
                exit = Exit::Failed;
            }
            knocked.push((name, result));
        }
    }
    if context.json {
        let now = context.clock.now();
        let jobs: Vec<_> = config
            .jobs
            .values()
            .map(|job| {
                let schedule = job.schedule.as_ref();
                json!({
                    "job": job.name,
                    "kind": job.kind_name,
                    "enabled": job.enabled,
                    "schedule": schedule.map(|schedule| schedule.line()),
                    "in_words": schedule.map(|schedule| schedule.in_words()),
                    "next": schedule.map(|schedule| schedule.slots_after(now).take(SLOTS)
                        .map(|at| at.with_timezone(&schedule.zone()).to_rfc3339()).collect::<Vec<_>>()),
                    "warnings": schedule.map(|schedule| schedule.warnings(now)),
                    "failures_are_heard": job.notify.anybody_hears_of(Event::Failed),
                })
            })
            .collect();
        let buckets: serde_json::Map<_, _> = knocked
            .into_iter()
            .map(|(name, result)| {
                (name, result.map_or_else(|error| json!({ "error": error }), |place| json!({ "fine": place })))
            })
            .collect();
        writeln!(
            context.out,
            "{}",
            serde_json::to_string_pretty(&json!({
                "jobs": jobs,
                "buckets": buckets,
                "docker": docker.map(|found| found.map_or_else(|error| json!({ "error": error }), |said| json!({ "fine": said }))),
                "coverage": covered.as_ref().map(|covered| json!({ "gaps": covered.gaps().count(), "warning": covered.warning() })),
                "unreadable_secrets": locked.iter().map(|(job, error)| json!({ "job": job, "error": error })).collect::<Vec<_>>(),
            }))?
        )?;
        return Ok(exit);
    }
    for job in config.jobs.values() {
        show(context, job, is_unheard(&config, job))?;
    }
    for (name, result) in knocked {
        match result {
            Ok(place) => writeln!(context.out, "bucket {name}: {} ({place})", paint::good("answers"))?,
            Err(error) => writeln!(context.out, "bucket {name}: {} {error}", paint::bad("cannot be used:"))?,
        }
    }
    match docker {
        Some(Ok(said)) => writeln!(context.out, "engine: {} ({said})", paint::good("answers"))?,
        Some(Err(error)) => writeln!(context.out, "engine: {} {error}", paint::bad("cannot be used:"))?,
        None => {}
    }
    if let Some(warning) = covered.and_then(|covered| covered.warning()) {
        writeln!(context.out, "{} {warning}", paint::warning("warning:"))?;
    }
    for (job, error) in locked {
        writeln!(context.out, "job {job}: {} {error}", paint::bad("cannot be run:"))?;
    }
    let jobs = text::count(config.jobs.len(), "job");
    if config.jobs.is_empty() {
        let place = config.home.jobs();
        writeln!(context.out, "there are no jobs yet in {}; `rusuban init` writes the first", place.display())?;
    }
    if exit == Exit::Fine {
        writeln!(context.out, "{}: {jobs} in {}", paint::good("all files are right"), config.home.path().display())?;
    }
    Ok(exit)
}

/// Whether nobody hears when it fails, though there are notifiers and nobody has said that this is meant.
fn is_unheard(config: &Config, job: &Job) -> bool {
    !config.settings.notifiers.is_empty()
        && job.enabled
        && !job.notify.anybody_hears_of(Event::Failed)
        && !job.notify.is_silent_by_choice()
}

/// What is said of such a job.
const UNHEARD: &str = "nobody hears when it fails: write `notify = [\"NAME\"]` with one of the notifiers, here or under `[defaults]`; `notify = []` says that it is meant";

fn show(context: &mut Context<'_>, job: &Job, is_unheard: bool) -> anyhow::Result<()> {
    let now = context.clock.now();
    let state = if job.enabled { String::new() } else { format!(", {}", paint::faint("not enabled")) };
    write!(context.out, "{} ({}{state})", job.name, job.kind_name)?;
    let Some(schedule) = &job.schedule else {
        writeln!(context.out, ": {}", job.starts_in_words().unwrap_or_else(|| "by hand only".to_owned()))?;
        if is_unheard {
            writeln!(context.out, "    {} {UNHEARD}", paint::warning("warning:"))?;
        }
        writeln!(context.out)?;
        return Ok(());
    };
    let on = job.on.as_ref().map(|on| format!(", and {}", on.in_words())).unwrap_or_default();
    writeln!(context.out, ": {}, in {}{on}", schedule.in_words(), schedule.zone())?;
    for at in schedule.slots_after(now).take(SLOTS) {
        writeln!(context.out, "    {}  {}", text::moment(at, schedule.zone()), paint::faint(&text::ago(at, now)))?;
    }
    for warning in schedule.warnings(now) {
        writeln!(context.out, "    {} {warning}", paint::warning("warning:"))?;
    }
    if is_unheard {
        writeln!(context.out, "    {} {UNHEARD}", paint::warning("warning:"))?;
    }
    writeln!(context.out)?;
    Ok(())
}

/// Lists what is in each bucket, as far as one answer.
async fn knock(context: &Context<'_>, config: &Config) -> Vec<(String, Result<String, String>)> {
    let mut answers = Vec::new();
    for (name, settings) in &config.settings.buckets {
        let answer = async {
            let bucket = settings.open(config.home.path(), &config.secrets, &context.clock).await?;
            let mut listing = bucket.list("").await?;
            if let Some(first) = listing.next().await {
                first?;
            }
            let absent = bucket.local_folder().is_some_and(|folder| !folder.exists());
            let note = if absent { ", which is not there yet: the first backup makes it" } else { "" };
            anyhow::Ok(format!("{}{note}", bucket.describe()))
        };
        answers.push((name.clone(), answer.await.map_err(|error| format!("{error:#}"))));
    }
    answers
}

/// Reads each secret of the jobs that are enabled, commands included, once; tells what cannot be read and the first job that needs it.
async fn unreadable_secrets(config: &Config) -> Vec<(JobName, String)> {
    let mut read = Vec::new();
    let mut errors = Vec::new();
    for job in config.jobs.values().filter(|job| job.enabled) {
        for source in job.kind.secrets() {
            if read.contains(&source) {
                continue;
            }
            read.push(source.clone());
            let reader = config.secrets.clone();
            let result = tokio::task::spawn_blocking(move || reader.0(&source)).await;
            if let Err(error) = result.map_err(anyhow::Error::from).and_then(|secret| secret) {
                errors.push((job.name.clone(), format!("{error:#}")));
            }
        }
    }
    errors
}
