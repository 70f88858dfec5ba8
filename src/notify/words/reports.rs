//! Reports in one line, as they were told before there was more to tell: all sites, and the disk.
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::{Language, clean};
use crate::{model::watch::State, text};

/// A file system, as `df` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where it is mounted.
    pub place: String,
    /// Bytes in all.
    pub size: u64,
    /// Bytes used.
    pub used: u64,
    /// Bytes that can still be used; less than the rest where some are kept for root.
    pub free: u64,
}

/// `blog is fine, wiki is sick`: every site with its state.
#[must_use]
pub fn watch_line(language: Language, sites: &[(String, State)]) -> String {
    let word = |state: State| match (language, state) {
        (Language::En, State::Up) => " is fine",
        (Language::En, State::CertificateBad) => " is fine but for its certificate",
        (Language::En, State::Down) => " is sick",
        (Language::En, State::Unknown) => " cannot be seen",
        (Language::En, State::Maintenance) => " is being worked on",
        (Language::Ja, State::Up) => "は元気",
        (Language::Ja, State::CertificateBad) => "は証明書のほかは元気",
        (Language::Ja, State::Down) => "は病気",
        (Language::Ja, State::Unknown) => "は見えない",
        (Language::Ja, State::Maintenance) => "は作業中",
    };
    let all: Vec<String> = sites.iter().map(|(site, state)| format!("{}{}", clean::line(site), word(*state))).collect();
    all.join(match language {
        Language::En => ", ",
        Language::Ja => "、",
    })
}

/// `2026-11-27 disk usage of this host: / 14.2 of 50.0 GiB (30 %), 33.1 GiB free`.
#[must_use]
pub fn disk_line(language: Language, at: DateTime<Utc>, time_zone: Tz, disks: &[Disk]) -> String {
    let each: Vec<String> = disks
        .iter()
        .map(|disk| {
            let (place, used, size, free) =
                (clean::line(&disk.place), text::size(disk.used), text::size(disk.size), text::size(disk.free));
            let share = share(disk);
            match language {
                Language::En => format!("{place} {used} of {size} ({share} %), {free} free"),
                Language::Ja => format!("{place} {size} 中 {used} 使用 ({share}%)、空き {free}"),
            }
        })
        .collect();
    let date = at.with_timezone(&time_zone).format("%Y-%m-%d");
    match language {
        Language::En => format!("{date} disk usage of this host: {}", each.join("; ")),
        Language::Ja => format!("{date} このホストのディスク使用量: {}", each.join("、")),
    }
}

/// As `df` has it: of what can be used at all, rounded up.
fn share(disk: &Disk) -> u128 {
    let all = u128::from(disk.used) + u128::from(disk.free);
    (u128::from(disk.used) * 100).div_ceil(all.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watch_line_says_how_each_site_is() {
        let sites =
            [("blog".to_owned(), State::Up), ("wiki".to_owned(), State::Down), ("shop".to_owned(), State::Unknown)];
        assert_eq!(watch_line(Language::En, &sites), "blog is fine, wiki is sick, shop cannot be seen");
        assert_eq!(watch_line(Language::Ja, &sites), "blogは元気、wikiは病気、shopは見えない");
    }

    #[test]
    fn the_disk_line_has_the_date_of_the_house_and_the_figures_of_df() {
        let disk = Disk { place: "/".into(), size: 50 << 30, used: 15 << 30, free: 32 << 30 };
        let at = DateTime::from_timestamp(1_795_791_600, 0).unwrap();
        let line = disk_line(Language::En, at, Tz::Asia__Tokyo, std::slice::from_ref(&disk));
        assert_eq!(line, "2026-11-28 disk usage of this host: / 15.0 GiB of 50.0 GiB (32 %), 32.0 GiB free");
        let line = disk_line(Language::Ja, at, Tz::UTC, &[disk]);
        assert_eq!(line, "2026-11-27 このホストのディスク使用量: / 50.0 GiB 中 15.0 GiB 使用 (32%)、空き 32.0 GiB");
    }
}
