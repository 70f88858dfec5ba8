//! Japanese.
use std::time::Duration;

use chrono::Weekday;
use chrono_tz::Tz;

use super::{Delay, Fact, Telling, Tongue, lasted};
use crate::model::news::{About, Cause, Event, Offer, Severity};

pub(super) struct Japanese;

/// What is said of it, of one and of several alike.
fn predicate(fact: &Fact<'_>) -> &'static str {
    let grave = fact.is_grave();
    match (fact.about, fact.event) {
        (About::Check { .. }, Event::Failed) if grave => "が停止しています",
        (About::Check { .. }, Event::StillFailing) if grave => "がまだ停止しています",
        (About::Check { .. }, Event::Recovered) if fact.is_whole && grave => "が停止していました",
        (About::Job { .. }, Event::Failed) => "が失敗しました",
        (About::Job { .. }, Event::StillFailing) => "の失敗が続いています",
        (About::Job { .. }, Event::Recovered) if fact.is_whole => "が失敗していました",
        (About::Job { .. }, Event::Recovered) => "が再び成功しました",
        (About::Job { .. }, Event::FirstSuccess) => "が初めて成功しました",
        (About::Job { .. }, Event::TooSmall) => "のバックアップが異常に小さいです",
        (About::Notifier { .. }, Event::Failed | Event::NotifierBroken) => "に送れません",
        (About::Notifier { .. }, Event::StillFailing) => "にまだ送れません",
        (About::Notifier { .. }, Event::Recovered) => "に再び送れるようになりました",
        (_, Event::Failed) => "に異常があります",
        (_, Event::StillFailing) => "の異常が続いています",
        (_, Event::Recovered) if fact.is_whole => "に異常がありました",
        (_, Event::Recovered) => "が復旧しました",
        (_, Event::Late) => "が遅れています",
        (_, Event::Missed) => "が実行されませんでした",
        (_, Event::FirstSuccess) => "が初めて正常になりました",
        (_, Event::TooSmall) => "が異常に小さいです",
        (_, Event::TargetMissed) => "が目標に達していません",
        (_, Event::Changed) => "に変更がありました",
        (_, Event::Report) => "の報告",
        (_, Event::Test) => "からのテスト",
        (_, Event::NotifierBroken) => "から通知できません",
    }
}

impl Tongue for Japanese {
    fn subject(&self, about: &About, host: &str) -> String {
        match about {
            About::Job { job, .. } => job.to_string(),
            About::Check { check, .. } => super::clean::line(check),
            About::Notifier { name } => format!("通知先 {name}"),
            About::House => host.to_owned(),
        }
    }

    fn title(&self, fact: &Fact<'_>, host: &str) -> String {
        let subject = if fact.event == Event::Test { host.to_owned() } else { self.subject(fact.about, host) };
        format!("{subject} {}", predicate(fact))
    }

    fn title_of_several(&self, facts: &[Fact<'_>], host: &str) -> String {
        let subjects: Vec<String> = facts.iter().map(|fact| self.subject(fact.about, host)).collect();
        let subjects = match subjects.as_slice() {
            [one, other, third] => format!("{one}、{other}、{third}"),
            [one, other, more @ ..] if !more.is_empty() => format!("{one}、{other} ほか{}件", more.len()),
            few => few.join("、"),
        };
        facts.first().map_or_else(String::new, |fact| format!("{subjects} {}", predicate(fact)))
    }

    fn title_of_mixed(&self, facts: &[Fact<'_>], host: &str) -> String {
        let bad = facts.iter().filter(|fact| fact.mood() == super::Mood::Bad).count();
        match (bad, facts.len() - bad) {
            (bad, 0) => format!("{host} で{bad}件の異常"),
            (0, rest) => format!("{host} から{rest}件のお知らせ"),
            (bad, rest) => format!("{host} で{bad}件の異常、ほか{rest}件のお知らせ"),
        }
    }

    fn when(&self, fact: &Fact<'_>, telling: &Telling<'_>) -> String {
        let moment = |at| telling.moment(at, self);
        let length = |from, to| lasted(from, to).map(|length| self.duration(length));
        let begun = fact.since.unwrap_or(fact.at);
        match fact.event {
            Event::Failed if fact.since.is_none() || matches!(fact.about, About::Job { .. }) => moment(fact.at),
            Event::Failed | Event::StillFailing | Event::Late | Event::NotifierBroken if fact.since.is_some() => {
                match length(begun, telling.now) {
                    Some(length) => format!("{} から{length}", moment(begun)),
                    None => format!("{} から", moment(begun)),
                }
            }
            Event::Recovered if fact.is_whole => match length(begun, fact.at) {
                Some(length) => format!("{}、{length}間", telling.span(begun, fact.at, self)),
                None => format!("{} に一時的", moment(begun)),
            },
            Event::Recovered => match fact.since.and_then(|since| length(since, fact.at)) {
                Some(length) => format!("{}、{length}ぶり", moment(fact.at)),
                None => moment(fact.at),
            },
            Event::Report | Event::Test => String::new(),
            _ => moment(fact.at),
        }
    }

    fn line(&self, title: &str, when: &str, what: &str) -> String {
        let when = if when.is_empty() { String::new() } else { format!("（{when}）") };
        if what.is_empty() { format!("{title}{when}") } else { format!("{title}{when}: {what}") }
    }

    fn rest(&self, when: &str, what: &str) -> String {
        match (when, what) {
            ("", what) => what.to_owned(),
            (when, "") => when.to_owned(),
            (when, what) => format!("{when}: {what}"),
        }
    }

    fn late(&self, delay: Option<Delay>) -> &'static str {
        match delay {
            Some(Delay::Line) => "送信できなかったため遅れて通知",
            Some(Delay::Quiet) => "静かな時間帯のあとに通知",
            Some(Delay::Limit) => "通知が多すぎたため遅れて通知",
            None => "遅れて通知",
        }
    }

    fn cause(&self, cause: &Cause) -> String {
        let certainty = if cause.is_certain { "原因" } else { "おそらく" };
        format!("{certainty}: {}", cause.what)
    }

    fn offer(&self, offer: &Offer) -> String {
        if offer.command.is_empty() { offer.what.clone() } else { format!("`{}` ({})", offer.command, offer.what) }
    }

    fn duration(&self, length: Duration) -> String {
        let minutes = length.as_secs() / 60;
        match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
            (0, 0, 0) => format!("{}秒", length.as_secs()),
            (0, 0, minutes) => format!("{minutes}分"),
            (0, hours, 0) => format!("{hours}時間"),
            (0, hours, minutes) => format!("{hours}時間{minutes}分"),
            (days, 0, _) => format!("{days}日"),
            (days, hours, _) => format!("{days}日{hours}時間"),
        }
    }

    fn weekday(&self, day: Weekday) -> &'static str {
        match day {
            Weekday::Mon => "月曜",
            Weekday::Tue => "火曜",
            Weekday::Wed => "水曜",
            Weekday::Thu => "木曜",
            Weekday::Fri => "金曜",
            Weekday::Sat => "土曜",
            Weekday::Sun => "日曜",
        }
    }

    fn foot(&self, host: &str, time_zone: Tz) -> String {
        format!("{host} の Rusuban より。時刻は {time_zone}")
    }

    fn event(&self, event: Event) -> &'static str {
        match event {
            Event::Failed => "失敗",
            Event::StillFailing => "失敗継続",
            Event::Recovered => "復旧",
            Event::Late => "遅延",
            Event::Missed => "未実行",
            Event::FirstSuccess => "初成功",
            Event::TooSmall => "過小",
            Event::TargetMissed => "目標未達",
            Event::Changed => "変更",
            Event::Report => "報告",
            Event::Test => "テスト",
            Event::NotifierBroken => "通知不能",
        }
    }

    fn severity(&self, severity: Severity) -> &'static str {
        match severity {
            Severity::Info => "情報",
            Severity::Warning => "注意",
            Severity::Critical => "重大",
        }
    }
}
