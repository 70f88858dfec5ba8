//! What is wrong with a command's keys when they are seen together.
use super::Command;
use crate::{
    config::mistake::Problem,
    docker::{VolumeMount, is_name},
};

/// Docker gives no container less.
const LEAST_MEMORY: u64 = 6 << 20;

pub(super) fn problems(command: &Command) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(what_runs(command));
    problems.extend(environment(command));
    if command.expect_exit.is_empty() {
        problems.push(
            Problem::new("expect_exit", "no exit code would mean success")
                .hint("leave it out to expect 0, or list the codes: `[0, 24]`"),
        );
    }
    problems.extend(limits(command));
    problems.extend(containers(command));
    problems
}

fn what_runs(command: &Command) -> Option<Problem> {
    match (&command.command, &command.shell) {
        (None, None) if command.image.is_some() => None,
        (None, None) => Some(
            Problem::new("", "there is nothing to run")
                .hint("add `command = [\"program\", \"argument\"]` or `shell = \"a line for sh\"`"),
        ),
        (Some(_), Some(_)) => {
            Some(Problem::new("shell", "`command` and `shell` are both given").hint("keep one of the two"))
        }
        (Some(list), None) if list.first().is_none_or(|program| program.trim().is_empty()) => {
            Some(Problem::new("command", "the command is empty").hint("name the program first"))
        }
        (Some(list), None) if list.len() == 1 && list[0].contains(char::is_whitespace) => Some(
            Problem::new("command", format!("`{}` would be the name of one program", list[0]))
                .hint("split it into a list, one argument each, or use `shell`"),
        ),
        (None, Some(line)) if line.trim().is_empty() => Some(Problem::new("shell", "the command is empty")),
        _ => None,
    }
}

fn environment(command: &Command) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in command.env.keys() {
        let key = format!("env.{name}");
        if name.is_empty() || name.contains(['=', '\0']) {
            problems.push(Problem::new(key, format!("`{name}` cannot be the name of an environment variable")));
        } else if name.starts_with("RUSUBAN_") {
            let hint = "use another name: those that begin with RUSUBAN_ are set by Rusuban";
            problems.push(Problem::new(key, format!("`{name}` is not yours to set")).hint(hint));
        }
    }
    problems
}

fn limits(command: &Command) -> Vec<Problem> {
    let limits = command.limits;
    let mut problems = Vec::new();
    if command.container.is_some() || command.image.is_some() {
        let mut no_use = |key: &str, hint: &str| {
            let what = format!("`{}` does not reach into a container", key.trim_start_matches("limits."));
            problems.push(Problem::new(key, what).hint(hint));
        };
        if limits.niceness.is_some() {
            no_use("limits.niceness", "leave it out, or write `nice` before the command");
        }
        if limits.processor_time.is_some() {
            no_use("limits.processor_time", "leave it out; `timeout` limits the time that it may take");
        }
        if limits.memory.is_some() && command.container.is_some() {
            no_use("limits.memory", "the container has its own limit: `docker update --memory`");
        }
        if command.image.is_some() && limits.memory.is_some_and(|memory| memory.0 < LEAST_MEMORY) {
            problems.push(Problem::new("limits.memory", "a container gets at least 6 MiB"));
        }
        return problems;
    }
    if limits.niceness.is_some_and(|niceness| niceness > 19) {
        problems.push(Problem::new("limits.niceness", "this goes from 0 to 19"));
    }
    if limits.processor_time.is_some_and(|time| time.0.as_secs() == 0) {
        problems.push(Problem::new("limits.processor_time", "this is at least `1s`"));
    }
    problems
}

fn containers(command: &Command) -> Vec<Problem> {
    let mut problems = Vec::new();
    if command.container.is_some() && command.image.is_some() {
        let hint = "keep `container` to use one that runs, or `image` to have one made for this";
        problems.push(Problem::new("image", "`container` and `image` are both given").hint(hint));
    }
    if let Some(name) = command.container.as_ref().filter(|name| !is_name(name)) {
        problems.push(
            Problem::new("container", format!("`{name}` cannot be a container's name"))
                .hint("it is one name, no pattern; `docker ps` shows them in its last column"),
        );
    }
    if let Some(name) = command.image.as_ref().filter(|name| name.is_empty() || name.contains(char::is_whitespace)) {
        problems.push(
            Problem::new("image", format!("`{name}` cannot be an image's name"))
                .hint("write it as `docker images` shows it: `name` or `name:tag`"),
        );
    }
    if command.image.is_none() {
        let hint = "a container that runs has its own; they go with `image = \"…\"`";
        if !command.volumes.is_empty() {
            problems
                .push(Problem::new("volumes", "`volumes` is for a container that is made from an image").hint(hint));
        }
        if command.network.is_some() {
            problems
                .push(Problem::new("network", "`network` is for a container that is made from an image").hint(hint));
        }
    }
    for (number, text) in command.volumes.iter().enumerate() {
        if let Err(why) = VolumeMount::read(text) {
            let hint =
                "write `volume:/path/in/it` or `/folder/here:/path/in/it`, and `:ro` behind it if it is only read";
            problems.push(Problem::new(format!("volumes[{number}]"), why).hint(hint));
        }
    }
    if command.network.as_ref().is_some_and(|name| name.trim().is_empty()) {
        problems.push(Problem::new("network", "the name is empty").hint("for none at all write `network = \"none\"`"));
    }
    if command.container.is_some() || command.image.is_some() {
        if let Some(folder) = command.folder.as_ref().filter(|folder| !folder.is_absolute()) {
            problems.push(
                Problem::new("folder", format!("`{}` is no absolute path", folder.display()))
                    .hint("it is a folder within the container, such as `/srv`"),
            );
        }
        if command.user.as_ref().is_some_and(|user| user.trim().is_empty()) {
            problems.push(Problem::new("user", "the name is empty").hint("leave it out for the container's own user"));
        }
    }
    problems
}
