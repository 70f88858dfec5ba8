//! Words for people: sizes, lengths of time, moments, tables. Pure.
use std::{fmt, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// The sum of what others say, who may say anything: at most the largest number.
#[must_use]
pub fn total(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::saturating_add)
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        text
    })
}

/// A size for eyes, three digits: `1.20 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A length of time for eyes, two units at most: `1h 30m`.
#[must_use]
pub fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 => format!("{} ms", length.as_millis()),
        1..=59 => format!("{:.1} s", length.as_secs_f64()),
        60..=3599 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// How far off a moment is: `3 h ago`, `in 20 min`, `now`.
#[must_use]
pub fn ago(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - at).num_seconds();
    let far = match seconds.abs() {
        0..=1 => return "now".to_owned(),
        far @ 2..=99 => format!("{far} s"),
        far @ 100..=5_999 => format!("{} min", far / 60),
        far @ 6_000..=172_799 => format!("{} h", far / 3600),
        far => format!("{} days", far / 86_400),
    };
    if seconds > 0 { format!("{far} ago") } else { format!("in {far}") }
}

/// A moment in its zone, with the offset: `Sat 2026-11-21 03:15:00 +09:00`.
#[must_use]
pub fn moment(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%a %Y-%m-%d %H:%M:%S %:z").to_string()
}

/// Bytes in this time: `12.0 MiB/s`.
#[must_use]
pub fn rate(bytes: u64, time: Duration) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "three digits are shown, and a cast saturates"
    )]
    let each_second = (bytes as f64 / time.as_secs_f64().max(0.001)) as u64;
    format!("{}/s", size(each_second))
}

/// `1 source`, `3 sources`.
#[must_use]
pub fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A path for a terminal: what would move the cursor or colour the rest is shown as such.
#[must_use]
pub fn path(path: &Path) -> String {
    let mut text = String::new();
    for letter in path.display().to_string().chars() {
        if letter.is_control() {
            text.extend(letter.escape_default());
        } else {
            text.push(letter);
        }
    }
    text
}

/// Columns that stand under each other. Columns of numbers stand to the right; colours take no room.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.len() < 2 {
            return Ok(());
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &[String], column: usize| row.get(column).map_or(0, |cell| width(cell));
        let widths: Vec<usize> =
            (0..columns).map(|column| self.rows.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect();
        let numbers: Vec<bool> = (0..columns)
            .map(|column| {
                let mut cells =
                    self.rows.iter().skip(1).filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty());
                cells.all(|cell| {
                    cell.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit()) && cell.len() <= 12
                })
            })
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, text) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column].saturating_sub(width(text)));
                let gap = if column + 1 == columns { "" } else { "  " };
                if numbers[column] {
                    line.extend([padding.as_str(), text, gap]);
                } else {
                    line.extend([text, padding.as_str(), gap]);
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Characters that take room: escape sequences of colours do not.
fn width(text: &str) -> usize {
    let mut count = 0;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            letters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1_288_490_189, "1.20 GiB"),
            (12_582_912, "12.0 MiB"),
            (999_999_999, "954 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_are_told_in_the_unit_that_matters() {
        for (seconds, text) in [(59, "59.0 s"), (90, "1m 30s"), (5400, "1h 30m"), (200_000, "2d 07h")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        for (seconds, text) in
            [(0, "now"), (30, "30 s ago"), (3600, "60 min ago"), (-7200, "in 2 h"), (400_000, "4 days ago")]
        {
            assert_eq!(ago(now - chrono::TimeDelta::seconds(seconds), now), text);
        }
    }

    #[test]
    fn columns_stand_under_each_other_whatever_their_colour() {
        let mut table = Table::new(["run", "job", "how"]);
        table.row(["9".into(), "photos".into(), "\u{1b}[32msucceeded\u{1b}[0m".into()]);
        table.row(["10".into(), "db".into(), "failed".into()]);
        assert_eq!(
            table.to_string(),
            "run  job     how\n  9  photos  \u{1b}[32msucceeded\u{1b}[0m\n 10  db      failed\n"
        );
    }
}
