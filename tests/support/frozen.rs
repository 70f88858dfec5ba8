//! A proxy before an engine's socket that falls silent at a request that changes something: before it has passed it on, or after the
//! engine has done it. Whoever waits for the answer is killed then, and nobody knows how far he came.
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

/// When it falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silent {
    /// The engine never hears of the request.
    Before,
    /// The engine has done it; its answer is not passed on.
    After,
}

/// The proxy. It lives as long as its test's process.
#[derive(Debug)]
pub(crate) struct Frozen {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    at: usize,
    silent: Silent,
    changes: AtomicUsize,
    is_silent: AtomicBool,
    is_done: AtomicBool,
}

impl Frozen {
    /// A proxy before `engine` that falls silent at change number `at`, counted from 1.
    pub(crate) fn start(engine: &Path, at: usize, silent: Silent) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let state = Arc::new(State {
            at,
            silent,
            changes: AtomicUsize::new(0),
            is_silent: AtomicBool::new(false),
            is_done: AtomicBool::new(false),
        });
        let (shared, engine) = (Arc::clone(&state), engine.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = UnixStream::connect(&engine).unwrap();
                let (client_back, server_back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (there, back) = (Arc::clone(&shared), Arc::clone(&shared));
                std::thread::spawn(move || pass_requests(client, server, &there));
                std::thread::spawn(move || pass_answers(server_back, client_back, &back));
            }
        });
        Self { _folder: folder, socket, state }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Whether it has fallen silent, and the engine has done what it was to do.
    pub(crate) fn is_silent(&self) -> bool {
        let done = self.state.silent == Silent::Before || self.state.is_done.load(SeqCst);
        self.state.is_silent.load(SeqCst) && done
    }
}

fn pass_requests(client: UnixStream, mut server: UnixStream, state: &State) {
    let mut client = BufReader::new(client);
    while let Some(request) = read_request(&mut client) {
        let changes = !request.starts_with(b"GET ");
        if state.is_silent.load(SeqCst) {
            return;
        }
        if changes && state.changes.fetch_add(1, SeqCst) + 1 == state.at {
            state.is_silent.store(true, SeqCst);
            if state.silent == Silent::Before {
                return;
            }
        }
        if server.write_all(&request).is_err() {
            return;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
}

fn read_request(from: &mut BufReader<UnixStream>) -> Option<Vec<u8>> {
    let (mut request, mut length) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        request.extend_from_slice(&line);
        let text = String::from_utf8_lossy(&line).to_lowercase();
        if let Some(number) = text.strip_prefix("content-length:") {
            length = number.trim().parse().unwrap();
        }
        if text.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    request.extend_from_slice(&body);
    Some(request)
}

fn pass_answers(mut server: UnixStream, mut client: UnixStream, state: &State) {
    let mut buffer = [0; 65536];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        if state.is_silent.load(SeqCst) {
            state.is_done.store(true, SeqCst);
            // The connection stays open, and nobody speaks.
            continue;
        }
        if client.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
    if !state.is_silent.load(SeqCst) {
        let _ = client.shutdown(Shutdown::Write);
    }
}
