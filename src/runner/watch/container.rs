//! What has become of the container that serves a site.
use chrono::{DateTime, Utc};

use super::{
    cause::{BEFORE, Finding, Scene, inside, is_far},
    words::clock,
};
use crate::{
    docker::{Container, Docker, Engine, State, repository_of},
    model::watch::Trouble,
    text,
};

/// So many ends within the time that is looked at are a loop.
const LOOP: usize = 3;

/// What speaks for the container being the cause, and what can be done with it.
pub(super) async fn look(scene: &Scene<'_>, docker: &Docker, name: &str) -> Finding {
    let mut found = Finding::default();
    let Ok(engine) = docker.connect().await else {
        if scene.checked.verdict.trouble == Some(Trouble::Container) {
            found.likely("the Docker engine does not answer", vec![format!("asked for the container {name}")]);
        }
        return found;
    };
    let container = match engine.container(name).await {
        Ok(container) => container,
        Err(error) if error.is_not_found() => {
            found.certain(
                format!("the container {name} is not there"),
                vec!["the engine knows none of that name".into()],
            );
            return found;
        }
        Err(_) => return found,
    };
    let happened = engine.happened(name, scene.began() - BEFORE, scene.clock.now()).await.unwrap_or_default();
    judge(&mut found, &container, &happened);
    if found.causes.is_empty()
        && is_far(scene.checked)
        && let Some(at) = inside(&container).await
    {
        let host = scene.checked.rules.host.as_deref().unwrap_or_default();
        let evidence = vec![
            format!("from inside, {at} answers"),
            format!("by its public name, {host}: {}", scene.checked.verdict.what),
        ];
        found.likely("only from outside it cannot be reached: the way to it, not the site, is broken", evidence);
    }
    if !found.causes.is_empty() {
        offer_snapshot(&mut found, &engine, &container).await;
    }
    found
}

/// What the container itself says. An OOM kill of a child is an event without the flag, and status 137 is any SIGKILL: what is
/// not said in so many words is only likely.
fn judge(found: &mut Finding, container: &Container, happened: &[crate::docker::Event]) {
    let (name, state) = (container.name(), &container.raw()["State"]);
    let exit = state["ExitCode"].as_i64().unwrap_or_default();
    let ended = state["FinishedAt"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok());
    let ended = ended.map_or_else(|| "it ended".to_owned(), |at| format!("it ended at {}", clock(at)));
    let limit = container.raw()["HostConfig"]["Memory"].as_u64().filter(|limit| *limit > 0);
    let limit = limit.map_or_else(String::new, |limit| format!(", limit {}", text::size(limit)));
    let restarts = container.raw()["RestartCount"].as_u64().unwrap_or_default();
    let count = |action: &str| happened.iter().filter(|event| event.action == action).count();
    let (deaths, ooms) = (count("die"), count("oom"));
    let start = |found: &mut Finding| found.offer(format!("start {name} again"), format!("docker start {name}"));
    let logs = |found: &mut Finding| {
        found.offer(format!("see what {name} said last"), format!("docker logs --tail 50 {name}"));
    };
    let killed = state["OOMKilled"].as_bool().unwrap_or_default();
    let loops = deaths >= LOOP || container.state() == State::Restarting;
    if killed && !container.state().is_up() {
        let what = format!("the container {name} was killed for lack of memory");
        found.certain(what, vec![format!("{ended} with status {exit}{limit}")]);
        start(found);
        return;
    }
    if loops {
        let mut evidence =
            vec![format!("it ended {} within the last minutes, the last time with status {exit}", times(deaths))];
        if restarts > 0 {
            evidence.push(format!(
                "the engine has started it again {}",
                times(usize::try_from(restarts).unwrap_or(usize::MAX))
            ));
        }
        if killed || ooms > 0 {
            evidence.push(format!("it was killed for lack of memory{limit}"));
        }
        found.certain(format!("the container {name} restarts in a loop"), evidence);
        logs(found);
        return;
    }
    match container.state() {
        State::Exited if exit == 0 || count("stop") > 0 => {
            let by = if count("stop") > 0 { "it was asked to stop" } else { "nobody is seen to have stopped it" };
            found.certain(
                format!("the container {name} has ended"),
                vec![format!("{ended} with status {exit}"), by.into()],
            );
            start(found);
            logs(found);
        }
        State::Exited | State::Other => {
            let mut evidence = vec![format!("{ended} with status {exit}")];
            if exit == 137 {
                evidence.push(format!("137 is a kill: by somebody, or for lack of memory{limit}"));
            }
            found.certain(format!("the container {name} has died"), evidence);
            start(found);
            logs(found);
        }
        State::Created => {
            found.certain(format!("the container {name} was made and never started"), Vec::new());
            start(found);
        }
        State::Paused => {
            found.certain(format!("the container {name} is frozen"), vec!["its state is `paused`".into()]);
            found.offer(format!("thaw {name}"), format!("docker unpause {name}"));
        }
        State::Running | State::Restarting => {
            let health = &state["Health"];
            if health["Status"] == "unhealthy" {
                let last = health["Log"].as_array().and_then(|log| log.last()?["Output"].as_str());
                let last =
                    last.map(|said| said.trim().chars().take(200).collect::<String>()).filter(|said| !said.is_empty());
                let evidence = match last {
                    Some(said) => format!("its health check says: {said}"),
                    None => "its health check fails".to_owned(),
                };
                found.certain(format!("the container {name} is not healthy"), vec![evidence]);
                logs(found);
            }
            if ooms > 0 {
                let evidence = vec![format!("the engine told of it {}{limit}", times(ooms))];
                found.likely(format!("a process in the container {name} was killed for lack of memory"), evidence);
                logs(found);
            } else if deaths > 0 {
                let evidence = vec![format!("it ended {} within the last minutes and runs again", times(deaths))];
                found.likely(format!("the container {name} was started anew"), evidence);
                logs(found);
            }
        }
    }
}

/// The newest snapshot that it does not run from.
async fn offer_snapshot(found: &mut Finding, engine: &Engine, container: &Container) {
    let targets = engine.targets(container).await.unwrap_or_default();
    let newest = targets.iter().find(|one| one.is_of_container && one.image.id() != container.image_id());
    if let Some(newest) = newest {
        let tags = newest.tags(repository_of(container.image()));
        let tag = tags.first().copied().unwrap_or(newest.name());
        let what = format!("go back to the snapshot of {}", newest.at.format("%a %Y-%m-%d %H:%M UTC"));
        found.offer(what, format!("rusuban rollback {} {tag}", container.name()));
    }
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::docker::Event;

    /// What is made of a container's words.
    fn judged(state: serde_json::Value, happened: &[&str]) -> Vec<String> {
        let container = Container::of(json!({
            "Name": "/blog", "State": state, "RestartCount": 4, "HostConfig": { "Memory": 268_435_456 },
        }));
        let happened: Vec<Event> =
            happened.iter().map(|action| Event { action: (*action).to_owned(), ..Event::default() }).collect();
        let mut found = Finding::default();
        judge(&mut found, &container, &happened);
        let causes = found.causes.into_iter().map(|cause| {
            format!("{}{}: {}", if cause.is_certain { "" } else { "likely " }, cause.what, cause.evidence.join("; "))
        });
        causes.collect()
    }

    #[test]
    fn a_container_is_believed_as_far_as_it_says_it() {
        let at = "2026-11-21T02:14:05.123Z";
        for (state, happened, expected) in [
            (
                json!({ "Status": "exited", "OOMKilled": true, "ExitCode": 137, "FinishedAt": at }),
                vec!["oom", "die"],
                vec![
                    "the container blog was killed for lack of memory: it ended at 02:14:05Z with status 137, limit 256 MiB",
                ],
            ),
            (
                json!({ "Status": "exited", "ExitCode": 137, "FinishedAt": at }),
                vec!["die"],
                vec![
                    "the container blog has died: it ended at 02:14:05Z with status 137; 137 is a kill: by somebody, or for lack of memory, limit 256 MiB",
                ],
            ),
            (
                json!({ "Status": "exited", "ExitCode": 0, "FinishedAt": at }),
                vec!["kill", "die", "stop"],
                vec!["the container blog has ended: it ended at 02:14:05Z with status 0; it was asked to stop"],
            ),
            (
                json!({ "Status": "running", "ExitCode": 1 }),
                vec!["die", "start", "die", "start", "die", "start"],
                vec![
                    "the container blog restarts in a loop: it ended 3 times within the last minutes, the last time with status 1; the engine has started it again 4 times",
                ],
            ),
            (
                json!({ "Status": "running", "Health": { "Status": "unhealthy", "Log": [{ "Output": "no\n" }] } }),
                vec![],
                vec!["the container blog is not healthy: its health check says: no"],
            ),
            (
                json!({ "Status": "running" }),
                vec!["oom"],
                vec![
                    "likely a process in the container blog was killed for lack of memory: the engine told of it once, limit 256 MiB",
                ],
            ),
            (json!({ "Status": "paused" }), vec![], vec!["the container blog is frozen: its state is `paused`"]),
            (json!({ "Status": "running" }), vec![], vec![]),
        ] {
            assert_eq!(judged(state, &happened), expected);
        }
    }
}
