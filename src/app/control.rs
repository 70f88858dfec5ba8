//! How a command line reaches the server of its home: a Unix socket in the data folder, one request a connection, a
//! line of JSON each way. The socket's owner alone may use it.
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt, BufReader, Lines},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
};
use tokio_util::sync::CancellationToken;

use super::{App, Events};
use crate::{
    kinds::{restore::Restore, rollback::Rollback},
    model::{JobName, Run, RunId},
    runner::Event,
};

/// A request longer than this is none of ours.
const LONGEST_REQUEST: u64 = 64 << 10;

/// What the server can be asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verb")]
pub enum Request {
    /// Run a job now; answered by [`Reply::Queued`] and the run's events.
    Run {
        /// The job.
        job: JobName,
    },
    /// Roll a container back; answered as [`Request::Run`] is.
    Rollback(Rollback),
    /// Bring back into Docker what a backup holds; answered as [`Request::Run`] is.
    Restore(Restore),
    /// Ask a run to stop.
    Cancel {
        /// The run.
        run: RunId,
    },
    /// Let a job's slots go by.
    Pause {
        /// The job.
        job: JobName,
    },
    /// Take up its schedule again.
    Resume {
        /// The job.
        job: JobName,
    },
    /// Lift what keeps a job from telling its dynamic DNS provider.
    Unblock {
        /// The job.
        job: JobName,
        /// Of this host alone; of all without.
        host: Option<String>,
        /// Forget all else that was told, too.
        forget: bool,
    },
    /// Read the files again.
    Reload,
    /// Send a trial message.
    TestNotifier {
        /// The notifier.
        name: String,
    },
    /// Try a notifier again.
    UnblockNotifier {
        /// The notifier.
        name: String,
    },
}

/// What the server answers, a line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The run's row is written.
    Queued(Run),
    /// Something happened in the run.
    Event(Event),
    /// It is done; a sentence for the person.
    Done(String),
    /// It cannot be done; a sentence for the person.
    Refused(String),
    /// There is no such job or run; a sentence for the person.
    Missing(String),
}

/// The socket of a data folder.
fn socket_path(data: &Path) -> PathBuf {
    data.join("rusuban.sock")
}

/// A server's socket, removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Opens the socket. The caller holds the data folder's lock, so one that is there is a dead process's.
    ///
    /// # Errors
    /// When it cannot be made, such as a path longer than the 107 bytes that the system allows.
    pub fn open(data: &Path) -> anyhow::Result<Self> {
        let path = socket_path(data);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).with_context(|| format!("open the socket {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("close {} to others", path.display()))?;
        Ok(Self { listener, path })
    }

    /// Answers requests until `stop`.
    pub async fn serve(self, app: Arc<App>, stop: CancellationToken) {
        loop {
            let connection = tokio::select! {
                () = stop.cancelled() => return,
                connection = self.listener.accept() => connection,
            };
            match connection {
                Ok((stream, _)) => {
                    let app = Arc::clone(&app);
                    tokio::spawn(async move {
                        // A client that hung up needs no answer.
                        let _ = answer(&app, stream).await;
                    });
                }
                // Out of file descriptors: it passes.
                Err(error) => {
                    tracing::warn!(%error, "accept on the control socket");
                    app.clock().sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(app: &Arc<App>, stream: UnixStream) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LONGEST_REQUEST)).read_line(&mut line).await?;
    let request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return send(&mut write, &Reply::Refused(format!("read the request: {error}"))).await,
    };
    let reply = match request {
        Request::Run { job } => return follow(&mut write, app.run_now(&job).await).await,
        Request::Rollback(rollback) => return follow(&mut write, app.rollback(rollback).await).await,
        Request::Restore(restore) => return follow(&mut write, app.restore(restore).await).await,
        Request::Cancel { run } => reply(app.cancel(run).await),
        Request::Pause { job } => reply(app.pause(&job, true).await),
        Request::Resume { job } => reply(app.pause(&job, false).await),
        Request::Unblock { job, host, forget } => reply(app.unblock(&job, host.as_deref(), forget).await),
        Request::Reload => reply(app.reload().await),
        Request::TestNotifier { name } => reply(app.test_notifier(&name).await),
        Request::UnblockNotifier { name } => reply(app.unblock_notifier(&name).await),
    };
    send(&mut write, &reply).await
}

/// Tells of a run until it ends.
async fn follow(
    write: &mut (impl AsyncWriteExt + Unpin),
    begun: Result<(Run, Events), super::Refusal>,
) -> anyhow::Result<()> {
    match begun {
        Err(error) => send(write, &error.into()).await,
        Ok((run, mut events)) => {
            send(write, &Reply::Queued(run)).await?;
            while let Some(event) = events.next().await {
                send(write, &Reply::Event(event)).await?;
            }
            Ok(())
        }
    }
}

fn reply(result: Result<String, super::Refusal>) -> Reply {
    result.map_or_else(Into::into, Reply::Done)
}

impl From<super::Refusal> for Reply {
    fn from(refusal: super::Refusal) -> Self {
        match refusal {
            super::Refusal::Missing(what) => Self::Missing(what),
            super::Refusal::Other(error) => Self::Refused(format!("{error:#}")),
        }
    }
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(write.write_all(&line).await?)
}

/// The answers to one request.
#[derive(Debug)]
pub struct Replies(Lines<BufReader<OwnedReadHalf>>);

impl Replies {
    /// The next answer; none after the last.
    ///
    /// # Errors
    /// When the server went away in the middle of a word.
    pub async fn next(&mut self) -> anyhow::Result<Option<Reply>> {
        let line = self.0.next_line().await.context("read from the server")?;
        line.map(|line| serde_json::from_str(&line).context("understand the server; is it of another version?"))
            .transpose()
    }
}

/// Asks the server of this data folder; `None` when none is running.
///
/// # Errors
/// When there is one and it cannot be reached.
pub async fn ask(data: &Path, request: &Request) -> anyhow::Result<Option<Replies>> {
    let path = socket_path(data);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            bail!(
                "the server's socket {} belongs to another user: run this as the user who runs `rusuban serve`",
                path.display()
            );
        }
        Err(error) => return Err(error).with_context(|| format!("reach the server at {}", path.display())),
    };
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    write.write_all(&line).await.context("ask the server")?;
    // Our half stays open while we listen: the server has read one line and wants no more.
    write.forget();
    Ok(Some(Replies(BufReader::new(read).lines())))
}
