//! `rusuban init`: a commented `rusuban.toml` and first jobs.
use std::fs;

use anyhow::Context as _;

use super::{Context, Exit, paint};
use crate::kinds::KINDS;

const SETTINGS: &str = include_str!("rusuban.toml");
const SELF_BACKUP: &str = include_str!("../../jobs/self-backup.toml");

/// Writes the files; none that is there is touched.
pub(super) fn init(context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let jobs = context.home.jobs();
    let mut files = vec![(context.home.settings(), SETTINGS), (jobs.join("self-backup.toml"), SELF_BACKUP)];
    files.extend(KINDS.iter().map(|kind| (jobs.join(format!("{}.toml", kind.name)), kind.example)));
    let there: Vec<String> =
        files.iter().filter(|(path, _)| path.exists()).map(|(path, _)| path.display().to_string()).collect();
    if !there.is_empty() {
        writeln!(
            context.errors,
            "{} nothing was written, because this is there already:\n  {}",
            paint::bad("error:"),
            there.join("\n  ")
        )?;
        return Ok(Exit::Failed);
    }
    fs::create_dir_all(&jobs).with_context(|| format!("make the folder {}", jobs.display()))?;
    for (path, text) in files {
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        writeln!(context.out, "wrote {}", path.display())?;
    }
    writeln!(
        context.out,
        "\n`rusuban check` shows when each job runs, `rusuban run self-backup` makes the first backup"
    )?;
    Ok(Exit::Fine)
}
