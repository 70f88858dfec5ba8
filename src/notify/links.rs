//! What services make links of, written or not: `https://…`, and every `name.tld`. A post with a link costs thirteen times more on X.
use std::ops::Range;

/// What looks like a top-level domain and is none: ends of file names that our own texts have.
const NO_DOMAINS: [&str; 22] = [
    "toml", "json", "yml", "yaml", "log", "conf", "cfg", "txt", "tar", "gz", "zst", "sqlite", "db", "html", "htm",
    "php", "env", "service", "timer", "socket", "jpg", "png",
];

/// The links in a text, from the first to the last.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let mut links: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices("://").chain(text.match_indices('.')) {
        let within = |link: &Range<usize>| link.contains(&at);
        if links.iter().any(within) {
            continue;
        }
        let rest = &text[at..];
        let link = if rest.starts_with("://") { with_scheme(text, at) } else { bare(text, at) };
        links.extend(link);
    }
    links.sort_by_key(|link| link.start);
    links
}

/// `https://host/path`, given where `://` is.
fn with_scheme(text: &str, at: usize) -> Option<Range<usize>> {
    let scheme = ["https", "http"].into_iter().find(|scheme| text[..at].to_ascii_lowercase().ends_with(scheme))?;
    let start = at - scheme.len();
    Some(start..end_of_path(text, at + 3)).filter(|link| link.len() > scheme.len() + 3)
}

/// `name.tld/path`, given where a dot is.
fn bare(text: &str, dot: usize) -> Option<Range<usize>> {
    let before = text[..dot].chars().next_back()?;
    let tld = text[dot + 1..]
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
        .collect::<String>();
    let is_tld = tld.len() >= 2
        && tld.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && (tld.bytes().all(|byte| byte.is_ascii_alphabetic()) || tld.starts_with("xn--"))
        && !NO_DOMAINS.contains(&tld.to_ascii_lowercase().as_str());
    if !before.is_alphanumeric() || !is_tld {
        return None;
    }
    let name = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '.' | '_');
    let start =
        text[..dot].char_indices().rev().take_while(|(_, letter)| name(*letter)).last().map_or(dot, |(at, _)| at);
    let after = dot + 1 + tld.len();
    let has_path = text[after..].starts_with(['/', ':', '.']);
    Some(start..if has_path { end_of_path(text, after) } else { after })
}

/// Where what belongs to a link ends: before a space, what is not ASCII, and the sentence's own marks.
fn end_of_path(text: &str, from: usize) -> usize {
    let is_part = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '"' | '<' | '>' | '`' | '\'');
    let path: &str = text[from..].split(|letter| !is_part(letter)).next().unwrap_or_default();
    from + path.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']']).len()
}

/// The text without anything that a service makes a link of: `https://blog.example.org/a` reads `blog[.]example[.]org/a`.
pub(super) fn defang(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut from = 0;
    for link in find(text) {
        if link.start < from {
            continue;
        }
        clean.push_str(&text[from..link.start]);
        let shown = &text[link.clone()];
        // An address may hold another.
        let bare = shown.split_once("://").map_or(shown, |(_, bare)| bare).replace("://", "[:]//");
        let bare = bare.as_str();
        let (host, path) = bare.find('/').map_or((bare, ""), |slash| bare.split_at(slash));
        let path = if find(path).is_empty() { path.to_owned() } else { path.replace('.', "[.]") };
        clean.push_str(&host.replace('.', "[.]"));
        clean.push_str(&path);
        from = link.end;
    }
    clean.push_str(&text[from..]);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_as_services_find_them() {
        for (text, expected) in [
            ("see https://blog.example.org/a?b=1.", &["https://blog.example.org/a?b=1"][..]),
            ("blog.example.org is down", &["blog.example.org"]),
            ("サイトはexample.comです", &["サイトはexample.com"]),
            ("http://nas:8080/x and 10.0.0.1", &["http://nas:8080/x"]),
            ("me@host.org, jobs/blog.toml: 1.5 GiB, v1.2.3 at 02.14", &["host.org"]),
            ("end. Next. e.g. this", &[]),
            ("(a.de/b), c.io", &["a.de/b", "c.io"]),
            ("://", &[]),
            ("backup.sh", &["backup.sh"]),
        ] {
            let found: Vec<&str> = find(text).into_iter().map(|link| &text[link]).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn nothing_of_a_defanged_text_is_a_link() {
        for text in [
            "see https://blog.example.org/a/b.html?x=y.com now",
            "HTTP://EXAMPLE.COM a.b.co.jp/path.io/x 日本語.com https://https://a.de",
            "http://192.168.1.1/x.pl",
        ] {
            let clean = defang(text);
            assert!(find(&clean).is_empty(), "{clean}");
        }
        assert_eq!(defang("https://blog.example.org/a lacks x"), "blog[.]example[.]org/a lacks x");
        assert_eq!(defang("no link, 1.5 s"), "no link, 1.5 s");
    }
}
