//! `rusuban coverage`: what is on the Docker host, which job keeps it, and what nobody keeps.
use serde_json::json;

use super::{Context, Exit, engine, paint};
use crate::{
    app::coverage::{compare, look},
    config::Config,
    coverage::{Coverage, Keeper, Thing, Verdict, What},
    text,
};

/// Arguments of `coverage`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Also list what containers have written outside of volumes where it is too little to be missed
    #[arg(long)]
    all: bool,
}

/// Lists it.
pub(super) async fn coverage(context: &mut Context<'_>, arguments: &Arguments) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let coverage = match find(context, &config).await {
        Ok(coverage) => coverage,
        Err(error) => anyhow::bail!(engine::in_words(&error)),
    };
    if context.json {
        let told = json!({ "things": coverage.things, "notes": coverage.notes, "gaps": coverage.gaps().count() });
        writeln!(context.out, "{}", serde_json::to_string_pretty(&told)?)?;
    } else {
        show(context, &coverage, arguments.all)?;
    }
    Ok(if coverage.gaps().next().is_some() { Exit::Failed } else { Exit::Fine })
}

/// Looks at the host and compares it with the jobs.
pub(super) async fn find(context: &Context<'_>, config: &Config) -> anyhow::Result<Coverage> {
    let host = look(config, &context.clock).await?;
    let ledger = context.ledger(config).await?;
    compare(config, &host, ledger.as_ref(), context.clock.now()).await
}

fn show(context: &mut Context<'_>, coverage: &Coverage, all: bool) -> anyhow::Result<()> {
    let is_trace =
        |thing: &&Thing| matches!((&thing.what, &thing.verdict), (What::Layer { .. }, Verdict::Passing { .. })) && !all;
    let (traces, shown): (Vec<_>, Vec<_>) = coverage.things.iter().partition(is_trace);
    let mut table = text::Table::new(["", "what", "name", "used by", "by"]);
    let now = context.clock.now();
    let by = |by: &[Keeper]| {
        let one = |keeper: &Keeper| match keeper.last {
            Some(at) if keeper.is_late => format!("{}, {}: late", keeper.job, text::ago(at, now)),
            Some(at) => format!("{}, {}", keeper.job, text::ago(at, now)),
            None => keeper.job.to_string(),
        };
        by.iter().map(one).collect::<Vec<_>>().join("; ")
    };
    for thing in &shown {
        let (word, more) = match &thing.verdict {
            Verdict::Unkept { but } => (paint::bad("not kept"), but.join("; ")),
            Verdict::NotYet { by: names } => (paint::bad("not kept yet"), by(names)),
            Verdict::Inconsistent { by: names } => (paint::warning("kept, but not consistently"), by(names)),
            Verdict::Kept { by: names } if thing.verdict.is_doubtful() => (paint::warning("kept"), by(names)),
            Verdict::Kept { by: names } => (paint::good("kept"), by(names)),
            Verdict::Accepted { pattern } => (paint::faint("accepted"), format!("`{pattern}`")),
            Verdict::Passing { because } => (paint::faint("passing"), because.clone()),
        };
        table.row([word, thing.what.word().to_owned(), name(thing), used_by(thing), more]);
    }
    write!(context.out, "{table}")?;
    if !traces.is_empty() {
        let count = text::count(traces.len(), "container");
        writeln!(
            context.out,
            "{}",
            paint::faint(&format!("{count} whose writable layer would not be missed; --all lists them and says why"))
        )?;
    }
    for note in &coverage.notes {
        writeln!(context.out, "{} {note}", paint::warning("note:"))?;
    }
    let doubtful = shown.iter().filter(|thing| matches!(thing.verdict, Verdict::Inconsistent { .. })).count();
    if doubtful > 0 {
        writeln!(
            context.out,
            "\n{}: files of a database that were read while it wrote to them may be of no use; `consistency = \"stop\"`, or \"pause\", on a \
             `volume` or `container` source reads them at one moment",
            paint::warning("kept, but not consistently")
        )?;
    }
    match coverage.gaps().count() {
        0 => writeln!(context.out, "\n{}", paint::good("all that would be missed is kept"))?,
        gaps => writeln!(
            context.out,
            "\n{}; `rusuban init` proposes jobs for what no job names, and `ignore` in [coverage] of rusuban.toml accepts the rest",
            paint::bad(&format!("{} not kept", text::count(gaps, "thing")))
        )?,
    }
    Ok(())
}

fn name(thing: &Thing) -> String {
    match &thing.what {
        What::Database { name, engine, place, .. } => format!("{name}: {} {place}", engine.name()),
        What::Sqlite { name, .. } => name.clone(),
        What::Layer { name, bytes } => format!("{name}: {} outside of volumes", text::size(*bytes)),
        What::Volume { name } if name.len() == 64 => format!("{}… (without a name)", &name[..12]),
        What::Volume { name } | What::Folder { name } => name.clone(),
    }
}

fn used_by(thing: &Thing) -> String {
    match (&thing.what, thing.used_by.as_slice()) {
        (What::Database { because, .. }, _) => because.clone(),
        (What::Layer { .. }, _) => String::new(),
        (_, []) => "nobody".to_owned(),
        (_, [one]) => one.clone(),
        (_, [one, more @ ..]) => format!("{one} and {} more", more.len()),
    }
}
