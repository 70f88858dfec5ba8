//! Times the chunkers and weighs what they save, for `dev/bench`: `bench_chunker [MEBIBYTES]`.
//!
//! First the speed of one core, beside a plain read of the same memory. Then what the next backup of a SQLite database would
//! add after 0.2 % of its rows were changed, for chunks of several sizes.
#![expect(clippy::print_stdout, reason = "it is what the example is for")]
use std::{collections::HashSet, hint::black_box, path::Path, time::Instant};

use rusqlite::Connection;
use rusuban::repository::chunker::Cutter;
use sha2::{Digest as _, Sha256};

/// What a blob costs besides its content, in bytes: about 40 in its pack's header, 32 of sealing, about 40 in the index.
const PER_BLOB: usize = 40 + 32 + 40;
/// Of the databases.
const PAGE: usize = 4096;
const POLYNOMIAL: &str = "25b468838dcb75";

fn main() -> anyhow::Result<()> {
    let mebibytes: usize = std::env::args().nth(1).map_or(Ok(256), |text| text.parse())?;
    speed("random", &random(mebibytes << 20))?;
    speed("text", &text(mebibytes << 20))?;
    dedup(mebibytes)
}

/// The length of the first chunk of what is left of a stream.
type Cut = Box<dyn Fn(&[u8]) -> usize>;

fn rules(averages: &[usize]) -> anyhow::Result<Vec<(String, Cut)>> {
    let polynomial = POLYNOMIAL.parse().map_err(anyhow::Error::msg)?;
    let mut rules: Vec<(String, Cut)> = Vec::new();
    for &average in averages {
        let (fastcdc, rabin) = (Cutter::fastcdc(&[7; 32], average), Cutter::rabin(polynomial, average));
        let mut rule = |name: &str, cut| rules.push((format!("{name} {:>4} KiB", average >> 10), cut));
        rule("fastcdc", Box::new(move |data| fastcdc.cut(data)));
        rule("rabin  ", Box::new(move |data| rabin.cut(data)));
        // Not by content: the least that a database, whose pages stay where they are, can cost.
        rule("fixed  ", Box::new(move |data| data.len().min(average)));
    }
    Ok(rules)
}

fn speed(name: &str, data: &[u8]) -> anyhow::Result<()> {
    // The best of several: what else the machine does can only slow it down.
    let best = |work: &mut dyn FnMut()| {
        let seconds = (0..5).map(|_| {
            let began = Instant::now();
            work();
            began.elapsed().as_secs_f64()
        });
        data.len() as f64 / 1e6 / seconds.fold(f64::MAX, f64::min)
    };
    let plain = best(&mut || {
        let words = black_box(data).as_chunks::<8>().0;
        black_box(words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word))));
    });
    println!("{name:>6}: plain read       {plain:>7.0} MB/s");
    for (rule, cut) in rules(&[64 << 10, 1 << 20])?.into_iter().filter(|(rule, _)| !rule.starts_with("fixed")) {
        let mut chunks = 0;
        let rate = best(&mut || chunks = cuts(&cut, black_box(data)).count());
        println!("{name:>6}: {rule} {rate:>7.0} MB/s, {:>5} KiB a chunk", (data.len() / chunks) >> 10);
    }
    Ok(())
}

fn cuts<'a>(cut: &'a Cut, mut rest: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    std::iter::from_fn(move || {
        let (chunk, behind) = rest.split_at(cut(rest));
        rest = behind;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Numbers that look random and are the same each time.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn random(bytes: usize) -> Vec<u8> {
    let mut next = numbers();
    let mut data = Vec::with_capacity(bytes + 8);
    while data.len() < bytes {
        data.extend(next().to_le_bytes());
    }
    data.truncate(bytes);
    data
}

fn text(bytes: usize) -> Vec<u8> {
    let mut next = numbers();
    let words = ["the", "house", "stays", "warm", "while", "nobody", "is", "at", "home", "and", "lamps", "burn", "\n"];
    let mut data = Vec::with_capacity(bytes + 32);
    while data.len() < bytes {
        let number = next() >> 11;
        data.extend(words[number as usize % words.len()].bytes());
        data.push(b' ');
        if number.is_multiple_of(7) {
            data.extend((number % 100_000).to_string().bytes());
        }
    }
    data.truncate(bytes);
    data
}

fn dedup(mebibytes: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for is_scattered in [false, true] {
        let path = folder.path().join(is_scattered.to_string());
        let copies = grow(&path, i64::try_from(mebibytes)? * 1_200, is_scattered)?;
        let what = if is_scattered { "changed in an index too, and as many came" } else { "changed" };
        weigh(what, &copies)?;
    }
    Ok(())
}

fn weigh(what: &str, (before, after): &(Vec<u8>, Vec<u8>)) -> anyhow::Result<()> {
    let full = compressed(after)?;
    let pages: HashSet<&[u8]> = before.chunks(PAGE).collect();
    let touched = after.chunks(PAGE).filter(|page| !pages.contains(page)).count() * PAGE;
    println!(
        "database of {} MB, {} MB compressed; after 0.2 % of the rows {what}, {:.0} % of its pages are others:",
        after.len() / 1_000_000,
        full / 1_000_000,
        100.0 * touched as f64 / after.len() as f64,
    );
    for (rule, cut) in rules(&[8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 1 << 20])? {
        let mut known = HashSet::new();
        let mut store = |data: &[u8]| -> anyhow::Result<(f64, usize)> {
            let (mut bytes, mut blobs) = (0, 0);
            for chunk in cuts(&cut, data) {
                let digest: [u8; 32] = Sha256::digest(chunk).into();
                if known.insert(digest) {
                    bytes += compressed(chunk)?.min(chunk.len()) + PER_BLOB;
                    blobs += 1;
                }
            }
            Ok((bytes as f64, blobs))
        };
        let ((first, blobs), (next, new)) = (store(before)?, store(after)?);
        println!(
            "  {rule}: first {:>6.1} MB in {blobs:>6} blobs, next {:>6.1} MB in {new:>5}: {:>3.0} % of the full copy",
            first / 1e6,
            next / 1e6,
            100.0 * next / full as f64,
        );
    }
    Ok(())
}

fn compressed(data: &[u8]) -> anyhow::Result<usize> {
    Ok(zstd::bulk::compress(data, 3)?.len())
}

/// The bytes of a database of `rows` rows of about 200 bytes, and again after some of them changed. There is an index on
/// `device`, in no order: where `is_scattered`, that changes as well, and as many rows come.
fn grow(path: &Path, rows: i64, is_scattered: bool) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let database = Connection::open(path)?;
    database.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA page_size = 4096;
         CREATE TABLE reading (id INTEGER PRIMARY KEY, device INTEGER, at TEXT, note TEXT);
         CREATE INDEX reading_by_device ON reading (device);",
    )?;
    let mut next = numbers();
    let mut insert = |from: i64, to: i64| -> anyhow::Result<()> {
        let transaction = database.unchecked_transaction()?;
        let mut statement = transaction.prepare("INSERT INTO reading VALUES (?, ?, ?, ?)")?;
        for id in from..to {
            let words = "and what the meter in the cellar said then, as it does every minute of the year";
            let note = format!("{:016x} {words}: {:016x}{:016x}{:016x}", next(), next(), next(), next());
            let at = format!("2026-11-21T{:02}:{:02}", id / 60 % 24, id % 60);
            statement.execute((id, (next() >> 1) as i64, at, note))?;
        }
        drop(statement);
        Ok(transaction.commit()?)
    };
    insert(0, rows)?;
    let before = std::fs::read(path)?;
    if is_scattered {
        insert(rows, rows + rows / 500)?;
    }
    let transaction = database.unchecked_transaction()?;
    let mut note = transaction.prepare("UPDATE reading SET note = ? WHERE id = ?")?;
    let mut device = transaction.prepare("UPDATE reading SET device = ? WHERE id = ?")?;
    for _ in 0..rows / 500 {
        let id = (next() >> 1) as i64 % rows;
        note.execute((format!("corrected to {:016x}", next()), id))?;
        if is_scattered {
            device.execute(((next() >> 1) as i64, id))?;
        }
    }
    drop((note, device));
    transaction.commit()?;
    Ok((before, std::fs::read(path)?))
}
