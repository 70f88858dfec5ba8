//! Mastodon, Bluesky, Misskey.
use chrono::DateTime;
use serde_json::{Value, json};
use unicode_segmentation::UnicodeSegmentation as _;

use super::{Book, Fake, bearer, body, json_answer, place, secret, text};
use crate::support::http::{Reply, Seen};

pub(super) const MASTODON: Fake = Fake {
    kind: "mastodon",
    keys: "url = 'SERVER'\ntoken = { env = 'TOKEN' }",
    desk: mastodon,
    knows_keys: true,
    has_threads: true,
    takes_any_200: false,
};

pub(super) const BLUESKY: Fake = Fake {
    kind: "bluesky",
    keys: "url = 'SERVER'\nuser = 'attic.bsky.social'\npassword = { env = 'PASSWORD' }",
    desk: bluesky,
    knows_keys: true,
    has_threads: true,
    takes_any_200: false,
};

pub(super) const MISSKEY: Fake = Fake {
    kind: "misskey",
    keys: "url = 'SERVER'\ntoken = { env = 'TOKEN' }",
    desk: misskey,
    knows_keys: false,
    has_threads: true,
    takes_any_200: false,
};

/// This instance takes fewer letters than most.
const MASTODON_MOST: usize = 320;

fn mastodon(seen: &Seen, book: &mut Book) -> Reply {
    match place(seen) {
        ("GET", "/api/v2/instance", _) => {
            book.asked += 1;
            let statuses = json!({ "max_characters": MASTODON_MOST, "characters_reserved_per_url": 23 });
            return json_answer("200 OK", "", &json!({ "configuration": { "statuses": statuses } }));
        }
        ("POST", "/api/v1/statuses", _) => {}
        _ => return book.refuse("404 Not Found", "no such path"),
    }
    if bearer(seen) != secret("TOKEN") {
        return json_answer("401 Unauthorized", "", &json!({ "error": "The access token is invalid" }));
    }
    let key = seen.header("idempotency-key").unwrap_or_default().to_owned();
    if key.is_empty() {
        return book.refuse("422 Unprocessable Entity", "no idempotency key");
    }
    let body = body(seen);
    if !matches!(text(&body, "/visibility"), "public" | "unlisted" | "private" | "direct")
        || text(&body, "/language").len() != 2
    {
        return book.refuse("422 Unprocessable Entity", "no such visibility or language");
    }
    let status = text(&body, "/status");
    let length = status.graphemes(true).count();
    if status.trim().is_empty() || length > MASTODON_MOST {
        return book.refuse(
            "422 Unprocessable Entity",
            format!("Validation failed: Text character limit of {MASTODON_MOST} exceeded ({length})"),
        );
    }
    if let Some(id) = book.keys.get(&key) {
        return json_answer("200 OK", "", &json!({ "id": id }));
    }
    let answers = body.get("in_reply_to_id").map(|id| id.as_str().unwrap().to_owned());
    if answers.as_ref().is_some_and(|first| !book.knows(first)) {
        return json_answer(
            "404 Not Found",
            "",
            &json!({ "error": "The post you are trying to reply to does not exist" }),
        );
    }
    let id = book.keep(status, answers);
    book.keys.insert(key, id.clone());
    json_answer("200 OK", "", &json!({ "id": id, "url": format!("https://mastodon.example/@attic/{id}") }))
}

fn bluesky(seen: &Seen, book: &mut Book) -> Reply {
    let number = |book: &Book| book.keys.get("session").map_or(0, |number| number.parse::<usize>().unwrap());
    let open = |book: &mut Book, number: usize| {
        book.keys.insert("session".into(), number.to_string());
        let did = "did:plc:atticatticattic";
        json_answer(
            "200 OK",
            "",
            &json!({
                "did": did, "handle": "attic.bsky.social",
                "accessJwt": format!("access-token-{number}"), "refreshJwt": format!("refresh-token-{number}"),
            }),
        )
    };
    match place(seen) {
        ("POST", "/xrpc/com.atproto.server.createSession", _) => {
            let body = body(seen);
            if text(&body, "/identifier") != "attic.bsky.social" || text(&body, "/password") != secret("PASSWORD") {
                let wrong = json!({ "error": "AuthenticationRequired", "message": "Invalid identifier or password" });
                return json_answer("401 Unauthorized", "", &wrong);
            }
            book.asked += 1;
            let next = number(book) + 1;
            return open(book, next);
        }
        ("POST", "/xrpc/com.atproto.server.refreshSession", _) => {
            if bearer(seen) != format!("refresh-token-{}", number(book)) || !seen.body.is_empty() {
                return json_answer(
                    "400 Bad Request",
                    "",
                    &json!({ "error": "ExpiredToken", "message": "Token has expired" }),
                );
            }
            let next = number(book) + 1;
            return open(book, next);
        }
        ("POST", "/xrpc/com.atproto.repo.putRecord", _) => {}
        _ => return book.refuse("404 Not Found", "no such method"),
    }
    // A test ends a session by this word.
    if book.keys.remove("expired").is_some() || bearer(seen) != format!("access-token-{}", number(book)) {
        return json_answer("400 Bad Request", "", &json!({ "error": "ExpiredToken", "message": "Token has expired" }));
    }
    let body = body(seen);
    let key = text(&body, "/rkey").to_owned();
    let is_tid =
        key.len() == 13 && key.bytes().all(|b| matches!(b, b'2'..=b'7' | b'a'..=b'z')) && key.as_bytes()[0] <= b'j';
    if text(&body, "/repo") != "did:plc:atticatticattic"
        || text(&body, "/collection") != "app.bsky.feed.post"
        || !is_tid
    {
        return book.refuse("400 Bad Request", format!("no such place: {key}"));
    }
    let post = text(&body, "/record/text");
    if text(&body, "/record/$type") != "app.bsky.feed.post"
        || DateTime::parse_from_rfc3339(text(&body, "/record/createdAt")).is_err()
        || post.graphemes(true).count() > 300
        || post.len() > 3000
    {
        return book.refuse("400 Bad Request", "Invalid app.bsky.feed.post record");
    }
    for facet in body.pointer("/record/facets").and_then(Value::as_array).into_iter().flatten() {
        let place = |name: &str| usize::try_from(facet["index"][name].as_u64().unwrap()).unwrap();
        let (start, end) = (place("byteStart"), place("byteEnd"));
        if post.get(start..end) != facet.pointer("/features/0/uri").and_then(Value::as_str) {
            return book.refuse("400 Bad Request", "a facet that is not there");
        }
    }
    let answers = body
        .pointer("/record/reply")
        .map(|reply| (text(reply, "/root/uri").to_owned(), text(reply, "/parent/cid").to_owned()));
    let answers = match answers {
        Some((uri, cid)) => match book.keys.get(&uri) {
            Some(id) if cid == format!("cid-{id}") => Some(id.clone()),
            _ => return book.refuse("400 Bad Request", "it answers nothing"),
        },
        None => None,
    };
    let uri = format!("at://did:plc:atticatticattic/app.bsky.feed.post/{key}");
    let id = match book.keys.get(&uri) {
        Some(id) => id.clone(),
        None => book.keep(post, answers),
    };
    book.keys.insert(uri.clone(), id.clone());
    json_answer("200 OK", "", &json!({ "uri": uri, "cid": format!("cid-{id}"), "validationStatus": "valid" }))
}

fn misskey(seen: &Seen, book: &mut Book) -> Reply {
    let error = |status: &str, code: &str| {
        json_answer(
            status,
            "",
            &json!({ "error": { "message": "No.", "code": code, "id": "b5c9a3f0", "kind": "client" } }),
        )
    };
    let (method, path, _) = place(seen);
    let body = body(seen);
    match (method, path) {
        ("POST", "/api/meta") => {
            book.asked += 1;
            return json_answer("200 OK", "", &json!({ "maxNoteTextLength": 400 }));
        }
        ("POST", "/api/notes/create") => {}
        _ => return book.refuse("404 Not Found", "no such path"),
    }
    if text(&body, "/i") != secret("TOKEN") {
        return error("401 Unauthorized", "AUTHENTICATION_FAILED");
    }
    let note = text(&body, "/text");
    if note.trim().is_empty()
        || note.chars().count() > 400
        || !matches!(text(&body, "/visibility"), "public" | "home" | "followers")
    {
        return book.refuse("400 Bad Request", "INVALID_PARAM");
    }
    let answers = body.get("replyId").map(|id| id.as_str().unwrap().to_owned());
    if answers.as_ref().is_some_and(|first| !book.knows(first)) {
        return error("400 Bad Request", "NO_SUCH_REPLY_TARGET");
    }
    let id = book.keep(note, answers);
    json_answer("200 OK", "", &json!({ "createdNote": { "id": id } }))
}
