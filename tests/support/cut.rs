//! A network that breaks off: a proxy on loopback before a real server.
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All goes through.
    Nothing,
    /// It is closed at once.
    Refuse,
    /// Nothing comes back.
    Silence,
    /// It is closed after some bytes one way or the other, different each time.
    Sometimes,
}

#[derive(Debug, Default)]
struct State {
    all: Option<Cut>,
    next: Option<Cut>,
    /// Requests of this method whose answers are lost, and how many.
    lose: Option<(String, u32)>,
}

/// The network to one server.
#[derive(Debug)]
pub(crate) struct Network {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    bytes: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Network {
    pub(crate) async fn to(endpoint: &str) -> Self {
        let server = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, bytes) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicU64::new(0)));
        let (shared, counted) = (Arc::clone(&state), Arc::clone(&bytes));
        let count = AtomicUsize::new(0);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(connection(client, server, Arc::clone(&shared), Arc::clone(&counted), number));
            }
        });
        Self { address, state, bytes, task }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, for what is sent on any connection.
    pub(crate) fn all(&self, cut: Cut) {
        self.state.lock().unwrap().all = Some(cut);
    }

    /// For the next bytes that are sent on any connection, and for that connection from then on.
    pub(crate) fn next(&self, cut: Cut) {
        self.state.lock().unwrap().next = Some(cut);
    }

    /// Requests of this method arrive, and their answers are lost.
    pub(crate) fn lose_answers_to(&self, method: &str, times: u32) {
        self.state.lock().unwrap().lose = Some((method.to_owned(), times));
    }

    /// Waits until nothing has gone through for a moment.
    pub(crate) async fn settle(&self) {
        let mut before = u64::MAX;
        while before != self.bytes.load(Ordering::SeqCst) {
            before = self.bytes.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(
    client: TcpStream,
    server: TcpStream,
    state: Arc<Mutex<State>>,
    bytes: Arc<AtomicU64>,
    number: usize,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let fate = Arc::new(Mutex::new(None));
    // Some connections break on the way up, some on the way down, some live long; every one ends some time.
    let limits = [
        (u64::MAX, 40_000),
        (9_000_000, u64::MAX),
        (20_000, u64::MAX),
        (u64::MAX, 1_500_000),
        (30_000_000, 30_000_000),
        (u64::MAX, 300),
        (50_000_000, 50_000_000),
        (u64::MAX, 9_000_000),
    ];
    let (up, down) = limits[number % limits.len()];
    tokio::select! {
        () = upward(from_client, to_server, &state, &fate, &bytes, up) => {}
        () = downward(from_server, to_client, &state, &fate, &bytes, down) => {}
    }
}

type Fate = Arc<Mutex<Option<Cut>>>;

async fn upward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &Mutex<State>,
    fate: &Fate,
    bytes: &AtomicU64,
    mut limit: u64,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        {
            let mut state = state.lock().unwrap();
            let mut fate = fate.lock().unwrap();
            if let Some(next) = state.next.take() {
                *fate = Some(next);
            }
            if let Some((method, times)) = &mut state.lose
                && *times > 0
                && buffer.starts_with(method.as_bytes())
            {
                *times -= 1;
                *fate = Some(Cut::Silence);
            }
        }
        let cut = fate.lock().unwrap().or(state.lock().unwrap().all);
        match cut {
            Some(Cut::Refuse) => return,
            Some(Cut::Sometimes) => {
                limit = limit.saturating_sub(count as u64);
                if limit == 0 {
                    return;
                }
            }
            _ => {}
        }
        bytes.fetch_add(count as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn downward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &Mutex<State>,
    fate: &Fate,
    bytes: &AtomicU64,
    mut limit: u64,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let cut = fate.lock().unwrap().or(state.lock().unwrap().all);
        let mut forward = count;
        match cut {
            Some(Cut::Silence) => continue,
            Some(Cut::Sometimes) => {
                forward = count.min(usize::try_from(limit).unwrap_or(usize::MAX));
                limit -= forward as u64;
            }
            _ => {}
        }
        bytes.fetch_add(forward as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..forward]).await.is_err() || forward < count || limit == 0 {
            return;
        }
    }
}
