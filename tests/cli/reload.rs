//! A server whose files change under it, by SIGHUP and by itself.
use rustix::process::Signal;

use super::*;

fn read(home: &Path, file: &str) -> String {
    fs::read_to_string(home.join(file)).unwrap_or_default()
}

fn job(schedule: &str, line: &str) -> String {
    format!("kind = \"command\"\n{schedule}\nshell = \"{line}\"\n")
}

const EVERY_SECOND: &str = "schedule = \"* * * * * *\"";

#[test]
fn a_reload_tells_what_changed_and_leaves_runs_that_go_on_alone() {
    let home =
        home("long", &job("", "echo old > said; until test -e go; do sleep 0.05; done; echo old to its end >> said"));
    let home = home.path();
    add(home, "gone", &job(EVERY_SECOND, "echo tick >> ticks"));
    let server = Server::start(home);
    let mut follower = rusuban(home).args(["run", "long"]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("it is at work", || !read(home, "said").is_empty());
    wait_until("the other one has run", || !read(home, "ticks").is_empty());
    let working = || runs(home).into_iter().find(|run| run["job"] == "long").unwrap();
    let before = working();

    add(home, "long", &job("", "echo new > said"));
    add(home, "new", &job("", "true"));
    fs::remove_file(home.join("jobs/gone.toml")).unwrap();
    server.signal(Signal::HUP);
    for change in ["added: new", "changed: long", "removed: gone"] {
        wait_until("it is told", || said(home).contains(change));
    }
    let after = working();
    assert_eq!((&after["id"], &after["progress"]["state"]), (&before["id"], &"running".into()));
    // What is gone has no more slots; one may be at work.
    std::thread::sleep(Duration::from_millis(1200));
    let ticks = read(home, "ticks");
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(read(home, "ticks"), ticks);

    server.signal(Signal::HUP);
    wait_until("nothing has changed", || said(home).contains("asked by SIGHUP: no job has changed"));
    assert!(text(&run(home, &["reload"])).contains("no job has changed"));
    fs::write(home.join("go"), "").unwrap();
    assert!(follower.wait().unwrap().success());
    assert_eq!(read(home, "said"), "old\nold to its end\n");
    assert_eq!(working()["progress"]["outcome"], "succeeded");
    assert!(run(home, &["run", "long"]).status.success());
    assert_eq!(read(home, "said"), "new\n");
    assert_eq!(server.terminate(), 0);
}

#[test]
fn a_wrong_file_is_refused_with_all_that_changed_beside_it() {
    let home = home("tick", &job(EVERY_SECOND, "echo old >> ticks"));
    let home = home.path();
    let server = Server::start(home);
    wait_until("it has run", || !read(home, "ticks").is_empty());
    // The wrong one first: whenever the server looks, one is wrong.
    add(home, "wrong", "kind = \"comand\"\n");
    add(home, "new", &job(EVERY_SECOND, "echo new >> news"));
    add(home, "tick", &job(EVERY_SECOND, "echo changed >> ticks"));
    server.signal(Signal::HUP);
    let refused = "asked by SIGHUP: 1 mistake in the files; the old ones stay in force";
    wait_until("it is refused", || said(home).contains(refused));
    let refused = run(home, &["reload"]);
    assert!(!refused.status.success() && text(&refused).contains("mistake"), "{}", text(&refused));
    let before = read(home, "ticks").lines().count();
    wait_until("the old one goes on", || read(home, "ticks").lines().count() > before + 1);
    assert!(!read(home, "ticks").contains("changed") && read(home, "news").is_empty());

    fs::remove_file(home.join("jobs/wrong.toml")).unwrap();
    wait_until("it is noticed", || said(home).contains("the files have changed: added: new; changed: tick"));
    wait_until("the new ones are in force", || {
        read(home, "ticks").contains("changed") && read(home, "news").contains("new")
    });
    // The settings are files too.
    fs::write(home.join("rusuban.toml"), "log_level = 5\n").unwrap();
    wait_until("they are refused", || said(home).matches("the old ones stay in force").count() > 1);
    let before = read(home, "ticks").lines().count();
    wait_until("it goes on", || read(home, "ticks").lines().count() > before);
    assert_eq!(server.terminate(), 0);
}
