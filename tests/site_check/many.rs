//! Many sites in one job: spread, bounded, and quiet.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rusuban::{
    clock::Clock,
    model::watch::{Checked, State},
};

use super::look_with;
use crate::support::{
    http::{Reply, Server, answer},
    kind::{context, read},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sites_are_spread_over_their_time_and_told_in_few_lines() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (server_now, server_most) = (Arc::clone(&now), Arc::clone(&most));
    let server = Server::start(move |seen| {
        let at_once = server_now.fetch_add(1, Ordering::SeqCst) + 1;
        server_most.fetch_max(at_once, Ordering::SeqCst);
        server_now.fetch_sub(1, Ordering::SeqCst);
        answer("200 OK", "", if seen.line.contains("/7 ") || seen.line.contains("/8 ") { "Oops" } else { "Welcome" })
    })
    .await;
    let mut keys = String::from("contains = 'Welcome'\nspread = '2s'\nfailures = 3\nparent = 'site 999'\n");
    for number in 0..1000 {
        keys += &format!("[[site]]\nname = 'site {number}'\nurl = '{}'\n", server.url(&format!("/{number}")));
    }
    let home = tempfile::tempdir().unwrap();
    let (cx, kept) = context(home.path(), Clock::system(), []);
    let begun = Instant::now();
    let (summary, found) = look_with(&cx, &kept, &keys).await;
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    assert_eq!(summary.unwrap(), "2 down: site 7, site 8; 998 of 1000 are up");
    assert_eq!(found.len(), 1000);
    // The one on whom all others depend is looked at first, and does not depend on itself.
    let rules = |label: &str| &found.iter().find(|checked| checked.check == label).unwrap().rules;
    assert_eq!((rules("site 999").parent.as_deref(), rules("site 0").parent.as_deref()), (None, Some("site 999")));
    assert_eq!(
        (rules("site 1").failures, rules("site 1").successes, rules("site 1").host.as_deref()),
        (3, 1, Some("127.0.0.1"))
    );
    let first = found.iter().map(|checked| checked.at).min().unwrap();
    let of_all = |label: &str| found.iter().find(|checked| checked.check == label).unwrap().at;
    assert_eq!(of_all("site 999"), first);
    let in_first_half = |checked: &&Checked| (checked.at - first).num_milliseconds() < 1000;
    let early = found.iter().filter(in_first_half).count();
    assert!((350..=650).contains(&early), "{early} of 1000 began in the first half");
    assert_eq!(kept.text(), "");
}

#[tokio::test]
async fn asked_to_stop_it_stops_and_hands_on_what_it_found() {
    let server =
        Server::start(|seen| if seen.line.contains("/well") { answer("200 OK", "", "") } else { Reply::Silence }).await;
    let home = tempfile::tempdir().unwrap();
    let (cx, kept) = context(home.path(), Clock::system(), []);
    let keys = format!(
        "[[site]]\nname = 'a'\nurl = '{}'\n[[site]]\nname = 'b'\nurl = '{}'",
        server.url("/well"),
        server.url("/hang")
    );
    let (kind, cancelled) = (read("site-check", &keys), cx.cancelled.clone());
    let run = tokio::spawn(async move { kind.run(&cx).await });
    while server.seen().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    cancelled.cancel();
    let failure = tokio::time::timeout(Duration::from_secs(2), run).await.unwrap().unwrap().unwrap_err();
    assert_eq!(failure.to_string(), "asked to stop after 1 of 2 looks");
    let found = kept.checks.lock().unwrap();
    assert_eq!((found.len(), found[0].verdict.state), (1, State::Up));
    assert!(kept.text().starts_with("o a: 200 in "), "{}", kept.text());
}
