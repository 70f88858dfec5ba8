//! Telegram: a bot writes to a chat, a group or a channel.
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Message, Notifier, NotifierEntry, Receipt, Refusal, Sending,
    call::{self, Call},
    clean, count, read, words,
};
use crate::config::{
    mistake::Problem,
    secret::{SecretSource, TextOrSecret},
};

/// This notifier's line in the table.
pub(super) const ENTRY: NotifierEntry = NotifierEntry {
    name: "telegram",
    summary: "A chat, group or channel of Telegram, by a bot",
    example: r#"[notifier.family]
kind  = "telegram"
token = { env = "TELEGRAM_TOKEN" }    # from @BotFather
chat  = "-1001234567890"              # or "@channel"; a person must have written to the bot first
"#,
    parse: read::<Telegram>,
    schema: Telegram::json_schema,
};

/// What a message takes, without its markup.
const MOST: usize = 4096;

/// A bot and where it writes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Telegram {
    /// The bot's token.
    token: TextOrSecret,
    /// The chat: its number, or `@name` of a channel.
    chat: TextOrSecret,
    /// The topic in a group of topics, by its number.
    #[serde(default)]
    topic: Option<i64>,
    /// The server [default: https://api.telegram.org].
    #[serde(default = "server")]
    url: TextOrSecret,
}

fn server() -> TextOrSecret {
    TextOrSecret::Text("https://api.telegram.org".to_owned())
}

#[async_trait]
impl Notifier for Telegram {
    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = call::check_address("url", &self.url).into_iter().collect();
        if let TextOrSecret::Text(chat) = &self.chat
            && !chat.starts_with('@')
            && chat.parse::<i64>().is_err()
        {
            problems.push(
                Problem::new("chat", format!("`{chat}` is no chat"))
                    .hint("write its number, such as `\"-1001234567890\"`, or `\"@name\"` of a channel"),
            );
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        call::secrets([&self.token, &self.chat, &self.url])
    }

    fn spacing(&self) -> Duration {
        // Twenty a minute in a group.
        Duration::from_secs(3)
    }

    async fn send(&self, cx: &Sending, message: &Message) -> Result<Receipt, Refusal> {
        let token = call::read(cx, "token", &self.token).await?;
        let chat = call::read(cx, "chat", &self.chat).await?;
        let server = call::address("url", call::read(cx, "url", &self.url).await?.reveal())?;
        let url = call::below(&server, &[&format!("bot{}", token.reveal()), "sendMessage"]);
        let told = words::write(message);
        let title = clean::without_mentions(&count::cut(&told.title, |text| count::utf16(text) <= 300));
        let plain = |text: &str| format!("{title}\n{}", clean::without_mentions(text));
        let text = told.below_title().fit(|text| count::utf16(&plain(text)) <= MOST);
        let mut body = json!({
            "chat_id": chat.reveal(),
            "text": format!("<b>{}</b>\n{}", clean::html(&title), clean::html(&clean::without_mentions(&text))),
            "parse_mode": "HTML",
            "link_preview_options": { "is_disabled": true },
        });
        if let Some(topic) = self.topic {
            body["message_thread_id"] = topic.into();
        }
        if let Some(first) = message.thread.as_ref().and_then(|thread| thread.get("message")).and_then(Value::as_i64) {
            body["reply_parameters"] = json!({ "message_id": first, "allow_sending_without_reply": true });
        }
        let answer = Call::new(cx, "Telegram", Method::POST, url).hide(&token).json(&body).answer().await?;
        let json = answer.json().unwrap_or_default();
        if json.get("ok") == Some(&Value::Bool(true)) {
            let first =
                message.thread.clone().or_else(|| Some(json!({ "message": json.pointer("/result/message_id")? })));
            return Ok(Receipt { reference: first, cost: 0 });
        }
        let parameter = |name: &str| json.get("parameters").and_then(|all| all.get(name));
        let description = json.get("description").and_then(Value::as_str).unwrap_or_default();
        match answer.status.as_u16() {
            200..=299 => Err(answer.not_understood()),
            429 => {
                let after = parameter("retry_after").and_then(Value::as_u64);
                Err(answer.later(after.map(Duration::from_secs)))
            }
            400 => match parameter("migrate_to_chat_id") {
                Some(new) => Err(answer.never(&format!("the group has become another: set `chat = \"{new}\"`"))),
                None if description.contains("chat not found") => {
                    Err(answer.never("write to the bot first, or invite it, and look at `chat`"))
                }
                None => Err(answer.not_this()),
            },
            401 | 404 => Err(answer.never("look at `token`")),
            403 => Err(answer.never("the bot was blocked or is no member: invite it again")),
            _ => Err(answer.refusal()),
        }
    }
}
