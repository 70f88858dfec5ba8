//! `rusuban notify`: how each notifier is, what waits for it, trying it out, and trying one again that was blocked.
use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, TimeZone as _, Utc};
use serde_json::json;

use super::{Context, Exit, control, paint};
use crate::{
    app::{App, Opened, Refusal, control::Request, deliver},
    config::{Config, mistake::suggest},
    model::news::{About, News},
    store::Line,
    text,
};

/// What of it.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the notifiers: which work, what waits for them, what was said against them
    List,
    /// Send a trial message, now, and show what the service answered
    Test {
        /// The notifier's name
        name: String,
    },
    /// List what waits to be told, the oldest first
    Outbox {
        /// Only for this notifier
        name: Option<String>,
        /// How many
        #[arg(long, short = 'n', default_value_t = 50)]
        count: u32,
    },
    /// Try a notifier again that refused, or whose line is down
    Unblock {
        /// The notifier's name
        name: String,
    },
}

pub(super) async fn run(context: &mut Context<'_>, command: Option<Command>) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    match command {
        None | Some(Command::List) => list(context, &config).await,
        Some(Command::Test { name }) => test(context, &config, name).await,
        Some(Command::Outbox { name, count }) => outbox(context, &config, name.as_deref(), count).await,
        Some(Command::Unblock { name }) => unblock(context, &config, name).await,
    }
}

/// How a notifier is.
enum How {
    /// It took what it was last given.
    Works,
    /// It was given nothing yet.
    New,
    /// It does not get through, since then.
    Fails(DateTime<Utc>),
    /// It refuses, since then.
    Blocked(DateTime<Utc>),
    /// It is not in the settings, and something waits for it.
    Gone,
}

impl How {
    fn of(config: &Config, name: &str, line: &Line) -> Self {
        let Some(notifier) = config.settings.notifiers.get(name) else { return Self::Gone };
        match (line.blocked, line.failing, line.told) {
            (Some(since), ..) if line.settings.as_deref() == Some(&*deliver::fingerprint(notifier)) => {
                Self::Blocked(since)
            }
            (_, Some(since), _) => Self::Fails(since),
            (_, _, Some(_)) => Self::Works,
            _ => Self::New,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::New => "new",
            Self::Fails(_) => "failing",
            Self::Blocked(_) => "blocked",
            Self::Gone => "gone",
        }
    }

    fn in_words(&self, now: DateTime<Utc>) -> String {
        match self {
            Self::Works => paint::good("works"),
            Self::New => paint::faint("nothing told yet"),
            Self::Fails(since) => paint::warning(&format!("does not get through since {}", text::ago(*since, now))),
            Self::Blocked(since) => paint::bad(&format!("refuses since {}", text::ago(*since, now))),
            Self::Gone => paint::warning("not in rusuban.toml"),
        }
    }
}

async fn list(context: &mut Context<'_>, config: &Config) -> anyhow::Result<Exit> {
    let now = context.clock.now();
    let (lines, queues, costs) = match context.ledger(config).await? {
        Some(store) => {
            (store.lines_of_notifiers().await?, store.queues().await?, store.costs(month(config, now)).await?)
        }
        None => Default::default(),
    };
    let mut names: Vec<&String> = config.settings.notifiers.keys().chain(queues.keys()).collect();
    names.sort();
    names.dedup();
    let line = |name: &String| lines.get(name).cloned().unwrap_or_default();
    let waiting = |name: &String| queues.get(name).copied().unwrap_or_default();
    if context.json {
        let all = names.iter().map(|name| {
            let line = line(name);
            json!({
                "notifier": name,
                "kind": config.settings.notifiers.get(*name).map(|notifier| notifier.kind),
                "state": How::of(config, name, &line).word(),
                "waiting": waiting(name),
                "cost_this_month": micro_dollars(&costs, name),
                "line": line,
            })
        });
        writeln!(context.out, "{}", serde_json::to_string_pretty(&all.collect::<Vec<_>>())?)?;
        return Ok(Exit::Fine);
    }
    if names.is_empty() {
        writeln!(
            context.out,
            "there are no notifiers: nobody is told when a job fails; write `[notifier.NAME]` in rusuban.toml"
        )?;
        return Ok(Exit::Fine);
    }
    let mut table = text::Table::new(["notifier", "kind", "", "waiting", "last told", "this month"]);
    for name in &names {
        let line = line(name);
        table.row([
            (*name).clone(),
            config.settings.notifiers.get(*name).map_or_else(String::new, |notifier| notifier.kind.to_owned()),
            How::of(config, name, &line).in_words(now),
            waiting(name).to_string(),
            line.told.map_or_else(|| "never".to_owned(), |at| text::ago(at, now)),
            costs.get(*name).map_or_else(String::new, |cost| dollars(*cost)),
        ]);
    }
    write!(context.out, "{table}")?;
    for name in names {
        let line = line(name);
        let Some(error) = &line.error else { continue };
        writeln!(context.out, "\n{name}: {error}")?;
        match How::of(config, name, &line) {
            How::Blocked(_) => writeln!(
                context.out,
                "  once that is mended: `rusuban notify test {name}`, or `rusuban notify unblock {name}`; a change of its settings does it too"
            )?,
            How::Fails(_) => {
                let next =
                    line.next_try.map_or_else(String::new, |at| format!("; the next try is {}", text::ago(at, now)));
                writeln!(context.out, "  what waits is told when it gets through again{next}")?;
            }
            _ => {}
        }
    }
    Ok(Exit::Fine)
}

/// The beginning of this month, by the house's calendar.
fn month(config: &Config, now: DateTime<Utc>) -> DateTime<Utc> {
    let zone = config.settings.time_zone;
    let today = now.with_timezone(&zone);
    let first = zone.with_ymd_and_hms(today.year(), today.month(), 1, 0, 0, 0).earliest();
    first.map_or(now, |first| first.to_utc())
}

fn micro_dollars(costs: &BTreeMap<String, u64>, name: &str) -> u64 {
    costs.get(name).copied().unwrap_or_default()
}

/// `$0.215`, of millionths.
fn dollars(cost: u64) -> String {
    format!("${}.{:03}", cost / 1_000_000, cost % 1_000_000 / 1_000)
}

async fn test(context: &mut Context<'_>, config: &Config, name: String) -> anyhow::Result<Exit> {
    if let Some(exit) = unknown(context, config, &name)? {
        return Ok(exit);
    }
    if let Some(exit) = control::ask(context, config, &Request::TestNotifier { name: name.clone() }).await? {
        return Ok(exit);
    }
    let came = match App::open(config.home.clone(), config.clone(), context.clock.clone(), "notify test").await? {
        Opened::Ours(app) => app.test_notifier(&name).await,
        Opened::Taken(holder) => {
            writeln!(
                context.errors,
                "{} {holder} runs on this home; try again when it has ended",
                paint::bad("refused:")
            )?;
            return Ok(Exit::Failed);
        }
    };
    match came {
        Ok(done) => said(context, &done),
        Err(Refusal::Missing(text)) => context.missing(&text),
        Err(Refusal::Other(error)) => {
            writeln!(context.errors, "{} {error:#}", paint::bad("refused:"))?;
            Ok(Exit::Failed)
        }
    }
}

async fn unblock(context: &mut Context<'_>, config: &Config, name: String) -> anyhow::Result<Exit> {
    if let Some(exit) = unknown(context, config, &name)? {
        return Ok(exit);
    }
    if let Some(exit) = control::ask(context, config, &Request::UnblockNotifier { name: name.clone() }).await? {
        return Ok(exit);
    }
    let was = match context.ledger(config).await? {
        Some(store) => deliver::unblock(&store, &name).await?,
        None => false,
    };
    let done =
        if was { format!("{name} is tried again once a server runs") } else { format!("nothing was against {name}") };
    said(context, &done)
}

fn said(context: &mut Context<'_>, done: &str) -> anyhow::Result<Exit> {
    if context.json {
        writeln!(context.out, "{}", json!({ "done": done }))?;
    } else {
        writeln!(context.out, "{done}")?;
    }
    Ok(Exit::Fine)
}

/// Says that there is no such notifier.
fn unknown(context: &mut Context<'_>, config: &Config, name: &str) -> anyhow::Result<Option<Exit>> {
    if config.settings.notifiers.contains_key(name) {
        return Ok(None);
    }
    let known: Vec<&str> = config.settings.notifiers.keys().map(String::as_str).collect();
    let hint = if known.is_empty() {
        format!("write `[notifier.{name}]` there, with a `kind`")
    } else {
        suggest(name, &known, "the notifiers are")
    };
    context.missing(&format!("rusuban.toml has no notifier `{name}`; {hint}")).map(Some)
}

async fn outbox(context: &mut Context<'_>, config: &Config, name: Option<&str>, count: u32) -> anyhow::Result<Exit> {
    let rows = match context.ledger(config).await? {
        Some(store) => store.waiting(name, count).await?,
        None => Vec::new(),
    };
    if context.json {
        writeln!(context.out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(Exit::Fine);
    }
    if rows.is_empty() {
        writeln!(context.out, "nothing waits to be told")?;
        return Ok(Exit::Fine);
    }
    let now = context.clock.now();
    let mut table = text::Table::new(["happened", "for", "about", "event", "what"]);
    for row in rows {
        let News { about, event, what, at, .. } = &row.news;
        table.row([text::ago(*at, now), row.notifier.clone(), subject(about), event.word().to_owned(), what.clone()]);
    }
    write!(context.out, "{table}")?;
    Ok(Exit::Fine)
}

fn subject(about: &About) -> String {
    match about {
        About::Job { job, .. } => job.to_string(),
        About::Check { job, check } => format!("{check} ({job})"),
        About::Notifier { name } => format!("notifier {name}"),
        About::House => "this host".to_owned(),
    }
}
