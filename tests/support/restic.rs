//! Stock `restic`, the judge of what we write and the author of what we read.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// A repository, in the hands of stock `restic`.
pub(crate) struct Restic {
    repository: PathBuf,
    environment: Vec<(String, String)>,
}

impl Restic {
    pub(crate) fn new(repository: &Path, password: &str) -> Self {
        Self { repository: repository.to_owned(), environment: Vec::new() }
            .with_environment("RESTIC_PASSWORD", password)
    }

    /// Gives it what it needs to reach a server.
    pub(crate) fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it; what it printed, or what it said and printed when it failed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.bytes(arguments).map(|printed| String::from_utf8_lossy(&printed).into_owned())
    }

    fn bytes(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let output = Command::new("restic")
            .args(["--no-cache", "-r"])
            .arg(&self.repository)
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .output()
            .expect("restic is installed by dev/test");
        if output.status.success() {
            return Ok(output.stdout);
        }
        let (said, printed) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        Err(format!("restic {arguments:?}: {said}\n{printed}"))
    }

    /// Runs it and reads the JSON that it printed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments).unwrap()).unwrap()
    }

    pub(crate) fn init(&self) {
        self.run(&["init"]).unwrap();
    }

    pub(crate) fn back_up(&self, path: &Path) {
        self.back_up_all(&[path], &[]);
    }

    /// Backs up several paths, with more arguments.
    pub(crate) fn back_up_all(&self, paths: &[&Path], more: &[&str]) {
        let mut arguments = vec!["backup", "--quiet"];
        arguments.extend(more);
        arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
        self.run(&arguments).unwrap();
    }

    /// Its snapshots, oldest first.
    pub(crate) fn snapshots(&self) -> Vec<Value> {
        self.json(&["snapshots", "--json"]).as_array().unwrap().clone()
    }

    /// The files and folders of a snapshot: path, type, size and more of each.
    pub(crate) fn ls(&self, snapshot: &str) -> Vec<Value> {
        let lines = self.run(&["ls", "--json", snapshot]).unwrap();
        // The first line is the snapshot itself.
        lines.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What is in a file of a snapshot.
    pub(crate) fn dump(&self, snapshot: &str, path: &Path) -> Vec<u8> {
        self.bytes(&["dump", snapshot, path.to_str().unwrap()]).unwrap()
    }

    pub(crate) fn forget(&self, snapshot: &str) {
        self.run(&["forget", snapshot]).unwrap();
    }

    /// Removes everything that no snapshot needs, however little it is.
    pub(crate) fn prune(&self) {
        self.run(&["prune", "--max-unused", "0"]).unwrap();
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
