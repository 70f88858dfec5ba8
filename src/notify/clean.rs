//! What others wrote, made harmless: page titles, container names and job output end up in messages, and must neither ring bells, turn the
//! direction of writing, nor call people by name.

/// One line: without control characters and without those that change the direction of writing; line breaks become spaces.
pub(super) fn line(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_whitespace() || letter.is_control() {
            if !clean.is_empty() && !clean.ends_with(' ') {
                clean.push(' ');
            }
        } else if !is_hidden(letter) {
            clean.push(letter);
        }
    }
    clean.truncate(clean.trim_end().len());
    clean
}

/// Characters that are not seen and change what is.
fn is_hidden(letter: char) -> bool {
    matches!(letter,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'   // the direction of writing
        | '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{ad}'                                         // nothing at all
        | '\u{fff9}'..='\u{fffb}' | '\u{e0001}')
}

/// For places where `@name` calls somebody and `#word` is a link: broken by a space of no width.
pub(super) fn without_mentions(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        clean.push(letter);
        let is_sign = matches!(letter, '@' | '＠' | '#' | '＃' | '$');
        if is_sign && letters.peek().is_some_and(|next| next.is_alphanumeric() || *next == '_') {
            clean.push('\u{200b}');
        }
    }
    clean
}

/// For HTML, in text and in attributes.
pub(super) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// For Slack, which reads `<!channel>` and `<https://…>`.
pub(super) fn slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// For the Markdown of Discord and Teams: its signs are shown as they are.
pub(super) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '\\' | '*' | '_' | '~' | '`' | '|' | '[' | ']' | '<' | '>' | '#') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rings_or_hides_is_taken_out() {
        assert_eq!(line("  a\u{7}b\r\nc\u{202e}d\u{0}\u{200b}e\u{1b}[31m  "), "a b cd e [31m");
        assert_eq!(line("日本語　テスト\n"), "日本語 テスト");
        assert_eq!(line("👨‍👩‍👧 family"), "👨‍👩‍👧 family");
    }

    #[test]
    fn nobody_is_called_by_name() {
        assert_eq!(
            without_mentions("@everyone me@host.org #1 a # b @"),
            "@\u{200b}everyone me@\u{200b}host.org #\u{200b}1 a # b @"
        );
    }

    #[test]
    fn each_target_gets_its_own_escapes() {
        assert_eq!(html("<b a=\"1\">&</b>"), "&lt;b a=&quot;1&quot;&gt;&amp;&lt;/b&gt;");
        assert_eq!(slack("<!channel> & co"), "&lt;!channel&gt; &amp; co");
        assert_eq!(markdown("**a_b** `x`"), "\\*\\*a\\_b\\*\\* \\`x\\`");
    }
}
