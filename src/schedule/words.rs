//! A schedule as a person would say it.
use super::cron::Lines;

pub(super) fn say(lines: &Lines) -> String {
    let fields: Vec<&str> = lines.cron.as_str().split_whitespace().collect();
    if let (Some((_, times)), [.., day, month, weekday]) = (&lines.fixed, fields.as_slice())
        && times.len() <= 4
        && *month == "*"
    {
        let form = if lines.has_seconds { "%H:%M:%S" } else { "%H:%M" };
        let times: Vec<String> = times.iter().map(|time| time.format(form).to_string()).collect();
        let times = listed(&times);
        match (*day, *weekday) {
            ("*", "*") => return format!("every day at {times}"),
            ("*", weekday) => {
                if let Some(days) = weekdays(weekday) {
                    return format!("every {days} at {times}");
                }
            }
            ("L", "*") => return format!("on the last day of each month at {times}"),
            (day, "*") if day.bytes().all(|byte| byte.is_ascii_digit()) => {
                return format!("on day {day} of each month at {times}");
            }
            _ => {}
        }
    }
    let said = lines.cron.describe();
    let mut letters = said.trim_end_matches('.').chars();
    let said: String = letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect());
    said.strip_prefix("at every").map_or(said.clone(), |rest| format!("every{rest}"))
}

fn weekdays(field: &str) -> Option<String> {
    const NAMES: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let number = |text: &str| {
        text.parse::<usize>()
            .ok()
            .map(|number| number % 7)
            .or_else(|| NAMES.iter().position(|name| name[..3].eq_ignore_ascii_case(text)))
    };
    if let Some((from, to)) = field.split_once('-') {
        return Some(format!("{} to {}", NAMES.get(number(from)?)?, NAMES.get(number(to)?)?));
    }
    let days: Option<Vec<String>> = field.split(',').map(|day| Some((*NAMES.get(number(day)?)?).to_owned())).collect();
    days.map(|days| listed(&days))
}

fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
