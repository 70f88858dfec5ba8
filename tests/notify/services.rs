//! What is particular to one service.
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use rusuban::notify::{Refusal, words::Language};
use serde_json::{Value, json};

use super::{House, blog_is_down, blog_is_well, message};
use crate::support::{
    faults::Fault,
    http::answer,
    services::{fake, push::WHSEC, secret},
};

fn says(house: &House, status: &'static str, headers: impl Into<String>, body: Value) {
    let headers = format!("content-type: application/json\r\n{}", headers.into());
    house.service.says(Some(Box::new(move |_| answer(status, &headers, body.to_string()))));
}

#[tokio::test]
async fn x_costs_what_its_meter_says_and_no_more_than_its_cap() {
    let keys = format!("{}\ncap = '$0.05'", fake("x").keys);
    let house = House::with("x", &keys).await;
    let mut costs = Vec::new();
    for number in 0..5 {
        costs.push(house.send(&message(&format!("k{number}"), vec![blog_is_down()])).await.map(|receipt| receipt.cost));
    }
    assert_eq!(costs[..3], [Ok(15_000), Ok(15_000), Ok(15_000)]);
    let Err(Refusal::NotThis { why }) = &costs[3] else { panic!("{:?}", costs[3]) };
    assert!(why.contains("$0.045 of $0.05 are spent this month"), "{why}");
    assert_eq!(house.service.book().posts.len(), 3);
    // Another month, another purse.
    let mut next = message("k9", vec![blog_is_down()]);
    next.now += TimeDelta::days(31);
    house.send(&next).await.unwrap();
    // What was refused costs nothing.
    house.service.has(Fault::Broken);
    house.send(&message("k10", vec![blog_is_down()])).await.unwrap_err();
    assert_eq!(house.cx.state("spent").await.unwrap()["millionths"], 0);
    // What may have been posted is counted.
    house.service.has(Fault::HangUp);
    house.send(&message("k11", vec![blog_is_down()])).await.unwrap_err();
    assert_eq!(house.cx.state("spent").await.unwrap()["millionths"], 15_000);
}

#[tokio::test]
async fn x_is_paid_for_links_only_when_asked() {
    let mut news = blog_is_down();
    news.what = "https://blog.example.org/feed answered 502; see status.example.com".into();
    let house = House::of("x").await;
    assert_eq!(house.send(&message("k1", vec![news.clone()])).await.unwrap().cost, 15_000);
    assert!(house.service.book().posts[0].text.contains("blog[.]example[.]org/feed answered 502"));
    assert!(!house.service.book().keys.keys().any(|key| key.starts_with("dear")));
    let house = House::with("x", &format!("{}\nlinks = true", fake("x").keys)).await;
    assert_eq!(house.send(&message("k1", vec![news])).await.unwrap().cost, 200_000);
    assert!(house.service.book().keys.keys().any(|key| key.starts_with("dear")));
}

#[tokio::test]
async fn x_says_what_a_person_must_do() {
    let house = House::of("x").await;
    for (status, detail, expected) in [
        ("402 Payment Required", "Your enrolled account does not have any credits", "buy more"),
        ("401 Unauthorized", "Unauthorized", "clock"),
        (
            "403 Forbidden",
            "Your client app is not configured with the appropriate oauth1 app permissions",
            "right to write",
        ),
    ] {
        says(&house, status, "", json!({ "title": "x", "detail": detail }));
        let Err(Refusal::Never { why }) = house.send(&message("k1", vec![blog_is_down()])).await else {
            panic!("{status}")
        };
        assert!(why.contains(detail) && why.contains(expected), "{why}");
    }
    #[expect(clippy::disallowed_methods, reason = "the server has a clock of its own")]
    let reset = Utc::now().timestamp() + 600;
    for headers in [
        format!("x-rate-limit-limit: 100\r\nx-rate-limit-remaining: 0\r\nx-rate-limit-reset: {reset}\r\n"),
        format!(
            "x-rate-limit-remaining: 5\r\nx-rate-limit-reset: 1\r\nx-user-limit-24hour-remaining: 0\r\nx-user-limit-24hour-reset: {reset}\r\n"
        ),
    ] {
        says(&house, "429 Too Many Requests", headers, json!({ "title": "Too Many Requests" }));
        let said = house.send(&message("k1", vec![blog_is_down()])).await;
        let Err(Refusal::Later { after: Some(after), .. }) = said else { panic!("{said:?}") };
        assert!((590..=600).contains(&after.as_secs()), "{after:?}");
    }
}

#[tokio::test]
async fn a_post_that_was_deleted_is_not_answered_and_the_news_are_told_all_the_same() {
    for (kind, thread) in [("x", "post"), ("mastodon", "post"), ("misskey", "note")] {
        let house = House::of(kind).await;
        let mut message = message("k1", vec![blog_is_well()]);
        message.thread = Some(json!({ thread: "99" }));
        house.send(&message).await.unwrap_or_else(|refusal| panic!("{kind}: {refusal:?}"));
        assert_eq!(house.service.book().posts[0].answers, None, "{kind}");
    }
}

#[tokio::test]
async fn servers_are_asked_for_their_limits_once_a_day() {
    for kind in ["mastodon", "misskey"] {
        let house = House::of(kind).await;
        for number in 0..3 {
            house.send(&message(&format!("k{number}"), vec![blog_is_down()])).await.unwrap();
        }
        assert_eq!(house.service.book().asked, 1, "{kind}");
    }
}

#[tokio::test]
async fn each_service_has_its_own_way_to_say_when_it_is_too_fast() {
    #[expect(clippy::disallowed_methods, reason = "the server has a clock of its own")]
    let soon = Utc::now() + TimeDelta::seconds(300);
    let date = soon.format("%a, %d %b %Y %H:%M:%S GMT");
    let iso = soon.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let unix = soon.timestamp();
    let none = || json!({ "error": "Too many requests" });
    let mut news = message("k1", vec![blog_is_down()]);
    news.now = soon - TimeDelta::seconds(300);
    for (kind, headers, body) in [
        ("mastodon", format!("x-ratelimit-remaining: 0\r\nx-ratelimit-reset: {iso}\r\n"), none()),
        ("bluesky", format!("ratelimit-remaining: 0\r\nratelimit-reset: {unix}\r\n"), none()),
        (
            "misskey",
            String::new(),
            json!({ "error": { "code": "RATE_LIMIT_EXCEEDED", "info": { "resetMs": soon.timestamp_millis() } } }),
        ),
        (
            "discord",
            String::new(),
            json!({ "message": "You are being rate limited.", "retry_after": 300.5, "global": false }),
        ),
        (
            "telegram",
            String::new(),
            json!({ "ok": false, "error_code": 429, "description": "Too Many Requests", "parameters": { "retry_after": 300 } }),
        ),
        (
            "matrix",
            String::new(),
            json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "Too many", "retry_after_ms": 300_000 }),
        ),
        ("slack", "retry-after: 300\r\n".to_owned(), none()),
        ("ntfy", format!("retry-after: {date}\r\n"), none()),
        ("gotify", "retry-after: 299.2\r\n".to_owned(), none()),
    ] {
        let house = House::of(kind).await;
        says(&house, "429 Too Many Requests", headers, body);
        let said = house.send(&news).await;
        let Err(Refusal::Later { after: Some(after), .. }) = said else { panic!("{kind}: {said:?}") };
        assert!((290..=301).contains(&after.as_secs()), "{kind}: {after:?}");
    }
}

#[tokio::test]
async fn nobody_is_kept_waiting_for_ever_by_a_servers_word() {
    for header in [
        "retry-after: 99999999999999\r\n",
        "retry-after: -5\r\n",
        "retry-after: NaN\r\n",
        "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
    ] {
        let house = House::of("slack").await;
        says(&house, "503 Service Unavailable", header, json!({}));
        let Err(Refusal::Later { after, .. }) = house.send(&message("k1", vec![blog_is_down()])).await else {
            panic!("{header}")
        };
        assert!(after.is_none_or(|after| after <= Duration::from_secs(24 * 3600)), "{header}: {after:?}");
    }
}

#[tokio::test]
async fn bluesky_opens_one_session_and_refreshes_it() {
    let house = House::of("bluesky").await;
    let counts = || {
        let book = house.service.book();
        (book.asked, book.posts.len())
    };
    for number in 0..3 {
        house.send(&message(&format!("k{number}"), vec![blog_is_down()])).await.unwrap();
        house.service.book().keys.insert("expired".into(), String::new());
    }
    assert_eq!(counts(), (1, 3));
    // A refresh that is refused as well leads to a new session.
    house.service.book().keys.insert("session".into(), "70".into());
    house.send(&message("k9", vec![blog_is_down()])).await.unwrap();
    assert_eq!(counts(), (2, 4));
}

#[tokio::test]
async fn wrong_passwords_are_told_as_such() {
    for (kind, keys) in [
        ("bluesky", "url = 'SERVER'\nuser = 'attic.bsky.social'\npassword = { env = 'OTHER' }"),
        ("mastodon", "url = 'SERVER'\ntoken = { env = 'OTHER' }"),
        ("misskey", "url = 'SERVER'\ntoken = { env = 'OTHER' }"),
        ("telegram", "url = 'SERVER'\ntoken = { env = 'OTHER' }\nchat = '-1001234567890'"),
        ("telegram", "url = 'SERVER'\ntoken = { env = 'TOKEN' }\nchat = '@elsewhere'"),
        ("matrix", "url = 'SERVER'\ntoken = { env = 'OTHER' }\nroom = '!abc:example.org'"),
        ("matrix", "url = 'SERVER'\ntoken = { env = 'TOKEN' }\nroom = '!other:example.org'"),
        ("ntfy", "url = 'SERVER'\ntopic = { env = 'TOPIC' }\ntoken = { env = 'OTHER' }"),
        ("gotify", "url = 'SERVER/behind/a/proxy'\ntoken = { env = 'OTHER' }"),
        ("apprise", "url = 'SERVER'\nkey = { env = 'OTHER' }"),
        ("slack", "url = 'SERVER/services/other'"),
        ("discord", "url = 'SERVER/webhooks/other'"),
        ("teams", "url = 'SERVER/workflows/other'"),
        ("healthchecks", "url = 'SERVER/other'"),
    ] {
        let house = House::with(kind, keys).await;
        let said = house.send(&message("k1", vec![blog_is_down()])).await;
        let Err(Refusal::Never { why }) = said else { panic!("{kind}: {said:?}") };
        assert!(!why.contains(&secret("OTHER")), "{why}");
    }
}

#[tokio::test]
async fn a_check_outside_hears_failure_success_and_what_is_neither() {
    let house = House::of("healthchecks").await;
    let mut report = blog_is_down();
    report.event = rusuban::model::news::Event::Report;
    for news in [blog_is_down(), blog_is_well(), report] {
        house.send(&message("k1", vec![news])).await.unwrap();
    }
    let said: Vec<String> =
        house.service.book().posts.iter().map(|post| post.text.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(said, ["/fail", "", "/log"]);
}

#[tokio::test]
async fn webhooks_are_signed_by_the_old_secret_too_and_end_when_they_are_gone() {
    // The receiver still has the old one.
    let keys = "url = 'SERVER/hook'\nsecret = { env = 'NEW_SECRET' }\nold_secret = { env = 'WHSEC' }\nheaders = { x-own = { env = 'TOKEN' } }";
    let house = House::with("webhook", keys).await;
    house.send(&message("k1", vec![blog_is_down()])).await.unwrap_err();
    let seen = house.service.server.seen().pop().unwrap();
    assert_eq!(seen.header("webhook-signature").unwrap().split(' ').count(), 2);
    // Only GitHub's signature, of which there can be but one, was the new secret's.
    assert_eq!(house.service.book().complaints, ["GitHub's signature is wrong"]);
    assert!(!String::from_utf8_lossy(&seen.body).contains(WHSEC));
    let house = House::of("webhook").await;
    says(&house, "410 Gone", "", json!({}));
    let said = house.send(&message("k1", vec![blog_is_down()])).await;
    assert!(matches!(said, Err(Refusal::Never { .. })), "{said:?}");
}

#[tokio::test]
async fn a_webhook_has_the_facts_and_the_words() {
    let house = House::of("webhook").await;
    let mut message = message("k1", vec![blog_is_down()]);
    message.language = Language::Ja;
    house.send(&message).await.unwrap();
    let body: Value = serde_json::from_slice(&house.service.server.seen()[0].body).unwrap();
    assert_eq!(body["type"], "check.failed");
    assert_eq!(body["timestamp"], "2026-11-26T17:15:00Z");
    assert_eq!(body["data"]["title"], "blog が停止しています");
    assert_eq!(body["data"]["news"][0]["about"]["check"]["check"], "blog");
    assert_eq!(body["data"]["news"][0]["offers"][0]["command"], "rusuban rollback blog Tue");
    let keys = "url = 'SERVER/hook'\nbody = 'slack'";
    let house = House::with("webhook", keys).await;
    says(&house, "200 OK", "", json!({}));
    house.send(&message).await.unwrap();
    let body: Value = serde_json::from_slice(&house.service.server.seen()[0].body).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1);
    assert!(body["text"].as_str().unwrap().starts_with("blog が停止しています"));
}

#[tokio::test]
async fn a_direct_post_calls_its_reader_by_name() {
    let keys = format!("{}\nvisibility = 'direct'\nmention = '@me@mastodon.example'", fake("mastodon").keys);
    let house = House::with("mastodon", &keys).await;
    house.send(&message("k1", vec![blog_is_down()])).await.unwrap();
    assert!(house.service.book().posts[0].text.starts_with("@me@mastodon.example blog is down"));
}

#[tokio::test]
async fn telegram_says_where_a_group_went() {
    let house = House::of("telegram").await;
    let moved = json!({ "ok": false, "error_code": 400, "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": { "migrate_to_chat_id": -1009876543210i64 } });
    says(&house, "400 Bad Request", "", moved);
    let Err(Refusal::Never { why }) = house.send(&message("k1", vec![blog_is_down()])).await else { panic!() };
    assert!(why.ends_with("set `chat = \"-1009876543210\"`"), "{why}");
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_named_by_its_key() {
    let mut house = House::of("gotify").await;
    house.cx.secrets = rusuban::config::secret::SecretReader(std::sync::Arc::new(|_| {
        anyhow::bail!("read a secret: the variable TOKEN is not set")
    }));
    let Err(Refusal::Never { why }) = house.send(&message("k1", vec![blog_is_down()])).await else { panic!() };
    assert_eq!(why, "read `token`: read a secret: the variable TOKEN is not set");
}

#[tokio::test]
async fn a_dead_server_and_an_end_of_rusuban_are_no_refusals() {
    let house = House::of("gotify").await;
    let notifier = super::notifier("gotify", "url = 'http://127.0.0.1:9'\ntoken = { env = 'TOKEN' }");
    let said = notifier.send(&house.cx, &message("k1", vec![blog_is_down()])).await;
    let Err(Refusal::Later { why, .. }) = said else { panic!("{said:?}") };
    assert!(why.contains("refused") && !why.contains("all the same"), "{why}");
    house.service.has(Fault::Hang);
    house.cx.cancelled.cancel();
    let said = house.send(&message("k1", vec![blog_is_down()])).await;
    assert!(matches!(said, Err(Refusal::Later { .. })), "{said:?}");
}
