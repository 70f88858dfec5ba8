//! Reads a page that anybody may have written: so many nodes, so deep, so long, and no more.
use std::time::{Duration, Instant};

use html5ever::{
    driver::{ParseOpts, parse_document},
    tendril::{StrTendril, TendrilSink as _},
};
use scraper::{ElementRef, Html, HtmlTreeSink};

/// A page with more nodes is not looked into.
const MOST_NODES: usize = 100_000;
/// Nor one that is nested deeper; browsers stop here too.
const DEEPEST: usize = 512;
/// Nor one that takes longer to read.
const LONGEST: Duration = Duration::from_secs(2);
/// So much is read before nodes are counted again: few bytes can make many nodes, as open `<b>`s are made again in each `<p>`.
const PIECE: usize = 16;
/// Of an element's text.
const MOST_TEXT: usize = 64 << 10;

/// The page, if it is one that can be read.
pub(super) fn parse(body: &str) -> Result<Html, String> {
    let begun = Instant::now();
    let whole = StrTendril::from(body);
    let mut parser = parse_document(HtmlTreeSink::new(Html::new_document()), ParseOpts::default());
    let mut start = 0;
    while start < body.len() {
        let end = body.floor_char_boundary((start + PIECE).min(body.len()));
        let piece = whole.subtendril(number(start), number(end - start));
        parser.process(piece);
        start = end;
        let nodes = parser.tokenizer.sink.sink.0.borrow().tree.nodes().len();
        if nodes > MOST_NODES {
            return Err(format!("the page has more than {MOST_NODES} elements and texts"));
        }
        if start % (64 * PIECE) < PIECE && begun.elapsed() > LONGEST {
            return Err("the page is built so that it takes too long to read".to_owned());
        }
    }
    let page = parser.finish();
    if page.tree.nodes().any(|node| node.ancestors().nth(DEEPEST).is_some()) {
        return Err(format!("the page is nested more than {DEEPEST} deep"));
    }
    Ok(page)
}

fn number(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// An element's text with single spaces.
pub(super) fn text(element: &ElementRef<'_>) -> String {
    let mut text = String::new();
    for word in element.text().flat_map(str::split_whitespace) {
        if text.len() + word.len() > MOST_TEXT {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_and_one_that_is_meant_to_break_us_is_not() {
        let page = parse("<ul><li>one<li>two é</ul><h1> Big \n shop </h1>").unwrap();
        let select = |selector: &str| -> Vec<String> {
            let selector = scraper::Selector::parse(selector).unwrap();
            page.select(&selector).map(|element| text(&element)).collect()
        };
        assert_eq!(select("li"), ["one", "two é"]);
        assert_eq!(select("h1"), ["Big shop"]);
        let begun = Instant::now();
        for bomb in [
            "<div>".repeat(200_000),
            "<b a=1><b a=2><b a=3><b a=4>".repeat(20_000) + &"<p>".repeat(100_000),
            "<p>x".repeat(250_000),
            "<table><tr><td>".repeat(60_000),
            "<svg><a>".repeat(100_000),
        ] {
            parse(&bomb).unwrap_err();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}
