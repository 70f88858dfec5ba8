//! `rusuban dns`: what providers were told, and what keeps them from being told.
use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Context, Exit, control, paint};
use crate::{
    app::{Refusal, control::Request, dns},
    kinds::dynamic_dns::memory::{KEY, LIFTED, Memory, OfHost, Stopped},
    model::JobName,
    store::Store,
    text,
};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show each host: its address, since when, when it was last told, and what keeps it from being told
    Status {
        /// Only this job's
        job: Option<String>,
    },
    /// Tell the provider again though it said that this must not be; the cause should be mended first
    Unblock {
        /// The job's name
        job: String,
        /// Only this host [default: all of the job]
        host: Option<String>,
        /// Forget all that was told too, and begin anew
        #[arg(long, conflicts_with = "host")]
        forget: bool,
    },
}

pub(super) async fn run(context: &mut Context<'_>, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Status { job } => status(context, job.as_deref()).await,
        Command::Unblock { job, host, forget } => unblock(context, &job, host, forget).await,
    }
}

/// How one host stands.
struct Line<'a> {
    job: &'a JobName,
    name: &'a str,
    provider: &'a str,
    host: Option<&'a OfHost>,
    stopped: Option<&'a Stopped>,
    is_lifted: bool,
}

async fn status(context: &mut Context<'_>, job: Option<&str>) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let chosen: Vec<_> = match job {
        Some(name) => match context.job(&config, name)? {
            Some(job) => vec![job],
            None => return Ok(Exit::Missing),
        },
        None => config.jobs.values().cloned().collect(),
    };
    let chosen: Vec<_> = chosen.into_iter().filter(|job| !job.kind.dns_hosts().is_empty()).collect();
    if let (Some(name), true) = (job, chosen.is_empty()) {
        return context.missing(&format!("the job `{name}` is of another kind than `dynamic-dns`"));
    }
    let now = context.clock.now();
    let ledger = context.ledger(&config).await?;
    let mut rows = Vec::new();
    let mut unreadable = Vec::new();
    for job in &chosen {
        let (memory, lifted) = match &ledger {
            Some(store) => match recall(store, &job.name).await {
                Ok(known) => known,
                Err(error) => {
                    unreadable.push(format!(
                        "{}: {error:#}; `rusuban dns unblock {} --forget` begins anew",
                        job.name, job.name
                    ));
                    continue;
                }
            },
            None => Default::default(),
        };
        rows.push((&job.name, job.kind.dns_hosts(), memory, lifted));
    }
    let lines: Vec<Line<'_>> = rows
        .iter()
        .flat_map(|(job, hosts, memory, lifted)| {
            hosts.iter().map(move |name| {
                let host = memory.hosts.get(name);
                let stopped = memory.stopped.as_ref().or(host.and_then(|host| host.stopped.as_ref()));
                let is_lifted = stopped.is_some_and(|stop| lifted.contains(&stop.id));
                Line { job, name, provider: &memory.provider, host, stopped, is_lifted }
            })
        })
        .collect();
    if context.json {
        let all: Vec<_> = lines.iter().map(|line| line.json(now)).collect();
        writeln!(context.out, "{}", serde_json::to_string_pretty(&all)?)?;
    } else {
        show(context, &lines, now)?;
    }
    for why in &unreadable {
        writeln!(context.errors, "{} {why}", paint::bad("error:"))?;
    }
    Ok(if unreadable.is_empty() { Exit::Fine } else { Exit::Failed })
}

fn show(context: &mut Context<'_>, lines: &[Line<'_>], now: DateTime<Utc>) -> anyhow::Result<()> {
    if lines.is_empty() {
        writeln!(context.out, "no job keeps a name true; `rusuban kinds dynamic-dns` shows how one is written")?;
        return Ok(());
    }
    let mut table = text::Table::new(["host", "job", "provider", "address", "since", "last told", "next", "how"]);
    for line in lines {
        let told: Vec<_> = line.host.into_iter().flat_map(OfHost::each).collect();
        let when =
            |all: Vec<DateTime<Utc>>| all.into_iter().max().map_or_else(|| "-".to_owned(), |at| text::ago(at, now));
        let addresses = told.iter().map(|told| told.address.to_string()).collect::<Vec<_>>().join(", ");
        table.row([
            line.name.to_owned(),
            line.job.to_string(),
            if line.provider.is_empty() { "-".to_owned() } else { line.provider.to_owned() },
            if addresses.is_empty() { "-".to_owned() } else { addresses },
            when(told.iter().map(|told| told.since).collect()),
            when(told.iter().map(|told| told.told_at).collect()),
            line.next(now).map_or_else(|| "-".to_owned(), |at| text::ago(at, now)),
            line.how(now),
        ]);
    }
    write!(context.out, "{table}")?;
    for line in lines {
        if let Some(stop) = line.stopped {
            let rest = if line.is_lifted {
                "it was lifted by hand: the next run tells the provider again".to_owned()
            } else {
                format!(
                    "{}. It goes on by itself when the job's settings change, or with `rusuban dns unblock {}`",
                    stop.mend, line.job
                )
            };
            writeln!(
                context.out,
                "\n{} {} ({})\n  {rest}",
                paint::bad(&format!("{}:", line.name)),
                stop.why,
                text::ago(stop.at, now)
            )?;
        } else if let Some(wait) = line.host.and_then(|host| host.wait.as_ref()).filter(|wait| now < wait.until) {
            writeln!(
                context.out,
                "\n{} {} ({}); it is told again {}, not before",
                paint::warning(&format!("{}:", line.name)),
                wait.why,
                text::ago(wait.from, now),
                text::ago(wait.until, now)
            )?;
        }
    }
    Ok(())
}

impl Line<'_> {
    /// When it is told again.
    fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let host = self.host.filter(|_| self.stopped.is_none())?;
        host.wait.as_ref().map(|wait| wait.until).filter(|until| now < *until).or(host.next)
    }

    /// One word or two.
    fn how(&self, now: DateTime<Utc>) -> String {
        let waits = self.host.and_then(|host| host.wait.as_ref()).is_some_and(|wait| now < wait.until);
        let unseen = self.host.is_some_and(|host| host.each().any(|told| told.seen_at.is_none()));
        match (self.stopped, self.host) {
            (Some(_), _) if self.is_lifted => paint::warning("lifted"),
            (Some(_), _) => paint::bad("stopped"),
            _ if waits => paint::warning("waits"),
            (None, Some(host)) if host.sending.is_some() => paint::warning("cut off"),
            (None, Some(host)) if host.each().next().is_none() => paint::faint("not told yet"),
            (None, None) => paint::faint("not told yet"),
            _ if unseen => paint::warning("told, not seen"),
            _ => paint::good("right"),
        }
    }

    fn json(&self, now: DateTime<Utc>) -> serde_json::Value {
        let told = self.host.into_iter().flat_map(OfHost::each).collect::<Vec<_>>();
        let wait = self.host.and_then(|host| host.wait.as_ref()).filter(|wait| now < wait.until);
        json!({
            "host": self.name,
            "job": self.job,
            "provider": self.provider,
            "addresses": told,
            "next": self.next(now),
            "waits": wait,
            "stopped": self.stopped.map(|stop| json!({
                "at": stop.at,
                "why": stop.why,
                "mend": stop.mend,
                "lifted": self.is_lifted,
            })),
        })
    }
}

async fn recall(store: &Store, job: &JobName) -> anyhow::Result<(Memory, Vec<String>)> {
    let memory = store.fact(job, KEY).await?.map(serde_json::from_value).transpose()?;
    let lifted = store.fact(job, LIFTED).await?.map(serde_json::from_value).transpose()?;
    Ok((memory.unwrap_or_default(), lifted.unwrap_or_default()))
}

/// Lifts stops, with or without a server.
async fn unblock(context: &mut Context<'_>, job: &str, host: Option<String>, forget: bool) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let Some(job) = context.job(&config, job)? else { return Ok(Exit::Missing) };
    let name = job.name.clone();
    let hosts = job.kind.dns_hosts();
    if hosts.is_empty() {
        return context.missing(&format!("the job `{name}` is of another kind than `dynamic-dns`"));
    }
    let request = Request::Unblock { job: name.clone(), host: host.clone(), forget };
    if let Some(exit) = control::ask(context, &config, &request).await? {
        return Ok(exit);
    }
    let Some(store) = context.ledger(&config).await? else {
        return context.missing("nothing has run yet, so nothing is stopped");
    };
    match dns::unblock(&store, &name, host.as_deref(), forget).await {
        Ok(done) if context.json => writeln!(context.out, "{}", json!({ "done": done }))?,
        Ok(done) => writeln!(context.out, "{done}")?,
        Err(Refusal::Missing(why)) => return context.missing(&why),
        Err(Refusal::Other(error)) => return Err(error),
    }
    Ok(Exit::Fine)
}
