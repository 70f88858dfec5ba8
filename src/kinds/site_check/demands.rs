//! Keys as conditions: there is one language, and the keys are short for it.
use std::collections::BTreeMap;

use super::keys::SiteKeys;
use crate::check::condition::write;

/// What keys demand, each with its condition.
pub(super) fn wanted(keys: &SiteKeys) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut add = |key: String, text: String| all.push((key, text));
    let several =
        |key: &str, count: usize, number: usize| if count > 1 { format!("{key}[{number}]") } else { key.to_owned() };
    let texts =
        keys.contains.iter().flat_map(|wanted| wanted.0.iter().map(|often| (wanted.0.len(), often)).enumerate());
    for (number, (count, often)) in texts {
        let text = write(&often.text);
        add(
            several("contains", count, number),
            match often.at_least {
                None | Some(1) => format!("body contains {text}"),
                Some(least) => format!("count({text}) >= {least}"),
            },
        );
    }
    for (number, text) in keys.lacks.iter().flat_map(|texts| texts.0.iter().enumerate()) {
        add(
            several("lacks", keys.lacks.as_ref().map_or(0, |texts| texts.0.len()), number),
            format!("not body contains {}", write(text)),
        );
    }
    for (number, text) in keys.matches.iter().flat_map(|texts| texts.0.iter().enumerate()) {
        add(
            several("matches", keys.matches.as_ref().map_or(0, |texts| texts.0.len()), number),
            format!("body matches {}", write(text)),
        );
    }
    for (number, element) in keys.css.iter().flatten().enumerate() {
        let selector = format!("css({})", write(&element.selector));
        let key = format!("css[{number}].selector");
        if let Some(text) = &element.text {
            add(key.clone(), format!("{selector} == {}", write(text)));
        }
        match element.at_least {
            Some(least) => add(key, format!("count({selector}) >= {least}")),
            None if element.text.is_none() => add(key, selector),
            None => {}
        }
    }
    for (path, value) in keys.json.iter().flatten() {
        let value = match value {
            toml::Value::String(text) => write(text),
            value => value.to_string(),
        };
        add(format!("json.{path}"), format!("json({}) == {value}", write(path)));
    }
    for (name, text) in keys.header.iter().flatten() {
        let is_any = text.is_empty();
        add(
            format!("header.{name}"),
            if is_any {
                format!("header({})", write(name))
            } else {
                format!("header({}) contains {}", write(name), write(text))
            },
        );
    }
    for (number, text) in keys.answer.iter().flat_map(|texts| texts.0.iter().enumerate()) {
        add(
            several("answer", keys.answer.as_ref().map_or(0, |texts| texts.0.len()), number),
            format!("answer == {}", write(text.trim_end_matches('.'))),
        );
    }
    let limits: BTreeMap<&str, Option<String>> = BTreeMap::from([
        ("max_time", keys.max_time.map(|time| format!("time <= {time}"))),
        ("min_size", keys.min_size.map(|size| format!("size >= {size}"))),
        ("max_size", keys.max_size.map(|size| format!("size <= {size}"))),
        ("certificate_left", keys.certificate_left.map(|left| format!("certificate > {left}"))),
        ("domain_left", keys.domain_left.map(|left| format!("domain > {left}"))),
    ]);
    for (key, text) in limits {
        if let Some(text) = text {
            add(key.to_owned(), text);
        }
    }
    all
}

/// The statuses that are fine, as a condition.
pub(super) fn status(keys: &SiteKeys) -> String {
    let points_elsewhere = keys.redirect.as_deref().is_some_and(|redirect| !matches!(redirect, "follow" | "no"));
    match &keys.status {
        None if points_elsewhere => "status == 3xx".to_owned(),
        None => "status == 2xx".to_owned(),
        Some(status) => {
            let one = |(first, last): &(u16, u16)| match (first, last) {
                (first, last) if first == last => format!("status == {first}"),
                (first, last) if first % 100 == 0 && *last == first + 99 => format!("status == {}xx", first / 100),
                (first, last) => format!("(status >= {first} and status <= {last})"),
            };
            status.ranges().iter().map(one).collect::<Vec<_>>().join(" or ")
        }
    }
}
