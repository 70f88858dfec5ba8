//! How services count, and cutting where a person would: never inside what is seen as one letter.
use unicode_segmentation::UnicodeSegmentation as _;

/// What is left out stands here.
const MORE: &str = "…";

/// Letters as people see them.
pub(super) fn graphemes(text: &str) -> usize {
    text.graphemes(true).count()
}

/// Numbers of Unicode.
pub(super) fn code_points(text: &str) -> usize {
    text.chars().count()
}

/// What JavaScript counts.
pub(super) fn utf16(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Bytes of UTF-8.
pub(super) fn bytes(text: &str) -> usize {
    text.len()
}

/// `text`, or as much of its beginning as fits with an ellipsis.
pub(super) fn cut(text: &str, fits: impl Fn(&str) -> bool) -> String {
    if fits(text) {
        return text.to_owned();
    }
    // The longest beginning that fits, looked for by halving: every way of counting grows with the text.
    let ends: Vec<usize> = text.grapheme_indices(true).map(|(at, _)| at).collect();
    let shortened = |end: usize| format!("{}{MORE}", text[..end].trim_end());
    let fitting = ends.partition_point(|end| fits(&shortened(*end)));
    match fitting.checked_sub(1).and_then(|last| ends.get(last)) {
        Some(end) => shortened(*end),
        None => String::new(),
    }
}
