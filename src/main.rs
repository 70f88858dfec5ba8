//! The `rusuban` program: reads the command line, does it, ends with its exit code.
use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use rusuban::cli::{Cli, Exit};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    rusuban::process::raise_open_files();
    cli.color().write_global();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("RUSUBAN_LOG").unwrap_or_else(|_| EnvFilter::new(cli.log_level())))
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    let (mut out, mut errors) = (anstream::stdout(), anstream::stderr());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli.run(&mut out, &mut errors)),
        Err(error) => Err(error.into()),
    };
    let exit = result.unwrap_or_else(|error| {
        let closed = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
        if error.downcast_ref().is_some_and(closed) {
            // Whoever read our output has read enough, as `rusuban runs | head` does.
            return Exit::Fine;
        }
        let _ = writeln!(errors, "error: {error:#}");
        Exit::Failed
    });
    let _ = out.flush();
    ExitCode::from(exit as u8)
}
