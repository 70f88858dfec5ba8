//! A process in a running container: started, heard while it works, and ended when it must stop.
//!
//! The engine can start such a process and cannot end one. So each gets a mark in its environment, by which it and all that
//! comes of it is found again: see [`Ender`].
use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;

use super::{
    attached::{Attached, Input, Lost},
    client::{Engine, EngineError},
    container::{Container, State},
    dump::Dump,
    ending::{Ender, MARK, Place},
    excuse::{excused, may_be_excuse, refused},
    frames::Piece,
};

/// What to run in a container. It has no `Debug`: the environment may hold secrets.
#[derive(Clone, Default)]
pub struct Exec {
    /// The program and its arguments; no shell reads them. They are published in the engine's events: no place for secrets.
    pub arguments: Vec<String>,
    /// Added to the container's environment.
    pub environment: Vec<(String, String)>,
    /// As whom, as the container knows users: `name`, `number` or `user:group` [default: the container's own].
    pub user: Option<String>,
    /// Where, in the container [default: the container's own].
    pub folder: Option<String>,
    /// Whether it gets an input; without one it reads the end at once.
    pub input: bool,
}

/// Why something was not run in a container, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no such container.
    #[error("there is no container `{0}`")]
    NoContainer(String),
    /// It takes no processes now.
    #[error("container `{container}` {state}")]
    NotRunning {
        /// Its name.
        container: String,
        /// What it does instead, in words.
        state: String,
    },
    /// The engine has no such image.
    #[error("there is no image `{0}` on the engine's host: fetch it with `docker pull {0}`")]
    NoImage(String),
    /// Another container has the name that one of ours would get.
    #[error("another container is called `{0}` already: look at it, and remove it with `docker rm {0}`")]
    NameTaken(String),
    /// The engine could not start the program.
    #[error("run `{program}` in container `{container}`: {why}")]
    NotStarted {
        /// The first argument.
        program: String,
        /// The container's name.
        container: String,
        /// Why, in words.
        why: String,
    },
    /// The container ended, and the process with it.
    #[error("container `{0}` was stopped or removed while the command was at work in it")]
    ContainerGone(String),
    /// The connection was lost, or what came over it cannot be. The process may go on.
    #[error("{0}")]
    Lost(String),
    /// Of a [`Dump`]: the process ended with another exit code than 0.
    #[error("exit code {code}{}", said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    Failed {
        /// Its exit code.
        code: i32,
        /// The last line of its standard error.
        said: Option<String>,
    },
    /// The engine did not do what was asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A process that is known to the engine and not started yet. Forgotten, it does nothing.
#[derive(Debug)]
pub struct Prepared {
    ender: Ender,
    program: String,
    folder: Option<String>,
    began: String,
    guarded: bool,
}

/// A process at work. Dropped before it has ended, it is killed.
#[derive(Debug)]
pub struct Process {
    prepared: Arc<Prepared>,
    attached: Attached,
    /// Its first words, while they look like the engine's own.
    held: Option<Piece>,
    /// Something of it was handed out.
    has_spoken: bool,
    waiting: VecDeque<Piece>,
    exit: Option<i32>,
}

impl Engine {
    /// Starts a process in the container of that name.
    ///
    /// # Errors
    /// When there is no such container, or it does not run. A program that cannot be started is told by [`Process::next`].
    pub async fn exec(&self, container: &str, exec: &Exec) -> Result<Process, ExecError> {
        self.prepare(container, exec).await?.start().await
    }

    /// The same in two steps: where the process will be is known, and can be written down, before it is started.
    ///
    /// # Errors
    /// When there is no such container, or it does not run.
    pub async fn prepare(&self, container: &str, exec: &Exec) -> Result<Prepared, ExecError> {
        self.prepare_with(container, exec, Some(mark()?)).await
    }

    /// Without a mark it cannot be ended, nor is it when it is dropped.
    pub(super) async fn prepare_with(
        &self,
        container: &str,
        exec: &Exec,
        mark: Option<String>,
    ) -> Result<Prepared, ExecError> {
        let found = self.container(container).await.map_err(|error| match error {
            EngineError::NotFound(_) => ExecError::NoContainer(container.to_owned()),
            error => error.into(),
        })?;
        if let Some(state) = no_room(&found) {
            return Err(ExecError::NotRunning { container: container.to_owned(), state: state.to_owned() });
        }
        let marked = mark.iter().map(|mark| (MARK, mark.as_str()));
        let variables = exec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let body = json!({
            "Cmd": exec.arguments,
            "Env": variables.chain(marked).map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "User": exec.user.as_deref().unwrap_or_default(),
            "WorkingDir": exec.folder.as_deref().unwrap_or_default(),
            "AttachStdin": exec.input,
            "AttachStdout": true,
            "AttachStderr": true,
            "Tty": false,
        });
        let program = exec.arguments.first().cloned().unwrap_or_default();
        let created = self.post(&format!("/containers/{}/exec", found.id()), &[], Some(&body), Some(MOMENT)).await;
        let created = created.map_err(|error| match error {
            EngineError::NotFound(_) => ExecError::NoContainer(container.to_owned()),
            EngineError::Conflict(_) => {
                let state = "is not running, or is paused".to_owned();
                ExecError::NotRunning { container: container.to_owned(), state }
            }
            error => refused(&error, &program, container, exec.folder.as_deref()).unwrap_or_else(|| error.into()),
        })?;
        let place = Place {
            container: found.id().to_owned(),
            process: created["Id"].as_str().unwrap_or_default().to_owned(),
            mark: mark.clone().unwrap_or_default(),
            user: exec.user.clone(),
        };
        Ok(Prepared {
            ender: Ender::new(self.clone(), container, place),
            program,
            folder: exec.folder.clone(),
            began: began(&found).to_owned(),
            guarded: mark.is_some(),
        })
    }
}

/// What the engine may take for a small answer.
const MOMENT: Duration = Duration::from_secs(120);

impl Prepared {
    /// Where it will be, to be written down.
    #[must_use]
    pub fn place(&self) -> &Place {
        self.ender.place()
    }

    /// Starts it.
    ///
    /// # Errors
    /// When its container has ended meanwhile, or the engine does not let us hear it.
    pub async fn start(self) -> Result<Process, ExecError> {
        let path = format!("/exec/{}/start", self.place().process);
        let body = json!({ "Detach": false, "Tty": false });
        let connection = self.engine().upgrade(&path, &[], Some(&body)).await;
        let connection = connection.map_err(|error| match error {
            EngineError::NotFound(_) | EngineError::Conflict(_) => {
                ExecError::ContainerGone(self.container().to_owned())
            }
            error => self.refused(&error).unwrap_or_else(|| error.into()),
        });
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                // The answer was lost, perhaps, and not the request.
                if self.guarded && matches!(&error, ExecError::Engine(error) if error.is_open()) {
                    self.ender.kill_in_the_background();
                }
                return Err(error);
            }
        };
        Ok(Process {
            prepared: Arc::new(self),
            attached: Attached::new(connection),
            held: None,
            has_spoken: false,
            waiting: VecDeque::new(),
            exit: None,
        })
    }

    fn engine(&self) -> &Engine {
        self.ender.engine()
    }

    fn container(&self) -> &str {
        self.ender.container()
    }

    fn refused(&self, error: &EngineError) -> Option<ExecError> {
        refused(error, &self.program, self.container(), self.folder.as_deref())
    }
}

impl Process {
    /// What ends it, and goes on doing so when this is elsewhere.
    #[must_use]
    pub fn ender(&self) -> Ender {
        self.prepared.ender.clone()
    }

    /// Its input, if it was to have one; the first time. Shut it down, and the process reads the end of its input. Feed it beside
    /// listening: a process that nobody hears may stop reading.
    #[must_use]
    pub fn take_input(&mut self) -> Option<Input> {
        self.attached.take_input()
    }

    /// The next bytes that it wrote, on either channel, in the order in which they came; none when it has closed both.
    /// Dropped half way, it loses nothing.
    ///
    /// # Errors
    /// When the program could not be started; when the connection breaks or what comes over it is damaged.
    pub async fn next(&mut self) -> Result<Option<Piece>, ExecError> {
        loop {
            if let Some(piece) = self.waiting.pop_front() {
                self.has_spoken = true;
                return Ok(Some(piece));
            }
            match self.attached.next().await {
                Ok(Some(piece)) if !self.has_spoken => self.hold(piece),
                Ok(Some(piece)) => return Ok(Some(piece)),
                Ok(None) => {
                    let Some(held) = &self.held else { return Ok(None) };
                    let excuse = String::from_utf8_lossy(&held.bytes).into_owned();
                    if matches!(self.exit().await?, 126 | 127) {
                        let Prepared { program, folder, .. } = &*self.prepared;
                        return Err(excused(&excuse, program, self.prepared.container(), folder.as_deref()));
                    }
                    self.waiting.extend(self.held.take());
                }
                Err(lost) => return Err(self.lost(lost).await),
            }
        }
    }

    /// Keeps back what may be the engine's words and not the program's.
    fn hold(&mut self, piece: Piece) {
        let piece = match self.held.take() {
            Some(held) if held.channel == piece.channel => {
                Piece { channel: piece.channel, bytes: Bytes::from([held.bytes, piece.bytes].concat()) }
            }
            Some(held) => return self.waiting.extend([held, piece]),
            None => piece,
        };
        if may_be_excuse(&piece.bytes) {
            self.held = Some(piece);
        } else {
            self.waiting.push_back(piece);
        }
    }

    /// How it ended: its exit code, or 128 and the number of the signal. To be asked when [`Process::next`] has nothing more;
    /// a process that closed both channels and works on is waited for.
    ///
    /// # Errors
    /// When its container ended before it, or the engine does not answer.
    pub async fn exit(&mut self) -> Result<i32, ExecError> {
        if let Some(code) = self.exit {
            return Ok(code);
        }
        let mut wait = Duration::from_millis(5);
        let code = loop {
            if let Some(code) = self.ended().await? {
                break code;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(1));
        };
        // Its exit code says that it was killed; by whom, the container knows.
        if code >= 128 && self.is_container_gone().await? {
            return Err(ExecError::ContainerGone(self.prepared.container().to_owned()));
        }
        Ok(*self.exit.insert(code))
    }

    /// Its exit code if it has ended, though something that it left behind may still write.
    ///
    /// # Errors
    /// When its container was removed, or the engine does not answer.
    pub async fn ended(&mut self) -> Result<Option<i32>, ExecError> {
        match self.prepared.ender.inspect().await {
            // The code of one that runs is no code yet: Podman says 0.
            Ok(said) if said["Running"].as_bool() == Some(false) => {
                Ok(said["ExitCode"].as_i64().and_then(|code| i32::try_from(code).ok()))
            }
            Ok(_) => Ok(None),
            Err(EngineError::NotFound(_)) => Err(ExecError::ContainerGone(self.prepared.container().to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// Its standard output alone, as the bytes of a dump.
    #[must_use]
    pub fn dump(self) -> Dump {
        Dump::new(self)
    }

    async fn lost(&mut self, lost: Lost) -> ExecError {
        match self.is_container_gone().await {
            Ok(true) => ExecError::ContainerGone(self.prepared.container().to_owned()),
            // The engine itself does not answer any more, and says so best.
            Err(error) => error.into(),
            Ok(false) => ExecError::Lost(lost.to_string()),
        }
    }

    /// Whether the container has ended since the process was started, though it may have been started again.
    async fn is_container_gone(&mut self) -> Result<bool, EngineError> {
        match self.prepared.engine().container(&self.prepared.place().container).await {
            Ok(found) => Ok(!found.state().is_up() || began(&found) != self.prepared.began),
            Err(EngineError::NotFound(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.is_none() && self.prepared.guarded {
            self.prepared.ender.kill_in_the_background();
        }
    }
}

/// A mark that nothing else has.
///
/// # Errors
/// When the system has no randomness.
pub fn mark() -> Result<String, ExecError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ExecError::Lost(format!("no randomness: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Why a container takes no processes, in words.
fn no_room(container: &Container) -> Option<&'static str> {
    match container.state() {
        State::Running => None,
        State::Paused => Some("is paused: nothing can be started in it until `docker unpause`"),
        State::Restarting => Some("has ended and is being started again by Docker, over and over perhaps"),
        State::Created => Some("has never been started: start it with `docker start`"),
        State::Exited => Some("is stopped: start it with `docker start`"),
        State::Other => Some("is dead or being removed"),
    }
}

fn began(container: &Container) -> &str {
    container.raw()["State"]["StartedAt"].as_str().unwrap_or_default()
}
