//! A real Redis server on a socket of its own.
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use super::garage::Kept;

/// What it wants to hear from whoever comes.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A server that runs until it is dropped or stopped.
pub(crate) struct Redis {
    folder: tempfile::TempDir,
    process: Option<Kept>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let mut redis = Self { folder: tempfile::tempdir().unwrap(), process: None };
        redis.begin();
        redis
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// Ends it, and all that it knew.
    pub(crate) fn stop(&mut self) {
        self.process = None;
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts it again, empty.
    pub(crate) fn begin(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--requirepass", PASSWORD, "--unixsocket"]).arg(self.socket());
        self.process = Some(Kept::start_again(self.folder.path(), command.current_dir(self.folder.path())));
        let begun = Instant::now();
        while self.says(&["ping"]) != "PONG" {
            assert!(begun.elapsed() < Duration::from_secs(30), "Redis does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it answers.
    pub(crate) fn says(&self, command: &[&str]) -> String {
        let mut client = Command::new("redis-cli");
        client.arg("-s").arg(self.socket()).env("REDISCLI_AUTH", PASSWORD).args(command);
        let output = client.output().expect("redis-cli is installed by dev/test");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A table, as `name=value` in order.
    pub(crate) fn table(&self, key: &str) -> Vec<String> {
        let said = self.says(&["hgetall", key]);
        let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
        let mut table: Vec<String> = lines.chunks_exact(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect();
        table.sort();
        table
    }
}
