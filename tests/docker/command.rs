//! The kind `command` in containers.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rusuban::{
    clock::Clock,
    kinds::{Cx, Summary},
    model::{Debt, Trigger},
    runner::recover,
    store::Store,
};

use crate::support::{
    docker::{BASE, Dockerd, dockerd},
    kind::{Kept, context, read},
};

struct Place {
    _home: tempfile::TempDir,
    cx: Cx,
    kept: Arc<Kept>,
}

fn place(dockerd: &Dockerd) -> Place {
    let home = tempfile::tempdir().unwrap();
    let (mut cx, kept) = context(home.path(), Clock::system(), []);
    Arc::get_mut(&mut cx.services).unwrap().docker = dockerd.docker();
    cx.grace = Duration::from_secs(2);
    Place { _home: home, cx, kept }
}

/// Runs it; nothing is owed, and no container of ours is left.
async fn run(dockerd: &Dockerd, keys: &str) -> (Result<Summary, String>, String) {
    let Place { _home, cx, kept } = place(dockerd);
    let result = read("command", keys).run(&cx).await.map_err(|error| format!("{error:#}"));
    assert_eq!(ours(dockerd), "");
    (result, kept.text())
}

fn ours(dockerd: &Dockerd) -> String {
    dockerd.cli(&["ps", "-a", "--filter", "label=rusuban.run", "--format", "{{.Names}}"])
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_container_that_runs_it_is_heard_and_judged_as_here() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    let keys = r#"
        container = "blog"
        command = ["sh", "-c", "echo $RUSUBAN_JOB $RUSUBAN_RUN $TOKEN; id -un; pwd; sleep .2; printf 'half ' >&2; sleep .2; echo whole; sleep .2; echo done >&2; exit 4"]
        user = "www"
        folder = "/tmp"
        env = { TOKEN = { env = "T" } }
        expect_exit = [0, 4]
    "#;
    let (result, said) = run(dockerd, keys).await;
    assert_eq!(result.unwrap(), "exit code 4, 5 lines of output");
    assert_eq!(said, "o job 1 secret-T\no www\no /tmp\no whole\no half done\n");
    for (keys, expected) in [
        ("shell = 'echo why >&2; exit 3'", "exit code 3: why"),
        ("shell = 'exit 3'", "exit code 3, without a word"),
        ("shell = 'kill -9 $$'", "exit code 137 (SIGKILL; perhaps out of memory), without a word"),
        ("command = ['nope']", "run `nope` in container `blog`: there is no such program in it"),
    ] {
        assert_eq!(run(dockerd, &format!("container = 'blog'\n{keys}")).await.0.unwrap_err(), expected);
    }
    // A new one of that name.
    dockerd.cli(&["rm", "-f", "blog"]);
    let gone = run(dockerd, "container = 'blog'\nshell = 'true'").await.0.unwrap_err();
    assert_eq!(gone, "there is no container `blog`");
    dockerd.run("blog", &["--network", "none", "-e", "NEW=yes", BASE]);
    assert_eq!(run(dockerd, "container = 'blog'\nshell = 'echo $NEW'").await.1, "o yes\n");
    // Whatever it leaves in the background is left alone.
    let (result, _) = run(dockerd, "container = 'blog'\nshell = 'sleep 4001 & echo up'").await;
    assert_eq!(result.unwrap(), "exit code 0, 1 line of output");
    assert!(dockerd.cli(&["top", "blog"]).contains("sleep 4001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_image_a_container_is_made_and_removed() {
    let dockerd = dockerd();
    dockerd.build("tool:1", "FROM base:1\nRUN mkdir /work\nENTRYPOINT [\"echo\", \"tool:\"]\nCMD [\"help\"]");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "kept").unwrap();
    let shown = format!(
        "image = 'base:1'\nvolumes = ['data:/data', '{}:/here:ro']\nnetwork = 'none'\nuser = '33:33'\nfolder = '/tmp'\nenv = {{ A = 'b' }}\nshell = '''\nid -u; pwd; echo $A $RUSUBAN_JOB; cat /here/file; echo; ls /sys/class/net; sleep .2; echo why >&2; sleep .2; touch /here/x && echo written\n'''",
        folder.path().display()
    );
    let (result, said) = run(dockerd, &shown).await;
    assert_eq!(said, "o 33\no /tmp\no b job\no kept\no lo\no why\no touch: /here/x: Read-only file system\n");
    assert_eq!(result.unwrap_err(), "exit code 1: touch: /here/x: Read-only file system");
    for (keys, expected) in [
        ("image = 'tool:1'", "o tool: help\n"),
        ("image = 'tool:1'\ncommand = ['a', 'b c']", "o tool: a b c\n"),
        ("image = 'tool:1'\nshell = 'echo of the shell'", "o of the shell\n"),
        ("image = 'base:1'\ncommand = ['printf', 'x']", "o x\n"),
    ] {
        let (result, said) = run(dockerd, keys).await;
        assert_eq!((said.as_str(), result.is_ok()), (expected, true), "{result:?}");
    }
    for (keys, expected) in [
        (
            "image = 'nowhere:1'",
            "there is no image `nowhere:1` on the engine's host: fetch it with `docker pull nowhere:1`",
        ),
        (
            "image = 'base:1'\ncommand = ['nope']",
            "run `nope` in container `rusuban-job-1`: there is no such program in it",
        ),
        ("image = 'base:1'\nshell = 'exit 9'", "exit code 9, without a word"),
    ] {
        assert_eq!(run(dockerd, keys).await.0.unwrap_err(), expected);
    }
    let missing =
        run(dockerd, "image = 'base:1'\nshell = 'true'\nvolumes = ['/nowhere/at/all:/x']").await.0.unwrap_err();
    assert!(missing.contains("/nowhere/at/all"), "{missing}");
    let network = run(dockerd, "image = 'base:1'\nshell = 'true'\nnetwork = 'nowhere'").await.0.unwrap_err();
    assert!(network.contains("network nowhere not found"), "{network}");
    dockerd.run("rusuban-job-1", &["--network", "none", BASE]);
    let taken = run(dockerd, "image = 'base:1'\nshell = 'true'").await.0.unwrap_err();
    assert!(taken.starts_with("another container is called `rusuban-job-1` already"), "{taken}");
    assert_eq!(dockerd.inspect("rusuban-job-1")["State"]["Running"], true, "it is not ours to remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_an_image_prints_is_lost() {
    let dockerd = dockerd();
    let (result, said) = run(dockerd, "image = 'base:1'\nnetwork = 'none'\nshell = 'seq 1 20000'").await;
    assert_eq!(result.unwrap(), "exit code 0, 20000 lines of output");
    let expected: String = (1..=20_000).map(|number| format!("o {number}\n")).collect();
    assert!(said == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_uses_up_its_memory_says_so() {
    let dockerd = dockerd();
    let keys = "image = 'base:1'\nnetwork = 'none'\nlimits = { memory = '16 MiB' }\nshell = 'tail /dev/zero'";
    let (result, said) = run(dockerd, keys).await;
    let error = result.unwrap_err();
    assert!(error.contains("out of memory: the kernel killed"), "{error} {said}");
}

/// Runs it and asks it to stop once it has said `up`.
async fn stopped(dockerd: &Dockerd, keys: &str) -> (String, Vec<Debt>) {
    stopped_in(place(dockerd), keys).await
}

async fn stopped_in(Place { _home, cx, kept }: Place, keys: &str) -> (String, Vec<Debt>) {
    let kind = read("command", keys);
    let (watched, cancelled) = (Arc::clone(&kept), cx.cancelled.clone());
    let asking = tokio::spawn(async move {
        while !watched.text().contains("o up") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancelled.cancel();
    });
    let result = tokio::time::timeout(Duration::from_secs(30), kind.run(&cx)).await.unwrap();
    asking.await.unwrap();
    let debts = kept.debts.lock().unwrap().values().cloned().collect();
    (format!("{:#}", result.unwrap_err()), debts)
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_it_ends_with_its_children_in_either_container() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    let (error, debts) =
        stopped(dockerd, "container = 'blog'\nshell = 'setsid sleep 4001 & sleep 4002 & echo up; wait'").await;
    assert_eq!((error.as_str(), debts.len()), ("the command was asked to stop: exit code 143 (SIGTERM)", 0));
    assert!(!dockerd.cli(&["top", "blog"]).contains("sleep 400"));
    let stubborn = "container = 'blog'\nshell = \"trap '' TERM; echo up; while :; do sleep 1; done\"";
    let (error, debts) = stopped(dockerd, stubborn).await;
    assert!(error.starts_with("the command was asked to stop: exit code 137") && debts.is_empty(), "{error}");

    let listens = "image = 'base:1'\nnetwork = 'none'\nshell = \"trap 'echo bye; exit 7' TERM; echo up; while :; do sleep .1; done\"";
    let (error, debts) = stopped(dockerd, listens).await;
    assert_eq!((error.as_str(), debts.len()), ("the command was asked to stop: exit code 7", 0));
    let (error, _) = stopped(dockerd, "image = 'base:1'\nnetwork = 'none'\nshell = 'echo up; sleep 4003; true'").await;
    assert!(error.starts_with("the command was asked to stop: exit code 137"), "{error}");
    assert_eq!(ours(dockerd), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_afar_it_is_ended_too_or_said_to_go_on_and_owed() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    let afar = || async {
        let mut place = place(dockerd);
        Arc::get_mut(&mut place.cx.services).unwrap().docker = dockerd.afar().await;
        place
    };
    let family = "container = 'blog'\nshell = 'setsid sleep 4001 & echo up; sleep 4002'";
    let (error, debts) = stopped_in(afar().await, family).await;
    assert!(error.starts_with("the command was asked to stop: exit code 143") && debts.is_empty(), "{error}");
    assert!(!dockerd.cli(&["top", "blog"]).contains("sleep 400"));
    // Its shell goes away while it is at work.
    let shell_gone =
        "container = 'blog'\ncommand = ['/bin/busybox', 'sh', '-c', 'rm /bin/sh; echo up; exec sleep 4003']";
    let (error, debts) = stopped_in(afar().await, shell_gone).await;
    assert!(error.starts_with("what was started in container `blog` goes on there: it has no shell"), "{error}");
    assert!(matches!(&debts[..], [Debt::Process { name, .. }] if name == "blog"), "{debts:?}");

    // A Rusuban that is started anew pays, as soon as it can.
    let store = Store::in_memory(Clock::system()).unwrap();
    let job = "job".parse().unwrap();
    let run = store.queue_run(&job, Trigger::Manual).await.unwrap().id;
    store.owe(run, &job, &debts[0]).await.unwrap();
    let Place { _home, cx, .. } = afar().await;
    recover(&store, &Clock::system(), &cx.services, &BTreeMap::new()).await.unwrap();
    assert_eq!(store.debts().await.unwrap().len(), 1);
    dockerd.cli(&["exec", "blog", "/bin/busybox", "ln", "-s", "busybox", "/bin/sh"]);
    recover(&store, &Clock::system(), &cx.services, &BTreeMap::new()).await.unwrap();
    assert_eq!(store.debts().await.unwrap().len(), 0);
    assert!(!dockerd.cli(&["top", "blog"]).contains("sleep 4003"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_in_the_middle_leaves_a_debt() {
    let dockerd = dockerd();
    for keys in ["image = 'base:1'\nnetwork = 'none'", "container = 'blog'"] {
        let _ = dockerd.try_cli(&["rm", "-f", "blog"]);
        dockerd.run("blog", &["--network", "none", BASE]);
        let Place { _home, cx, kept } = place(dockerd);
        let kind = read("command", &format!("{keys}\nshell = 'echo up; sleep 4001'"));
        let running = tokio::spawn(async move { kind.run(&cx).await });
        while !kept.text().contains("o up") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        dockerd.power_cut();
        let result = tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains("Docker") || error.contains("container `blog` was stopped"), "{error}");
        assert!(kept.debts.lock().unwrap().len() <= 1);
    }
}
