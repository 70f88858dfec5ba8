//! What snapshots are called: repository and tags of each container, and who would be in whose way. Pure.
use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _};
use chrono_tz::Tz;

/// Not those of the system's language: `Mon` is `Mon` everywhere.
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What stands for what in a tag's pattern; `{month-on-first}` leaves the whole tag out on other days.
pub(super) const PLACES: [&str; 8] =
    ["{weekday}", "{month}", "{month-on-first}", "{date}", "{time}", "{year}", "{week}", "{run}"];

/// The tags of a day, from their patterns.
pub(super) fn tags(patterns: &[String], at: DateTime<Tz>, run: i64) -> Vec<String> {
    let month = MONTHS[at.month0() as usize];
    let values = [
        WEEKDAYS[at.weekday().num_days_from_monday() as usize].to_owned(),
        month.to_owned(),
        month.to_owned(),
        at.format("%Y-%m-%d").to_string(),
        at.format("%H%M").to_string(),
        at.year().to_string(),
        format!("{}-W{:02}", at.iso_week().year(), at.iso_week().week()),
        run.to_string(),
    ];
    let is_today = |pattern: &&String| at.day() == 1 || !pattern.contains("{month-on-first}");
    let fill = |pattern: &String| {
        PLACES.iter().zip(&values).fold(pattern.clone(), |filled, (place, value)| filled.replace(place, value))
    };
    let mut tags: Vec<String> = Vec::new();
    for tag in patterns.iter().filter(is_today).map(fill) {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

/// The repository of a container's snapshots by a pattern such as `snapshots/{container}`.
pub(super) fn repository(pattern: &str, container: &str) -> String {
    // Repositories' names have no capital letters.
    pattern.replace("{container}", &container.to_lowercase())
}

/// Of containers and their repositories, those that share one: container → the others.
pub(super) fn collisions(named: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut by_repository: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (container, repository) in named {
        by_repository.entry(repository).or_default().push(container);
    }
    let shared = by_repository.values().filter(|containers| containers.len() > 1);
    let others = |of: &str, all: &[&str]| all.iter().filter(|one| **one != of).map(|one| (*one).to_owned()).collect();
    shared.flat_map(|all| all.iter().map(move |one| ((*one).to_owned(), others(one, all)))).collect()
}

/// Whether an engine takes it for a tag.
pub(super) fn is_tag(tag: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&tag.len()) && tag.bytes().all(fine) && !tag.starts_with(['.', '-'])
}

/// Whether an engine takes it for a repository.
pub(super) fn is_repository(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_part = |part: &str| {
        edge(part.bytes().next()) && edge(part.bytes().next_back()) && part.bytes().all(fine) && !part.contains("..")
    };
    let (host, rest) = name.split_once('/').unwrap_or(("", name));
    // The first part may be a registry, with a port.
    let host = host.split_once(':').map_or(host, |(host, port)| if port.parse::<u16>().is_ok() { host } else { ":" });
    name.len() <= 200 && (host.is_empty() && !name.contains('/') || is_part(host)) && rest.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    fn on(year: i32, month: u32, day: u32) -> DateTime<Tz> {
        chrono_tz::Asia::Tokyo.with_ymd_and_hms(year, month, day, 3, 5, 0).unwrap()
    }

    #[test]
    fn weekdays_and_on_the_first_the_month() {
        let patterns = ["{weekday}".to_owned(), "{month-on-first}".to_owned()];
        assert_eq!(tags(&patterns, on(2026, 11, 21), 7), ["Sat"]);
        assert_eq!(tags(&patterns, on(2026, 12, 1), 7), ["Tue", "Dec"]);
        let day = chrono::Utc.with_ymd_and_hms(2026, 11, 30, 15, 5, 0).unwrap();
        assert_eq!(tags(&patterns, day.with_timezone(&chrono_tz::Asia::Tokyo), 7), ["Tue", "Dec"]);
        assert_eq!(tags(&patterns, day.with_timezone(&Tz::UTC), 7), ["Mon"]);
    }

    #[test]
    fn each_place_of_a_pattern_is_filled_and_no_tag_comes_twice() {
        let all = PLACES.join("_");
        assert_eq!(tags(&[all], on(2027, 1, 1), 7), ["Fri_Jan_Jan_2027-01-01_0305_2027_2026-W53_7"]);
        let twice = ["{date}".to_owned(), "{year}-01-01".to_owned()];
        assert_eq!(tags(&twice, on(2027, 1, 1), 7), ["2027-01-01"]);
    }

    #[test]
    fn containers_of_one_image_are_in_each_others_way() {
        let named = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
        };
        let found = collisions(&named(&[("a", "wordpress"), ("b", "wordpress"), ("c", "blog")]));
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("a".into(), vec!["b".into()]), ("b".into(), vec!["a".into()])]
        );
    }

    #[test]
    fn names_that_an_engine_refuses_are_known() {
        for tag in ["Mon", "2026-11-21", "_a.b-c"] {
            assert!(is_tag(tag), "{tag}");
        }
        for tag in ["", "-a", ".a", "a b", "a:b", "ä"] {
            assert!(!is_tag(tag), "{tag}");
        }
        for name in ["blog", "snapshots/blog", "localhost:5000/a/b", "a__b", "lscr.io/x/y"] {
            assert!(is_repository(name), "{name}");
        }
        for name in ["", "Blog", "a/", "/a", "a:b", "a:b/c", "a//b", "-a", "a..b", "a b"] {
            assert!(!is_repository(name), "{name}");
        }
        assert_eq!(repository("snapshots/{container}", "Blog_1"), "snapshots/blog_1");
    }
}
