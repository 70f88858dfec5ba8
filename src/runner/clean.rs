//! What may be written into a run's log: one line, no escape sequences, no secrets, not too long.
use crate::config::secret::{Redactor, Secret};

/// The longest line that is kept, in bytes.
const LONGEST: usize = 4096;

/// Removes the secrets of the settings and of one job.
#[derive(Clone, Debug, Default)]
pub(super) struct Cleaner(Vec<Redactor>);

impl Cleaner {
    /// `secrets` are the job's own. Of a secret of several lines, such as a key file, each line is removed.
    pub(super) fn new(settings: &Redactor, secrets: Vec<Secret>) -> Self {
        let lines: Vec<Secret> = secrets
            .iter()
            .flat_map(|secret| secret.reveal().lines())
            .map(str::trim)
            .filter(|line| line.len() >= 8)
            .map(Secret::new)
            .collect();
        Self(vec![settings.clone(), Redactor::new(secrets.into_iter().chain(lines))])
    }

    /// Each line of `text`, fit to be kept.
    pub(super) fn lines(&self, text: &str) -> Vec<String> {
        self.without_secrets(text).lines().map(shortened).collect()
    }

    /// `text` as one line.
    pub(super) fn line(&self, text: &str) -> String {
        shortened(&self.without_secrets(text).lines().collect::<Vec<_>>().join(" · "))
    }

    fn without_secrets(&self, text: &str) -> String {
        // The text as a whole: a secret may have several lines.
        self.0.iter().fold(printable(text), |text, redactor| redactor.clean(&text))
    }
}

fn shortened(line: &str) -> String {
    if line.len() <= LONGEST {
        return line.to_owned();
    }
    let end = line.floor_char_boundary(LONGEST);
    format!("{}… {} bytes more", &line[..end], line.len() - end)
}

/// Without escape sequences (colours, cursor movements, window titles) and other control characters, but for tabs and line breaks.
fn printable(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => match characters.next() {
                // A control sequence: up to its final byte.
                Some('[') => {
                    characters.by_ref().find(|next| ('@'..='~').contains(next));
                }
                // A command to the terminal, such as its title: up to a bell or the string terminator.
                Some(']' | 'P' | '^' | '_' | 'X') => {
                    while let Some(next) = characters.next() {
                        if next == '\u{7}' || (next == '\u{1b}' && characters.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                // A character set: one byte more.
                Some('(' | ')' | '#' | ' ') => {
                    characters.next();
                }
                _ => {}
            },
            '\n' | '\t' => kept.push(character),
            // Those that turn the direction of writing make a line look like what it is not.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            control if control.is_control() => {}
            other => kept.push(other),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_control_characters_are_removed() {
        let cleaner = Cleaner::default();
        assert_eq!(cleaner.lines("\u{1b}[1;31mred\u{1b}[0m\u{7}\ttab\r"), ["red\ttab"]);
        assert_eq!(cleaner.lines("\u{1b}]0;title\u{7}a\u{1b}]8;;http://x\u{1b}\\b\u{1b}(Bc"), ["abc"]);
        assert_eq!(cleaner.lines("\u{202e}gnp.exe"), ["gnp.exe"]);
        assert_eq!(cleaner.lines("\u{1b}["), Vec::<String>::new());
        assert_eq!(cleaner.line("one\ntwo"), "one · two");
    }

    #[test]
    fn secrets_are_removed_also_in_colour_and_line_by_line() {
        let settings = Redactor::new([Secret::new("from-settings")]);
        let cleaner = Cleaner::new(&settings, vec![Secret::new("BEGIN-KEY\nabcdefgh\nEND-OF-KEY")]);
        assert_eq!(cleaner.lines("x from-set\u{1b}[0mtings y"), ["x ••• y"]);
        assert_eq!(cleaner.lines("abcdefgh"), ["•••"]);
        assert_eq!(cleaner.lines("=BEGIN-KEY\nabcdefgh\nEND-OF-KEY="), ["=•••="]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let line = Cleaner::default().line(&"ä".repeat(3000));
        assert!(line.ends_with("ä… 1904 bytes more"), "{}", &line[4000..]);
    }
}
