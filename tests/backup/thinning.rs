//! What goes after a backup, when the bucket or the clock has a bad day.
use super::*;
use crate::support::faulty::{Fault, Faulty};

const LAST_TWO: &str = "keep = { last = 2 }\n[[source]]\npath = 'ROOT/source'";
const ALL: &str = "[[source]]\npath = 'ROOT/source'";

/// What happens at operation number `k`.
#[derive(Clone, Copy, Debug)]
enum Day {
    Fails,
    AnswerLost,
    /// From it on nothing is done: the process was killed.
    Dead,
}

impl Day {
    fn fault(self, k: usize, operation: usize) -> Option<Fault> {
        match self {
            Self::Fails => (operation == k).then_some(Fault::Before),
            Self::AnswerLost => (operation == k).then_some(Fault::After),
            Self::Dead => (operation >= k).then_some(Fault::Refused),
        }
    }
}

async fn four_generations() -> House {
    let house = House::new();
    fs::write(house.path("source/file"), "text").unwrap();
    for _ in 0..4 {
        house.run(ALL).await.unwrap();
        house.cx.clock.step(TimeDelta::days(1));
    }
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_operation_fails_no_manifest_loses_its_data_and_the_newest_stays() {
    for day in [Day::Fails, Day::AnswerLost, Day::Dead] {
        let mut operations = 0;
        for k in 0.. {
            let mut house = four_generations().await;
            let newest = house.backups().await.pop().unwrap().id;
            let bad = Faulty::new(Arc::clone(&house.bucket), move |operation| day.fault(k, operation));
            house.set_bucket(Arc::new(bad.clone()));
            let keys = LAST_TWO.replace("ROOT", house.root.path().to_str().unwrap());
            let done = read("backup", &keys).run(&house.cx).await;
            let what = format!("{day:?} at operation {k}: {done:?}");

            let listing = plain::list(&house.bucket, &job()).await.unwrap();
            assert_eq!(listing.damaged, Vec::<String>::new(), "{what}");
            assert!(listing.backups.len() >= 2, "{what}");
            assert!(listing.backups.iter().any(|backup| backup.id == newest), "the newest is gone: {what}");
            for backup in &listing.backups {
                let whole = plain::verify(&house.bucket, backup, &Reading::default()).await;
                assert!(whole.is_ok(), "{what}: {} {whole:?}", backup.id);
            }
            if done.is_ok() {
                assert!(listing.backups.last().unwrap().id > newest, "{what}");
            }
            // The next one, days later, ends what was begun.
            let honest = Arc::clone(&house.bucket);
            house.set_bucket(honest);
            house.kept.debts.lock().unwrap().clear();
            house.cx.clock.step(TimeDelta::days(3));
            house.run(LAST_TWO).await.unwrap();
            assert_eq!(house.backups().await.len(), 2, "{what}");
            assert_eq!(house.bucket.folders("job/").await.unwrap().len(), 2, "leftovers: {what}");
            operations = bad.operations();
            if operations <= k {
                break;
            }
        }
        assert!(operations > 12, "only {operations} operations");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_400_days_ahead_or_back_removes_nothing() {
    for (days, why) in [(401, "comes more than 400 days after the one before it"), (-401, "is from the future")] {
        for keep in ["daily = 1", "last = 1", "weekly = 1, monthly = 2"] {
            let house = four_generations().await;
            house.cx.clock.step(TimeDelta::days(days));
            let said = house.run(&format!("keep = {{ {keep} }}\n{ALL}")).await.unwrap();
            assert!(said.contains("5 kept, none removed"), "{said}");
            assert!(house.kept.text().contains(why), "{}", house.kept.text());
            assert_eq!(house.backups().await.len(), 5);
        }
    }
}
