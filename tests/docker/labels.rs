//! What containers say in labels, on a real engine: where it counts, and what is refused.
use std::fs;

use crate::{
    cli::{add, run, text},
    support::docker::{BASE, dockerd},
};

#[test]
fn labels_choose_where_they_are_let_and_a_hostile_one_is_refused_and_said() {
    let docker = dockerd();
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let settings = |labels: bool| {
        fs::write(home.join("rusuban.toml"), format!("[docker]\nhost = {:?}\nlabels = {labels}\n", docker.host()))
            .unwrap();
    };
    let labelled = |name: &str, labels: &[&str], more: &[&str]| {
        let mut arguments = vec!["--network", "none"];
        arguments.extend(labels.iter().flat_map(|label| ["--label", label]));
        arguments.extend(more);
        arguments.push(BASE);
        docker.run(name, &arguments);
    };
    labelled("wiki-out", &["rusuban.snapshot=false"], &[]);
    labelled(
        "wiki-in",
        &["rusuban.command=touch /tmp/owned", "rusuban.backup.path=/etc/shadow", "rusuban.snapshot=unpaused"],
        &["-v", "data:/data"],
    );
    labelled("shop", &["rusuban.jobs=night,nowhere"], &[]);
    labelled("db", &["rusuban.backup.stop=true", "rusuban.enable=no way"], &["-v", "data:/data"]);
    docker.cli(&["exec", "db", "sh", "-c", "echo kept > /data/file"]);
    add(home, "night", "kind = 'container-snapshot'\ncontainers = ['wiki-*']\nimage = 'kept/{container}'\n");
    add(home, "volume", "kind = 'backup'\n[[source]]\nvolume = 'data'\n");
    let kept = |what: &str| {
        docker.cli(&["images", "--format", "{{.Repository}}"]).lines().filter(|line| line.starts_with(what)).count()
    };

    settings(false);
    let said = text(&run(home, &["run", "night"]));
    assert!(said.contains("2 containers kept") && !said.contains("rusuban.command"), "{said}");
    let said = text(&run(home, &["run", "volume"]));
    assert!(said.contains("db was paused for"), "{said}");
    let before = text(&run(home, &["docker-acl", "volume"]));
    assert!(!before.contains("/stop"), "{before}");

    settings(true);
    let output = run(home, &["run", "night"]);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for part in [
        "wiki-out: left out: its label `rusuban.snapshot` says so",
        "shop: taken in: its label `rusuban.jobs` says so",
        "wiki-in: the label `rusuban.command` is not heeded",
        "wiki-in: the label `rusuban.backup.path` is not heeded",
        "commands, paths, buckets and secrets stand in the files of rusuban alone",
        "2 containers kept",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(!said.contains("touch /tmp/owned"), "what it wanted is nobody's business: {said}");
    assert_eq!((kept("kept/shop"), kept("kept/db")), (1, 0));
    let output = run(home, &["run", "volume"]);
    let said = text(&output);
    assert!(
        output.status.success()
            && said
                .contains("data: stopped, not frozen, while it is read: so says the label `rusuban.backup.stop` of db"),
        "{said}"
    );
    assert!(said.contains("db was stopped for"), "{said}");
    assert_eq!(docker.inspect("db")["State"]["Running"], true);
    let after = text(&run(home, &["docker-acl", "volume"]));
    assert!(after.contains("rarely: a container asks in a label to be stopped, not frozen"), "{after}");
}
