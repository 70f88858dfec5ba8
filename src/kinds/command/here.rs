//! On this machine, as a child of ours.
use super::{Command, End, Heard};
use crate::{
    kinds::Cx,
    process::{self, Exit, Tree},
};

pub(super) async fn run(command: &Command, cx: &Cx, heard: &mut Heard) -> anyhow::Result<End> {
    let home = &cx.services.home;
    let child = process::Command {
        arguments: command.arguments()?,
        folder: Some(command.folder.as_ref().map_or_else(|| home.clone(), |folder| home.join(folder))),
        environment: command.environment(cx).await?,
        user: command.user.clone(),
        tree: Tree::new(home, cx.run),
        limits: process::Limits {
            memory: command.limits.memory.map(|size| size.0),
            processor_seconds: command.limits.processor_time.map(|time| time.0.as_secs()),
            niceness: command.limits.niceness,
        },
        grace: None,
    };
    let ended = process::run(&child, &cx.cancelled, |line| heard.line(cx, line)).await?;
    let code = match ended.exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(_) => None,
    };
    Ok(End { code, exit: ended.exit.to_string(), stopped: ended.stopped, left_behind: ended.left_behind })
}
