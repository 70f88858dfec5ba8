//! ntfy, Gotify, healthchecks, the Apprise API, and a receiver of webhooks.
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use super::{Book, Fake, bearer, body, json_answer, place, secret, text};
use crate::support::http::{Reply, Seen, answer};

pub(super) const NTFY: Fake = Fake {
    kind: "ntfy",
    keys: "url = 'SERVER'\ntopic = { env = 'TOPIC' }\ntoken = { env = 'TOKEN' }",
    desk: ntfy,
    knows_keys: false,
    has_threads: false,
    takes_any_200: false,
};

pub(super) const GOTIFY: Fake = Fake {
    kind: "gotify",
    keys: "url = 'SERVER/behind/a/proxy/'\ntoken = { env = 'TOKEN' }",
    desk: gotify,
    knows_keys: false,
    has_threads: false,
    takes_any_200: false,
};

pub(super) const HEALTHCHECKS: Fake = Fake {
    kind: "healthchecks",
    keys: "url = { env = 'HOOK_URL' }",
    desk: healthchecks,
    knows_keys: false,
    has_threads: false,
    takes_any_200: false,
};

pub(super) const APPRISE: Fake = Fake {
    kind: "apprise",
    keys: "url = 'SERVER'\nkey = { env = 'KEY' }\ntag = 'admins'",
    desk: apprise,
    knows_keys: false,
    has_threads: false,
    takes_any_200: false,
};

pub(super) const WEBHOOK: Fake = Fake {
    kind: "webhook",
    keys: "url = 'SERVER/hook'\nsecret = { env = 'WHSEC' }\nheaders = { x-own = { env = 'TOKEN' } }",
    desk: webhook,
    knows_keys: true,
    has_threads: false,
    takes_any_200: true,
};

/// The secret that signs webhooks in tests.
pub(crate) const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn ntfy(seen: &Seen, book: &mut Book) -> Reply {
    let ("POST", "/", "") = place(seen) else { return book.refuse("404 Not Found", "no such path") };
    if bearer(seen) != secret("TOKEN") {
        return json_answer("401 Unauthorized", "", &json!({ "code": 40101, "http": 401, "error": "unauthorized" }));
    }
    let body = body(seen);
    let fine = text(&body, "/topic") == secret("TOPIC")
        && (1..=4096).contains(&text(&body, "/message").len())
        && (1..=1024).contains(&text(&body, "/title").len())
        && body["priority"].as_u64().is_some_and(|priority| (1..=5).contains(&priority))
        && body["tags"].as_array().is_some_and(|tags| tags.iter().all(|tag| tag.as_str().is_some()));
    if !fine {
        return book.refuse("400 Bad Request", body.to_string());
    }
    let id = book.keep(format!("{}\n{}", text(&body, "/title"), text(&body, "/message")), None);
    json_answer("200 OK", "", &json!({ "id": id, "event": "message" }))
}

fn gotify(seen: &Seen, book: &mut Book) -> Reply {
    let ("POST", "/behind/a/proxy/message", "") = place(seen) else {
        return book.refuse("404 Not Found", "no such path");
    };
    if seen.header("x-gotify-key") != Some(&secret("TOKEN")) {
        let wrong = json!({ "error": "Unauthorized", "errorCode": 401, "errorDescription": "you need to provide a valid access token" });
        return json_answer("401 Unauthorized", "", &wrong);
    }
    let body = body(seen);
    if text(&body, "/message").is_empty() || !body["priority"].is_u64() {
        return book.refuse("400 Bad Request", body.to_string());
    }
    let id = book.keep(format!("{}\n{}", text(&body, "/title"), text(&body, "/message")), None);
    json_answer("200 OK", "", &json!({ "id": id.parse::<u64>().unwrap(), "appid": 1 }))
}

fn healthchecks(seen: &Seen, book: &mut Book) -> Reply {
    let ("POST", path, "") = place(seen) else { return book.refuse("404 Not Found", "no such path") };
    let check = format!("/{}", secret("HOOK"));
    let Some(signal) = path.strip_prefix(&check) else { return answer("404 Not Found", "", "(not found)") };
    if !matches!(signal, "" | "/fail" | "/log") || seen.body.len() > 10_000 {
        return book.refuse("400 Bad Request", format!("(invalid url format) {signal}"));
    }
    let body = String::from_utf8(seen.body.clone()).unwrap();
    book.keep(format!("{signal} {body}"), None);
    answer("200 OK", "content-type: text/plain\r\n", "OK")
}

fn apprise(seen: &Seen, book: &mut Book) -> Reply {
    let ("POST", path, "") = place(seen) else { return book.refuse("404 Not Found", "no such path") };
    if path != format!("/notify/{}", secret("KEY")) {
        return answer("204 No Content", "", "");
    }
    let body = body(seen);
    let fine = matches!(text(&body, "/type"), "info" | "success" | "warning" | "failure")
        && !text(&body, "/body").is_empty()
        && text(&body, "/tag") == "admins";
    if !fine {
        return book.refuse("400 Bad Request", body.to_string());
    }
    book.keep(format!("{}\n{}", text(&body, "/title"), text(&body, "/body")), None);
    json_answer("200 OK", "", &json!({ "error": null, "details": [] }))
}

fn webhook(seen: &Seen, book: &mut Book) -> Reply {
    let ("POST", "/hook", "") = place(seen) else { return book.refuse("404 Not Found", "no such path") };
    let header = |name: &str| seen.header(name).unwrap_or_default().to_owned();
    let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
    #[expect(clippy::disallowed_methods, reason = "the receiver has a clock of its own")]
    let now = Utc::now().timestamp();
    let key = BASE64_STANDARD.decode(WHSEC.trim_start_matches("whsec_")).unwrap();
    let sum = |key: &[u8], text: &[u8]| {
        let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        hmac.update(text);
        hmac.finalize().into_bytes()
    };
    let signed = [id.as_bytes(), b".", at.as_bytes(), b".", &seen.body].concat();
    let expected = format!("v1,{}", BASE64_STANDARD.encode(sum(&key, &signed)));
    if !header("webhook-signature").split(' ').any(|signature| signature == expected) {
        return book.refuse("401 Unauthorized", "the signature is wrong");
    }
    let hub: String = sum(WHSEC.as_bytes(), &seen.body).iter().map(|byte| format!("{byte:02x}")).collect();
    if header("x-hub-signature-256") != format!("sha256={hub}") {
        return book.refuse("401 Unauthorized", "GitHub's signature is wrong");
    }
    if (now - at.parse::<i64>().unwrap_or_default()).abs() > 300 || header("x-own") != secret("TOKEN") {
        return book.refuse("401 Unauthorized", "too old, or a stranger");
    }
    if seen.body.len() > 20_000 {
        return book.refuse("413 Payload Too Large", "20 kB are too much");
    }
    let body = body(seen);
    if text(&body, "/type").is_empty() || DateTime::parse_from_rfc3339(text(&body, "/timestamp")).is_err() {
        return book.refuse("400 Bad Request", body.to_string());
    }
    if !book.keys.contains_key(&id) {
        let kept = book.keep(text(&body, "/data/text"), None);
        book.keys.insert(id, kept);
    }
    answer("204 No Content", "", "")
}
