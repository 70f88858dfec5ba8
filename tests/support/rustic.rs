//! `rustic`, another program that writes the format: `dev/test --rustic` builds it.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A repository, in its hands.
pub(crate) struct Rustic {
    program: PathBuf,
    repository: PathBuf,
    password: String,
}

impl Rustic {
    #[expect(clippy::disallowed_methods, reason = "a test is told by dev/test where the programs are")]
    pub(crate) fn new(repository: &Path, password: &str) -> Self {
        let program = std::env::var_os("RUSUBAN_TEST_RUSTIC").expect("dev/test --rustic says where rustic is");
        Self { program: program.into(), repository: repository.to_owned(), password: password.to_owned() }
    }

    /// Runs it; what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("RUSTIC_REPOSITORY", &self.repository).env("RUSTIC_PASSWORD", &self.password);
        command.env("RUSTIC_NO_CACHE", "true").env("RUSTIC_NO_PROGRESS", "true");
        // It looks for settings where a person would have them.
        command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
        let output = command.output().expect("start rustic");
        let (said, printed) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "rustic {arguments:?}: {said}\n{printed}");
        printed.into_owned()
    }
}
