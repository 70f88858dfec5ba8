//! What others reach through the network: the paths that heartbeats call. Everything that comes in is bounded: connections, heads,
//! bodies, time, and how often anybody may call.
mod pace;
mod ping;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, routing};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use self::ping::Door;
use crate::app::App;

/// Connections at once; further ones wait to be taken.
const CONNECTIONS: usize = 128;
/// Bytes of a request's head.
const HEAD: usize = 16 << 10;
/// A head that has not come by then never does.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A connection has no longer than this in all.
const LONGEST: Duration = Duration::from_secs(30);

/// The door that others call at.
#[derive(Debug)]
pub struct Web(TcpListener);

impl Web {
    /// Opens it.
    ///
    /// # Errors
    /// When the address is not ours, or taken.
    pub async fn open(listen: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await;
        Ok(Self(listener.with_context(|| format!("listen at {listen}, as `listen` in [web] of rusuban.toml says"))?))
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    /// Answers until `stop`.
    pub async fn serve(self, app: Arc<App>, stop: CancellationToken) {
        let door = Arc::new(Door::new(app));
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let connection = tokio::select! {
                () = stop.cancelled() => return,
                connection = self.0.accept() => connection,
            };
            let (stream, from) = match connection {
                Ok(connection) => connection,
                // Out of file descriptors: it passes.
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let (door, stop) = (Arc::clone(&door), stop.clone());
            tokio::spawn(async move {
                let router = Router::new()
                    .route("/ping/{*rest}", routing::get(ping::answer).post(ping::answer))
                    .with_state((door, from.ip()));
                let serving = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIME)
                    .max_buf_size(HEAD)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
                // Who hangs up needs no answer.
                tokio::select! {
                    _ = tokio::time::timeout(LONGEST, serving) => {}
                    () = stop.cancelled() => {}
                }
                drop(place);
            });
        }
    }
}
