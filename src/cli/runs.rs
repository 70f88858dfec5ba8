//! `rusuban runs` and `rusuban log`.
use std::time::Duration;

use serde_json::json;

use super::{Context, Exit, paint};
use crate::{
    model::{Line, Run, RunId, RunState, SlotEnd, Trigger},
    store::{RunFilter, Store},
    text,
};

/// Runs, the newest first; with `slots`, what became of each slot too.
pub(super) async fn list(
    context: &mut Context<'_>,
    job: Option<&str>,
    count: u32,
    slots: bool,
) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let job = job.map(str::parse).transpose().map_err(anyhow::Error::msg)?;
    let Some(store) = context.ledger(&config).await? else {
        writeln!(context.out, "{}", if context.json { "[]" } else { "nothing has run yet" })?;
        return Ok(Exit::Fine);
    };
    if slots {
        let Some(job) = job else {
            writeln!(context.errors, "slots are shown of one job: `rusuban runs JOB --slots`")?;
            return Ok(Exit::Usage);
        };
        return list_slots(context, &store, &job, count).await;
    }
    let runs = store.runs(RunFilter { job, before: None, limit: count }).await?;
    if context.json {
        writeln!(context.out, "{}", serde_json::to_string_pretty(&runs)?)?;
        return Ok(Exit::Fine);
    }
    if runs.is_empty() {
        writeln!(context.out, "nothing of this has run yet")?;
        return Ok(Exit::Fine);
    }
    let now = context.clock.now();
    let mut table = text::Table::new(["run", "job", "when", "took", "how", "started by", "what"]);
    for run in &runs {
        let (when, took, how) = match &run.state {
            RunState::Queued => (run.queued, None, paint::warning("waiting")),
            RunState::Running { since } => (*since, (now - since).to_std().ok(), paint::warning("running")),
            RunState::Finished { since, at, outcome } => {
                (since.unwrap_or(*at), since.and_then(|since| (*at - since).to_std().ok()), paint::outcome(*outcome))
            }
        };
        table.row([
            run.id.to_string(),
            run.job.to_string(),
            text::ago(when, now),
            took.map_or_else(String::new, text::duration),
            how,
            started_by(&run.trigger),
            run.message.clone(),
        ]);
    }
    write!(context.out, "{table}")?;
    Ok(Exit::Fine)
}

fn started_by(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Schedule(_) => "schedule".to_owned(),
        Trigger::CatchUp(_) => "schedule, made up".to_owned(),
        Trigger::Startup => "start".to_owned(),
        Trigger::Manual => "hand".to_owned(),
        Trigger::After(run) => format!("run {run}"),
        Trigger::Rerun(run) => format!("run {run}, cut off"),
        Trigger::Container(because) => {
            let happening = &because.happening;
            let more = if because.others.is_empty() { String::new() } else { format!(" +{}", because.others.len()) };
            format!("{}{more} {}", happening.container, happening.event.word())
        }
        Trigger::Followed(_) => "containers".to_owned(),
    }
}

async fn list_slots(
    context: &mut Context<'_>,
    store: &Store,
    job: &crate::model::JobName,
    count: u32,
) -> anyhow::Result<Exit> {
    let slots = store.slots(job, count).await?;
    if context.json {
        writeln!(context.out, "{}", serde_json::to_string_pretty(&slots)?)?;
        return Ok(Exit::Fine);
    }
    if slots.is_empty() {
        writeln!(context.out, "no slot of {job} has come yet; `rusuban next {job}` shows the next")?;
        return Ok(Exit::Fine);
    }
    let now = context.clock.now();
    let mut table = text::Table::new(["due", "", "what became of it"]);
    for slot in slots {
        let what = match slot.end {
            SlotEnd::Run(run) => format!("run {run}"),
            SlotEnd::Skipped(reason) => format!("{}: {reason}", paint::warning("skipped")),
            SlotEnd::Missed(reason) if slot.count > 1 => {
                format!("{}, {} of them: {reason}", paint::bad("missed"), slot.count)
            }
            SlotEnd::Missed(reason) => format!("{}: {reason}", paint::bad("missed")),
        };
        table.row([text::moment(slot.due, chrono_tz::UTC), text::ago(slot.due, now), what]);
    }
    write!(context.out, "{table}")?;
    Ok(Exit::Fine)
}

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// Lines read at once.
const LINES: u32 = 1000;

/// The log of a run, or of a job's newest one.
pub(super) async fn log(context: &mut Context<'_>, which: &str, follow: bool) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let run = match context.ledger(&config).await? {
        Some(store) => find(&store, which).await?.map(|run| (store, run)),
        None => None,
    };
    let Some((store, mut run)) = run else {
        return context.missing(&format!("there is no run `{which}`; `rusuban runs` lists them"));
    };
    let mut shown = 0;
    loop {
        // First the run, then its lines: those of a run that has ended are all there.
        run = store.run(run.id).await?.unwrap_or(run);
        loop {
            let lines = store.lines(run.id, shown, LINES).await?;
            let Some(last) = lines.last() else { break };
            shown = last.number;
            for line in &lines {
                write_line(context, line)?;
            }
        }
        match &run.state {
            RunState::Finished { outcome, .. } => {
                if !context.json {
                    writeln!(context.out, "{}: {}", paint::outcome(*outcome), run.message)?;
                }
                return Ok(Exit::Fine);
            }
            _ if !follow => return Ok(Exit::Fine),
            _ => {
                context.out.flush()?;
                context.clock.sleep(LOOK).await;
            }
        }
    }
}

async fn find(store: &Store, which: &str) -> anyhow::Result<Option<Run>> {
    if let Ok(run) = which.parse::<RunId>() {
        return store.run(run).await;
    }
    let Ok(job) = which.parse() else { return Ok(None) };
    Ok(store.runs(RunFilter { job: Some(job), before: None, limit: 1 }).await?.pop())
}

fn write_line(context: &mut Context<'_>, line: &Line) -> anyhow::Result<()> {
    if context.json {
        writeln!(context.out, "{}", json!(line))?;
    } else {
        let at = line.at.format("%H:%M:%S").to_string();
        writeln!(context.out, "{} {}", paint::faint(&at), paint::line(line.level, &line.text))?;
    }
    Ok(())
}
