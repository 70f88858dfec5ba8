//! Containers on a real engine.
use std::{sync::Arc, time::Duration};

use rusuban::{
    clock::Clock,
    model::watch::{State, Trouble},
};

use super::{look_with, told};
use crate::support::{
    docker::{BASE, dockerd},
    kind::context,
};

#[tokio::test]
async fn containers_run_are_healthy_end_and_begin_again() {
    let dockerd = dockerd();
    dockerd.run("well", &[BASE]);
    dockerd.run(
        "sick",
        &["--health-cmd", "echo no answer; false", "--health-interval", "100ms", "--health-retries", "1", BASE],
    );
    dockerd.run("looping", &["--restart", "always", BASE, "sh", "-c", "exit 3"]);
    dockerd.run("ended", &[BASE, "sh", "-c", "exit 7"]);
    dockerd.run("killed", &[BASE]);
    dockerd.cli(&["kill", "killed"]);
    let home = tempfile::tempdir().unwrap();
    let (mut cx, kept) = context(home.path(), Clock::system(), []);
    Arc::get_mut(&mut cx.services).unwrap().docker = dockerd.docker();
    let names = ["well", "sick", "looping", "ended", "killed", "none"];
    let keys: String = names.iter().map(|name| format!("[[site]]\ncontainer = '{name}'\n")).collect();
    let bad = |what: &str| (State::Down, Some(Trouble::Container), what.to_owned());
    // Health and restarts take their moment.
    for last in [false, true].into_iter().cycle().take(60) {
        let (_, found) = look_with(&cx, &kept, &keys).await;
        let verdict = |name: &str| told(&found.iter().find(|checked| checked.check == name).unwrap().verdict);
        let is_looping = verdict("looping").2.starts_with("it begins again and again: ");
        if !last || !is_looping || verdict("sick").0 == State::Up {
            tokio::time::sleep(Duration::from_millis(150)).await;
            continue;
        }
        assert!(verdict("well").2.starts_with("runs, started"), "{:?}", verdict("well"));
        assert_eq!(verdict("well").0, State::Up);
        assert!(verdict("sick").2.contains("failed: \"no answer\""), "{:?}", verdict("sick"));
        assert!(verdict("ended").2.ends_with("(exit code 7)"), "{:?}", verdict("ended"));
        assert!(verdict("killed").2.ends_with("(exit code 137, killed)"), "{:?}", verdict("killed"));
        assert_eq!(verdict("none"), bad("there is no such container"));
        dockerd.cli(&["pause", "well"]);
        let (summary, found) = look_with(&cx, &kept, &keys).await;
        assert_eq!(told(&found.iter().find(|checked| checked.check == "well").unwrap().verdict), bad("it is paused"));
        assert!(summary.unwrap().starts_with("6 down: "));
        dockerd.cli(&["unpause", "well"]);
        for name in &names[..5] {
            dockerd.cli(&["rm", "-f", name]);
        }
        // Without an engine nobody can say.
        Arc::get_mut(&mut cx.services).unwrap().docker = crate::support::docker::none();
        let (_, found) = look_with(&cx, &kept, "container = 'well'").await;
        assert_eq!((found[0].verdict.state, &found[0].verdict.trouble), (State::Unknown, &Some(Trouble::NotAllowed)));
        return;
    }
    panic!("no restart loop was seen: {}", dockerd.inspect("looping")["RestartCount"]);
}
