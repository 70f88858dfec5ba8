//! A mistake in a file, shown so that it can be mended: file, line, column, the line itself, and a hint.
use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Something in a file that must be mended (or, as a warning, looked at) before the file is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1; 0 when the mistake is about the file as a whole.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line itself.
    pub excerpt: String,
    /// How many characters of it are meant, from `column` on.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

/// What a kind or a schedule finds wrong with values that parsed; `config` turns it into a [`Mistake`] with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's path within the file, such as `source[0].sqlite`; empty: the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
    /// Of a text, the part that is meant: bytes of its value.
    pub within: Option<Range<usize>>,
}

impl Problem {
    /// A problem with the value at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: None, within: None }
    }

    /// Of the text at its key only this part is meant, in bytes of the value.
    #[must_use]
    pub fn within(self, part: Range<usize>) -> Self {
        Self { within: Some(part), ..self }
    }

    /// With a hint how to mend it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Mistake {
    /// A mistake at a place in a file's text.
    #[must_use]
    pub fn at(file: &Path, text: &str, at: &Range<usize>, message: impl Into<String>, hint: Option<String>) -> Self {
        let start = at.start.min(text.len());
        let before = text.get(..start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let excerpt = text.get(line_start..).unwrap_or("").lines().next().unwrap_or("").to_owned();
        let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
        let meant = text.get(start..at.end.min(text.len())).unwrap_or("").lines().next().unwrap_or("");
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column,
            excerpt,
            width: meant.chars().count().max(1),
            message: message.into(),
            hint,
        }
    }

    /// A mistake of a file as a whole, such as one that cannot be read.
    #[must_use]
    pub fn of_file(file: &Path, message: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            excerpt: String::new(),
            width: 0,
            message: message.into(),
            hint,
        }
    }
}

impl fmt::Display for Mistake {
    /// With colours; print it through `anstream`, which takes them out where they are not wanted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bold = Style::new().bold();
        let mark = AnsiColor::Red.on_default().bold();
        let faint = Style::new().dimmed();
        let file = self.file.display();
        if self.line == 0 {
            writeln!(f, "{bold}{file}{bold:#}: {}", self.message)?;
        } else {
            writeln!(f, "{bold}{file}:{}:{}{bold:#}: {}", self.line, self.column, self.message)?;
            let (number, (before, meant, after)) = (self.line.to_string(), self.parts());
            // A tab takes as much room above the mark as in it, and a wide letter as much as two marks.
            let indent: String = before.chars().flat_map(|letter| padding(letter, ' ')).collect();
            let marks: String = meant.chars().flat_map(|letter| padding(letter, '^')).collect();
            let marks = if marks.is_empty() { "^".to_owned() } else { marks };
            writeln!(f, "  {faint}{number} |{faint:#} {before}{meant}{after}")?;
            let margin = " ".repeat(number.len());
            writeln!(f, "  {faint}{margin} |{faint:#} {indent}{mark}{marks}{mark:#}")?;
        }
        for line in self.hint.iter().flat_map(|hint| hint.lines()) {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

/// Of a longer line only what is near the mark is shown.
const LONGEST: usize = 100;

impl Mistake {
    /// The line as it is shown: what is before the mark, what is meant, and what is after it.
    fn parts(&self) -> (String, String, String) {
        let shown = |letter: char| if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter };
        let line: Vec<char> = self.excerpt.chars().map(shown).collect();
        let start = self.column.saturating_sub(1).min(line.len());
        let end = (start + self.width).min(line.len());
        let text = |letters: &[char]| letters.iter().collect::<String>();
        let (before, meant, after) = (&line[..start], &line[start..end], &line[end..]);
        if line.len() <= LONGEST {
            return (text(before), text(meant), text(after));
        }
        let cut = |letters: &[char], most: usize| letters.iter().take(most).collect::<String>();
        let before = match before.len().checked_sub(LONGEST / 2) {
            Some(skipped @ 1..) => format!("…{}", text(&before[skipped..])),
            _ => text(before),
        };
        let after = if after.len() > LONGEST / 2 { format!("{}…", cut(after, LONGEST / 2)) } else { text(after) };
        (before, cut(meant, LONGEST), after)
    }
}

/// As many `fill` as the letter is wide on a terminal.
fn padding(letter: char, fill: char) -> impl Iterator<Item = char> {
    let wide = matches!(u32::from(letter), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff
        | 0xfe30..=0xfe4f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd);
    let fill = if letter == '\t' && fill == ' ' { '\t' } else { fill };
    std::iter::repeat_n(fill, if wide { 2 } else { 1 })
}

/// The known word that is so near that it was probably meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let bare = |word: &str| word.replace(['-', '_', ' '], "").to_lowercase();
    if let Some(same) = known.iter().find(|known| bare(known) == bare(word)) {
        return Some(same);
    }
    let distance = |known: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &known.to_lowercase());
    let (distance, near) = known.iter().map(|known| (distance(known), known)).min()?;
    (distance <= 1 + word.len() / 4 && distance < word.len()).then_some(near)
}

/// "did you mean …?", or all of the known words after `list`.
#[must_use]
pub fn suggest(word: &str, known: &[&str], list: &str) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there are none yet".to_owned(),
        None => format!("{list} {}", quote(known)),
    }
}

/// The words, quoted, with commas.
pub(super) fn quote(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
