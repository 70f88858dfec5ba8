//! A program of one's own.
use std::time::{Duration, Instant};

use rusuban::notify::Refusal;
use serde_json::Value;

use super::{blog_is_down, message, notifier, sending};
use crate::support::services::secret;

#[tokio::test]
async fn a_program_reads_the_news_and_finds_the_words_in_its_environment() {
    let folder = tempfile::tempdir().unwrap();
    let mut cx = sending("");
    cx.home = folder.path().to_owned();
    let script = "cat > news.json; printf '%s|%s|%s|%s|%s' \"$RUSUBAN_TITLE\" \"$RUSUBAN_SEVERITY\" \"$RUSUBAN_MOOD\" \"$RUSUBAN_KEY\" \"$TOKEN\" > words";
    let keys = format!("command = ['sh', '-c', '''{script}''']\nenv = {{ TOKEN = {{ env = 'TOKEN' }} }}");
    let bell = notifier("command", &keys);
    let mut news = blog_is_down();
    // More than a pipe holds.
    news.lines = vec!["a line".repeat(100); 500];
    bell.send(&cx, &message("k1", vec![news])).await.unwrap();
    let words = std::fs::read_to_string(folder.path().join("words")).unwrap();
    assert_eq!(words, format!("blog is down|critical|bad|k1|{}", secret("TOKEN")));
    let news: Value = serde_json::from_slice(&std::fs::read(folder.path().join("news.json")).unwrap()).unwrap();
    assert_eq!(news["news"][0]["what"], "the page lacks \"Welcome\"");
    assert_eq!(news["news"][0]["lines"].as_array().unwrap().len(), 500);
    assert!(news["text"].as_str().unwrap().len() <= 16_000);
}

#[tokio::test]
async fn how_a_program_ends_says_what_became_of_the_message() {
    let cx = sending("");
    let send = async |script: &str, more: &str| {
        let keys = format!("command = ['sh', '-c', '''{script}''']\nenv = {{ TOKEN = {{ env = 'TOKEN' }} }}\n{more}");
        notifier("command", &keys).send(&cx, &message("k1", vec![blog_is_down()])).await
    };
    // It need not read what it is told.
    send("exit 0", "").await.unwrap();
    let Err(Refusal::Later { why, .. }) = send("echo the line is dead, $TOKEN >&2; exit 75", "").await else {
        panic!()
    };
    assert_eq!(why, "the command `sh` wants to be tried again: the line is dead, •••");
    let Err(Refusal::Later { why, .. }) = send("exit 3", "").await else { panic!() };
    assert_eq!(why, "the command `sh` ended with exit code 3");
    let Err(Refusal::Never { .. }) = send("exit 78", "").await else { panic!() };
    let started = Instant::now();
    let Err(Refusal::Later { why, .. }) = send("sleep 60", "timeout = '300ms'").await else { panic!() };
    assert!(started.elapsed() < Duration::from_secs(5) && why.contains("had not ended after 300ms"), "{why}");
    let nothing = notifier("command", "command = ['/no/such/program']");
    let Err(Refusal::Never { why }) = nothing.send(&cx, &message("k1", vec![blog_is_down()])).await else { panic!() };
    assert!(why.contains("there is no such program"), "{why}");
}
