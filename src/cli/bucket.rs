//! `rusuban bucket`.
use super::{Context, Exit, paint};
use crate::{
    bucket::probe::{Verdict, probe},
    text,
};

/// What can be done with a bucket.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write, read, list and delete in a bucket, and say what its key may do
    Test {
        /// The bucket's name in rusuban.toml
        name: String,
    },
    /// List the buckets
    List,
}

/// Does it.
pub(super) async fn run(context: &mut Context<'_>, command: Command) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let name = match command {
        Command::List => {
            let mut table = text::Table::new(["bucket", "where"]);
            let mut places = serde_json::Map::new();
            for (name, settings) in &config.settings.buckets {
                let bucket = settings.open(config.home.path(), &config.secrets, &context.clock).await?;
                places.insert(name.clone(), bucket.describe().into());
                table.row([name.clone(), bucket.describe()]);
            }
            if context.json {
                writeln!(context.out, "{}", serde_json::to_string_pretty(&places)?)?;
            } else {
                write!(context.out, "{table}")?;
            }
            return Ok(Exit::Fine);
        }
        Command::Test { name } => name,
    };
    let Some(settings) = config.settings.buckets.get(&name) else {
        let known: Vec<&str> = config.settings.buckets.keys().map(String::as_str).collect();
        return context.missing(&format!("there is no bucket `{name}`; the buckets are {}", known.join(", ")));
    };
    let bucket = settings.open(config.home.path(), &config.secrets, &context.clock).await?;
    let trials = probe(bucket.as_ref(), &context.clock).await;
    let works = trials.iter().all(|trial| trial.verdict != Verdict::Fails);
    if context.json {
        writeln!(context.out, "{}", serde_json::to_string_pretty(&trials)?)?;
    } else {
        writeln!(context.out, "{}", bucket.describe())?;
        let mut table = text::Table::new(["", "", ""]);
        for trial in &trials {
            let verdict = match trial.verdict {
                Verdict::Works => paint::good("works"),
                Verdict::Note => paint::warning("note"),
                Verdict::Fails => paint::bad("fails"),
            };
            table.row([format!("  {}", trial.what), verdict, trial.detail.clone()]);
        }
        write!(context.out, "{}", table.to_string().trim_start_matches('\n'))?;
        if !works {
            writeln!(context.out, "{}", paint::bad("backups cannot be kept here until this is mended"))?;
        }
    }
    Ok(if works { Exit::Fine } else { Exit::Failed })
}
