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
}

impl Problem {
    /// A problem with the value at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: None }
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
            let number = self.line.to_string();
            // A tab takes as much room above the mark as in it.
            let indent: String = self
                .excerpt
                .chars()
                .take(self.column.saturating_sub(1))
                .map(|letter| if letter == '\t' { '\t' } else { ' ' })
                .collect();
            writeln!(f, "  {faint}{number} |{faint:#} {}", self.excerpt)?;
            let margin = " ".repeat(number.len());
            writeln!(f, "  {faint}{margin} |{faint:#} {indent}{mark}{}{mark:#}", "^".repeat(self.width))?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "  {hint}")?;
        }
        Ok(())
    }
}
