//! What can be compared with what.
use std::ops::Range;

use super::{Literal, Op, What, Wrong};

/// How a value is used.
pub(super) fn example(what: &What) -> &'static str {
    match what {
        What::Status => "status == 200",
        What::Time => "time < 800ms",
        What::Size => "size > 2 KiB",
        What::Certificate => "certificate > 14d",
        What::Domain => "domain > 30d",
        What::Http => "http >= 2",
        What::Redirects => "redirects == 0",
        What::Redirect => "redirect == \"https://example.org/\"",
        What::Url => "url contains \"/login\"",
        What::Address => "address == \"192.0.2.1\"",
        What::Body => "body contains \"Welcome\"",
        What::Answer => "answer == \"192.0.2.1\"",
        What::Header(_) => "header(\"content-type\") contains \"html\"",
        What::Json(_) => "json(\"$.status\") == \"ok\"",
        What::Css(_) => "css(\"h1\") == \"Welcome\"",
        What::Count(_) => "count(css(\"li\")) >= 3",
    }
}

/// Whether a value can be compared with that at all.
pub(super) fn fits(
    what: &What,
    op: Op,
    literal: &Literal,
    op_at: &Range<usize>,
    at: &Range<usize>,
) -> Result<(), Wrong> {
    let is_order = !matches!(op, Op::Equal | Op::Unequal);
    let wanted = match (what, literal) {
        (What::Status, Literal::Class(_)) if is_order => {
            return Err(Wrong::new(op_at.clone(), "a class of statuses is neither less nor more")
                .hint(format!("write `status == {literal}` or `status < 300`")));
        }
        (What::Status, Literal::Number(number)) if !(100.0..=599.0).contains(number) => {
            return Err(Wrong::new(at.clone(), format!("{number} is no HTTP status")).hint("they go from 100 to 599"));
        }
        (What::Status, Literal::Number(_) | Literal::Class(_))
        | (What::Http | What::Redirects | What::Count(_), Literal::Number(_))
        | (What::Time | What::Certificate | What::Domain, Literal::Span(_))
        | (What::Size, Literal::Size(_))
        | (What::Redirect | What::Url | What::Address | What::Body | What::Answer, Literal::Text(_))
        | (What::Header(_) | What::Css(_), Literal::Text(_) | Literal::Number(_))
        | (What::Json(_), Literal::Text(_) | Literal::Number(_) | Literal::Boolean(_) | Literal::Null) => return Ok(()),
        (What::Status, _) => "a status such as `200` or `2xx`",
        (What::Http | What::Redirects | What::Count(_), _) => "a number",
        (What::Time, _) => "a length of time such as `800ms` or `2s`",
        (What::Certificate | What::Domain, _) => "a length of time such as `14d`",
        (What::Size, _) => "a size such as `500 kB` or `2 MiB`",
        (What::Json(_), _) => "a text, a number, `true`, `false` or `null`",
        (What::Header(_) | What::Css(_), _) => "a text or a number",
        _ => "a text in quotes",
    };
    Err(Wrong::new(at.clone(), format!("`{what}` is compared with {wanted}"))
        .hint(format!("write it as in `{}`", example(what))))
}
