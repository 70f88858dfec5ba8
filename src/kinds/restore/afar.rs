//! A volume that cannot be written from here: it is restored into a folder of ours, and a container of this program brings it where it
//! belongs. Both are owed to the ledger. That container ends when nobody speaks to it any more, and leaves nothing half done.
use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Part,
    opened::{Filled, Opened},
    volume::{refuse_full, remove_unfinished},
};
use crate::{
    docker::{
        self, Engine, Helping, Input, Once, Program, Vessel, VolumeMount,
        vessel::{self, INSIDE, UNFINISHED},
    },
    kinds::Cx,
    model::{Debt, DebtId},
    plain, tree,
};

/// So much is sent at once.
const PIECE: usize = 64 << 10;
/// What it needs to give each file its owner, rights and attributes.
const CAPABILITIES: [&str; 7] = ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "MKNOD", "SETFCAP"];
/// A line that it prints is no longer.
const LONGEST: usize = 1 << 20;
/// It has this long to take back what it began.
const GRACE: Duration = Duration::from_secs(30);

/// Fills a volume. What was in it is as it was when this does not succeed.
pub(super) async fn write(
    cx: &Cx,
    engine: &Engine,
    opened: &Opened,
    part: &Part,
    vessel: &Vessel,
    replace: bool,
) -> anyhow::Result<Filled> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "on its way files would lose their owners, which only root can keep: run this as root, or restore with --to FOLDER"
    );
    let program = engine.helper().await?;
    let mark = docker::mark()?;
    let scratch = cx.services.spool.join(format!("restore-{mark}"));
    let debt = cx.record.owe(Debt::Remove { path: scratch.clone() }).await?;
    let filling = async {
        make_private(&scratch)?;
        let inner = scratch.join("volume");
        let done = opened.read(cx, part, &inner).await?;
        bring(cx, engine, program, &mark, inner, vessel, replace, done).await
    };
    let filled = filling.await;
    let removing = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", scratch.display()))
        }
        _ => Ok(()),
    });
    settle(cx, debt, removing.await.context("a thread died")?).await?;
    filled
}

/// What could not be done now is still owed.
async fn settle(cx: &Cx, debt: DebtId, done: anyhow::Result<()>) -> anyhow::Result<()> {
    match done {
        Ok(()) => cx.record.paid(debt).await,
        Err(error) => {
            cx.warn(format!("{error:#}; it is tried again"));
            Ok(())
        }
    }
}

/// Has a container put a folder into a volume.
#[expect(clippy::too_many_arguments, reason = "all of it is told once")]
async fn bring(
    cx: &Cx,
    engine: &Engine,
    program: Program,
    mark: &str,
    folder: PathBuf,
    vessel: &Vessel,
    replace: bool,
    done: Filled,
) -> anyhow::Result<Filled> {
    let mut arguments: Vec<String> = ["volume-helper", "write", INSIDE, &vessel.name].map(str::to_owned).to_vec();
    arguments.extend(replace.then(|| "--replace".to_owned()));
    let once = Once {
        name: format!("rusuban-{}-{}-{}", cx.job, cx.run, &mark[..mark.len().min(8)]),
        mark: mark.to_owned(),
        image: program.image,
        entrypoint: Some(vec![program.path]),
        arguments: Some(arguments),
        folder: Some("/".to_owned()),
        volumes: vec![VolumeMount { source: vessel.name.clone(), target: INSIDE.to_owned(), read_only: false }],
        labels: vec![("rusuban.job".to_owned(), cx.job.to_string()), ("rusuban.run".to_owned(), cx.run.to_string())],
        helper: Some(Helping { capabilities: CAPABILITIES.to_vec(), spool: None }),
        ..Once::default()
    };
    let debt = cx.record.owe(Debt::Container { name: once.name.clone(), mark: mark.to_owned() }).await?;
    let brought = work(cx, engine, &once, folder, vessel, done).await;
    let removed = engine.remove_once(&once.name, mark).await;
    settle(cx, debt, removed.with_context(|| format!("remove the container {}", once.name))).await?;
    brought
}

async fn work(
    cx: &Cx,
    engine: &Engine,
    once: &Once,
    folder: PathBuf,
    vessel: &Vessel,
    mut done: Filled,
) -> anyhow::Result<Filled> {
    let mut working = engine.create_once(once).await?;
    let mut input = working.take_input().context("the container has no input")?;
    working.start().await?;
    let mut output = Lines { pieces: working.output(), read: Vec::new() };
    let telling = async {
        // It has looked whether there is room for it.
        output.next().await?;
        send(cx, folder, &mut input, &mut output).await?;
        let said = tokio::select! {
            said = output.next() => said?,
            () = cx.cancelled.cancelled() => bail!("it was asked to stop"),
        };
        let warnings = said["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        done.warnings.extend(warnings.map(str::to_owned));
        engine.refuse_in_use_but(&vessel.name, &once.name).await?;
        say(&mut input, b"go").await?;
        done.must_be(output.next().await?["there"].as_u64().unwrap_or(0))
    };
    let told = telling.await;
    if told.is_err() {
        // At the end of its input it removes what is not whole.
        let _ = input.shutdown().await;
        let _ = tokio::time::timeout(GRACE, async { while output.next().await.is_ok() {} }).await;
    }
    told.map(|()| done)
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("make the folder {}", folder.display()))
}

/// Sends a folder. When the container ends meanwhile, what it said is why.
async fn send<S>(cx: &Cx, folder: PathBuf, input: &mut Input, output: &mut Lines<S>) -> anyhow::Result<()>
where
    S: Stream<Item = anyhow::Result<bytes::Bytes>> + Unpin,
{
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(4);
    let cancelled = CancellationToken::new();
    let stop = cancelled.clone().drop_guard();
    let packing = tokio::task::spawn_blocking(move || {
        let mut to = io::BufWriter::with_capacity(PIECE, ToChannel(sender));
        plain::pack(&folder, &mut to, &cancelled)?;
        to.flush().context("send it")
    });
    while let Some(piece) = pieces.recv().await {
        let said = tokio::select! {
            said = say(input, &piece) => said,
            () = cx.cancelled.cancelled() => bail!("it was asked to stop"),
        };
        if said.is_err() {
            // Nobody hears us any more.
            output.next().await?;
            bail!("the container does not listen");
        }
    }
    let packed = packing.await.context("the thread that reads died")?;
    drop(stop);
    packed?;
    say(input, b"").await
}

struct ToChannel(mpsc::Sender<Vec<u8>>);

impl Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.blocking_send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Some bytes behind their number; none are the end.
async fn say(input: &mut Input, bytes: &[u8]) -> anyhow::Result<()> {
    for piece in std::iter::once(&bytes[..bytes.len().min(PIECE)]).chain(bytes.chunks(PIECE).skip(1)) {
        let length = u32::try_from(piece.len()).context("too much at once")?;
        input.write_all(&length.to_le_bytes()).await?;
        input.write_all(piece).await?;
    }
    Ok(input.flush().await?)
}

/// What the container prints: JSON, a line each.
struct Lines<S> {
    pieces: S,
    read: Vec<u8>,
}

impl<S: Stream<Item = anyhow::Result<bytes::Bytes>> + Unpin> Lines<S> {
    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let said: Value = serde_json::from_slice(&line).context("what the container says is no JSON")?;
                return match said["error"].as_str() {
                    Some(error) => Err(anyhow::anyhow!("{error}")),
                    None => Ok(said),
                };
            }
            ensure!(self.read.len() <= LONGEST, "what the container says is too long");
            let piece = self.pieces.next().await.context("the container ended without a word")?;
            self.read.extend_from_slice(&piece?);
        }
    }
}

/// The container's side: fills a folder with what is sent.
///
/// # Errors
/// When what is sent is not whole, or cannot be written. The folder is as it was then.
pub fn receive(
    folder: &Path,
    volume: &str,
    replace: bool,
    mut from: impl Read,
    mut to: impl Write,
) -> anyhow::Result<()> {
    let done = fill(folder, volume, replace, &mut from, &mut to);
    if let Err(error) = &done {
        // Said where it is heard, and before the connection ends: whoever sends would only learn that.
        writeln!(to, "{}", serde_json::json!({ "error": format!("{error:#}") }))?;
        to.flush()?;
        io::copy(&mut from, &mut io::sink())?;
    }
    done
}

fn fill(folder: &Path, volume: &str, replace: bool, from: impl Read, mut to: impl Write) -> anyhow::Result<()> {
    refuse_full(folder, volume, replace)?;
    remove_unfinished(folder).context("remove what an earlier restore left")?;
    writeln!(to, "{}", serde_json::json!({ "ready": true }))?;
    to.flush()?;
    let mut from = Frames { from, left: 0, is_over: false };
    let mut received = || -> anyhow::Result<()> {
        let (entries, warnings) = plain::unpack_into(folder, UNFINISHED.as_ref(), &mut from)?;
        // What stands behind the last entry.
        io::copy(&mut from, &mut io::sink())?;
        writeln!(to, "{}", serde_json::json!({ "entries": entries, "warnings": warnings }))?;
        to.flush()?;
        from.is_over = false;
        let mut word = [0; 2];
        from.read_exact(&mut word).context("nobody says that it is to take its place")?;
        ensure!(&word == b"go", "nobody says that it is to take its place");
        let there = tree::unfold(&folder.join(UNFINISHED))?;
        writeln!(to, "{}", serde_json::json!({ "there": there }))?;
        Ok(to.flush()?)
    };
    let done = received();
    if done.is_err() {
        // What cannot be removed is removed by the next try.
        let _ = remove_unfinished(folder);
    }
    done
}

/// The container's side: tells whether a volume is one that was not filled to its end.
///
/// # Errors
/// When it cannot be looked into.
pub fn tell_unfilled(folder: &Path, mut to: impl Write) -> anyhow::Result<()> {
    let unfilled = vessel::is_unfilled(folder).with_context(|| format!("look into {}", folder.display()))?;
    writeln!(to, "{}", serde_json::json!({ "unfilled": unfilled }))?;
    Ok(to.flush()?)
}

/// Bytes behind their number, up to a number of none.
struct Frames<R> {
    from: R,
    left: usize,
    is_over: bool,
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over {
            let mut length = [0; 4];
            // An end before the end is none.
            self.from.read_exact(&mut length)?;
            self.left = u32::from_le_bytes(length) as usize;
            self.is_over = self.left == 0;
        }
        if self.is_over {
            return Ok(0);
        }
        let most = to.len().min(self.left);
        let count = self.from.read(&mut to[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(parts: &[&[u8]]) -> Vec<u8> {
        let frame = |part: &&[u8]| [&u32::try_from(part.len()).unwrap().to_le_bytes()[..], part].concat();
        parts.iter().flat_map(frame).collect()
    }

    #[test]
    fn a_folder_takes_its_place_only_when_all_of_it_came_and_somebody_says_so() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        std::fs::create_dir_all(from.join("a")).unwrap();
        std::fs::write(from.join("a/file"), "text").unwrap();
        std::fs::create_dir(&to).unwrap();
        let mut packed = Vec::new();
        plain::pack(&from, &mut packed, &CancellationToken::new()).unwrap();
        let (first, second) = packed.split_at(700);
        for sent in [&[first][..], &[first, second], &[first, second, b""], &[first, second, b"", b"no"], &[b""]] {
            receive(&to, "x", false, &frames(sent)[..], io::sink()).unwrap_err();
            assert_eq!(std::fs::read_dir(&to).unwrap().count(), 0, "{}", sent.len());
        }
        let mut said = Vec::new();
        receive(&to, "x", false, &frames(&[first, second, b"", b"go"])[..], &mut said).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("a/file")).unwrap(), "text");
        assert!(String::from_utf8(said).unwrap().ends_with("{\"there\":3}\n"));
        let again = receive(&to, "x", false, &frames(&[first, second, b"", b"go"])[..], io::sink());
        assert!(again.unwrap_err().to_string().contains("not empty"));
    }
}
