//! A socket before an engine's that lets through what it was told to, and answers 403 to everything else.
use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
};

#[derive(Default)]
struct State {
    /// Methods and path patterns.
    allowed: Vec<(String, String)>,
    used: BTreeSet<(String, String)>,
    refused: Vec<String>,
}

pub(crate) struct Allow {
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

impl Allow {
    pub(crate) fn before(engine: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let (state, engine) = (Arc::clone(&shared), engine.clone());
                std::thread::spawn(move || connection(client, &engine, &state));
            }
        });
        Self { folder, state }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("sock").display())
    }

    /// From now on only this is let through.
    pub(crate) fn only(&self, allowed: Vec<(String, String)>) {
        *self.state.lock().unwrap() = State { allowed, ..State::default() };
    }

    /// What was let through, by its pattern, and what was refused, since [`Allow::only`].
    pub(crate) fn seen(&self) -> (BTreeSet<(String, String)>, Vec<String>) {
        let state = self.state.lock().unwrap();
        (state.used.clone(), state.refused.clone())
    }
}

/// One request: the connection ends with its answer, so that none slips through behind another.
fn connection(mut client: UnixStream, engine: &PathBuf, state: &Mutex<State>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let first = lines.next().unwrap();
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    {
        let mut state = state.lock().unwrap();
        let fits = |(allowed, pattern): &&(String, String)| allowed == method && matches(pattern, path);
        let Some(found) = state.allowed.iter().find(fits).cloned() else {
            state.refused.push(first.to_owned());
            let answer = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 9\r\n\r\nForbidden";
            let _ = client.write_all(answer.as_bytes());
            return;
        };
        state.used.insert(found);
    }
    let is_upgrade = head.to_lowercase().contains("\r\nupgrade:");
    let mut sent = format!("{first}\r\n");
    for line in lines.filter(|line| is_upgrade || !line.to_lowercase().starts_with("connection:")) {
        sent.push_str(&format!("{line}\r\n"));
    }
    sent.push_str(if is_upgrade { "\r\n" } else { "Connection: close\r\n\r\n" });
    let Ok(mut server) = UnixStream::connect(engine) else { return };
    server.write_all(sent.as_bytes()).unwrap();
    let (mut answers, mut hears) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut hears);
        let _ = hears.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
}

/// Whether a path, its version left out, is one of the pattern.
fn matches(pattern: &str, path: &str) -> bool {
    let path = match path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..])) {
        Some(rest) => rest,
        None => path,
    };
    let Some((before, rest)) = pattern.split_once('{') else { return path == pattern };
    let (name, after) = rest.split_once('}').unwrap();
    let found = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    found.is_some_and(|found| !found.is_empty() && (name == "image" || !found.contains('/')))
}
