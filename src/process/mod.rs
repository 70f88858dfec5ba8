//! Child processes: started with a list of arguments, heard line by line, and ended with their whole tree.
//!
//! Standard output and error are one pipe, so their lines arrive in the order in which they were written. Secrets
//! travel in the environment, never in arguments, which every user of the machine can read.
mod inherited;
mod output;
mod tree;
mod user;

use std::{
    fmt,
    io::{Seek as _, Write as _},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::{io::AsyncReadExt, net::unix::pipe, time::Instant};
use tokio_util::sync::CancellationToken;

pub use inherited::raise_open_files;
pub use output::Lines;
pub use tree::{Ending, Tree};

/// How long the output is still read after the command itself has ended, while a process that it left behind keeps the pipe open.
const LINGER: Duration = Duration::from_secs(2);

/// What to start. It has no `Debug`: the environment may hold secrets.
pub struct Command {
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// Where; absent: where Rusuban is.
    pub folder: Option<PathBuf>,
    /// Added to the environment.
    pub environment: Vec<(String, String)>,
    /// As whom: a name in `/etc/passwd`. Another user than our own needs root, gets a fresh environment, and belongs to
    /// the groups that `/etc/group` gives it.
    pub user: Option<String>,
    /// Marks all that comes of it.
    pub tree: Tree,
    /// What it may use.
    pub limits: Limits,
    /// After it was asked to stop it has this long until it is killed; absent: whoever asked kills it.
    pub grace: Option<Duration>,
}

/// What each process of a command may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of address space.
    pub memory: Option<u64>,
    /// Seconds of processor time.
    pub processor_seconds: Option<u64>,
    /// How much it stands back for others: 0 to 19.
    pub niceness: Option<u8>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(9) => f.write_str("killed by signal 9 (SIGKILL; perhaps out of memory)"),
            Self::Signal(15) => f.write_str("ended by signal 15 (SIGTERM)"),
            Self::Signal(24) => f.write_str("ended by signal 24 (SIGXCPU): its processor time was used up"),
            Self::Signal(number) => write!(f, "ended by signal {number}"),
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// It was asked to stop before it ended.
    pub stopped: bool,
    /// It left processes behind that still hold its output; it is no longer read.
    pub left_behind: bool,
}

/// Starts `command`, hands each line of its output to `on_line`, and returns when it has ended. When `cancelled` is set
/// its whole tree is asked to stop with SIGTERM. Dropped half way, it kills the tree.
///
/// # Errors
/// When it cannot be started; an exit code other than 0 is no error here.
pub async fn run(
    command: &Command,
    cancelled: &CancellationToken,
    on_line: impl FnMut(&str) + Send,
) -> anyhow::Result<Ended> {
    run_with(command, Stdio::null(), cancelled, on_line).await
}

/// The same for a command that reads `input`. All of it is there at once, in a file without a name: a command that does not
/// read it is not waited for.
///
/// # Errors
/// Those of [`run`].
pub async fn run_with_input(
    command: &Command,
    input: &[u8],
    cancelled: &CancellationToken,
    on_line: impl FnMut(&str) + Send,
) -> anyhow::Result<Ended> {
    let what = "make a file for the command's input";
    let file = rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC).context(what)?;
    let mut file = std::fs::File::from(file);
    file.write_all(input).and_then(|()| file.rewind()).context(what)?;
    run_with(command, Stdio::from(file), cancelled, on_line).await
}

async fn run_with(
    command: &Command,
    input: Stdio,
    cancelled: &CancellationToken,
    mut on_line: impl FnMut(&str) + Send,
) -> anyhow::Result<Ended> {
    let (mut child, mut output) = start(command, input)?;
    // Dropped before the child is reaped, so the number is still ours.
    let mut tree = command.tree.with_root(child.id());
    let mut guard = KillOnDrop(Some(tree.clone()));
    let mut lines = output::Lines::default();
    let mut buffer = vec![0; 32 << 10];
    let (mut open, mut exit, mut stopped) = (true, None, false);
    let mut kill_at: Option<Instant> = None;
    let mut silence_at: Option<Instant> = None;
    while open || exit.is_none() {
        tokio::select! {
            read = output.read(&mut buffer), if open => match read.context("read the command's output")? {
                0 => open = false,
                bytes => lines.push(&buffer[..bytes], &mut on_line),
            },
            status = child.wait(), if exit.is_none() => {
                exit = Some(Exit::from(status.context("wait for the command")?));
                // Reaped: its number may soon be another's.
                tree.root_ended();
                guard.0 = Some(tree.clone());
                silence_at = Some(Instant::now() + LINGER);
            }
            () = cancelled.cancelled(), if !stopped => {
                stopped = true;
                tree.signal(Signal::TERM).await;
                kill_at = command.grace.map(|grace| Instant::now() + grace);
            }
            () = until(kill_at) => {
                tree.signal(Signal::KILL).await;
                // Again, until nothing is left that could have been born in between.
                kill_at = Some(Instant::now() + Duration::from_millis(100));
            }
            () = until(silence_at) => break,
        }
    }
    lines.finish(&mut on_line);
    guard.0 = None;
    if stopped && let Some(at) = kill_at {
        tree.end(at.saturating_duration_since(Instant::now())).await;
    }
    Ok(Ended { exit: exit.unwrap_or(Exit::Signal(9)), stopped, left_behind: open })
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A run that is dropped half way leaves no processes.
struct KillOnDrop(Option<Tree>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(tree) = self.0.take() {
            tree.signal_now(Signal::KILL);
        }
    }
}

fn start(command: &Command, input: Stdio) -> anyhow::Result<(tokio::process::Child, pipe::Receiver)> {
    let arguments = limited(command);
    let (Some(program), Some(named)) = (arguments.first(), command.arguments.first()) else {
        bail!("the command is empty");
    };
    if let Some(folder) = &command.folder
        && !folder.is_dir()
    {
        bail!("run `{named}` in {}: there is no such folder", folder.display());
    }
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("make a pipe for the command's output")?;
    let errors = writer.try_clone().context("make a pipe for the command's output")?;
    let mut child = tokio::process::Command::new(program);
    let other = match &command.user {
        Some(name) => user::other(name).with_context(|| format!("run `{named}` as user `{name}`"))?,
        None => None,
    };
    if let Some(other) = &other {
        other.dress(&mut child);
    }
    child
        .args(&arguments[1..])
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .envs(command.tree.environment())
        .stdin(input)
        .stdout(Stdio::from(writer))
        .stderr(Stdio::from(errors))
        .process_group(0)
        .kill_on_drop(true);
    if let Some(folder) = &command.folder {
        child.current_dir(folder);
    }
    let spawned = inherited::start(command.tree.number(), || match &other {
        Some(other) => other.spawn(&mut child),
        None => child.spawn(),
    });
    let spawned = spawned.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::anyhow!("run `{program}`: there is no such program"),
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("run `{program}`: permission denied (is it executable, and the folder open to this user?)")
        }
        _ => anyhow::Error::new(error).context(format!("run `{program}`")),
    })?;
    // `child` holds our copies of the pipe's writing end: while they are open the output has no end.
    drop(child);
    let output = pipe::Receiver::from_owned_fd(reader).context("read the command's output")?;
    Ok((spawned, output))
}

/// Limits are set by a shell that then becomes the command: set from outside after the start they could come too late.
fn limited(command: &Command) -> Vec<String> {
    let Limits { memory, processor_seconds, niceness } = command.limits;
    let mut script = String::new();
    if let Some(bytes) = memory {
        script += &format!("ulimit -v {} && ", bytes.div_ceil(1024));
    }
    if let Some(seconds) = processor_seconds {
        script += &format!("ulimit -t {seconds} && ");
    }
    match niceness {
        _ if command.limits == Limits::default() => return command.arguments.clone(),
        Some(niceness) => script += &format!("exec nice -n {niceness} \"$@\""),
        None => script += "exec \"$@\"",
    }
    ["/bin/sh", "-c", &script, "limits"]
        .into_iter()
        .map(str::to_owned)
        .chain(command.arguments.iter().cloned())
        .collect()
}
