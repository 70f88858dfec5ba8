//! `rusuban volume-helper`: what runs in a container beside volumes that only it sees. It is asked over its input and answers over its
//! output; when nobody asks any more, it ends.
use std::{os::fd::AsFd as _, path::PathBuf};

use anyhow::Context as _;

use crate::{kinds::restore, tree};

/// What to do.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, clap::Subcommand)]
enum Work {
    /// Tell what is in folders, and send what is asked for
    Read {
        /// A folder for copies of databases
        spool: PathBuf,
    },
    /// Tell whether a volume is one that was not filled to its end
    Look {
        /// Where it is
        folder: PathBuf,
    },
    /// Fill a volume with what is sent
    Write {
        /// Where it is
        folder: PathBuf,
        /// Its name
        volume: String,
        /// What is in it goes
        #[arg(long)]
        replace: bool,
    },
}

/// Does it.
pub(super) fn help(arguments: &Arguments) -> anyhow::Result<()> {
    let from = std::io::stdin().lock();
    // Not the usual one, which looks for the ends of lines.
    let to = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned().context("open the output")?);
    match &arguments.work {
        Work::Read { spool } => tree::serve(from, to, spool),
        Work::Write { folder, volume, replace } => restore::receive(folder, volume, *replace, from, to),
        Work::Look { folder } => restore::tell_unfilled(folder, to),
    }
}
