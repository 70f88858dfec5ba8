//! Processes in running containers: heard, counted byte by byte, and ended with all that came of them.
use std::time::{Duration, Instant};

use rusuban::docker::{Channel, Engine, Exec, ExecError, Process};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::docker::{BASE, Dockerd, dockerd};

fn sh(line: &str) -> Exec {
    Exec { arguments: ["sh", "-c", line].map(str::to_owned).to_vec(), ..Exec::default() }
}

/// All that it printed, a letter wherever the channel changes, and how it ended.
async fn heard(mut process: Process) -> Result<(String, i32), ExecError> {
    let (mut all, mut last) = (String::new(), None);
    while let Some(piece) = process.next().await? {
        if last.replace(piece.channel) != Some(piece.channel) {
            all.push(if piece.channel == Channel::Output { 'o' } else { 'e' });
        }
        all.push_str(&String::from_utf8_lossy(&piece.bytes));
    }
    Ok((all, process.exit().await?))
}

async fn run(engine: &Engine, container: &str, exec: &Exec) -> Result<(String, i32), ExecError> {
    heard(engine.exec(container, exec).await?).await
}

/// Listens until the process has printed this.
async fn hear(process: &mut Process, words: &str) {
    let mut all = String::new();
    while !all.contains(words) {
        let piece = tokio::time::timeout(Duration::from_secs(20), process.next()).await;
        let piece = piece.unwrap_or_else(|_| panic!("waited in vain for {words:?}: {all}")).unwrap().unwrap();
        all.push_str(&String::from_utf8_lossy(&piece.bytes));
    }
}

/// How many processes in a container have this among their arguments.
fn count(dockerd: &Dockerd, container: &str, words: &str) -> usize {
    dockerd.cli(&["top", container, "-eo", "pid,args"]).lines().filter(|line| line.contains(words)).count()
}

async fn until_gone(dockerd: &Dockerd, container: &str, words: &str) {
    let begun = Instant::now();
    while count(dockerd, container, words) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", dockerd.cli(&["top", container]));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_outputs_come_in_order_with_user_folder_environment_and_exit_code() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    let engine = dockerd.engine().await;
    // The engine reads two pipes: what is written at one moment may come either way.
    let line = "echo 1; sleep .2; echo 2 >&2; sleep .2; echo 3; sleep .2; echo 4 >&2; exit 3";
    assert_eq!(run(&engine, "blog", &sh(line)).await.unwrap(), ("o1\ne2\no3\ne4\n".into(), 3));
    let exec = Exec {
        environment: vec![("A".into(), "b c".into()), ("EMPTY".into(), String::new())],
        user: Some("www".into()),
        folder: Some("/tmp".into()),
        ..sh("id -un; pwd; echo \"$A,${EMPTY-unset}\"; cat")
    };
    assert_eq!(run(&engine, "blog", &exec).await.unwrap(), ("owww\n/tmp\nb c,\n".into(), 0));
    for (line, expected) in [("exit 42", 42), ("kill -9 $$", 137), ("exit 255", 255), ("true", 0), ("exit 126", 126)] {
        assert_eq!(run(&engine, "blog", &sh(line)).await.unwrap(), (String::new(), expected), "{line}");
    }
    let says_so_itself = sh("echo OCI runtime exec failed; exit 5");
    assert_eq!(run(&engine, "blog", &says_so_itself).await.unwrap().0, "oOCI runtime exec failed\n");
    assert_eq!(run(&engine, "blog", &sh("printf O; sleep .2; printf C")).await.unwrap().0, "oOC");
    assert_eq!(run(&engine, "blog", &sh("printf u >&2; sleep .2; echo data")).await.unwrap().0, "euodata\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_is_an_error_and_no_output() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    dockerd.run("done", &["--network", "none", BASE, "true"]);
    dockerd.cli(&["wait", "done"]);
    let engine = dockerd.engine().await;
    let run = async |container: &str, exec: Exec| {
        let error = run(&engine, container, &exec).await.unwrap_err();
        error.to_string()
    };
    let program = |name: &str| Exec { arguments: vec![name.to_owned()], ..Exec::default() };
    let start = "in container `blog`:";
    assert_eq!(run("blog", program("nope")).await, format!("run `nope` {start} there is no such program in it"));
    assert_eq!(
        run("blog", program("/bin/nope")).await,
        format!("run `/bin/nope` {start} there is no such program in it")
    );
    let denied = run("blog", program("/etc/passwd")).await;
    assert!(denied.starts_with(&format!("run `/etc/passwd` {start} permission denied")), "{denied}");
    let elsewhere = Exec { folder: Some("/nowhere".into()), ..program("true") };
    assert_eq!(run("blog", elsewhere).await, format!("run `true` {start} there is no folder /nowhere in it"));
    let nobody = Exec { user: Some("nobody-there".into()), ..program("true") };
    let said = run("blog", nobody).await;
    assert!(said.contains("unable to find user nobody-there"), "{said}");
    assert_eq!(run("nowhere", program("true")).await, "there is no container `nowhere`");
    assert_eq!(run("done", program("true")).await, "container `done` is stopped: start it with `docker start`");
    dockerd.cli(&["pause", "blog"]);
    let paused = run("blog", program("true")).await;
    assert!(paused.starts_with("container `blog` is paused"), "{paused}");
    dockerd.cli(&["unpause", "blog"]);
    // A dump gets nothing of the engine's words.
    let mut dump = engine.exec("blog", &program("nope")).await.unwrap().dump();
    assert!(matches!(dump.next().await, Err(ExecError::NotStarted { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_64_mib_is_exact_to_the_byte_and_takes_little_memory() {
    let dockerd = dockerd();
    dockerd.run("db", &["--network", "none", BASE]);
    dockerd.cli(&["exec", "db", "sh", "-c", "dd if=/dev/urandom of=/data bs=1048576 count=64 2>/dev/null"]);
    let sum = dockerd.cli(&["exec", "db", "sha256sum", "/data"]);
    let engine = dockerd.engine().await;
    let dump = engine.exec("db", &sh("echo begin >&2; cat /data; echo end >&2")).await.unwrap().dump();
    let said = dump.said();
    let before = resident();
    let (mut reader, mut hash, mut length, mut most) = (dump.into_reader(), Sha256::new(), 0, 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = reader.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        length += read;
        hash.update(&buffer[..read]);
        most = most.max(resident());
    }
    assert_eq!(length, 64 << 20);
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(sum.starts_with(&hash), "{sum} {hash}");
    assert_eq!(said.to_string(), "begin\nend\n");
    assert!(most < before + (16 << 20), "{before} bytes before, {most} bytes while it was read");
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_fails_has_no_end() {
    let dockerd = dockerd();
    dockerd.run("db", &["--network", "none", BASE]);
    let engine = dockerd.engine().await;
    let mut dump = engine.exec("db", &sh("echo half; echo why >&2; echo >&2; exit 2")).await.unwrap().dump();
    assert_eq!(&dump.next().await.unwrap().unwrap()[..], b"half\n");
    assert_eq!(dump.next().await.unwrap_err().to_string(), "exit code 2: why");
    let mut reader = engine.exec("db", &sh("echo half; exit 2")).await.unwrap().dump().into_reader();
    let mut all = Vec::new();
    assert_eq!(reader.read_to_end(&mut all).await.unwrap_err().to_string(), "exit code 2");
    // Stopped from elsewhere while it is read elsewhere.
    let dump = engine.exec("db", &sh("while :; do echo more; done")).await.unwrap().dump();
    let ender = dump.ender();
    let mut reader = dump.into_reader();
    let reading = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    ender.end(Duration::from_secs(5)).await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap_err().to_string(), "exit code 143");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_is_fed_and_ends() {
    let dockerd = dockerd();
    dockerd.run("db", &["--network", "none", BASE]);
    let engine = dockerd.engine().await;
    let mut process = engine.exec("db", &Exec { input: true, ..sh("sha256sum; echo done >&2") }).await.unwrap();
    let mut input = process.take_input().unwrap();
    let feeding = tokio::spawn(async move {
        let block = vec![7; 1 << 20];
        for _ in 0..20 {
            input.write_all(&block).await.unwrap();
        }
        input.shutdown().await.unwrap();
    });
    let (said, code) = heard(process).await.unwrap();
    feeding.await.unwrap();
    let sum: String = Sha256::digest(vec![7; 20 << 20]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((said.contains(&sum), said.contains("edone\n"), code), (true, true, 0), "{said}");
}

/// A process with a child, one that left its session, and one that does not listen to SIGTERM.
const FAMILY: &str = "sleep 4001 & setsid sleep 4002 & (trap '' TERM; echo up; while :; do sleep 4003; done)";

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_all_that_came_of_it_seen_from_outside() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    let engine = dockerd.engine().await;
    let mut other = engine.exec("blog", &sh("echo up; sleep 4009")).await.unwrap();
    hear(&mut other, "up").await;
    let mut process = engine.exec("blog", &sh(FAMILY)).await.unwrap();
    hear(&mut process, "up").await;
    let ending = process.ender().end(Duration::from_millis(500)).await.unwrap();
    assert!(ending.asked >= 4 && ending.killed >= 1, "{ending:?}");
    assert_eq!(count(dockerd, "blog", "sleep 400"), 1, "{}", dockerd.cli(&["top", "blog"]));
    let code = heard(process).await.unwrap().1;
    assert!(matches!(code, 137 | 143), "{code}");
    assert_eq!(process_count_after_drop(dockerd, other).await, 0);
}

async fn process_count_after_drop(dockerd: &Dockerd, process: Process) -> usize {
    drop(process);
    until_gone(dockerd, "blog", "sleep 4009").await;
    count(dockerd, "blog", "sleep 4009")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_all_that_came_of_it_seen_from_inside_only() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    dockerd.run("app", &["--network", "none", "--user", "www", BASE]);
    let engine = dockerd.afar().await.connect().await.unwrap();
    for (container, user) in [("blog", None), ("app", None), ("blog", Some("www"))] {
        let exec = Exec { user: user.map(str::to_owned), ..sh(FAMILY) };
        let mut process = engine.exec(container, &exec).await.unwrap();
        hear(&mut process, "up").await;
        let ending = process.ender().end(Duration::from_millis(500)).await.unwrap();
        assert!(ending.asked >= 4 && ending.killed >= 1, "{ending:?}");
        assert_eq!(count(dockerd, container, "sleep 400"), 0, "{}", dockerd.cli(&["top", container]));
        heard(process).await.unwrap();
    }
    // A child of another user, whose environment nobody but that user may read; and one that cleared its own.
    let other_user = "su www -c 'sleep 4004' & env -i sleep 4005 & echo up; wait";
    let mut process = engine.exec("blog", &sh(other_user)).await.unwrap();
    hear(&mut process, "up").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(count(dockerd, "blog", "sleep 4004") > 1, "{}", dockerd.cli(&["top", "blog"]));
    let ending = process.ender().end(Duration::from_secs(5)).await.unwrap();
    assert_eq!((ending.asked >= 3, ending.killed, ending.left), (true, 0, 0), "{ending:?}");
    assert_eq!(count(dockerd, "blog", "sleep 400"), 0);
    // Over already.
    assert_eq!(process.ender().end(Duration::from_secs(5)).await.unwrap().asked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_shell_it_ends_from_outside_or_is_said_to_go_on() {
    let dockerd = dockerd();
    dockerd.build(
        "bare:1",
        "FROM base:1 AS base\nFROM scratch\nCOPY --from=base /bin/busybox /bin/sleep\nCMD [\"/bin/sleep\", \"1000\"]",
    );
    dockerd.run("bare", &["--network", "none", "bare:1"]);
    let exec = Exec { arguments: vec!["/bin/sleep".into(), "4001".into()], ..Exec::default() };
    let afar = dockerd.afar().await.connect().await.unwrap();
    let process = afar.exec("bare", &exec).await.unwrap();
    let error = process.ender().end(Duration::from_secs(1)).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "what was started in container `bare` goes on there: it has no shell that could end it, and its processes cannot be seen from here"
    );
    assert_eq!(count(dockerd, "bare", "sleep 4001"), 1);
    let near = dockerd.engine().await;
    let here = near.exec("bare", &exec).await.unwrap();
    assert_eq!(here.ender().end(Duration::from_secs(5)).await.unwrap().asked, 1);
    assert_eq!(count(dockerd, "bare", "sleep 4001"), 1);
    dockerd.cli(&["kill", "bare"]);
    assert_eq!(process.ender().end(Duration::from_secs(1)).await.unwrap().asked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_made_anew_is_found_by_its_name() {
    let dockerd = dockerd();
    let engine = dockerd.engine().await;
    for number in ["1", "2"] {
        dockerd.run("blog", &["--network", "none", "-e", &format!("NUMBER={number}"), BASE]);
        assert_eq!(run(&engine, "blog", &sh("echo $NUMBER")).await.unwrap().0, format!("o{number}\n"));
        dockerd.cli(&["rm", "-f", "blog"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_in_the_middle_is_named() {
    let dockerd = dockerd();
    let engine = dockerd.engine().await;
    for how in [&["stop", "-t", "1", "blog"][..], &["rm", "-f", "blog"], &["restart", "-t", "0", "blog"]] {
        let _ = dockerd.try_cli(&["rm", "-f", "blog"]);
        dockerd.run("blog", &["--network", "none", BASE]);
        let mut process = engine.exec("blog", &sh("echo up; sleep 4001")).await.unwrap();
        hear(&mut process, "up").await;
        dockerd.cli(how);
        let error = heard(process).await.unwrap_err().to_string();
        assert_eq!(error, "container `blog` was stopped or removed while the command was at work in it", "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_in_the_middle_is_an_error() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    let engine = dockerd.engine().await;
    let mut process = engine.exec("blog", &sh("echo up; sleep 4001")).await.unwrap();
    hear(&mut process, "up").await;
    dockerd.power_cut();
    let error = heard(process).await.unwrap_err().to_string();
    assert!(error.contains("Docker") || error.contains("container `blog`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_behind_is_told_apart_from_what_works() {
    let dockerd = dockerd();
    dockerd.run("blog", &["--network", "none", BASE]);
    let engine = dockerd.engine().await;
    // Both outputs closed, and still at work.
    let (said, code) = run(&engine, "blog", &sh("echo x; exec >&- 2>&-; sleep 1; exit 9")).await.unwrap();
    assert_eq!((said.as_str(), code), ("ox\n", 9));
    // Ended, while a child holds an output.
    let mut process = engine.exec("blog", &sh("sleep 4001 & echo up")).await.unwrap();
    hear(&mut process, "up").await;
    let begun = Instant::now();
    while process.ended().await.unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(process.exit().await.unwrap(), 0);
    drop(process);
    assert_eq!(count(dockerd, "blog", "sleep 4001"), 1, "it ended well: what it left is left alone");
}
