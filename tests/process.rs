//! Real processes: heard in order, limited, and ended with their whole tree.
use std::{path::Path, time::Duration};

use rusuban::{
    model::RunId,
    process::{self, Command, Ended, Exit, Limits, Tree},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn command(home: &Path, run: i64, arguments: &[&str]) -> Command {
    Command {
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        folder: Some(home.to_owned()),
        environment: Vec::new(),
        user: None,
        tree: Tree::new(home, RunId(run)),
        limits: Limits::default(),
        grace: Some(Duration::from_secs(5)),
    }
}

async fn hear(command: &Command) -> (Ended, Vec<String>) {
    let mut lines = Vec::new();
    let ended = process::run(command, &CancellationToken::new(), |line| lines.push(line.to_owned())).await.unwrap();
    (ended, lines)
}

#[tokio::test]
async fn output_and_errors_are_heard_in_the_order_in_which_they_were_written() {
    let home = tempfile::tempdir().unwrap();
    let script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; printf end; exit 7";
    let (ended, lines) = hear(&command(home.path(), 1, &["sh", "-c", script])).await;
    assert_eq!(ended, Ended { exit: Exit::Code(7), stopped: false, left_behind: false });
    let expected: Vec<_> = (1..=5).flat_map(|i| [format!("out {i}"), format!("err {i}")]).collect();
    assert_eq!(lines[..10], expected);
    assert_eq!(lines[10..], ["end"]);
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let home = tempfile::tempdir().unwrap();
    let why = async |command: &Command| {
        let error = process::run(command, &CancellationToken::new(), |_| {}).await.unwrap_err();
        format!("{error:#}")
    };
    let missing = command(home.path(), 1, &["no-such-program-here"]);
    assert_eq!(why(&missing).await, "run `no-such-program-here`: there is no such program");
    let nowhere = Command { folder: Some("/no/such/folder".into()), ..command(home.path(), 1, &["true"]) };
    assert_eq!(why(&nowhere).await, "run `true` in /no/such/folder: there is no such folder");
    let nobody = Command { user: Some("no-such-user".into()), ..command(home.path(), 1, &["true"]) };
    assert_eq!(why(&nobody).await, "run `true` as user `no-such-user`: /etc/passwd has no user `no-such-user`");
}

#[tokio::test]
async fn another_user_gets_a_fresh_environment() {
    let home = tempfile::tempdir().unwrap();
    let as_nobody = Command {
        user: Some("nobody".into()),
        folder: Some("/".into()),
        environment: vec![("GIVEN".into(), "yes".into())],
        ..command(home.path(), 1, &["sh", "-c", "id -un; echo $GIVEN $USER; env | grep -c CARGO"])
    };
    if rustix::process::geteuid().is_root() {
        assert_eq!(hear(&as_nobody).await.1, ["nobody", "yes nobody", "0"]);
    } else {
        let error = process::run(&as_nobody, &CancellationToken::new(), |_| {}).await.unwrap_err();
        assert!(format!("{error:#}").contains("only root can start commands as another user"), "{error:#}");
    }
}

#[tokio::test]
async fn limits_are_in_force_before_the_command_begins() {
    let home = tempfile::tempdir().unwrap();
    let limits = Limits { memory: Some(512 << 20), processor_seconds: Some(100), niceness: Some(7) };
    let limited =
        Command { limits, ..command(home.path(), 1, &["sh", "-c", "ulimit -v; ulimit -t; nice; echo $0", "a b"]) };
    assert_eq!(hear(&limited).await.1, ["524288", "100", "7", "a b"]);
    let greedy = Limits { processor_seconds: Some(1), ..Limits::default() };
    let (ended, _) =
        hear(&Command { limits: greedy, ..command(home.path(), 1, &["sh", "-c", "while :; do :; done"]) }).await;
    assert!(matches!(ended.exit, Exit::Signal(24 | 9)), "{ended:?}");
}

#[tokio::test]
async fn a_process_left_behind_does_not_hold_up_the_end_and_is_found_later() {
    let home = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let script = "(setsid sh -c 'echo started; sleep 1000' &) ; echo done";
    let (ended, lines) = hear(&command(home.path(), 1, &["sh", "-c", script])).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(ended.left_behind && ended.exit == Exit::Code(0), "{ended:?}");
    assert!(lines.contains(&"done".into()) && lines.contains(&"started".into()), "{lines:?}");
    let other_run = Tree::new(home.path(), RunId(2)).end(Duration::ZERO).await;
    assert_eq!((other_run.asked, other_run.killed), (0, 0));
    let ending = Tree::new(home.path(), RunId(1)).end(Duration::from_secs(5)).await;
    assert_eq!((ending.asked, ending.killed, ending.left), (2, 0, 0));
}

#[tokio::test]
async fn a_tree_that_ignores_the_request_is_killed_after_its_grace() {
    let home = tempfile::tempdir().unwrap();
    let deaf =
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' &) ; while :; do sleep 0.05; done";
    let command = Command { grace: Some(Duration::from_millis(300)), ..command(home.path(), 1, &["sh", "-c", deaf]) };
    let stop = CancellationToken::new();
    let began = Instant::now();
    let (ended, ()) = tokio::join!(process::run(&command, &stop, |_| {}), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    });
    let ended = ended.unwrap();
    assert!(ended.stopped && ended.exit == Exit::Signal(9), "{ended:?}");
    assert!(began.elapsed() > Duration::from_millis(450) && began.elapsed() < Duration::from_secs(8));
    assert_eq!(Tree::new(home.path(), RunId(1)).end(Duration::ZERO).await.killed, 0, "nothing was left");
}

#[tokio::test]
async fn dropped_half_way_it_kills_even_what_has_no_mark() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("pid");
    // `env -i` clears the mark: only the group and the parents tell whose they are.
    let script = format!("env -i sh -c 'echo $$ > {}; sleep 1000; true'; true", file.display());
    let command = command(home.path(), 1, &["sh", "-c", &script]);
    let stop = CancellationToken::new();
    let run = process::run(&command, &stop, |_| {});
    assert!(tokio::time::timeout(Duration::from_millis(500), run).await.is_err());
    let pid = std::fs::read_to_string(file).unwrap();
    let gone = async {
        while std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
}

/// What a shell line prints as its process number, and whether that process is there.
async fn pid_in(file: &Path) -> String {
    let written = async {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if text.ends_with('\n') {
                return text.trim().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.unwrap()
}

fn is_there(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

/// It leaves its group, its session, its parent, its environment and its output.
const RUNS_AWAY: &str = "(setsid env -i sh -c 'echo $$ > PID; exec sleep 1000' < /dev/null > /dev/null 2>&1 &) ; ";

#[tokio::test(flavor = "multi_thread")]
async fn what_left_everything_it_could_is_found_and_no_other_runs_process_is() {
    let home = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let line = |pid: &Path| RUNS_AWAY.replace("PID", pid.to_str().unwrap());
    let first = command(home.path(), 1, &["sh", "-c", &(line(&one) + "sleep 1000")]);
    let second = command(home.path(), 2, &["sh", "-c", &line(&two)]);
    let (first, second) = tokio::join!(process::run(&first, &stop, |_| {}), async {
        let second = hear(&second).await;
        pid_in(&one).await;
        pid_in(&two).await;
        // Its parent is long gone.
        stop.cancel();
        second
    });
    assert!(first.unwrap().stopped && second.0.exit == Exit::Code(0));
    let (one, two) = (pid_in(&one).await, pid_in(&two).await);
    assert!(!is_there(&one), "it got away");
    assert!(is_there(&two), "it is another run's");
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(Tree::new(elsewhere.path(), RunId(2)).end(Duration::ZERO).await.killed, 0, "another home's");
    // As at the next start of a server that was killed.
    let ending = Tree::new(home.path(), RunId(2)).end(Duration::from_secs(5)).await;
    assert_eq!((ending.asked, ending.left), (1, 0));
    assert!(!is_there(&two));
}

#[tokio::test]
async fn a_command_gets_the_limit_on_open_files_that_we_were_started_with() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..limit }).unwrap();
    process::raise_open_files();
    assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    let home = tempfile::tempdir().unwrap();
    let asked = command(home.path(), 1, &["sh", "-c", "ulimit -Sn; ulimit -Hn"]);
    let given = ["256".to_owned(), limit.maximum.map_or("unlimited".to_owned(), |most| most.to_string())];
    assert_eq!(hear(&asked).await.1, given);
    // With many files open, of which another thread may open one more at any time.
    let _open: Vec<_> = (0..300).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let asked = command(home.path(), 1, &["sh", "-c", "sleep 0.3; ulimit -Sn; ulimit -Hn"]);
    assert_eq!(hear(&asked).await.1, given);
    assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum, "ours is as it was");
    assert_eq!(getrlimit(Resource::Rttime).current, None);
}
