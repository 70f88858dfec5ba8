//! What every notifier promises, kept by each of them against a strict server.
use std::time::{Duration, Instant};

use rusuban::notify::{Refusal, words::Language};

use super::{House, blog_is_down, blog_is_well, message};
use crate::support::{
    faults::{self, Fault},
    http::answer,
    services::{FAKES, push::WHSEC, secret},
};

#[tokio::test]
async fn a_message_arrives_and_says_what_happened() {
    for fake in FAKES {
        let house = House::of(fake.kind).await;
        let said = house.send(&message("k1", vec![blog_is_down()])).await;
        let book = house.service.book();
        assert!(said.is_ok() && book.complaints.is_empty(), "{}: {said:?} {:?}", fake.kind, book.complaints);
        let [post] = book.posts.as_slice() else { panic!("{}: {:?}", fake.kind, book.posts) };
        for words in ["blog is down", "since 02:14 (3 min)", "lacks \"Welcome\"", "the container blog-db was killed"] {
            assert!(post.text.contains(words), "{}: {}", fake.kind, post.text);
        }
        assert_eq!(said.unwrap().reference.is_some(), fake.has_threads, "{}", fake.kind);
    }
}

#[tokio::test]
async fn each_fault_is_told_apart_and_no_error_has_a_secret() {
    let kinds = FAKES.iter().map(|fake| async move {
        let house = House::of(fake.kind).await;
        for fault in faults::ALL {
            house.service.has(fault);
            let started = Instant::now();
            let said = house.send(&message("k1", vec![blog_is_down()])).await;
            assert!(started.elapsed() < Duration::from_secs(4), "{} {fault:?}: {:?}", fake.kind, started.elapsed());
            let taken = fake.takes_any_200
                && matches!(fault, Fault::ErrorInside | Fault::TenMegabytes | Fault::GzipBomb | Fault::GarbageInside);
            match (fault, &said) {
                (_, Ok(_)) if taken => {}
                (Fault::RedirectLoop | Fault::RedirectToMetadata, Err(Refusal::Never { .. })) => {}
                (Fault::TooFastForNow, Err(Refusal::Later { after: Some(after), .. })) => {
                    assert_eq!(*after, Duration::from_secs(2), "{}", fake.kind);
                }
                (Fault::TooFast, Err(Refusal::Later { after: None, .. })) => {}
                (Fault::RedirectLoop | Fault::RedirectToMetadata | Fault::TooFastForNow | Fault::TooFast, other) => {
                    panic!("{} {fault:?}: {other:?}", fake.kind)
                }
                (_, Err(Refusal::Later { .. })) if !taken => {}
                (_, other) => panic!("{} {fault:?}: {other:?}", fake.kind),
            }
            if let Err(refusal) = said {
                holds_no_secret(fake.kind, &refusal.to_string());
            }
        }
        // And then all is well again.
        house.send(&message("k2", vec![blog_is_down()])).await.unwrap();
    });
    futures_util::future::join_all(kinds).await;
}

#[tokio::test]
async fn a_server_that_repeats_all_it_was_told_betrays_nothing() {
    for fake in FAKES {
        let house = House::of(fake.kind).await;
        for status in ["400 Bad Request", "401 Unauthorized", "500 Internal Server Error", "403 Forbidden", "200 OK"] {
            house.service.says(Some(Box::new(move |seen| {
                let told = format!("{} {:?} {}", seen.line, seen.headers, String::from_utf8_lossy(&seen.body));
                answer(status, "content-type: text/plain\r\n", told)
            })));
            let said = house.send(&message("k1", vec![blog_is_down()])).await;
            match said {
                Ok(_) => assert!(fake.takes_any_200 && status == "200 OK", "{} {status}", fake.kind),
                Err(refusal) => {
                    let why = refusal.to_string();
                    assert!(why.len() < 600, "{}: {why}", fake.kind);
                    holds_no_secret(fake.kind, &why);
                    let is_right = match status {
                        "400 Bad Request" => matches!(refusal, Refusal::NotThis { .. }),
                        "401 Unauthorized" | "403 Forbidden" => matches!(refusal, Refusal::Never { .. }),
                        _ => matches!(refusal, Refusal::Later { .. }),
                    };
                    // Slack, Telegram and Bluesky read more in their own words.
                    assert!(is_right, "{} {status}: {refusal:?}", fake.kind);
                }
            }
        }
    }
}

#[tokio::test]
async fn the_longest_and_vilest_text_is_cut_and_made_harmless() {
    let mut news = blog_is_down();
    news.what = format!("@everyone <!channel> </b>\u{202e}*bold* [a](https://evil.example) {}", "é日 ".repeat(4000));
    news.lines = (0..500).map(|line| format!("line {line} <b>&amp; \u{7} {}", "🎉".repeat(40))).collect();
    for fake in FAKES {
        for language in [Language::En, Language::Ja] {
            let house = House::of(fake.kind).await;
            let mut message = message("k1", vec![news.clone()]);
            message.language = language;
            let said = house.send(&message).await;
            let book = house.service.book();
            assert!(said.is_ok() && book.complaints.is_empty(), "{}: {said:?} {:?}", fake.kind, book.complaints);
            let text = &book.posts[0].text;
            assert!(text.contains("blog") && text.contains('…'), "{}: {text}", fake.kind);
            assert!(!text.contains(['\u{202e}', '\u{7}', '\r']), "{}: {text}", fake.kind);
            if ["x", "mastodon", "misskey", "telegram"].contains(&fake.kind) {
                assert!(!text.contains("@everyone") && text.contains("@\u{200b}everyone"), "{}: {text}", fake.kind);
            }
        }
    }
}

#[tokio::test]
async fn several_things_are_one_message() {
    let news: Vec<_> = ["blog", "wiki", "shop", "cloud"]
        .into_iter()
        .map(|check| {
            let mut news = blog_is_down();
            news.about = rusuban::model::news::About::Check { job: "sites".parse().unwrap(), check: check.into() };
            news.causes.clear();
            news
        })
        .collect();
    for fake in FAKES {
        let house = House::of(fake.kind).await;
        let said = house.send(&message("k1", news.clone())).await;
        let book = house.service.book();
        assert!(said.is_ok() && book.complaints.is_empty(), "{}: {said:?} {:?}", fake.kind, book.complaints);
        assert!(book.posts[0].text.contains("blog, wiki and 2 more are down"), "{}: {:?}", fake.kind, book.posts);
    }
}

#[tokio::test]
async fn a_second_try_is_the_same_post_where_the_service_can_know() {
    for fake in FAKES.iter().filter(|fake| fake.knows_keys) {
        let house = House::of(fake.kind).await;
        let message = message("incident-7:failed:feed", vec![blog_is_down()]);
        house.send(&message).await.unwrap();
        house.send(&message).await.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", fake.kind));
        assert_eq!(house.service.book().posts.len(), 1, "{}", fake.kind);
        // Another message of the same words is another post.
        let mut other = message.clone();
        other.key = "incident-8:failed:feed".into();
        house.send(&other).await.unwrap();
        assert_eq!(house.service.book().posts.len(), 2, "{}", fake.kind);
    }
}

#[tokio::test]
async fn the_end_of_an_incident_answers_its_beginning() {
    for fake in FAKES.iter().filter(|fake| fake.has_threads) {
        let house = House::of(fake.kind).await;
        let first = house.send(&message("k1", vec![blog_is_down()])).await.unwrap();
        let mut second = message("k2", vec![blog_is_well()]);
        second.thread = first.reference.clone();
        let receipt = house.send(&second).await.unwrap();
        assert_eq!(receipt.reference, first.reference, "{}: the first stays the one that is answered", fake.kind);
        let book = house.service.book();
        assert!(book.complaints.is_empty(), "{}: {:?}", fake.kind, book.complaints);
        let [one, other] = book.posts.as_slice() else { panic!("{}: {:?}", fake.kind, book.posts) };
        assert_eq!(other.answers.as_deref(), Some(one.id.as_str()), "{}", fake.kind);
        assert!(other.text.contains("blog is well again"), "{}: {}", fake.kind, other.text);
    }
}

/// None of what a settings file would hide.
fn holds_no_secret(kind: &str, why: &str) {
    for name in ["TOKEN", "CONSUMER", "CONSUMER_SECRET", "ACCESS", "ACCESS_SECRET", "PASSWORD", "TOPIC", "HOOK", "KEY"]
    {
        assert!(!why.contains(&secret(name)), "{kind}: {why}");
    }
    for part in [WHSEC, "access-token-", "refresh-token-"] {
        assert!(!why.contains(part), "{kind}: {why}");
    }
    assert!(!why.chars().any(char::is_control), "{kind}: {why:?}");
}
