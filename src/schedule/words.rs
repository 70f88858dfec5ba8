//! A schedule as a tired person would want it said: the times first that are few enough to list, else how often and between when.
mod days;
mod times;

use chrono::TimeDelta;

use super::cron::Lines;

pub(super) fn say(lines: &Lines) -> String {
    let pattern = &lines.cron.pattern;
    let days = days::Days::of(pattern);
    match times::of(pattern.seconds.values(), pattern.minutes.values(), pattern.hours.values()) {
        times::Times::At(times) => format!("{} at {times}", days.before()),
        times::Times::Often(times) => match days.after() {
            Some(days) => format!("{times}, {days}"),
            None => times,
        },
    }
}

/// `@every`: its beginning is not that of a day or an hour, so the length is said as one.
pub(super) fn every(step: TimeDelta) -> String {
    let seconds = step.num_seconds();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    for (length, unit) in units {
        if seconds == length && length < 86_400 {
            return format!("every {unit}");
        }
        // A day is said in hours: it does not begin at midnight here.
        if seconds % length == 0 && seconds > length {
            return format!("every {} {unit}s", seconds / length);
        }
    }
    String::new()
}

/// How the values of a field lie.
#[derive(Debug, PartialEq, Eq)]
enum Shape {
    /// Each that there is.
    All,
    /// At least three, so far from each other.
    Steps { step: u16, first: u16, last: u16 },
    /// As they come: also one alone.
    List,
}

/// `width`: how many values there may be.
fn shape(values: &[u16], width: u16) -> Shape {
    let (&[first, second, ..], Some(&last)) = (values, values.last()) else { return Shape::List };
    let step = second - first;
    let even = values.windows(2).all(|pair| pair[1] - pair[0] == step);
    match values.len() {
        all if all == usize::from(width) => Shape::All,
        3.. if even => Shape::Steps { step, first, last },
        // `0,30` is every 30 minutes.
        2 if step * 2 == width && step > 1 => Shape::Steps { step, first, last },
        _ => Shape::List,
    }
}

fn listed<T: AsRef<str>>(items: &[T]) -> String {
    joined(items, "and")
}

fn joined<T: AsRef<str>>(items: &[T], word: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [most @ .., last] => {
            let most: Vec<&str> = most.iter().map(AsRef::as_ref).collect();
            format!("{} {word} {}", most.join(", "), last.as_ref())
        }
    }
}

fn numbers(values: &[u16]) -> String {
    listed(&values.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// `every 3rd`; every first is every.
fn every_nth(number: u16) -> String {
    let ending = match (number % 10, number % 100) {
        _ if number == 1 => return "every".to_owned(),
        (1, last) if last != 11 => "st",
        (2, last) if last != 12 => "nd",
        (3, last) if last != 13 => "rd",
        _ => "th",
    };
    format!("every {number}{ending}")
}
