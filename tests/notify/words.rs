//! What people read: every event, about everything, in both languages.
use std::fmt::Write as _;

use chrono::TimeDelta;
use rusuban::{
    model::news::{About, Event, News, Severity},
    notify::{
        Delay, Message,
        words::{self, Language, Mood},
    },
};

use super::{at, blog_is_down, blog_is_well, message};

const EVENTS: [Event; 12] = [
    Event::Failed,
    Event::StillFailing,
    Event::Recovered,
    Event::Late,
    Event::Missed,
    Event::FirstSuccess,
    Event::TooSmall,
    Event::TargetMissed,
    Event::Changed,
    Event::Report,
    Event::Test,
    Event::NotifierBroken,
];

fn told(message: &Message) -> String {
    let told = words::write(message);
    let mut text = told.line.clone();
    for line in &told.details {
        write!(text, "\n  {line}").unwrap();
    }
    text
}

fn of(about: &About, event: Event) -> News {
    let severity = match event {
        Event::Recovered | Event::FirstSuccess | Event::Changed | Event::Report | Event::Test => Severity::Info,
        Event::Failed | Event::StillFailing => Severity::Critical,
        _ => Severity::Warning,
    };
    News {
        about: about.clone(),
        event,
        severity,
        causes: Vec::new(),
        offers: Vec::new(),
        what: "why".into(),
        ..blog_is_down()
    }
}

/// All lines there are, to be read at once.
#[test]
fn every_event_about_everything_is_a_sentence() {
    let abouts = [
        About::Check { job: "sites".parse().unwrap(), check: "blog".into() },
        About::Job { job: "nightly-photos".parse().unwrap(), run: None },
        About::Notifier { name: "feed".into() },
        About::House,
    ];
    let mut page = String::new();
    for language in [Language::En, Language::Ja] {
        for about in &abouts {
            for event in EVENTS {
                let mut message = message("k1", vec![of(about, event)]);
                message.language = language;
                writeln!(page, "{}", words::write(&message).line).unwrap();
            }
        }
    }
    insta::assert_snapshot!("every_event", page);
    let lines: Vec<&str> = page.lines().collect();
    assert_eq!(lines.len(), 96);
    assert!(lines.iter().all(|line| !line.contains("  ") && line.contains("why")));
}

#[test]
fn an_alert_says_what_since_when_why_and_what_to_do() {
    let mut message = message("k1", vec![blog_is_down()]);
    assert_eq!(
        told(&message),
        "blog is down since 02:14 (3 min): the page lacks \"Welcome\"\n  \
         likely the container blog-db was killed for lack of memory\n  \
         go back to Tuesday's snapshot: `rusuban rollback blog Tue`\n  \
         • it ended at 02:14:05 with status 137, limit 256 MiB"
    );
    message.language = Language::Ja;
    assert_eq!(
        told(&message),
        "blog が停止しています（02:14 から3分）: the page lacks \"Welcome\"\n  \
         おそらく: the container blog-db was killed for lack of memory\n  \
         `rusuban rollback blog Tue` (go back to Tuesday's snapshot)\n  \
         • it ended at 02:14:05 with status 137, limit 256 MiB"
    );
    let words = words::write(&message);
    assert_eq!((words.mood, words.foot.as_str()), (Mood::Bad, "attic の Rusuban より。時刻は Asia/Tokyo"));
}

#[test]
fn what_is_told_late_has_its_own_times_and_says_why() {
    let mut message = message("k1", vec![blog_is_down(), blog_is_well()]);
    message.now = at("2026-11-27T09:00:00+09:00");
    message.delay = Some(Delay::Line);
    let line = |message: &Message| words::write(message).line;
    assert_eq!(
        line(&message),
        "blog was down 02:14–02:29 (15 min); told late, because it could not be sent before: the page lacks \"Welcome\""
    );
    assert_eq!(words::write(&message).title, "blog was down");
    assert_eq!(words::write(&message).mood, Mood::Good);
    message.language = Language::Ja;
    assert_eq!(
        line(&message),
        "blog が停止していました（02:14–02:29、15分間; 送信できなかったため遅れて通知）: the page lacks \"Welcome\""
    );
    message.language = Language::En;
    message.delay = Some(Delay::Quiet);
    message.news.truncate(1);
    assert_eq!(
        line(&message),
        "blog is down since 02:14 (6 h 46 min); told after the quiet hours: the page lacks \"Welcome\""
    );
    // Of a day that is not today; and of a time that nobody thinks of as last week.
    message.delay = None;
    message.now += TimeDelta::days(1);
    assert_eq!(line(&message), "blog is down since Fri 02:14 (1 day 6 h); told late: the page lacks \"Welcome\"");
    message.now += TimeDelta::days(30);
    assert!(line(&message).starts_with("blog is down since 2026-11-27 02:14 (31 days 6 h)"), "{}", line(&message));
}

#[test]
fn several_things_are_a_list_under_one_heading() {
    let mut wiki = of(&About::Check { job: "sites".parse().unwrap(), check: "wiki".into() }, Event::Failed);
    wiki.incident = None;
    let job = of(&About::Job { job: "photos".parse().unwrap(), run: None }, Event::FirstSuccess);
    let two = message("k1", vec![blog_is_down(), wiki.clone()]);
    assert!(told(&two).starts_with(
        "blog and wiki are down\n  \
         • blog is down since 02:14 (3 min): the page lacks \"Welcome\"; likely the container blog-db was killed for lack of memory\n  \
         • wiki is down since 02:14 (3 min): why\n  \
         go back to Tuesday's snapshot"
    ), "{}", told(&two));
    let mut mixed = message("k1", vec![blog_is_down(), wiki, job]);
    assert_eq!(words::write(&mixed).title, "2 troubles and 1 other news from attic");
    mixed.language = Language::Ja;
    assert_eq!(words::write(&mixed).title, "attic で2件の異常、ほか1件のお知らせ");
}

#[test]
fn a_template_has_the_last_word() {
    let mut message = message("k1", vec![blog_is_down()]);
    let template: words::Template = "{severity}: {name} on {host} {when}\n{cause}\n{command}".parse().unwrap();
    message.template = Some(std::sync::Arc::new(template));
    assert_eq!(
        told(&message),
        "critical: blog on attic since 02:14 (3 min)\nlikely the container blog-db was killed for lack of memory\nrusuban rollback blog Tue"
    );
    assert_eq!(words::write(&message).title, "blog is down");
}

#[test]
fn a_text_is_cut_between_what_people_see_as_letters() {
    let mut news = blog_is_down();
    news.what = "👨‍👩‍👧 café 日本 ".repeat(30);
    news.causes.clear();
    let message = message("k1", vec![news]);
    let told = words::write(&message);
    for most in 20..200 {
        let text = told.whole().fit(|text| text.len() <= most);
        assert!(text.len() <= most && (text.ends_with('…') || text.is_empty()), "{most}: {text}");
        let kept = text.trim_end_matches('…');
        assert!(told.line.starts_with(kept), "{text}");
        let rest = &told.line[kept.len()..];
        assert!(!rest.starts_with(['\u{200d}', '\u{301}', '\u{fe0f}']), "{most}: {text}");
    }
}
