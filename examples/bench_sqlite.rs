//! Times the online backup of a SQLite database, for `dev/bench`: bench_sqlite FROM TO. Prints seconds and restarts.
use std::{path::Path, time::Instant};

use rusuban::database::sqlite;

#[expect(clippy::print_stdout, reason = "it is what the example is for")]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, from, to] = arguments.as_slice() else { anyhow::bail!("usage: bench_sqlite FROM TO") };
    let began = Instant::now();
    let report = sqlite::backup(Path::new(from), Path::new(to), |_, _| true)?;
    println!("{:.3} {}", began.elapsed().as_secs_f64(), report.restarts);
    Ok(())
}
