//! What is kept of what a run says.
use rusuban::runner::Event;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_kept_within_bounds_first_and_last_lines() {
    let house = House::new();
    let run = house.run(&command("flood", "command = ['seq', '1', '1000000']")).await;
    assert_eq!((outcome(&run), &*run.message), (Outcome::Succeeded, "exit code 0, 1000000 lines of output"));
    let lines = house.lines(run.id).await;
    assert_eq!(lines.len(), 10_001);
    assert_eq!((&*lines[0], &*lines[7_999]), ("1", "8000"));
    assert_eq!(lines[8_000], "… 990000 lines dropped: a run keeps 10000 lines or 10 MiB …");
    assert_eq!((&*lines[8_001], &*lines[10_000]), ("998001", "1000000"));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 200 << 10, "{kib} KiB at the peak");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lines_are_bounded_too() {
    let house = House::new();
    let run = house.run(&shell("flood", "head -c 50000000 /dev/zero | tr '\\0' x | fold -w 5000")).await;
    let lines = house.store.lines(run.id, 0, u32::MAX).await.unwrap();
    let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
    assert!(bytes < 11 << 20 && bytes > 5 << 20, "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_removed_from_lines_and_from_the_message() {
    let house = House::new();
    let job = command(
        "site",
        "shell = 'echo token=$TOKEN and of-the-settings; echo $PLAIN; echo bad $TOKEN; exit 1'\nenv = { TOKEN = { env = 'TOKEN' }, PLAIN = 'plain text' }",
    );
    let run = house.run(&job).await;
    assert_eq!(run.message, "exit code 1: bad •••");
    assert_eq!(house.lines(run.id).await[..3], ["token=••• and •••", "plain text", "bad •••"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_and_reads_the_ledger_misses_nothing() {
    let house = House::new();
    let run = house
        .start(&shell("talks", "for i in $(seq 1 300); do echo line $i; test $((i % 50)) = 0 && sleep 0.1; done; true"))
        .await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    let mut events = house.runner.follow(run).unwrap();
    let mut heard: Vec<_> = house.store.lines(run, 0, u32::MAX).await.unwrap();
    let end = loop {
        match events.recv().await.unwrap() {
            Event::Line(line) if heard.last().is_none_or(|last| line.number > last.number) => heard.push(line),
            Event::Finished(outcome, message) => break (outcome, message),
            _ => {}
        }
    };
    assert_eq!(end, (Outcome::Succeeded, "exit code 0, 300 lines of output".into()));
    let heard: Vec<_> = heard.into_iter().map(|line| line.text).collect();
    assert_eq!(heard, (1..=300).map(|i| format!("line {i}")).collect::<Vec<_>>());
    house.until(|| house.runner.follow(run).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_and_progress_are_told_and_facts_are_kept() {
    let house = House::new();
    let kind = Does::kind(async |cx: Cx| {
        assert_eq!(cx.record.fact("size").await?, None);
        cx.record.remember("size", 7.into()).await?;
        cx.step("dump", async {
            let (step, total) = ("dump".to_owned(), Some(10));
            cx.record.progress(rusuban::kinds::Progress { step, done: 5, total, added: None });
            tokio::time::sleep(Duration::from_millis(400)).await;
            Ok(())
        })
        .await?;
        let broken: anyhow::Result<()> = cx.step("upload", async { anyhow::bail!("no of-the-settings") }).await;
        broken.map(|()| String::new())
    });
    let run = house.start(&job("site", kind)).await;
    let mut events = house.runner.follow(run).unwrap();
    house
        .until(|| {
            house.runner.active().iter().any(|run| run.progress.as_ref().is_some_and(|progress| progress.done == 5))
        })
        .await;
    assert_eq!(house.runner.active()[0].step.as_deref(), Some("dump"));
    assert_eq!(house.end(run).await.message, "no •••");
    let steps = house.store.steps(run).await.unwrap();
    assert_eq!(steps[0].name, "dump");
    assert!(steps[0].ended.is_some() && steps[0].error.is_none());
    assert_eq!(steps[1].error.as_deref(), Some("no •••"));
    assert_eq!(house.store.fact(&"site".parse().unwrap(), "size").await.unwrap(), Some(7.into()));
    let mut heard = Vec::new();
    while let Ok(event) = events.recv().await {
        heard.push(event);
    }
    assert!(heard.contains(&Event::StepBegan("dump".into())), "{heard:?}");
    assert!(heard.iter().any(|event| matches!(event, Event::Progress(progress) if progress.done == 5)), "{heard:?}");
    assert!(matches!(heard.last(), Some(Event::Finished(Outcome::Failed, _))), "{heard:?}");
}
