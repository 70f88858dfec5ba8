//! Times the online backup of a SQLite database, for `dev/bench`: `bench_sqlite FROM TO`.
//!
//! Prints, as one line of JSON, the seconds of the copy alone, those of all with the proof (`integrity_check` and the count of
//! rows), and how often the copy had to begin anew.
#![expect(clippy::print_stdout, reason = "it is what the example is for")]
use std::{path::Path, time::Instant};

use rusuban::database::sqlite;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, from, to] = arguments.as_slice() else { anyhow::bail!("usage: bench_sqlite FROM TO") };
    let began = Instant::now();
    // While it copies it counts pages; the proof, which comes after, is one of one.
    let mut copied = None;
    let report = sqlite::backup(Path::new(from), Path::new(to), |done, total| {
        if (done, total) == (1, 1) {
            copied.get_or_insert_with(|| began.elapsed());
        }
        true
    })?;
    let all = began.elapsed();
    let copied = copied.unwrap_or(all);
    println!(
        r#"{{"copy_s": {:.3}, "all_s": {:.3}, "restarts": {}}}"#,
        copied.as_secs_f64(),
        all.as_secs_f64(),
        report.restarts
    );
    Ok(())
}
