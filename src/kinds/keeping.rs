//! What a job keeps, as whoever looks for gaps asks for it. Values; what is on the host is looked at elsewhere.
use std::path::PathBuf;

use crate::docker::Choice;

/// One thing that a job keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// The step in which a run of the job keeps it; a run that has not had this step has not kept it. None: a step for each
    /// container, with its name.
    pub step: Option<String>,
    /// What.
    pub what: Kept,
    /// What becomes of those who write to it meanwhile.
    pub how: How,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A file, or a folder with all that is below it.
    Path {
        /// As the job says it; relative to the home folder.
        path: PathBuf,
        /// Patterns of what is left out.
        exclude: Vec<String>,
        /// What is mounted below is left out.
        one_file_system: bool,
    },
    /// A SQLite database.
    Sqlite(PathBuf),
    /// A Docker volume.
    Volume {
        /// Its name.
        name: String,
        /// Patterns of what is left out.
        exclude: Vec<String>,
    },
    /// The volumes of a container.
    Container {
        /// Its name.
        name: String,
        /// What is bound into it as well.
        binds: bool,
        /// Patterns of what is left out.
        exclude: Vec<String>,
    },
    /// What these containers have written outside of volumes.
    Layers {
        /// Which.
        choice: Choice,
        /// Those among them that go on meanwhile.
        never_paused: Choice,
    },
    /// A database in a container, as its own engine dumps it.
    Database {
        /// The container's name.
        container: String,
    },
    /// Rusuban's own ledger, settings and job files.
    Own,
}

/// What becomes of those who write to something while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// They go on: files may be of different moments.
    AsItIs,
    /// They are paused or stopped, or it is read in a way that does not mind them.
    AtOneMoment,
    /// They are told by the owner's own commands.
    Told,
}
