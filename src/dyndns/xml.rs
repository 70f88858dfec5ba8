//! The texts of a small XML document, each with the names of the elements around it.
use xmlparser::{ElementEnd, Token, Tokenizer};

/// Deeper than this no answer is.
const DEEPEST: usize = 32;
/// More texts than this no answer has.
const MOST: usize = 4096;

/// Each text that is more than space, with the names of the elements around it, without prefixes, the outermost first. Where
/// the document is wrong, the texts before that.
#[must_use]
pub fn texts(document: &str) -> Vec<(Vec<&str>, String)> {
    let (mut path, mut found) = (Vec::new(), Vec::new());
    for token in Tokenizer::from(document) {
        match token {
            Ok(Token::ElementStart { local, .. }) if path.len() < DEEPEST => path.push(local.as_str()),
            Ok(Token::ElementEnd { end: ElementEnd::Close(_, local), .. }) if path.last() == Some(&local.as_str()) => {
                path.pop();
            }
            Ok(Token::ElementEnd { end: ElementEnd::Empty, .. }) => {
                path.pop();
            }
            Ok(Token::Text { text } | Token::Cdata { text, .. }) if found.len() < MOST => {
                let text = text.as_str().trim();
                if !text.is_empty() {
                    found.push((path.clone(), plain(text)));
                }
            }
            Ok(Token::ElementStart { .. } | Token::ElementEnd { end: ElementEnd::Close(..), .. }) | Err(_) => break,
            Ok(_) => {}
        }
    }
    found
}

/// The entities that every document may use.
fn plain(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

/// The first text whose innermost element has this name.
pub(super) fn first<'a>(texts: &'a [(Vec<&str>, String)], name: &str) -> Option<&'a str> {
    texts.iter().find(|(path, _)| path.last() == Some(&name)).map(|(_, text)| text.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_with_the_elements_around_them() {
        let found = texts(
            "<?xml version='1.0'?><a xmlns:u='x'><!-- <b>no</b> --><u:b> 1 &amp; 2 </u:b><c/><b><d>3</d></b></a>",
        );
        assert_eq!(found, [(vec!["a", "b"], "1 & 2".to_owned()), (vec!["a", "b", "d"], "3".to_owned())]);
        assert_eq!(first(&found, "d"), Some("3"));
        assert!(texts("<a><b>1</a>").len() <= 1);
        assert!(texts(&"<a>".repeat(10_000)).is_empty());
    }
}
