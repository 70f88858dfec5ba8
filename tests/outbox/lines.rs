//! Notifiers that hang, refuse, or are tried out.
use rusuban::{
    model::{Outcome, Trigger},
    store::RunFilter,
};
use serde_json::json;

use super::*;
use crate::support::disk::Disk;

#[tokio::test]
async fn a_notifier_that_hangs_delays_no_other_and_a_second_message_waits_for_it() {
    let (hung, feed) = (Fake::hangs(), Fake::takes_all());
    let clock = Clock::system();
    let post = Post::with(
        Store::in_memory(clock.clone()).unwrap(),
        clock,
        &[("a-hung", Arc::clone(&hung)), ("feed", Arc::clone(&feed))],
    );
    let rows = |check: &str| {
        let news = news(post.now(), 1, check, Event::Missed, 1);
        vec![plan::row(&news, "a-hung", post.now()), plan::row(&news, "feed", post.now())]
    };
    post.store.tell(rows("blog")).await.unwrap();
    let running = tokio::spawn(Arc::clone(&post.delivery).run(post.stop.clone()));
    until("the other is told", || feed.took().len() == 1).await;
    post.clock.sleep(Duration::from_millis(5)).await;
    let mut second = rows("wiki");
    second.iter_mut().for_each(|row| row.key.push_str(":2"));
    post.store.tell(second).await.unwrap();
    until("it is told again", || feed.took().len() == 2).await;
    assert_eq!(hung.tried(), 1, "one at a time");
    // It ends soon although one hangs, and nothing of that is lost.
    post.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
    assert_eq!(post.store.waiting(Some("a-hung"), 10).await.unwrap().len(), 2);
    assert!(post.store.waiting(Some("feed"), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_that_refuses_is_told_of_once_and_another_tells_in_its_place_until_it_is_mended() {
    let (mail, feed) = (Fake::refuses("wrong password"), Fake::takes_all());
    let clock = Clock::simulated(START.parse().unwrap());
    let store = Store::in_memory(clock.clone()).unwrap();
    let both = [("mail", Arc::clone(&mail)), ("feed", Arc::clone(&feed))];
    let post = Post::with(store.clone(), clock.clone(), &both);
    // This one goes to both: the one that takes another's place does not tell it twice.
    post.tell(&["feed", "mail"], &news(post.now(), 1, "blog", Event::Failed, 0)).await;
    post.tell(&["mail"], &news(post.now(), 2, "wiki", Event::Failed, 0)).await;
    post.minutes(3).await;
    let failed = |check: &str| (Event::Failed, check.to_owned());
    let broken = (Event::NotifierBroken, "notifier:mail".to_owned());
    assert_eq!(feed.heard(), [failed("blog"), broken.clone(), failed("wiki")]);
    assert!(
        feed.took.lock().unwrap().iter().flat_map(|message| &message.news).any(|news| news.what == "wrong password")
    );
    // After a restart it is not tried again and not told of again; what is for it goes on through the other.
    let post = Post::with(store.clone(), clock.clone(), &both);
    post.tell(&["mail"], &news(post.now(), 2, "wiki", Event::Recovered, 3)).await;
    post.minutes(30).await;
    assert_eq!(mail.tried(), 1);
    assert_eq!(feed.heard().len(), 4);
    // Mended by a person: what comes then is its own again, and what the other has told is not told twice.
    mail.does(|_| Ok(Receipt::default()));
    assert!(post.delivery.unblock("mail").await.unwrap());
    assert!(!post.delivery.unblock("mail").await.unwrap(), "nothing was against it");
    post.tell(&["mail"], &news(post.now(), 3, "shop", Event::Failed, 0)).await;
    post.minutes(2).await;
    assert_eq!(mail.heard(), [failed("shop")]);
    // Refused again, and its settings change.
    mail.does(|_| Err(Refusal::Never { why: "wrong password".to_owned() }));
    post.tell(&["mail"], &news(post.now(), 4, "blog", Event::Failed, 0)).await;
    post.minutes(5).await;
    assert_eq!(feed.heard().iter().filter(|told| **told == broken).count(), 2);
    mail.does(|_| Ok(Receipt::default()));
    let changed = [("mail", Arc::clone(&mail), "second"), ("feed", Arc::clone(&feed), "first")];
    post.delivery.set_up(setup(post.folder.path(), &post.clock, &changed));
    post.tell(&["mail"], &news(post.now(), 5, "wiki", Event::Failed, 0)).await;
    post.minutes(2).await;
    assert_eq!(mail.heard(), [failed("shop"), failed("wiki")]);
}

#[tokio::test]
async fn when_all_refuse_it_is_written_down_and_told_once_one_is_mended() {
    let (mail, feed) = (Fake::refuses("gone"), Fake::refuses("wrong token"));
    let post = Post::new(&[("mail", Arc::clone(&mail)), ("feed", Arc::clone(&feed))]);
    post.tell(&["mail"], &news(post.now(), 1, "blog", Event::Failed, 0)).await;
    post.minutes(5).await;
    let file = post.untold();
    assert!(
        file.contains("check:sites:blog failed") && file.contains("connection refused [for feed: wrong token]"),
        "{file}"
    );
    // The first that was tried is mended first: it tells its own, which the other was to tell for it.
    mail.does(|_| Ok(Receipt::default()));
    post.delivery.unblock("mail").await.unwrap();
    post.minutes(5).await;
    let heard = mail.heard();
    assert_eq!(heard.iter().filter(|(event, _)| *event == Event::Failed).count(), 1, "{heard:?}");
    assert!(heard.contains(&(Event::NotifierBroken, "notifier:feed".to_owned())), "{heard:?}");
    assert!(post.store.waiting(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_message_that_is_not_taken_is_told_through_another_and_the_line_goes_on() {
    let (x, feed) = (Fake::new(|_| Err(Refusal::NotThis { why: "too dear".to_owned() })), Fake::takes_all());
    let post = Post::new(&[("x", Arc::clone(&x)), ("feed", Arc::clone(&feed))]);
    post.tell(&["x"], &news(post.now(), 1, "blog", Event::Failed, 0)).await;
    post.minutes(2).await;
    assert_eq!(feed.heard(), [(Event::Failed, "blog".to_owned())]);
    x.does(|_| Ok(Receipt::default()));
    post.tell(&["x"], &news(post.now(), 2, "wiki", Event::Failed, 0)).await;
    post.minutes(2).await;
    assert_eq!(x.heard(), [(Event::Failed, "wiki".to_owned())]);
    assert_eq!(feed.heard().len(), 1);
}

#[tokio::test]
async fn an_end_answers_the_beginning_in_its_thread() {
    let feed = Fake::new(|message| {
        let reference = Some(json!({ "id": message.key }));
        Ok(Receipt { reference, cost: 15_000 })
    });
    let post = Post::new(&[("feed", Arc::clone(&feed))]);
    post.tell(&["feed"], &news(post.now(), 1, "blog", Event::Failed, 0)).await;
    post.minutes(2).await;
    post.tell(&["feed"], &news(post.now(), 1, "blog", Event::Recovered, 2)).await;
    post.minutes(2).await;
    let took = feed.took.lock().unwrap().clone();
    assert_eq!((took.len(), &took[0].thread), (2, &None));
    assert_eq!(took[1].thread, Some(json!({ "id": "incident:1:failed:feed" })));
    assert_eq!(post.store.costs(post.now() - TimeDelta::hours(1)).await.unwrap()["feed"], 30_000);
    // A trial goes past all that waits, and says what came.
    feed.does(|_| later("busy"));
    assert!(matches!(post.delivery.test("feed").await.unwrap(), Err(Refusal::Later { .. })));
    feed.does(|_| Ok(Receipt::default()));
    post.delivery.test("feed").await.unwrap().unwrap();
    assert_eq!(feed.heard().last().unwrap().0, Event::Test);
}

#[tokio::test]
async fn a_panic_in_a_notifier_is_an_answer() {
    let (bad, feed) = (Fake::new(|_| panic!("a bug")), Fake::takes_all());
    let post = Post::new(&[("bad", Arc::clone(&bad)), ("feed", Arc::clone(&feed))]);
    post.tell(&["bad", "feed"], &news(post.now(), 1, "blog", Event::Failed, 0)).await;
    post.minutes(2).await;
    assert_eq!(feed.heard().len(), 1);
    let line = post.store.lines_of_notifiers().await.unwrap().remove("bad").unwrap();
    assert!(line.error.unwrap().contains("our own mistake"));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_no_news_are_lost_and_none_come_twice() {
    let disk = Disk::new("8m");
    let clock = Clock::system();
    let store = Store::open(&disk.path().join("ledger.db"), clock.clone()).await.unwrap();
    let feed = Fake::takes_all();
    let post = Post::with(store.clone(), clock, &[("feed", Arc::clone(&feed))]);
    let row =
        |check: &str, incident| plan::row(&news(post.now(), incident, check, Event::Failed, 0), "feed", post.now());
    let photos = "photos".parse().unwrap();
    let run = store.queue_run(&photos, Trigger::Manual).await.unwrap();
    store.tell(vec![row("before", 1)]).await.unwrap();
    for number in 0..60_000 {
        if number % 20 == 0 {
            disk.fill();
        }
        store.set_fact(&photos, &number.to_string(), &"x".repeat(20_000).into()).await.unwrap();
        if store.trouble().is_some() {
            break;
        }
    }
    assert!(store.trouble().is_some(), "the disk is full");
    // What was there before is told though its end cannot be written, and not again and again.
    for _ in 0..5 {
        post.delivery.deliver_now(false, &post.stop).await.unwrap();
    }
    assert_eq!(feed.heard(), [(Event::Failed, "before".to_owned())]);
    // The end of a run and what is told of it wait together.
    let during = row("during", 2);
    store.run_finished_with_news(run.id, Outcome::Failed, "full", &[], move |_, _| vec![during.clone()]).await.unwrap();
    disk.empty();
    tokio::time::timeout(Duration::from_secs(15), async {
        while store.trouble().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    for _ in 0..3 {
        post.delivery.deliver_now(false, &post.stop).await.unwrap();
    }
    assert_eq!(feed.heard(), [(Event::Failed, "before".to_owned()), (Event::Failed, "during".to_owned())]);
    let runs = store.runs(RunFilter { job: None, before: None, limit: 10 }).await.unwrap();
    assert_eq!(runs[0].message, "full");
}
