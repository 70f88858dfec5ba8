//! A small HTTP/1.1 server on loopback. It reads requests strictly, keeps them, and answers with the bytes it was given.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) line: String,
    /// Names in lower case, in the order in which they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert_eq!(values.next(), None, "`{name}` came twice");
        value
    }
}

/// What the server does with a request.
pub(crate) enum Reply {
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// The connection is closed without a word.
    HangUp,
    /// Nothing for ever.
    Silence,
    /// Some bytes, then others one by one, each after a pause; then the connection is closed, or kept open for ever.
    Drip { at_once: Vec<u8>, then: Vec<u8>, each: Duration, stay: bool },
    /// These bytes, then nothing more is sent, and the connection stays open to be written to.
    HalfClose(Vec<u8>),
}

/// A whole answer.
pub(crate) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    Reply::Bytes([head.as_bytes(), body].concat())
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), reply).await.unwrap()
    }

    /// At an address of one's own, if that is free.
    pub(crate) async fn start_at(
        at: SocketAddr,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, reply) = (Arc::clone(&seen), Arc::new(reply));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, reply) = (Arc::clone(&kept), Arc::clone(&reply));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let Some(request) = read(&mut stream).await else { return };
                    let reply = reply(&request);
                    kept.lock().unwrap().push(request);
                    match reply {
                        // The client may have heard enough.
                        Reply::Bytes(bytes) => drop(stream.get_mut().write_all(&bytes).await),
                        Reply::HangUp => {}
                        Reply::Silence => std::future::pending().await,
                        Reply::Drip { at_once, then, each, stay } => {
                            drip(&mut stream, &at_once, &then, each, stay).await
                        }
                        Reply::HalfClose(bytes) => {
                            let _ = stream.get_mut().write_all(&bytes).await;
                            let _ = stream.get_mut().shutdown().await;
                            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                        }
                    }
                });
            }
        });
        Ok(Self { address, seen, task })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn drip(stream: &mut BufReader<TcpStream>, at_once: &[u8], then: &[u8], each: Duration, stay: bool) {
    let stream = stream.get_mut();
    let mut open = stream.write_all(at_once).await.is_ok();
    for byte in then {
        if !open {
            return;
        }
        tokio::time::sleep(each).await;
        open = stream.write_all(&[*byte]).await.is_ok();
    }
    if open && stay {
        std::future::pending::<()>().await;
    }
}

/// One request; none when the client closed the connection first.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        if stream.read_line(&mut text).await.unwrap() == 0 {
            assert_eq!(text, "", "a head that is cut off");
            return None;
        }
    }
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    assert!(line.ends_with(" HTTP/1.1"), "{line}");
    let headers: Vec<_> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no header: {line}"));
            (name.to_lowercase(), value.to_owned())
        })
        .collect();
    let mut seen = Seen { line, headers, body: Vec::new() };
    assert!(seen.header("host").is_some());
    assert_eq!(seen.header("transfer-encoding"), None, "bodies have a length");
    seen.body = vec![0; seen.header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut seen.body).await.unwrap();
    Some(seen)
}
