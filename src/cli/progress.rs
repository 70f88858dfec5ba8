//! How far long work has come, on a terminal; and Ctrl-C, which asks it to stop.
use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::Context;

/// A bar of bytes; hidden where nobody looks.
pub(super) fn bar(context: &Context<'_>, total: u64) -> ProgressBar {
    if context.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Set by Ctrl-C.
pub(super) fn interrupted() -> CancellationToken {
    let cancelled = CancellationToken::new();
    let stop = cancelled.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    cancelled
}
