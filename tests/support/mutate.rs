//! Changing real objects at random, so that what reads them is tried on all kinds of damage.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what the process that may die says is read by its parent"
)]
use std::{
    fs,
    os::unix::fs::FileExt as _,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit};

/// What numbers and times are replaced by.
const WORDS: [&str; 20] = [
    "0",
    "-1",
    "1",
    "31",
    "4294967264",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "null",
    "[]",
    "{}",
    "\"\"",
    "true",
    "\"2016-12-31T23:59:60.999999999Z\"",
    "\"+262142-12-31T23:59:59Z\"",
    "\"-262143-01-01T00:00:00+14:00\"",
    "\"..\"",
    "\"\\u0000/\"",
];
/// So much more memory may be asked for than what the seeds took: a number of four bytes may say eight times as much.
const MEMORY: u64 = 512 << 20;
/// No input, however changed, takes longer.
const LONGEST: Duration = Duration::from_secs(20);

/// Numbers that are the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// One below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// One of the seeds, changed in a few places.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(40)).min(bytes.len());
        match random.below(9) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.next() as u8,
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let more: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
                drop(bytes.splice(at..at, more));
            }
            6 => {
                // What another one, or this one, has somewhere.
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + random.below(200)).min(other.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            7 => {
                let number = [0_u64, 1, u64::MAX, 1 << 31, (1 << 32) - 1, 1 << 63][random.below(6)].to_le_bytes();
                for (byte, new) in bytes[at..].iter_mut().zip(&number[..1 << random.below(4)]) {
                    *byte = *new;
                }
            }
            _ => {
                // A number, a time or another value of JSON.
                let Some(begin) = bytes[at..].iter().position(|byte| matches!(byte, b':' | b'[' | b',')) else {
                    continue;
                };
                let begin = at + begin + 1;
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']');
                let end = bytes[begin..].iter().position(is_end).map_or(bytes.len(), |end| begin + end);
                drop(bytes.splice(begin..end, WORDS[random.below(WORDS.len())].bytes()));
            }
        }
    }
    bytes
}

/// A function that takes any bytes, its name, and real objects for it.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) call: fn(&[u8]),
    pub(crate) seeds: Vec<Vec<u8>>,
    pub(crate) rounds: u64,
}

/// Calls targets with changed seeds, each in a thread, in a process of its own that has little memory: what believes a
/// number that a bad object says, dies of it. `test` is the calling test's whole name.
pub(crate) fn bombard(test: &str, targets: impl FnOnce() -> Vec<Target>) {
    if !is_child() {
        return watch(test);
    }
    let targets = targets();
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
    let most = Some(pages * rustix::param::page_size() as u64 + MEMORY);
    rustix::process::setrlimit(Resource::As, Rlimit { current: most, maximum: most }).unwrap();
    // Some work in other threads, whose panics end as errors: any of them ends all.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
        end();
    }));
    std::thread::scope(|scope| {
        for target in &targets {
            scope.spawn(|| run(target));
        }
    });
}

fn run(target: &Target) {
    // Where it was, for when the whole process dies.
    let progress = fs::File::create(format!("progress-{}", target.name)).unwrap();
    let input = format!("input-{}", target.name);
    let last = |what: &str| progress.write_all_at(format!("{what:60}\n").as_bytes(), 0).unwrap();
    let begun = Instant::now();
    for (number, seed) in target.seeds.iter().enumerate() {
        last(&format!("{}, seed {number} as it is", target.name));
        (target.call)(seed);
    }
    for round in 0..target.rounds {
        let bytes = mutated(&target.seeds, &mut Random::new(round));
        fs::write(&input, &bytes).unwrap();
        last(&format!("{}, round {round}", target.name));
        let before = Instant::now();
        (target.call)(&bytes);
        assert!(before.elapsed() < LONGEST, "{}, round {round}, takes {:?}", target.name, before.elapsed());
    }
    println!("{}: {} seeds, {} rounds in {:?}", target.name, target.seeds.len(), target.rounds, begun.elapsed());
    fs::remove_file(input).unwrap();
    fs::remove_file(format!("progress-{}", target.name)).unwrap();
}

fn watch(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = fs::File::create(folder.path().join("output")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .current_dir(folder.path())
        .env("RUSUBAN_TEST_CHILD", "1")
        // Each arena reserves memory that it does not use.
        .env("MALLOC_ARENA_MAX", "1")
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break Some(ended);
        }
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap_or_default();
    let said = String::from_utf8_lossy(&read("output")).into_owned();
    let mut was_at = String::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(target) = name.strip_prefix("progress-") {
            let (place, input) = (read(&name), read(&format!("input-{target}")));
            was_at.push_str(&format!("{}: {}\n", String::from_utf8_lossy(&place).trim(), input.escape_ascii()));
        }
    }
    assert!(ended.is_some_and(|ended| ended.success()), "{ended:?}\n{said}\n{was_at}");
    println!("{said}");
}

#[expect(clippy::disallowed_methods, reason = "the process that may die does, with all that it does")]
fn end() {
    std::process::abort();
}

#[expect(clippy::disallowed_methods, reason = "how the process knows that it is the one that may die")]
fn is_child() -> bool {
    std::env::var_os("RUSUBAN_TEST_CHILD").is_some()
}
