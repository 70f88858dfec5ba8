//! A socket before an engine's: it knows what is asked for, and holds the one request or answer at which a test wants to look around.
use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

/// What is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The request: the engine does not learn of it.
    Request,
    /// The answer: what was asked for is done.
    Answer,
}

type Fits = Box<dyn Fn(usize, &str) -> bool + Send>;

#[derive(Default)]
struct State {
    /// Lines such as `POST /v1.41/containers/x/stop`.
    requests: Vec<String>,
    wanted: Option<(Hold, Fits)>,
    is_held: bool,
    is_released: bool,
    is_forgotten: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub(crate) struct Proxy {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) fn before(engine: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let shared = Arc::<Shared>::default();
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                // While the engine is away, nobody answers.
                let Ok(server) = UnixStream::connect(&engine) else { continue };
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.connection(client, server));
            }
        });
        Self { folder, shared }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("sock").display())
    }

    /// From now on requests are counted from 0, and the first that fits is held.
    pub(crate) fn hold(&self, what: Hold, fits: impl Fn(usize, &str) -> bool + Send + 'static) {
        *self.shared.state.lock().unwrap() = State { wanted: Some((what, Box::new(fits))), ..State::default() };
    }

    /// Whether it is held, once that is so or `or` says that it will never be.
    pub(crate) fn held_or(&self, mut or: impl FnMut() -> bool) -> bool {
        let begun = Instant::now();
        loop {
            if self.shared.state.lock().unwrap().is_held {
                return true;
            }
            if or() {
                return false;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing was held: {:#?}", self.requests());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets go what is held.
    pub(crate) fn release(&self) {
        self.shared.state.lock().unwrap().is_released = true;
        self.shared.changed.notify_all();
    }

    /// Lets nobody have what is held: its connection ends.
    pub(crate) fn forget(&self) {
        self.shared.state.lock().unwrap().is_forgotten = true;
        self.release();
    }

    /// What was asked for since [`Proxy::hold`].
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().requests.clone()
    }
}

impl Shared {
    fn connection(self: Arc<Self>, mut client: UnixStream, mut server: UnixStream) {
        let held_answer = Arc::new(Mutex::new(false));
        let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let (shared, holds) = (Arc::clone(&self), Arc::clone(&held_answer));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if std::mem::take(&mut *holds.lock().unwrap()) {
                    shared.wait();
                }
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if let Some(line) = text.lines().next().and_then(|line| line.strip_suffix(" HTTP/1.1")) {
                match self.asked(line) {
                    Some(Hold::Request) if !self.wait() => break,
                    Some(Hold::Request) => {}
                    Some(Hold::Answer) => *held_answer.lock().unwrap() = true,
                    None => {}
                }
            }
            if server.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Write);
    }

    fn asked(&self, line: &str) -> Option<Hold> {
        let mut state = self.state.lock().unwrap();
        let number = state.requests.len();
        state.requests.push(line.to_owned());
        let (hold, fits) = state.wanted.as_ref()?;
        let (hold, fits) = (*hold, fits(number, line));
        if fits {
            state.wanted = None;
        }
        fits.then_some(hold)
    }

    /// Whether it goes on then.
    fn wait(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.is_held = true;
        while !state.is_released {
            state = self.changed.wait(state).unwrap();
        }
        !state.is_forgotten
    }
}
