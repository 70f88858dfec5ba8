//! A command that prints the address.
use std::{net::IpAddr, time::Duration};

use super::Around;
use crate::{
    dyndns::{Family, ask::said},
    process::{Command, Exit, Limits, run},
};

/// It has this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines of its output that are looked at.
const MOST_LINES: usize = 16;

/// The first line that it prints of this family.
pub(super) async fn ask(arguments: &[String], family: Family, around: &Around) -> Result<IpAddr, String> {
    let command = Command {
        arguments: arguments.to_vec(),
        folder: Some(around.folder.clone()),
        environment: vec![("RUSUBAN_FAMILY".to_owned(), family.key().to_owned())],
        user: None,
        tree: around.tree.clone(),
        limits: Limits::default(),
        grace: Some(Duration::from_secs(2)),
    };
    let stop = around.cancelled.child_token();
    let mut lines = Vec::new();
    let ended = {
        let running = run(&command, &stop, |line| {
            if lines.len() < MOST_LINES && !line.trim().is_empty() {
                lines.push(line.trim().to_owned());
            }
        });
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => ended,
            () = tokio::time::sleep(PATIENCE) => {
                stop.cancel();
                running.await
            }
        }
    };
    let ended = ended.map_err(|error| format!("{error:#}"))?;
    if ended.stopped {
        return Err(format!("it did not end within {} s", PATIENCE.as_secs()));
    }
    if ended.exit != Exit::Code(0) {
        return Err(format!("{}: {}", ended.exit, said(lines.last().map_or("", String::as_str))));
    }
    let found = lines.iter().filter_map(|line| line.parse().ok()).find(|address| Family::of(*address) == family);
    found.ok_or_else(|| format!("it printed no {family} address: {}", said(lines.first().map_or("", String::as_str))))
}
