//! What describes the program: kinds, schemas, completions, manual pages.
use std::{fs, path::Path};

use anyhow::Context as _;
use clap::CommandFactory as _;
use serde_json::json;

use super::{Cli, Context, Exit, SchemaOf};
use crate::{config, kinds, kinds::KINDS, text};

/// The kinds, or one kind's example.
pub(super) fn kinds(context: &mut Context<'_>, kind: Option<&str>) -> anyhow::Result<Exit> {
    if let Some(name) = kind {
        let Some(kind) = kinds::find(name) else {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            return context.missing(&format!("there is no kind `{name}`; the kinds are {}", known.join(", ")));
        };
        write!(context.out, "{}", kind.example)?;
        return Ok(Exit::Fine);
    }
    if context.json {
        let kinds: Vec<_> = KINDS
            .iter()
            .map(|kind| json!({ "kind": kind.name, "summary": kind.summary, "example": kind.example }))
            .collect();
        writeln!(context.out, "{}", serde_json::to_string_pretty(&kinds)?)?;
        return Ok(Exit::Fine);
    }
    let mut table = text::Table::new(["kind", "what it does"]);
    for kind in KINDS {
        table.row([kind.name.to_owned(), kind.summary.to_owned()]);
    }
    write!(context.out, "{table}\n`rusuban kinds KIND` shows an example to start from\n")?;
    Ok(Exit::Fine)
}

/// The JSON schema of a file.
pub(super) fn schema(context: &mut Context<'_>, file: SchemaOf) -> anyhow::Result<Exit> {
    let schema = match file {
        SchemaOf::Settings => config::schema::settings(),
        SchemaOf::Job => config::schema::job(),
    };
    writeln!(context.out, "{}", serde_json::to_string_pretty(&schema)?)?;
    Ok(Exit::Fine)
}

/// Completions for a shell.
pub(super) fn completions(context: &mut Context<'_>, shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rusuban", &mut script);
    context.out.write_all(&script)?;
    Ok(Exit::Fine)
}

/// The manual pages.
pub(super) fn pages(context: &mut Context<'_>, folder: &Path) -> anyhow::Result<Exit> {
    let what = || format!("write the manual pages into {}", folder.display());
    fs::create_dir_all(folder).with_context(what)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(what)?;
    writeln!(context.out, "wrote the manual pages into {}", folder.display())?;
    Ok(Exit::Fine)
}
