//! Judged by other people's libraries, in Python: `dev/test` installs them, and names the interpreter in `RUSUBAN_TEST_PYTHON`.
use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use rusuban::{config::Environment, notify::words::Language};
use serde_json::{Value, json};

use super::{House, blog_is_down, message};
use crate::support::services::{fake, push::WHSEC, secret};

/// Runs a script with this on its standard input; what it printed.
fn python(script: &str, input: &Value) -> String {
    let environment = Environment::of_process();
    let python = environment.get("RUSUBAN_TEST_PYTHON").expect("run by dev/test");
    let mut child =
        Command::new(python).args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
#[ignore = "needs Python with oauthlib: dev/test runs it"]
async fn oauthlib_signs_as_we_do() {
    let house = House::of("x").await;
    for number in 0..5 {
        house.send(&message(&format!("k{number}"), vec![blog_is_down()])).await.unwrap();
    }
    for seen in house.service.server.seen() {
        let header = seen.header("authorization").unwrap();
        let get =
            |name: &str| header.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
        let script = "\
import json, sys
from oauthlib.oauth1 import Client
q = json.load(sys.stdin)
client = Client(q['ck'], q['cs'], q['at'], q['as'], nonce=q['nonce'], timestamp=q['time'])
_, headers, _ = client.sign(q['url'], 'POST', body=None, headers={'Content-Type': 'application/json'})
print(headers['Authorization'].split('oauth_signature=\"')[1].split('\"')[0], end='')";
        let theirs = python(
            script,
            &json!({
                "ck": secret("CONSUMER"), "cs": secret("CONSUMER_SECRET"), "at": secret("ACCESS"), "as": secret("ACCESS_SECRET"),
                "nonce": get("oauth_nonce"), "time": get("oauth_timestamp"), "url": house.service.server.url("/2/tweets"),
            }),
        );
        assert_eq!(theirs, get("oauth_signature"));
    }
}

#[tokio::test]
#[ignore = "needs Python with standardwebhooks: dev/test runs it"]
async fn the_library_of_standard_webhooks_believes_us() {
    let both = "url = 'SERVER/hook'\nsecret = { env = 'NEW_SECRET' }\nold_secret = { env = 'WHSEC' }";
    for keys in [fake("webhook").keys, both] {
        let house = House::with("webhook", keys).await;
        let _ = house.send(&message("k1", vec![blog_is_down()])).await;
        let seen = &house.service.server.seen()[0];
        let header = |name: &str| seen.header(name).unwrap();
        let script = "\
import json, sys
from standardwebhooks.webhooks import Webhook
q = json.load(sys.stdin)
print(Webhook(q['secret']).verify(q['body'], q['headers'])['type'], end='')
try:
    Webhook(q['secret']).verify(q['body'] + ' ', q['headers'])
    print(' and anything else')
except Exception:
    pass";
        let said = python(
            script,
            &json!({
                "secret": WHSEC,
                "body": String::from_utf8(seen.body.clone()).unwrap(),
                "headers": {
                    "webhook-id": header("webhook-id"),
                    "webhook-timestamp": header("webhook-timestamp"),
                    "webhook-signature": header("webhook-signature"),
                },
            }),
        );
        assert_eq!(said, "check.failed");
    }
}

#[tokio::test]
#[ignore = "needs Python: dev/test runs it"]
async fn a_mail_program_reads_what_we_wrote() {
    let post = super::email::Post::with(crate::support::smtp::Manners::default(), "encryption = 'none'").await;
    let mut message = message("k1", vec![blog_is_down()]);
    message.language = Language::Ja;
    message.host = "屋根裏".into();
    post.send(&message).await.unwrap();
    let script = "\
import email, email.policy, json, sys
mail = email.message_from_string(json.load(sys.stdin)['mail'], policy=email.policy.default)
assert not mail.defects and mail.get_content_type() == 'text/plain', mail.defects
print(mail['subject'], mail['to'], mail.get_content(), sep='|', end='')";
    let said = python(script, &json!({ "mail": post.server.mails()[0].text }));
    assert!(
        said.starts_with(
            "[屋根裏] blog が停止しています|me@example.org, you@example.net|blog が停止しています（02:14 から3分）"
        ),
        "{said}"
    );
    let said = said.replace('\r', "");
    assert!(said.trim_end().ends_with("\n-- \n屋根裏 の Rusuban より。時刻は Asia/Tokyo"), "{said}");
}
