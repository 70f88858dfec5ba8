//! Stock `restic`, the judge of what we write and the author of what we read.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A repository, in the hands of stock `restic`.
pub(crate) struct Restic {
    repository: PathBuf,
    password: String,
}

impl Restic {
    pub(crate) fn new(repository: &Path, password: &str) -> Self {
        Self { repository: repository.to_owned(), password: password.to_owned() }
    }

    /// Runs it; what it printed, or what it said and printed when it failed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("restic")
            .args(["--no-cache", "-r"])
            .arg(&self.repository)
            .args(arguments)
            .env("RESTIC_PASSWORD", &self.password)
            .output()
            .expect("restic is installed by dev/test");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(printed) } else { Err(format!("restic {arguments:?}: {said}\n{printed}")) }
    }

    pub(crate) fn init(&self) {
        self.run(&["init"]).unwrap();
    }

    pub(crate) fn back_up(&self, path: &Path) {
        self.run(&["backup", "--quiet", path.to_str().unwrap()]).unwrap();
    }

    /// Reads all of it again; what is wrong otherwise.
    pub(crate) fn check(&self) -> Result<(), String> {
        let printed = self.run(&["check", "--read-data"])?;
        if printed.contains("no errors were found") { Ok(()) } else { Err(printed) }
    }

    /// Restores a snapshot into a folder.
    pub(crate) fn restore(&self, snapshot: &str, to: &Path) {
        self.run(&["restore", snapshot, "--target", to.to_str().unwrap(), "--verify"]).unwrap();
    }
}
