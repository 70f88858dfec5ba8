//! X: it checks the signature by itself, counts as it says it counts, refuses the same text twice, and takes money.
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::Utc;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha1::Sha1;

use super::{Book, Fake, body, json_answer, place, secret, text};
use crate::support::http::{Reply, Seen};

pub(super) const FAKE: Fake = Fake {
    kind: "x",
    keys: "url = 'SERVER'\nconsumer_key = { env = 'CONSUMER' }\nconsumer_secret = { env = 'CONSUMER_SECRET' }\n\
        access_token = { env = 'ACCESS' }\naccess_secret = { env = 'ACCESS_SECRET' }",
    desk,
    knows_keys: true,
    has_threads: true,
    takes_any_200: false,
};

/// Ends of names that X makes links of; of thousands, those that our texts have.
const DOMAINS: [&str; 6] = [".com", ".org", ".example", ".jp", ".io", ".net"];

fn desk(seen: &Seen, book: &mut Book) -> Reply {
    let ("POST", "/2/tweets", "") = place(seen) else { return book.refuse("404 Not Found", "no such path") };
    if let Err(why) = is_signed(seen, book) {
        book.complaints.push(why.clone());
        return json_answer("401 Unauthorized", "", &json!({ "title": "Unauthorized", "status": 401, "detail": why }));
    }
    let body = body(seen);
    let post = text(&body, "/text").to_owned();
    if post.is_empty() || weight(&post) > 280 {
        return book.refuse("400 Bad Request", format!("the post weighs {}", weight(&post)));
    }
    if book.posts.iter().any(|known| known.text == post) {
        let detail = "You are not allowed to create a Tweet with duplicate content.";
        return json_answer("403 Forbidden", "", &json!({ "title": "Forbidden", "status": 403, "detail": detail }));
    }
    let answers = body.pointer("/reply/in_reply_to_tweet_id").map(|id| id.as_str().unwrap().to_owned());
    if let Some(first) = answers.as_ref().filter(|first| !book.knows(first)) {
        let detail = format!("You attempted to reply to a Tweet that is deleted or not visible to you: {first}");
        return json_answer("403 Forbidden", "", &json!({ "title": "Forbidden", "status": 403, "detail": detail }));
    }
    if DOMAINS.iter().any(|domain| post.contains(domain)) {
        book.keys.insert(format!("dear {}", book.posts.len()), post.clone());
    }
    let id = book.keep(&post, answers);
    json_answer("201 Created", "", &json!({ "data": { "id": id, "text": post } }))
}

/// By the specification, without the library that signs.
fn is_signed(seen: &Seen, book: &mut Book) -> Result<(), String> {
    let header = seen.header("authorization").and_then(|value| value.strip_prefix("OAuth ")).ok_or("no OAuth")?;
    let mut parameters = Vec::new();
    let mut signature = String::new();
    for part in header.split(',') {
        let (name, value) = part.trim().split_once('=').ok_or("no pair")?;
        let value = decoded(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or("no quotes")?);
        if name == "oauth_signature" {
            signature = value;
        } else {
            parameters.push((name.to_owned(), value));
        }
    }
    let get = |name: &str| {
        parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    if get("oauth_consumer_key") != secret("CONSUMER") || get("oauth_token") != secret("ACCESS") {
        return Err("unknown keys".into());
    }
    if get("oauth_signature_method") != "HMAC-SHA1" || get("oauth_version") != "1.0" {
        return Err("another method".into());
    }
    let at: i64 = get("oauth_timestamp").parse().map_err(|_| "no time")?;
    #[expect(clippy::disallowed_methods, reason = "the server has a clock of its own")]
    let now = Utc::now().timestamp();
    if (now - at).abs() > 300 {
        return Err("Timestamp out of bounds".into());
    }
    if book.keys.insert(format!("nonce {}", get("oauth_nonce")), String::new()).is_some()
        || get("oauth_nonce").len() < 8
    {
        return Err("the nonce was used before".into());
    }
    parameters.sort();
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let url = format!("http://{}/2/tweets", seen.header("host").unwrap());
    let base = format!("POST&{}&{}", encoded(&url), encoded(&pairs.join("&")));
    let key = format!("{}&{}", encoded(&secret("CONSUMER_SECRET")), encoded(&secret("ACCESS_SECRET")));
    let mut hmac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).unwrap();
    hmac.update(base.as_bytes());
    let expected = BASE64_STANDARD.encode(hmac.finalize().into_bytes());
    if expected == signature { Ok(()) } else { Err(format!("the signature should be {expected}")) }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&more[..2]).unwrap(), 16).unwrap());
            rest = &more[2..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Letter by letter, by the table of X; our long texts have neither emoji made of several nor links.
fn weight(text: &str) -> usize {
    let one = |letter: char| matches!(u32::from(letter), 0..=4351 | 8192..=8205 | 8208..=8223 | 8242..=8247);
    text.chars().map(|letter| if one(letter) { 1 } else { 2 }).sum()
}
