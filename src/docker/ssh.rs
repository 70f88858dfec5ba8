//! An engine on another machine, by the system's own `ssh`: its keys, its agent, its known hosts and its settings are those that a
//! person has there already, and none of them passes through us.
//!
//! `ssh HOST docker system dial-stdio` is a connection to that machine's engine. The HTTP client wants a socket, so there is one
//! that has no file and hears this process alone; behind each connection to it stands one `ssh`.
use std::{
    fmt, io,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Semaphore, SemaphorePermit},
    task::JoinHandle,
};

use super::address::is_host;

/// Connections at a time; more wait.
const MOST: usize = 48;
/// So many of them are set up at a time: a server hangs up on more than a handful of strangers.
const DIALING: usize = 4;
/// One that has said nothing for so long is in, and waits for the engine.
const DIALED: Duration = Duration::from_secs(5);
/// An `ssh` whose connection is over gets so long to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Its last words are kept, no more of them than this.
const WORDS: usize = 8 << 10;

/// Who is to be reached by `ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// The engine's socket there, if it is not the usual one.
    socket: Option<String>,
}

impl Destination {
    /// From what follows `ssh://`.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (place, socket) = match text.split_once('/') {
            Some((place, "")) => (place, None),
            Some((place, path)) => (place, Some(format!("/{path}"))),
            None => (text, None),
        };
        let (user, at) = match place.rsplit_once('@') {
            Some((user, at)) => (Some(user.to_owned()), at),
            None => (None, place),
        };
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err("has a password in it, which does not belong there: use a key".to_owned());
        }
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if user.as_ref().is_some_and(|user| user.is_empty() || user.starts_with('-') || !user.bytes().all(fine)) {
            return Err("has no name of a user before the `@`".to_owned());
        }
        // Colons of an address are no port.
        let port = at.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let (host, port) = match port {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| format!("has no port after `{host}:`"))?)),
            None => (at, None),
        };
        if !is_host(host) {
            return Err("names no host".to_owned());
        }
        // It is a word of a command that a shell over there reads.
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
        if socket.as_ref().is_some_and(|socket| !socket.bytes().all(fine)) {
            return Err("names no socket after the host".to_owned());
        }
        Ok(Self { user, host: host.trim_matches(['[', ']']).to_owned(), port, socket })
    }

    pub(super) fn host_and_port(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port.unwrap_or(22))
    }

    /// What a person would type to get there.
    fn login(&self) -> String {
        let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("{port}{user}{}", self.host)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]);
        // A line that is dead is noticed within a minute.
        command.args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]);
        // A connection that others keep open is used; ours ends with us.
        command.args([
            "-o",
            "ControlMaster=no",
            "-o",
            "ForwardAgent=no",
            "-o",
            "ForwardX11=no",
            "-o",
            "ClearAllForwardings=yes",
        ]);
        if let Some(user) = &self.user {
            command.args(["-l", user]);
        }
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        command.args(["--", &self.host, "docker"]);
        if let Some(socket) = &self.socket {
            command.args(["--host", &format!("unix://{socket}")]);
        }
        command.args(["system", "dial-stdio"]);
        command
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.socket.as_deref().unwrap_or_default())
    }
}

/// The socket, and what stands behind it. When it is dropped, all of it ends.
#[derive(Debug)]
pub(super) struct Relay {
    name: String,
    accepting: JoinHandle<()>,
    complaint: Arc<Mutex<Option<Complaint>>>,
}

/// What went wrong with a connection.
#[derive(Clone, Debug)]
pub(super) struct Complaint {
    /// In words for people, with what to do.
    pub(super) why: String,
    /// It never came to the engine: nothing was asked of it.
    pub(super) is_unreached: bool,
}

impl Relay {
    /// Opens the socket. Nobody is called yet.
    pub(super) fn open(to: &Destination) -> io::Result<Self> {
        let mut number = [0; 16];
        getrandom::fill(&mut number).map_err(io::Error::other)?;
        // With a zero in front it is a name and no file: nothing is left of it, however we end.
        let name = format!("\0rusuban-{:032x}", u128::from_be_bytes(number));
        let listener = UnixListener::bind(&name)?;
        let complaint = Arc::default();
        let accepting = tokio::spawn(accept(listener, to.clone(), Arc::clone(&complaint)));
        Ok(Self { name, accepting, complaint })
    }

    /// Its name, as a path.
    pub(super) fn path(&self) -> &str {
        &self.name
    }

    /// What went wrong with the last connection that ended badly; told once.
    pub(super) fn complaint(&self) -> Option<Complaint> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, to: Destination, complaint: Arc<Mutex<Option<Complaint>>>) {
    let (places, dialing) = (Arc::new(Semaphore::new(MOST)), Arc::new(Semaphore::new(DIALING)));
    // They end with this task.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // There is no file handle left for it, for instance.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Any process of this machine could find the name; only we are meant.
        let is_ours = stream.peer_cred().is_ok_and(|who| who.pid() == i32::try_from(std::process::id()).ok());
        if !is_ours {
            continue;
        }
        let (to, complaint, dialing) = (to.clone(), Arc::clone(&complaint), Arc::clone(&dialing));
        connections.spawn(async move {
            let _place = place;
            let mut stream = stream;
            if let Err(why) = connection(&mut stream, &to, &dialing).await {
                // Before the other side can notice that it ended.
                *complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
        });
    }
}

/// One connection, from the first byte to the last.
async fn connection(stream: &mut UnixStream, to: &Destination, dialing: &Semaphore) -> Result<(), Complaint> {
    let unreached = |why: String| Complaint { why, is_unreached: true };
    let dial = dialing.acquire().await.map_err(|error| unreached(error.to_string()))?;
    let mut child = spawn(to).map_err(unreached)?;
    let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(unreached("ssh has no input and output".to_owned()));
    };
    let words = tokio::spawn(last_words(errors));
    let has_answered = relay(stream, input, output, dial).await;
    let status = tokio::time::timeout(GRACE, child.wait()).await.ok().and_then(Result::ok).and_then(|how| how.code());
    let said = tokio::time::timeout(Duration::from_secs(1), words).await.ok().and_then(Result::ok).unwrap_or_default();
    match (has_answered, status) {
        (_, Some(0)) | (true, None) => Ok(()),
        // After an answer, the program over there ends as it likes.
        (true, Some(code)) if code != 255 => Ok(()),
        (true, _) => Err(Complaint { is_unreached: false, ..explain(&said, status, to) }),
        (false, _) => Err(explain(&said, status, to)),
    }
}

/// Hands on what is asked and answered, until the answers end or nobody wants them; whether there was one.
async fn relay(
    stream: &mut UnixStream,
    mut input: ChildStdin,
    mut output: ChildStdout,
    dial: SemaphorePermit<'_>,
) -> bool {
    let (mut read, mut write) = stream.split();
    let mut has_answered = false;
    let asking = async {
        let _ = tokio::io::copy(&mut read, &mut input).await;
        drop(input);
        // All is asked. Answers may go on, unless there is nobody any more.
        while !read.ready(Interest::WRITABLE).await.is_ok_and(|ready| ready.is_write_closed()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let answering = async {
        let mut first = vec![0; 16 << 10];
        let mut reading = std::pin::pin!(output.read(&mut first));
        let count = match tokio::time::timeout(DIALED, &mut reading).await {
            Ok(count) => count,
            Err(_) => {
                drop(dial);
                reading.await
            }
        };
        let count = count.unwrap_or(0);
        has_answered = count > 0;
        if has_answered && write.write_all(&first[..count]).await.is_ok() {
            let _ = tokio::io::copy(&mut output, &mut write).await;
        }
    };
    tokio::select! {
        () = answering => {}
        () = asking => {}
    }
    has_answered
}

fn spawn(to: &Destination) -> Result<Child, String> {
    let mut command = to.command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // What a terminal sends to us is ours: until all is put right, the line is needed.
    command.process_group(0);
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no `ssh` program on this machine: install it (Debian: `apt install openssh-client`)".to_owned()
        }
        _ => format!("run `ssh`: {error}"),
    })
}

async fn last_words(mut from: impl AsyncRead + Unpin) -> String {
    let (mut words, mut room) = (Vec::new(), [0; 2 << 10]);
    while let Ok(count @ 1..) = from.read(&mut room).await {
        words.extend_from_slice(&room[..count]);
        let surplus = words.len().saturating_sub(WORDS);
        words.drain(..surplus);
    }
    String::from_utf8_lossy(&words).into_owned()
}

/// What `ssh`, or `docker` over there, has said, and what to do about it.
fn explain(said: &str, status: Option<i32>, to: &Destination) -> Complaint {
    let lower = said.to_lowercase();
    let never = ["ssh: ", "kex_exchange_identification", "banner exchange", "connection closed by"];
    match cause(said, status, to) {
        Some(why) => Complaint { why, is_unreached: true },
        None => {
            let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
            let why = lines.next_back().unwrap_or("ssh ended without a word").to_owned();
            Complaint { why, is_unreached: never.iter().any(|begin| lower.starts_with(begin)) }
        }
    }
}

/// What is known to go wrong before anything is asked of the engine.
fn cause(said: &str, status: Option<i32>, to: &Destination) -> Option<String> {
    let lower = said.to_lowercase();
    let has = |part: &str| lower.contains(part);
    let (login, host) = (to.login(), &to.host);
    let mut lines =
        said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Warning: Permanently"));
    let last = lines.next_back().unwrap_or("ssh ended without a word");
    if has("remote host identification has changed") {
        return Some(format!(
            "the key of {host} is another than the one that is known here: either that machine was set up anew, or somebody is in between; \
             when you know which, `ssh-keygen -R {host}` forgets the old one"
        ));
    }
    if has("host key verification failed") || has("host key is known for") {
        return Some(format!(
            "the key of {host} is not known here, and nobody is there to be asked: as the user that Rusuban runs as, `ssh {login} true` once, \
             and compare what it shows with the key of that machine"
        ));
    }
    let is_of_docker = has("docker daemon") || has("dial unix") || has("raw stream connection") || has("docker.sock");
    if is_of_docker && has("permission denied") {
        let user = to.user.as_deref().unwrap_or("USER");
        return Some(format!(
            "that user may not use Docker's socket there: `sudo usermod -aG docker {user}` on that machine, and whoever is in that group has all \
             of it ({last})"
        ));
    }
    if is_of_docker {
        return Some(format!("Docker does not answer on that machine: {last}"));
    }
    if has("permission denied") {
        return Some(format!(
            "it does not let us in without a password: as the user that Rusuban runs as, `ssh-copy-id {login}` once, with a key that needs no \
             passphrase or is in an agent ({last})"
        ));
    }
    if has("command not found") || has("docker: not found") || status == Some(127) {
        return Some(format!(
            "there is no `docker` program on that machine, or not where `ssh {login} docker version` finds it ({last})"
        ));
    }
    if has("'dial-stdio' is not a docker command") || has("unknown command") {
        return Some(format!("the `docker` program on that machine is older than 18.09 ({last})"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_an_address_becomes_an_option_or_a_command() {
        let command = |text: &str| {
            let command = Destination::read(text).unwrap().command();
            let all: Vec<_> = command.as_std().get_args().map(|one| one.to_str().unwrap().to_owned()).collect();
            let at = all.iter().position(|one| one == "ClearAllForwardings=yes").unwrap();
            all[at + 1..].join(" ")
        };
        assert_eq!(command("nas"), "-- nas docker system dial-stdio");
        assert_eq!(
            command("me@[fe80::1]:2222/run/d.sock"),
            "-l me -p 2222 -- fe80::1 docker --host unix:///run/d.sock system dial-stdio"
        );
    }

    #[test]
    fn what_ssh_says_comes_with_what_to_do() {
        let to = Destination::read("me@nas:2222").unwrap();
        for (said, status, expected) in [
            (
                "No ED25519 host key is known for nas and you have requested strict checking.\nHost key verification failed.",
                255,
                "`ssh -p 2222 me@nas true` once",
            ),
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                255,
                "ssh-keygen -R nas",
            ),
            ("me@nas: Permission denied (publickey,password).", 255, "ssh-copy-id -p 2222 me@nas"),
            ("sh: 1: docker: not found", 127, "there is no `docker` program"),
            (
                "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
                1,
                "usermod -aG docker me",
            ),
            (
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
                1,
                "Docker does not answer",
            ),
            ("ssh: connect to host nas port 2222: Connection refused\n", 255, "Connection refused"),
            ("", 255, "without a word"),
        ] {
            let told = explain(said, Some(status), &to).why;
            assert!(told.contains(expected), "{said}: {told}");
        }
    }
}
