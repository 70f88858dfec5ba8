//! Slack, Discord, Teams, Telegram, Matrix.
use serde_json::{Value, json};

use super::{Book, Fake, bearer, body, json_answer, place, secret, text};
use crate::support::http::{Reply, Seen, answer};

pub(super) const SLACK: Fake = Fake {
    kind: "slack",
    keys: "url = { env = 'HOOK_URL' }",
    desk: slack,
    knows_keys: false,
    has_threads: false,
    takes_any_200: false,
};

pub(super) const DISCORD: Fake = Fake {
    kind: "discord",
    keys: "url = { env = 'HOOK_URL' }",
    desk: discord,
    knows_keys: false,
    has_threads: false,
    takes_any_200: false,
};

pub(super) const TEAMS: Fake = Fake {
    kind: "teams",
    keys: "url = { env = 'HOOK_URL' }",
    desk: teams,
    knows_keys: false,
    has_threads: false,
    takes_any_200: false,
};

pub(super) const TELEGRAM: Fake = Fake {
    kind: "telegram",
    keys: "url = 'SERVER'\ntoken = { env = 'TOKEN' }\nchat = '-1001234567890'",
    desk: telegram,
    knows_keys: false,
    has_threads: true,
    takes_any_200: false,
};

pub(super) const MATRIX: Fake = Fake {
    kind: "matrix",
    keys: "url = 'SERVER'\ntoken = { env = 'TOKEN' }\nroom = '!abc:example.org'",
    desk: matrix,
    knows_keys: true,
    has_threads: true,
    takes_any_200: false,
};

fn slack(seen: &Seen, book: &mut Book) -> Reply {
    let ("POST", path, "") = place(seen) else { return book.refuse("404 Not Found", "no such path") };
    if path != format!("/{}", secret("HOOK")) {
        return answer("404 Not Found", "", "no_service");
    }
    let body = body(seen);
    // `<!channel>` calls everybody; what is meant as text is escaped.
    let raw = |text: &str| {
        text.contains(['<', '>']) || text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").contains('&')
    };
    let (header, section) = (&body["blocks"][0]["text"], &body["blocks"][1]["text"]);
    let fine = text(header, "/type") == "plain_text"
        && (1..=150).contains(&text(header, "/text").chars().count())
        && text(section, "/type") == "mrkdwn"
        && section["verbatim"] == true
        && (1..=3000).contains(&text(section, "/text").chars().count());
    if !fine || raw(text(section, "/text")) || raw(text(&body, "/text")) || text(&body, "/text").is_empty() {
        book.complaints.push(body.to_string());
        return answer("400 Bad Request", "", "invalid_blocks");
    }
    book.keep(format!("{}\n{}", text(header, "/text"), text(section, "/text")), None);
    answer("200 OK", "content-type: text/html\r\n", "ok")
}

fn discord(seen: &Seen, book: &mut Book) -> Reply {
    let ("POST", path, "wait=true") = place(seen) else { return book.refuse("404 Not Found", "no such path") };
    if path != format!("/{}", secret("HOOK")) {
        return json_answer("404 Not Found", "", &json!({ "message": "Unknown Webhook", "code": 10015 }));
    }
    let body = body(seen);
    let content = text(&body, "/content");
    if content.is_empty() || content.chars().count() > 2000 || body["allowed_mentions"] != json!({ "parse": [] }) {
        return book.refuse("400 Bad Request", "Invalid Form Body");
    }
    let id = book.keep(content.replace('\\', ""), None);
    json_answer("200 OK", "", &json!({ "id": id, "content": content }))
}

fn teams(seen: &Seen, book: &mut Book) -> Reply {
    let ("POST", path, "") = place(seen) else { return book.refuse("404 Not Found", "no such path") };
    if path != format!("/{}", secret("HOOK")) {
        return json_answer("401 Unauthorized", "", &json!({ "error": { "code": "DirectApiAuthorizationRequired" } }));
    }
    if seen.body.len() > 28 << 10 {
        return book.refuse("413 Payload Too Large", "28 KB are too much");
    }
    let body = body(seen);
    let card = &body["attachments"][0];
    let blocks = card.pointer("/content/body").and_then(Value::as_array).cloned().unwrap_or_default();
    let fine = text(&body, "/type") == "message"
        && text(card, "/contentType") == "application/vnd.microsoft.card.adaptive"
        && text(card, "/content/type") == "AdaptiveCard"
        && !text(card, "/content/version").is_empty()
        && !blocks.is_empty()
        && blocks.iter().all(|block| text(block, "/type") == "TextBlock" && !text(block, "/text").is_empty());
    if !fine {
        return book.refuse("400 Bad Request", body.to_string());
    }
    let lines: Vec<String> = blocks.iter().map(|block| text(block, "/text").replace('\\', "")).collect();
    book.keep(lines.join("\n"), None);
    answer("202 Accepted", "", "")
}

fn telegram(seen: &Seen, book: &mut Book) -> Reply {
    let wrong = |status: u16, line: &str, why: &str| {
        json_answer(line, "", &json!({ "ok": false, "error_code": status, "description": why }))
    };
    let ("POST", path, "") = place(seen) else { return book.refuse("404 Not Found", "no such path") };
    if path != format!("/bot{}/sendMessage", secret("TOKEN")) {
        return wrong(401, "401 Unauthorized", "Unauthorized");
    }
    let body = body(seen);
    if text(&body, "/chat_id") != "-1001234567890" {
        return wrong(400, "400 Bad Request", "Bad Request: chat not found");
    }
    let html = text(&body, "/text");
    let (opened, closed) = (html.matches("<b>").count(), html.matches("</b>").count());
    let bare = html.replace("<b>", "").replace("</b>", "");
    if text(&body, "/parse_mode") != "HTML" || opened != closed || bare.contains(['<', '>']) {
        book.complaints.push(html.to_owned());
        return wrong(400, "400 Bad Request", "Bad Request: can't parse entities");
    }
    let plain = bare.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    if plain.is_empty() || plain.encode_utf16().count() > 4096 {
        book.complaints.push(format!("{} letters", plain.encode_utf16().count()));
        return wrong(400, "400 Bad Request", "Bad Request: message is too long");
    }
    let answers = body.pointer("/reply_parameters/message_id").map(|id| id.as_i64().unwrap().to_string());
    let id = book.keep(plain, answers);
    json_answer("200 OK", "", &json!({ "ok": true, "result": { "message_id": id.parse::<i64>().unwrap() } }))
}

fn matrix(seen: &Seen, book: &mut Book) -> Reply {
    let ("PUT", path, "") = place(seen) else { return book.refuse("405 Method Not Allowed", "M_UNRECOGNIZED") };
    let path = path.replace("%3A", ":").replace("%21", "!");
    let Some(transaction) = path.strip_prefix("/_matrix/client/v3/rooms/!abc:example.org/send/m.room.message/") else {
        return json_answer("403 Forbidden", "", &json!({ "errcode": "M_FORBIDDEN", "error": "not in the room" }));
    };
    if bearer(seen) != secret("TOKEN") {
        return json_answer("401 Unauthorized", "", &json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "Unknown token" }));
    }
    if seen.body.len() > 65_000 {
        return book.refuse("413 Payload Too Large", "M_TOO_LARGE");
    }
    if let Some(event) = book.keys.get(transaction) {
        return json_answer("200 OK", "", &json!({ "event_id": event }));
    }
    let body = body(seen);
    let html = text(&body, "/formatted_body").replace("<br>", "").replace("<b>", "").replace("</b>", "");
    if text(&body, "/msgtype") != "m.text"
        || text(&body, "/body").is_empty()
        || body["m.mentions"] != json!({})
        || html.contains(['<', '>'])
    {
        return book.refuse("400 Bad Request", "M_BAD_JSON");
    }
    let answers = body.pointer("/m.relates_to/m.in_reply_to/event_id").map(|id| id.as_str().unwrap().to_owned());
    let id = book.keep(text(&body, "/body"), answers);
    book.keys.insert(transaction.to_owned(), id.clone());
    json_answer("200 OK", "", &json!({ "event_id": id }))
}
