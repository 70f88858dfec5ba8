//! A helper beside files, without a container around it.
use std::{os::unix::net::UnixStream, path::Path};

use bytes::Bytes;
use futures_util::stream;
use rusuban::tree::{Far, serve};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

/// One that has `there` what people know as `known`.
pub(crate) async fn helper(known: &Path, there: &Path) -> Far {
    let (ours, its) = UnixStream::pair().unwrap();
    let spool = tempfile::tempdir().unwrap();
    std::thread::spawn(move || {
        let to = its.try_clone().unwrap();
        serve(its, to, spool.path()).unwrap();
    });
    ours.set_nonblocking(true).unwrap();
    let (from, to) = tokio::net::UnixStream::from_std(ours).unwrap().into_split();
    let pieces = stream::unfold(from, |mut from| async {
        let mut room = vec![0; 10_000];
        let count = from.read(&mut room).await.unwrap();
        room.truncate(count);
        (count > 0).then_some((Ok(Bytes::from(room)), from))
    });
    let places = vec![(known.to_owned(), there.to_owned())];
    Far::meet(Box::pin(pieces), to, places, CancellationToken::new()).await.unwrap()
}
