//! The history of checks: exact where it says so, small for a year.
use proptest::prelude::*;
use rusuban::{
    store::Found,
    watch::{Known, Look, advance, code},
};

use super::*;

/// One look through the machine, as the runner does it.
fn step(known: &mut Option<Known>, one: &Checked, numbers: &Store) -> Found {
    let step = advance(known.as_ref(), one, false, &mut || numbers.new_incident());
    *known = Some(step.known.clone());
    Found {
        check: one.check.clone(),
        look: Look {
            at: one.at,
            state: one.verdict.state,
            took: one.verdict.took,
            trouble: code(one.verdict.trouble.as_ref()),
        },
        known: step.is_news.then_some(step.known),
        marks: step.marks,
        incident: None,
        ended: None,
        outgoing: Vec::new(),
    }
}

/// How it was second by second, the slow way: written anew from all looks, without marks.
fn second_by_second(looks: &[(i64, State)], failures: usize, successes: usize, end: i64) -> Vec<State> {
    let mut seconds = vec![None; usize::try_from(end).unwrap()];
    let (mut settled, mut row): (State, Vec<i64>) = (State::Unknown, Vec::new());
    let mut fill = |from: i64, state: Option<State>, only: Option<State>| {
        for second in seconds.iter_mut().skip(usize::try_from(from).unwrap()) {
            if only.is_none() || *second == only {
                *second = state;
            }
        }
    };
    let mut row_is_of = State::Unknown;
    for (at, seen) in looks {
        if matches!(seen, State::Unknown | State::Maintenance) {
            fill(*at, Some(*seen), None);
            if *seen == State::Maintenance {
                row.clear();
            }
            continue;
        }
        fill(*at, Some(settled), None);
        let good = *seen == State::Up;
        let was_good = settled == State::Up;
        if settled == State::Unknown && good {
            settled = State::Up;
            row.clear();
            fill(*at, Some(settled), None);
            continue;
        }
        if *seen == settled {
            row.clear();
            continue;
        }
        let same_row = if was_good || settled == State::Unknown { row_is_of != State::Up } else { row_is_of == *seen };
        if !same_row {
            row.clear();
        }
        row_is_of = *seen;
        row.push(*at);
        if row.len() >= if good { successes } else { failures } {
            let before = settled;
            settled = *seen;
            fill(row[0], Some(settled), Some(before));
            row.clear();
        }
    }
    seconds.into_iter().flatten().collect()
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        6 => Just(State::Up),
        4 => Just(State::Down),
        1 => Just(State::CertificateBad),
        1 => Just(State::Unknown),
        1 => Just(State::Maintenance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn time_in_each_state_is_that_of_a_second_by_second_model(
        steps in prop::collection::vec((1i64..90, any_state()), 2..60),
        failures in 1u32..4,
        successes in 1u32..3,
        (from, to) in (0.0f64..1.0, 0.0f64..1.0),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let begin = at(0);
            let mut second = 0;
            let looks: Vec<(i64, State)> = steps.iter().map(|(step, state)| { second += step; (second, *state) }).collect();
            let first = looks[0].0;
            let end = second + 30;
            let clock = Clock::simulated(begin + TimeDelta::seconds(end));
            let store = Store::in_memory(clock).unwrap();
            let rules = rules(failures, successes);
            let mut known = None;
            for (second, state) in &looks {
                let one = checked("blog", begin + TimeDelta::seconds(*second), *state, &rules);
                let found = step(&mut known, &one, &store);
                store.found("sites", vec![found]).await.unwrap();
            }
            let model = second_by_second(&looks, failures as usize, successes as usize, end);
            let length = model.len() as f64;
            let (low, high) = ((from.min(to) * length) as usize, (from.max(to) * length) as usize);
            let moment = |index: usize| begin + TimeDelta::seconds(first + index as i64);
            let summary = store.summary(1, moment(low)..moment(high)).await.unwrap();
            for state in [State::Up, State::CertificateBad, State::Down, State::Unknown, State::Maintenance] {
                let slow = model[low..high].iter().filter(|one| **one == state).count() as u64;
                prop_assert_eq!(summary.time(state).as_secs(), slow, "{} in {:?}", state, looks);
            }
            Ok(())
        })?;
    }
}

/// Looks of some checks, minute by minute, with what real ones have: a site's own pace, noise, bad hours.
fn year(checks: usize, first: i64, minutes: i64) -> impl Iterator<Item = (i64, Vec<(usize, State, u64)>)> {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    (first..first + minutes).map(move |minute| {
        let all = (0..checks).map(|check| {
            let pace = 20_000 + 7_000 * check as u64;
            let noise: u64 = (0..4).map(|_| random() % (pace / 4)).sum();
            let slow = if random() % 50 == 0 { pace * (2 + random() % 10) } else { 0 };
            let is_down = (minute / 60 + check as i64 * 13) % 170 == 0 && minute % 60 < 20;
            (check, if is_down { State::Down } else { State::Up }, pace / 2 + noise + slow)
        });
        (minute, all.collect())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_of_a_thousand_checks_each_minute_is_under_250_mb() {
    const CHECKS: usize = 5;
    const DAYS: i64 = 68;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rusuban.db");
    let clock = Clock::simulated(at(0));
    let store = Store::open(&path, clock.clone()).await.unwrap();
    let rules = rules(3, 2);
    let mut known: Vec<Option<Known>> = vec![None; CHECKS];
    let (mut exact, mut downs) = (Vec::new(), 0u64);
    for day in 0..DAYS {
        let mut found = Vec::new();
        for (minute, looks) in year(CHECKS, day * 1440, 1440) {
            for (check, state, micros) in looks {
                let mut one = checked(&format!("site {check}"), at(minute), state, &rules);
                one.verdict.took = (state == State::Up).then_some(Duration::from_micros(micros));
                found.push(step(&mut known[check], &one, &store));
                if check == 0 && state == State::Up && day >= DAYS - 30 {
                    exact.push(micros);
                }
                downs += u64::from(check == 0 && state == State::Down && day >= DAYS - 30);
            }
        }
        store.found("sites", found).await.unwrap();
        clock.step(TimeDelta::days(1));
        // The clock follows the machine's, so it is a little later than that.
        store.tidy_checks().await.unwrap();
    }
    let ledger = rusqlite::Connection::open(&path).unwrap();
    let count = |table: &str| -> f64 {
        ledger.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get::<_, i64>(0)).unwrap() as f64
    };
    let bytes = |table: &str| -> f64 {
        let of = "SELECT sum(pgsize) FROM dbstat WHERE name = ?1";
        ledger.query_row(of, [table], |row| row.get::<_, Option<i64>>(0)).unwrap().unwrap_or(0) as f64
    };
    let each = |table: &str| bytes(table) / count(table).max(1.0);
    // What a thousand checks have after a year: rows of two hours, of eight days, of 63 days, of a year.
    let (looks, packed, hours, days) = (1000.0 * 120.0, 1000.0 * 24.0 * 8.0, 1000.0 * 24.0 * 63.0, 1000.0 * 366.0);
    let spans = count("spans") / CHECKS as f64 * 1000.0;
    let all = [("looks", looks), ("packed", packed), ("hours", hours), ("days", days), ("spans", spans)];
    let mut sum = 0.0;
    for (table, rows) in all {
        println!("{table:>7}: {rows:>9.0} rows of {:>5.1} bytes = {:>6.1} MB", each(table), rows * each(table) / 1e6);
        sum += rows * each(table) / 1e6;
    }
    println!("    all: {sum:.1} MB");
    assert!(sum < 250.0, "{sum} MB");
    assert!(
        count("packed") <= CHECKS as f64 * 24.0 * 8.0 && count("days") > 0.0 && count("looks") <= 120.0 * 5.0 * 2.0
    );

    // And exact: the percentiles of thirty days, put together from days and hours and looks.
    let summary = store.summary(1, at((DAYS - 30) * 1440)..at(DAYS * 1440)).await.unwrap();
    assert_eq!(summary.answers.count(), exact.len() as u64);
    assert_eq!(summary.looks(State::Down), downs);
    exact.sort_unstable();
    for share in [0.5, 0.9, 0.95, 0.99] {
        let exact = exact[((share * exact.len() as f64).ceil() as usize).max(1) - 1] as f64;
        let told = summary.answers.quantile(share).unwrap().as_secs_f64() * 1e6;
        assert!((told - exact).abs() <= exact * 0.051, "p{share}: {told} for {exact}");
    }
    // Down time is that of the looks: from the first that failed to the first that was well.
    assert_eq!(summary.time(State::Down).as_secs(), downs * 60);
    let older = store.summary(1, at(0)..at(2 * 1440)).await.unwrap();
    assert_eq!(older.looks(State::Up) + older.looks(State::Down), 2 * 1440, "days tell of what hours no longer do");
    assert_eq!((older.time(State::Up) + older.time(State::Down)).as_secs(), 2 * 86_400);
}
