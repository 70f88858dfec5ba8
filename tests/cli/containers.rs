//! Commands in containers, while Rusuban is killed or runs out of time.
use super::*;
use crate::support::docker::{BASE, Dockerd, dockerd};

fn house(dockerd: &Dockerd) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("rusuban.toml"), format!("[docker]\nhost = {:?}\n", dockerd.host())).unwrap();
    home
}

fn ours(dockerd: &Dockerd) -> String {
    dockerd.cli(&["ps", "-a", "--filter", "label=rusuban.job", "--format", "{{.Names}} {{.State}}"])
}

#[test]
fn killed_in_the_middle_it_leaves_nothing_after_the_next_start() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    let home = house(dockerd);
    let home = home.path();
    add(home, "once", "kind = \"command\"\nimage = \"base:1\"\nnetwork = \"none\"\nshell = \"echo up; sleep 4001\"\n");
    add(
        home,
        "inside",
        "kind = \"command\"\ncontainer = \"blog\"\nshell = \"setsid sleep 4002 & echo up; sleep 4003\"\n",
    );
    let server = Server::start(home);
    let followers = ["once", "inside"]
        .map(|job| rusuban(home).args(["run", job]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("both are at work", || {
        ours(dockerd).ends_with("running") && dockerd.cli(&["top", "blog"]).contains("sleep 4003")
    });
    server.kill();
    for mut follower in followers {
        follower.wait().unwrap();
    }
    assert!(ours(dockerd).ends_with("running"), "it outlived Rusuban");
    let server = Server::start(home);
    wait_until("all is undone", || ours(dockerd).is_empty() && !dockerd.cli(&["top", "blog"]).contains("sleep 400"));
    assert!(runs(home).iter().all(|run| run["progress"]["outcome"] == "interrupted"));
    assert_eq!(server.terminate(), 0);
}

#[test]
fn a_time_limit_ends_what_is_in_containers() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    let home = house(dockerd);
    let limits = "timeout = \"2s\"\ngrace = \"1s\"\n";
    for (job, keys) in [
        ("once", "image = \"base:1\"\nnetwork = \"none\"\nshell = \"trap '' TERM; while :; do sleep 4001; done\""),
        ("inside", "container = \"blog\"\nshell = \"trap '' TERM; setsid sleep 4002 & while :; do sleep 4003; done\""),
    ] {
        add(home.path(), job, &format!("kind = \"command\"\n{limits}{keys}\n"));
        let output = run(home.path(), &["run", job]);
        let said = text(&output);
        assert!(!output.status.success() && said.contains("timeout of 2s"), "{said}");
        assert_eq!(ours(dockerd), "", "{said}");
        assert!(!dockerd.cli(&["top", "blog"]).contains("sleep 400"), "{said}");
    }
    assert!(runs(home.path()).iter().all(|run| run["progress"]["outcome"] == "timed_out"));
}
