//! What `rusuban check --connect` learns of the Docker engine.
use std::path::Path;

use crate::{
    config::Config,
    docker::{Address, Engine, EngineError},
};

/// Knocks at the engine when a job needs it: what it is, in words, or what is wrong and what to do.
pub(super) async fn knock(config: &Config) -> Option<Result<String, String>> {
    let is_needed = config.jobs.values().any(|job| job.enabled && !job.engine(false).is_empty());
    if !is_needed {
        return None;
    }
    Some(match config.settings.docker.connect().await {
        Ok(engine) => Ok(describe(&engine).await),
        Err(error) => Err(explain(&error)),
    })
}

async fn describe(engine: &Engine) -> String {
    let name = if engine.is_podman() { "Podman" } else { "Docker" };
    let at = format!("{}, API {}", engine.address(), engine.api());
    let info = match engine.info().await {
        Ok(info) => info,
        // Jobs that do not need it work all the same.
        Err(error) => return format!("{name} at {at}; it says no more of itself: {error}"),
    };
    let text = |key: &str| info[key].as_str().unwrap_or("unknown").to_owned();
    let options = info["SecurityOptions"].as_array().into_iter().flatten();
    let is_rootless = options.into_iter().any(|one| one.as_str().is_some_and(|one| one.contains("rootless")));
    let root = text("DockerRootDir");
    let seen = match (engine.address(), std::fs::read_dir(Path::new(&root)).is_ok()) {
        (Address::Ssh(_) | Address::Tls(_), _) => {
            format!("its files are on another machine, and volumes are read by a container {}", helper(engine))
        }
        (Address::Http(_), _) => "its files may be on another machine".to_owned(),
        (Address::Socket(_), true) => format!("its files in {root} are seen from here"),
        (Address::Socket(_), false) => format!(
            "its files in {root} are not seen from here: what is not mounted here is read by a container {}",
            helper(engine)
        ),
    };
    let rootless = if is_rootless { ", rootless" } else { "" };
    format!("{name} {}{rootless} at {at}, storage driver {}; {seen}", text("ServerVersion"), text("Driver"))
}

/// What volumes are read with.
fn helper(engine: &Engine) -> String {
    engine.docker().helper().map_or("of this program".to_owned(), |image| format!("of the image {image}"))
}

/// What came of asking the engine, in words; with what to do when it does not answer.
pub(super) fn in_words(error: &anyhow::Error) -> String {
    error.downcast_ref::<EngineError>().map_or_else(|| format!("{error:#}"), explain)
}

/// Why there is no engine, unless there just is none.
pub(super) fn worth_telling(error: &EngineError) -> Option<String> {
    let said = error.to_string().to_lowercase();
    // One on another machine was named by somebody.
    let is_here = said.contains("answers at unix:");
    let is_absent = is_here && (said.contains("no such file") || said.contains("connection refused"));
    (!is_absent).then(|| explain(error))
}

fn explain(error: &EngineError) -> String {
    let said = error.to_string();
    // Those of ssh and TLS say what to do.
    if !said.contains("answers at unix:") && !said.contains("answers at tcp:") || said.contains("(TLS)") {
        return said;
    }
    let lower = said.to_lowercase();
    let hint = if lower.contains("permission denied") {
        "this user may not use the socket: `sudo usermod -aG docker USER` and a new login let it, and whoever is in that group \
         has all of the machine; of a rootless engine, name its own socket, `host = \"unix:///run/user/1000/docker.sock\"`"
    } else if lower.contains("no such file") {
        "there is no socket: is Docker running? A rootless engine has its own, `host = \"unix:///run/user/1000/docker.sock\"`"
    } else if lower.contains("connection refused") {
        "nobody listens there: is Docker running?"
    } else {
        return said;
    };
    format!("{said}; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let explained = |why: &str| explain(&EngineError::Unreachable { address: "unix:///x".into(), why: why.into() });
        assert!(explained("Permission denied (os error 13)").contains("usermod -aG docker"));
        assert!(explained("No such file or directory (os error 2)").contains("is Docker running?"));
        assert_eq!(explained("what"), "no Docker engine answers at unix:///x: what");
    }
}
