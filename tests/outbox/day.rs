//! A day of a broken line.
use rusuban::notify::{Delay, words};

use super::*;

#[tokio::test]
async fn after_a_day_of_a_broken_line_all_is_told_once_in_order_with_its_own_times() {
    let feed = Fake::new(|_| later("connect: no route to host"));
    let post = Post::new(&[("feed", Arc::clone(&feed))]);
    let tell = async |incident, check, event, ago| {
        post.tell(&["feed"], &news(post.now(), incident, check, event, ago)).await;
    };
    post.minutes(10).await;
    tell(1, "blog", Event::Failed, 0).await;
    post.minutes(15).await;
    tell(1, "blog", Event::Recovered, 15).await;
    post.minutes(155).await;
    tell(2, "wiki", Event::Failed, 0).await;
    for hours in 1..=3 {
        post.minutes(360).await;
        tell(2, "wiki", Event::StillFailing, hours * 360).await;
    }
    tell(3, "shop", Event::Failed, 0).await;
    // Put again by whoever does not know that it was: not a second one.
    tell(3, "shop", Event::Failed, 0).await;
    post.minutes(180).await;
    assert!(feed.took().is_empty());
    assert!(feed.tried() < 200, "it is tried every ten minutes or so: {}", feed.tried());
    // What nobody could be told for six hours is in the file, once.
    let file = post.untold();
    assert_eq!(
        file.lines().filter(|line| line.contains("check:sites:blog failed since 2026-11-27T02:10")).count(),
        1,
        "{file}"
    );
    assert_eq!(file.lines().count(), 5, "the newest three hours are not there yet: {file}");

    feed.does(|_| Ok(Receipt::default()));
    post.minutes(15).await;
    let expected = [
        (Event::Failed, "blog".to_owned()),
        (Event::Recovered, "blog".to_owned()),
        (Event::Failed, "wiki".to_owned()),
        (Event::StillFailing, "wiki".to_owned()),
        (Event::Failed, "shop".to_owned()),
    ];
    assert_eq!(feed.took(), [expected]);
    let message = feed.took.lock().unwrap()[0].clone();
    assert_eq!(message.delay, Some(Delay::Line));
    let said = words::write(&message).whole().fit(|_| true);
    for words in ["blog", "02:10–02:25", "wiki", "05:00", "shop"] {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
    assert_eq!(said.matches("connection refused").count(), 3, "{said}");
    post.minutes(600).await;
    assert_eq!(feed.took().len(), 1, "and no word twice");
    assert!(post.store.waiting(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_could_not_be_told_for_two_weeks_is_given_up_and_that_is_told() {
    let feed = Fake::new(|_| later("connect: no route to host"));
    let mail = Fake::takes_all();
    let post = Post::new(&[("feed", Arc::clone(&feed)), ("mail", Arc::clone(&mail))]);
    post.tell(&["feed"], &news(post.now(), 1, "blog", Event::Failed, 0)).await;
    post.minutes(2).await;
    post.clock.step(TimeDelta::days(15));
    post.minutes(3).await;
    assert_eq!(mail.heard(), [(Event::NotifierBroken, "notifier:feed".to_owned())]);
    let told = mail.took.lock().unwrap()[0].news[0].what.clone();
    assert!(
        told.contains("1 message for it could not be told for 2w: given up") && told.contains("untold.log"),
        "{told}"
    );
    assert!(post.untold().contains("check:sites:blog failed"), "{}", post.untold());
    feed.does(|_| Ok(Receipt::default()));
    post.minutes(20).await;
    assert!(feed.took().is_empty());
}
