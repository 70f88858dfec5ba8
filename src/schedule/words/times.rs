//! The times of a day.
use super::{Shape, every_nth, listed, numbers, shape};

/// The times of a day, in words.
pub(super) enum Times {
    /// A few, as they stand on a clock: the day is said before them.
    At(String),
    /// Many: the days are said after them.
    Often(String),
}

use Times::{At, Often};

/// So many times are listed even where they come in even steps, and so many where they do not.
const FEW: usize = 4;
const SOME: usize = 6;

pub(super) fn of(seconds: Vec<u16>, minutes: Vec<u16>, hours: Vec<u16>) -> Times {
    if seconds == [0] {
        return by_minute(&minutes, &hours);
    }
    if seconds.len() * minutes.len() * hours.len() <= SOME {
        return At(clock(&hours, &minutes, &seconds));
    }
    let unit = match shape(&seconds, 60) {
        Shape::All => "every second".to_owned(),
        Shape::Steps { step, first: 0, .. } if goes_round(&seconds) => format!("every {step} seconds"),
        other => {
            let at = match other {
                Shape::Steps { step, first, last } if seconds.len() > SOME => {
                    format!("at {} second from {first} to {last}", every_nth(step))
                }
                _ if seconds.len() == 1 => format!("at second {}", seconds[0]),
                _ => format!("at seconds {}", numbers(&seconds)),
            };
            return match by_minute(&minutes, &hours) {
                At(times) if seconds.len() == 1 && !times.contains("past") => At(clock(&hours, &minutes, &seconds)),
                At(times) => At(format!("{times}, {at}")),
                Often(times) => Often(format!("{times}, {at}")),
            };
        }
    };
    let scope = Scope::of(&hours);
    let within = match (shape(&minutes, 60), &scope) {
        (Shape::All, Scope::Each) => String::new(),
        (Shape::All, Scope::Window(from, to)) => format!(" between {from:02}:00:00 and {to:02}:59:59"),
        (Shape::All, _) => format!(" {}", scope.during()),
        (Shape::Steps { step: 1, first, last }, Scope::Window(from, to)) if from == to => {
            format!(" between {from:02}:{first:02}:00 and {from:02}:{last:02}:59")
        }
        (_, Scope::Window(hour, to)) if hour == to && minutes.len() == 1 => {
            format!(" between {hour:02}:{minute:02}:00 and {hour:02}:{minute:02}:59", minute = minutes[0])
        }
        (Shape::Steps { step: 1, first, last }, _) => format!(" in minutes {first} to {last} {}", scope.of_them()),
        (Shape::Steps { step, first, last }, _) if minutes.len() > FEW => {
            format!(" in {} minute from {first} to {last} {}", every_nth(step), scope.of_them())
        }
        _ => {
            let minute = if minutes.len() == 1 { "minute" } else { "minutes" };
            format!(" in {minute} {} {}", numbers(&minutes), scope.of_them())
        }
    };
    Often(unit + &within)
}

fn by_minute(minutes: &[u16], hours: &[u16]) -> Times {
    let scope = Scope::of(hours);
    let times = minutes.len() * hours.len();
    let shape = shape(minutes, 60);
    if let [minute] = *minutes {
        return match scope {
            Scope::Each if minute == 0 => Often("every hour".to_owned()),
            Scope::Each => Often(format!("every hour at {} past", count(&[minute]))),
            Scope::Window(from, to) if times > FEW => {
                Often(format!("every hour from {from:02}:{minute:02} to {to:02}:{minute:02}"))
            }
            Scope::Steps { step, first, last } => {
                Often(format!("every {step} hours from {first:02}:{minute:02} to {last:02}:{minute:02}"))
            }
            _ => At(clock(hours, minutes, &[])),
        };
    }
    if times <= FEW || times <= SOME && shape == Shape::List {
        return At(clock(hours, minutes, &[]));
    }
    let unit = |step: u16| if step == 1 { "every minute".to_owned() } else { format!("every {step} minutes") };
    Often(match (shape, &scope) {
        (Shape::All, _) => regular(&unit(1), &scope),
        (Shape::Steps { step, first: 0, .. }, _) if goes_round(minutes) => regular(&unit(step), &scope),
        (Shape::Steps { step, first, last }, Scope::Window(from, to)) if from == to || goes_round(minutes) => {
            format!("{} between {from:02}:{first:02} and {to:02}:{last:02}", unit(step))
        }
        (Shape::Steps { step, first, last }, _) if minutes.len() > FEW => {
            format!("{} from minute {first} to {last} {}", unit(step), scope.of_them())
        }
        _ => format!("at {} past {}", count(minutes), scope.past()),
    })
}

fn regular(unit: &str, scope: &Scope) -> String {
    match scope {
        Scope::Each => unit.to_owned(),
        other => format!("{unit} {}", other.during()),
    }
}

fn count(minutes: &[u16]) -> String {
    format!("{} {}", numbers(minutes), if *minutes == [1] { "minute" } else { "minutes" })
}

/// Whether even steps go on evenly from each hour, or minute, into the next.
fn goes_round(values: &[u16]) -> bool {
    matches!(*values, [first, second, ..] if usize::from(second - first) * values.len() == 60)
}

fn clock(hours: &[u16], minutes: &[u16], seconds: &[u16]) -> String {
    let mut times = Vec::new();
    for hour in hours {
        for minute in minutes {
            if seconds.is_empty() {
                times.push(format!("{hour:02}:{minute:02}"));
            }
            times.extend(seconds.iter().map(|second| format!("{hour:02}:{minute:02}:{second:02}")));
        }
    }
    listed(&times)
}

/// Which hours of the day.
enum Scope {
    Each,
    /// Without a gap, from the first to the last; also one alone.
    Window(u16, u16),
    /// Many, in even steps.
    Steps {
        step: u16,
        first: u16,
        last: u16,
    },
    These(Vec<String>),
}

impl Scope {
    fn of(hours: &[u16]) -> Self {
        match (shape(hours, 24), hours) {
            (Shape::All, _) => Self::Each,
            (Shape::Steps { step: 1, first, last }, _) => Self::Window(first, last),
            (Shape::Steps { step, first, last }, _) if hours.len() > FEW => Self::Steps { step, first, last },
            (_, [one]) => Self::Window(*one, *one),
            (_, [one, next]) if one + 1 == *next => Self::Window(*one, *next),
            _ => Self::These(hours.iter().map(|hour| format!("{hour:02}:00")).collect()),
        }
    }

    /// For what goes on all through them.
    fn during(&self) -> String {
        match self {
            Self::Each => "all day".to_owned(),
            Self::Window(from, to) => format!("between {from:02}:00 and {to:02}:59"),
            Self::Steps { step, first, last } => {
                format!("in {} hour from {first:02}:00 to {last:02}:59", every_nth(*step))
            }
            Self::These(hours) => format!("in the hours beginning at {}", listed(hours)),
        }
    }

    /// For a part of each of them.
    fn of_them(&self) -> String {
        match self {
            Self::Each => "of each hour".to_owned(),
            Self::Window(from, to) if from == to => format!("of the hour beginning at {from:02}:00"),
            Self::Window(..) => format!("of each hour {}", self.during()),
            Self::Steps { step, first, last } => {
                format!("of {} hour from {first:02}:00 to {last:02}:59", every_nth(*step))
            }
            Self::These(hours) => format!("of the hours beginning at {}", listed(hours)),
        }
    }

    /// For a time after each of them has struck.
    fn past(&self) -> String {
        match self {
            Self::Each => "each hour".to_owned(),
            Self::Window(from, to) if from == to => format!("{from:02}:00"),
            Self::Window(from, to) => format!("each hour from {from:02}:00 to {to:02}:00"),
            Self::Steps { step, first, last } => {
                format!("{} hour from {first:02}:00 to {last:02}:00", every_nth(*step))
            }
            Self::These(hours) => listed(hours),
        }
    }
}
