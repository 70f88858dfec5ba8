//! Ending a process in a container, which no engine can: it is found by its mark.
//!
//! From outside, if its processes can be seen from here, as root on the engine's own host does. Otherwise from inside: by the
//! container's own shell, as the same user, since no other may read the environment of that user's processes.
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{
    client::{Engine, EngineError},
    exec::{Exec, ExecError},
};
use crate::process::{Ending, Tree};

/// The variable that is the mark.
pub(super) const MARK: &str = "RUSUBAN_EXEC";
/// How long a process that was asked for may take to be there.
const BIRTH: Duration = Duration::from_secs(2);
/// What looking through a container's processes may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a process in a container is: enough to end it, also by a Rusuban that was started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The container's id.
    pub container: String,
    /// What the engine calls the process.
    pub process: String,
    /// The mark in its environment.
    pub mark: String,
    /// Its user.
    pub user: Option<String>,
}

/// Ends one process in a container, and all that came of it.
#[derive(Clone, Debug)]
pub struct Ender {
    engine: Engine,
    /// The container's name, for messages.
    container: String,
    place: Place,
}

/// It could not be ended.
#[derive(Debug, thiserror::Error)]
#[error("what was started in container `{container}` goes on there: {why}")]
pub struct StillThere {
    container: String,
    why: String,
}

impl Ender {
    /// Of the process at this place, in a container that people know by this name.
    #[must_use]
    pub fn new(engine: Engine, container: &str, place: Place) -> Self {
        Self { engine, container: container.to_owned(), place }
    }

    /// Where the process is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn container(&self) -> &str {
        &self.container
    }

    /// Ends it: SIGTERM, then up to `grace` for it and its children to go, then SIGKILL for those that are left.
    /// When it has ended already, or its container has, there is nothing to do.
    ///
    /// # Errors
    /// When it cannot be found or not be ended; it goes on then.
    pub async fn end(&self, grace: Duration) -> Result<Ending, StillThere> {
        let begun = Instant::now();
        while begun.elapsed() < BIRTH && self.is_being_started().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if self.engine.is_local() {
            let ending = Tree::of_variable(MARK, &self.place.mark).end(grace).await;
            if ending.left == 0 && ending != Ending::default() {
                return Ok(ending);
            }
        }
        self.end_from_inside(grace.saturating_sub(begun.elapsed())).await
    }

    /// Whether it was asked for and is not there yet: nobody could find it now.
    async fn is_being_started(&self) -> bool {
        let Ok(said) = self.inspect().await else { return false };
        if said["Running"].as_bool() == Some(true) { said["Pid"] == 0 } else { said["ExitCode"].is_null() }
    }

    /// Kills it without waiting for that.
    pub(super) fn kill_in_the_background(&self) {
        let ender = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = ender.end(Duration::ZERO).await {
                    tracing::warn!(error = error.to_string(), "a process in a container was left behind");
                }
            });
        }
    }

    pub(super) async fn inspect(&self) -> Result<Value, EngineError> {
        self.engine.get(&format!("/exec/{}/json", self.place.process), &[]).await
    }

    async fn end_from_inside(&self, grace: Duration) -> Result<Ending, StillThere> {
        let mut ending = Ending::default();
        let mut left = self.signal(if grace.is_zero() { "KILL" } else { "TERM" }, &[]).await?;
        if grace.is_zero() {
            ending.killed = left.len();
        } else {
            ending.asked = left.len();
        }
        let kill_at = Instant::now() + grace;
        let mut wait = Duration::from_millis(100);
        while !left.is_empty() && Instant::now() < kill_at {
            tokio::time::sleep(wait.min(kill_at.saturating_duration_since(Instant::now()))).await;
            left = self.signal("", &left).await?;
            wait = (wait * 2).min(Duration::from_secs(1));
        }
        // A process may be born while we look: look again until there is none.
        for _ in 0..10 {
            if left.is_empty() {
                return Ok(ending);
            }
            ending.killed = ending.killed.max(left.len());
            self.signal("KILL", &left).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            left = self.signal("", &left).await?;
        }
        if left.is_empty() {
            return Ok(ending);
        }
        Err(self.still_there(format!("processes that cannot be ended: {}", left.len())))
    }

    /// Sends a signal to all that has the mark, to what is below it, and to those that are `known`; with no signal, only
    /// looks. Returns those that were there.
    async fn signal(&self, signal: &str, known: &[String]) -> Result<Vec<String>, StillThere> {
        let arguments = ["/bin/sh", "-c", include_str!("ending.sh"), "rusuban", &self.place.mark, signal];
        let exec = Exec {
            arguments: arguments.into_iter().map(str::to_owned).chain(known.iter().cloned()).collect(),
            user: self.place.user.clone(),
            folder: Some("/".to_owned()),
            ..Exec::default()
        };
        let looking = async {
            // Marked itself, it would be what it looks for.
            let process = self.engine.prepare_with(&self.place.container, &exec, None).await?.start().await?;
            let (mut dump, mut said) = (process.dump(), Vec::new());
            while let Some(bytes) = dump.next().await? {
                said.extend_from_slice(&bytes);
            }
            Ok(String::from_utf8_lossy(&said).split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        let looked = tokio::time::timeout(PATIENCE, looking).await;
        let why = match looked {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(ExecError::NoContainer(_) | ExecError::ContainerGone(_))) => return Ok(Vec::new()),
            Ok(Err(error)) => match self.has_ended().await {
                true => return Ok(Vec::new()),
                false if matches!(error, ExecError::NotStarted { .. }) => {
                    "it has no shell that could end it, and its processes cannot be seen from here".to_owned()
                }
                false => error.to_string(),
            },
            Err(_) => "looking for it there took too long".to_owned(),
        };
        Err(self.still_there(why))
    }

    /// Whether it is known to have ended, by itself or with its container.
    async fn has_ended(&self) -> bool {
        if let Ok(found) = self.engine.container(&self.place.container).await
            && !found.state().is_up()
        {
            return true;
        }
        match self.inspect().await {
            Ok(said) => said["Running"].as_bool() == Some(false),
            Err(error) => error.is_not_found(),
        }
    }

    fn still_there(&self, why: String) -> StillThere {
        StillThere { container: self.container.clone(), why }
    }
}
